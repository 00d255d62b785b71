"""Waiting until other people have decided: a line that lives on a terminal, plain lines elsewhere.

Ctrl-C ends the waiting, not the request; on a terminal it asks whether to withdraw it.
"""

import shutil
import sys
import threading
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

import click

from ca.errors import JitSshError, Misconfigured
from ca.statement import WithdrawStatement
from cli import output
from cli.answers import Members
from cli.case import Case
from cli.client import Client
from cli.problems import Denied, Ended, Unreachable

_WAIT: Final = 25  # seconds that the CA may take to answer
_PAUSE: Final = 2.0  # seconds at least between two questions to a CA that is away, or that did not wait
_FAREWELL: Final = "Pick it up with: jit-ssh login --request {0}, or take it back with: jit-ssh withdraw {0}"


def read_case(client: Client, number: int) -> Case:
    """The request as it stands. Raises `Misconfigured` for a use of the emergency key."""
    answer = Members.parse(client.read(f"/v1/requests/{number}"))
    if "use" in answer:
        raise Misconfigured(f"entry {number} is a use of the emergency key and no request", f"See: jit-ssh show {number}")
    return Case.read(answer)


def withdraw(client: Client, number: int) -> Case:
    """Takes a request back."""
    return Case.parse(client.send(f"/v1/requests/{number}/withdraw", partial(WithdrawStatement, request=number)))


def until_granted(client: Client, case: Case) -> Case:
    """The case when it is granted. Raises `Denied` or `Ended` when it ends otherwise, and `click.Abort` after Ctrl-C."""
    try:
        if case.status == "pending":
            case = _watched(client, case)
    except KeyboardInterrupt:
        _interrupted(client, case)
        raise click.Abort from None
    if case.status != "granted":
        raise _ended(case)
    return case


def _watched(client: Client, case: Case) -> Case:
    answers: SimpleQueue[Case | JitSshError] = SimpleQueue()
    threading.Thread(target=_poll, args=(client, case.request, answers), daemon=True).start()
    live, trouble = _Line(), ""
    while case.status == "pending":
        live.show(f"waiting for {case.waits_for}{trouble}", case.asked_at)
        try:
            answer = answers.get(timeout=1)
        except Empty:
            continue
        if isinstance(answer, Case):
            case, trouble = answer, ""
        elif isinstance(answer, Unreachable):
            trouble = "; the CA does not answer"
        else:
            raise answer
    live.end()
    return case


def _poll(client: Client, number: int, answers: "SimpleQueue[Case | JitSshError]") -> None:
    """Reads the case again and again, until it is decided or the CA says that it cannot be read."""
    while True:
        try:
            asked_at = time.monotonic()
            for source in client.follow(f"/v1/requests/{number}?wait={_WAIT}&seen=pending", _WAIT):
                case = Case.parse(source)
                answers.put(case)
                if case.status != "pending":
                    return
                time.sleep(max(asked_at + _PAUSE - time.monotonic(), 0))  # a busy CA answers at once
                asked_at = time.monotonic()
        except Unreachable as error:
            answers.put(error)
            time.sleep(_PAUSE)
        except JitSshError as error:
            answers.put(error)
            return


class _Line:
    """One line that is written again and again on a terminal; elsewhere a new line whenever the text changes."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def show(self, text: str, since: int) -> None:
        if self._terminal:
            asked = f"; asked {output.duration(int(time.time()) - since)} ago"
            width = shutil.get_terminal_size().columns - 1
            shown = output.plain(text)[: max(width - len(asked), 20)] + asked
            click.echo(f"\r\x1b[K{shown[:width]}", nl=False, err=True)
        elif text != self._last:
            output.talk(text)
        self._last = text

    def end(self) -> None:
        if self._terminal and self._last:
            click.echo(err=True)


def _interrupted(client: Client, case: Case) -> None:
    click.echo(err=True)
    if sys.stdin.isatty():  # which it is not where ssh waits for us
        try:
            if click.confirm(f"Withdraw request {case.request}?", default=False, err=True):
                withdraw(client, case.request)
                output.talk(f"Request {case.request} is withdrawn")
                return
        except (click.Abort, KeyboardInterrupt):
            pass
    output.talk(f"Request {case.request} still waits. {_FAREWELL.format(case.request)}")


def _ended(case: Case) -> JitSshError:
    why = f": {case.end_reason}" if case.end_reason else ""
    who = f" by {case.ended_by}" if case.ended_by else ""
    match case.status:
        case "denied":
            return Denied(f"request {case.request} for {case.role} was denied{who}{why}", "See: jit-ssh roles")
        case "lapsed":
            return Denied(f"nobody answered request {case.request} for {case.role} in time", "Ask again, and tell an approver")
        case _:
            return Ended(f"request {case.request} for {case.role} is {case.status}{who}{why}", "Ask again with: jit-ssh login")
