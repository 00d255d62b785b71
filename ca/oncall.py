"""Who is on call: the schedules of oncall.toml, and what one of them says about a person at a moment.

A source answers with slots: who is on call, at which level, from when until when. A slot says so for a moment of its own,
not for the one at which the source was asked, so that an answer of some minutes ago does not outlast a hand-over.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

from ca.fields import AtLeastOne, Duration, InOrder, KnownPerson, Line, MinuteOfDay, ScheduleName, Table, Zone, checked_name

HIGHEST: Final = 20
Level = Annotated[int, Field(ge=1, le=HIGHEST)]  # 1 is called first

STRANGER: Final = "somebody unknown here"  # with spaces, so that it is no person's name
_LEAST_AGE: Final = 30  # seconds; what is kept for less would mostly be too old
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


# --------------------------------------------------------------------- shifts


@dataclass(frozen=True)
class Slot:
    """Somebody is on call from `start` until before `end`, in Unix seconds; an `end` of None never comes."""

    person: str
    level: int
    start: int
    end: int | None

    def covers(self, moment: float) -> bool:
        """Whether `moment` (Unix seconds) is in it."""
        return self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True)
class Shift:
    """What a schedule says about one person.

    `level` is None for somebody who is not on call, `until` the shift's end in Unix seconds (None: it has none), `age` how many
    seconds ago `source` said so, and `on_call` everybody who is on call, with their levels.
    """

    schedule: str
    source: str
    level: int | None
    until: int | None
    age: int
    on_call: tuple[tuple[str, int], ...]


def shift(schedule: str, source: str, slots: Iterable[Slot], person: str, now: float, age: int) -> Shift:
    """What these slots say about `person` at `now` (Unix seconds). Somebody on several levels has the first of them."""
    slots = tuple(slots)
    current = sorted({(slot.level, slot.person) for slot in slots if slot.covers(now)})
    level = next((level for level, who in current if who == person), None)
    until = _end([slot for slot in slots if (slot.person, slot.level) == (person, level)], now)
    return Shift(schedule, source, level, until, age, tuple((who, level) for level, who in current))


def _end(slots: list[Slot], now: float) -> int | None:
    """When these slots are over: those that adjoin are one."""
    end: int | None = None
    following = [slot for slot in slots if slot.covers(now)]
    while following:
        if any(slot.end is None for slot in following):
            return None
        reached = end = max(slot.end for slot in following if slot.end is not None)
        following = [slot for slot in slots if slot.covers(reached)]
    return end


def kept(age: int | None, limit: int) -> str:
    """What a sentence about a source without an answer says of its last one: ` (cached 26 min ago, limit 15)`."""
    if age is None:
        return ""
    if age < 0:
        return " (cached before the clock went back)"
    unit, size = ("min", 60) if limit % 60 == 0 else ("s", 1)
    return f" (cached {age // size} {unit} ago, limit {limit // size})"


# -------------------------------------------------------------------- sources


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.hostname is not None and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not text.isascii() or " " in text or not is_address(text):
        raise ValueError("not the address of a web server, such as https://calendar.example.com/web.ics")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("http can be forged on its way: use https")
    return text


def is_address(text: str) -> bool:
    """Whether it is meant as the address of a web server, and not as a file."""
    return text.startswith(("https://", "http://"))


def _file_or_address(text: str) -> str:
    return _address(text) if "://" in text else text


def _absolute(command: tuple[str, ...]) -> tuple[str, ...]:
    if not posixpath.isabs(command[0]):
        raise ValueError("begins with the absolute path of an executable: which one a name finds depends on the environment")
    return command


Address = Annotated[Line, AfterValidator(_address)]
Id = Annotated[str, checked_name(re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII), "id", "PI7DH85")]


class PagerDuty(Table):
    """PagerDuty's REST API, https://developer.pagerduty.com/api-reference: `GET /oncalls`."""

    label: ClassVar = "PagerDuty"

    kind: Literal["pagerduty"]
    schedules: AtLeastOne[Id]
    escalation_policy: Id | None = None
    token_file: Line
    url: Address = "https://api.pagerduty.com"


class Calendar(Table):
    """Calendars (RFC 5545), one a level, whose events are shifts."""

    label: ClassVar = "the calendar"

    kind: Literal["ical"]
    calendars: AtLeastOne[Annotated[Line, AfterValidator(_file_or_address)]]
    person_in: Literal["summary", "attendee"] = "summary"
    zone: Zone


class Rota(Table):
    """A rota in the file itself: lists of people, one a level, who take turns."""

    label: ClassVar = "the rota"

    kind: Literal["static"]
    rotas: InOrder[Annotated[tuple[KnownPerson, ...], Strict(False)]]
    begins: date
    handover: MinuteOfDay
    zone: Zone
    days: Annotated[int, Field(ge=1, le=366)]

    def slots(self, now: float) -> tuple[Slot, ...]:
        """The turns around `now` (Unix seconds), and as many after it as a grant can see."""
        today = datetime.fromtimestamp(now, self.zone).date()
        turn = (today - self.begins).days // self.days
        turns = range(max(turn - 1, 0), turn + 3)
        return tuple(
            Slot(people[at % len(people)], level, self._begin(at), self._begin(at + 1))
            for level, people in enumerate(self.rotas, start=1)
            if people
            for at in turns
        )

    def _begin(self, turn: int) -> int:
        # On the wall clock. A time that is skipped in spring is as much later as is skipped; one that is repeated in autumn
        # is meant the first time.
        shown = datetime.combine(self.begins, time()) + timedelta(days=turn * self.days, minutes=self.handover)
        return int(shown.replace(tzinfo=self.zone).timestamp())


class Command(Table):
    """An executable that prints who is on call, as JSON."""

    label: ClassVar = "the command"

    kind: Literal["command"]
    run: Annotated[InOrder[Line], AfterValidator(_absolute)]


Source = Annotated[PagerDuty | Calendar | Rota | Command, Field(discriminator="kind")]


class Schedule(Table):
    """`[schedules.NAME]`: where to learn who is on call, best source first."""

    about: Line
    max_age: Duration = 900
    people: dict[Line, KnownPerson] = Field(default_factory=dict)
    sources: Annotated[InOrder[Source], Field(max_length=5)]

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {name.casefold(): person for name, person in self.people.items()}

    def person(self, *names: str) -> str:
        """Whom the first of these names that `people` has means, upper and lower case being the same; else `STRANGER`."""
        return next((self._folded[name] for each in names if (name := each.strip().casefold()) in self._folded), STRANGER)

    @field_validator("max_age")
    @classmethod
    def _worth_keeping(cls, length: int) -> int:
        if length < _LEAST_AGE:
            raise ValueError(f"at least {_LEAST_AGE}s: the sources are asked again three times within it")
        return length

    @model_validator(mode="after")
    def _all_can_speak(self) -> Self:
        if any(isinstance(source, Rota) for source in self.sources[:-1]):
            raise ValueError("sources: one of kind static never fails, so that none after it would be heard: put it last")
        return self

    @model_validator(mode="after")
    def _names_people(self) -> Self:
        if len(self._folded) < len(self.people):
            raise ValueError("people: two of the names differ in upper and lower case only")
        if not self.people and any(isinstance(source, PagerDuty | Calendar) for source in self.sources):
            raise ValueError("people: missing: say which person the source means by which address or name")
        return self


class OnCallFile(Table):
    """`oncall.toml`."""

    schedules: dict[ScheduleName, Schedule]
