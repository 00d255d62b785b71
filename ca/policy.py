"""The decision: who may have which role, now, for how long, and why.

Rules that hold here: default deny; any matching `[[deny]]` wins; an `[[allow]]` is indivisible; an unknown fact opens no
door; nobody outside this module can make a `Granted`. Every answer carries its reasons, condition by condition.
"""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import UTC, timedelta
from typing import Final

from ca import names
from ca.approvals import Approved, approvable, eligible, filled, fills, said
from ca.certificate import PERMITS
from ca.conditions import Conditions, Facts, listed, shift_of
from ca.fields import MAX_DURATION, duration_text, suggestion
from ca.findings import Duty, Finding, Privilege, Step, Way
from ca.roles import Allow, Deny, Person, Policy, Role
from ca.statement import LONGEST_REASON

__all__ = [
    "SENTENCES",
    "Approved",
    "Decision",
    "Denied",
    "Facts",
    "Finding",
    "Granted",
    "Pending",
    "Way",
    "approvable",
    "could_approve",
    "deny_blocks",
    "duties",
    "eligible",
    "evaluate",
    "fills",
    "outlook",
    "principals",
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
    "auto_per_day": "fewer than {} grants without approval in the last 24 hours",
    "max_extensions": "the grant was extended fewer than {} times",
    "window": "the grant ends with the hours, or the shift, of the rule that decides",
}
_MOST_WAYS: Final = 12  # blocks told of in a decision: it has to fit in an entry of the log
_MOST_DUTIES: Final = 24  # schedules told of in a decision, for the same reason
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
class Pending:
    """The privilege is the person's once the `steps` are done, each by other people; `ways[0]` is the rule that asks for them."""

    person: str
    role: str
    privilege: Privilege
    steps: tuple[Step, ...]
    expires: int  # Unix seconds
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]


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
    def message(self) -> str:
        """The one sentence for the person: what to do instead, or what to mend first."""
        if self.ways and self.ways[0].message is not None:
            return f"{self.role} is denied: {self.ways[0].message}"
        nearest = self.ways[0].findings if self.ways else ()
        # What the person can mend comes before what others have to do.
        missing = min(_unmet((*nearest, *self.findings)), key=lambda finding: finding.condition == "approvals")
        return f"{self.role} is not granted: it needs that {missing.sentence}, but {missing.observed}"


Decision = Granted | Pending | Denied


def evaluate(
    policy: Policy, role: str, duration: int | None, reason: str | None, facts: Facts, approvals: tuple[Approved, ...] = ()
) -> Decision:
    """Decides a request for `role` by `facts.person`, for `duration` seconds or the role's default, approved by so many so far.

    A duration above the role's maximum is denied, never cut; one that outlasts the hours or the shift of the deciding rule ends
    with them. A request that nobody could approve is denied at once. A `reason` of None is left aside.
    """
    person, known = policy.people.get(facts.person), policy.roles.get(role)
    if person is None:
        return _unknown("person", role, f"{_shown(facts.person)} is not")
    if known is None:
        # Whoever asks sees the names of all roles by `jit-ssh roles`: naming a close one tells nothing new.
        return _unknown("role", role, f"there is none of this name{suggestion(role, policy.roles)}")
    return _decide(policy, known, person, facts, duration, reason, approvals)


def outlook(policy: Policy, facts: Facts) -> tuple[tuple[Role, Decision], ...]:
    """Each role with the decision on its default duration, the reason left aside: granted first, then approvable, then denied.

    What a reason has to look like is in `Role.reason`. A stranger's outlook is empty.
    """
    person = policy.people.get(facts.person)
    if person is None:
        return ()
    decided = [(role, _decide(policy, role, person, facts, None, None, ())) for role in policy.roles.values()]
    return tuple(sorted(decided, key=lambda each: (_rank(each[1]), each[0].name)))


def duties(policy: Policy, role: str, facts: Facts) -> tuple[Duty, ...] | None:
    """What was known of the person's shifts when this role was decided; None if no rule about it asks who is on call."""
    known = policy.roles.get(role)
    blocks: list[Conditions] = [] if known is None else [*known.allow, *(block for _, block in deny_blocks(policy, known))]
    schedules = {block.on_call.schedule for block in blocks if block.on_call is not None}
    return tuple(_duty(name, facts) for name in sorted(schedules)[:_MOST_DUTIES]) or None


def _duty(schedule: str, facts: Facts) -> Duty:
    shift = shift_of(facts, schedule)
    if isinstance(shift, str):
        return Duty(schedule=schedule, unknown=shift)
    return Duty(schedule=schedule, source=shift.source, age=shift.age, level=shift.level, until=shift.until)


def principals(role: Role, person: str) -> tuple[str, ...]:
    """The role's principals as this person gets them."""
    return tuple(principal.replace("{person}@", f"{person}@") for principal in role.principals)


def _rank(decision: Decision) -> int:
    match decision:
        case Granted():
            return 0
        case Pending():
            return 1
        case Denied():
            return 2


def _unknown(what: str, role: str, observed: str) -> Denied:
    return Denied(_shown(role), (Finding(what, SENTENCES[what], observed, holds=False),), ())


def _shown(name: str) -> str:
    return name if names.ROLE.fullmatch(name) else ascii(name[:64])


def _unmet(findings: tuple[Finding, ...]) -> list[Finding]:
    """What does not hold, or is not known to."""
    return [finding for finding in findings if finding.holds is not True]


# ------------------------------------------------------------------ one role


def _decide(
    policy: Policy,
    role: Role,
    person: Person,
    facts: Facts,
    duration: int | None,
    reason: str | None,
    approvals: tuple[Approved, ...],
) -> Decision:
    if denials := _denials(policy, role, person, facts):
        return Denied(role.name, (), denials[:_MOST_WAYS])
    asked = role.default_duration if duration is None else duration
    findings = tuple(_about_request(role, asked, reason, facts))
    rules = [_consider(policy, role, at, block, person, facts, approvals) for at, block in enumerate(role.allow, start=1)]
    ways = tuple(sorted((rule.way for rule in rules), key=lambda way: way.unmet))
    open_rules = [rule for rule in rules if not rule.way.unmet]
    waiting = [rule for rule in rules if rule.possible and _lacks_only_approvals(rule.way)]
    if _unmet(findings) or not (open_rules or waiting):
        unmet_first = sorted(findings, key=lambda finding: finding.holds is True)
        return Denied(role.name, tuple(unmet_first), ways[:_MOST_WAYS])
    allowed = min((asked, *(yes.duration for yes in approvals if yes.duration is not None)))
    if open_rules:
        return _grant(role, person, facts, allowed, findings, open_rules, ways)
    easiest = min(waiting, key=lambda rule: rule.missing)
    return Pending(
        person=person.name,
        role=role.name,
        privilege=_privilege(role, person, facts, allowed),
        steps=tuple(approval.step for approval in easiest.block.approvals or ()),
        expires=int((facts.asked_at or facts.now).timestamp()) + role.waits_for,
        findings=findings,
        ways=_deciding_first(easiest.way, ways),
    )


def _lacks_only_approvals(way: Way) -> bool:
    return [finding.condition for finding in _unmet(way.findings)] == ["approvals"]


def _grant(
    role: Role,
    person: Person,
    facts: Facts,
    length: int,
    findings: tuple[Finding, ...],
    open_rules: "list[_Rule]",
    ways: tuple[Way, ...],
) -> Granted:
    asked_end = facts.now + timedelta(seconds=length)
    ends = [(rule.block.hold_until(facts, asked_end), rule.way) for rule in open_rules]
    end, deciding = max(ends, key=lambda each: each[0])  # the first of those that last longest
    duration = int(end.timestamp()) - int(facts.now.timestamp())
    if end < asked_end:
        cut = f"it ends at {end.astimezone(UTC):%H:%M} UTC, after {duration} of {length} seconds"
        findings += (Finding("window", SENTENCES["window"], cut, holds=True),)
    privilege = _privilege(role, person, facts, duration)
    return Granted(person.name, role.name, privilege, findings, _deciding_first(deciding, ways), seal=_SEAL)


def _deciding_first(deciding: Way, ways: tuple[Way, ...]) -> tuple[Way, ...]:
    return (deciding, *(way for way in ways if way is not deciding))[:_MOST_WAYS]


def _privilege(role: Role, person: Person, facts: Facts, duration: int) -> Privilege:
    return Privilege(
        principals=principals(role, person.name),
        duration=duration,
        force_command=role.force_command,
        source_address=_source(facts) if role.pin_source_address else None,
        permit=tuple(permit for permit in PERMITS if permit.lower() in role.permit),
    )


def _source(facts: Facts) -> str:
    """The one address, as a canonical CIDR block."""
    if facts.client is None:
        raise TypeError("the address is not known: _about_request should have denied this")
    return f"{facts.client}/{facts.client.max_prefixlen}"


# ---------------------------------------------------------------- the blocks


def deny_blocks(policy: Policy, role: Role) -> list[tuple[str, Deny]]:
    """Those about the role, by their names: the guard rails' and then its own."""
    blocks: list[tuple[str, Deny]] = [
        (f"guardrails deny {at}", block)
        for at, block in enumerate(policy.guardrails.deny, start=1)
        if block.roles is None or role.name in block.roles
    ]
    return blocks + [(f"deny {at}", block) for at, block in enumerate(role.deny, start=1)]


def _denials(policy: Policy, role: Role, person: Person, facts: Facts) -> tuple[Way, ...]:
    """The deny blocks that match: nothing in them is known not to hold."""
    blocks = deny_blocks(policy, role)
    ways = (Way(rule, block.findings(facts, person.groups), block.message) for rule, block in blocks)
    return tuple(way for way in ways if all(finding.holds is not False for finding in way.findings))


@dataclass(frozen=True)
class _Rule:
    """An allow block as considered: how many approvals it still lacks, and whether people who could give them exist."""

    block: Allow
    way: Way
    missing: int = 0
    possible: bool = True


def _consider(
    policy: Policy, role: Role, at: int, block: Allow, person: Person, facts: Facts, approvals: tuple[Approved, ...]
) -> _Rule:
    findings, missing, possible = block.findings(facts, person.groups), 0, True
    if block.approvals is not None:
        steps = tuple(approval.step for approval in block.approvals)
        missing = sum(step.count for step in steps) - filled(steps, said(policy, steps, facts, approvals))
        possible = approvable(policy, steps, facts)
        findings += (_approval_finding(steps, missing, possible, approvals),)
    elif role.auto_per_day is not None:
        sentence = SENTENCES["auto_per_day"].format(role.auto_per_day)
        few = facts.auto_granted < role.auto_per_day
        findings += (Finding("auto_per_day", sentence, f"it was granted {facts.auto_granted} times", few),)
    return _Rule(block, Way(_rule(at), findings), missing, possible)


def _rule(at: int) -> str:
    return f"allow {at}"


def _approval_finding(steps: tuple[Step, ...], missing: int, possible: bool, approvals: tuple[Approved, ...]) -> Finding:
    wanted = listed(tuple(f"{step.count} of {step.group}" for step in steps))
    by = f"approved by {listed(tuple(yes.person for yes in approvals))}" if approvals else "nobody has approved"
    observed = f"{by}, {missing} missing" if missing else by
    sentence = SENTENCES["approvals"].format(wanted)
    return Finding("approvals", sentence, observed if possible else "nobody else could", holds=not missing)


def could_approve(policy: Policy, denied: Denied, facts: Facts) -> tuple[Step, ...]:
    """The steps of the nearest way by which others could approve it, once the rest is mended; none if there is no such way.

    Only of a rule that people.toml opens to the person: who is in a group is not for everybody to find out.
    """
    person, role = policy.people.get(facts.person), policy.roles.get(denied.role)
    if person is None or role is None:
        return ()
    blocks = {_rule(at): block for at, block in enumerate(role.allow, start=1)}
    for block in (blocks[way.rule] for way in denied.ways if way.rule in blocks):
        steps = tuple(approval.step for approval in block.approvals or ())
        if steps and block.is_about(facts, person.groups) and approvable(policy, steps, facts):
            return steps
    return ()


# --------------------------------------------------------------- the request


def _about_request(role: Role, length: int, reason: str | None, facts: Facts) -> Iterator[Finding]:
    longest = duration_text(role.max_duration)
    asked = duration_text(length) if 0 < length <= MAX_DURATION else "a time that nobody gets"
    yield Finding("duration", SENTENCES["duration"].format(longest), f"it is for {asked}", 0 < length <= role.max_duration)
    if reason is not None:
        yield _reason(role, reason)
    if role.max_extensions is not None and facts.extensions is not None:
        sentence = SENTENCES["max_extensions"].format(role.max_extensions)
        times = f"it was extended {facts.extensions} times"
        yield Finding("max_extensions", sentence, times, facts.extensions < role.max_extensions)
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
