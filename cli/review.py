"""`jit-ssh review`: another person says what a use of the emergency key was."""

from functools import partial

import click

from ca.errors import Misconfigured
from ca.statement import VERDICTS, ReviewStatement
from cli import output, use
from cli.answers import Members
from cli.machine import Machine
from cli.problems import Ended
from cli.use import Use


@click.command(epilog="Example:\n\n\b\n  jit-ssh review 814 --as real --note 'INC-77: the CA was down, ana mended web-1'")
@click.argument("number", type=click.IntRange(1), metavar="N")
@click.option("--as", "verdict", required=True, type=click.Choice(VERDICTS), help="What it was.")
@click.option("--note", required=True, help="What you found, in one line; it stays in the log.")
def review(number: int, verdict: str, note: str) -> None:
    """Settle the use of the emergency key in entry N.

    For auditors and revokers, but for those who were named in its session or whose share opened it. Shows it; your signature
    covers exactly the entry that was shown.
    """
    client = Machine.here().client
    answer = Members.parse(client.read(f"/v1/requests/{number}"))
    if "use" not in answer:
        raise Misconfigured(f"entry {number} is a request and no use of the emergency key", "See: jit-ssh log --kind break-glass")
    case = Use.read(answer)
    if case.review is not None:
        raise Ended(f"entry {number} was reviewed already: {case.status}", f"See: jit-ssh show {number}")
    case = case.proven(number)
    use.show(case)
    words = partial(ReviewStatement, request=number, leaf=case.leaf, verdict=verdict, reason=note)
    done = Use.read(Members.parse(client.send(f"/v1/requests/{number}/review", words)))
    output.result(f"the use in entry {number} by {case.line.person} is reviewed: {done.status}")
