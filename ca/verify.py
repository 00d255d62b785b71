"""Checks a log, or the part of it that one may read, without trusting the CA, its policy or its disk.

What holds afterwards: the leaves add up to the signed root; the remembered checkpoint is a prefix; every entry shown is the one
in the tree; every person's signature verifies; every certificate is exactly what its request was granted, and no more.
Which key belongs to which person is policy's business and not judged here.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ca import entry, merkle, statement
from ca.certificate import BACKDATE, LONGEST, Certificate
from ca.checkpoint import Checkpoint
from ca.emergency import Emergency
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    BreakGlassEntry,
    DecidedEntry,
    DenyEntry,
    DropEntry,
    EmergencyEntry,
    GenesisEntry,
    IssueEntry,
    KitEntry,
    LockEntry,
    PolicyEntry,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SaidEntry,
    SealEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import JitSshError, LogDamaged
from ca.keys import PublicKey
from ca.request import Request, case, fold
from ca.sshsig import SshSig
from ca.statement import (
    FRESH,
    AnyStatement,
    ApproveStatement,
    CertificateStatement,
    DenyStatement,
    DropStatement,
    LockStatement,
    RequestStatement,
    RevokeStatement,
    UnlockStatement,
    WithdrawStatement,
)
from ca.trust import Trust
from ca.wire import decode_base64

_SHOW: Final = "Keep what was received and show it to the security team: an honest log has no such entry"


@dataclass(frozen=True)
class Report:
    """What was checked: the log's size, how many of its entries could be read, and how many certificates are among them."""

    checkpoint: Checkpoint
    entries: int
    signatures: int
    certificates: int


def verify(
    trust: Trust,
    checkpoint: Checkpoint,
    leaves: Iterable[bytes],
    entries: Iterable[tuple[int, bytes]],
    remembered: Checkpoint | None = None,
) -> Report:
    """Checks all `leaves` of a log against an opened `checkpoint`, and the (index, bytes) of the `entries` that can be read.

    Both come in order of the index. `remembered` is a checkpoint that was seen before. Raises `LogDamaged`, naming the first
    entry that is wrong and what is wrong with it.
    """
    if remembered is not None and remembered.size > checkpoint.size:
        raise LogDamaged(
            f"the log has {checkpoint.size} entries, but this machine has seen {remembered.size}: an old copy was restored", _SHOW
        )
    frontier, reader, shown = merkle.Frontier(), _Reader(trust), _InOrder(entries)
    _check_remembered(remembered, frontier)
    for leaf in leaves:
        source = shown.at(frontier.size)
        if source is not None and merkle.leaf_hash(source) != leaf:
            raise LogDamaged(f"entry {frontier.size} is not the one in the log's tree", _SHOW)
        if source is None:
            reader.hide(frontier.size)
        else:
            reader.check(frontier.size, source)
        frontier.append(leaf)
        _check_remembered(remembered, frontier)
    if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
        raise LogDamaged(f"the log's leaves do not add up to its checkpoint at {checkpoint.size} entries", _SHOW)
    reader.hide(frontier.size)
    if (left := shown.next_index()) is not None:
        raise LogDamaged(f"entry {left} is shown, but the log has {checkpoint.size} entries", _SHOW)
    return Report(checkpoint, shown.taken, reader.signatures, reader.certificates)


def verify_part(
    trust: Trust,
    checkpoint: Checkpoint,
    part: tuple[int, int],
    entries: Iterable[bytes],
    before: Sequence[bytes],
    after: Sequence[bytes],
) -> Report:
    """Checks the `entries` from the first index of `part` up to the second, between the hashes of what surrounds them.

    `before` and `after` are those of `merkle.complete_nodes`. Raises `LogDamaged`, naming the first entry that is wrong.
    """
    (start, end), frontier = part, merkle.Frontier()
    reader = _Reader(trust, start)
    _append_nodes(frontier, start, before)
    reader.hidden = start > 0
    for source in entries:
        reader.check(frontier.size, source)
        frontier.append(merkle.leaf_hash(source))
    read = frontier.size - start
    if frontier.size != end:
        raise LogDamaged(f"there are {read} entries, not the {end - start} from {start} to {end}", _SHOW)
    _append_nodes(frontier, checkpoint.size, after)
    if frontier.root() != checkpoint.root:
        raise LogDamaged(f"the entries from {start} to {end} do not add up to the checkpoint at {checkpoint.size}", _SHOW)
    if end == checkpoint.size:
        reader.hide(end)
    return Report(checkpoint, read, reader.signatures, reader.certificates)


def _append_nodes(frontier: merkle.Frontier, end: int, hashes: Sequence[bytes]) -> None:
    nodes = list(merkle.complete_nodes(frontier.size, end))
    if len(nodes) != len(hashes):
        raise LogDamaged(f"{len(nodes)} hashes cover the entries from {frontier.size} to {end}, not {len(hashes)}", _SHOW)
    for (level, _), node in zip(nodes, hashes, strict=True):
        frontier.append(node, level)


def _check_remembered(remembered: Checkpoint | None, frontier: merkle.Frontier) -> None:
    if remembered is not None and remembered.size == frontier.size and remembered.root != frontier.root():
        raise LogDamaged(f"the first {remembered.size} entries are not those that this machine has seen: rewritten", _SHOW)


class _InOrder:
    """The entries that can be read, taken one by one as the leaves go by."""

    def __init__(self, entries: Iterable[tuple[int, bytes]]) -> None:
        self._entries: Iterator[tuple[int, bytes]] = iter(entries)
        self._next = next(self._entries, None)
        self.taken = 0

    def next_index(self) -> int | None:
        return None if self._next is None else self._next[0]

    def at(self, index: int) -> bytes | None:
        if self._next is None or self._next[0] != index:
            return None
        source = self._next[1]
        self._next = next(self._entries, None)
        self.taken += 1
        return source


def _since(entries: list[AnyEntry], index: int) -> list[AnyEntry]:
    """Those behind `index`."""
    return entries[bisect_right(entries, index, key=lambda each: each.index) :]


_NO_CERTIFICATE: Final = "the entry before is granted a certificate, and this is not its issue"
_OnRequest = ApproveEntry | DenyEntry | WithdrawEntry | DropEntry


class _Reader:
    """The rules that hold for every entry, whatever the policy; remembers what later entries refer to."""

    def __init__(self, trust: Trust, start: int = 0) -> None:
        """`start` is the first entry that could be shown."""
        self._trust = trust
        self._start = start
        self._asking: RequestEntry | RenewEntry | None = None  # the entry before, if it is granted its certificate
        self._ca_keys = trust.public_keys
        self._time = 0
        self._statements: set[str] = set()
        self._requests: dict[int, list[AnyEntry]] = {}  # with their answers and their first certificate
        self._newest: dict[tuple[str, str], int] = {}  # request, by person and role
        self._ended: dict[int | str, list[AnyEntry]] = {}  # what ended a case, by its first request; or all of a person
        self._locked: set[str] = set()
        self._policy = 0
        self._emergency = Emergency()
        self.hidden = False  # whether an entry before was not shown: then others may refer to what was not seen
        self.signatures = 0
        self.certificates = 0

    def check(self, index: int, source: bytes) -> None:
        """Raises `LogDamaged` for the entry that `source` should be."""
        try:
            found = entry.decode(source)
            self._check_order(index, found)
            asking, self._asking = self._asking, None
            _demand(asking is None or isinstance(found, IssueEntry), _NO_CERTIFICATE)
            self._check_kind(found, asking)
        except JitSshError as error:
            raise LogDamaged(f"entry {index}: {error.message}", _SHOW) from error

    def hide(self, index: int) -> None:
        """Raises `LogDamaged` if the entry there, which is not shown, has to be a certificate's."""
        self.hidden = True
        if self._asking is not None:
            raise LogDamaged(f"entry {index}: {_NO_CERTIFICATE}", _SHOW)

    def _check_order(self, index: int, found: AnyEntry) -> None:
        _demand(found.index == index, f"it calls itself {found.index}")
        _demand(found.time >= self._time, "its time is before the entry's before it")
        _demand((found.index == 0) == isinstance(found, GenesisEntry), "the first entry, and no other, is the genesis")
        self._time = found.time

    def _check_kind(self, found: AnyEntry, asking: RequestEntry | RenewEntry | None) -> None:
        match found:
            case GenesisEntry():
                _demand(found.origin == self._trust.origin, f"it begins the log {found.origin}")
                _demand(found.log_key == self._trust.log_key, "its log key is not the one that this machine trusts")
            case PolicyEntry():
                self._policy = found.index
            case RequestEntry():
                self._check_request(found)
            case RefuseEntry():
                self._check_said(found)
            case ApproveEntry() | DenyEntry() | WithdrawEntry() | DropEntry():
                self._check_on_request(found)
            case RevokeEntry() | LockEntry() | UnlockEntry():
                self._check_on_person(found)
            case RenewEntry():
                self._check_renewal(found)
            case IssueEntry():
                self._check_issue(found, asking)
            case SealEntry() | KitEntry() | BreakGlassEntry() | ReviewEntry():
                self._check_emergency(found)

    def _check_emergency(self, found: EmergencyEntry) -> None:
        if isinstance(found, SealEntry):
            _demand(found.seal.key not in self._trust.ca_keys, "the key that it seals is the CA's own")
        if isinstance(found, KitEntry):
            _demand(found.facts.origin == self._trust.origin, f"it is a kit of {found.facts.origin}")
        if isinstance(found, ReviewEntry):
            self._check_said(found)
        self._emergency.hidden = self.hidden
        self._emergency.take(found)

    def _check_said(self, found: SaidEntry) -> AnyStatement:
        """The statement of an entry, after checking who signed it, for whom and when."""
        said = statement.parse(found.statement.encode())
        _demand(said.audience == self._trust.origin, f"its statement was made for {said.audience}")
        _demand(said.id not in self._statements, "its statement stands in an earlier entry")
        _demand(abs(said.time - found.time // 1000) <= FRESH, "its statement was not fresh")
        touched = found.signed.verify(found.statement.encode())
        _demand(touched or not found.hardware_key, "no touch of a security key is proven, though it says so")
        _demand(isinstance(found, RefuseEntry) or found.actor not in self._locked, f"{found.actor} is locked out")
        in_force = self._policy == found.policy or (self.hidden and self._policy < found.policy < found.index)
        _demand(in_force, f"it names entry {found.policy} as the policy in force")
        self._statements.add(said.id)
        self.signatures += 1
        if isinstance(found, DecidedEntry):
            _check_on_call(found)
        if isinstance(found, RefuseEntry) and found.possession is not None:
            self._check_possession(found.possession, said, found.statement)
        return said

    def _check_possession(self, possession: str, said: AnyStatement, text: str) -> PublicKey:
        proof = SshSig.parse(decode_base64(possession, "the proof of possession"))
        if not isinstance(said, RequestStatement | CertificateStatement) or proof.key != said.public_key:
            raise LogDamaged("the proof of possession is by another key than the one to certify")
        proof.verify(text.encode())
        self.signatures += 1
        return proof.key

    def _check_request(self, found: RequestEntry) -> None:
        said = self._check_said(found)
        self._check_possession(found.possession, said, found.statement)
        if not isinstance(said, RequestStatement) or said.role != found.role:
            raise LogDamaged("its statement does not ask for its role")
        longest = LONGEST if said.duration is None else said.duration
        _demand(found.privilege.duration <= longest, "it is for longer than was asked for")
        self._check_extension(found)
        self._requests[found.index] = [found]
        self._newest[found.actor, found.role] = found.index
        self._asking = None if found.steps else found

    def _check_extension(self, found: RequestEntry) -> None:
        """Whoever holds the role extends what they hold, once more than before; whoever does not begins anew."""
        newest = self._newest.get((found.actor, found.role))
        if newest is None and self.hidden and found.request not in self._requests:
            return
        before = None if newest is None else case(self._known(newest), self._known)
        _demand(before is None or before.newest.status != "pending", "another request of the person for the role waits")
        expected: tuple[int | None, ...] = (None, None, None)
        if before is not None and before.current.status == "granted":
            expected = before.current.entry.first, before.current.entry.index, before.extensions + 1
        extends = found.request, found.extends, found.extension
        _demand(extends == expected, f"it extends {extends}, and what its person holds of the role is {expected}")

    def _asked(self, index: int) -> Request | None:
        """A request as it stands, or None if it was not shown."""
        if index not in self._requests:
            _demand(self.hidden, f"it names entry {index}, which is not a request")
            return None
        return self._known(index)

    def _known(self, index: int) -> Request:
        if index not in self._requests:
            raise LogDamaged(f"it names entry {index}, which is not a request")
        told = self._requests[index]
        asked = told[0]
        if not isinstance(asked, RequestEntry):
            raise LogDamaged(f"it names entry {index}, which is not a request")
        ended = [since for key in (asked.first, asked.actor) for since in _since(self._ended.get(key, []), index)]
        return fold(sorted(told + ended, key=lambda each: each.index), self._time // 1000)

    def _check_on_request(self, found: _OnRequest) -> None:
        said = self._check_said(found)
        _demand(isinstance(said, _STATEMENT_OF[type(found)]), "its statement says something else")
        about = getattr(said, "request", None)
        _demand(isinstance(found, DropEntry) or about == found.request, "its statement is about another request")
        asked = None if about is None else self._asked(about)
        if asked is None:
            return
        if isinstance(found, DropEntry):
            _demand(asked.entry.first == found.request, "its statement is about another request")
        _demand(asked.entry.role == found.role, "it names another role than its request")
        if isinstance(found, ApproveEntry | DenyEntry):
            _demand(asked.status == "pending", f"its request did not wait: {asked.status}")
            _demand(asked.entry.actor != found.actor, "it is by the person who asked")
            leaf = merkle.leaf_hash(asked.entry.encode()).hex()
            _demand(getattr(said, "leaf", None) == leaf, "its statement is about other words than its request's")
        else:
            _demand(asked.entry.actor == found.actor, "it is not by the person who asked")
        if isinstance(found, ApproveEntry):
            _check_approval(found, asked)
        if isinstance(found, WithdrawEntry):
            _demand(asked.status == "pending", f"its request did not wait: {asked.status}")
        if isinstance(found, DropEntry):
            self._ended.setdefault(found.request, []).append(found)
        else:
            self._requests[found.request].append(found)

    def _check_on_person(self, found: RevokeEntry | LockEntry | UnlockEntry) -> None:
        said = self._check_said(found)
        _demand(isinstance(said, _STATEMENT_OF[type(found)]), "its statement says something else")
        _demand(getattr(said, "serial", None) == getattr(found, "serial", None), "its statement names another serial")
        self._check_ended_case(found, getattr(said, "request", None))
        named = getattr(said, "person", None)  # who signed for one request or certificate does not name its person
        _demand(named in (None, found.person), "its statement names another person")
        ended = found.request if isinstance(found, RevokeEntry) else None
        if not isinstance(found, UnlockEntry):
            self._ended.setdefault(found.person if ended is None else ended, []).append(found)
        if isinstance(found, LockEntry):
            self._locked.add(found.person)
        elif isinstance(found, UnlockEntry):
            self._locked.discard(found.person)

    def _check_ended_case(self, found: RevokeEntry | LockEntry | UnlockEntry, about: int | None) -> None:
        ended = found.request if isinstance(found, RevokeEntry) else None
        asked = None if about is None else self._asked(about)
        if asked is not None:
            _demand((ended, found.person) == (asked.entry.first, asked.entry.actor), "its statement names another request")
        else:
            _demand((about is None) == (ended is None), "its statement names another request")

    def _check_renewal(self, found: RenewEntry) -> None:
        said, asked = self._check_said(found), self._asked(found.request)
        if not isinstance(said, CertificateStatement) or (asked and self._known(said.request).entry.first != asked.entry.first):
            raise LogDamaged("its statement does not ask for a certificate of this grant")
        self._check_possession(found.possession, said, found.statement)
        self._asking = found
        if asked is not None:
            _demand(found.actor == asked.entry.actor, "it is not by the person who asked")
            _demand(found.role == asked.entry.role, "it names another role than its request")
            _demand(asked.status == "granted", f"its request was not granted then: {asked.status}")

    def _check_issue(self, found: IssueEntry, asking: RequestEntry | RenewEntry | None) -> None:
        """`asking` is the entry before, if it asks for a certificate."""
        certificate = found.certificate
        _demand(certificate.ca_key in self._ca_keys, "it is for a CA that this machine does not trust")
        _demand(certificate.serial == found.index, f"its serial is {certificate.serial}")
        if asking is None:
            _demand(found.index == self._start, "nobody asked for it")
        else:
            granted = asking.request if isinstance(asking, RenewEntry) else asking.index
            _demand(found.request == granted, "nobody asked for it")
            _demand(certificate.key == asking.possession_signed.key, "it certifies another key")
            if isinstance(asking, RenewEntry):
                _demand(certificate.valid_before <= asking.until, "it lasts longer than the rule that decided")
        self._check_within_grant(found, certificate)
        self.certificates += 1

    def _check_within_grant(self, found: IssueEntry, certificate: Certificate) -> None:
        asked = self._asked(found.request)
        if asked is None:
            _demand(found.request < self._start, f"it points to entry {found.request}, which was not shown")
            return
        request = asked.entry
        _demand((found.actor, found.role) == (request.actor, request.role), "it names another person or role than its request")
        _demand(asked.status == "granted", f"its request was not granted then: {asked.status}")
        _check_certificate(found, certificate, asked)
        if len(self._requests[found.request]) == 1 + len(asked.approvals):  # the first certificate: one says that it was used
            self._requests[found.request].append(found)


_STATEMENT_OF: Final[dict[type[AnyEntry], type[AnyStatement]]] = {
    ApproveEntry: ApproveStatement,
    DenyEntry: DenyStatement,
    WithdrawEntry: WithdrawStatement,
    DropEntry: DropStatement,
    RevokeEntry: RevokeStatement,
    LockEntry: LockStatement,
    UnlockEntry: UnlockStatement,
}


def _check_on_call(found: DecidedEntry) -> None:
    """What a decision says of who is on call follows from what it says was known."""
    duties = found.on_call or ()
    asked = [finding.holds for way in found.ways for finding in way.findings if finding.condition == "on_call"]
    _demand(bool(duties) or not asked, "it was decided by who is on call, and what was known of that is not in it")
    _demand(True not in asked or any(duty.level is not None for duty in duties), "nobody said that the person is on call")
    ended = [duty.schedule for duty in duties if duty.until is not None and duty.until * 1000 <= found.time]
    _demand(not ended, f"the shift on schedule {ended[:1]} had ended")


def _check_approval(found: ApproveEntry, asked: Request) -> None:
    people = {yes.actor for yes in asked.approvals}
    _demand(found.actor not in people, f"{found.actor} approved the request before")
    if found.privilege is not None:
        needed = sum(step.count for step in asked.entry.steps or ())
        _demand(len(people) + 1 >= needed, f"it grants after {len(people) + 1} of {needed} approvals")
        _demand(replace(found.privilege, duration=0) == replace(asked.privilege, duration=0), "it grants something else")
        allowed = [seconds for seconds in map(_allowed, (*asked.approvals, found)) if seconds is not None]
        longest = min((asked.privilege.duration, *allowed))
        _demand(found.privilege.duration <= longest, "it grants for longer than was asked for and approved")


def _allowed(yes: ApproveEntry) -> int | None:
    """The seconds that whoever approved allowed at most."""
    said = statement.parse(yes.statement.encode())
    return said.duration if isinstance(said, ApproveStatement) else None


def _check_certificate(found: IssueEntry, certificate: Certificate, asked: Request) -> None:
    granted, issued_at = asked.privilege, found.time // 1000
    _demand(certificate.key_id == key_id(asked.entry), f"its key id is {certificate.key_id}")
    _demand(certificate.principals == granted.principals, "its principals are not those that were granted")
    _demand(certificate.force_command == granted.force_command, "its forced command is not the one that was granted")
    _demand(certificate.source_address == granted.source_address, "its source address is not the one that was granted")
    _demand(certificate.permit == granted.permit, "it permits something else than was granted")
    _demand(certificate.valid_after == issued_at - BACKDATE, "it is not valid from its issue on")
    _demand(asked.until is not None and certificate.valid_before <= asked.until, "it outlives its grant")


def key_id(request: RequestEntry) -> str:
    """`person/role/request-index`: what sshd's own log will show."""
    return f"{request.actor}/{request.role}/{request.index}"


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LogDamaged(otherwise)
