"""Programs that are run to be measured, or to measure with."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

BIN = Path(sys.executable).parent


def command(arguments: Sequence[str], environment: dict[str, str] | None = None, seconds: float = 60) -> str:
    """Runs a program to its end, which has to come in so many `seconds`; what it printed."""
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments[:3])} … failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def agent(socket: Path) -> Iterator[str]:
    """A private ssh-agent, until the block ends."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as running:
        try:
            if running.stdout:
                running.stdout.readline()  # it prints its socket when it listens
            yield str(socket)
        finally:
            running.terminate()
