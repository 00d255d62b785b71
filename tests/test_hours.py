"""Hours: windows on a wall clock, over midnight, across summer time, and the grants that end with them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.conditions import Facts, Hours
from ca.policy import Granted
from ca.roles import Policy
from tests.policies import ALLOW_SRE, HEAD, ask, denied, facts, granted
from tests.policies import policy as written


def hours(start: str, end: str, zone: str = "Europe/Berlin", days: str = "") -> Policy:
    listed = f"days = [{days}], " if days else ""
    window = f'hours = {{ {listed}from = "{start}", to = "{end}", zone = "{zone}" }}\n'
    return written(web=HEAD.replace('"1h"', '"24h"') + ALLOW_SRE + window)


def at(text: str, zone: str = "Europe/Berlin", fold: int = 0) -> Facts:
    return facts(now=datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold))


@pytest.mark.parametrize(
    ("moment", "open_"),
    [("08:59:59", False), ("09:00:00", True), ("16:59:59", True), ("17:00:00", False), ("00:00:00", False)],
)
def test_hours_begin_with_their_first_minute_and_end_before_their_last(moment: str, open_: bool) -> None:
    assert isinstance(ask(hours("09:00", "17:00"), by=at(f"2027-03-02T{moment}")), Granted) == open_


def test_hours_are_those_of_their_zone() -> None:
    evening = facts(now=datetime(2027, 7, 1, 7, 30, tzinfo=UTC))
    granted(ask(hours("09:00", "17:00", "Europe/Berlin"), by=evening))
    denied(ask(hours("09:00", "17:00", "UTC"), by=evening))


def test_hours_are_of_their_days() -> None:
    tuesdays = hours("09:00", "17:00", days='"tue"')
    granted(ask(tuesdays, by=at("2027-03-02T10:00")))
    denied(ask(tuesdays, by=at("2027-03-03T10:00")))


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2027-03-01T23:00", False),  # Monday
        ("2027-03-02T05:00", False),
        ("2027-03-02T22:00", True),  # Tuesday
        ("2027-03-03T05:59", True),
        ("2027-03-03T06:00", False),
        ("2027-03-03T23:00", False),
        ("2027-03-07T23:00", True),  # Sunday, into Monday
        ("2027-03-08T05:00", True),
    ],
)
def test_hours_over_midnight_belong_to_the_day_they_begin_on(moment: str, open_: bool) -> None:
    assert isinstance(ask(hours("22:00", "06:00", days='"tue", "sun"'), by=at(moment)), Granted) == open_


def test_the_last_minute_of_a_window_does_not_buy_another_term() -> None:
    loaded = hours("09:00", "17:00")
    got = granted(ask(loaded, duration=3600, by=at("2027-03-02T16:59:30.5")))
    assert got.privilege.duration == 30
    assert got.findings[-1].condition == "window"
    assert got.findings[-1].observed == "it ends at 16:00 UTC, after 30 of 3600 seconds"
    whole = granted(ask(loaded, duration=3600, by=at("2027-03-02T16:00")))
    assert whole.privilege.duration == 3600
    assert whole.findings[-1].condition != "window"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Chatham", "America/St_Johns"])
def test_a_window_ends_on_time_where_zones_are_off_by_quarters_of_an_hour(zone: str) -> None:
    got = granted(ask(hours("09:00", "17:00", zone), duration=7200, by=at("2027-03-02T15:40", zone)))
    assert got.privilege.duration == 80 * 60


def test_adjoining_windows_are_one() -> None:
    loaded = hours("00:00", "24:00", days='"tue", "wed"')
    assert granted(ask(loaded, duration=7200, by=at("2027-03-02T23:30"))).privilege.duration == 7200
    assert granted(ask(loaded, duration=7200, by=at("2027-03-03T23:30"))).privilege.duration == 1800


@pytest.mark.parametrize(
    ("start", "end", "now", "fold", "lasts"),
    [
        ("00:00", "06:00", "2027-03-28T01:00", 0, 4 * 60),  # spring: 02:00 is 03:00, the night is an hour shorter
        ("00:00", "06:00", "2027-10-31T01:00", 0, 6 * 60),  # autumn: 03:00 is 02:00 again, an hour longer
        ("01:00", "02:30", "2027-03-28T01:30", 0, 30),  # ends when the clock jumps over its end
        ("01:00", "02:30", "2027-10-31T01:30", 0, 60),  # the first 02:30 ends it …
        ("01:00", "02:30", "2027-10-31T02:10", 1, 20),  # … and it is open when the clock shows 02:10 again
        ("02:45", "03:30", "2027-10-31T02:50", 0, 10),  # the clock goes back out of the window
    ],
)
def test_hours_are_what_the_wall_clock_shows_through_summer_time(start: str, end: str, now: str, fold: int, lasts: int) -> None:
    got = granted(ask(hours(start, end), duration=86400, by=at(now, fold=fold)))
    assert got.privilege.duration == lasts * 60


@given(
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.integers(0, 366 * 1440),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Chatham", "UTC"]),
    st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
)
def test_a_window_ends_at_the_first_minute_outside_it(begin: int, end: int, minute: int, zone: str, days: set[str]) -> None:
    if begin == end:
        return
    clock = [f"{value // 60:02}:{value % 60:02}" for value in (begin, end)]
    window = Hours.model_validate({"from": clock[0], "to": clock[1], "zone": zone, "days": sorted(days)})
    start = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minute, seconds=7)

    def inside(moment: datetime) -> bool:
        return window.observe(facts(now=moment), ())[0] is True

    if not inside(start):
        return
    latest = start + timedelta(hours=4)
    minutes = (start.replace(second=0) + timedelta(minutes=after) for after in range(1, 241))
    assert window.holds_until(facts(now=start), latest) == next((each for each in minutes if not inside(each)), latest)


def test_of_several_open_rules_the_longest_decides_and_the_first_of_equals() -> None:
    window = 'hours = { from = "09:00", to = "12:30", zone = "UTC" }\n'
    both = written(web=HEAD + ALLOW_SRE + window + ALLOW_SRE)
    got = granted(ask(both, duration=3600))
    assert (got.privilege.duration, [way.rule for way in got.ways]) == (3600, ["allow 2", "allow 1"])
    assert granted(ask(both, duration=1800)).ways[0].rule == "allow 1"
