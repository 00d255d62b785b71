"""Who can get to an account, whenever: the policy's ways to a principal, without a moment.

What people.toml alone decides is decided here, by the conditions themselves; what depends on the moment is listed as what the
way needs. So each way told of here opens at some moment, unless its own conditions exclude each other, and no other way does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from ca.conditions import Condition, Conditions, Facts
from ca.policy import SENTENCES, approvable
from ca.roles import Allow, Person, Policy, Role

_WHENEVER: Final = datetime.fromtimestamp(0, UTC)  # of facts that only conditions see which do not look at the clock


@dataclass(frozen=True)
class Reach:
    """One person's way to a principal: a role, its rule, and in sentences what must hold and what must not at that moment."""

    person: str
    role: str
    rule: str
    needs: tuple[str, ...]
    unless: tuple[str, ...]


def who_can(policy: Policy, principal: str) -> tuple[Reach, ...]:
    """Every person and way to `principal`, such as `root@web-prod`, by person and role."""
    account, _, host_group = principal.partition("@")
    owner = policy.people.get(account)
    found: list[Reach] = []
    for role in policy.roles.values():
        if principal in role.principals:
            found += ways(policy, role, policy.people.values())
        elif owner is not None and f"{{person}}@{host_group}" in role.principals:
            found += ways(policy, role, [owner])
    return tuple(sorted(found, key=lambda reach: (reach.person, reach.role, reach.rule)))


@dataclass(frozen=True)
class _Split:
    """A block's conditions: those that people.toml decides, and the sentences of those that the moment decides."""

    lasting: tuple[Condition, ...]
    at_the_moment: tuple[str, ...]

    @classmethod
    def of(cls, block: Conditions) -> Self:
        lasting = tuple(each for _, _, each in block.given if each.lasting)
        return cls(lasting, tuple(sentence for _, sentence, each in block.given if not each.lasting))

    def is_about(self, person: Person, facts: Facts) -> bool:
        """Whether all that people.toml decides holds."""
        return all(each.observe(facts, person.groups)[0] for each in self.lasting)


def ways(policy: Policy, role: Role, people: Iterable[Person]) -> Iterator[Reach]:
    """The ways that these people have to a role."""
    guardrails = (block for block in policy.guardrails.deny if block.roles is None or role.name in block.roles)
    denials = [_Split.of(block) for block in (*guardrails, *role.deny)]
    rules = [(f"allow {at}", block, _Split.of(block), _of_the_request(role, block)) for at, block in enumerate(role.allow, 1)]
    for person in people:
        facts = Facts(person.name, None, False, _WHENEVER)
        matching = [denial.at_the_moment for denial in denials if denial.is_about(person, facts)]
        if () in matching:  # it holds of this person at every moment
            continue
        unless = tuple(" and ".join(sentences) for sentences in matching)
        for rule, block, split, of_the_request in rules:
            if split.is_about(person, facts) and _can_be_granted(policy, role, block, facts):
                yield Reach(person.name, role.name, rule, split.at_the_moment + of_the_request, unless)


def _can_be_granted(policy: Policy, role: Role, block: Allow, facts: Facts) -> bool:
    if block.approvals is None:
        return role.auto_per_day != 0
    steps = tuple(approval.step for approval in block.approvals)
    total = sum(step.count for step in steps)
    # More people than places in every group are enough whoever asks; counting them each time would take long in a large one.
    return all(len(policy.members(step.group)) > total for step in steps) or approvable(policy, steps, facts)


def _of_the_request(role: Role, block: Allow) -> tuple[str, ...]:
    sentences = [SENTENCES["reason_of_role"].format(role.reason.message)] if role.reason else []
    if block.approvals is not None:
        wanted = ", ".join(f"{each.count} of {each.group}" for each in block.approvals)
        sentences.append(SENTENCES["approvals"].format(wanted))
    elif role.auto_per_day is not None:
        sentences.append(SENTENCES["auto_per_day"].format(role.auto_per_day))
    return tuple(sentences)
