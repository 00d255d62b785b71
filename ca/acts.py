"""What people do about requests, each as the entry it leaves: an answer, a withdrawal, an end, a lock, or a refusal.

Pure: a statement and the log's tail in, entries out. Whoever may not do what they signed leaves a `refuse` entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar

from ca import request, statement
from ca.emergency import took_part
from ca.entry import (
    ApproveEntry,
    BreakGlassEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    KitEntry,
    LockEntry,
    ReadEntry,
    RefuseEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SaidEntry,
    SealEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import NotFound
from ca.fields import MAX_DURATION, suggestion
from ca.findings import Privilege
from ca.keys import PublicKey
from ca.log import Tail
from ca.merkle import leaf_hash
from ca.oncall import Shift
from ca.policy import Approved, Decision, Denied, Facts, Granted, Pending, duties, eligible, evaluate
from ca.request import LONGEST_CASE, Case, Request
from ca.roles import Policy
from ca.statement import (
    AnyStatement,
    ApproveStatement,
    DenyStatement,
    DropStatement,
    LockStatement,
    ReadStatement,
    RequestStatement,
    ReviewStatement,
    RevokeStatement,
    UnlockStatement,
    WithdrawStatement,
)

DAY: Final = 24 * 3600  # seconds
OnCallFacts = Callable[[str], Mapping[str, Shift | str]]  # of a person, by schedule


@dataclass(frozen=True)
class Said:
    """A statement whose signature was verified: who signed it with which key, their words verbatim, and the facts."""

    person: str
    key: PublicKey
    statement: AnyStatement
    text: str
    signature: str
    address: str | None
    hardware_key: bool


@dataclass(frozen=True)
class Rules:
    """A policy and the index of the entry from which on it decides."""

    policy: Policy
    index: int


@dataclass(frozen=True)
class Moment:
    """When and by what something is decided: the tail of the log, the rules in force, who is on call."""

    tail: Tail
    rules: Rules
    on_call: OnCallFacts

    @property
    def seconds(self) -> int:
        """Now, in Unix seconds."""
        return self.tail.time // 1000

    @cached_property
    def now(self) -> datetime:
        """Now, with its zone."""
        return datetime.fromtimestamp(self.tail.time / 1000, UTC)

    def request(self, index: int) -> Request:
        """The request in this entry. Raises `NotFound`."""
        found = [self.tail.entry(each) for each in self.tail.batch.told(index)]
        if not found:
            raise NotFound(f"entry {index} is not a request", "jit-ssh requests lists them")
        return request.fold(found, self.seconds)

    def use(self, index: int) -> BreakGlassEntry:
        """The use of the emergency key in this entry. Raises `NotFound`."""
        found = self.tail.entry(index) if index < self.tail.index else None
        if not isinstance(found, BreakGlassEntry) or found.person is None:
            raise NotFound(f"entry {index} is no use of the emergency key", "jit-ssh log --kind break-glass lists them")
        return found

    def took_part(self, use: BreakGlassEntry) -> frozenset[str]:
        """Who was named in the session of a use of the emergency key, and whose shares opened it."""
        session = (self.tail.entry(index) for index in self.tail.log.session(use.index))
        kit = self.tail.entry(use.kit)
        sealed = self.tail.entry(kit.seal) if isinstance(kit, KitEntry) else None
        shares = sealed.seal.shares if isinstance(sealed, SealEntry) else ()
        return took_part((each.told for each in session if isinstance(each, BreakGlassEntry)), shares)

    def renewed_by(self, serial: int) -> int | None:
        """The serial of the certificate by whose key this one was asked for, if it was one's."""
        return request.renewed_by(self.tail.entry(serial - 1))

    def newest(self, person: str, role: str) -> Case | None:
        """The newest case of the person and the role, unless it is surely over."""
        since = self.tail.time - 1000 * LONGEST_CASE
        newest = self.tail.batch.newest_request(person, role, since)
        return None if newest is None else request.case(self.request(newest), self.request)

    def case(self, asked: Request) -> Case:
        """The case of a request, as it stands by the newest of it."""
        newest = self.newest(asked.entry.actor, asked.entry.role)
        is_its = newest is not None and newest.newest.entry.first == asked.entry.first
        return newest if newest is not None and is_its else request.case(asked, self.request)

    @property
    def locked_out(self) -> frozenset[str]:
        """Everybody whom the security team has locked out."""
        return frozenset(person for person, locked in self.tail.batch.known.locked.items() if locked)

    def locked(self, person: str) -> bool:
        """Whether the security team has locked the person out."""
        return self.tail.batch.known.locked.get(person, False)

    def facts(self, said: Said, **more: Any) -> Facts:
        """What is known of whoever signed."""
        on_call = self.on_call(said.person)
        return Facts(said.person, said.address, said.hardware_key, self.now, on_call, locked=lambda: self.locked_out, **more)

    def facts_again(self, asked: Request) -> Facts:
        """What is known of whoever made a request: where from and with what key as it was then, all else as it is now."""
        entry = asked.entry
        begun = datetime.fromtimestamp(entry.time / 1000, UTC)
        facts = Facts(entry.actor, entry.address, entry.hardware_key, self.now, self.on_call(entry.actor), asked_at=begun)
        return replace(facts, locked=lambda: self.locked_out)

    def refused(self, said: Said, code: str, message: str, **more: Any) -> RefuseEntry:
        """The entry of something that was not done."""
        return record(RefuseEntry, said, self, code=code, message=message, **({"findings": (), "ways": ()} | more))


def reasons(decision: Decision, facts: Facts, at: Moment) -> dict[str, Any]:
    """What an entry tells of how it was decided."""
    on_call = duties(at.rules.policy, decision.role, facts)
    return {"findings": decision.findings, "ways": decision.ways, "on_call": on_call}


_Answered = ApproveEntry | DenyEntry | ReviewEntry | WithdrawEntry
Act = _Answered | DropEntry | RevokeEntry | LockEntry | UnlockEntry | ReadEntry | RefuseEntry
_Record = TypeVar("_Record", bound=SaidEntry)


def record(kind: type[_Record], said: Said, at: Moment, **decided: Any) -> _Record:
    """The next entry: what the person said, by which facts and policy it was judged, and what was `decided`."""
    return kind(
        index=at.tail.index,
        time=at.tail.time,
        actor=said.person,
        statement=said.text,
        signature=said.signature,
        address=said.address,
        hardware_key=said.hardware_key,
        policy=at.rules.index,
        **decided,
    )


def act(said: Said, at: Moment) -> Act:
    """The entry of what the person did. Raises `NotFound` when it is about something that is not there."""
    if at.locked(said.person):
        return at.refused(said, "locked", f"{said.person} is locked out by the security team")
    match said.statement:
        case ApproveStatement() | DenyStatement() as answer:
            return _answer(said, answer, at)
        case ReviewStatement() as review:
            return _review(said, review, at)
        case WithdrawStatement() | DropStatement() as own:
            return _give_back(said, own, at)
        case RevokeStatement() | LockStatement() | UnlockStatement() as ending:
            return _end(said, ending, at)
        case ReadStatement() as read:
            return record(ReadEntry, said, at, request=read.request)
        case other:
            raise NotFound(f"{type(other).__name__} does nothing to a request")


# ------------------------------------------------------------------ answering


def _answer(said: Said, answer: ApproveStatement | DenyStatement, at: Moment) -> Act:
    asked = at.request(answer.request)
    entry = asked.entry
    about = {"role": entry.role, "request": entry.index}
    facts = replace(at.facts_again(asked), extensions=None if entry.extension is None else entry.extension - 1)
    if said.person == entry.actor:
        return at.refused(said, "own-request", "nobody answers their own request", **about)
    if not any(said.person in eligible(at.rules.policy, step, facts) for step in entry.steps or ()):
        # Before all else that could be said of it: what somebody else asked for is not everybody's to know.
        return at.refused(said, "forbidden", f"request {entry.index} is not one that you can answer", request=entry.index)
    if asked.status != "pending":
        return at.refused(said, "not-pending", f"request {entry.index} does not wait any more: {asked.status}", **about)
    if leaf_hash(entry.encode()).hex() != answer.leaf:
        return at.refused(said, "refused", f"another request than {entry.index} was shown and signed", **about)
    if isinstance(answer, DenyStatement):
        return record(DenyEntry, said, at, **about)
    return _approve(said, answer, at, asked, facts)


def _approve(said: Said, answer: ApproveStatement, at: Moment, asked: Request, facts: Facts) -> Act:
    entry = asked.entry
    about = {"role": entry.role, "request": entry.index}
    if said.person in [yes.actor for yes in asked.approvals]:
        return at.refused(said, "refused", f"{said.person} has approved request {entry.index} already", **about)
    if answer.duration is not None and not 0 < answer.duration <= entry.privilege.duration:
        return at.refused(said, "refused", f"an approval keeps or shortens the {entry.privilege.duration} s asked for", **about)
    approvals = (*approved(asked, at), Approved(said.person, answer.duration))
    # Who shortened it and is locked out by now is not counted, but what they signed bounds the grant all the same.
    length = min((entry.privilege.duration, *(_duration(yes) or MAX_DURATION for yes in asked.approvals)))
    decision = evaluate(at.rules.policy, entry.role, length, reason_of(entry), facts, approvals)
    match decision:
        case Denied():
            message = f"{entry.actor} cannot have it any more: {decision.message}"
            return at.refused(said, "denied", message, **reasons(decision, facts, at), **about)
        case Granted() | Pending():
            if not same(decision.privilege, entry.privilege):
                return at.refused(said, "refused", f"what {entry.role} gives was changed since it was asked for", **about)
            # Though a change of the rules or facts may ask for fewer by now: as many as were told to whoever asked.
            enough = len(approvals) >= sum(step.count for step in entry.steps or ())
            privilege = decision.privilege if isinstance(decision, Granted) and enough else None
            return record(ApproveEntry, said, at, privilege=privilege, **reasons(decision, facts, at), **about)


def approved(asked: Request, at: Moment) -> tuple[Approved, ...]:
    """Who said yes to it so far, but for those who are locked out by now."""
    return tuple(Approved(yes.actor, _duration(yes)) for yes in asked.approvals if not at.locked(yes.actor))


def _duration(yes: ApproveEntry) -> int | None:
    said = statement.parse(yes.statement.encode())
    return said.duration if isinstance(said, ApproveStatement) else None


def reason_of(entry: RequestEntry) -> str:
    """The reason that was given."""
    said = statement.parse(entry.statement.encode())
    return said.reason if isinstance(said, RequestStatement) else ""


def same(one: Privilege, other: Privilege) -> bool:
    """Whether both give the same, for whatever time."""
    return replace(one, duration=0) == replace(other, duration=0)


# ------------------------------------------------------------------ reviewing


def _review(said: Said, review: ReviewStatement, at: Moment) -> ReviewEntry | RefuseEntry:
    if not (at.rules.policy.is_auditor(said.person) or at.rules.policy.is_revoker(said.person)):
        return at.refused(said, "forbidden", "only those whom guardrails.toml names as auditors or revokers review")
    use = at.use(review.request)
    about = {"request": use.index}
    if said.person in at.took_part(use):
        message = "nobody reviews a session in which they were named or which their share opened: another auditor or revoker may"
        return at.refused(said, "own-request", message, **about)
    if (before := at.tail.log.reviewed(use.index)) is not None:
        return at.refused(said, "not-pending", f"entry {use.index} was reviewed already, in entry {before}", **about)
    if leaf_hash(use.encode()).hex() != review.leaf:
        return at.refused(said, "refused", f"another entry than {use.index} was shown and signed", **about)
    return record(ReviewEntry, said, at, person=use.person, verdict=review.verdict, **about)


# --------------------------------------------------------------------- ending


def _give_back(said: Said, own: WithdrawStatement | DropStatement, at: Moment) -> Act:
    asked = at.request(own.request)
    about = {"role": asked.entry.role, "request": own.request}
    if said.person != asked.entry.actor:
        return at.refused(said, "forbidden", f"request {own.request} is somebody else's", request=own.request)
    if isinstance(own, WithdrawStatement):
        if asked.status != "pending":
            return at.refused(said, "not-pending", f"request {own.request} does not wait any more: {asked.status}", **about)
        return record(WithdrawEntry, said, at, **about)
    current = at.case(asked).current
    if current.status != "granted":
        return at.refused(said, "not-granted", f"there is nothing to give back: {current.status}", **about)
    return record(DropEntry, said, at, **about | {"request": asked.entry.first})


def _end(said: Said, ending: RevokeStatement | LockStatement | UnlockStatement, at: Moment) -> Act:
    if not at.rules.policy.is_revoker(said.person):
        return at.refused(said, "forbidden", "only those whom guardrails.toml names as revokers do this")
    if ending.person is not None:
        _check_known(ending.person, at)
    match ending:
        case LockStatement():
            return record(LockEntry, said, at, person=ending.person)
        case UnlockStatement():
            return record(UnlockEntry, said, at, person=ending.person)
        case RevokeStatement(request=int(index)):
            case = at.case(at.request(index))
            if not {case.newest.status, case.current.status} & set(request.OPEN):
                return at.refused(said, "not-granted", f"request {index} is over: {case.current.status}", request=index)
            return record(RevokeEntry, said, at, person=case.current.entry.actor, request=case.current.entry.first)
        case RevokeStatement(serial=int(serial)):
            return record(RevokeEntry, said, at, person=_certified(serial, at), serial=serial)
        case RevokeStatement():
            return record(RevokeEntry, said, at, person=ending.person)


def _check_known(person: str, at: Moment) -> None:
    """Whoever left people.toml may still hold something; a name that nobody ever had is a slip, and ends nothing."""
    people = at.rules.policy.people
    if person not in people and not at.tail.log.acted(person):
        close = suggestion(person, people)
        raise NotFound(f"nobody is or was called {person}{close}", "people.toml has the names; nothing was changed")


def _certified(serial: int, at: Moment) -> str:
    issued = at.tail.entry(serial) if 0 < serial < at.tail.index else None
    if not isinstance(issued, IssueEntry):
        raise NotFound(f"there is no certificate with serial {serial}", "jit-ssh log --kind issue lists them")
    return issued.actor
