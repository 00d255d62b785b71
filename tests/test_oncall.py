"""On call: schedules as values, who a slot makes on call and until when, and the condition that asks."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import oncall
from ca.conditions import Facts
from ca.fields import Table
from ca.oncall import STRANGER, OnCallFile, Rota, Shift, Slot, shift
from ca.policy import Granted
from ca.roles import load
from tests.policies import ALLOW_SRE, HEAD, NOON, ask, denied, facts, granted, policy, problems
from tests.test_roles import starter

NOW = int(NOON.timestamp())
BERLIN = ZoneInfo("Europe/Berlin")
ROTA = """
[schedules.web]
about = "The web tier"
[[schedules.web.sources]]
kind = "static"
rotas = [["ana", "ben"], ["cleo"]]
begins = 2027-01-04
handover = "09:00"
zone = "Europe/Berlin"
days = 7
"""
PAGER = """
[schedules.web]
about = "The web tier"
people = { "ana@example.com" = "ana", "ben" = "ben" }
[[schedules.web.sources]]
kind = "pagerduty"
schedules = ["PI7DH85"]
token_file = "keys/pagerduty"
[[schedules.web.sources]]
kind = "ical"
calendars = ["https://calendar.example.com/web.ics", "web-2.ics"]
zone = "Europe/Berlin"
[[schedules.web.sources]]
kind = "command"
run = ["/usr/local/bin/rota", "web"]
"""
ON_CALL = '[[allow]]\non_call = { schedule = "web", levels = [1, 2] }\n'
ENDING = ON_CALL.replace(" }", ", until_shift_end = true }")


def level(number: int | None, until: int | None = None) -> Shift:
    """Ana's shift on the schedule web, with Ben and Cleo beside her."""
    others = (("ben", 1), ("cleo", 2))
    return Shift("web", "the rota", number, until, 0, (*others, ("ana", number)) if number else others)


def knowing(on_call: Mapping[str, Shift | str]) -> Facts:
    """Ana at noon, with this said of the schedules."""
    return replace(facts(), on_call=on_call)


# --------------------------------------------------------------------- slots


def of(slots: list[Slot], person: str = "ana", now: float = NOW) -> Shift:
    return shift("web", "the rota", slots, person, now, 7)


def test_a_slot_begins_with_its_first_second_and_ends_before_its_last() -> None:
    slots = [Slot("ana", 1, NOW, NOW + 60)]
    assert [of(slots, now=NOW + at).level for at in (-1, 0, 59.9, 60)] == [None, 1, 1, None]


def test_nobody_on_call_is_known() -> None:
    assert of([]) == Shift("web", "the rota", None, None, 7, ())
    assert of([Slot("ben", 1, NOW, None)]) == Shift("web", "the rota", None, None, 7, (("ben", 1),))


def test_everybody_on_call_is_listed_once_by_level() -> None:
    slots = [Slot("eve", 2, NOW, None), Slot("bo", 1, NOW, NOW + 9), Slot("bo", 1, NOW - 5, NOW + 5), Slot("ana", 3, NOW, None)]
    assert of(slots).on_call == (("bo", 1), ("eve", 2), ("ana", 3))
    assert of(slots).level == 3


def test_somebody_on_several_levels_has_the_first_and_its_end() -> None:
    slots = [Slot("ana", 2, NOW, NOW + 90), Slot("ana", 1, NOW, NOW + 30), Slot("ben", 1, NOW, NOW + 900)]
    assert (of(slots).level, of(slots).until) == (1, NOW + 30)
    assert (of(slots, now=NOW + 30).level, of(slots, now=NOW + 30).until) == (2, NOW + 90)


def test_slots_that_adjoin_or_overlap_are_one_shift() -> None:
    slots = [Slot("ana", 1, NOW - 60, NOW + 60), Slot("ana", 1, NOW + 50, NOW + 90), Slot("ana", 1, NOW + 90, NOW + 120)]
    gap = Slot("ana", 1, NOW + 121, NOW + 999)
    assert of([gap, *reversed(slots)]).until == NOW + 120
    assert of([*slots, Slot("ana", 1, NOW + 120, None)]).until is None


@given(st.lists(st.builds(Slot, st.sampled_from("ab"), st.integers(1, 3), st.integers(0, 50), st.integers(0, 50) | st.none())))
def test_a_shift_is_what_looking_at_every_second_shows(slots: list[Slot]) -> None:
    def levels(second: int) -> set[int]:
        return {s.level for s in slots if s.person == "a" and s.start <= second and (s.end is None or second < s.end)}

    for now in range(0, 52, 5):
        got = of(slots, "a", now)
        assert got.level == min(levels(now), default=None)
        until = None if got.level is None else next((at for at in range(now, 60) if got.level not in levels(at)), None)
        assert got.until == until


# ---------------------------------------------------------------- static rotas


def rota(**changes: Any) -> Rota:
    written = {"rotas": [["ana", "ben"]], "begins": date(2027, 1, 4), "handover": "09:00", "zone": "Europe/Berlin", "days": 7}
    return Rota.model_validate({"kind": "static", **written, **changes})


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def turn(source: Rota, moment: datetime) -> tuple[str, datetime, datetime]:
    """Who is level 1 at that moment, from when until when."""
    now = moment.timestamp()
    [slot] = [slot for slot in source.slots(now) if slot.level == 1 and slot.covers(now)]
    assert slot.end is not None
    return slot.person, datetime.fromtimestamp(slot.start, source.zone), datetime.fromtimestamp(slot.end, source.zone)


def test_people_take_turns_at_the_handover() -> None:
    monday = berlin("2027-01-11T09:00")
    assert turn(rota(), monday) == ("ben", monday, berlin("2027-01-18T09:00"))
    assert turn(rota(), monday - timedelta(seconds=1)) == ("ana", berlin("2027-01-04T09:00"), monday)
    assert turn(rota(rotas=[["ana", "ana", "ben"]]), monday)[0] == "ana"


def test_each_list_of_a_rota_is_a_level() -> None:
    got = shift("web", "the rota", rota(rotas=[["ana", "ben"], ["cleo"]]).slots(NOW), "cleo", NOW, 0)
    assert (got.level, got.on_call) == (2, (("ana", 1), ("cleo", 2)))


def test_a_level_that_nobody_has_stays_empty() -> None:
    assert of(list(rota(rotas=[[], ["ben"]]).slots(NOW))).on_call == (("ben", 2),)


def test_before_a_rota_begins_nobody_is_on_call() -> None:
    first = datetime(2027, 1, 4, 9, tzinfo=BERLIN).timestamp()
    assert of(list(rota().slots(first - 1)), now=first - 1).on_call == ()
    assert of(list(rota().slots(first)), now=first).on_call == (("ana", 1),)


@pytest.mark.parametrize(
    ("before", "length"),
    [("2027-03-27T20:00", 23), ("2027-10-30T20:00", 25), ("2027-06-01T20:00", 24)],
)
def test_a_handover_is_on_the_wall_clock_through_summer_time(before: str, length: int) -> None:
    now = berlin(before)
    _, begin, end = turn(rota(handover="18:00", days=1), now)
    assert (begin, end) == (now.replace(hour=18), now.replace(hour=18) + timedelta(days=1))
    assert end.timestamp() - begin.timestamp() == length * 3600


@pytest.mark.parametrize(
    ("handover", "day", "utc"),
    [
        ("02:30", date(2027, 3, 28), "2027-03-28T01:30Z"),  # is skipped: 03:30 in summer time
        ("02:30", date(2027, 10, 31), "2027-10-31T00:30Z"),  # comes twice: the first
        ("24:00", date(2027, 3, 27), "2027-03-27T23:00Z"),
    ],
)
def test_a_handover_at_an_hour_that_is_skipped_or_repeated_happens_once(handover: str, day: date, utc: str) -> None:
    at, source = datetime.fromisoformat(utc).timestamp(), rota(begins=day, handover=handover, days=1)
    assert of(list(source.slots(at - 1)), now=at - 1).on_call == ()
    assert of(list(source.slots(at)), now=at).on_call == (("ana", 1),)


@given(
    st.integers(1_796_000_000, 1_861_000_000),
    st.integers(1, 40),
    st.integers(0, 1440),
    st.integers(1, 5),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]),
)
def test_from_its_beginning_on_a_rota_always_has_one_person(now: int, days: int, minute: int, people: int, zone: str) -> None:
    handover = f"{minute // 60:02}:{minute % 60:02}"
    source = rota(rotas=[["ana", "ben", "cleo", "dora", "eve"][:people]], days=days, handover=handover, zone=zone)
    slots = source.slots(now)
    begun = now >= int((datetime(2027, 1, 4, tzinfo=ZoneInfo(zone)) + timedelta(minutes=minute)).timestamp())
    assert len([slot for slot in slots if slot.covers(now)]) == begun
    # Turns follow each other without a gap, for at least as long as a grant can last.
    assert all(one.end == next_.start for one, next_ in pairwise(slots))
    assert not begun or (slots[-1].end or 0) >= now + 86400 - 3600


# ---------------------------------------------------------------- the condition


@pytest.mark.parametrize(("number", "holds"), [(1, True), (2, True), (3, False), (None, False)])
def test_only_the_levels_named_are_on_call(number: int | None, holds: bool) -> None:
    loaded = policy({"oncall.toml": ROTA}, web=HEAD + ON_CALL)
    assert isinstance(ask(loaded, by=knowing({"web": level(number)})), Granted) == holds


def test_a_denial_says_which_level_the_person_has_and_who_is_on_call() -> None:
    loaded = policy({"oncall.toml": ROTA}, web=HEAD + ON_CALL)
    [finding] = denied(ask(loaded, by=knowing({"web": level(3)}))).ways[0].findings
    assert finding.sentence == "the person is level 1 or 2 on call on schedule web"
    assert finding.observed == "ana is level 3; on call now: ben (1), cleo (2), ana (3); the rota said so 0 s ago"
    assert finding.holds is False
    [finding] = denied(ask(loaded, by=knowing({"web": level(None)}))).ways[0].findings
    assert finding.observed == "ana is not on call; on call now: ben (1), cleo (2); the rota said so 0 s ago"
    [finding] = denied(ask(loaded, by=knowing({"web": of([])}))).ways[0].findings
    assert (finding.observed, finding.holds) == ("ana is not on call; on call now: nobody; the rota said so 7 s ago", False)


def test_what_is_not_known_opens_no_door_and_the_other_ways_still_work() -> None:
    sentence = "unknown: PagerDuty did not answer (cached 26 min ago, limit 15)"
    loaded = policy({"oncall.toml": ROTA}, web=HEAD + ON_CALL)
    both = policy({"oncall.toml": ROTA}, web=HEAD + ON_CALL + ALLOW_SRE)
    unknown = knowing({"web": sentence})
    [finding] = denied(ask(loaded, by=unknown)).ways[0].findings
    assert (finding.observed, finding.holds) == (sentence, None)
    assert granted(ask(both, by=unknown)).ways[0].rule == "allow 2"


def test_a_schedule_that_nobody_looked_at_is_not_known() -> None:
    loaded = policy({"oncall.toml": ROTA}, web=HEAD + ON_CALL)
    [finding] = denied(ask(loaded, by=knowing({"db": level(1)}))).ways[0].findings
    assert (finding.observed, finding.holds) == ("unknown: schedule web was not looked at", None)


def test_a_deny_does_not_pass_over_what_is_not_known() -> None:
    blocked = policy(
        {"oncall.toml": ROTA},
        web=HEAD + ALLOW_SRE + '[[deny]]\non_call = { schedule = "web", levels = [3] }\nmessage = "Ask level 1"\n',
    )
    granted(ask(blocked, by=knowing({"web": level(1)})))
    denied(ask(blocked, by=knowing({"web": level(3)})))
    denied(ask(blocked, by=knowing({"web": "unknown: PagerDuty did not answer"})))


def test_a_grant_can_end_with_the_shift() -> None:
    ending, lasting = (policy({"oncall.toml": ROTA}, web=HEAD + block) for block in (ENDING, ON_CALL))
    soon, later, never = ({"web": level(1, until)} for until in (NOW + 600, NOW + 86400, None))
    got = granted(ask(ending, by=knowing(soon)))
    assert (got.privilege.duration, got.findings[-1].condition) == (600, "window")
    assert got.findings[-1].sentence == "the grant ends with the hours, or the shift, of the rule that decides"
    assert granted(ask(ending, by=knowing(later))).privilege.duration == 1800
    assert granted(ask(ending, by=knowing(never))).privilege.duration == 1800
    assert granted(ask(lasting, by=knowing(soon))).privilege.duration == 1800


def test_a_shift_that_has_ended_is_not_known_to_go_on() -> None:
    """A source that says so is wrong, or late; a grant of no time at all must not come of it."""
    by_shift = policy({"oncall.toml": ROTA}, web=HEAD + ENDING)
    assert granted(ask(by_shift, by=knowing({"web": level(1, NOW + 1)}))).privilege.duration == 1
    refused = denied(ask(by_shift, by=knowing({"web": level(1, NOW)})))
    assert refused.message.endswith("but unknown: the shift that the rota told of has ended")


def test_a_deny_ends_no_grant() -> None:
    deny = ENDING.replace("allow", "deny") + 'message = "No"\n'
    assert policy({"oncall.toml": ROTA}, web=HEAD + ALLOW_SRE + deny.replace(", until_shift_end = true", "")).roles
    [line] = problems({"oncall.toml": ROTA}, web=HEAD + ALLOW_SRE + deny)
    assert line.startswith("roles/web.toml: deny[1]: on_call.until_shift_end: ends a grant")


# ------------------------------------------------------------------ oncall.toml


def test_a_policy_needs_no_schedules() -> None:
    assert not policy().schedules
    assert policy({"oncall.toml": ROTA}).schedules.keys() == {"web"}
    assert [source.kind for source in policy({"oncall.toml": PAGER}).schedules["web"].sources] == ["pagerduty", "ical", "command"]


def test_a_condition_names_a_schedule_that_exists() -> None:
    line = "roles/web.toml: allow[1].on_call.schedule: unknown schedule 'web'"
    assert problems(web=HEAD + ON_CALL) == (line,)
    assert problems({"oncall.toml": ROTA.replace("web", "wbe")}, web=HEAD + ON_CALL) == (f"{line} (did you mean 'wbe'?)",)
    # A file that cannot be read is one problem, not one more for each role that refers to it.
    assert len(problems({"oncall.toml": "["}, web=HEAD + ON_CALL)) == 1


@pytest.mark.parametrize("written", [ROTA, PAGER])
def test_no_key_of_oncall_toml_is_ignored(written: str) -> None:
    lines = written.splitlines()
    for at, line in enumerate(lines):
        if " = " in line and not line.startswith("kind"):
            wrong = "\n".join([*lines[:at], f"x{line}", *lines[at + 1 :]])
            key = line.partition(" = ")[0]
            assert any(f"x{key}: unknown key (did you mean '{key}'?)" in each for each in problems({"oncall.toml": wrong}))


SOURCE = "oncall.toml: schedules.web.sources"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"static"', '"rota"', f"{SOURCE}[1]: kind: must be one of 'pagerduty', 'ical', 'static', 'command'"),
        ('kind = "static"\n', "", f"{SOURCE}[1]: kind: missing"),
        ('"ben"]', '"bne"]', f"{SOURCE}[1].rotas[1][2]: unknown person 'bne' (did you mean 'ben'?)"),
        ('[["ana", "ben"], ["cleo"]]', "[]", f"{SOURCE}[1].rotas: must not be empty"),
        ("days = 7", "days = 0", f"{SOURCE}[1].days: must be greater than or equal to 1"),
        ("days = 7\n", "", f"{SOURCE}[1].days: missing"),
        ("2027-01-04", '"2027-01-04"', f"{SOURCE}[1].begins: must be a date without quotes, such as 2027-03-31"),
        ('"09:00"', '"9:00"', f"{SOURCE}[1].handover: '9:00' is not a time of day"),
        ("Europe/Berlin", "Europe/Berln", f"{SOURCE}[1].zone: unknown time zone 'Europe/Berln' (did you mean 'Europe/Berlin'?)"),
        ("about", 'max_age = "20s"\nabout', "oncall.toml: schedules.web.max_age: at least 30s"),
        ("about", 'max_age = "2d"\nabout', "oncall.toml: schedules.web.max_age: 2d is more than"),
        ("schedules.web", 'schedules."w b"', "oncall.toml: schedules.'w b': schedule 'w b' is not allowed"),
    ],
)
def test_a_rota_says_exactly_who_and_when(old: str, new: str, problem: str) -> None:
    assert policy({"oncall.toml": ROTA}).schedules
    assert any(line.startswith(problem) for line in problems({"oncall.toml": ROTA.replace(old, new)}))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"PI7DH85"', '"PI7DH85&x[]=1"', f"{SOURCE}[1].schedules[1]: "),
        ('["PI7DH85"]', "[]", f"{SOURCE}[1].schedules: must not be empty"),
        ('token_file = "keys/pagerduty"', 'token_file = ""', f"{SOURCE}[1].token_file: must be one line"),
        ('token_file = "keys/pagerduty"', 'url = "http://pd.example"', f"{SOURCE}[1].url: http can be forged on its way"),
        ("https://calendar", "http://calendar", f"{SOURCE}[2].calendars[1]: http can be forged on its way"),
        ("https://calendar", "https://me:secret@calendar", f"{SOURCE}[2].calendars[1]: not the address of a web server"),
        ("https://calendar.example.com", "https://", f"{SOURCE}[2].calendars[1]: not the address of a web server"),
        ("https://calendar.example.com", "https://x:port", f"{SOURCE}[2].calendars[1]: not the address of a web server"),
        ("https://calendar", "file://calendar", f"{SOURCE}[2].calendars[1]: not the address of a web server"),
        ("https://calendar", "https://c\\u0430lendar", f"{SOURCE}[2].calendars[1]: not the address of a web server"),
        ('zone = "Europe/Berlin"\n', "", f"{SOURCE}[2].zone: missing"),
        ("/usr/local/bin/rota", "rota", f"{SOURCE}[3].run: begins with the absolute path"),
        ('= "ana"', '= "anna"', "oncall.toml: schedules.web.people.'ana@example.com': unknown person 'anna'"),
        ('"ben" = "ben"', '"ANA@example.com" = "ben"', "oncall.toml: schedules.web: people: two of the names differ in"),
        ('{ "ana@example.com" = "ana", "ben" = "ben" }', "{}", "oncall.toml: schedules.web: people: missing"),
    ],
)
def test_a_source_is_named_without_room_for_another(old: str, new: str, problem: str) -> None:
    assert policy({"oncall.toml": PAGER}).schedules
    lines = problems({"oncall.toml": PAGER.replace(old, new)})
    assert any(line.startswith(problem) for line in lines), lines


def test_no_source_comes_after_one_that_cannot_fail() -> None:
    rota, pagers = ROTA.partition("[[")[2], PAGER.partition("[[")[2]
    head = PAGER.partition("[[")[0]
    assert len(policy({"oncall.toml": f"{head}[[{pagers}[[{rota}"}).schedules["web"].sources) == 4
    [line] = problems({"oncall.toml": f"{head}[[{rota}[[{pagers}"})
    assert line.startswith("oncall.toml: schedules.web: sources: one of kind static never fails")


def test_a_name_of_a_source_is_one_person_whatever_its_case() -> None:
    schedule = policy({"oncall.toml": PAGER}).schedules["web"]
    assert schedule.person("P123", " Ana@Example.COM ") == "ana"
    assert schedule.person("ben", "ana@example.com") == "ben"
    assert schedule.person("cleo") == schedule.person("") == STRANGER


def test_the_starter_policy_has_a_schedule_and_a_role_for_it() -> None:
    loaded = load(starter())
    blocks = [block.on_call for role in loaded.roles.values() for block in role.allow if block.on_call]
    assert {block.schedule for block in blocks} == set(loaded.schedules)


def test_the_manual_names_every_key_of_oncall_toml() -> None:
    manual = (Path(oncall.__file__).parent / "POLICY.md").read_text()
    shapes: list[type[Table]] = [OnCallFile, oncall.Schedule, oncall.PagerDuty, oncall.Calendar, oncall.Rota, oncall.Command]
    assert [name for shape in shapes for name in shape.model_fields if f"`{name}`" not in manual] == []
