"""The closed vocabulary of conditions: what a block of the policy may ask about a person and a moment.

A condition is one class: its TOML value, its one sentence, what it observes. To add one, write the class, give it a line in
`Conditions` and a paragraph in POLICY.md; the decision, the denial and the documents take their words from there.

A fact can be unknown, and then the finding's `holds` is `None`, which opens no door: an `[[allow]]` needs `True` from every
condition, a `[[deny]]` lets pass only on a `False`.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, RootModel, model_validator

from ca.fields import AtLeastOne, Cidr, KnownGroup, KnownPerson, KnownSchedule, MinuteOfDay, Table, Zone
from ca.findings import Finding
from ca.oncall import HIGHEST, Level, Shift

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_YEAR: Final = 366  # days
_WHENEVER: Final = datetime.fromtimestamp(0, UTC)
_ELSEWHERE: Final = ("203.0.113.1", "2001:db8::1", "0.0.0.0", "::")  # noqa: S104 - addresses that nobody listens on
_LISTED: Final = 6  # names shown of a longer list: a decision has to fit in an entry of the log


@dataclass(frozen=True)
class Facts:
    """What is known at the moment of deciding. `now` has a time zone; `address` is the client's, None behind a Unix socket."""

    person: str
    address: str | None
    hardware_key: bool
    now: datetime
    on_call: Mapping[str, Shift | str] = field(default_factory=dict)  # by schedule; a sentence where it is not known

    auto_granted: int = 0  # grants of this role to this person without approval in the last 24 hours
    extensions: int | None = None  # how often the grant that this request would extend was extended; None: it extends none
    asked_at: datetime | None = None  # when the request that is being decided again was made
    locked: Callable[[], frozenset[str]] = frozenset  # who is locked out, and approves nothing; looked up where it matters

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            raise ValueError("facts need a time with its zone")

    @cached_property
    def client(self) -> Address | None:
        """The address as a value: IPv4 in IPv6 unwrapped; None for what is no address or belongs to one link only."""
        try:
            address = ipaddress.ip_address(self.address or "")
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address):
            return None if address.scope_id else address.ipv4_mapped or address
        return address


def whenever(person: str) -> Facts:
    """Nothing but who it is: for conditions that look at no more."""
    return Facts(person, None, False, _WHENEVER)


def listed(words: tuple[str, ...]) -> str:
    """The first few words and how many more there are."""
    shown = ", ".join(words[:_LISTED])
    return f"{shown} and {len(words) - _LISTED} more" if len(words) > _LISTED else shown


Sample = Callable[[Facts], Facts]  # the facts with one of them changed


class Condition:
    """What every condition answers."""

    sentence: ClassVar[str]  # {} stands for the block's own value
    says_who: ClassVar[bool] = False  # an [[allow]] needs one that does, or it would let in everybody
    lasting: ClassVar[bool] = False  # whether it depends on people.toml alone, and not on the moment

    @property
    def fact(self) -> str:
        """What of the moment it looks at: two conditions of another fact never depend on each other."""
        return type(self).__name__

    def value_text(self) -> str:
        """The block's value, as its sentence shows it."""
        raise NotImplementedError

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool | None, str]:
        """Whether it holds for a person of these groups, and what was seen."""
        raise NotImplementedError

    def holds_until(self, facts: Facts, end: datetime) -> datetime:
        """The moment at which it stops to hold, or `end`; it holds at the facts' `now`."""
        del facts
        return end

    def samples(self, begin: datetime) -> Iterator[Sample]:
        """Values of its fact, the usual ones first, such that it changes at none in between; times are of a year from `begin`."""
        raise NotImplementedError


class Groups(RootModel[AtLeastOne[KnownGroup]], Condition, frozen=True, strict=True):
    """`groups = ["sre", "dba"]`"""

    sentence: ClassVar = "the person is in one of these groups: {}"
    says_who: ClassVar = True
    lasting: ClassVar = True

    def value_text(self) -> str:
        return listed(self.root)

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool, str]:
        return not set(groups).isdisjoint(self.root), f"{facts.person} is in {listed(groups) or 'no group'}"


class People(RootModel[AtLeastOne[KnownPerson]], Condition, frozen=True, strict=True):
    """`people = ["ana"]`"""

    sentence: ClassVar = "the person is one of these: {}"
    says_who: ClassVar = True
    lasting: ClassVar = True

    def value_text(self) -> str:
        return listed(self.root)

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool, str]:
        del groups
        return facts.person in self.root, f"the person is {facts.person}"


_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Hours(Table, Condition):
    """`hours = { days = ["mon"], from = "09:00", to = "17:00", zone = "Europe/Berlin" }`

    It holds whenever a wall clock in the zone shows a time from `from` on and before `to`, whatever summer time does to that
    clock. A window over midnight belongs to the day on which it begins.
    """

    sentence: ClassVar = "the time is within {}"

    zone: Zone
    from_: MinuteOfDay = Field(alias="from")
    to: MinuteOfDay
    days: AtLeastOne[Day] = _DAYS

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.from_ in (self.to, 24 * 60):
            raise ValueError('the window is empty; a whole day is from = "00:00", to = "24:00"')
        return self

    def value_text(self) -> str:
        days = " ".join(self.days) if self.days != _DAYS else "every day"
        return f"{days} {_clock(self.from_)}-{_clock(self.to)} {self.zone.key}"

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool, str]:
        del groups
        local = facts.now.astimezone(self.zone)
        return self._contains(facts.now), f"it is {_DAYS[local.weekday()]} {local:%H:%M} in {self.zone.key}"

    def holds_until(self, facts: Facts, end: datetime) -> datetime:
        # Step by step: a window, an adjoining one and a change of the clock all end on a step, for the offsets of time
        # zones, and the moments at which they change, are whole quarters of an hour.
        step = 60 * math.gcd(self.from_, self.to, 15)
        at = datetime.fromtimestamp(int(facts.now.timestamp()) // step * step + step, UTC)
        while at < end and self._contains(at):
            at += timedelta(seconds=step)
        return min(at, end)

    def samples(self, begin: datetime) -> Iterator[Sample]:
        yield _at(begin)
        today = begin.astimezone(self.zone).date()
        for day in (today + timedelta(days=after) for after in range(-1, _YEAR)):
            # It changes with the minute that the clock shows, or when somebody changes the clock: on a quarter of an hour.
            minutes = range(0, 24 * 60, 15) if self._is_changed_on(day) else ()
            for minute in (self.from_, self.to, *minutes):
                shown = datetime.combine(day, time(), self.zone) + timedelta(minutes=minute)
                yield from (_at(shown.replace(fold=fold).astimezone(UTC)) for fold in (0, 1))

    def _is_changed_on(self, day: date) -> bool:
        midnight = datetime.combine(day, time(), self.zone)
        return midnight.utcoffset() != (midnight + timedelta(days=1)).utcoffset()

    def _contains(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.from_ < self.to:
            return self.from_ <= minute < self.to and _DAYS[today] in self.days
        began = today if minute >= self.from_ else today - 1
        return (minute >= self.from_ or minute < self.to) and _DAYS[began] in self.days


def _at(moment: datetime) -> Sample:
    return lambda facts: replace(facts, now=moment)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


class Networks(RootModel[AtLeastOne[Cidr]], Condition, frozen=True, strict=True):
    """`networks = ["192.0.2.0/24"]`"""

    sentence: ClassVar = "the request comes from one of these networks: {}"

    def value_text(self) -> str:
        return listed(tuple(map(str, self.root)))

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool | None, str]:
        del groups
        if facts.client is None:
            return None, "the address it comes from is not known"
        return any(facts.client in network for network in self.root), f"it comes from {facts.client}"

    def samples(self, begin: datetime) -> Iterator[Sample]:
        del begin
        yield from map(_from, _ELSEWHERE)
        for network in self.root:  # whatever the networks of others: nothing changes but where one begins, or is over
            yield _from(str(network.network_address))
            if (after := int(network.broadcast_address) + 1) < 2**network.max_prefixlen:
                yield _from(str(type(network.network_address)(after)))
        yield _from(None)


def _from(address: str | None) -> Sample:
    return lambda facts: replace(facts, address=address)


class HardwareKey(RootModel[bool], Condition, frozen=True, strict=True):
    """`hardware_key = true`"""

    sentence: ClassVar = "the request {} signed with a security key"

    def value_text(self) -> str:
        return "is" if self.root else "is not"

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool, str]:
        del groups
        return facts.hardware_key == self.root, f"it is signed with {'a security' if facts.hardware_key else 'an ordinary'} key"

    def samples(self, begin: datetime) -> Iterator[Sample]:
        del begin
        yield lambda facts: replace(facts, hardware_key=False)
        yield lambda facts: replace(facts, hardware_key=True)


def shift_of(facts: Facts, schedule: str) -> Shift | str:
    """What is known of the person's shift, or in a sentence why nothing is."""
    shift = facts.on_call.get(schedule, f"unknown: schedule {schedule} was not looked at")
    if not isinstance(shift, str) and shift.until is not None and shift.until <= facts.now.timestamp():
        return f"unknown: the shift that {shift.source} told of has ended"
    return shift


class OnCall(Table, Condition):
    """`on_call = { schedule = "web", levels = [1, 2], until_shift_end = true }`

    With `until_shift_end` a grant under it ends with the shift.
    """

    sentence: ClassVar = "the person is level {}"
    says_who: ClassVar = True

    schedule: KnownSchedule
    levels: AtLeastOne[Level]
    until_shift_end: bool = False

    def value_text(self) -> str:
        return f"{' or '.join(map(str, self.levels))} on call on schedule {self.schedule}"

    def observe(self, facts: Facts, groups: tuple[str, ...]) -> tuple[bool | None, str]:
        del groups
        shift = shift_of(facts, self.schedule)
        if isinstance(shift, str):
            return None, shift
        is_what = "not on call" if shift.level is None else f"level {shift.level}"
        until = "" if shift.until is None else f" until {datetime.fromtimestamp(shift.until, UTC):%Y-%m-%d %H:%M} UTC"
        others = listed(tuple(f"{person} ({level})" for person, level in shift.on_call)) or "nobody"
        known = f"{facts.person} is {is_what}{until}; on call now: {others}; {shift.source} said so {shift.age} s ago"
        return shift.level in self.levels, known

    def holds_until(self, facts: Facts, end: datetime) -> datetime:
        shift = shift_of(facts, self.schedule)
        if not self.until_shift_end or isinstance(shift, str) or shift.until is None:
            return end
        return min(end, datetime.fromtimestamp(shift.until, UTC))

    @property
    def fact(self) -> str:
        return f"who is on call on schedule {self.schedule}"

    def samples(self, begin: datetime) -> Iterator[Sample]:
        del begin
        for level in (None, *range(1, HIGHEST + 1)):
            yield self._said(level)
        yield lambda facts: replace(facts, on_call={**facts.on_call, self.schedule: "unknown: no source answers"})

    def _said(self, level: int | None) -> Sample:
        def put(facts: Facts) -> Facts:
            shift = told_shift(self.schedule, "a source", facts.person, level)
            return replace(facts, on_call={**facts.on_call, self.schedule: shift})

        return put


def told_shift(schedule: str, source: str, person: str, level: int | None) -> Shift:
    """What somebody said about the person, as a schedule would: their level, or None for not on call."""
    return Shift(schedule, source, level, until=None, age=0, on_call=((person, level),) if level else ())


class Conditions(Table):
    """The conditions of one block, each at most once. All of them have to hold."""

    groups: Groups | None = None
    people: People | None = None
    hours: Hours | None = None
    networks: Networks | None = None
    hardware_key: HardwareKey | None = None
    on_call: OnCall | None = None

    @cached_property
    def given(self) -> tuple[tuple[str, str, Condition], ...]:
        """Name, filled sentence and value of each condition that the block has."""
        stated = ((name, getattr(self, name)) for name in Conditions.model_fields)
        return tuple((name, each.sentence.format(each.value_text()), each) for name, each in stated if each is not None)

    @cached_property
    def of_the_moment(self) -> tuple[tuple[str, Condition], ...]:
        """The sentence and value of each condition that depends on more than people.toml."""
        return tuple((sentence, each) for _, sentence, each in self.given if not each.lasting)

    @cached_property
    def _lasting(self) -> tuple[Condition, ...]:
        return tuple(each for _, _, each in self.given if each.lasting)

    @property
    def named(self) -> tuple[str, ...]:
        """The people whom it names."""
        return () if self.people is None else self.people.root

    def is_about(self, facts: Facts, groups: tuple[str, ...]) -> bool:
        """Whether all that people.toml decides holds of the person, so that the rest is up to the moment."""
        return all(each.observe(facts, groups)[0] for each in self._lasting)

    def findings(self, facts: Facts, groups: tuple[str, ...]) -> tuple[Finding, ...]:
        """Every condition of the block, as found."""
        found = []
        for name, sentence, condition in self.given:
            holds, observed = condition.observe(facts, groups)
            found.append(Finding(name, sentence, observed, holds))
        return tuple(found)

    def hold_until(self, facts: Facts, end: datetime) -> datetime:
        """The moment at which the first of them stops to hold, or `end`; all hold at the facts' `now`."""
        return min((condition.holds_until(facts, end) for _, _, condition in self.given), default=end)
