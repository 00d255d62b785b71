"""The examples of the role files, tried: each is decided as a request would be, by `ca.policy`.

Enough people stand in for every group that has to approve, so that an example fails for a rule and never for a vacancy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ca.conditions import Facts, told_shift
from ca.examples import Ask, Example
from ca.policy import Approved, Decision, Denied, Granted, Pending, evaluate
from ca.roles import Person, Policy, Role


@dataclass(frozen=True)
class Trial:
    """One example of a role, counted from 1, and the decision it got."""

    role: str
    at: int
    example: Example
    decision: Decision

    @property
    def passed(self) -> bool:
        """Whether the decision is the one expected."""
        return outcome(self.decision) == self.example.expect


def outcome(decision: Decision) -> str:
    """The decision in one word."""
    match decision:
        case Granted():
            return "granted"
        case Pending():
            return "pending"
        case Denied():
            return "denied"


def trials(policy: Policy) -> tuple[Trial, ...]:
    """Every example of every role, by role."""
    return tuple(
        Trial(role.name, at, example, _decide(policy, role, example))
        for role in policy.roles.values()
        for at, example in enumerate(role.example, start=1)
    )


def _decide(policy: Policy, role: Role, example: Example) -> Decision:
    ask = example.ask
    # No person's name has an @: a stand-in is nobody whom a rule could name.
    approvers = [Person(f"@approver-{at}", (group,), ()) for at, group in enumerate(example.approvals, start=1)]
    asks = Person(ask.person, ask.groups, ())
    staffed = policy.of((*_stand_ins(role), *approvers, asks))
    approvals = tuple(Approved(approver.name) for approver in approvers)
    return evaluate(staffed, role.name, ask.duration, ask.reason, _facts(policy, ask), approvals)


def _facts(policy: Policy, ask: Ask) -> Facts:
    shifts = {name: told_shift(name, "the example", ask.person, ask.on_call.get(name)) for name in policy.schedules}
    return Facts(ask.person, ask.address, ask.hardware_key, ask.at, shifts)


def _stand_ins(role: Role) -> Iterator[Person]:
    steps = [approval.step for block in role.allow for approval in block.approvals or ()]
    enough = sum(step.count for step in steps)
    for group in {step.group for step in steps}:
        for at in range(enough):
            yield Person(f"@{group}-{at}", (group,), ())
