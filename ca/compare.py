"""What a change of the policy means: who gains and who loses, over all people, roles and states of the facts.

Every answer is `ca.policy.evaluate`'s own, asked for under both policies. People whom a role's rules cannot tell apart are asked
about once; of the values that a fact can have, one is tried for each way in which the conditions on it can turn out together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import chain, product
from math import prod
from typing import Final, Literal, Self

from ca.conditions import Condition, Conditions, Facts, Sample, whenever
from ca.errors import Misconfigured
from ca.fields import duration_text
from ca.findings import Step
from ca.policy import Decision, Denied, Granted, Pending, deny_blocks, evaluate
from ca.roles import Policy, Role

Direction = Literal["gains", "loses", "changes"]
MOST_STATES: Final = 20_000  # of one role for one person: some seconds


@dataclass(frozen=True)
class Witness:
    """A moment at which it shows: the facts as `policy explain` takes them, and what the conditions observe.

    `at` is ISO 8601; a schedule that is not in `on_call` does not answer, and 0 is not on call.
    """

    person: str
    at: str
    address: str | None
    hardware_key: bool
    on_call: Mapping[str, int]
    auto_granted: int
    observed: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What is otherwise for these people about a role, or about none in particular."""

    direction: Direction
    role: str | None
    what: str
    people: tuple[str, ...]
    witness: Witness | None = None


def compare(old: Policy, new: Policy, now: datetime) -> tuple[Change, ...]:
    """Every change, gains first, by role. Hours are tried over the year from `now`, which has a time zone.

    Who is on call is compared by level: which sources say so is told when they change. Raises `Misconfigured` for a role with
    more than `MOST_STATES` states.
    """
    people = _People.of(old, new)
    names = sorted(old.roles.keys() | new.roles.keys())
    found = chain(_apart_from_roles(old, new), *(_Comparison(old, new, name, people, now).changes() for name in names))
    order = ("gains", "loses", "changes")
    return tuple(sorted(found, key=lambda each: (order.index(each.direction), each.role or "", each.what)))


# ---------------------------------------------------------------- no role in particular


def _apart_from_roles(old: Policy, new: Policy) -> Iterator[Change]:
    yield from _sets(None, "reads the whole log", _all_in(old, old.guardrails.auditors), _all_in(new, new.guardrails.auditors))
    yield from _sets(None, "revokes and locks", _all_in(old, old.guardrails.revokers), _all_in(new, new.guardrails.revokers))
    for name in sorted(old.people.keys() & new.people.keys()):
        before, after = ({key.fingerprint for key in policy.people[name].keys} for policy in (old, new))
        for fingerprint in sorted(before ^ after):
            direction: Direction = "gains" if fingerprint in after else "loses"
            yield Change(direction, None, f"signs with {fingerprint}", (name,))
    for schedule in sorted(old.schedules.keys() & new.schedules.keys()):
        if old.schedules[schedule] != new.schedules[schedule]:
            yield Change("changes", None, f"who is on call on schedule {schedule} is learnt otherwise", ())


def _all_in(policy: Policy, groups: Iterable[str]) -> frozenset[str]:
    return frozenset(chain.from_iterable(map(policy.members, groups)))


def _sets(role: str | None, what: str, before: frozenset[str], after: frozenset[str]) -> Iterator[Change]:
    if more := tuple(sorted(after - before)):
        yield Change("gains", role, what, more)
    if less := tuple(sorted(before - after)):
        yield Change("loses", role, what, less)


# -------------------------------------------------------------------- who is alike

_Groups = frozenset[str] | None  # None: the person is not there
_Alike = tuple[_Groups, _Groups]  # under the old policy and the new


@dataclass(frozen=True)
class _People:
    """The people of both policies by their groups under each, and the groups whose people are others."""

    classes: tuple[tuple[_Alike, list[str]], ...]
    changed: frozenset[str]

    @classmethod
    def of(cls, old: Policy, new: Policy) -> Self:
        found: dict[_Alike, list[str]] = {}
        for name in sorted(old.people.keys() | new.people.keys()):
            before, after = (frozenset(policy.people[name].groups) if name in policy.people else None for policy in (old, new))
            found.setdefault((before, after), []).append(name)
        groups = [(before or frozenset()) ^ (after or frozenset()) for before, after in found]
        return cls(tuple(found.items()), frozenset().union(*groups))


@dataclass(frozen=True)
class _Side:
    """A role under one of the policies."""

    policy: Policy
    role: Role | None

    @cached_property
    def blocks(self) -> tuple[Conditions, ...]:
        """Every block that is asked about the role."""
        return () if self.role is None else (*(block for _, block in deny_blocks(self.policy, self.role)), *self.role.allow)

    @cached_property
    def approvers(self) -> frozenset[str]:
        """The groups that approve it."""
        allow = self.role.allow if self.role else ()
        steps = [approval for block in allow for approval in block.approvals or ()]
        return frozenset(group for step in steps for group in (step.group, step.escalate_to) if group is not None)

    def about(self, person: str, groups: _Groups) -> tuple[Conditions, ...]:
        """The blocks that are about this person."""
        facts = whenever(person)
        return tuple(block for block in self.blocks if block.is_about(facts, tuple(groups))) if groups is not None else ()


# ------------------------------------------------------------------------ one role

_Found = tuple[Direction, str, Witness]


class _Comparison:
    """One role under both policies."""

    def __init__(self, old: Policy, new: Policy, name: str, people: _People, begin: datetime) -> None:
        self._old, self._new = (_Side(policy, policy.roles.get(name)) for policy in (old, new))
        self._name = name
        self._people = people
        self._begin = begin

    def changes(self) -> Iterator[Change]:
        """What is otherwise about it, the same for several people told once."""
        old, new = self._old, self._new
        gives = tuple(_given(old.role, new.role)) if old.role and new.role else ()
        classes = [each for each in self._people.classes if gives or each[0][0] != each[0][1] or not self._is_the_same]
        people: dict[tuple[Direction, str], list[list[str]]] = {}
        witnesses: dict[tuple[Direction, str], Witness] = {}
        known: dict[object, tuple[tuple[_Found, ...], bool]] = {}
        for alike, several in self._alike(classes):
            person = several[0][0]
            profile = self._profile(alike, person)
            found, has = known[profile] = known.get(profile) or self._of(alike, person)
            for direction, what, witness in found:
                witnesses.setdefault((direction, what), witness)
            for change in (*((direction, what) for direction, what, _ in found), *(gives if has else ())):
                people.setdefault(change, []).extend(several)
        for (direction, what), each in people.items():
            yield Change(direction, self._name, what, tuple(sorted(chain(*each))), witnesses.get((direction, what)))
        if old.role and new.role and not self._has_the_same_approvers:
            yield from _sets(self._name, "may approve it", _all_in(old.policy, old.approvers), _all_in(new.policy, new.approvers))

    @cached_property
    def _is_the_same(self) -> bool:
        """Whether only people's own groups can make a difference."""
        old, new = self._old, self._new
        if old.role is None or new.role is None:
            return False
        return self._has_the_same_approvers and old.blocks == new.blocks and _limits(old.role) == _limits(new.role)

    @cached_property
    def _has_the_same_approvers(self) -> bool:
        return self._old.approvers == self._new.approvers and self._people.changed.isdisjoint(self._old.approvers)

    def _alike(self, classes: list[tuple[_Alike, list[str]]]) -> Iterator[tuple[_Alike, list[list[str]]]]:
        """People whom these rules cannot tell apart, in several lists; whoever is named in a rule is alone."""
        blocks = (*self._old.blocks, *self._new.blocks)
        named = {person for block in blocks for person in block.named}
        asked = {group for block in blocks if block.groups is not None for group in block.groups.root}
        asked |= self._old.approvers | self._new.approvers
        merged: dict[_Alike, list[list[str]]] = {}
        for (before, after), names in classes:
            alike = (None if before is None else before & asked, None if after is None else after & asked)
            yield from ((alike, [[name]]) for name in sorted(named.intersection(names)) if named)
            if others := [name for name in names if name not in named] if named else names:
                merged.setdefault(alike, []).append(others)
        yield from merged.items()

    def _profile(self, alike: _Alike, person: str) -> object:
        """What the decisions follow from: the blocks about the person, and where they cannot approve because they ask."""
        old, new = ((side.about(person, groups), groups and groups & side.approvers) for side, groups in self._sides(alike))
        return old, new, alike[0] is None, alike[1] is None

    def _sides(self, alike: _Alike) -> tuple[tuple[_Side, _Groups], tuple[_Side, _Groups]]:
        return (self._old, alike[0]), (self._new, alike[1])

    def _of(self, alike: _Alike, person: str) -> tuple[tuple[_Found, ...], bool]:
        """What is otherwise for this person, with the first state that shows it, and whether both can give it to them."""
        about = [block for side, groups in self._sides(alike) for block in side.about(person, groups)]
        found: dict[tuple[Direction, str], Witness] = {}
        could = [False, False]
        for facts in self._states(about, person):
            before, after = (evaluate(side.policy, self._name, None, None, facts) for side in (self._old, self._new))
            could = [had or not isinstance(each, Denied) for had, each in zip(could, (before, after), strict=True)]
            if (said := _words(before)) != (says := _words(after)):
                change = _direction(before, after), f"{said} → {says}"
                if change not in found:
                    found[change] = _witness(facts, about)
        return tuple((*change, witness) for change, witness in found.items()), all(could)

    def _states(self, about: list[Conditions], person: str) -> Iterator[Facts]:
        """The facts in every state that the blocks and the role's own limits can tell apart."""
        by_fact: dict[str, dict[Condition, None]] = {}
        for _, condition in (each for block in about for each in block.of_the_moment):
            by_fact.setdefault(condition.fact, {})[condition] = None
        sampled = [_distinct(tuple(conditions), self._begin) for conditions in by_fact.values()]
        roles = [side.role for side in (self._old, self._new) if side.role is not None]
        if any(role.pin_source_address for role in roles) and not any(block.networks for block in about):
            sampled.append((_from("203.0.113.1"), _from(None)))
        sampled.append(tuple(map(_after, sorted({0} | {role.auto_per_day for role in roles if role.auto_per_day is not None}))))
        if (count := prod(map(len, sampled))) > MOST_STATES:
            raise Misconfigured(
                f"role {self._name} asks {person} about too much at once to try every state: there are {count}",
                "Make several roles of it",
            )
        for samples in product(*sampled):
            facts = Facts(person, "203.0.113.1", False, self._begin)
            for sample in samples:
                facts = sample(facts)
            yield facts


@lru_cache(maxsize=1024)
def _distinct(conditions: tuple[Condition, ...], begin: datetime) -> tuple[Sample, ...]:
    """One sample for each way in which these conditions, all on one fact, can turn out together."""
    found: dict[tuple[bool | None, ...], Sample] = {}
    for sample in chain.from_iterable(condition.samples(begin) for condition in conditions):
        facts = sample(Facts("", None, False, begin))
        found.setdefault(tuple(condition.observe(facts, ())[0] for condition in conditions), sample)
    return tuple(found.values())


def _from(address: str | None) -> Sample:
    return lambda facts: replace(facts, address=address)


def _after(times: int) -> Sample:
    return lambda facts: replace(facts, auto_granted=times)


# ----------------------------------------------------------------------- in words


def _limits(role: Role) -> tuple[object, ...]:
    """What of a role decides besides its blocks, with the reason left aside."""
    return role.pin_source_address, role.auto_per_day


def _words(decision: Decision) -> str:
    match decision:
        case Granted():
            return "granted"
        case Pending(steps=steps):
            return "needs " + " and ".join(map(_approvals, steps))
        case Denied():
            return "denied"


def _approvals(step: Step) -> str:
    return f"{step.count} of {step.group}" + (f" or later of {step.escalate_to}" if step.escalate_to else "")


def _direction(before: Decision, after: Decision) -> Direction:
    was, becomes = _ease(before), _ease(after)
    return "gains" if becomes > was else "loses" if becomes < was else "changes"


def _ease(decision: Decision) -> tuple[int, int]:
    match decision:
        case Granted():
            return 2, 0
        case Pending(steps=steps):
            return 1, -sum(step.count for step in steps)
        case Denied():
            return 0, 0


def _witness(facts: Facts, about: list[Conditions]) -> Witness:
    seen = {condition.observe(facts, ())[1]: None for block in about for _, condition in block.of_the_moment}
    levels = {name: shift.level or 0 for name, shift in facts.on_call.items() if not isinstance(shift, str)}
    at = facts.now.isoformat(timespec="seconds")
    return Witness(facts.person, at, facts.address, facts.hardware_key, levels, facts.auto_granted, tuple(seen))


_SAID: Final = (  # what is told of otherwise, or decides nothing
    "name", "about", "owner", "review_by", "default", "example", "allow", "deny", "auto_per_day",
    "principals", "permit", "force_command", "pin_source_address", "max_duration",
)  # fmt: skip
_OTHERS: Final = tuple(name for name in Role.model_fields if name not in _SAID)


def _given(old: Role, new: Role) -> Iterator[tuple[Direction, str]]:
    """What the role gives to whoever can have it, now and before."""
    for what, before, after in (("principal", old.principals, new.principals), ("permit", old.permit, new.permit)):
        for value in sorted({*before} ^ {*after}):
            yield ("gains" if value in after else "loses"), f"{what} {value}"
    if old.force_command != new.force_command:
        freed, bound = new.force_command is None, old.force_command is None
        what = f"runs {old.force_command or 'anything'} → runs {new.force_command or 'anything'}"
        yield ("gains" if freed else "loses" if bound else "changes"), what
    if old.pin_source_address != new.pin_source_address:
        yield ("loses", "only from one address") if new.pin_source_address else ("gains", "from any address")
    if old.max_duration != new.max_duration:
        what = f"for {duration_text(old.max_duration)} → for {duration_text(new.max_duration)} at most"
        yield ("gains" if new.max_duration > old.max_duration else "loses"), what
    if changed := [name for name in _OTHERS if getattr(old, name) != getattr(new, name)]:
        yield "changes", ", ".join(changed)
