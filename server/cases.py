"""Requests as people see them: folded from the log at the moment of asking, and shown to whom they concern."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ca import asking, entry, policy, request
from ca.acts import DAY, reason_of
from ca.entry import ApproveEntry, DropEntry, IssueEntry, LockEntry, RefuseEntry, RequestEntry, RevokeEntry, SaidEntry
from ca.errors import Forbidden, NotFound
from ca.findings import Step
from ca.issue import CertificateAuthority
from ca.keys import PublicKey
from ca.merkle import leaf_hash
from ca.policy import Denied, Facts
from ca.request import LONGEST_CASE, Request
from ca.roles import Policy
from ca.statement import ApproveStatement, CertificateStatement, parse
from ca.store.filter import Filter
from ca.store.sqlite import SqliteStore
from server import told

MOST: Final = 100  # requests in one listing
_RECENT: Final = 5
_NAMED: Final = 20  # people named in a denial
_ENDS: Final = ("drop", "revoke", "lock")  # the entries that end certificates
_ALL: Final = 2**62  # a revocation is never left out, however many entries somebody makes


class Cases:
    """Reads requests out of a store, by the policy in force."""

    def __init__(self, ca: CertificateAuthority, store: SqliteStore) -> None:
        self._ca = ca
        self._store = store
        # What was revoked and when it would end, by the minute and the newest entry of each of `_ENDS`: no other adds to it.
        self._revoked: tuple[object, list[tuple[int, int]]] = None, []

    @property
    def _policy(self) -> Policy:
        return self._ca.rules.policy

    def of(self, index: int, now: float) -> Request:
        """The request in entry `index` as it is `now`. Raises `NotFound`."""
        indexes = self._store.request(index) if index < self._store.size() else []  # SQLite has no numbers beyond 64 bits
        if not indexes:
            raise NotFound(f"entry {index} is not a request", "jit-ssh requests lists them")
        return request.fold([entry.decode(next(self._store.entries(each, each + 1))) for each in indexes], int(now))

    def holder(self, said: CertificateStatement, key: PublicKey, now: int) -> str | None:
        """Whose living certificate the statement is signed by, if `key` is that certificate's; the log decides again."""
        try:
            asked = self.of(said.request, now)
        except NotFound:
            return None
        if said.serial is None or said.serial >= self._store.size():
            return None
        issued = entry.decode(next(self._store.entries(said.serial, said.serial + 1)))
        lives = asking.lives(said, key, asked, issued, self._policy, now, self._renewed_by)
        return asked.entry.actor if lives else None

    def extensions(self, asked: Request, now: float) -> int:
        """How often the grant of this request was extended."""
        [newest] = self._requests(Filter(actor=asked.entry.actor, role=asked.entry.role, kind="request"), 1, now)
        of_it = newest if newest.entry.first == asked.entry.first else asked
        return request.case(of_it, lambda index: self.of(index, now)).extensions

    def visible(self, asked: Request, person: str, now: float) -> bool:
        """Whether it is the person's own, or theirs to answer, to end or to audit."""
        concerned = any(person in self._could(step, asked, now) for step in asked.entry.steps or ())
        ends = asked.status in request.OPEN and self._policy.is_revoker(person)
        return person == asked.entry.actor or concerned or ends or self._policy.is_auditor(person)

    def concerns(self, asked: Request, person: str, now: float) -> bool:
        """Whether it is the person's own, or waits for an answer that could be theirs."""
        waits = asked.status == "pending" and any(person in self._could(step, asked, now) for step in asked.entry.steps or ())
        return waits or person == asked.entry.actor

    def listed(self, view: str, person: str, now: float) -> list[Request]:
        """The newest requests that are `mine`, `waiting` for me, or `all`. Raises `Forbidden`, `NotFound`."""
        match view:
            case "mine":
                return self._requests(Filter(actor=person, kind="request"), MOST, now)
            case "waiting":
                found = self._newest(now)
                return [each for each in found if each.status == "pending" and self._waits_for(person, each, now)][:MOST]
            case "all" if self._policy.is_auditor(person):
                return self._requests(Filter(kind="request"), MOST, now)
            case "all" if self._policy.is_revoker(person):
                return self._open(now)[:MOST]
            case "all":
                raise Forbidden("only auditors and revokers see everybody's requests", "guardrails.toml names their groups")
            case _:
                raise NotFound(f"there is no view {view[:60]!a}", "Use mine, waiting or all")

    def _requests(self, wanted: Filter, most: int, now: float) -> list[Request]:
        entries = (entry.decode(source) for source in self._store.select(wanted, most))
        return [self.of(each.index, now) for each in entries]

    def _newest(self, now: float) -> list[Request]:
        """Each person's newest request for each role, as far as it may not be over."""
        return [self.of(index, now) for index in self._store.newest_requests(int((now - LONGEST_CASE) * 1000))]

    def _open(self, now: float) -> list[Request]:
        """What a revoker may end."""
        cases = (request.case(newest, lambda index: self.of(index, now)) for newest in self._newest(now))
        found = {each.entry.index: each for case in cases for each in (case.newest, case.current) if each.status in request.OPEN}
        return [found[index] for index in sorted(found, reverse=True)]

    def _waits_for(self, person: str, asked: Request, now: float) -> bool:
        approvals = tuple(policy.Approved(yes.actor) for yes in asked.approvals)
        return policy.fills(self._policy, asked.entry.steps or (), self._facts(asked, now), approvals, person)

    def _could(self, step: Step, asked: Request, now: float) -> frozenset[str]:
        return policy.eligible(self._policy, step, self._facts(asked, now))

    def could_approve(self, refused: RefuseEntry, now: float) -> list[dict[str, Any]]:
        """The steps of a way on which others could approve what policy denied, and who they are."""
        rules, moment = self._ca.rules, datetime.fromtimestamp(now, UTC)
        if refused.code != "denied" or refused.role is None or refused.policy != rules.index:
            return []
        facts = Facts(refused.actor, None, hardware_key=False, now=moment, locked=self._store.locked)
        denied = Denied(refused.role, refused.findings, refused.ways)
        steps = policy.could_approve(rules.policy, denied, facts)
        people = [sorted(policy.eligible(rules.policy, step, facts, in_time=True)) for step in steps]
        return [_step(step, [], could[:_NAMED]) for step, could in zip(steps, people, strict=True)]

    def _facts(self, asked: Request, now: float) -> Facts:
        """What decides who could approve."""
        begun, moment = datetime.fromtimestamp(asked.asked_at, UTC), datetime.fromtimestamp(now, UTC)
        locked = self._store.locked
        return Facts(asked.entry.actor, None, hardware_key=False, now=moment, asked_at=begun, locked=locked)

    # ---------------------------------------------------------------- as JSON

    def shown(self, asked: Request, now: float) -> dict[str, Any]:
        """Everything about a request that its approvers need to see."""
        made, encoded = asked.entry, asked.entry.encode()
        role = self._policy.roles.get(made.role)
        certificates = self._issued(Filter(request=made.index, kind="issue"), MOST)
        members: dict[str, Any] = {
            "request": made.index,
            "leaf": leaf_hash(encoded).hex(),
            "entry": encoded.decode(),
            "person": made.actor,
            "role": made.role,
            "about": role.about if role else None,
            "reason": reason_of(made),
            "duration": asked.privilege.duration,
            "asked_at": asked.asked_at,
            "status": asked.status,
            "expires": made.expires,
            "granted_at": asked.granted_at,
            "until": asked.until,
            "extends": made.request,
            "extensions": self.extensions(asked, now),
            "accounts": told.accounts(self._policy, asked.privilege.principals),
            "force_command": asked.privilege.force_command,
            "permit": asked.privilege.permit,
            "steps": [self._step(step, asked, now) for step in made.steps or ()],
            "approvals": [_approval(yes) for yes in asked.approvals],
            **_ending(asked),
            "certificates": [_certificate(each) for each in reversed(certificates)],
            "findings": made.findings,
            "ways": made.ways,
            "recent": self._recent(made, now),
        }
        return {name: value for name, value in members.items() if value is not None}

    def _step(self, step: Step, asked: Request, now: float) -> dict[str, Any]:
        could, said = self._could(step, asked, now), [yes.actor for yes in asked.approvals]
        return _step(step, [person for person in said if person in could], sorted(could - set(said)))

    def _recent(self, made: RequestEntry, now: float) -> list[dict[str, Any]]:
        before = self._requests(Filter(actor=made.actor, kind="request", before=made.index), _RECENT, now)
        return [
            {"request": one.entry.index, "role": one.entry.role, "time": one.asked_at, "status": one.status} for one in before
        ]

    # -------------------------------------------------------------- revocation

    def revoked(self, now: float) -> list[int]:
        """The serials of all certificates that would be valid now, had they not been revoked."""
        moment = now // 60, *map(self._store.newest, _ENDS)  # read first: what it leaves out is found at the next
        known, found = self._revoked
        if known != moment:
            found = self._find_revoked(now)
            self._revoked = moment, found
        return [serial for serial, end in found if end > now]

    def _find_revoked(self, now: float) -> list[tuple[int, int]]:
        since = int((now - DAY) * 1000)
        people = {person for person in map(_whose, self._endings(since)) if person is not None}
        found: list[tuple[int, int]] = []
        for person in people:
            requests: dict[int, tuple[Request, dict[int, bool]]] = {}
            for issue in self._issued(Filter(actor=person, kind="issue", since=since), _ALL):
                if issue.certificate.valid_before > now:
                    if issue.request not in requests:
                        requests[issue.request] = self.of(issue.request, now), {}
                    asked, judged = requests[issue.request]
                    if asked.revokes(issue.index, self._renewed_by, judged):
                        found.append((issue.index, issue.certificate.valid_before))
        return sorted(found)

    def _renewed_by(self, serial: int) -> int | None:
        return request.renewed_by(entry.decode(next(self._store.entries(serial - 1, serial))))

    def _issued(self, wanted: Filter, most: int) -> list[IssueEntry]:
        found = map(entry.decode, self._store.select(wanted, most))
        return [each for each in found if isinstance(each, IssueEntry)]

    def _endings(self, since: int) -> Iterable[entry.AnyEntry]:
        for kind in _ENDS:
            for source in self._store.select(Filter(kind=kind, since=since), _ALL):
                yield entry.decode(source)


def _whose(ending: entry.AnyEntry) -> str | None:
    match ending:
        case DropEntry():
            return ending.actor
        case RevokeEntry() | LockEntry():
            return ending.person
        case _:
            return None


def _step(step: Step, approved_by: Sequence[str], could: Sequence[str]) -> dict[str, Any]:
    return {"group": step.group, "count": step.count, "approved_by": approved_by, "could": could}


def _approval(yes: ApproveEntry) -> dict[str, Any]:
    said = parse(yes.statement.encode())
    more = {"duration": said.duration, "reason": said.reason or None} if isinstance(said, ApproveStatement) else {}
    members = {"person": yes.actor, "time": yes.time // 1000} | more
    return {name: value for name, value in members.items() if value is not None}


def _ending(asked: Request) -> dict[str, Any]:
    if not isinstance(asked.ending, SaidEntry):
        return {}
    said = parse(asked.ending.statement.encode())
    return {"ended_by": asked.ending.actor, "end_reason": getattr(said, "reason", None) or None}


def _certificate(issued: IssueEntry) -> dict[str, Any]:
    certificate = issued.certificate
    return {"serial": certificate.serial, "valid_after": certificate.valid_after, "valid_before": certificate.valid_before}
