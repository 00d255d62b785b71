"""Watches sshd's log for logins under the emergency CA. It needs nothing of the CA but that key's fingerprint.

A login that was seen is told at once, in one line of JSON, and to a local command. So is a line that is cut or forged so that
nobody can say whose login it was.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured
from ca.sshd_lines import LONGEST, Login, Unreadable, parse

_LOOK: Final = 0.2  # seconds between two looks at a file that does not grow: nothing in the standard library waits for one
_COMMAND_SECONDS: Final = 30
_JOURNALCTL: Final = ("journalctl", "-o", "json", "--no-pager", "-t", "sshd", "-t", "sshd-session", "-t", "sshd-auth")


@dataclass(frozen=True)
class Seen:
    """What was seen: a login under one of the watched keys, or a line that could be one."""

    told: Login | Unreadable

    @property
    def json(self) -> bytes:
        """One line for programs."""
        return self.told.encode()


def watch(lines: Iterator[bytes], cas: Sequence[str]) -> Iterator[Seen]:
    """Each login in `lines` under one of these CAs (fingerprints), and each line that may hide one, as it comes."""
    for line in lines:
        found = parse(line.decode(errors="backslashreplace"), datetime.now().astimezone())
        if isinstance(found, Unreadable) or (found is not None and found.ca in cas):
            yield Seen(found)


def run(command: Sequence[str], seen: Seen) -> str | None:
    """Runs a local command with the login as JSON on its standard input. What went wrong, if something did.

    There is no shell, and nothing of the login is in its arguments or environment.
    """
    try:
        done = subprocess.run(command, input=seen.json + b"\n", stdout=subprocess.DEVNULL, timeout=_COMMAND_SECONDS, check=False)
    except OSError as error:
        return f"{command[0]} cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{command[0]} was still running after {_COMMAND_SECONDS} s, and was ended"
    return f"{command[0]} ended with {done.returncode}" if done.returncode else None


# ------------------------------------------------------------------- sources


def of_file(path: Path, *, follow: bool, new: bool = False) -> Iterator[bytes]:
    """The lines of a log, and with `follow` those that are added, also to the file that takes its place when it is rotated.

    `-` is standard input; with `new`, what is there when this is called is left out. A file that is renamed is read to its end
    first; one that became shorter is read from its beginning. Raises `Misconfigured`.
    """
    try:
        there = path.stat() if new else None
    except FileNotFoundError:
        there = None
    return _of_file(path, there, follow=follow)


def _of_file(path: Path, there: os.stat_result | None, *, follow: bool) -> Iterator[bytes]:
    try:
        if str(path) == "-":
            yield from sys.stdin.buffer
            return
        if not follow:
            with path.open("rb") as file:
                yield from _lines(file.read)
            return
        while True:
            if path.exists():  # else it is between two files, or not made yet
                yield from _until_replaced(path, there)
                there = None
            time.sleep(_LOOK)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", "Give sshd's log with --log, or --journald") from error


def _until_replaced(path: Path, there: os.stat_result | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        if there is not None and os.path.samestat(there, os.fstat(file.fileno())):
            file.seek(there.st_size)
        rest = b""
        while True:
            replaced = _is_replaced(path, file.fileno(), file.tell())  # asked before the last look: later lines are elsewhere
            while chunk := file.read(LONGEST):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
                rest = rest[:LONGEST]
            if replaced:
                yield rest
                return
            time.sleep(_LOOK)


def _is_replaced(path: Path, descriptor: int, at: int) -> bool:
    opened = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    return (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino) or opened.st_size < at


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := read(LONGEST):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[:LONGEST]
    yield rest


def of_journald(*, follow: bool, new: bool = False) -> Iterator[bytes]:
    """What sshd told journald. Raises `Misconfigured` when it cannot be read."""
    command = [*_JOURNALCTL, *(["--follow", f"--lines={0 if new else 'all'}"] if follow else [])]
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as journal:
            try:
                yield from journal.stdout or ()
                journal.wait()
            finally:
                journal.terminate()
    except OSError as error:
        raise Misconfigured(f"journalctl cannot be run: {error.strerror}", "Give sshd's log with --log") from error
    if journal.returncode:
        raise Misconfigured(f"journalctl ended with {journal.returncode}", "May this user read the system's journal?")
