"""What the CA answers, read strictly: every name is checked before it can become a file name or a line of ssh_config.

Members that are not known are skipped, so that an older client can talk to a newer CA. The texts for people (`about`,
sentences, messages) may hold anything; `cli.output` makes them printable.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeVar

from ca import names
from ca.canonical import parse_object
from ca.errors import Malformed
from ca.findings import Finding, Way
from ca.names import require
from cli.accounts import Account

T = TypeVar("T")
OUTCOMES: Final = ("granted", "approval", "denied")


class Members:
    """The members of one JSON object. Each reader raises `Malformed` when the member is absent or of another type."""

    def __init__(self, found: Mapping[str, Any], what: str) -> None:
        self._found = found
        self._what = what

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads a JSON object. Raises `Malformed`."""
        return cls(parse_object(source, "the CA's answer"), "the CA's answer")

    def __contains__(self, name: str) -> bool:
        return self._found.get(name) is not None

    def _read(self, name: str, kind: type[T]) -> T:
        value = self._found.get(name)
        if type(value) is not kind:
            raise Malformed(f"{self._what} has no {kind.__name__} {name!a}", "Is this the CA, and of this version?")
        return value

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text; with a `pattern`, one that is wholly in it."""
        value = self._read(name, str)
        return require(pattern, value, f"{self._what}: {name}") if pattern else value

    def texts(self, name: str, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
        """A list of texts; with a `pattern`, each wholly in it."""
        listed = self._read(name, list)
        return tuple(Members({name: member}, self._what).text(name, pattern) for member in listed)

    def integer(self, name: str) -> int:
        """An integer that is not negative."""
        value = self._read(name, int)
        if value < 0:
            raise Malformed(f"{self._what} has a negative {name}")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of integers that are not negative."""
        return tuple(Members({name: member}, self._what).integer(name) for member in self._read(name, list))

    def flag(self, name: str) -> bool:
        """True or false."""
        return self._read(name, bool)

    def each(self, name: str) -> list["Members"]:
        """A list of objects."""
        listed = self._read(name, list)
        if not all(isinstance(member, dict) for member in listed):
            raise Malformed(f"{self._what}: {name} is not a list of objects")
        return [Members(member, f"{self._what}: {name}") for member in listed]

    def one(self, name: str) -> "Members":
        """An object."""
        return Members(self._read(name, dict), f"{self._what}: {name}")


def read_accounts(members: Members) -> tuple[Account, ...]:
    """The accounts of a role. Raises `Malformed`."""
    return tuple(Account(each.text("account"), each.text("group"), each.texts("hosts")) for each in members.each("accounts"))


def read_ways(members: Members) -> tuple[Way, ...]:
    """The ways to a role as they were considered; a condition whose fact is unknown does not hold. Raises `Malformed`."""
    return tuple(
        Way(
            way.text("rule"),
            tuple(read_finding(found) for found in way.each("findings")),
        )
        for way in members.each("ways")
    )


def read_finding(found: Members) -> Finding:
    """One condition; one whose fact is unknown does not hold. Raises `Malformed`."""
    holds = "holds" in found and found.flag("holds")
    return Finding(found.text("condition"), found.text("sentence"), found.text("observed"), holds)


def ways_lines(ways: Sequence[Way]) -> list[str]:
    """Every way to a role and each of its findings, the nearest way (fewest conditions that do not hold) first."""
    lines = []
    for way in sorted(ways, key=lambda way: sum(not finding.holds for finding in way.findings)):
        lines.append(f"  {way.rule}")
        lines += [f"  {line}" for line in findings_lines(way.findings)]
    return lines


def findings_lines(findings: Sequence[Finding]) -> list[str]:
    """What was found, a line each."""
    return [f"  {'✓' if found.holds else '✗'} {found.sentence}: {found.observed}" for found in findings]


@dataclass(frozen=True)
class Step:
    """So many people of a group have to approve; `could` are those who still could."""

    group: str
    count: int
    approved_by: tuple[str, ...]
    could: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many approvals it waits for."""
        return max(self.count - len(self.approved_by), 0)


def read_steps(members: Members) -> tuple[Step, ...]:
    """Who has approved and who could. Raises `Malformed`."""
    return tuple(
        Step(
            each.text("group", names.GROUP),
            each.integer("count"),
            each.texts("approved_by", names.PERSON),
            each.texts("could", names.PERSON),
        )
        for each in members.each("steps")
    )


def steps_lines(steps: Sequence[Step]) -> list[str]:
    """Who could approve, group by group."""
    lines = [f"    {step.count} of {step.group}: {_named(step)}" for step in steps]
    return ["  who could approve", *lines] if lines else []


def waits_for(steps: Sequence[Step]) -> str:
    """Whose approval is missing, in words; empty when none is."""
    return "; then ".join(_words(step) for step in steps if step.missing)


def _words(step: Step) -> str:
    count = "" if step.missing == 1 else f"{step.missing} of "
    return f"{count}{step.group}: {_named(step)} could approve"


def _named(step: Step) -> str:
    shown, more = step.could[:5], len(step.could) - 5
    return (", ".join(shown) + (f" and {more} more" if more > 0 else "")) or "nobody"


@dataclass(frozen=True)
class Role:
    """A role as it stands for this person at this moment. Durations are in seconds, `until` in Unix seconds."""

    role: str
    about: str
    owner: str
    default: bool
    accounts: tuple[Account, ...]
    default_duration: int
    max_duration: int
    reason_message: str | None
    permit: tuple[str, ...]
    force_command: str | None
    outcome: str
    ways: tuple[Way, ...]
    until: int | None

    def without_ways(self) -> Self:
        """The same without what was considered."""
        return replace(self, ways=(), until=None)

    @classmethod
    def read(cls, members: Members) -> Self:
        """One of the roles of `/v1/roles`. Raises `Malformed`."""
        outcome = members.text("outcome")
        if outcome not in OUTCOMES:
            raise Malformed(f"the CA's answer has an outcome {outcome[:40]!a}", f"known are {', '.join(OUTCOMES)}")
        return cls(
            role=members.text("role", names.ROLE),
            about=members.text("about"),
            owner=members.text("owner"),
            default=members.flag("default"),
            accounts=read_accounts(members),
            default_duration=members.integer("default_duration"),
            max_duration=members.integer("max_duration"),
            reason_message=members.one("reason").text("message") if "reason" in members else None,
            permit=members.texts("permit"),
            force_command=members.text("force_command") if "force_command" in members else None,
            outcome=outcome,
            ways=read_ways(members),
            until=members.integer("until") if "until" in members else None,
        )


@dataclass(frozen=True)
class Roles:
    """Who the CA says is asking, and every role there is."""

    person: str
    groups: tuple[str, ...]
    auditor: bool
    roles: tuple[Role, ...]

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads the answer of `/v1/roles`. Raises `Malformed`."""
        members = Members.parse(source)
        return cls(
            members.text("person", names.PERSON),
            members.texts("groups", names.GROUP),
            members.flag("auditor"),
            tuple(Role.read(each) for each in members.each("roles")),
        )


@dataclass(frozen=True)
class Issued:
    """A certificate and what the CA says is in it: to be checked, not believed. Times are Unix seconds."""

    request: int
    serial: int
    person: str
    role: str
    certificate: str
    valid_after: int
    valid_before: int
    until: int  # when the grant ends
    accounts: tuple[Account, ...]

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads the answer to a request that is granted, and of `/v1/certificates`. Raises `Malformed`."""
        members = Members.parse(source)
        return cls(
            request=members.integer("request"),
            serial=members.integer("serial"),
            person=members.text("person", names.PERSON),
            role=members.text("role", names.ROLE),
            certificate=members.text("certificate"),
            valid_after=members.integer("valid_after"),
            valid_before=members.integer("valid_before"),
            until=members.integer("until"),
            accounts=read_accounts(members),
        )
