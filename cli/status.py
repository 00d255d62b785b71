"""`jit-ssh status`: what this machine holds, from local files and the agent alone, fast enough for a prompt."""

import time
from typing import Final

import click

from cli import held as holding
from cli import output
from cli.directory import Directory

_SOON: Final = 600  # seconds before the end of a grant that are worth a warning


@click.command(epilog='Examples:\n\n\b\n  jit-ssh status\n  PS1=\'$(jit-ssh status --quiet && echo "[jit] ")\'"$PS1"')
@click.option("--quiet", is_flag=True, help="Print nothing; only the exit code tells.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def status(ctx: click.Context, quiet: bool, as_json: bool) -> None:
    """Show what you hold and the time left.

    From this machine's files and agent, without asking the CA. Exits with 0 when you hold one that ssh can use, with 1
    when you hold none.
    """
    directory, now = Directory.of_home(), int(time.time())
    current = [held for held in holding.of_this_machine(directory) if now < held.until]
    in_agent = holding.identities() if any(held.agent for held in current) else frozenset()
    usable = {held.role for held in current if held.usable(directory, now, in_agent)}
    if as_json:
        output.result_json([holding.shown(directory, held) | {"usable": held.role in usable} for held in current])
    elif not quiet:
        for held in current:
            lost = "" if held.role in usable or now >= held.valid_before else ", but its key is gone from the agent: log in again"
            output.result(f"{held.role} until {output.moment(held.until, now)}, serial {held.serial}{lost}")
            for account in held.accounts:
                output.result(f"  {account}")
            if held.valid_before < held.until:
                ends = output.moment(held.valid_before, now)
                output.result(f"  its certificate is for a part of that time, until {ends}; ssh gets the next one")
            if held.until - now < _SOON:
                output.talk(f"Under {output.duration(_SOON)} left: jit-ssh extend {held.role} --reason …")
        if not current:
            output.talk("You hold nothing. See what you can have: jit-ssh roles")
    ctx.exit(0 if usable else 1)
