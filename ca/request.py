"""The state of a request is a fold over its entries; nothing is ever updated.

A request, what was answered to it, and the requests that extend its grant are one case. A grant begins when the last approval is
logged (or with the request, when none is needed) and ends by itself; dropping, revoking or locking ends all of the case.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    LockEntry,
    Privilege,
    RequestEntry,
    RevokeEntry,
    WithdrawEntry,
)

Status = Literal["pending", "granted", "ended", "denied", "withdrawn", "lapsed", "unused", "dropped", "revoked"]
Ending = DenyEntry | WithdrawEntry | DropEntry | RevokeEntry | LockEntry
OPEN: Final = ("pending", "granted")


@dataclass
class _Folding:
    """A request as far as its entries were read."""

    entry: RequestEntry
    approvals: list[ApproveEntry] = field(default_factory=list)
    grant: tuple[int, Privilege] | None = None
    issued: list[IssueEntry] = field(default_factory=list)
    ending: Ending | None = None


@dataclass(frozen=True)
class Request:
    """A request at one moment. Times are Unix seconds; `until` is the end of its grant, also when that came early."""

    entry: RequestEntry
    status: Status
    approvals: tuple[ApproveEntry, ...]
    issued: tuple[IssueEntry, ...]
    privilege: Privilege
    granted_at: int | None
    until: int | None
    ending: Ending | None

    @property
    def asked_at(self) -> int:
        """When it was made."""
        return self.entry.time // 1000


@dataclass(frozen=True)
class Case:
    """A request with those that extend its grant, oldest first, and the serials that were revoked one by one."""

    requests: tuple[Request, ...]
    revoked_serials: frozenset[int]

    def request(self, index: int) -> Request:
        """The request in this entry. Raises `KeyError`."""
        return {each.entry.index: each for each in self.requests}[index]

    @property
    def current(self) -> Request:
        """The one whose grant lasts longest now, else the newest."""
        held = [each for each in self.requests if each.status == "granted"]
        return max(held, key=lambda each: each.until or 0) if held else self.requests[-1]

    @property
    def extensions(self) -> int:
        """How often the grant was extended."""
        return sum(each.granted_at is not None for each in self.requests[1:])

    def revoked(self, now: int) -> tuple[int, ...]:
        """The serials of certificates that are valid at `now` by their dates, but not any more."""
        return tuple(
            issue.index
            for each in self.requests
            for issue in each.issued
            if (each.status in ("dropped", "revoked") or issue.index in self.revoked_serials)
            and issue.certificate.valid_before > now
        )


def fold(entries: Iterable[AnyEntry], now: int) -> Case:
    """The case that these entries tell, in order, as it is at `now` (Unix seconds).

    They are the request, those that extend it, every entry that names one of them, and the revocations and locks of the person.
    """
    requests: dict[int, _Folding] = {}
    serials: set[int] = set()
    for each in entries:
        match each:
            case RequestEntry():
                begun = None if each.steps else (each.time // 1000, each.privilege)
                requests[each.index] = _Folding(each, grant=begun)
            case ApproveEntry():
                request = requests[each.request]
                request.approvals.append(each)
                if each.privilege is not None:
                    request.grant = (each.time // 1000, each.privilege)
            case IssueEntry():
                requests[each.request].issued.append(each)
            case DenyEntry() | WithdrawEntry():
                requests[each.request].ending = each
            case RevokeEntry() if each.serial is not None:
                serials.add(each.serial)
            case DropEntry() | RevokeEntry() | LockEntry():
                _end(requests, each)
            case _:
                pass
    return Case(tuple(_at(each, now) for each in requests.values()), frozenset(serials))


def _end(requests: dict[int, _Folding], ending: DropEntry | RevokeEntry | LockEntry) -> None:
    """Ends what was open then; an entry that names another case of the person says nothing about this one."""
    named = None if isinstance(ending, LockEntry) else ending.request
    if named is None or named in requests:
        for each in requests.values():
            if _at(each, ending.time // 1000).status in OPEN:
                each.ending = ending


def _at(folding: _Folding, now: int) -> Request:
    begun, privilege = folding.grant or (None, folding.entry.privilege)
    until = None if begun is None else begun + privilege.duration
    if until is not None and folding.ending is not None:
        until = min(until, folding.ending.time // 1000)
    return Request(
        entry=folding.entry,
        status=_status(folding, until, now),
        approvals=tuple(folding.approvals),
        issued=tuple(folding.issued),
        privilege=privilege,
        granted_at=begun,
        until=until,
        ending=folding.ending,
    )


def _status(folding: _Folding, until: int | None, now: int) -> Status:
    match folding.ending:
        case DenyEntry():
            return "denied"
        case WithdrawEntry():
            return "withdrawn"
        case DropEntry():
            return "dropped"
        case RevokeEntry() | LockEntry():
            return "revoked"
        case None:
            pass
    if until is not None:
        return "granted" if now < until else "ended" if folding.issued else "unused"
    return "lapsed" if now >= (folding.entry.expires or 0) else "pending"

