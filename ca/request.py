"""The state of a request is a fold over its entries; nothing is ever updated.

A request and those that extend its grant are one case. A grant begins when the last approval is logged (or with the request, when
none is needed) and ends by itself; dropping, revoking or locking ends all of the case. However long a case gets, two of its
requests say how it stands: the newest, and the one that the newest extends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ca import statement
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    LockEntry,
    RenewEntry,
    RequestEntry,
    RevokeEntry,
    WithdrawEntry,
)
from ca.errors import Malformed
from ca.findings import Privilege
from ca.statement import CertificateStatement

Status = Literal["pending", "granted", "ended", "denied", "withdrawn", "lapsed", "unused", "dropped", "revoked"]
Ending = DenyEntry | WithdrawEntry | DropEntry | RevokeEntry | LockEntry
OPEN: Final = ("pending", "granted")
RenewedBy = Callable[[int], int | None]  # the serial of the certificate whose key asked for the one of this serial, if one's did
LONGEST_CHAIN: Final = 100  # certificates that are looked at, back to the one that the person's own key asked for
LONGEST_CASE: Final = 2 * 24 * 3600  # seconds after which neither a request waits nor its grant lasts: a day each at most


@dataclass(slots=True)
class _Folding:
    """A request as far as its entries were read."""

    entry: RequestEntry
    approvals: list[ApproveEntry]
    grant: tuple[int, Privilege] | None
    used: bool
    revoked_serials: set[int]
    ending: Ending | None


class Request(NamedTuple):
    """A request at one moment. Times are Unix seconds; `until` is the end of its grant, also when that came early."""

    entry: RequestEntry
    status: Status
    approvals: tuple[ApproveEntry, ...]
    revoked_serials: frozenset[int]  # of the person's certificates, those that were revoked one by one since
    privilege: Privilege
    granted_at: int | None
    until: int | None
    ending: Ending | None

    @property
    def asked_at(self) -> int:
        """When it was made."""
        return self.entry.time // 1000

    def revokes(self, serial: int, renewed_by: RenewedBy, judged: dict[int, bool] | None = None) -> bool:
        """Whether a certificate of this request is not valid any more, whatever its dates say.

        With a certificate end those that its key asked for, and so on: `renewed_by` gives the serial of the one whose key asked,
        if it was one's. `judged` remembers the answers for others of the same request. Takes as long as the chain.
        """
        if self.status in ("dropped", "revoked"):
            return True
        judged = {} if judged is None else judged
        path: list[int] = []
        at = serial if self.revoked_serials else None
        while at is not None and at not in judged and at not in self.revoked_serials:
            path.append(at)
            at = renewed_by(at)
        ended = at is not None and judged.get(at, True)
        judged.update(dict.fromkeys(path, ended))
        return ended

    def renews(self, serial: int, renewed_by: RenewedBy) -> bool:
        """Whether a certificate of this request is valid but for its dates, by the `LONGEST_CHAIN` that are looked at.

        Where one of the person's was revoked, a longer chain counts as ended: the person's own key begins another.
        """
        if self.status != "granted" or not self.revoked_serials:
            return self.status == "granted"
        at = serial
        for _ in range(LONGEST_CHAIN):
            if at in self.revoked_serials:
                return False
            before = renewed_by(at)
            if before is None:
                return True
            at = before
        return False


@dataclass(frozen=True)
class Case:
    """A grant with what extends it: its newest request, and the one that this extends."""

    newest: Request
    before: Request | None

    @property
    def current(self) -> Request:
        """The one whose grant lasts longest now, else the newest.

        There is no third: when the newest was asked for, nothing lasted longer than what it extends, and nothing waited.
        """
        held = [each for each in (self.newest, self.before) if each is not None and each.status == "granted"]
        return max(held, key=lambda each: each.until or 0) if held else self.newest

    @property
    def extensions(self) -> int:
        """How often the grant was extended."""
        if self.newest.entry.extension is None:
            return 0
        return self.newest.entry.extension - (self.newest.granted_at is None)


def case(newest: Request, read: Callable[[int], Request]) -> Case:
    """The case whose newest request this is; `read` gives a request by its index."""
    before = newest.entry.extends
    return Case(newest, None if before is None else read(before))


def fold(entries: Iterable[AnyEntry], now: int) -> Request:
    """The request that these entries tell, in order, as it is at `now` (Unix seconds).

    They are the request, its answers, the first `issue` of it, and what ended its case or every grant of its person since.
    """
    first, *rest = entries
    if not isinstance(first, RequestEntry):
        raise Malformed(f"entry {first.index} is not a request")
    request = _Folding(first, [], None if first.steps else (first.time // 1000, first.privilege), False, set(), None)
    for each in rest:
        match each:
            case ApproveEntry():
                request.approvals.append(each)
                if each.privilege is not None:
                    request.grant = (each.time // 1000, each.privilege)
            case IssueEntry():
                request.used = True
            case RevokeEntry() if each.serial is not None:
                request.revoked_serials.add(each.serial)
            case DenyEntry() | WithdrawEntry() | DropEntry() | RevokeEntry() | LockEntry():
                if _at(request, each.time // 1000).status in OPEN:
                    request.ending = each
            case _:
                pass
    return _at(request, now)


def _at(folding: _Folding, now: int) -> Request:
    begun, privilege = folding.grant or (None, folding.entry.privilege)
    until = None if begun is None else begun + privilege.duration
    if until is not None and folding.ending is not None:
        until = min(until, folding.ending.time // 1000)
    return Request(
        entry=folding.entry,
        status=_status(folding, until, now),
        approvals=tuple(folding.approvals),
        revoked_serials=frozenset(folding.revoked_serials),
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
        return "granted" if now < until else "ended" if folding.used else "unused"
    return "lapsed" if now >= (folding.entry.expires or 0) else "pending"


def renewed_by(asking: AnyEntry) -> int | None:
    """The serial of the certificate whose key signed, if `asking`, the entry before an `issue`, is the asking of one."""
    said = statement.parse(asking.statement.encode()) if isinstance(asking, RenewEntry) else None
    return said.serial if isinstance(said, CertificateStatement) else None


def key_id(request: RequestEntry) -> str:
    """`person/role/request-index`: what sshd's own log will show."""
    return f"{request.actor}/{request.role}/{request.index}"
