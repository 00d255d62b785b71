"""`jit-ssh log` in its forms: columns for a person, a table for a spreadsheet, lines of JSON; at once, or as entries come."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import click

from ca import entry, table
from ca.canonical import parse_object
from ca.entry import AnyEntry
from cli import entries, entry_text, output
from cli.client import Client

_WAIT: Final = 25  # seconds that the CA takes for one answer


class Form(Protocol):
    """How entries are shown."""

    def show(self, found: Sequence[bytes]) -> None:
        """Prints these entries, after those that were shown before."""


class Columns:
    """For a person."""

    def __init__(self) -> None:
        self._heading = [entry_text.HEADING]

    def show(self, found: Sequence[bytes]) -> None:
        output.table([*self._heading, *(entry_text.row(entry.decode(source)) for source in found)])
        self._heading = []


class Table:
    """For a spreadsheet, which takes nothing in it for a formula."""

    def __init__(self) -> None:
        self._heading = [list(table.COLUMNS)]

    def show(self, found: Sequence[bytes]) -> None:
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator="\n").writerows([*self._heading, *(_cells(entry.decode(source)) for source in found)])
        click.echo(written.getvalue(), nl=False)
        self._heading = []


class Lines:
    """For another program: JSON in ASCII, an entry a line."""

    def show(self, found: Sequence[bytes]) -> None:
        for source in found:
            click.echo(json.dumps(parse_object(source, "the entry")))


def follow(client: Client, query: Mapping[str, object], limit: int, form: Form) -> None:
    """Shows the newest `limit` entries, the oldest of them first, and then those to come, until Ctrl-C."""
    found = list(entries.newest(client, query, limit))[::-1]
    if found:
        form.show(found)
    start = entries.index(found[-1]) + 1 if found else 0
    unbounded = {name: value for name, value in query.items() if name != "since"} if found else query
    for page in entries.follow(client, unbounded, start, _WAIT):
        form.show(page)


def _cells(found: AnyEntry) -> list[object]:
    return [output.plain(cell) if isinstance(cell, str) else cell for cell in map(table.inert, table.row(found).values())]
