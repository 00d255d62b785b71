"""`jit-ssh-ca break-glass`: what is prepared while all is well, and what is done afterwards."""

import click

from server.aftermath_commands import watch


@click.group("break-glass")
def break_glass() -> None:
    """Prepare for the day on which this CA is gone, and take account afterwards."""


for command in (watch,):
    break_glass.add_command(command)
