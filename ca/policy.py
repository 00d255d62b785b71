"""The decision: who may have which role, now, for how long, and why.

Rules that hold here: default deny; any matching `[[deny]]` wins; an `[[allow]]` is indivisible; an unknown fact opens no
door; nobody outside this module can make a `Granted`. Every answer carries its reasons, condition by condition.
"""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import UTC, timedelta
from typing import Final

from ca import names
from ca.certificate import PERMITS
from ca.conditions import Facts, listed
from ca.entry import Finding, Privilege, Way
from ca.fields import MAX_DURATION, duration_text, suggestion
from ca.roles import Allow, Deny, Person, Policy, Role
from ca.statement import LONGEST_REASON

__all__ = [
    "NEEDS_APPROVAL", "SENTENCES", "Decision", "Denied", "Facts", "Finding", "Granted", "Way",
    "evaluate", "outlook", "principals",
]

# What is found about a request whatever the block, as `ca.conditions` has it for the conditions of one.
SENTENCES: Final = {
    "person": "the person is in people.toml",
    "role": "the role exists",
    "duration": "the duration is between 1s and the role's maximum of {}",
    "reason": "the reason is one printable line of at most {} characters",
    "reason_of_role": "the reason is as the role wants it ({})",
    "pin_source_address": "the address that the certificate will be bound to is known",
    "approvals": "the request is approved by {}",
    "window": "the grant ends with the hours, or the shift, of the rule that decides",
}
NEEDS_APPROVAL: Final = "needs approval, which comes with requests"

_MOST_WAYS: Final = 12  # blocks told of in a decision: it has to fit in an entry of the log
_SEAL: Final = object()


@dataclass(frozen=True)
class Granted:
    """The privilege is the person's from `Facts.now` on; `ways[0]` decided. Only `ca.policy` makes one."""

    person: str
    role: str
    privilege: Privilege
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Granted comes from ca.policy.evaluate and from nowhere else")

    def __init_subclass__(cls) -> None:
        raise TypeError("there is one kind of Granted")


@dataclass(frozen=True)
class Denied:
    """The role is not the person's, and why.

    `findings` are about the request as a whole, unmet ones first; `ways` are the deny blocks that match, or else the role's
    allow blocks, nearest miss first.
    """

    role: str
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]

    @property
    def needs_approval(self) -> bool:
        """Whether approvals are all that is missing."""
        return [finding.condition for finding in _unmet(self.findings)] == ["approvals"]

    @property
    def message(self) -> str:
        """The one sentence for the person: what to do instead, or what to mend first."""
        if self.ways and self.ways[0].message is not None:
            return f"{self.role} is denied: {self.ways[0].message}"
        nearest = self.ways[0].findings if self.ways else ()
        for finding in _unmet((*nearest, *self.findings)):
            if finding.condition != "approvals":
                return f"{self.role} is not granted: it needs that {finding.sentence}, but {finding.observed}"
        return f"{self.role} {NEEDS_APPROVAL}"


Decision = Granted | Denied


def evaluate(policy: Policy, role: str, duration: int | None, reason: str, facts: Facts) -> Decision:
    """Decides a request for `role` by `facts.person`, for `duration` seconds or the role's default.

    A duration above the role's maximum is denied, never cut; one that outlasts the hours of the deciding rule ends with them.
    """
    person, known = policy.people.get(facts.person), policy.roles.get(role)
    if person is None:
        return _unknown("person", role, f"{_shown(facts.person)} is not")
    if known is None:
        # Whoever asks sees the names of all roles by `jit-ssh roles`: naming a close one tells nothing new.
        return _unknown("role", role, f"there is none of this name{suggestion(role, policy.roles)}")
    return _decide(policy, known, person, facts, duration, reason)


def outlook(policy: Policy, facts: Facts) -> tuple[tuple[Role, Decision], ...]:
    """Each role with the decision on its default duration, the reason left aside: granted first, then approvable, then denied.

    What a reason has to look like is in `Role.reason`. A stranger's outlook is empty.
    """
    person = policy.people.get(facts.person)
    if person is None:
        return ()
    decided = [(role, _decide(policy, role, person, facts, None, None)) for role in policy.roles.values()]
    return tuple(sorted(decided, key=lambda each: (_rank(each[1]), each[0].name)))


def principals(role: Role, person: str) -> tuple[str, ...]:
    """The role's principals as this person gets them."""
    return tuple(principal.replace("{person}@", f"{person}@") for principal in role.principals)


def _rank(decision: Decision) -> int:
    match decision:
        case Granted():
            return 0
        case Denied():
            return 1 if decision.needs_approval else 2


def _unknown(what: str, role: str, observed: str) -> Denied:
    return Denied(_shown(role), (Finding(what, SENTENCES[what], observed, holds=False),), ())


def _shown(name: str) -> str:
    return name if names.ROLE.fullmatch(name) else ascii(name[:64])


def _unmet(findings: tuple[Finding, ...]) -> list[Finding]:
    """What does not hold, or is not known to."""
    return [finding for finding in findings if finding.holds is not True]


# ------------------------------------------------------------------ one role


def _decide(policy: Policy, role: Role, person: Person, facts: Facts, duration: int | None, reason: str | None) -> Decision:
    if denials := _denials(policy, role, person, facts):
        return Denied(role.name, (), denials[:_MOST_WAYS])
    length = role.default_duration if duration is None else duration
    findings = tuple(_about_request(role, length, reason, facts))
    rules = [(block, _allow_way(at, block, person, facts)) for at, block in enumerate(role.allow, start=1)]
    nearest = tuple(sorted((way for _, way in rules), key=lambda way: way.unmet))
    open_rules = [(block, way) for block, way in rules if not way.unmet]
    if not open_rules:
        findings += _only_approvals(nearest)
    if _unmet(findings) or not open_rules:
        unmet_first = sorted(findings, key=lambda finding: finding.holds is True)
        return Denied(role.name, tuple(unmet_first), nearest[:_MOST_WAYS])
    return _grant(role, person, facts, length, findings, open_rules, nearest)


def _grant(
    role: Role,
    person: Person,
    facts: Facts,
    length: int,
    findings: tuple[Finding, ...],
    open_rules: list[tuple[Allow, Way]],
    ways: tuple[Way, ...],
) -> Granted:
    asked_end = facts.now + timedelta(seconds=length)
    ends = [(block.hold_until(facts, asked_end), way) for block, way in open_rules]
    end, deciding = max(ends, key=lambda each: each[0])  # the first of those that last longest
    duration = int(end.timestamp()) - int(facts.now.timestamp())
    if end < asked_end:
        cut = f"it ends at {end.astimezone(UTC):%H:%M} UTC, after {duration} of {length} seconds"
        findings += (Finding("window", SENTENCES["window"], cut, holds=True),)
    privilege = Privilege(
        principals=principals(role, person.name),
        duration=duration,
        force_command=role.force_command,
        source_address=_source(facts) if role.pin_source_address else None,
        permit=tuple(permit for permit in PERMITS if permit.lower() in role.permit),
    )
    others = (way for way in ways if way is not deciding)
    return Granted(person.name, role.name, privilege, findings, (deciding, *others)[:_MOST_WAYS], seal=_SEAL)


def _source(facts: Facts) -> str:
    """The one address, as a canonical CIDR block."""
    if facts.client is None:
        raise TypeError("the address is not known: _about_request should have denied this")
    return f"{facts.client}/{facts.client.max_prefixlen}"


# ---------------------------------------------------------------- the blocks


def _denials(policy: Policy, role: Role, person: Person, facts: Facts) -> tuple[Way, ...]:
    """The deny blocks that match: nothing in them is known not to hold."""
    blocks: list[tuple[str, Deny]] = [
        (f"guardrails deny {at}", block)
        for at, block in enumerate(policy.guardrails.deny, start=1)
        if block.roles is None or role.name in block.roles
    ]
    blocks += [(f"deny {at}", block) for at, block in enumerate(role.deny, start=1)]
    ways = (Way(rule, block.findings(facts, person.groups), block.message) for rule, block in blocks)
    return tuple(way for way in ways if all(finding.holds is not False for finding in way.findings))


def _allow_way(at: int, block: Allow, person: Person, facts: Facts) -> Way:
    findings = block.findings(facts, person.groups)
    if block.approvals is not None:
        wanted = listed(tuple(f"{approval.count} of {approval.group}" for approval in block.approvals))
        findings += (Finding("approvals", SENTENCES["approvals"].format(wanted), NEEDS_APPROVAL, holds=False),)
    return Way(f"allow {at}", findings)


def _only_approvals(ways: tuple[Way, ...]) -> tuple[Finding, ...]:
    """The finding of the first way that lacks nothing else."""
    lacking = (_unmet(way.findings) for way in ways)
    return next((tuple(unmet) for unmet in lacking if [each.condition for each in unmet] == ["approvals"]), ())


# --------------------------------------------------------------- the request


def _about_request(role: Role, length: int, reason: str | None, facts: Facts) -> Iterator[Finding]:
    longest = duration_text(role.max_duration)
    asked = duration_text(length) if 0 < length <= MAX_DURATION else "a time that nobody gets"
    yield Finding("duration", SENTENCES["duration"].format(longest), f"it is for {asked}", 0 < length <= role.max_duration)
    if reason is not None:
        yield _reason(role, reason)
    if role.pin_source_address:
        observed = "it is not known" if facts.client is None else f"it is {facts.client}"
        yield Finding("pin_source_address", SENTENCES["pin_source_address"], observed, facts.client is not None)


def _reason(role: Role, reason: str) -> Finding:
    sentence = SENTENCES["reason"].format(LONGEST_REASON)
    if len(reason) > LONGEST_REASON or not names.LINE.fullmatch(reason):
        return Finding("reason", sentence, "it is too long, or has characters that cannot be shown", holds=False)
    if role.reason is None:
        return Finding("reason", sentence, "it is", holds=True)
    fits = role.reason.pattern.match(reason) is not None
    otherwise = "it is not" if reason else "no reason was given"
    wanted = SENTENCES["reason_of_role"].format(role.reason.message)
    return Finding("reason_of_role", wanted, "it is" if fits else otherwise, fits)
