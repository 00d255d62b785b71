"""What ssh runs when a certificate is not fresh, and `jit-ssh ssh-config`, which writes what ssh is told.

The hook never keeps ssh from going on: whatever goes wrong is a sentence on stderr and an exit code that makes ssh use the rest
of its configuration. It asks a person only through their terminal, and of two at the same moment only one asks.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import click

from ca.errors import JitSshError, NotTouched, SignerFailed, UnknownSigner
from cli import files, known, output
from cli import held as holding
from cli.answers import Role
from cli.asking import Wish, obtain, open_request, pick_up, renew
from cli.directory import Directory
from cli.machine import Machine
from cli.problems import Denied, Unreachable

_PATIENCE: Final = 4.0  # seconds for a CA that does not answer, while ssh waits
_NO: Final = 1  # ssh goes on without us


@click.command("ssh-config", epilog="Example:\n\n\b\n  jit-ssh ssh-config")
def ssh_config() -> None:
    """Write what ssh is told, from the roles as they stand.

    For every role that you could have, ssh then uses its certificate on its hosts, renews it within the grant, and offers to
    ask for the role when you do not hold it. setup does the same; run this when the roles have changed.
    """
    machine = Machine.here()
    machine.read_roles()
    holding.write_ssh_config(machine.directory, int(time.time()))
    output.result(str(machine.directory.config))


@click.command("ssh-hook", hidden=True, epilog="Example:\n\n\b\n  jit-ssh ssh-hook web-admin")
@click.argument("role")
def ssh_hook(role: str) -> int:
    """Get ssh a fresh certificate of ROLE.

    ssh runs this when there is none: it renews within the grant, or asks on the terminal. Exits with 0 when there is one.
    """
    directory = Directory.of_home()
    try:
        with files.locked(directory.of_role(role, ".lock")):
            if _is_fresh(directory, role) or _renewed(directory, role) or _is_usable(directory, role):
                return 0
            return 0 if _asked(directory, role) else _NO
    except (JitSshError, OSError) as error:
        if _is_usable(directory, role):  # it was to be renewed before its time
            return 0
        what = "the CA does not answer, so ssh goes on without" if isinstance(error, Unreachable) else "ssh goes on without"
        output.talk(f"jit-ssh: {what} {role}: {error}")
        return _NO


def _is_fresh(directory: Directory, role: str) -> bool:
    now = int(time.time())
    held = holding.grant(directory, role, now)
    return held is not None and now < held.fresh_until and _is_usable(directory, role)


def _is_usable(directory: Directory, role: str) -> bool:
    now = int(time.time())
    held = holding.grant(directory, role, now)
    return held is not None and held.usable(directory, now, holding.identities() if held.agent else frozenset())


def _renewed(directory: Directory, role: str) -> bool:
    """Whether the grant gave another certificate; one that is over, or that the CA ended, does not."""
    machine = Machine.here(_PATIENCE)
    held = holding.grant(machine.directory, role, int(time.time()))
    if held is None:
        return False
    usable = _is_usable(directory, role)
    try:
        renew(machine, held, silently=usable)  # nobody waits for a touch while what is there will do
    except Unreachable:
        raise
    except (NotTouched, UnknownSigner, SignerFailed) as error:
        return usable or _not_renewed(role, error)
    except JitSshError as error:
        return _not_renewed(role, error)
    return True


def _not_renewed(role: str, error: JitSshError) -> bool:
    output.talk(f"jit-ssh: {role} is not renewed: {error.message}")
    return False


def _asked(directory: Directory, role: str) -> bool:
    listed = next((each for each in known.last_listed(directory) if each.role == role), None)
    with _terminal() as terminal:
        if terminal is None:
            why = " --reason …" if listed is None or listed.reason_message else ""
            output.talk(f"jit-ssh: you do not hold {role}. To use it here: jit-ssh login {role}{why}")
            return False
        machine = Machine.here(_PATIENCE)
        made = open_request(machine, role)
        reason = _reason(terminal, role, listed) if made is None else ""
    if reason is None:
        return False
    try:
        if made is not None:
            pick_up(machine, made.request, wait=True)
        else:
            obtain(machine, Wish(role, None, reason), wait=True)
    except Denied as error:
        for line in (f"jit-ssh: {error.message}", *error.considered, *error.hint.splitlines()):
            output.talk(line)
        return False
    return True


def _reason(terminal: TextIO, role: str, listed: Role | None) -> str | None:
    """What the person types; None when they do not want the role."""
    words = {"granted": "yours at once", "approval": "needs approval"}
    said = f" ({listed.about}; {words.get(listed.outcome, listed.outcome)})" if listed else ""
    output.talk(f"You do not hold {role}{said}.")
    if listed is not None and listed.reason_message is None:
        return "" if _typed(terminal, "Ask for it? [y/N]: ").lower() in ("y", "yes") else None
    if listed is not None and listed.reason_message:
        output.talk(listed.reason_message)
    return _typed(terminal, "Reason, or nothing to go on without: ") or None


def _typed(terminal: TextIO, question: str) -> str:
    os.write(terminal.fileno(), question.encode())
    return terminal.readline().strip()


@contextmanager
def _terminal() -> Iterator[TextIO | None]:
    """The terminal in whose foreground ssh runs; None when there is none to ask on."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        yield None
        return
    with open(descriptor, encoding="utf-8", errors="replace") as terminal:  # noqa: PTH123 - no path has this descriptor
        yield terminal if os.tcgetpgrp(descriptor) == os.getpgrp() else None
