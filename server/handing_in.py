"""Takes a journal of the break-glass kit into the log, and compares what it says with the logins that hosts saw.

A journal adds what the log does not have of it: handed in twice it adds nothing, handed in longer it adds the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ca.emergency import Emergency
from ca.entry import OPERATOR, AnyEntry, BreakGlassEntry, LoginEntry
from ca.errors import Malformed, Misconfigured
from ca.journal import Certified
from ca.log import Log, Tail
from ca.reconcile import Journal, read
from ca.sshd_lines import Login, Unreadable, parse
from ca.store.sqlite import SqliteStore
from server import emergency, watching

_LARGEST: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class HandedIn:
    """A journal whose lines are all in the log now; `added` are the entries that were new, `uses` those that need a review."""

    journal: Journal
    added: tuple[BreakGlassEntry, ...]
    uses: tuple[BreakGlassEntry, ...]


def hand_in(log: Log, store: SqliteStore, source: bytes, logins: Iterable[Login], *, branched: bool) -> HandedIn:
    """Adds what is new of a journal, and of the logins under emergency keys, all of it or nothing.

    Raises `Malformed`, naming the line, and what `Log.append` raises.
    """
    journal: Journal | None = None

    def write(tail: Tail) -> Sequence[AnyEntry]:
        nonlocal journal
        known = emergency.read(store)
        for kind, there in (("break-glass", known.lines), ("login", known.logins)):
            newest = tail.newest(kind)
            if (None if newest is None else newest.index) != next(reversed(there), None):
                raise Malformed("another journal was handed in at the same moment", "Try again")
        journal = read(source, known, tail.time // 1000, branched=branched)
        made = [_entry(tail, at, journal, line.encode().decode()) for at, line in enumerate(journal.new)]
        for each in made:
            known.take(each)
        return [*made, *_logins(tail, len(made), known, logins)]

    added = tuple(each for each in log.append(write) if isinstance(each, BreakGlassEntry))
    assert journal is not None  # noqa: S101 - `append` has called `write`
    known = emergency.read(store)
    entries = [known.holds(line) for line in journal.lines if isinstance(line, Certified)]
    return HandedIn(journal, added, tuple(each for each in entries if each is not None))


def _entry(tail: Tail, at: int, journal: Journal, line: str) -> BreakGlassEntry:
    told = journal.new[at]
    person = told.person if isinstance(told, Certified) else None
    return BreakGlassEntry(index=tail.index + at, time=tail.time, actor=OPERATOR, kit=journal.kit.index, line=line, person=person)


def _logins(tail: Tail, at: int, known: Emergency, logins: Iterable[Login]) -> Iterator[LoginEntry]:
    """The entries of those that concern the log and are not in it; the first one's index is `at` behind the tail's."""
    for login in dict.fromkeys(logins):
        if known.concerns(login) and not known.knows(login):
            use = known.use_of(login)
            request, person = (None, None) if use is None else (use.index, use.person)
            head: dict[str, Any] = {"index": tail.index + at, "time": tail.time, "actor": OPERATOR}
            yield LoginEntry(login=login, request=request, person=person, **head)
            at += 1


def read_file(path: Path) -> bytes:
    """A journal's bytes. Raises `Misconfigured`."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST + 1)  # one more, which is refused
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", "Give the journal that the kit named") from error


def logins(paths: Iterable[Path]) -> tuple[tuple[Login, ...], tuple[Unreadable, ...]]:
    """The logins by certificate in these logs, each once, and the lines that may hide one. Raises `Misconfigured`."""
    now = datetime.now().astimezone()
    lines = (line for path in paths for line in watching.of_file(path, follow=False))
    found = dict.fromkeys(parse(line.decode(errors="backslashreplace"), now) for line in lines)
    whole = tuple(each for each in found if isinstance(each, Login))
    return whole, tuple(each for each in found if isinstance(each, Unreadable))
