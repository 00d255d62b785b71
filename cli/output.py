"""What is shown to a person: text that cannot drive a terminal, durations, and local times with how far away they are.

Results go to stdout, talk to stderr. Whatever somebody else wrote passes `plain` on its way to a terminal.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar

import click

from ca.canonical import encode
from ca.errors import Malformed

T = TypeVar("T")
_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_MOMENTS: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")


def plain(text: str) -> str:
    """The text with every control, direction and unassigned character replaced; one line stays one line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def result(text: str = "") -> None:
    """Prints a line of the result, made printable."""
    click.echo(plain(text))


def talk(text: str) -> None:
    """Prints a line that is not the result, to stderr, made printable."""
    click.echo(plain(text), err=True)


def result_json(value: object) -> None:
    """Prints dataclasses or plain values as JSON, in ASCII, so that nothing in it can drive a terminal."""
    click.echo(json.dumps(json.loads(encode({"": value}))[""], indent=2))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows as columns, two spaces apart; the first row is the heading."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(named: Mapping[str, str]) -> None:
    """Prints names and values below each other; an empty value is left out."""
    width = max(len(name) for name in named)
    for name, value in named.items():
        if value:
            result(f"{name.ljust(width)}  {value}")


@contextmanager
def counted(values: Iterable[T], total: int, doing: str) -> Iterator[Iterator[T]]:
    """The same values; on a terminal, a bar on stderr says how many of `total` were taken."""
    if not sys.stderr.isatty():
        yield iter(values)
        return
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than most commands to run
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield iter(bar.track(values, total, description=doing))


# --------------------------------------------------------------------- time


def parse_duration(text: str) -> int:
    """Seconds of `30m`, `1h30m`, `90s` or `1d`. Raises `Malformed`."""
    matched = _DURATION.fullmatch(text)
    counts = matched.groups(default="0") if matched else ()
    seconds = sum(int(count) * unit for count, unit in zip(counts, _UNITS.values(), strict=False))
    if seconds == 0:
        raise Malformed(f"{text[:40]!a} is not a duration", "Write it like 30m, 1h30m or 90s")
    return seconds


def duration(seconds: int) -> str:
    """A duration in at most two units, rounded down: `29 m`, `1 h 30 m`, `45 s`."""
    left, parts = max(seconds, 0), []
    for name, unit in _UNITS.items():
        count, left = divmod(left, unit)
        if count and (name != "s" or seconds < _UNITS["h"]):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def moment(at: int, now: int) -> str:
    """Unix seconds as local time, with the date unless it is today, and how far from `now` (Unix seconds)."""
    local, today = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(now).astimezone()
    shown = local.strftime("%H:%M" if local.date() == today.date() else "%Y-%m-%d %H:%M")
    return f"{shown} (in {duration(at - now)})" if at > now else f"{shown} ({duration(now - at)} ago)"


def timestamp(at: float) -> str:
    """Unix seconds as local date, time and zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def parse_moment(text: str, now: int) -> int:
    """Unix seconds of a local date, a local date and time, or of a duration before `now`. Raises `Malformed`."""
    for form in _MOMENTS:
        try:
            return int(datetime.strptime(text, form).astimezone().timestamp())
        except ValueError:
            continue
    try:
        return now - parse_duration(text)
    except Malformed as error:
        hint = "Write 2h for two hours ago, 2026-03-01, or '2026-03-01 14:30'"
        raise Malformed(f"{text[:40]!a} is not a time", hint) from error


class DurationType(click.ParamType[int]):
    """An option's duration, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_duration(str(value))
        except Malformed as error:
            self.fail(f"{error.message}. {error.hint}", param, ctx)
