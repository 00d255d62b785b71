"""Exports: the log, or what it says of a time, in a file that other programs read.

A database and a JSON Lines file hold the entries' own bytes and an `Extract` that proves them: `verify_file` needs nothing else.
A table for a spreadsheet cannot be verified. A file appears whole or not at all, and none is ever overwritten.
"""

import csv
import os
import sqlite3
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

from sqlite_utils import Database

from ca import entry
from ca.checkpoint import open_checkpoint
from ca.errors import LogDamaged, Malformed, Misconfigured
from ca.extract import Extract, extract, verify
from ca.log import Reading
from ca.table import COLUMNS, inert, row
from ca.trust import Trust
from ca.verify import Report

_SEARCHED: Final = ("actor", "person", "role", "reason", "message", "principals")
_VIEWS: Final = {
    "requests": """SELECT "index", time, actor AS person, role, reason, duration, principals, address, request AS extends,
        json_extract(entry, '$.hardware_key') AS hardware_key, json_extract(entry, '$.steps') IS NULL AS granted_at_once
        FROM entries WHERE kind = 'request'""",
    "issuances": """SELECT issue."index", issue.time, issue.actor AS person, issue.role, issue.request, asked.reason,
        before.address, issue.principals, issue.serial, issue."key", issue.key_id, issue.valid_after, issue.valid_before
        FROM entries AS issue LEFT JOIN entries AS asked ON asked."index" = issue.request
        LEFT JOIN entries AS before ON before."index" = issue."index" - 1 WHERE issue.kind = 'issue'""",
    "approvals": """SELECT yes."index", yes.time, yes.actor AS approver, asked.actor AS person, yes.role, yes.request, yes.reason,
        yes.duration IS NOT NULL AS granted, yes.duration
        FROM entries AS yes LEFT JOIN entries AS asked ON asked."index" = yes.request WHERE yes.kind = 'approve'""",
    "denials": """SELECT "index", time, kind, actor, role, request, reason, json_extract(entry, '$.code') AS code, message,
        address FROM entries WHERE kind IN ('refuse', 'deny')""",
    "revocations": """SELECT "index", time, kind, actor, coalesce(person, actor) AS person, request, serial, reason
        FROM entries WHERE kind IN ('revoke', 'drop', 'lock', 'unlock')""",
    "emergencies": """SELECT use."index", use.time, use.person, json_extract(json_extract(use.entry, '$.line'), '$.kind') AS kind,
        json_extract(json_extract(use.entry, '$.line'), '$.time') AS written, use.reason, use.principals, use.serial, use."key",
        use.key_id, use.valid_after, use.valid_before, seen."index" AS review, seen.actor AS reviewer,
        json_extract(seen.entry, '$.verdict') AS verdict, seen.reason AS finding
        FROM entries AS use LEFT JOIN entries AS seen ON seen.request = use."index" AND seen.kind = 'review'
        WHERE use.kind = 'break-glass' AND use.person IS NOT NULL""",
    "readings": """SELECT "index", time, actor AS reader, request, path, address FROM entries WHERE kind = 'read'""",
}
_PAGE: Final = 10_000  # rows in one transaction
_CHANGED: Final = "Somebody changed this file: trust nothing in it, and export again"
_SQLITE: Final = b"SQLite format 3\0"
_LONGEST_LINE: Final = entry.LARGEST + 1  # bytes, with the newline
_DAMAGED: Final = "It is damaged or cut off: take another copy, or export again"
_AGAIN: Final = "The entries are those of the log, but queries may miss some: export it again"
_GIVE: Final = "Give a file as jit-ssh-ca log export wrote it, or export again"
_EITHER: Final = "Give a copy of jit-ssh.db, or the .db or .jsonl that jit-ssh-ca log export wrote; a .csv cannot be verified"


def export(store: Reading, trust: Trust, out: Path, since: int | None, until: int | None) -> tuple[Extract, Report]:
    """Writes the entries with `since` ≤ time < `until` (Unix milliseconds) to `out`, after checking each of them.

    Its ending chooses the form: `.db`, `.jsonl` or `.csv`. Raises `Misconfigured` for another, or when `out` is there already.
    """
    write = _WRITERS.get(out.suffix)
    if write is None:
        raise Misconfigured(f"{out} ends in none of {', '.join(_WRITERS)}", "The ending says in which form to write")
    if out.exists():
        raise Misconfigured(f"{out} is there already", "Nothing was overwritten: give another name")
    note = store.checkpoint()
    if note is None:
        raise Misconfigured("the log is empty")
    size = open_checkpoint(note, trust.verifier).size
    start = _first(store, since, size) if since is not None else 0
    end = max(start, _first(store, until, size) if until is not None else size)
    proof = extract(store, trust, note, start, end)
    report = verify(proof, store.entries(start, end))
    _whole(out, lambda path: write(path, proof, store.entries(start, end)))
    return proof, report


def is_export(path: Path) -> bool:
    """Whether a file is one that `export` wrote, by its beginning. Raises `Misconfigured` when it cannot be read."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_SQLITE))
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    if begins != _SQLITE:
        return True
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name IN ('proof', 'entries_fts')").fetchall())
        except sqlite3.Error as error:
            raise Misconfigured(f"{path} cannot be read as a database: {error}", _DAMAGED) from error


def verify_file(path: Path) -> tuple[Extract, Report]:
    """Checks an export. Raises `LogDamaged`, naming the first entry that is wrong, and `Malformed` for what is no export."""
    with path.open("rb") as file:
        begins = file.read(len(_SQLITE))
        if begins == _SQLITE:
            return _verify_database(path)
        if not begins.startswith(b"{"):
            raise Malformed(f"{path} is neither a log's database nor an export that can be verified", _EITHER)
        file.seek(0)
        lines = _lines(file)
        try:
            proof = Extract.parse(next(lines))
        except Malformed as error:
            raise Malformed(f"{path} cannot be read as an export: {error.message}", _EITHER) from error
        return proof, verify(proof, lines)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        if not line.endswith(b"\n"):
            raise Malformed(f"line {number} is cut off or longer than any entry", _GIVE)
        yield line[:-1]


def _verify_database(path: Path) -> tuple[Extract, Report]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            if _schema(connection) != _empty_schema():
                raise Malformed(f"{path} has not the tables and views of an export", _GIVE)
            proofs = connection.execute("SELECT extract FROM proof LIMIT 2").fetchall()
            if len(proofs) != 1:
                raise Malformed(f"{path} has {'more than one proof' if proofs else 'no proof'} in its table proof", _GIVE)
            proof, rows = Extract.parse(str(proofs[0][0]).encode()), connection.execute('SELECT * FROM entries ORDER BY "index"')
            report = verify(proof, map(_same, rows))
            _demand_found(connection)
            return proof, report
        except (sqlite3.Error, ValueError) as error:
            raise Malformed(f"{path} cannot be read as an export: {error}", _DAMAGED) from error


def _same(columns: tuple[object, ...]) -> bytes:
    """The entry in a row whose other columns say what it says."""
    *shown, source = columns
    encoded = str(source).encode()
    said = row(entry.decode(encoded))
    for found, (column, value) in zip(shown, said.items(), strict=True):
        if found != value:
            raise LogDamaged(f"row {shown[0]} does not say what its entry says: its {column} is another", _CHANGED)
    return encoded


def _demand_found(connection: sqlite3.Connection) -> None:
    """What is asked for is found: every index has what the rows say, and the full-text index their words.

    Raises `LogDamaged`. The full-text index says so only where it may be written: in a copy.
    """
    [[told]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if told != "ok":
        raise LogDamaged(f"an index does not agree with the entries: {told[:200]}", _AGAIN)
    with closing(sqlite3.connect("")) as private:
        connection.backup(private)
        try:
            private.execute("INSERT INTO entries_fts (entries_fts, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            raise LogDamaged("the full-text index entries_fts does not agree with the entries", _AGAIN) from error


def _empty_schema() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        _tables(connection)
        return _schema(connection)


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()


def _first(store: Reading, time: int, size: int) -> int:
    """The index of the first of `size` entries that is not before `time`: entry times never go backwards."""
    return bisect_left(range(size), time, key=lambda index: entry.decode(next(store.entries(index, index + 1))).time)


def _whole(out: Path, write: Callable[[Path], None]) -> None:
    """A crash leaves a hidden file and no export."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as private:
            made = Path(private) / out.name
            os.close(os.open(made, os.O_CREAT | os.O_EXCL, 0o600))
            write(made)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.link(made, out)  # unlike a rename, refuses a file that came meanwhile
    except OSError as error:
        raise Misconfigured(f"{out} cannot be written: {error.strerror}", "Nothing was exported") from error


# ------------------------------------------------------------------- the forms


def _write_database(path: Path, proof: Extract, entries: Iterable[bytes]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        db = _tables(connection)
        db.table("proof").insert({"extract": proof.encode().decode()})
        rows = (row(entry.decode(each)) | {"entry": each.decode()} for each in entries)
        db.table("entries").insert_all(rows, batch_size=_PAGE)
        db.table("entries").rebuild_fts()


def _tables(connection: sqlite3.Connection) -> Database:
    """A new database's tables, indexes and views."""
    db = Database(connection, execute_plugins=False)
    db.table("proof").create({"extract": str}, strict=True)
    entries = db.table("entries").create(COLUMNS | {"entry": str}, pk="index", not_null=("time", "kind", "entry"), strict=True)
    for column in ("time", "kind", "actor", "person", "role", "request", "serial", "key"):
        entries.create_index([column])
    entries.enable_fts(_SEARCHED)
    for name, select in _VIEWS.items():
        db.create_view(name, select)
    return db


def _write_lines(path: Path, proof: Extract, entries: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for line in (proof.encode(), *entries):
            file.write(line + b"\n")


def _write_table(path: Path, _proof: Extract, entries: Iterable[bytes]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({name: inert(value) for name, value in row(entry.decode(each)).items()} for each in entries)


_WRITERS: Final = {".db": _write_database, ".jsonl": _write_lines, ".csv": _write_table}
