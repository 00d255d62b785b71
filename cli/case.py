"""A request with everything that happened to it, as the CA tells it, and as the entry in the log proves it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self, TypeVar

from ca import entry, merkle, names, statement
from ca.entry import RequestEntry
from ca.errors import JitSshError
from ca.findings import Duty, Finding, Way
from ca.statement import RequestStatement
from cli.accounts import Account
from cli.answers import Members, Step, read_accounts, read_finding, read_steps, read_ways, waits_for
from cli.problems import WrongCase

T = TypeVar("T")
_STATUS: Final = re.compile(r"[a-z]{1,16}", re.ASCII)
_LEAF: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Approval:
    """Somebody's yes; `duration` (seconds) when they shortened it."""

    person: str
    time: int
    duration: int | None
    reason: str | None


@dataclass(frozen=True)
class Before:
    """An earlier request of the same person."""

    request: int
    role: str
    time: int
    status: str


@dataclass(frozen=True)
class Case:
    """A request; times are Unix seconds, durations seconds. `leaf` is the leaf hash of its entry, `entry` the entry's text."""

    request: int
    leaf: str
    entry: str | None
    person: str
    role: str
    about: str
    reason: str
    duration: int
    asked_at: int
    status: str
    expires: int | None
    until: int | None
    extends: int | None
    accounts: tuple[Account, ...]
    force_command: str | None
    permit: tuple[str, ...]
    steps: tuple[Step, ...]
    approvals: tuple[Approval, ...]
    ended_by: str | None
    end_reason: str | None
    findings: tuple[Finding, ...]
    ways: tuple[Way, ...]
    recent: tuple[Before, ...]

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads a case. Raises `Malformed`."""
        return cls.read(Members.parse(source))

    @classmethod
    def read(cls, members: Members) -> Self:
        """One of the cases of `/v1/requests`. Raises `Malformed`."""
        return cls(
            request=members.integer("request"),
            leaf=members.text("leaf", _LEAF),
            entry=_maybe(members.text, "entry", members),
            person=members.text("person", names.PERSON),
            role=members.text("role", names.ROLE),
            about=members.text("about") if "about" in members else "",
            reason=members.text("reason"),
            duration=members.integer("duration"),
            asked_at=members.integer("asked_at"),
            status=members.text("status", _STATUS),
            expires=_maybe(members.integer, "expires", members),
            until=_maybe(members.integer, "until", members),
            extends=_maybe(members.integer, "extends", members),
            accounts=read_accounts(members),
            force_command=_maybe(members.text, "force_command", members),
            permit=members.texts("permit"),
            steps=read_steps(members),
            approvals=tuple(_approval(each) for each in members.each("approvals")),
            ended_by=_maybe(members.text, "ended_by", members),
            end_reason=_maybe(members.text, "end_reason", members),
            findings=tuple(read_finding(each) for each in members.each("findings")),
            ways=read_ways(members),
            recent=tuple(_before(each) for each in members.each("recent")) if "recent" in members else (),
        )

    @property
    def duties(self) -> tuple[Duty, ...]:
        """What was known of who is on call when it was asked for, by the entry."""
        try:
            found = entry.decode((self.entry or "").encode())
        except JitSshError:
            return ()
        return (found.on_call or ()) if isinstance(found, RequestEntry) else ()

    @property
    def waits_for(self) -> str:
        """Whose approval is missing, in words."""
        return waits_for(self.steps) or "a decision"

    def proven(self, number: int) -> Self:
        """Request `number` with the decision as its entry has it. A signature over `leaf` is then one over what this says.

        Raises `WrongCase` unless who, what, why and for how long is as the entry says, and as the person signed. The role's
        description and its host names are not in the entry: they are the CA's word.
        """
        source = (self.entry or "").encode()
        if merkle.leaf_hash(source).hex() != self.leaf:
            raise self._wrong("the entry is not the one that would be signed for")
        try:
            found = entry.decode(source)
            if not isinstance(found, RequestEntry):
                raise self._wrong("the entry is no request")
            asked = statement.parse(found.statement.encode())
            found.signed.verify(found.statement.encode())
        except JitSshError as error:
            raise self._wrong(error.message) from error
        if not isinstance(asked, RequestStatement):
            raise self._wrong("the person signed something else")
        for told, proven in (
            ((self.request, self.person, self.role), (number, found.actor, found.role)),
            (self.request, found.index),
            ((self.role, self.reason), (asked.role, asked.reason)),
            (self.duration, found.privilege.duration),
            ({each.principal for each in self.accounts}, set(found.privilege.principals)),
            (self.force_command, found.privilege.force_command),
            (self.permit, found.privilege.permit),
        ):
            if told != proven:
                raise self._wrong(f"it says {str(told)[:200]}, its entry says {str(proven)[:200]}")
        return replace(self, findings=found.findings, ways=found.ways)

    def _wrong(self, otherwise: str) -> WrongCase:
        hint = "Nothing was signed. Tell the security team"
        return WrongCase(f"the CA does not show request {self.request} as it is in the log: {otherwise}", hint)


def parse_list(source: bytes) -> list[Case]:
    """Reads the answer of `/v1/requests`. Raises `Malformed`."""
    return [Case.read(each) for each in Members.parse(source).each("requests")]


def _maybe(read: Callable[[str], T], name: str, members: Members) -> T | None:
    return read(name) if name in members else None


def _approval(members: Members) -> Approval:
    return Approval(
        members.text("person", names.PERSON),
        members.integer("time"),
        _maybe(members.integer, "duration", members),
        _maybe(members.text, "reason", members),
    )


def _before(members: Members) -> Before:
    return Before(
        members.integer("request"), members.text("role", names.ROLE), members.integer("time"), members.text("status", _STATUS)
    )
