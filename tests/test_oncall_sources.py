"""The sources of on-call facts: PagerDuty, calendars, commands, what keeps their answers, and how each of them fails."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import pytest
import recurring_ical_events  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.oncall import STRANGER, Schedule, Shift, Slot
from server import oncall, oncall_sources
from server.oncall import OnCall
from server.oncall_sources import LARGEST, MOST_SLOTS, NoAnswer, ask, events
from tests import pager
from tests.pager import TOKEN, Server, on_call, say
from tests.test_serving import certificate

NOW = 1_800_000_000
HOUR = 3600
FEBRUARY = int(datetime(2027, 2, 1, 9, tzinfo=UTC).timestamp())  # the end of the last turn that the rota looks at
PEOPLE = {"ana@example.com": "ana", "PBO": "bo", "Eve E.": "eve"}
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def web() -> Iterator[Server]:
    with pager.serving() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source has less than a second."""
    for module in (oncall, oncall_sources):
        monkeypatch.setattr(module, "SECONDS", 0.4)


def schedule(*sources: dict[str, Any], **changes: Any) -> Schedule:
    return Schedule.model_validate({"about": "Web", "people": PEOPLE, "sources": list(sources), **changes})


def pagerduty(web: Server, **changes: Any) -> dict[str, Any]:
    return {"kind": "pagerduty", "schedules": ["PI7DH85"], "token_file": "token", "url": web.url, **changes}


def calendar(*calendars: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "ical", "calendars": list(calendars), "zone": "Europe/Berlin", **changes}


ROTA = {
    "kind": "static", "rotas": [["rita"]], "begins": datetime(2027, 1, 4, tzinfo=UTC).date(), "handover": "09:00",
    "zone": "UTC", "days": 7,
}  # fmt: skip


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A CA's directory with a token."""
    write(tmp_path / "token", TOKEN + "\n")
    return tmp_path


def asked(source: dict[str, Any], home: Path, now: float = NOW) -> tuple[Slot, ...]:
    whole = schedule(source)
    return ask(whole, whole.sources[0], home, now)  # type: ignore[arg-type]  # no rota is asked here


def refusal(source: dict[str, Any], home: Path) -> str:
    """Why there is no answer; never with what is secret."""
    with pytest.raises(NoAnswer) as caught:
        asked(source, home)
    assert TOKEN not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ PagerDuty


def test_pagerduty_says_who_is_on_call_at_which_level_until_when(web: Server, home: Path) -> None:
    web.oncalls = [
        on_call("ana", 1, NOW - HOUR, NOW + HOUR),
        on_call("bo", 1, NOW + HOUR, NOW + 9 * HOUR),
        on_call("eve", 3),
        on_call("ana", 1, NOW - 9 * HOUR, NOW - HOUR),
        on_call("ana", 2, schedule="POTHER"),
    ]
    assert asked(pagerduty(web), home) == (
        Slot(STRANGER, 3, 0, None),
        Slot("ana", 1, NOW - HOUR, NOW + HOUR),
        Slot("bo", 1, NOW + HOUR, NOW + 9 * HOUR),
    )


def test_pagerduty_is_asked_as_its_reference_says(web: Server, home: Path) -> None:
    asked(pagerduty(web, escalation_policy="PT20YPA"), home)
    [(path, headers)] = web.asked
    assert path == (
        "/oncalls?schedule_ids%5B%5D=PI7DH85&escalation_policy_ids%5B%5D=PT20YPA&include%5B%5D=users"
        "&since=2027-01-15T08%3A00%3A00%2B00%3A00&until=2027-01-16T08%3A00%3A00%2B00%3A00&limit=100&offset=0"
    )
    assert (headers["authorization"], headers["accept"]) == (f"Token token={TOKEN}", "application/vnd.pagerduty+json;version=2")


def test_one_escalation_policy_can_say_whose_levels_count(web: Server, home: Path) -> None:
    web.oncalls = [on_call("ana", 1, policy="POTHER"), on_call("ana", 3)]
    assert [slot.level for slot in asked(pagerduty(web, escalation_policy="PT20YPA"), home)] == [3]
    assert [slot.level for slot in asked(pagerduty(web), home)] == [1, 3]


def test_every_page_is_read(web: Server, home: Path) -> None:
    web.oncalls = [on_call("eve", 1, NOW, NOW + 60 + at) for at in range(150)] + [on_call("ana", 2, NOW, NOW + 60)]
    assert len(asked(pagerduty(web), home)) == 151
    assert len(web.asked) == 2
    assert asked(pagerduty(web), home)[-1].person == "ana"


def test_more_than_fits_in_a_decision_is_no_answer(web: Server, home: Path) -> None:
    web.oncalls = [on_call("eve", 1, NOW, NOW + 60 + at) for at in range(MOST_SLOTS + 1)]
    assert refusal(pagerduty(web), home) == "named more than 200 shifts"
    web.answer = lambda request: say(request, 200, {"oncalls": [], "more": True})
    assert refusal(pagerduty(web), home) == "answered more than 10 pages"


def test_a_wrong_token_is_no_answer(web: Server, home: Path) -> None:
    write(home / "token", "another\n")
    assert refusal(pagerduty(web), home) == "answered 401"


@pytest.mark.parametrize("status", [429, 500, 503, 404, 204])
def test_a_status_of_failure_is_no_answer(web: Server, home: Path, status: int) -> None:
    web.answer = lambda request: say(request, status, {"oncalls": [], "more": False})
    assert refusal(pagerduty(web), home) == f"answered {status}"


ENTRY = on_call("ana", 1, NOW, NOW + HOUR)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"oncalls": [], "more": "no"}', b'{"oncalls": []}',
        b'{"oncalls": {}, "more": false}', b'{"oncalls": [{}], "more": false}', b'{"oncalls": [], "more": false',
        *(
            json.dumps({"oncalls": [ENTRY | wrong], "more": False}).encode()
            for wrong in (
                {"user": None}, {"user": {"id": 7}}, {"schedule": None}, {"escalation_level": "1"}, {"escalation_level": 0},
                {"escalation_level": None}, {"escalation_level": True}, {"start": "soon"}, {"end": "2027-01-15T09:00:00"},
                {"escalation_policy": None},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_not_on_calls_is_no_answer(web: Server, home: Path, body: bytes) -> None:
    web.answer = lambda request: say(request, 200, {"oncalls": [ENTRY], "more": False})
    assert asked(pagerduty(web), home)
    web.answer = lambda request: say(request, 200, body)
    assert refusal(pagerduty(web), home) == "answered something else than on-calls"


@pytest.mark.parametrize("other", [on_call("ana", 1, schedule="POTHER"), on_call("ana", 1, policy="POTHER")])
def test_an_answer_about_another_schedule_makes_nobody_on_call(web: Server, home: Path, other: dict[str, Any]) -> None:
    web.answer = lambda request: say(request, 200, {"oncalls": [ENTRY, other], "more": False})
    assert refusal(pagerduty(web, escalation_policy="PT20YPA"), home) == "answered about another schedule"


def drip(request: BaseHTTPRequestHandler, web: Server, first: bytes) -> None:
    """A byte now and then, for ever."""
    request.wfile.write(first)
    while not web.released.wait(0.02):
        request.wfile.write(b" ")


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nX-Wait:",
        b'HTTP/1.1 200 OK\r\n\r\n{"oncalls": [], "more": false}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"oncalls": [], "more": false}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n{",
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_slow_answer_is_none_however_alive_it_looks(web: Server, home: Path, first: bytes) -> None:
    web.answer = lambda request: drip(request, web, first)
    begun = time.monotonic()
    assert refusal(pagerduty(web), home).startswith("did not answer")
    assert time.monotonic() - begun < 2


@pytest.mark.usefixtures("impatient")
def test_a_server_that_says_nothing_is_no_answer(web: Server, home: Path) -> None:
    web.answer = lambda _: web.released.wait()
    assert refusal(pagerduty(web), home) == "did not answer"


def test_a_server_that_is_not_there_is_no_answer(home: Path) -> None:
    with pager.serving() as gone:
        pass
    assert refusal(pagerduty(gone), home) == "did not answer"


@pytest.mark.parametrize("said", [b"", b"\0\0\0", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"SSH-2.0-x\r\n"])
def test_an_answer_that_is_cut_or_not_http_is_none(web: Server, home: Path, said: bytes) -> None:
    web.answer = lambda request: request.wfile.write(said)
    assert refusal(pagerduty(web), home).startswith("did not answer")


def test_a_huge_answer_is_none(web: Server, home: Path) -> None:
    web.answer = lambda request: say(request, 200, b" " * (LARGEST + 1))
    assert refusal(pagerduty(web), home) == "answered more than 1048576 bytes"


def test_the_token_follows_no_redirect(web: Server, home: Path) -> None:
    with pager.serving() as elsewhere:
        web.answer = lambda request: say(request, 302, b"", Location=f"{elsewhere.url}/oncalls")
        assert refusal(pagerduty(web), home) == "answered 302"
        assert elsewhere.asked == []


def test_a_server_that_cannot_prove_its_name_never_sees_the_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = certificate(home, "pager")
    with pager.serving(tls=files) as secret:
        assert refusal(pagerduty(secret), home) == "did not answer"
        assert secret.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", files[0])
        assert asked(pagerduty(secret), home) == ()
        monkeypatch.setenv("SSL_CERT_FILE", certificate(home, "other")[0])
        assert refusal(pagerduty(secret), home) == "did not answer"
        assert len(secret.asked) == 1


@pytest.mark.parametrize(
    ("text", "mode"), [("", 0o600), ("a b", 0o600), ("a\nb", 0o600), ("é", 0o600), (TOKEN, 0o644), (TOKEN, 0o602)]
)
def test_a_token_is_one_word_that_only_the_ca_reads(web: Server, home: Path, text: str, mode: int) -> None:
    write(home / "token", text, mode)
    assert refusal(pagerduty(web), home).startswith("was not asked")
    (home / "token").unlink()
    assert refusal(pagerduty(web), home).startswith("was not asked")
    (home / "token").mkdir()
    assert refusal(pagerduty(web), home).startswith("was not asked")
    assert web.asked == []


# ------------------------------------------------------------------ calendars


def ics(*lines: str) -> str:
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//rota//EN", *lines, "END:VCALENDAR", ""])


def event(summary: str, start: str, end: str, *lines: str, uid: str = "1") -> str:
    return "\r\n".join(
        ["BEGIN:VEVENT", f"UID:{uid}", "DTSTAMP:20270101T000000Z", f"SUMMARY:{summary}", f"DTSTART{start}", f"DTEND{end}", *lines,
         "END:VEVENT"]
    )  # fmt: skip


NIGHT = event("ana@example.com", ":20270115T070000Z", ":20270115T090000Z")  # around NOW


def test_each_calendar_is_a_level_and_an_event_a_shift(web: Server, home: Path) -> None:
    write(home / "one.ics", ics(NIGHT))
    later = event("eve e.", ":20270115T100000Z", ":20270115T120000Z", uid="2")
    two = ics(event("Somebody", ":20270115T070000Z", ":20270115T090000Z"), later)
    web.answer = lambda request: say(request, 200, two.encode())
    assert asked(calendar("one.ics", f"{web.url}/two.ics?key=1"), home) == (
        Slot("ana", 1, NOW - HOUR, NOW + HOUR),
        Slot(STRANGER, 2, NOW - HOUR, NOW + HOUR),
        Slot("eve", 2, NOW + 2 * HOUR, NOW + 4 * HOUR),
    )
    assert web.asked[0][0] == "/two.ics?key=1"
    assert "authorization" not in web.asked[0][1]


def test_attendees_are_the_people_only_when_the_policy_says_so(home: Path) -> None:
    both = ["ATTENDEE;CN=Ana:mailto:ANA@example.com", "ATTENDEE:MAILTO:nobody@example.com"]
    write(home / "one.ics", ics(event("Eve E.", ":20270115T070000Z", ":20270115T090000Z", *both)))
    assert {slot.person for slot in asked(calendar("one.ics"), home)} == {"eve"}
    assert {slot.person for slot in asked(calendar("one.ics", person_in="attendee"), home)} == {"ana", STRANGER}


def test_days_and_times_without_a_zone_are_those_of_the_source(home: Path) -> None:
    day = event("Eve E.", ";VALUE=DATE:20270115", ";VALUE=DATE:20270116")
    floating = event("ana@example.com", ":20270115T083000", ":20270115T093000", uid="2")
    write(home / "one.ics", ics(day, floating))
    assert asked(calendar("one.ics"), home) == (
        Slot("eve", 1, NOW - 9 * HOUR, NOW + 15 * HOUR),
        Slot("ana", 1, NOW - HOUR // 2, NOW + HOUR // 2),
    )
    assert asked(calendar("one.ics", zone="America/New_York"), home)[0].start == NOW - 3 * HOUR


def test_a_calendar_with_nobody_on_call_is_an_answer(home: Path) -> None:
    cancelled = event("ana@example.com", ":20270115T070000Z", ":20270115T090000Z", "STATUS:CANCELLED")
    write(home / "one.ics", ics(cancelled))
    assert asked(calendar("one.ics"), home) == ()
    write(home / "one.ics", ics())
    assert asked(calendar("one.ics"), home) == ()


WEEKLY = event("ana", ";TZID=Europe/Berlin:20270104T090000", ";TZID=Europe/Berlin:20270111T090000",
               "RRULE:FREQ=WEEKLY;INTERVAL=2")  # fmt: skip
OTHER = event("bo", ";TZID=Europe/Berlin:20270111T090000", ";TZID=Europe/Berlin:20270118T090000",
              "RRULE:FREQ=WEEKLY;INTERVAL=2", "EXDATE;TZID=Europe/Berlin:20270208T090000", uid="2")  # fmt: skip
OVERRIDE = event("eve", ";TZID=Europe/Berlin:20270201T090000", ";TZID=Europe/Berlin:20270205T180000",
                 "RECURRENCE-ID;TZID=Europe/Berlin:20270201T090000")  # fmt: skip
SWAP = event("bo", ";TZID=Europe/Berlin:20270329T120000", ";TZID=Europe/Berlin:20270402T090000",
             "RECURRENCE-ID;TZID=Europe/Berlin:20270329T090000")  # fmt: skip
DAILY = event("carl", ";TZID=America/New_York:20270101T180000", ";TZID=America/New_York:20270102T060000",
              "RRULE:FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR", uid="3")  # fmt: skip
OFF = event("dora", ";VALUE=DATE:20270327", ";VALUE=DATE:20270330", uid="4")
ROTAS = [
    ics(WEEKLY), ics(WEEKLY, OTHER), ics(WEEKLY, OTHER, OVERRIDE, SWAP), ics(DAILY), ics(OFF, DAILY, WEEKLY, OVERRIDE, OTHER),
]  # fmt: skip


@pytest.mark.parametrize("rota", ROTAS)
@given(minute=st.integers(0, 366 * 24 * 60))
@settings(max_examples=40, deadline=None)
def test_who_is_on_call_is_what_the_library_expands(rota: str, minute: int) -> None:
    moment = datetime(2026, 12, 30, tzinfo=UTC) + timedelta(minutes=minute)
    now = moment.timestamp()
    ours = {str(each["SUMMARY"]) for start, end, each in events(rota.encode(), BERLIN, now) if start <= now < end}
    around = recurring_ical_events.of(icalendar.Calendar.from_ical(rota)).between(moment - timedelta(9), moment + timedelta(9))
    assert ours == {str(each["SUMMARY"]) for each in around if _aware(each.start) <= moment < _aware(each.end)}


def _aware(shown: Any) -> datetime:
    return shown if isinstance(shown, datetime) else datetime(shown.year, shown.month, shown.day, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2027-03-28T00:59+01:00", {"bo"}),  # the night in which summer time begins
        ("2027-03-29T08:59+02:00", {"bo"}),  # the hand-over stays at nine
        ("2027-03-29T09:00+02:00", set()),  # the override begins later …
        ("2027-03-29T12:00+02:00", {"bo"}),
        ("2027-04-02T09:00+02:00", set()),  # … and ends earlier
        ("2027-02-01T09:00+01:00", {"eve"}),
        ("2027-02-05T18:00+01:00", set()),
        ("2027-02-08T09:00+01:00", set()),  # EXDATE: nobody that week
        ("2027-11-01T08:59+01:00", {"ana"}),
        ("2027-11-01T09:00+01:00", {"bo"}),
    ],
)
def test_overrides_and_summer_time_are_as_people_mean_them(moment: str, expected: set[str]) -> None:
    now = datetime.fromisoformat(moment).timestamp()
    found = events(ics(WEEKLY, OTHER, OVERRIDE, SWAP).encode(), BERLIN, now)
    assert {str(each["SUMMARY"]) for start, end, each in found if start <= now < end} == expected


def ruled(rule: str, name: str = "RRULE") -> str:
    return ics(event("ana@example.com", ":20270115T070000Z", ":20270115T070001Z", f"{name}:{rule}"))


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=SECONDLY", "freq=secondly", "FREQ=MINUTELY", "FREQ=HOURLY;COUNT=2", "FREQ=DAILY;BYSECOND=0,1",
        "FREQ=DAILY;BYMINUTE=1,2", "FREQ=YEARLY;BYHOUR=1,2", "INTERVAL=2", "FREQ=SOMETIMES",
        "FREQ=DAILY,SECONDLY", "FREQ=DAILY;FREQ=SECONDLY", "",
        "FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;INTERVAL=-1", "FREQ=DAILY;UNTIL=never",
    ],
)  # fmt: skip
def test_a_rule_that_repeats_within_a_day_is_refused_before_it_is_expanded(home: Path, rule: str) -> None:
    write(home / "one.ics", ruled("FREQ=DAILY;BYHOUR=7"))
    assert asked(calendar("one.ics"), home)
    begun = time.monotonic()
    for name in ("RRULE", "EXRULE"):
        write(home / "one.ics", ruled(rule, name))
        assert refusal(calendar("one.ics"), home).startswith("answered")
    assert time.monotonic() - begun < 2


def test_a_rule_hidden_among_others_or_in_a_zone_is_found(home: Path) -> None:
    twice = event("ana", ":20270115T070000Z", ":20270115T080000Z", "RRULE:FREQ=DAILY", "RRULE:FREQ=SECONDLY")
    zone = (
        "BEGIN:VTIMEZONE\r\nTZID:Mine\r\nBEGIN:STANDARD\r\nDTSTART:19700101T000000\r\nTZOFFSETFROM:+0100\r\nTZOFFSETTO:+0100\r\n"
        "RRULE:FREQ=SECONDLY\r\nEND:STANDARD\r\nEND:VTIMEZONE"
    )
    for text in (ics(twice), ics(zone, event("ana", ";TZID=Mine:20270115T070000", ";TZID=Mine:20270115T080000"))):
        write(home / "one.ics", text)
        assert refusal(calendar("one.ics"), home) == "answered a calendar with a rule that repeats more often than daily"


@pytest.mark.parametrize(
    "text",
    [
        "", "BEGIN:VCALENDAR\r\n", ics(NIGHT)[:-20], ics(NIGHT)[20:], ics(NIGHT) * 2, NIGHT, "<html>", '{"a": 1}',
        ics(NIGHT.replace("DTSTART:2027", "DTSTART:2O27")), ics(NIGHT.replace("DTEND:20270115", "DTEND:20270155")),
        ics(NIGHT.replace("DTSTART:", "DTSTART;TZID=Nowhere/Land:").replace("00Z", "00")),
        ics(NIGHT.replace("END:VEVENT", "EXDATE:yesterday\r\nEND:VEVENT")),
        ics(NIGHT.replace("DTSTART:20270115T070000Z\r\n", "")),
        ics(NIGHT.replace("DTEND:20270115T090000Z", "DTEND:20270114T090000Z\r\nRRULE:FREQ=DAILY")).replace("DTSTAMP", "DTSTART"),
    ],
)  # fmt: skip
def test_a_calendar_that_cannot_be_read_as_a_whole_is_no_answer(home: Path, text: str) -> None:
    write(home / "one.ics", ics(NIGHT))
    assert asked(calendar("one.ics"), home)
    write(home / "two.ics", text)
    assert refusal(calendar("one.ics", "two.ics"), home).startswith("answered")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_calendar_is_events_or_no_answer(data: st.DataObject) -> None:
    text = bytearray(ics(WEEKLY, OTHER, OVERRIDE).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = events(bytes(text), BERLIN, NOW)
    except NoAnswer:
        return
    assert all(start < NOW + 86400 and end > NOW for start, end, _ in found)


def test_a_file_that_others_can_write_or_that_is_huge_is_no_answer(home: Path) -> None:
    write(home / "one.ics", ics(NIGHT), 0o646)
    assert refusal(calendar("one.ics"), home).startswith("was not asked")
    write(home / "one.ics", b" " * (LARGEST + 1))
    assert refusal(calendar("one.ics"), home) == "has more than 1048576 bytes"
    assert refusal(calendar("none.ics"), home) == "was not asked: a file of it cannot be read (No such file or directory)"


# ------------------------------------------------------------------- commands


def command(home: Path, script: str, *arguments: str, mode: int = 0o700) -> dict[str, Any]:
    path = write(home / "rota", f"#!/bin/sh\n{script}\n", mode)
    return {"kind": "command", "run": [str(path), *arguments]}


def printing(home: Path, text: str) -> dict[str, Any]:
    write(home / "printed", text)
    return command(home, f"cat {home}/printed")


def test_a_command_prints_who_is_on_call(home: Path) -> None:
    text = '[{"person": "ana", "level": 1, "until": 1800003600}, {"person": "bo", "level": 2, "until": null}]'
    assert asked(printing(home, text), home) == (Slot("ana", 1, NOW, NOW + HOUR), Slot("bo", 2, NOW, None))
    assert asked(printing(home, "[]"), home) == ()


def test_a_command_runs_without_shell_secrets_or_input(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CA_PASSPHRASE", "hunter2")
    script = f'[ "$1" = "; touch {home}/shell" ] && env > {home}/env && pwd >> {home}/env && ! read line && echo "[]"'
    assert asked(command(home, script, f"; touch {home}/shell"), home) == ()
    assert not (home / "shell").exists()
    names = set(re.findall(r"^(\w+)=", (home / "env").read_text(), re.MULTILINE))
    assert names <= {"PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}
    assert (home / "env").read_text().endswith("\n/\n")


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[", "[1]", "[] []", "\ufeff[]",
        '[{"person": "ana"}]', '[{"person": "ana", "level": "1"}]', '[{"person": "ana", "level": 0}]',
        '[{"person": "ana", "level": 21}]', '[{"person": "ana", "level": true}]', '[{"person": "ana", "level": 1, "Until": 5}]',
        '[{"person": "ana", "level": 1, "until": "soon"}]', '[{"person": "root", "level": 1}]',
        '[{"person": "a\\u001b[2J", "level": 1}]',
    ],
)  # fmt: skip
def test_what_a_command_prints_is_exactly_that_list(home: Path, text: str) -> None:
    assert refusal(printing(home, text), home) == "printed something else than a list of shifts"


@pytest.mark.parametrize("until", [253_370_764_801, 2**62])
def test_a_shift_that_ends_at_no_time_is_no_answer(web: Server, home: Path, until: int) -> None:
    for good in (0, 253_370_764_800):
        assert asked(printing(home, f'[{{"person": "ana", "level": 1, "until": {good}}}]'), home)[0].end == good
    assert refusal(printing(home, f'[{{"person": "ana", "level": 1, "until": {until}}}]'), home).startswith("named a shift whose")
    late = on_call("ana", 1, NOW) | {"end": "9999-12-31T23:59:59-12:00"}
    web.answer = lambda request: say(request, 200, {"oncalls": [late], "more": False})
    assert refusal(pagerduty(web), home).startswith("named a shift whose")


def test_a_command_that_fails_is_no_answer(home: Path) -> None:
    assert refusal(command(home, "echo '[]'; exit 3"), home) == "failed with exit code 3"
    assert refusal(command(home, "echo '[]'; kill $$"), home) == "failed with exit code -15"
    assert refusal(command(home, "echo '[]'", mode=0o600), home) == "cannot be run: Permission denied"
    assert refusal(command(home, "echo '[]'", mode=0o722), home).startswith("was not asked")
    assert refusal({"kind": "command", "run": [f"{home}/none"]}, home).startswith("was not asked")
    write(home / "rota", "no program", 0o700)
    assert refusal({"kind": "command", "run": [f"{home}/rota"]}, home) == "cannot be run: Exec format error"
    assert refusal(command(home, f"head -c {LARGEST + 1} /dev/zero; sleep 60"), home) == "printed more than 1048576 bytes"


@pytest.mark.parametrize(
    "script", ["sleep 60", "echo '[]'; exec >&-; sleep 60", "sleep 60 & echo '[]'", "while :; do echo; done"]
)
@pytest.mark.usefixtures("impatient")
def test_a_command_has_its_time_and_no_child_of_it_more(home: Path, script: str) -> None:
    begun = time.monotonic()
    assert refusal(command(home, script), home)
    assert time.monotonic() - begun < 5


# ---------------------------------------------------------- answers kept at hand


class Clock:
    """It stands still unless it is set."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Follow = Callable[..., OnCall]


@pytest.fixture
def follow(home: Path, clock: Clock) -> Iterator[Follow]:
    """Follows schedules given by name, or a function that gives them, until the end of the test."""
    opened = []

    def begin(schedules: Callable[[], Any] | None = None, **named: Schedule) -> OnCall:
        opened.append(OnCall(home, schedules or (lambda: named), clock))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


def test_a_fact_says_source_age_level_and_end_of_the_shift(web: Server, follow: Follow, clock: Clock) -> None:
    web.oncalls = [on_call("ana", 2, NOW, NOW + HOUR), on_call("bo", 1)]
    known = follow(web=schedule(pagerduty(web)))
    assert known.facts("ana") == {"web": Shift("web", "PagerDuty", 2, NOW + HOUR, 0, (("bo", 1), ("ana", 2)))}
    clock.now += 600
    assert known.facts("eve") == {"web": Shift("web", "PagerDuty", None, None, 600, (("bo", 1), ("ana", 2)))}
    assert len(web.asked) == 1


def test_a_hand_over_comes_on_time_although_nobody_asked_again(web: Server, follow: Follow, clock: Clock) -> None:
    web.oncalls = [on_call("ana", 1, NOW, NOW + 300), on_call("bo", 1, NOW + 300, NOW + HOUR)]
    known = follow(web=schedule(pagerduty(web)))
    assert _level(known, "ana") == 1
    clock.now += 300
    assert (_level(known, "ana"), _level(known, "bo")) == (None, 1)
    assert len(web.asked) == 1


def _level(known: OnCall, person: str) -> int | None:
    shift = known.facts(person)["web"]
    assert isinstance(shift, Shift), shift
    return shift.level


def test_nobody_on_call_is_known(web: Server, follow: Follow) -> None:
    assert _level(follow(web=schedule(pagerduty(web))), "ana") is None


def test_an_answer_is_good_until_its_limit_and_not_before_it_was_given(web: Server, follow: Follow, clock: Clock) -> None:
    web.oncalls = [on_call("ana", 1)]
    known = follow(web=schedule(pagerduty(web)))
    for age, sentence in (
        (900, None),
        (901, "unknown: PagerDuty did not answer (cached 15 min ago, limit 15)"),
        (26 * 60, "unknown: PagerDuty did not answer (cached 26 min ago, limit 15)"),
        (-1, "unknown: PagerDuty did not answer (cached before the clock went back)"),
    ):
        clock.now = NOW + age
        assert (known.facts("ana")["web"] == sentence) == (sentence is not None), known.facts("ana")


def test_a_source_that_never_answered_says_why(web: Server, home: Path, follow: Follow) -> None:
    web.answer = lambda request: say(request, 500, b"")
    (home / "rota").unlink(missing_ok=True)
    known = follow(web=schedule(pagerduty(web), {"kind": "command", "run": [f"{home}/rota"]}, calendar("x.ics"), max_age="90s"))
    assert known.facts("ana") == {
        "web": "unknown: PagerDuty answered 500; "
        "the command was not asked: a file of it cannot be read (No such file or directory); "
        "the calendar was not asked: a file of it cannot be read (No such file or directory)"
    }


def test_sources_speak_in_order(web: Server, home: Path, follow: Follow, clock: Clock) -> None:
    web.oncalls = [on_call("ana", 1)]
    write(home / "one.ics", ics(NIGHT.replace("ana@example.com", "Eve E.")))
    both = follow(web=schedule(pagerduty(web), calendar("one.ics"), ROTA))
    assert _level(both, "ana") == 1
    clock.now += 901  # both are too old now
    assert both.facts("rita")["web"] == Shift("web", "the rota", 1, FEBRUARY, 0, (("rita", 1),))
    web.answer = lambda request: say(request, 429, b"")
    clock.now = NOW
    second = follow(web=schedule(pagerduty(web), calendar("one.ics"), ROTA))
    assert (_level(second, "ana"), _level(second, "eve")) == (None, 1)


@pytest.mark.usefixtures("impatient")
def test_no_decision_waits_for_a_source_but_the_first_and_not_for_long(web: Server, follow: Follow) -> None:
    web.answer = lambda _: web.released.wait()
    known = follow(web=schedule(pagerduty(web), calendar(f"{web.url}/x.ics"), calendar(f"{web.url}/y.ics")))
    begun = time.monotonic()
    assert str(known.facts("ana")["web"]).startswith("unknown: PagerDuty did not answer; the calendar did not answer; ")
    assert time.monotonic() - begun < 2
    begun = time.monotonic()
    for _ in range(100):
        known.facts("ana")
    assert time.monotonic() - begun < 1


def test_a_source_is_asked_again_and_its_recovery_is_seen(web: Server, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oncall, "_ASKED_IN_AGE", 3000)
    web.answer = lambda request: say(request, 503, b"")
    known = follow(web=schedule(pagerduty(web), max_age="30s"))
    assert known.facts("ana")["web"] == "unknown: PagerDuty answered 503"
    web.oncalls, web.answer = [on_call("ana", 1)], None
    seen = len(web.asked)
    while len(web.asked) < seen + 2:  # the second from here on begins after the answer to the first was taken
        assert web.arrived.acquire(timeout=10)
    assert _level(known, "ana") == 1


def test_a_new_policy_brings_new_schedules_and_keeps_the_answers_of_the_others(web: Server, follow: Follow) -> None:
    web.oncalls = [on_call("ana", 1), on_call("bo", 1, schedule="PDB")]
    use = {"web": schedule(pagerduty(web)), "old": schedule(ROTA)}
    known = follow(lambda: use)
    assert known.facts("ana").keys() == {"web", "old"}
    use = {"web": schedule(pagerduty(web)), "db": schedule(pagerduty(web, schedules=["PDB"]))}
    facts = known.facts("bo")
    assert {name: shift.level for name, shift in facts.items() if isinstance(shift, Shift)} == {"web": None, "db": 1}
    assert len(web.asked) == 2  # web was not asked again
    use = {"web": schedule(pagerduty(web), people={"ana@example.com": "bo"})}
    assert _level(known, "bo") == 1


def test_after_the_end_nobody_is_asked(web: Server, follow: Follow) -> None:
    known = follow(web=schedule(pagerduty(web), ROTA))
    known.close()
    assert known.facts("ana") == {}
    assert not [thread for thread in threading.enumerate() if thread.name.endswith(" of web")]


def test_the_servers_log_says_when_a_source_fails_and_when_it_is_back(
    web: Server, follow: Follow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oncall, "_ASKED_IN_AGE", 3000)
    web.answer = lambda request: request.wfile.write(b"x")
    with caplog.at_level(logging.INFO):
        follow(web=schedule(pagerduty(web), max_age="30s"))
        for answer in (web.answer, None):
            web.answer, seen = answer, len(web.asked)
            while len(web.asked) < seen + 3:
                assert web.arrived.acquire(timeout=10)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "on call: PagerDuty of web did not answer"), ("INFO", "on call: PagerDuty of web answers")]


def test_nothing_secret_reaches_the_servers_log(
    web: Server, follow: Follow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> tuple[Slot, ...]:
        raise RuntimeError(f"with {TOKEN} to {web.url}")

    with caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(oncall, "ask", explode)
        broken = follow(web=schedule(pagerduty(web)))
        assert broken.facts("ana")["web"] == "unknown: PagerDuty could not be asked (RuntimeError)"
    assert "on call: PagerDuty of web could not be asked (RuntimeError)" in caplog.text
    assert TOKEN not in caplog.text
    assert web.url not in caplog.text


def test_many_threads_may_ask_while_policies_change(web: Server, follow: Follow) -> None:
    web.oncalls = [on_call("ana", 1)]
    policies = [{"web": schedule(pagerduty(web))}, {"web": schedule(pagerduty(web), ROTA)}]
    use, wrong = policies[0], list[Shift | str]()
    known = follow(lambda: use)

    def keep_asking() -> None:
        wrong.extend(fact for _ in range(50) if not isinstance(fact := known.facts("ana")["web"], Shift) or fact.level != 1)

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        use = policies[turn % 2]
    for thread in threads:
        thread.join()
    assert wrong == []
