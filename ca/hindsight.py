"""What a policy would have said to the requests that the log records, each with the facts that the log kept of it.

Facts that were not kept are unknown and open no door: a schedule for which no rule of that time asked. People and their groups
are those of the policy that is tried, not those of the time.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from ca import statement
from ca.acts import DAY
from ca.conditions import Facts
from ca.entry import AnyEntry, ApproveEntry, DecidedEntry, LockEntry, RefuseEntry, RequestEntry, UnlockEntry
from ca.findings import Duty
from ca.oncall import Shift
from ca.policy import Approved, Decision, Denied, Granted, Pending, evaluate
from ca.roles import Policy
from ca.statement import ApproveStatement, RequestStatement

KINDS: Final = ("request", "refuse", "approve", "lock", "unlock")  # the entries that tell of it

Outcome = Literal["granted", "approved", "pending", "denied"]  # approved: by the approvals that it had


@dataclass(frozen=True)
class Replayed:
    """A recorded request, what came of it, what would come of it, and why in a sentence. `time` is Unix seconds."""

    entry: int
    time: int
    person: str
    role: str
    was: Outcome
    now: Outcome
    why: str

    @property
    def differs(self) -> bool:
        """Whether something else would come of it."""
        return self.was != self.now


def replay(policy: Policy, entries: Iterable[AnyEntry], since: int) -> Iterator[Replayed]:
    """Every request from `since` (Unix seconds) on that policy granted, let wait or denied, decided again by `policy`.

    `entries` are those of `KINDS`, in order: locks from the beginning of the log, others from a day before `since`.
    """
    told = list(entries)
    approvals: dict[int, list[ApproveEntry]] = {}
    for each in told:
        if isinstance(each, ApproveEntry):
            approvals.setdefault(each.request, []).append(each)
    past = _Past()
    for each in told:
        asked = _asked(each)
        if asked is not None and isinstance(each, RequestEntry | RefuseEntry) and each.time >= since * 1000:
            yield _again(policy, each, asked, approvals.get(each.index, []), past)
        past.add(each)


def _asked(each: AnyEntry) -> RequestStatement | None:
    """The request of an entry that policy decided."""
    if not isinstance(each, RequestEntry) and not (isinstance(each, RefuseEntry) and each.code == "denied"):
        return None
    said = statement.parse(each.statement.encode())
    return said if isinstance(said, RequestStatement) else None


class _Past:
    """What earlier entries say about those that follow: who is locked out, and what was granted without approval."""

    def __init__(self) -> None:
        self.locked: frozenset[str] = frozenset()
        self._granted: dict[tuple[str, str], deque[int]] = {}

    def add(self, each: AnyEntry) -> None:
        """Reads on."""
        match each:
            case LockEntry():
                self.locked |= {each.person}
            case UnlockEntry():
                self.locked -= {each.person}
            case RequestEntry(steps=None):
                self._granted.setdefault((each.actor, each.role), deque()).append(each.time)
            case _:
                pass

    def auto_granted(self, person: str, role: str, time: int) -> int:
        """How many grants without approval there were in the 24 hours before `time` (Unix milliseconds)."""
        granted = self._granted.get((person, role), deque())
        while granted and granted[0] < time - DAY * 1000:
            granted.popleft()
        return len(granted)


def _again(
    policy: Policy, entry: RequestEntry | RefuseEntry, asked: RequestStatement, yeses: list[ApproveEntry], past: _Past
) -> Replayed:
    locked = past.locked
    facts = _facts(entry, entry.actor, entry.address, hardware_key=entry.hardware_key)
    facts = replace(facts, auto_granted=past.auto_granted(entry.actor, asked.role, entry.time), locked=lambda: locked)
    if isinstance(entry, RequestEntry) and entry.extension is not None:
        facts = replace(facts, extensions=entry.extension - 1)
    decision = evaluate(policy, asked.role, asked.duration, asked.reason, facts)
    now = _outcome(decision)
    if isinstance(decision, Pending) and yeses:
        # As the approvals were decided: where the request came from as it was then, all else as it was at the last of them.
        last = _facts(yeses[-1], entry.actor, entry.address, hardware_key=entry.hardware_key)
        facts = replace(facts, now=last.now, on_call=last.on_call, asked_at=facts.now)
        approved = evaluate(policy, asked.role, asked.duration, asked.reason, facts, tuple(map(_approved, yeses)))
        decision, now = (approved, "approved") if isinstance(approved, Granted) else (decision, now)
    return Replayed(entry.index, entry.time // 1000, entry.actor, asked.role, _was(entry, yeses), now, _why(decision))


def _was(entry: RequestEntry | RefuseEntry, yeses: list[ApproveEntry]) -> Outcome:
    if isinstance(entry, RefuseEntry):
        return "denied"
    if not entry.steps:
        return "granted"
    return "approved" if any(yes.privilege is not None for yes in yeses) else "pending"


def _outcome(decision: Decision) -> Outcome:
    match decision:
        case Granted():
            return "granted"
        case Pending():
            return "pending"
        case Denied():
            return "denied"


def _why(decision: Decision) -> str:
    match decision:
        case Granted():
            return f"by {decision.ways[0].rule}"
        case Pending(steps=steps):
            return f"by {decision.ways[0].rule}, once approved by " + ", ".join(f"{step.count} of {step.group}" for step in steps)
        case Denied():
            return decision.message


def _facts(entry: DecidedEntry, person: str, address: str | None, *, hardware_key: bool) -> Facts:
    shifts = {duty.schedule: _shift(duty, person) for duty in entry.on_call or ()}
    return Facts(person, address, hardware_key, datetime.fromtimestamp(entry.time / 1000, UTC), shifts)


def _shift(duty: Duty, person: str) -> Shift | str:
    if duty.source is None or duty.age is None:
        return duty.unknown or "unknown"
    on_call = ((person, duty.level),) if duty.level else ()
    return Shift(duty.schedule, duty.source, duty.level, duty.until, duty.age, on_call)


def _approved(yes: ApproveEntry) -> Approved:
    said = statement.parse(yes.statement.encode())
    return Approved(yes.actor, said.duration if isinstance(said, ApproveStatement) else None)


def summary(replayed: Iterable[Replayed]) -> Mapping[str, int]:
    """How many would now be granted, denied, or need approval, of those of which something else would come."""
    counts = {"granted": 0, "denied": 0, "need_approval": 0}
    names: Mapping[Outcome, str] = {"granted": "granted", "approved": "granted", "denied": "denied", "pending": "need_approval"}
    for each in replayed:
        if each.differs:
            counts[names[each.now]] += 1
    return counts
