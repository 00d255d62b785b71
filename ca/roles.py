"""The policy files as values: people, hosts, guardrails and roles, described in POLICY.md.

A `Policy` is loaded whole or not at all: `load` either returns one in which every reference is good, or raises every
problem of every file at once. After that nothing changes and nothing needs checking again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import Field, Strict, ValidationInfo, field_validator, model_validator

from ca import break_glass
from ca.break_glass import BreakGlass
from ca.conditions import Conditions
from ca.errors import Misconfigured
from ca.examples import Example
from ca.fields import (
    MAX_PRINCIPALS,
    AnyNumber,
    AtLeastOne,
    Command,
    Duration,
    Fingerprint,
    GroupName,
    HostPattern,
    Key,
    Known,
    KnownGroup,
    KnownRole,
    Line,
    PersonName,
    Principal,
    ReasonPattern,
    RoleName,
    Table,
    duration_text,
)
from ca.findings import Step
from ca.keys import PublicKey
from ca.oncall import OnCallFile, Schedule
from ca.policy_files import parse, shown, validate

# ------------------------------------------------------------------ the files


class PersonTable(Table):
    """`[people.NAME]`: the person's groups and the keys that sign for them."""

    groups: AnyNumber[KnownGroup]
    keys: AtLeastOne[Key]


class PeopleFile(Table):
    """`people.toml`."""

    revoked_keys: AnyNumber[Fingerprint] = ()
    groups: dict[GroupName, Line]
    people: dict[PersonName, PersonTable] = Field(default_factory=dict)


class HostGroup(Table):
    """`[groups.NAME]` in hosts.toml: what it is, and which host names an ssh_config recognises it by."""

    about: Line
    hosts: AtLeastOne[HostPattern]


class HostsFile(Table):
    """`hosts.toml`."""

    groups: dict[GroupName, HostGroup]


class Approval(Table):
    """So many people of a group have to say yes; when nobody has after a while, those of another group may as well."""

    group: KnownGroup = Field(alias="from")
    count: Annotated[int, Field(ge=1, le=10)]
    escalate_after: Duration | None = None
    escalate_to: KnownGroup | None = None

    @model_validator(mode="after")
    def _escalates_to_somebody(self) -> Self:
        if (self.escalate_after is None) != (self.escalate_to is None):
            raise ValueError("escalate_after and escalate_to go together")
        return self

    @property
    def step(self) -> Step:
        """As the log has it."""
        return Step(self.group, self.count, self.escalate_after, self.escalate_to)


class Allow(Conditions):
    """`[[allow]]`: one complete way to get the role."""

    approvals: AtLeastOne[Approval] | None = None

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        if not any(condition.says_who for _, _, condition in self.given):
            raise ValueError("says not who may have the role: add groups, people or on_call")
        if self.hardware_key is not None and not self.hardware_key.root:
            raise ValueError("hardware_key = false would shut out those with a security key: leave it out")
        return self


class Deny(Conditions):
    """`[[deny]]`: whoever meets all its conditions does not get the role; without conditions, nobody does."""

    message: Line

    @model_validator(mode="after")
    def _ends_nothing(self) -> Self:
        if self.on_call is not None and self.on_call.until_shift_end:
            raise ValueError("on_call.until_shift_end: ends a grant, and a [[deny]] makes none: leave it out")
        return self


class GuardrailDeny(Deny):
    """`[[deny]]` in guardrails.toml: for the roles named, or for all."""

    roles: AtLeastOne[KnownRole] | None = None


class Guardrails(Table):
    """`guardrails.toml`: what holds for every role."""

    auditors: AtLeastOne[KnownGroup]
    revokers: AnyNumber[KnownGroup] = ()
    deny: AnyNumber[GuardrailDeny] = ()


class Reason(Table):
    """What a reason must look like; matched from its first character on."""

    pattern: ReasonPattern
    message: Line


Permit = Literal["pty", "port-forwarding", "agent-forwarding", "x11-forwarding", "user-rc"]


class Role(Table):
    """`roles/NAME.toml`: a named privilege and the rules of who may have it. Durations in seconds."""

    name: RoleName
    about: Line
    owner: KnownGroup
    review_by: date
    principals: Annotated[AtLeastOne[Principal], Field(max_length=MAX_PRINCIPALS)]
    max_duration: Duration
    default_duration: Duration
    default: bool = False
    reason: Reason | None = None
    force_command: Command | None = None
    permit: AnyNumber[Permit] = ("pty",)
    pin_source_address: bool = False
    certificate_duration: Duration | None = None
    pending_expiry: Duration | None = None
    auto_per_day: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_extensions: Annotated[int, Field(ge=0, le=1000)] | None = None
    allow: AtLeastOne[Allow]
    deny: AnyNumber[Deny] = ()
    example: Annotated[tuple[Example, ...], Strict(False)] = ()

    @property
    def waits_for(self) -> int:
        """How many seconds a request waits for approvals: `pending_expiry`, or 15 minutes for an on-call role, else 8 hours."""
        usual = 15 * 60 if any(block.on_call is not None for block in self.allow) else 8 * 3600
        return self.pending_expiry or usual

    @field_validator("default_duration")
    @classmethod
    def _within_the_maximum(cls, length: int, info: ValidationInfo) -> int:
        maximum = info.data.get("max_duration", length)
        if length > maximum:
            raise ValueError(f"{duration_text(length)} is more than max_duration, {duration_text(maximum)}")
        return length


# ----------------------------------------------------------------- the policy


@dataclass(frozen=True)
class Person:
    """Somebody who may sign statements."""

    name: str
    groups: tuple[str, ...]
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True)
class Account:
    """A principal as people think of it: an account on the hosts of a group."""

    account: str
    host_group: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """All policy files, checked against each other. Made by `load` only."""

    people: Mapping[str, Person]
    hosts: Mapping[str, HostGroup]
    guardrails: Guardrails
    roles: Mapping[str, Role]
    schedules: Mapping[str, Schedule]
    break_glass: BreakGlass | None  # what an emergency may bring, if anything
    _owners: Mapping[bytes, Person]
    _revoked: frozenset[str]
    _members: Mapping[str, frozenset[str]]

    def owner_of(self, key: PublicKey) -> Person | None:
        """The one person whose key this is."""
        return self._owners.get(key.blob)

    def is_revoked(self, key: PublicKey) -> bool:
        """Whether people.toml lists the key's fingerprint among `revoked_keys`."""
        return key.fingerprint in self._revoked

    def is_auditor(self, person: str) -> bool:
        """Whether the person may read all of the log."""
        return self._is_in(person, self.guardrails.auditors)

    def is_revoker(self, person: str) -> bool:
        """Whether the person may end other people's grants, and lock them out."""
        return self._is_in(person, self.guardrails.revokers)

    def _is_in(self, person: str, groups: tuple[str, ...]) -> bool:
        known = self.people.get(person)
        return known is not None and not set(known.groups).isdisjoint(groups)

    def emergency_people(self) -> tuple[str, ...]:
        """Who may be named in an emergency, by name."""
        if self.break_glass is None:
            return ()
        members = {name for group in self.break_glass.groups for name in self.members(group)}
        return tuple(sorted(members.union(self.break_glass.people)))

    def members(self, group: str) -> frozenset[str]:
        """The people of a group."""
        return self._members.get(group, frozenset())

    def of(self, persons: Iterable[Person]) -> "Policy":
        """The same rules for these people and nobody else."""
        people = {person.name: person for person in persons}
        owners = {key.blob: person for person in people.values() for key in person.keys}
        return replace(
            self,
            people=MappingProxyType(people),
            _owners=MappingProxyType(owners),
            _members=MappingProxyType(_members(people)),
        )

    def accounts(self, principals: tuple[str, ...]) -> tuple[Account, ...]:
        """What principals mean, for display; one of an earlier policy may be of a host group that is gone."""
        split = (principal.partition("@") for principal in principals)
        return tuple(
            Account(account, group, self.hosts[group].hosts if group in self.hosts else ()) for account, _, group in split
        )


# -------------------------------------------------------------------- loading

_REQUIRED: Final = ("people.toml", "hosts.toml", "guardrails.toml")
_SINGLE: Final = (*_REQUIRED, "oncall.toml", break_glass.NAME)
_Shape = TypeVar("_Shape", bound=Table)


def load(files: Mapping[str, bytes]) -> Policy:
    """The policy in `files`, by path relative to the policy directory (`people.toml`, `roles/web-admin.toml`).

    Raises `Misconfigured` with one line per problem, every file's problems at once.
    """
    loading = _Loading(files)
    people = loading.value(PeopleFile, "people.toml")
    hosts = loading.value(HostsFile, "hosts.toml")
    guardrails = loading.value(Guardrails, "guardrails.toml")
    on_call = loading.value(OnCallFile, "oncall.toml")
    emergency = loading.value(BreakGlass, break_glass.NAME)
    roles = {name: role for name in loading.role_names if (role := loading.value(Role, f"roles/{name}.toml")) is not None}
    if people is not None:
        loading.problems += _key_problems(people)
        loading.problems += _account_problems(people, roles)
    if people is None or hosts is None or guardrails is None or loading.problems:
        count = len(loading.problems)
        raise Misconfigured(
            f"the policy has {count} problem{'' if count == 1 else 's'}",
            "Nothing of it was loaded; ca/POLICY.md describes every file and key",
            tuple(loading.problems),
        )
    persons = {name: Person(name, table.groups, table.keys) for name, table in people.people.items()}
    return Policy(
        MappingProxyType(persons),
        MappingProxyType(hosts.groups),
        guardrails,
        MappingProxyType(roles),
        MappingProxyType(on_call.schedules if on_call else {}),
        emergency,
        MappingProxyType({key.blob: person for person in persons.values() for key in person.keys}),
        frozenset(people.revoked_keys),
        MappingProxyType(_members(persons)),
    )


def _members(persons: Mapping[str, Person]) -> dict[str, frozenset[str]]:
    found: dict[str, list[str]] = {}
    for person in persons.values():
        for group in person.groups:
            found.setdefault(group, []).append(person.name)
    return {group: frozenset(names) for group, names in found.items()}


class _Loading:
    """The files as TOML tables, the names they define, and the problems met so far."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.problems: list[str] = []
        self._tables: dict[str, dict[str, Any]] = {}
        self.role_names: list[str] = []
        for name in sorted(files):
            if _is_role(name):
                self.role_names.append(_role_name(name))
            elif name not in _SINGLE:
                if not _is_ignored(name):
                    self.problems.append(f"{shown(name)}: not a policy file; ca/POLICY.md lists their names")
                continue
            try:
                self._tables[name] = parse(files[name])
            except ValueError as error:
                self.problems.append(f"{shown(name)}: {error}")
        self.problems += [f"{name}: missing" for name in _REQUIRED if name not in files]
        self._known: Known = {
            "group": self._defined("people.toml", "groups"),
            "person": self._defined("people.toml", "people"),
            "host group": self._defined("hosts.toml", "groups"),
            "role": frozenset(self.role_names),
            "schedule": self._defined("oncall.toml", "schedules") if "oncall.toml" in files else frozenset(),
        }

    def _defined(self, name: str, key: str) -> frozenset[str] | None:
        if name not in self._tables:
            return None
        table = self._tables[name].get(key)
        return frozenset(table) if isinstance(table, dict) else frozenset()

    def value(self, shape: type[_Shape], name: str) -> _Shape | None:
        """The file as a value, or None and its problems noted."""
        if name not in self._tables:
            return None
        table = self._tables[name]
        if shape is Role:
            if "name" in table:
                self.problems.append(f"{shown(name)}: name: unknown key; a role is named by its file")
            table = table | {"name": _role_name(name)}
        value, problems = validate(shape, table, self._known)
        self.problems += [f"{shown(name)}: {problem}" for problem in problems]
        return value


def _role_name(name: str) -> str:
    return name.removeprefix("roles/").removesuffix(".toml")


def is_policy_file(name: str) -> bool:
    """Whether `load` reads it; what else lies in the directory decides nothing."""
    return name in _SINGLE or _is_role(name)


def _is_role(name: str) -> bool:
    return name.startswith("roles/") and name.endswith(".toml") and not _is_ignored(name)


def _is_ignored(name: str) -> bool:
    """Documents, and what editors and git hide in a directory."""
    steps = name.split("/")
    if any(step in {"", ".", ".."} for step in steps):
        return False
    return name.endswith(".md") or steps[-1].startswith("README") or any(step.startswith(".") for step in steps)


def _key_problems(people: PeopleFile) -> Iterator[str]:
    owners: dict[bytes, str] = {}
    revoked = frozenset(people.revoked_keys)
    for person, table in people.people.items():
        for at, key in enumerate(table.keys, start=1):
            where = f"people.toml: people.{person}.keys[{at}]"
            if owners.setdefault(key.blob, person) != person:
                yield f"{where}: {owners[key.blob]} has the same key; a key says who signs, so it is one person's"
            if key.fingerprint in revoked:
                yield f"{where}: {key.fingerprint} is in revoked_keys as well; remove it here"


def _account_problems(people: PeopleFile, roles: Mapping[str, Role]) -> Iterator[str]:
    """Where a person's own account, by `{person}@group`, is one that another principal names: two meanings of one account."""
    personal = {principal for role in roles.values() for principal in role.principals if principal.startswith("{person}@")}
    for role in roles.values():
        for at, principal in enumerate(role.principals, start=1):
            account, _, group = principal.partition("@")
            if account in people.people and f"{{person}}@{group}" in personal:
                yield f"roles/{role.name}.toml: principals[{at}]: {principal} is {account}'s own account by {{person}}@{group}"
