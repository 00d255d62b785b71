"""What a person reads and types: durations, moments, and text that drives no terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from cli import output


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("1d", 86400), ("2h5s", 7205), ("0h1s", 1)]
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert output.parse_duration(text) == seconds


NO_DURATIONS = ["", "30", "m", "-5m", "1.5h", "30 m", "30m1h", "1e3s", "0m", "٣m", "30M", "9" * 400 + "s", "30m\n"]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        output.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (61, "1 m 1 s"), (1740, "29 m"), (5400, "1 h 30 m"), (90061, "1 d 1 h")]
)
def test_a_duration_is_shown_in_two_units(seconds: int, shown: str) -> None:
    assert output.duration(seconds) == shown


@given(st.integers(1, 10**9))
def test_a_duration_that_is_shown_is_never_longer_than_it_is(seconds: int) -> None:
    assert output.parse_duration(output.duration(seconds).replace(" ", "")) <= seconds


def test_a_moment_says_the_time_and_how_far_it_is() -> None:
    now = 1_800_000_000
    assert output.moment(now + 1740, now).endswith("(in 29 m)")
    assert output.moment(now - 60, now).endswith("(1 m ago)")
    assert output.moment(now + 10 * 86400, now).startswith("2027-01-")


def test_a_moment_is_read_as_local_time_or_as_how_long_ago() -> None:
    now = 1_800_000_000
    assert output.parse_moment("2h", now) == now - 7200
    assert output.timestamp(output.parse_moment("2026-03-01 14:30", now)).startswith("2026-03-01 14:30:00")
    with pytest.raises(Malformed):
        output.parse_moment("yesterday", now)


@given(st.text())
def test_plain_text_is_printable_and_of_the_same_length(text: str) -> None:
    shown = output.plain(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert not text.isprintable() or shown == text


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.result_json({"reason": "caf\xe9 \x1b[2J \u202e"})
    assert capsys.readouterr().out.isascii()
