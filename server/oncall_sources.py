"""Asking a source who is on call: PagerDuty, calendars, a command. What owns the answers is `server.oncall`.

A source is asked within `SECONDS` in all and believed only in full: whatever is late, cut, too large or not of its format is
`NoAnswer`, whose message is shown to people and written to the log. It never has a token, an address or what the source said.
"""

import os
import signal
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ca.fields import MAX_DURATION, PersonName, Table
from ca.oncall import Calendar, Command, Level, PagerDuty, Schedule, Slot, is_address
from server.deadlines import stopped_at

if TYPE_CHECKING:
    from icalendar import Component

SECONDS: Final = 3.0  # for one source, all its pages or calendars together
LARGEST: Final = 1024 * 1024  # bytes of one answer
MOST_SLOTS: Final = 200  # a decision that shows everybody on call has to fit in an entry of the log
_LATEST: Final = 253_370_764_800  # Unix seconds: the year 9999, after which a time cannot be shown
_PAGE: Final = 100  # on-calls a page; PagerDuty gives no more
_MOST_PAGES: Final = 10
_AHEAD: Final = MAX_DURATION  # seconds; no grant outlasts what is learnt in advance
_LONGEST_TOKEN: Final = 200
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class NoAnswer(Exception):
    """The source did not say who is on call. The message is a predicate: `did not answer`."""


def ask(schedule: Schedule, source: PagerDuty | Calendar | Command, directory: Path, now: float) -> tuple[Slot, ...]:
    """Who is on call at `now` (Unix seconds) and in the day after, by a source of the schedule whose paths begin at `directory`.

    Raises `NoAnswer`, after at most `SECONDS` and the time it takes to look a name up.
    """
    deadline = time.monotonic() + SECONDS
    match source:
        case PagerDuty():
            slots = _pagerduty(schedule, source, directory, now, deadline)
        case Calendar():
            slots = _calendars(schedule, source, directory, now, deadline)
        case Command():
            slots = _command(source, now, deadline)
    distinct = tuple(sorted(set(slots), key=lambda slot: (slot.start, slot.level, slot.person)))
    if len(distinct) > MOST_SLOTS:
        raise NoAnswer(f"named more than {MOST_SLOTS} shifts")
    if any(slot.end is not None and slot.end > _LATEST for slot in distinct):
        raise NoAnswer("named a shift whose end no calendar has")
    return distinct


# ------------------------------------------------------------------ PagerDuty


class _Reference(BaseModel):
    id: str


class _User(_Reference):
    email: str | None = None


class _OnCall(BaseModel):
    user: _User
    schedule: _Reference
    escalation_policy: _Reference
    escalation_level: Annotated[int, Field(ge=1, strict=True)]
    start: AwareDatetime | None
    end: AwareDatetime | None


class _Page(BaseModel):
    oncalls: list[_OnCall]
    more: Annotated[bool, Field(strict=True)]


def _pagerduty(schedule: Schedule, source: PagerDuty, directory: Path, now: float, deadline: float) -> Iterator[Slot]:
    headers = {
        "Authorization": f"Token token={_token(directory / source.token_file)}",
        "Accept": "application/vnd.pagerduty+json;version=2",
    }
    since, until = (datetime.fromtimestamp(int(now) + ahead, UTC).isoformat() for ahead in (0, _AHEAD))
    asked = [("schedule_ids[]", each) for each in source.schedules]
    asked += [("escalation_policy_ids[]", source.escalation_policy)] if source.escalation_policy else []
    asked += [("include[]", "users"), ("since", since), ("until", until), ("limit", str(_PAGE))]
    for number in range(_MOST_PAGES):
        query = urlencode([*asked, ("offset", str(number * _PAGE))])
        page = _page(_get(f"{source.url.rstrip('/')}/oncalls?{query}", headers, deadline))
        for each in page.oncalls:
            yield _slot(schedule, source, each)
        if not page.more:
            return
    raise NoAnswer(f"answered more than {_MOST_PAGES} pages")


def _page(body: bytes) -> _Page:
    try:
        return _Page.model_validate_json(body)
    except ValidationError:
        raise NoAnswer("answered something else than on-calls") from None


def _slot(schedule: Schedule, source: PagerDuty, each: _OnCall) -> Slot:
    # A filter that was misunderstood would make everybody of the company on call.
    if each.schedule.id not in source.schedules or source.escalation_policy not in (None, each.escalation_policy.id):
        raise NoAnswer("answered about another schedule")
    person = schedule.person(each.user.id, each.user.email or "")
    begin = 0 if each.start is None else int(each.start.timestamp())
    return Slot(person, each.escalation_level, begin, None if each.end is None else int(each.end.timestamp()))


def _token(path: Path) -> str:
    try:
        token = _read(path, secret=True).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token.isprintable() or not 0 < len(token) <= _LONGEST_TOKEN or " " in token:
        raise NoAnswer("was not asked: its token file holds no token")
    return token


# ------------------------------------------------------------------ calendars


def _calendars(schedule: Schedule, source: Calendar, directory: Path, now: float, deadline: float) -> Iterator[Slot]:
    for level, place in enumerate(source.calendars, start=1):
        content = _get(place, {"Accept": "text/calendar"}, deadline) if is_address(place) else _read(directory / place)
        for start, end, event in events(content, source.zone, now):
            for name in _names(event, source.person_in):
                yield Slot(schedule.person(name), level, start, end)


def events(content: bytes, zone: ZoneInfo, now: float) -> list[tuple[int, int, "Component"]]:
    """The events of a calendar in the day after `now`: start, end (Unix seconds) and the event, expanded.

    `zone` is that of days and of times that have none. Raises `NoAnswer`.
    """
    import icalendar  # noqa: PLC0415  # these two and what they need take as long to import as all of the server
    import recurring_ical_events  # type: ignore[import-untyped]  # noqa: PLC0415

    begin = datetime.fromtimestamp(now, UTC)
    try:
        calendar = icalendar.Calendar.from_ical(content)
        _refuse_unsure(calendar)
        around = (begin - timedelta(days=1), begin + timedelta(days=1, seconds=_AHEAD))  # for times without a zone
        expanded = recurring_ical_events.of(calendar).between(*around)
        spans = [(_moment(each.start, zone), _moment(each.end, zone), each) for each in expanded if not _cancelled(each)]
    except NoAnswer:
        raise
    except Exception as error:  # whatever the libraries raise over a file that comes from anywhere
        raise NoAnswer("answered something else than a calendar that can be read") from error
    return [span for span in spans if span[0] < now + _AHEAD and span[1] > now]


def _refuse_unsure(calendar: "Component") -> None:
    """What the libraries would leave out, take as local time, or expand for ever."""
    if calendar.name != "VCALENDAR":
        raise NoAnswer("answered something else than a calendar")
    for component in calendar.walk():
        if component.errors:
            raise NoAnswer(f"answered a calendar with an error in {component.name}")
        for name in ("DTSTART", "DTEND"):
            when = component.get(name)
            if component.name == "VEVENT" and "TZID" in getattr(when, "params", ()) and getattr(when.dt, "tzinfo", True) is None:
                raise NoAnswer("answered a calendar with an unknown time zone")
        for name in ("RRULE", "EXRULE"):
            rules = component.get(name, [])
            for rule in rules if isinstance(rules, list) else [rules]:
                _refuse_endless(rule)


def _refuse_endless(rule: Mapping[str, list[object]]) -> None:
    often = [str(word).upper() for word in rule.get("FREQ", [])]
    if not set(often) <= {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"} or not often:
        raise NoAnswer("answered a calendar with a rule that repeats more often than daily")
    if any(len(rule.get(part, [])) > 1 for part in ("BYHOUR", "BYMINUTE", "BYSECOND")):
        raise NoAnswer("answered a calendar with a rule that repeats within a day")
    if any(not isinstance(interval, int) or interval < 1 for interval in rule.get("INTERVAL", [])):
        raise NoAnswer("answered a calendar with a rule that goes nowhere")


def _moment(shown: date | datetime, zone: ZoneInfo) -> int:
    if not isinstance(shown, datetime):
        shown = datetime(shown.year, shown.month, shown.day, tzinfo=zone)
    return int((shown if shown.tzinfo else shown.replace(tzinfo=zone)).timestamp())


def _cancelled(event: "Component") -> bool:
    return str(event.get("STATUS", "")).upper() == "CANCELLED"


def _names(event: "Component", person_in: str) -> list[str]:
    if person_in == "summary":
        return [str(event.get("SUMMARY", ""))]
    attendees = event.get("ATTENDEE", [])
    addresses = attendees if isinstance(attendees, list) else [attendees]
    return [str(address).partition(":")[2] for address in addresses]


# ------------------------------------------------------------------- commands


class _Told(Table):
    person: PersonName
    level: Level
    until: int | None = None


_Printed: Final = TypeAdapter(list[_Told], config=ConfigDict(strict=True))


def _command(source: Command, now: float, deadline: float) -> Iterator[Slot]:
    _trusted(Path(source.run[0]))
    try:
        process = subprocess.Popen(
            source.run, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd="/", env=_ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NoAnswer(f"cannot be run: {error.strerror}") from None
    with process, stopped_at(deadline, lambda: os.killpg(process.pid, signal.SIGKILL)):
        printed = process.stdout.read(LARGEST + 1) if process.stdout else b""
        if len(printed) > LARGEST:
            os.killpg(process.pid, signal.SIGKILL)
            raise NoAnswer(f"printed more than {LARGEST} bytes")
        code = process.wait()
    if time.monotonic() >= deadline:
        raise NoAnswer("did not finish in time")
    if code != 0:
        raise NoAnswer(f"failed with exit code {code}")
    try:
        told = _Printed.validate_json(printed)
    except ValidationError:
        raise NoAnswer("printed something else than a list of shifts") from None
    return (Slot(each.person, each.level, int(now), each.until) for each in told)


# ----------------------------------------------------------- files and network


def _read(path: Path, *, secret: bool = False) -> bytes:
    _trusted(path, secret=secret)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise NoAnswer(f"was not asked: a file of it cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise NoAnswer(f"has more than {LARGEST} bytes")
    return content


def _trusted(path: Path, *, secret: bool = False) -> None:
    """Refuses what others could have written, and a secret that others can read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise NoAnswer(f"was not asked: a file of it cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode) or mode & (stat.S_IWOTH | (stat.S_IROTH if secret else 0)):
        raise NoAnswer("was not asked: a file of it can be read or written by everybody, or is no file")


def _get(url: str, headers: Mapping[str, str], deadline: float) -> bytes:
    """The body of the answer. No redirect is followed: a token is for the server that the policy names."""
    parts, left = urlsplit(url), deadline - time.monotonic()
    if left <= 0:
        raise NoAnswer("did not answer in time")
    connection = (
        HTTPSConnection(parts.hostname or "", parts.port, timeout=left, context=ssl.create_default_context())
        if parts.scheme == "https"
        else HTTPConnection(parts.hostname or "", parts.port, timeout=left)
    )
    try:
        connection.connect()
        socket = connection.sock  # the connection forgets it while an answer is read to the end
        with stopped_at(deadline, lambda: socket.shutdown(SHUT_RDWR)):
            connection.request("GET", url.removeprefix(f"{parts.scheme}://{parts.netloc}") or "/", headers=dict(headers))
            with connection.getresponse() as answer:
                if answer.status != 200:
                    raise NoAnswer(f"answered {answer.status}")
                body = answer.read(LARGEST + 1)
                cut = bool(answer.length)
    except (OSError, HTTPException):
        raise NoAnswer("did not answer") from None
    finally:
        connection.close()
    if len(body) > LARGEST:
        raise NoAnswer(f"answered more than {LARGEST} bytes")
    if cut or time.monotonic() >= deadline:
        raise NoAnswer("did not answer in full")
    return body
