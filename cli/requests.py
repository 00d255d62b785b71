"""`jit-ssh requests`, `show`, `withdraw`, `extend` and `drop`: what became of requests, and what the one who asked may do."""

import time
from functools import partial
from typing import Final

import click

from ca.errors import Misconfigured
from ca.signers.agent_socket import Agent
from ca.statement import DropStatement
from cli import agent as agents
from cli import case_text, casefile, casefile_text, output, waiting
from cli import held as holding
from cli.asking import Wish, obtain
from cli.case import Case, parse_list
from cli.casefile import CaseFile
from cli.completion import complete_held
from cli.login import WAITING, tell
from cli.machine import Machine
from cli.taking import in_agent

_MINE: Final = "See them with: jit-ssh requests"


@click.command(epilog="Examples:\n\n\b\n  jit-ssh requests\n  jit-ssh requests --waiting")
@click.option("--waiting", "view", flag_value="waiting", help="Only those that you could approve now.")
@click.option("--all", "view", flag_value="all", help="Everybody's; for auditors. For revokers, what is open.")
@click.option("--json", "as_json", is_flag=True, help="Print the requests as JSON.")
def requests(view: str | None, as_json: bool) -> None:
    """List requests, the newest first: yours, or those of others that wait for you."""
    found = parse_list(Machine.here().client.read(f"/v1/requests?view={view or 'mine'}"))
    if as_json:
        output.result_json(found)
    elif found:
        output.table(case_text.rows(found))
    else:
        output.talk("There is none")


@click.command(epilog="Example:\n\n\b\n  jit-ssh show 17")
@click.argument("number", type=click.IntRange(1), metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print the case as JSON.")
def show(number: int, as_json: bool) -> None:
    """Show the case that entry N belongs to: who, what, why, how it was decided, and all that came of it.

    N is a request's number, a certificate's serial, or any other entry of the case.
    """
    file = CaseFile.parse(Machine.here().client.read(f"/v1/cases/{number}", casefile.LARGEST))
    if as_json:
        output.result_json(casefile_text.as_json(file))
    else:
        casefile_text.show(file)


@click.command(epilog="Example:\n\n\b\n  jit-ssh withdraw 17")
@click.argument("number", type=click.IntRange(1), metavar="N")
def withdraw(number: int) -> None:
    """Take back request N, which waits."""
    case = waiting.withdraw(Machine.here().client, number)
    output.result(f"request {case.request} for {case.role} is {case.status}")


@click.command(epilog="Example:\n\n\b\n  jit-ssh extend web-admin --reason 'INC-12 still filling up'")
@click.argument("role", shell_complete=complete_held)
@click.option("--reason", required=True, help="Why it takes longer, in one line; it stays in the log.")
@click.option("--for", "duration", type=output.DurationType(), help="How long from now; the role's default if absent.")
@click.option("--no-wait", is_flag=True, help="If an approval is needed, print the request's number and end with 4.")
def extend(role: str, reason: str, duration: int | None, no_wait: bool) -> int:
    """Ask for more time with a ROLE that you hold.

    The rules are those of a new request, and the time runs from now.
    """
    machine = Machine.here()
    if holding.grant(machine.directory, role, int(time.time())) is None:
        raise Misconfigured(f"you do not hold {role} on this machine", f"Ask for it with: jit-ssh login {role}")
    each = obtain(machine, Wish(role, duration, reason), wait=not no_wait)
    tell(machine.directory, each)
    return WAITING if isinstance(each, Case) else 0


@click.command(epilog="Examples:\n\n\b\n  jit-ssh drop web-admin\n  jit-ssh drop 17")
@click.argument("which", required=False, metavar="[ROLE|N]", shell_complete=complete_held)
def drop(which: str | None) -> None:
    """Give a grant back before it ends.

    Of a ROLE that this machine holds, or of request N; without either, the only one that is held here. Its certificates are
    revoked, and those of this machine removed.
    """
    machine, now = Machine.here(), int(time.time())
    number, role = _grant(machine, which, now)
    answer = machine.client.send(f"/v1/requests/{number}/drop", partial(DropStatement, request=number))
    case = Case.parse(answer)
    role = case.role if role is None else role
    agent = Agent.from_environment()
    if agent is not None:
        agents.remove(agent, in_agent(agent, role, machine.profile.trust))
    holding.remove(machine.directory, (role,), now)
    output.result(f"{role} is given back")


def _grant(machine: Machine, which: str | None, now: int) -> tuple[int, str | None]:
    """The request of the grant that is meant, and its role as far as this machine knows it. Raises `Misconfigured`."""
    if which is not None and which.isdecimal() and which.isascii():
        return int(which), None
    held = [each for each in holding.of_this_machine(machine.directory) if now < each.until and which in {None, each.role}]
    if len(held) != 1:
        what = f"you hold no {which} on this machine" if which else f"you hold {len(held)} roles on this machine"
        raise Misconfigured(what, f"Name the role, or the request's number. {_MINE}")
    return held[0].request, held[0].role
