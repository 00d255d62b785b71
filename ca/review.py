"""What to look at again in a policy that loads: it is allowed, and yet hardly meant, or no longer.

Each warning begins like a problem of the policy files does: with the file and the path of the key.
"""

from collections.abc import Iterator
from datetime import date

from ca.conditions import Conditions
from ca.reach import ways
from ca.roles import Allow, Policy, Role


def warnings(policy: Policy, today: date) -> tuple[str, ...]:
    """One sentence for each doubt about a role, by role."""
    return tuple(f"roles/{role.name}.toml: {doubt}" for role in policy.roles.values() for doubt in _doubts(policy, role, today))


def _doubts(policy: Policy, role: Role, today: date) -> Iterator[str]:
    if role.review_by < today:
        yield f"review_by: {role.review_by} has passed: {role.owner} should look at the role again"
    if policy.people and next(ways(policy, role, policy.people.values()), None) is None:
        yield "nobody can get it: nobody fits a rule, or too few people could approve"
    accounts = [account.account for account in policy.accounts(role.principals)]
    for at, block in enumerate(role.allow, start=1):
        alone = "root" in accounts and block.approvals is None and block.on_call is None
        if alone and block.hardware_key is None:
            yield f"allow[{at}]: gives root without approvals, on_call or hardware_key"
        elif alone and role.auto_per_day is None and not role.pin_source_address and block.networks is None:
            bounds = "approvals, on_call, auto_per_day, pin_source_address or networks"
            yield f"allow[{at}]: gives root for a touch alone, anywhere and without end: bound it by {bounds}"
        others = ((number, other) for number, other in enumerate(role.allow, start=1) if other is not block)
        if wider := next((number for number, other in others if _makes_needless(other, block, role)), None):
            yield f"allow[{at}]: never decides anything: allow[{wider}] wants less of the same"
    for at, denial in enumerate(role.deny, start=1):
        earlier = enumerate(role.deny[: at - 1], start=1)
        if wider := next((number for number, other in earlier if _is_within(other, denial)), None):
            yield f"deny[{at}]: never decides anything: deny[{wider}] matches whenever it does"


def _makes_needless(wide: Allow, narrow: Allow, role: Role) -> bool:
    """Whether whoever gets the role by `narrow` gets it by `wide`, for as long and with no more approvals."""
    if wide.approvals != narrow.approvals and (wide.approvals is not None or role.auto_per_day is not None):
        return False
    return _is_within(wide, narrow)


def _is_within(few: Conditions, many: Conditions) -> bool:
    """Whether the second has every condition of the first, so that it never holds without it."""
    return all(getattr(many, name) == condition for name, _, condition in few.given)
