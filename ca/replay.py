"""Judges entries in their order: what each may say after those before it. The state of a request is the CA's own fold.

Memory is bounded by what happens in two days, whatever the size of the log: a statement is fresh for minutes only, and nothing
can be done about a request that is older than `LONGEST_CASE`.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, NamedTuple

from ca import statement
from ca.emergency import Emergency
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DenyEntry,
    DropEntry,
    EmergencyEntry,
    IssueEntry,
    LockEntry,
    PolicyEntry,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SaidEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import LogDamaged
from ca.judge import Certified, Judged, Words, demand
from ca.keyring import Keyring
from ca.keys import fingerprint
from ca.request import LONGEST_CASE, Request, case, fold, key_id
from ca.statement import FRESH, ApproveStatement

PolicyFile = Callable[[str], bytes | None]
"""Gives the bytes of a policy file by their SHA-256 in hexadecimal, None if they are not there."""

_NO_CERTIFICATE: Final = "the entry before is granted a certificate, and this is not its issue"
_OnRequest = ApproveEntry | DenyEntry | WithdrawEntry | DropEntry


@dataclass(slots=True)
class _Told:
    """A request that can still change: its leaf hash, its answers and first certificate, the serials of all."""

    entry: RequestEntry
    leaf: bytes
    entries: list[AnyEntry] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)


class _Issued(NamedTuple):
    """A certificate that may sign for the next one; `by` is the one whose key asked for it."""

    request: int
    key: bytes
    valid_before: int
    serial: int
    by: "_Issued | None"


class _Asking(NamedTuple):
    """An entry that its certificate has to follow, the key that is certified, and the certificate whose key asked."""

    entry: RequestEntry | RenewEntry
    key: bytes
    by: _Issued | None


class Replay:
    """What later entries are compared with."""

    def __init__(self, start: int = 0, policy_file: PolicyFile | None = None) -> None:
        """`start` is the first entry that could be shown. Without policy files, whose key it was is not judged."""
        self._start = start
        self._asking: _Asking | None = None  # of the entry before
        self._time = 0
        self._statements = _Recent()
        self._told: dict[int, _Told] = {}  # by request
        self._cases: dict[int, list[int]] = {}  # by first request, those that extend it, itself included
        self._first: dict[int, int] = {}  # request → first request of its case
        self._asked_at: deque[tuple[int, int]] = deque()  # time and request, oldest first
        self._issued: dict[int, _Issued] = {}  # by serial, while they may be valid
        self._newest: dict[tuple[str, str], int] = {}  # request, by person and role
        self._ended: dict[int | str, list[AnyEntry]] = {}  # what ended a case, by its first request; or all of a person
        self._ended_at: deque[tuple[int, int | str]] = deque()  # time and key, oldest first
        self._locked: set[str] = set()
        self._policy = 0
        self._emergency = Emergency()  # all of it: emergencies are few
        self._keys = _Keys(policy_file) if policy_file is not None else None
        self.hidden = False  # whether an entry before was not shown: then others may refer to what was not seen
        self.signatures = 0
        self.certificates = 0
        self.policies = 0

    def check(self, judged: Judged) -> None:
        """Raises what is wrong with an entry that may not come now. Each entry in its turn, those not shown excepted."""
        found = judged.entry
        demand(found.time >= self._time, "its time is before the entry's before it")
        self._time = found.time
        self._forget()
        asking, self._asking = self._asking, None
        demand(asking is None or isinstance(found, IssueEntry), _NO_CERTIFICATE)
        if isinstance(found, SaidEntry) and isinstance(judged, Words):
            self._check_said(found, judged)
            self._check_kind(found, judged)
        elif isinstance(found, EmergencyEntry):
            self._check_emergency(found)
        elif isinstance(found, IssueEntry) and isinstance(judged, Certified):
            self._check_issue(found, judged, asking)
        elif isinstance(found, PolicyEntry):
            self._policy = found.index
            if self._keys is not None:
                self._keys.take(found)
                self.policies += 1

    def hide(self) -> None:
        """The next entry is not shown, or there is none. Raises `LogDamaged` if it has to be a certificate's."""
        self.hidden = True
        demand(self._asking is None, _NO_CERTIFICATE)

    def _check_kind(self, found: SaidEntry, words: Words) -> None:
        match found:
            case RequestEntry():
                self._check_request(found, words)
            case ApproveEntry() | DenyEntry() | WithdrawEntry():
                self._check_answer(found, words)
            case DropEntry():
                self._check_drop(found, words)
            case RevokeEntry() | LockEntry() | UnlockEntry():
                self._check_on_person(found, words)
            case RenewEntry():
                self._check_renewal(found, words)
            case ReviewEntry():
                self._check_emergency(found)
            case _:
                pass

    def _check_emergency(self, found: EmergencyEntry) -> None:
        self._emergency.hidden = self.hidden
        self._emergency.take(found)

    def _check_said(self, found: SaidEntry, words: Words) -> None:
        """Who signed it, by which policy, and that it was not said before."""
        demand(self._statements.add(words.id, found.time // 1000), "its statement stands in an earlier entry")
        if found.actor in self._locked and not isinstance(found, RefuseEntry):
            raise LogDamaged(f"{found.actor} is locked out")
        if self._policy != found.policy and not (self.hidden and self._policy < found.policy < found.index):
            raise LogDamaged(f"it names entry {found.policy} as the policy in force")
        if words.certificate is not None:
            self._check_signed_by_certificate(found, words, words.certificate)
        elif self._keys is not None and self._keys.owners.get(words.signer) != found.actor:
            raise LogDamaged(f"its signature is by {fingerprint(words.signer)}, no key of {found.actor} by the policy in force")
        self.signatures += words.signatures

    def _check_signed_by_certificate(self, found: SaidEntry, words: Words, serial: int) -> None:
        """The key is that of a certificate of the very request that the statement names, not over and not revoked."""
        known, asked = self._issued.get(serial), None if words.request is None else self._asked(words.request)
        if known is None or asked is None:
            demand(self.hidden, f"it is signed by the key of certificate {serial}, which there is not")
            return
        same = (known.request, known.key) == (words.request, words.signer)
        demand(same, f"it is not signed by the key of certificate {serial} of its request")
        demand(found.time // 1000 < known.valid_before, f"certificate {serial}, whose key signed it, was over")
        demand(asked.status == "granted", f"the grant of certificate {serial}, whose key signed it, was over")
        before: _Issued | None = known
        while asked.revoked_serials and before is not None:
            demand(before.serial not in asked.revoked_serials, f"certificate {serial}, whose key signed it, was revoked")
            before = before.by
        demand(found.actor == asked.entry.actor, "it is signed by the key of another person's certificate")

    # ------------------------------------------------------------- requests

    def _check_request(self, found: RequestEntry, words: Words) -> None:
        self._check_extension(found)
        self._told[found.index] = _Told(found, words.leaf)
        self._asked_at.append((found.time, found.index))
        self._first[found.index] = found.first
        self._cases.setdefault(found.first, []).append(found.index)
        self._newest[found.actor, found.role] = found.index
        if not found.steps and words.key is not None:
            self._asking = _Asking(found, words.key, None)

    def _check_extension(self, found: RequestEntry) -> None:
        """Whoever holds the role extends what they hold, once more than before; whoever does not begins anew."""
        newest = self._newest.get((found.actor, found.role))
        if newest is None and self.hidden and found.request not in self._first:
            return
        before = None if newest is None else case(self._known(newest), self._known)
        demand(before is None or before.newest.status != "pending", "another request of the person for the role waits")
        expected: tuple[int | None, ...] = (None, None, None)
        held = None if before is None else before.current
        if before is not None and held is not None and held.status == "granted":
            expected = held.entry.first, held.entry.index, before.extensions + 1
        extends = found.request, found.extends, found.extension
        if extends != expected:
            raise LogDamaged(f"it extends {extends}, and what its person holds of the role is {expected}")

    def _asked(self, index: int | None) -> Request | None:
        """A request as it stands, or None if it was not shown."""
        if index not in self._told:
            demand(self.hidden, f"it names entry {index}, which is not a request, or one that was over long before")
            return None
        return self._known(index)

    def _known(self, index: int) -> Request:
        told = self._told.get(index)
        if told is None:
            raise LogDamaged(f"it names entry {index}, which is not a request, or one that was over long before")
        keys, entries = (told.entry.first, told.entry.actor), told.entries
        if ended := [since for key in keys if key in self._ended for since in _since(self._ended[key], index)]:
            entries = sorted(entries + ended, key=lambda each: each.index)
        return fold((told.entry, *entries), self._time // 1000)

    def _case_of(self, about: int | None) -> RequestEntry | None:
        """The newest request of the case that `about` belongs to, or None if that was not shown."""
        first = None if about is None else self._first.get(about)
        if first is None:
            demand(self.hidden, f"it names entry {about}, which is not a request, or one that was over long before")
            return None
        return self._told[self._cases[first][-1]].entry

    # -------------------------------------------------------------- answers

    def _check_answer(self, found: ApproveEntry | DenyEntry | WithdrawEntry, words: Words) -> None:
        asked = self._asked(found.request)
        if asked is None:
            return
        demand(asked.entry.role == found.role, "it names another role than its request")
        demand(asked.status == "pending", f"its request did not wait: {asked.status}")
        if isinstance(found, WithdrawEntry):
            demand(asked.entry.actor == found.actor, "it is not by the person who asked")
        else:
            demand(asked.entry.actor != found.actor, "it is by the person who asked")
            demand(
                words.request_leaf == self._told[found.request].leaf.hex(),
                "its statement is about other words than its request's",
            )
        if isinstance(found, ApproveEntry):
            _check_approval(found, asked)
        self._told[found.request].entries.append(found)

    def _check_drop(self, found: DropEntry, words: Words) -> None:
        asked = self._case_of(words.request)
        if asked is not None:
            demand(asked.first == found.request, "its statement is about another request")
            demand(asked.role == found.role, "it names another role than its request")
            demand(asked.actor == found.actor, "it is not by the person who asked")
        self._end(found.request, found)

    def _check_on_person(self, found: RevokeEntry | LockEntry | UnlockEntry, words: Words) -> None:
        ended = found.request if isinstance(found, RevokeEntry) else None
        asked = None if words.request is None else self._case_of(words.request)
        if asked is not None:
            demand((ended, found.person) == (asked.first, asked.actor), "its statement names another request")
        else:
            demand((words.request is None) == (ended is None), "its statement names another request")
        if not isinstance(found, UnlockEntry):
            self._end(found.person if ended is None else ended, found)
        if isinstance(found, LockEntry):
            self._locked.add(found.person)
        elif isinstance(found, UnlockEntry):
            self._locked.discard(found.person)

    def _end(self, key: int | str, found: AnyEntry) -> None:
        self._ended.setdefault(key, []).append(found)
        self._ended_at.append((found.time, key))

    # --------------------------------------------------------- certificates

    def _check_renewal(self, found: RenewEntry, words: Words) -> None:
        asked = self._asked(found.request)
        if asked is not None:
            named = self._case_of(words.request)
            same = named is None or named.first == asked.entry.first
            demand(same, "its statement does not ask for a certificate of this grant")
            demand(found.actor == asked.entry.actor, "it is not by the person who asked")
            demand(found.role == asked.entry.role, "it names another role than its request")
            demand(asked.status == "granted", f"its request was not granted then: {asked.status}")
        if words.key is not None:
            by = None if words.certificate is None else self._issued.get(words.certificate)
            self._asking = _Asking(found, words.key, by)

    def _check_issue(self, found: IssueEntry, given: Certified, asking: _Asking | None) -> None:
        """`asking` is the entry before, if it asks for a certificate."""
        if asking is None:
            demand(found.index == self._start, "nobody asked for it")
        else:
            by, key, _ = asking
            demand(found.request == (by.request if isinstance(by, RenewEntry) else by.index), "nobody asked for it")
            demand(given.key == key, "it certifies another key")
            if isinstance(by, RenewEntry):
                demand(given.valid_before <= by.until, "it lasts longer than the rule that decided")
        self._check_within_grant(found, given)
        if found.request in self._told:
            self._told[found.request].serials.append(found.index)
            renewed_by = None if asking is None else asking.by
            self._issued[found.index] = _Issued(found.request, given.key, given.valid_before, found.index, renewed_by)
        self.certificates += 1

    def _check_within_grant(self, found: IssueEntry, given: Certified) -> None:
        asked = self._asked(found.request)
        if asked is None:
            demand(found.request < self._start, f"it points to entry {found.request}, which was not shown")
            return
        request = asked.entry
        demand((found.actor, found.role) == (request.actor, request.role), "it names another person or role than its request")
        if asked.status != "granted":
            raise LogDamaged(f"its request was not granted then: {asked.status}")
        _check_certificate(given, asked)
        told = self._told[found.request].entries
        if len(told) == len(asked.approvals):  # the first certificate: one says that it was used
            told.append(found)

    # ------------------------------------------------------------ forgetting

    def _forget(self) -> None:
        """Drops what no honest entry can name any more."""
        over = self._time - 1000 * LONGEST_CASE
        while self._asked_at and self._asked_at[0][0] < over:
            _, index = self._asked_at.popleft()
            told = self._told.pop(index)
            entry = told.entry
            for serial in told.serials:
                del self._issued[serial]
            if self._cases[entry.first][-1] == index:
                for each in self._cases.pop(entry.first):
                    del self._first[each]
            if self._newest[entry.actor, entry.role] == index:
                del self._newest[entry.actor, entry.role]
        while self._ended_at and self._ended_at[0][0] < over:
            _, key = self._ended_at.popleft()
            self._ended[key].pop(0)
            if not self._ended[key]:
                del self._ended[key]


class _Recent:
    """The ids of the statements that could be fresh still."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._in_order: deque[tuple[int, str]] = deque()

    def add(self, id_: str, time: int) -> bool:
        """Whether the statement in an entry of this `time` (Unix seconds) is a new one."""
        while self._in_order and self._in_order[0][0] < time - 2 * FRESH:  # said FRESH after one entry, FRESH before the other
            self._ids.discard(self._in_order.popleft()[1])
        if id_ in self._ids:
            return False
        self._ids.add(id_)
        self._in_order.append((time, id_))
        return True


class _Keys:
    """The policy files as they were, and whose keys they say is whose."""

    def __init__(self, policy_file: PolicyFile) -> None:
        self._policy_file = policy_file
        self._seen: set[str] = set()
        self.owners: dict[bytes, str] = {}

    def take(self, policy: PolicyEntry) -> None:
        """The policy that is in force from here on. Raises `LogDamaged` unless every file of it is there."""
        people = None
        for name, digest in policy.files.items():
            if digest in self._seen and name != "people.toml":
                continue
            content = self._policy_file(digest)
            demand(content is not None, f"its {name} is not there: no file with the SHA-256 {digest}")
            demand(sha256(content or b"").hexdigest() == digest, f"its {name} was changed: it has not the SHA-256 {digest}")
            self._seen.add(digest)
            people = content if name == "people.toml" else people
        demand(people is not None, "it has no people.toml")
        self.owners = dict(Keyring.parse(people or b"").owners)


def _since(entries: list[AnyEntry], index: int) -> list[AnyEntry]:
    """Those behind `index`."""
    return entries[bisect_right(entries, index, key=lambda each: each.index) :]


def _check_approval(found: ApproveEntry, asked: Request) -> None:
    people = {yes.actor for yes in asked.approvals}
    demand(found.actor not in people, f"{found.actor} approved the request before")
    if found.privilege is not None:
        needed = sum(step.count for step in asked.entry.steps or ())
        demand(len(people) + 1 >= needed, f"it grants after {len(people) + 1} of {needed} approvals")
        demand(replace(found.privilege, duration=0) == replace(asked.privilege, duration=0), "it grants something else")
        allowed = [seconds for seconds in map(_allowed, (*asked.approvals, found)) if seconds is not None]
        longest = min((asked.privilege.duration, *allowed))
        demand(found.privilege.duration <= longest, "it grants for longer than was asked for and approved")


def _allowed(yes: ApproveEntry) -> int | None:
    """The seconds that whoever approved allowed at most."""
    said = statement.parse(yes.statement.encode())
    return said.duration if isinstance(said, ApproveStatement) else None


def _check_certificate(given: Certified, asked: Request) -> None:
    granted = asked.privilege
    if given.key_id != key_id(asked.entry):
        raise LogDamaged(f"its key id is {given.key_id}")
    demand(given.principals == granted.principals, "its principals are not those that were granted")
    demand(given.force_command == granted.force_command, "its forced command is not the one that was granted")
    demand(given.source_address == granted.source_address, "its source address is not the one that was granted")
    demand(given.permit == granted.permit, "it permits something else than was granted")
    demand(asked.until is not None and given.valid_before <= asked.until, "it outlives its grant")
