"""The case file: everything in the log about one case, whichever of its entries somebody has at hand.

A case is a request with those that extend its grant, or a refusal, or a use of the emergency key. What is told of it is its
entries themselves; what the policy says of it today stands beside them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ca import entry
from ca.entry import AnyEntry, BreakGlassEntry, IssueEntry, LockEntry, ReadEntry, RefuseEntry, RequestEntry, RevokeEntry
from ca.errors import NotFound
from ca.request import Request
from ca.roles import Policy
from ca.store.filter import Filter
from ca.store.sqlite import SqliteStore
from server import emergency
from server.cases import MOST, Cases

MOST_OF_CASE: Final = 1000  # entries in one case file


@dataclass(frozen=True)
class CaseFile:
    """The newest requests and entries of a case, oldest first; `more` if there are others. `case` is the entry that names it."""

    case: int
    requests: tuple[Request, ...]
    entries: tuple[AnyEntry, ...]
    more: bool
    concerns: bool  # the reader: it is theirs, or waits for them
    use: Mapping[str, Any] = field(default_factory=dict)  # of the emergency key, as `server.emergency` shows it


class CaseFiles:
    """Reads case files out of a store, for those who may."""

    def __init__(self, cases: Cases, store: SqliteStore) -> None:
        self._cases = cases
        self._store = store

    def of(self, index: int, person: str, policy: Policy, now: float) -> CaseFile:
        """The file of the case that entry `index` belongs to. Raises `NotFound`, also when it is not the person's to read."""
        file: CaseFile | None = None
        match self._named(index):
            case RequestEntry() as asked:
                file = self._of_request(asked.first, person, policy, now)
            case BreakGlassEntry(person=str()) as used if emergency.visible(used, person, policy):
                file = self._of_use(used, person, policy)
            case RefuseEntry() as refused if refused.actor == person or policy.is_auditor(person):
                file = self._without_requests(refused, (refused,), person, policy)
            case _:
                pass
        if file is None:
            raise NotFound(f"entry {index} is of no case that is yours to read", f"The entry itself: jit-ssh log show {index}")
        return file

    def _named(self, index: int) -> AnyEntry | None:
        """What the entry is about in the end: a request, a refusal, a use, or nothing of these."""
        found = self._found(index)
        while found is not None and not isinstance(found, RequestEntry):
            serial = found.serial if isinstance(found, RevokeEntry) else None
            about = getattr(found, "request", None) if serial is None else serial
            if about is None:
                break
            found = self._found(about)  # always an earlier entry
        return found

    def _found(self, index: int) -> AnyEntry | None:
        source = next(self._store.entries(index, index + 1), None) if index < self._store.size() else None
        return None if source is None else entry.decode(source)

    def _of_request(self, first: int, person: str, policy: Policy, now: float) -> CaseFile | None:
        numbers = [first, *self._numbers(Filter(request=first, kind="request"), MOST)[::-1]]
        requests = tuple(self._cases.of(number, now) for number in numbers[-MOST:])
        if not any(self._cases.visible(each, person, now) for each in requests):
            return None
        sources = self._store.select(Filter(case=first), MOST_OF_CASE + 1)
        entries = {each.index: each for each in map(entry.decode, sources[:MOST_OF_CASE])}
        entries |= {each.index: each for each in self._endings(requests, entries.values())}
        shown = tuple(each for _, each in sorted(entries.items()) if _is_shown(each, person, policy))
        concerns = any(self._cases.concerns(each, person, now) for each in requests)
        return CaseFile(first, requests, shown, len(sources) > MOST_OF_CASE or len(numbers) > MOST, concerns)

    def _endings(self, requests: Iterable[Request], entries: Iterable[AnyEntry]) -> Iterable[AnyEntry]:
        """What ended requests or certificates of the case without naming it."""
        serials = {each.index for each in entries if isinstance(each, IssueEntry)}
        for each in requests:
            for number in self._store.request(each.entry.index):
                found = self._found(number)
                of_person = isinstance(found, RevokeEntry | LockEntry) and found == each.ending
                if found is not None and (of_person or (isinstance(found, RevokeEntry) and found.serial in serials)):
                    yield found

    def _of_use(self, used: BreakGlassEntry, person: str, policy: Policy) -> CaseFile:
        texts = emergency.shown(self._store, used, person, policy)
        session = [texts["seal"], *texts["session"], *([texts["review"]] if "review" in texts else [])]
        found = self._without_requests(used, (entry.decode(text.encode()) for text in session), person, policy)
        return replace(found, concerns=person == used.person, use=texts)

    def _without_requests(self, about: AnyEntry, entries: Iterable[AnyEntry], person: str, policy: Policy) -> CaseFile:
        sources = self._store.select(Filter(kind="read", request=about.index), MOST_OF_CASE + 1)
        reads = [each for each in map(entry.decode, sources[:MOST_OF_CASE]) if _is_shown(each, person, policy)]
        shown = sorted({each.index: each for each in (*entries, *reads)}.items())
        own = about.actor == person
        return CaseFile(about.index, (), tuple(each for _, each in shown), len(sources) > MOST_OF_CASE, own)

    def _numbers(self, wanted: Filter, most: int) -> list[int]:
        return [entry.decode(source).index for source in self._store.select(wanted, most)]

    def shown(self, file: CaseFile, now: float) -> dict[str, Any]:
        """As JSON: each entry as its own text."""
        return {
            "case": file.case,
            "requests": [self._cases.shown(each, now) for each in file.requests],
            "entries": [each.encode().decode() for each in file.entries],
            "more": file.more,
            **file.use,
        }


def _is_shown(found: AnyEntry, person: str, policy: Policy) -> bool:
    """Who read the case, and what others tried with it in vain, is for auditors."""
    return not isinstance(found, ReadEntry | RefuseEntry) or found.actor == person or policy.is_auditor(person)
