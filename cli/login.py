"""`jit-ssh login` and `logout`: get certificates, at once or when others have approved, and remove them."""

import time
from collections.abc import Iterable, Iterator
from typing import Final

import click

from ca.errors import Misconfigured, NotFound
from ca.signers.agent_socket import Agent
from cli import agent as agents
from cli import held as holding
from cli import known, output, profile
from cli.answers import Role
from cli.asking import Wish, obtain, pick_up
from cli.case import Case
from cli.completion import complete_held, complete_role
from cli.directory import Directory
from cli.held import Held
from cli.machine import Machine
from cli.problems import Denied
from cli.taking import in_agent

WAITING: Final = 4  # the exit code of a request that waits


@click.command(
    epilog="Examples:\n\n\b\n  jit-ssh login\n  jit-ssh login web-admin --reason 'INC-12 disk full' --for 30m && ssh root@web-1\n"
    "  jit-ssh login root@web-1 --reason 'INC-12 disk full'\n  jit-ssh login --request 17"
)
@click.argument("roles", nargs=-1, metavar="[ROLE]...", shell_complete=complete_role)
@click.option("--reason", default="", help="Why you need it, in one line; it stays in the log.")
@click.option("--for", "duration", type=output.DurationType(), help="How long, e.g. 30m; the role's default if absent.")
@click.option("--no-wait", is_flag=True, help="If an approval is needed, print the request's number and end with 4.")
@click.option("--request", "number", type=click.IntRange(1), metavar="N", help="Pick up, or go on waiting for, request N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def login(roles: tuple[str, ...], reason: str, duration: int | None, no_wait: bool, number: int | None, as_json: bool) -> int:
    """Get certificates, and give them to ssh.

    A ROLE, or ACCOUNT@HOST for the narrowest role that reaches it now. Without one: every role that is marked as a default and
    granted to you at once. If an approval is needed, this waits for it. The key is new each time; it stays in your ssh-agent
    until the certificate expires, or in a file for you alone when there is no agent that can hold it.
    """
    if number is not None and (roles or reason or duration):
        raise click.UsageError("--request stands alone: the role, reason and duration are those of the request.")
    machine = Machine.here()
    results: Iterable[Held | Case] = (
        [pick_up(machine, number, wait=not no_wait)]
        if number is not None
        else (obtain(machine, wish, wait=not no_wait) for wish in _wishes(machine, roles, duration, reason))
    )
    told: list[Held | Case] = []
    refused: list[object] = []
    try:
        for each in results:
            told.append(each)
            if not as_json:
                tell(machine.directory, each)
    except Denied as error:
        refused = [error.told] if error.told is not None else []
        raise
    finally:
        if as_json and (told or refused):
            shown = [each if isinstance(each, Case) else holding.shown(machine.directory, each) for each in told]
            output.result_json([*shown, *refused])
    return WAITING if any(isinstance(each, Case) for each in told) else 0


def _wishes(machine: Machine, names: tuple[str, ...], duration: int | None, reason: str) -> Iterator[Wish]:
    if not names:
        for role in _defaults(machine):
            yield Wish(role.role, duration, reason, role)
    for name in names:
        listed = _reaching(machine, name) if "@" in name else None
        yield Wish(listed.role if listed else name, duration, reason, listed)


def _defaults(machine: Machine) -> list[Role]:
    """The roles that a login without a role takes. Raises `Misconfigured` when there is none."""
    defaults = [role for role in machine.read_roles().roles if role.default and role.outcome == "granted"]
    if not defaults:
        raise Misconfigured("no role is both a default and granted to you", "See what you can have: jit-ssh roles")
    return defaults


def _reaching(machine: Machine, destination: str) -> Role:
    """The narrowest role that reaches ACCOUNT@HOST and works now. Raises `NotFound`."""
    account, _, host = destination.rpartition("@")
    found = known.reaching(machine.read_roles().roles, account, host)
    if not found:
        hint = "Is the host's name in a group of the CA's hosts.toml? jit-ssh roles shows the names that roles reach"
        raise NotFound(f"no role reaches {account} on {host}", hint)
    output.talk(f"{found[0].role} reaches {destination}")
    return found[0]


def tell(directory: Directory, each: Held | Case) -> None:
    """Prints what came of a request."""
    if isinstance(each, Case):
        output.result(str(each.request))
        output.talk(f"Request {each.request} for {each.role} waits for {each.waits_for}")
        output.talk(f"Next: jit-ssh login --request {each.request}")
    else:
        _tell_held(directory, each)


def _tell_held(directory: Directory, held: Held) -> None:
    now = int(time.time())
    output.result(f"{held.person} holds {held.role} until {output.moment(held.until, now)}, serial {held.serial}")
    for account in held.accounts:
        output.result(f"  {account}")
    place = "in your ssh-agent" if held.agent else f"in {directory.of_role(held.role, '-cert')}"
    output.result(f"  key and certificate are {place}")
    output.talk(f"Next: ssh {held.accounts[0].example}")


@click.command(epilog="Examples:\n\n\b\n  jit-ssh logout\n  jit-ssh logout web-admin")
@click.argument("roles", nargs=-1, metavar="[ROLE]...", shell_complete=complete_held)
def logout(roles: tuple[str, ...]) -> None:
    """Remove certificates from agent and disk.

    Those of each ROLE with their keys; without a ROLE, all. A certificate stays valid until it expires, for whoever has
    copied its key; sessions that are open stay open.
    """
    directory = Directory.of_home()
    trust = profile.load(directory).trust
    here = tuple(held.role for held in holding.of_this_machine(directory))
    if missing := [role for role in roles if role not in here]:
        raise Misconfigured(f"you hold no {missing[0]}", "See what you hold with: jit-ssh status")
    agent = Agent.from_environment()
    for role in roles or here:
        if agent is not None:
            agents.remove(agent, in_agent(agent, role, trust))
        output.result(f"{role} is removed")
    holding.remove(directory, roles or here, int(time.time()))
