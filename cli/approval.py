"""`jit-ssh approve` and `deny`: another person's signed answer to exactly the request that they were shown."""

from functools import partial

import click

from ca.errors import Misconfigured
from ca.statement import ApproveStatement, DenyStatement
from cli import case_text, output, waiting
from cli.case import Case
from cli.machine import Machine
from cli.problems import Ended


@click.command(epilog="Examples:\n\n\b\n  jit-ssh approve 17\n  jit-ssh approve 17 --for 15m --reason 'restart only'")
@click.argument("numbers", nargs=-1, required=True, type=click.IntRange(1), metavar="N...")
@click.option("--for", "duration", type=output.DurationType(), help="Grant a shorter time than was asked for.")
@click.option("--reason", default="", help="What you have to say to it, in one line; it stays in the log.")
@click.option("--yes", is_flag=True, help="Do not ask. For scripts.")
def approve(numbers: tuple[int, ...], duration: int | None, reason: str, yes: bool) -> None:
    """Approve requests of other people.

    Shows each: who, what the role allows and where, why, for how long, and how the decision came about; then asks. Your
    signature covers exactly the entry of the log that was shown.
    """
    machine = Machine.here()
    for number in numbers:
        case = _shown(machine, number)
        if duration is not None and duration > case.duration:
            raise Misconfigured(f"request {number} is for {output.duration(case.duration)}", "An approval never lengthens it")
        if not yes:
            _confirm(f"Approve request {number} by {case.person}?")
        words = partial(ApproveStatement, request=number, leaf=case.leaf, duration=duration, reason=reason)
        _tell(Case.parse(machine.client.send(f"/v1/requests/{number}/approve", words)))


@click.command(epilog="Example:\n\n\b\n  jit-ssh deny 17 --reason 'use web-logs for this'")
@click.argument("number", type=click.IntRange(1), metavar="N")
@click.option("--reason", required=True, help="Why not, in one line, for the one who asked; it stays in the log.")
def deny(number: int, reason: str) -> None:
    """Deny request N of somebody else, which ends it."""
    machine = Machine.here()
    case = _shown(machine, number)
    words = partial(DenyStatement, request=number, leaf=case.leaf, reason=reason)
    _tell(Case.parse(machine.client.send(f"/v1/requests/{number}/deny", words)))


def _shown(machine: Machine, number: int) -> Case:
    """The request, shown as its entry has it. Raises `WrongCase`, and `Ended` when it does not wait."""
    case = waiting.read_case(machine.client, number)
    if case.status != "pending":
        raise Ended(f"request {number} does not wait any more: it is {case.status}", f"See: jit-ssh show {number}")
    case = case.proven(number)
    case_text.show(case)
    return case


def _confirm(question: str) -> None:
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise Misconfigured("it was not confirmed; nothing was signed", "In a script, say --yes")


def _tell(case: Case) -> None:
    waits = f": it waits for {case.waits_for}" if case.status == "pending" else ""
    output.result(f"request {case.request} by {case.person} for {case.role} is {case.status}{waits}")
