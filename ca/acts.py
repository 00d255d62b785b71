"""What people do about requests, each as the entry it leaves: an answer, a withdrawal, an end, a lock, or a refusal.

Pure: a statement and the log's tail in, entries out. Whoever may not do what they signed leaves a `refuse` entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar

from ca import request, statement
from ca.entry import (
    ApproveEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    LockEntry,
    Privilege,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    RevokeEntry,
    SaidEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import Malformed, NotFound
from ca.fields import MAX_DURATION, suggestion
from ca.keys import PublicKey
from ca.log import Tail
from ca.merkle import leaf_hash
from ca.oncall import Shift
from ca.policy import Approved, Denied, Facts, Granted, Pending, eligible, evaluate
from ca.request import Case, Request
from ca.roles import Policy
from ca.statement import (
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

DAY: Final = 24 * 3600  # seconds
MOST_REQUESTS: Final = 1000  # of a person for a role that are looked at: more grants a day cannot be budgeted
LONGEST_CASE: Final = 2 * DAY  # seconds after which neither a request waits nor its grant lasts: a day each at most
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
class Asked(Said):
    """A request, or the asking for another certificate, with the verified proof of possession of the key to certify."""

    possession: str

    @property
    def wanted(self) -> RequestStatement | CertificateStatement:
        """The statement."""
        if not isinstance(self.statement, RequestStatement | CertificateStatement):
            raise Malformed("the statement does not ask for a certificate")
        return self.statement


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
        found = [self.tail.entry(each) for each in self.tail.log.request(index)]
        if not found:
            raise NotFound(f"entry {index} is not a request", "jit-ssh requests lists them")
        return request.fold(found, self.seconds)

    def newest(self, person: str, role: str) -> Case | None:
        """The newest case of the person and the role, unless it is surely over."""
        since = self.tail.time - 1000 * LONGEST_CASE
        newest = self.tail.log.requests(person, role, since, most=1)
        return request.case(self.request(newest[0]), self.request) if newest else None

    def case(self, asked: Request) -> Case:
        """The case of a request, as it stands by the newest of it."""
        newest = self.newest(asked.entry.actor, asked.entry.role)
        is_its = newest is not None and newest.newest.entry.first == asked.entry.first
        return newest if newest is not None and is_its else request.case(asked, self.request)

    @cached_property
    def locked_out(self) -> frozenset[str]:
        """Everybody whom the security team has locked out, to see who could approve; `locked` says it of who does."""
        return self.tail.log.locked()

    def locked(self, person: str) -> bool:
        """Whether the security team has locked the person out."""
        index = self.tail.log.lock(person)
        return index is not None and isinstance(self.tail.entry(index), LockEntry)

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


Act = ApproveEntry | DenyEntry | WithdrawEntry | DropEntry | RevokeEntry | LockEntry | UnlockEntry | RefuseEntry
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
        case WithdrawStatement() | DropStatement() as own:
            return _give_back(said, own, at)
        case RevokeStatement() | LockStatement() | UnlockStatement() as ending:
            return _end(said, ending, at)
        case other:
            raise NotFound(f"{type(other).__name__} does nothing to a request")


# --------------------------------------------------------------------- asking


def ask(asked: Asked, said: RequestStatement, at: Moment, uncertifiable: str | None) -> RequestEntry | RefuseEntry:
    """The decision on a request; `uncertifiable` says why the key gets no certificate, if so."""
    about: dict[str, Any] = {"role": said.role, "possession": asked.possession}
    if uncertifiable is not None:
        return at.refused(asked, "refused", uncertifiable, **about)
    if at.locked(asked.person):
        return at.refused(asked, "locked", f"{asked.person} is locked out by the security team", **about)
    before = at.newest(asked.person, said.role) if said.role in at.rules.policy.roles else None
    if before is not None and before.newest.status == "pending":
        waiting = before.newest.entry.index
        return at.refused(asked, "refused", f"request {waiting} for {said.role} waits already", **about)
    held = before if before is not None and before.current.status == "granted" else None
    facts = at.facts(asked, auto_granted=_auto_granted(asked.person, said.role, at), extensions=held and held.extensions)
    decision = evaluate(at.rules.policy, said.role, said.duration, said.reason, facts)
    about |= {"findings": decision.findings, "ways": decision.ways}
    match decision:
        case Denied():
            return at.refused(asked, "denied", decision.message, **about)
        case Pending():
            about |= {"steps": decision.steps, "expires": decision.expires}
        case Granted():
            pass
    if held is not None:
        current = held.current.entry
        about |= {"request": current.first, "extends": current.index, "extension": held.extensions + 1}
    return record(RequestEntry, asked, at, privilege=decision.privilege, **about)


def _auto_granted(person: str, name: str, at: Moment) -> int:
    """How many requests for the role were granted to the person without approval in the last 24 hours, as far as it matters."""
    role = at.rules.policy.roles.get(name)
    if role is None or role.auto_per_day is None:
        return 0
    recent = at.tail.log.requests(person, name, at.tail.time - 1000 * DAY, most=MOST_REQUESTS)
    if len(recent) == MOST_REQUESTS:  # also by requests that were withdrawn again: no way to hide the granted ones
        return MOST_REQUESTS
    entries = [at.tail.entry(index) for index in recent]
    return sum(isinstance(each, RequestEntry) and not each.steps for each in entries)


# ------------------------------------------------------------------- renewing


def renew(asked: Asked, held: Request, at: Moment, uncertifiable: str | None) -> RenewEntry | RefuseEntry:
    """The decision on another certificate within what is `held`; `uncertifiable` says why the key gets none, if so."""
    entry, number = held.entry, getattr(asked.statement, "request", None)
    about = {"possession": asked.possession, "request": number}
    if asked.person != entry.actor:
        return at.refused(asked, "forbidden", f"request {number} is somebody else's", **about)
    about["role"] = entry.role
    if uncertifiable is not None:
        return at.refused(asked, "refused", uncertifiable, **about)
    if at.locked(asked.person):
        return at.refused(asked, "locked", f"{asked.person} is locked out by the security team", **about)
    if held.status != "granted" or held.until is None:
        return at.refused(asked, "not-granted", f"request {number} is {held.status}", **about)
    facts = replace(at.facts_again(held), address=asked.address, hardware_key=asked.hardware_key)
    decision = evaluate(
        at.rules.policy, entry.role, held.privilege.duration, reason_of(entry), facts, approved(held, at)
    )
    reasons = {"findings": decision.findings, "ways": decision.ways}
    if not isinstance(decision, Granted):
        message = decision.message if isinstance(decision, Denied) else f"{entry.role} needs more approvals than it had"
        return at.refused(asked, "denied", message, **reasons, **about)
    if not same(decision.privilege, held.privilege):
        return at.refused(asked, "refused", _changed(decision.privilege, held), **about)
    until = min(held.until, at.seconds + decision.privilege.duration)
    return record(RenewEntry, asked, at, until=until, **reasons, **about | {"request": entry.index})


def _changed(now: Privilege, held: Request) -> str:
    before = held.privilege.source_address
    if before and now.source_address and same(replace(now, source_address=before), held.privilege):
        return f"{held.entry.role} was granted for the address {before} only, and this is from {now.source_address}: ask again"
    return f"what {held.entry.role} gives was changed since it was granted: ask again"


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
            reasons = {"findings": decision.findings, "ways": decision.ways}
            return at.refused(said, "denied", f"{entry.actor} cannot have it any more: {decision.message}", **reasons, **about)
        case Granted() | Pending():
            if not same(decision.privilege, entry.privilege):
                return at.refused(said, "refused", f"what {entry.role} gives was changed since it was asked for", **about)
            # Though a change of the rules or facts may ask for fewer by now: as many as were told to whoever asked.
            enough = len(approvals) >= sum(step.count for step in entry.steps or ())
            privilege = decision.privilege if isinstance(decision, Granted) and enough else None
            reasons = {"findings": decision.findings, "ways": decision.ways}
            return record(ApproveEntry, said, at, privilege=privilege, **reasons, **about)


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
