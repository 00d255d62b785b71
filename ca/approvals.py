"""Who can approve what, and how far the approvals so far go."""

from dataclasses import dataclass
from itertools import islice

from ca.conditions import Facts
from ca.findings import Step
from ca.roles import Policy


@dataclass(frozen=True)
class Approved:
    """Somebody's yes, for no longer than `duration` seconds where they said so."""

    person: str
    duration: int | None = None


def eligible(policy: Policy, step: Step, facts: Facts, *, in_time: bool = False) -> frozenset[str]:
    """Who can give an approval of this step: its group, neither who asks nor who is locked out.

    `in_time`, also those to whom it has yet to escalate.
    """
    people = [policy.members(group) for group in _groups(step, facts, in_time=in_time)]
    return frozenset().union(*people) - (facts.locked() | {facts.person})


def _groups(step: Step, facts: Facts, *, in_time: bool = False) -> tuple[str, ...]:
    """Whose people approve it: its group and, when nobody has for long enough, the other."""
    waited = (facts.now - (facts.asked_at or facts.now)).total_seconds()
    if step.escalate_to is not None and (in_time or waited >= (step.escalate_after or 0)):
        return step.group, step.escalate_to
    return (step.group,)


def approvable(policy: Policy, steps: tuple[Step, ...], facts: Facts) -> bool:
    """Whether enough other people exist, and can in time, for all approvals of these steps."""
    total = sum(step.count for step in steps)
    # Whoever asks and whoever is locked out, so many in every group are enough; counting a large one each time would take long.
    if all(len(policy.members(step.group)) > total + len(facts.locked()) for step in steps):
        return True
    return filled(steps, [eligible(policy, step, facts, in_time=True) for step in steps]) == total


def fills(policy: Policy, steps: tuple[Step, ...], facts: Facts, approvals: tuple[Approved, ...], person: str) -> bool:
    """Whether this person's yes is one of those that are still missing."""
    before, after = (said(policy, steps, facts, yes) for yes in (approvals, (*approvals, Approved(person))))
    return filled(steps, after) > filled(steps, before)


def said(policy: Policy, steps: tuple[Step, ...], facts: Facts, approvals: tuple[Approved, ...]) -> list[frozenset[str]]:
    """For each step, those who approved and are eligible."""
    people = {yes.person for yes in approvals} - {facts.person} - (facts.locked() if approvals else frozenset())
    of_step = (frozenset[str]().union(*(people & policy.members(group) for group in _groups(step, facts))) for step in steps)
    return list(of_step)


def filled(steps: tuple[Step, ...], candidates: list[frozenset[str]]) -> int:
    """How many approvals there are when each of the candidates of a step gives one, and nobody two.

    A maximum matching of people to places, by augmenting paths.
    """
    places = [people for step, people in zip(steps, candidates, strict=True) for _ in range(step.count)]
    taken: dict[str, int] = {}

    def place(at: int, tried: set[str]) -> bool:
        # More candidates than there are places are never needed, and whichever they are, as many places are filled.
        for person in islice(places[at], len(places)):
            if person not in tried:
                tried.add(person)
                if person not in taken or place(taken[person], tried):
                    taken[person] = at
                    return True
        return False

    return sum(place(at, set()) for at in range(len(places)))
