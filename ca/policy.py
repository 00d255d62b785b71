"""The decision: who may have which role, now, for how long, and why.

Rules that hold here: default deny; any matching `[[deny]]` wins; an `[[allow]]` is indivisible; an unknown fact opens no
door; nobody outside this module can make a `Granted`. Every answer carries its reasons, condition by condition.
"""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import UTC, timedelta
from typing import Final

from ca import names
from ca.conditions import Facts, Finding
from ca.fields import MAX_DURATION, duration_text, suggestion
from ca.roles import Allow, Deny, Person, Policy, Role
from ca.statement import LONGEST_REASON

__all__ = ["SENTENCES", "Decision", "Denied", "Facts", "Finding", "Granted", "Way", "evaluate", "outlook"]

# What is found about a request as a whole, as `ca.conditions` has it for the conditions of a block.
SENTENCES: Final = {
    "person": "the person is in people.toml",
    "role": "the role exists",
    "duration": "the duration is between 1s and the role's maximum of {}",
    "reason": "the reason is one printable line of at most {} characters{}",
    "pin_source_address": "the address that the certificate will be bound to is known",
    "approvals": "the request is approved by {}",
    "window": "the grant ends with the hours of the rule that decides",
}
NEEDS_APPROVAL: Final = "needs approval, which comes with requests"

_MAX_WAYS: Final = 12  # blocks told of in a decision: it has to fit in an entry of the log
_SEAL: Final = object()


@dataclass(frozen=True)
class Way:
    """One block as it was considered; `rule` is its name, such as `allow 1` or `guardrails deny 2`."""

    rule: str
    findings: tuple[Finding, ...]
    message: str | None = None  # of a deny: what to do instead

    @property
    def unmet(self) -> int:
        """How many conditions do not hold, or are unknown."""
        return sum(finding.holds is not True for finding in self.findings)


@dataclass(frozen=True)
class Granted:
    """The role is the person's for `duration` seconds from `Facts.now` on. Only `ca.policy` makes one; `ways[0]` decided."""

    person: str
    role: str
    principals: tuple[str, ...]
    duration: int
    force_command: str | None
    source_address: str | None
    permit: tuple[str, ...]
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Granted comes from ca.policy.evaluate and from nowhere else")

    def __init_subclass__(cls) -> None:
        raise TypeError("a Granted has no other kinds")


@dataclass(frozen=True)
class Denied:
    """The role is not the person's, and why: `findings` about the request, then `ways`, nearest miss first."""

    role: str
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]

    @property
    def needs_approval(self) -> bool:
        """Whether nothing but approvals is missing."""
        return [finding.condition for finding in self.findings if finding.holds is not True] == ["approvals"]


Decision = Granted | Denied


def evaluate(policy: Policy, role: str, duration: int | None, reason: str, facts: Facts) -> Decision:
    """Decides a request for `role` by `facts.person`, for `duration` seconds or the role's default.

    A duration above the role's maximum is denied, never cut; one that outlasts the hours of the deciding rule ends with them.
    """
    person, known = policy.people.get(facts.person), policy.roles.get(role)
    if person is None:
        return _stranger(role, facts)
    if known is None:
        return _no_such_role(policy, role)
    return _decide(policy, known, person, facts, duration, reason)


def outlook(policy: Policy, facts: Facts) -> tuple[tuple[Role, Decision], ...]:
    """Every role with the decision its default duration would get, the reason left aside: granted, approvable, denied."""
    person = policy.people.get(facts.person)
    if person is None:
        return ()
    decided = [(role, _decide(policy, role, person, facts, None, None)) for role in policy.roles.values()]
    return tuple(sorted(decided, key=lambda each: (_rank(each[1]), each[0].name)))


def _rank(decision: Decision) -> int:
    match decision:
        case Granted():
            return 0
        case Denied():
            return 1 if decision.needs_approval else 2


# ----------------------------------------------------------------- one role


def _decide(policy: Policy, role: Role, person: Person, facts: Facts, duration: int | None, reason: str | None) -> Decision:
    if denials := _denials(policy, role, person, facts):
        return Denied(role.name, (), denials[:_MAX_WAYS])
    length = role.default_duration if duration is None else duration
    findings = tuple(_about_request(role, length, reason, facts))
    ways = [(block, _way(f"allow {at}", block, person, facts)) for at, block in enumerate(role.allow, start=1)]
    nearest_first = tuple(sorted((way for _, way in ways), key=lambda way: way.unmet))[:_MAX_WAYS]
    open_blocks = [(block, way) for block, way in ways if way.unmet == 0]
    if not open_blocks:
        return Denied(role.name, _unmet_first(findings + _only_approvals(nearest_first)), nearest_first)
    if not all(finding.holds for finding in findings):
        return Denied(role.name, _unmet_first(findings), nearest_first)
    return _grant(role, person, facts, length, findings, open_blocks, nearest_first)


def _grant(
    role: Role,
    person: Person,
    facts: Facts,
    length: int,
    findings: tuple[Finding, ...],
    open_blocks: list[tuple[Allow, Way]],
    ways: tuple[Way, ...],
) -> Granted:
    end = facts.now + timedelta(seconds=length)
    lasting = [(block.hold_until(facts.now, end), way) for block, way in open_blocks]
    until, decided = max(lasting, key=lambda each: each[0])  # the first of the longest
    duration = int(until.timestamp()) - int(facts.now.timestamp())
    if duration < length:
        cut = f"it ends at {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC, after {duration} of {length} seconds"
        findings += (Finding("window", SENTENCES["window"], cut, holds=True),)
    return Granted(
        person=person.name,
        role=role.name,
        principals=tuple(principal.replace("{person}@", f"{person.name}@") for principal in role.principals),
        duration=duration,
        force_command=role.force_command,
        source_address=_only_from(facts) if role.pin_source_address else None,
        permit=role.permit,
        findings=findings,
        ways=(decided, *(way for way in ways if way is not decided))[:_MAX_WAYS],
        seal=_SEAL,
    )


def _only_from(facts: Facts) -> str:
    if facts.client is None:
        raise ValueError("an address that is not known was to be bound to")  # _about_request denied it
    return f"{facts.client}/{facts.client.max_prefixlen}"


# ---------------------------------------------------------------- the blocks


def _denials(policy: Policy, role: Role, person: Person, facts: Facts) -> tuple[Way, ...]:
    """The deny blocks that match: no condition of theirs is known not to hold."""
    everywhere = [
        (f"guardrails deny {at}", block)
        for at, block in enumerate(policy.guardrails.deny, start=1)
        if block.roles is None or role.name in block.roles
    ]
    of_role = [(f"deny {at}", block) for at, block in enumerate(role.deny, start=1)]
    ways = (_way(rule, block, person, facts) for rule, block in [*everywhere, *of_role])
    return tuple(way for way in ways if all(finding.holds is not False for finding in way.findings))


def _way(rule: str, block: Allow | Deny, person: Person, facts: Facts) -> Way:
    findings = block.findings(facts, person.groups)
    match block:
        case Deny():
            return Way(rule, findings, block.message)
        case Allow():
            return Way(rule, findings + _approvals(block))


def _approvals(block: Allow) -> tuple[Finding, ...]:
    if block.approvals is None:
        return ()
    wanted = " and ".join(f"{approval.count} of {approval.group}" for approval in block.approvals)
    return (Finding("approvals", SENTENCES["approvals"].format(wanted), NEEDS_APPROVAL, holds=False),)


def _only_approvals(ways: tuple[Way, ...]) -> tuple[Finding, ...]:
    """The finding of the first way that lacks nothing else."""
    lacking = ([finding for finding in way.findings if finding.holds is not True] for way in ways)
    return next(((only[0],) for only in lacking if [finding.condition for finding in only] == ["approvals"]), ())


# --------------------------------------------------------------- the request


def _about_request(role: Role, length: int, reason: str | None, facts: Facts) -> Iterator[Finding]:
    longest = duration_text(role.max_duration)
    asked = duration_text(length) if 0 < length <= MAX_DURATION else "a time that nobody gets"
    in_range = 0 < length <= role.max_duration
    yield Finding("duration", SENTENCES["duration"].format(longest), f"it is for {asked}", in_range)
    if reason is not None:
        yield _reason(role, reason)
    if role.pin_source_address:
        known = facts.client is not None
        observed = f"it is {facts.client}" if known else "it is not known"
        yield Finding("pin_source_address", SENTENCES["pin_source_address"], observed, known)


def _reason(role: Role, reason: str) -> Finding:
    wanted = f": {role.reason.message}" if role.reason else ""
    observed, holds = "it is", True
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        observed, holds = "it is too long, or has characters that cannot be shown", False
    elif role.reason and not role.reason.pattern.match(reason):
        observed, holds = "it is not" if reason else "no reason was given", False
    return Finding("reason", SENTENCES["reason"].format(LONGEST_REASON, wanted), observed, holds)


def _stranger(role: str, facts: Facts) -> Denied:
    observed = f"{_shown(facts.person)} is not"
    return Denied(_shown(role), (Finding("person", SENTENCES["person"], observed, holds=False),), ())


def _no_such_role(policy: Policy, role: str) -> Denied:
    # Whoever asks is known, and sees the names of all roles by `jit-ssh roles`: naming a close one tells nothing new.
    observed = f"there is no role {_shown(role)}{suggestion(role, policy.roles)}"
    return Denied(_shown(role), (Finding("role", SENTENCES["role"], observed, holds=False),), ())


def _shown(name: str) -> str:
    return name if names.ROLE.fullmatch(name) else ascii(name[:64])


def _unmet_first(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.holds is True))
