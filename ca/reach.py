"""Who can get to an account, whenever: the policy's ways to a principal, without a moment.

What people.toml alone decides is decided here, by the conditions themselves; what depends on the moment is listed as what the
way needs. So each way told of here opens at some moment, unless its own conditions exclude each other, and no other way does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ca.conditions import Conditions, Facts, whenever
from ca.policy import SENTENCES, approvable, deny_blocks
from ca.roles import Allow, Person, Policy, Role


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


def ways(policy: Policy, role: Role, people: Iterable[Person]) -> Iterator[Reach]:
    """The ways that these people have to a role."""
    denials = [(block, _sentences(block)) for _, block in deny_blocks(policy, role)]
    rules = [(f"allow {at}", block, _sentences(block) + _of_the_request(role, block)) for at, block in enumerate(role.allow, 1)]
    blocks: list[Conditions] = [*(block for block, _ in denials), *role.allow]
    named = {name for block in blocks for name in block.named}
    alike: dict[tuple[str, ...], tuple[Reach, ...]] = {}  # the ways of people of these groups whom no rule names

    def ways_of(person: Person) -> Iterator[Reach]:
        facts = whenever(person.name)
        matching = [sentences for denial, sentences in denials if denial.is_about(facts, person.groups)]
        if () in matching:  # it holds of this person at every moment
            return
        unless = tuple(" and ".join(sentences) for sentences in matching)
        for rule, block, needs in rules:
            if block.is_about(facts, person.groups) and _can_be_granted(policy, role, block, facts):
                yield Reach(person.name, role.name, rule, needs, unless)

    for person in people:
        if person.name in named:
            yield from ways_of(person)
            continue
        if person.groups not in alike:
            alike[person.groups] = tuple(ways_of(person))
        for way in alike[person.groups]:
            yield Reach(person.name, way.role, way.rule, way.needs, way.unless)


def _sentences(block: Conditions) -> tuple[str, ...]:
    return tuple(sentence for sentence, _ in block.of_the_moment)


def _can_be_granted(policy: Policy, role: Role, block: Allow, facts: Facts) -> bool:
    if block.approvals is None:
        return role.auto_per_day != 0
    steps = tuple(approval.step for approval in block.approvals)
    return approvable(policy, steps, facts)


def _of_the_request(role: Role, block: Allow) -> tuple[str, ...]:
    sentences = [SENTENCES["reason_of_role"].format(role.reason.message)] if role.reason else []
    if block.approvals is not None:
        wanted = ", ".join(f"{each.count} of {each.group}" for each in block.approvals)
        sentences.append(SENTENCES["approvals"].format(wanted))
    elif role.auto_per_day is not None:
        sentences.append(SENTENCES["auto_per_day"].format(role.auto_per_day))
    return tuple(sentences)
