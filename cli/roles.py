"""`jit-ssh roles`: what this person can have, at once or with approval, and why the rest is not for them."""

import time
from typing import Final

import click

from cli import output
from cli.answers import Role, Roles, ways_lines
from cli.machine import Machine

_WORDS: Final = {"granted": "yours at once", "approval": "needs approval", "denied": "not for you"}


def introduced(answer: Roles) -> str:
    """The person, with their groups."""
    return f"{answer.person} ({', '.join(answer.groups) or 'in no group'}){', an auditor' if answer.auditor else ''}"


@click.command(epilog="Examples:\n\n\b\n  jit-ssh roles\n  jit-ssh roles --json")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def roles(as_json: bool) -> None:
    """List the roles: what you can have, and why not.

    For each: whether it is yours at once, needs approval or is not for you, and why; its accounts and hosts, how long it lasts,
    and what its reason has to be.
    """
    answer = Machine.here().read_roles()
    if as_json:
        output.result_json(answer)
        return
    output.talk(f"You are {introduced(answer)}")
    for role in sorted(answer.roles, key=lambda role: (list(_WORDS).index(role.outcome), role.role)):
        _tell(role)


def _tell(role: Role) -> None:
    output.result(f"{role.role}: {_WORDS[role.outcome]}{', a default' if role.default else ''}")
    now = int(time.time())
    shortened = role.until is not None and role.until < now + role.default_duration - 60
    until = f", until {output.moment(role.until, now)} at this time of day" if role.until is not None and shortened else ""
    output.fields(
        {
            "  about": role.about,
            "  accounts": "; ".join(str(account) for account in role.accounts),
            "  for": f"{output.duration(role.default_duration)}, at most {output.duration(role.max_duration)}{until}",
            "  reason": role.reason_message or "",
            "  permits": ", ".join(role.permit),
            "  runs only": role.force_command or "",
            "  owner": role.owner,
        }
    )
    if role.outcome != "granted":
        for line in ways_lines(role.ways):
            output.result(f"  {line}")
