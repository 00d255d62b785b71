"""The journal as a file: a line is on the disk when `write` returns, or it is not there at all."""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from breakglass.stop import Stop
from breakglass.terminal import say
from ca.errors import JitSshError, Malformed
from ca.journal import AnyLine, read, sign
from ca.kit import Facts

_ANOTHER: Final = "Name another with --journal FILE"
_L = TypeVar("_L", bound=AnyLine)


class Journal:
    """The lines of one run, appended to a file that nobody else writes meanwhile."""

    def __init__(self, path: Path, facts: Facts, session: str) -> None:
        """Opens or makes the file at `path`; if that is damaged, another kit's or in use, a new one beside it. Raises `Stop`."""
        self._session = session
        for name in (path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, 100))):
            try:
                if self._open(name, facts):
                    return
            except OSError as error:
                raise Stop(f"the journal {name} cannot be written: {error.strerror}", _ANOTHER) from error
        raise Stop(f"there are a hundred journals beside {path}", _ANOTHER)

    def _open(self, path: Path, facts: Facts) -> bool:
        fresh = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise Malformed("it is no ordinary file")
            lines = read(path.read_bytes(), facts.digest, _believed)
        except BlockingIOError:
            say(f"Another break-glass is writing {path}: this one begins a new journal. Hand in both.")
        except JitSshError as error:
            say(f"{path} is not a journal to go on with ({error.message}): a new one is begun. Hand in both.")
        else:
            self.path, self._before = path, lines[-1].digest if lines else facts.digest
            self._time = lines[-1].time if lines else 0
            if fresh:
                _sync_directory(path.absolute().parent)
            return True
        os.close(self._file)
        return False

    def write(self, kind: type[_L], sign_bytes: Callable[[bytes], bytes] | None, **members: Any) -> _L:
        """Makes the next line durable and returns it. Raises `Stop`; then there is no such line."""
        now = int(time.time())
        if now < self._time:
            raise Stop(
                f"the clock is {self._time - now} s before the last line of {self.path}", "Set this machine's clock right first"
            )
        given: dict[str, Any] = {"before": self._before, "time": now, "session": self._session}
        line: Any = kind(**given | members)
        if sign_bytes is not None:
            line = sign(line, sign_bytes)
        self._append(line.encode() + b"\n")
        self._before, self._time = line.digest, now
        result: _L = line
        return result

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(0, "the disk is full")
            _sync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # half a line would end the journal for good
            hint = "Make room, or name a journal on another disk with --journal FILE: without its line nothing is signed"
            raise Stop(f"the journal {self.path} cannot be written: {error.strerror}", hint) from error


def _believed(_signature: bytes, _message: bytes) -> None:
    """Whoever can write the file can begin a new one as well; the CA checks the signatures when the journal is handed in."""


def _sync(file: int) -> None:
    os.fsync(file)
    if hasattr(fcntl, "F_FULLFSYNC"):  # a Mac: fsync alone leaves the line in the disk's own memory
        with contextlib.suppress(OSError):  # of a file system that has no such thing
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
