"""What else stands in the database than entries, nodes and checkpoints: the schema, and the indexes that entries are found by.

An index that leaves out a lock hides it from whoever asks for locks, though the entry is there and proven. So verifying is not
over before every index finds exactly what the entries say, by the definitions that `ca.store.sqlite` made, and no row is left
that was not proven.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, Protocol

from ca.errors import LogDamaged

RESTORE: Final = "Restore the newest copy of the database"
_DROP: Final = "Stop the server and drop it if it is your own; else restore the newest copy of the database"
_REINDEX: Final = (
    "The entries are those that were signed. Keep a copy to look into, stop the server, and run: sqlite3 DATABASE REINDEX"
)
_HIDES: Final = re.compile(r"row (\d+) missing from index (entries_\w+)")
_ADDS: Final = re.compile(r"wrong # of entries in index (entries_\w+)")
_INERT: Final = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ", "CREATE VIEW ")  # of their own; SQLite spells so
_OWN: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL"

# Each has to find nothing. What is appended meanwhile comes with its nodes and checkpoint at once, and each is one statement.
_SURPLUS: Final = {
    "an entry {}": "SELECT idx FROM entries WHERE idx < 0 LIMIT 1",
    "a node {1} of level {0}": """SELECT level, position FROM nodes, (SELECT coalesce(max(idx) + 1, 0) AS size FROM entries)
        WHERE level < 0 OR position < 0 OR position >= size >> level LIMIT 1""",
    "a checkpoint at {} entries": """SELECT size FROM checkpoints
        WHERE size < 1 OR size > (SELECT coalesce(max(idx) + 1, 0) FROM entries) LIMIT 1""",
}


class Rows(Protocol):
    """Asks a database."""

    def __call__(self, sql: str, /) -> Iterator[Any]:
        """The rows that it answers."""


Schema = frozenset[tuple[str, str, str, str]]


def schema(connection: sqlite3.Connection) -> Schema:
    """All that a database defines, but for what the migrations keep for themselves."""
    return frozenset(row for row in connection.execute(_OWN) if "_sqlite_migrations" not in row[2])


def demand_sound(rows: Rows, schemas: Sequence[Schema]) -> None:
    """Compares the database with one of `schemas`, each index with the entries, and looks for rows that nothing proves.

    It says nothing of what others have to prove: entries, nodes and checkpoints. Raises `LogDamaged`, naming the first thing
    that is wrong. Reads all of the database, in constant memory; others may append meanwhile.
    """
    _demand_schema(frozenset(rows(_OWN)), schemas)
    for (told,) in rows("PRAGMA integrity_check(1)"):
        if told != "ok":
            raise _damaged(str(told))
    for what, sql in _SURPLUS.items():
        for found in rows(sql):
            raise LogDamaged(f"there is {what.format(*found)}, which the log does not have", RESTORE)
    for digest, content in rows("SELECT sha256, content FROM policy_files"):
        if sha256(content).hexdigest() != digest:
            raise LogDamaged(f"the policy file {digest} was changed: its SHA-256 is another one", RESTORE)


def _demand_schema(found: Schema, schemas: Sequence[Schema]) -> None:
    own = next((each for each in reversed(schemas) if each <= found), None)
    if own is None:
        name = min(schemas[-1] - found, key=lambda row: row[1])[1]
        raise LogDamaged(f"{name} in the database is missing, or defined in another way than jit-ssh does", RESTORE)
    tables = {table.lower() for _, _, table, _ in own}  # a row of the schema names a table as SQLite does, but for case
    for _, name, table, sql in sorted(found - own):
        if table.lower() in tables or not sql.startswith(_INERT):  # also an index can keep an entry out: it is computed from it
            raise LogDamaged(f"{name} in the database is not jit-ssh's, and could change what is written", _DROP)


def _damaged(told: str) -> LogDamaged:
    """SQLite's finding, in words for who has to act on it."""
    if hides := _HIDES.match(told):
        return LogDamaged(f"the index {hides[2]} hides entry {int(hides[1]) - 1}", _REINDEX)
    if adds := _ADDS.match(told):
        return LogDamaged(f"the index {adds[1]} finds what no entry says", _REINDEX)
    return LogDamaged(f"the database does not agree with itself: {told.splitlines()[-1][:200]}", RESTORE)
