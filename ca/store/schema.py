"""The database's tables, their indexes, and the triggers that let it only grow."""

import sqlite3
from contextlib import closing
from functools import cache
from typing import Final

from sqlite_utils import Database, Migrations

from ca.store.sound import Schema, schema

migrations = Migrations("jit-ssh")


@migrations()
def append_only_log(db: Database) -> None:
    """Entries, the tree's nodes, checkpoints and policy files."""
    for statement in _SCHEMA:
        db.execute(statement)


@migrations()
def lifecycle(db: Database) -> None:
    """What the cases of requests are found by."""
    db.execute("ALTER TABLE entries ADD COLUMN person TEXT AS (json_extract(entry, '$.person'))")
    db.execute("CREATE INDEX entries_of_role ON entries (actor, role, idx) WHERE kind = 'request'")
    db.execute("CREATE INDEX entries_request ON entries (request, kind) WHERE request IS NOT NULL")
    db.execute("CREATE INDEX entries_person ON entries (person) WHERE person IS NOT NULL")


@cache
def schemas() -> tuple[Schema, ...]:
    """What a database defines after each of the migrations: a backup may be from before the last one."""
    with closing(sqlite3.connect(":memory:")) as connection:
        db, found = Database(connection, execute_plugins=False), list[Schema]()
        for migration in migrations.pending(db):
            migration.fn(db)
            found.append(schema(connection))
        return tuple(found)


def _refusals(table: str, stands: str) -> list[str]:
    """No row is changed or removed. The third trigger is for INSERT OR REPLACE, which fires no delete trigger by default."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    return [
        f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN {stands} {refuse}",
    ]


_SCHEMA: Final = [
    """CREATE TABLE entries (
        idx INTEGER PRIMARY KEY CHECK (idx = json_extract(entry, '$.index')),
        entry TEXT NOT NULL,
        time INTEGER AS (json_extract(entry, '$.time')),
        kind TEXT AS (json_extract(entry, '$.kind')),
        actor TEXT AS (json_extract(entry, '$.actor')),
        role TEXT AS (json_extract(entry, '$.role')),
        request INTEGER AS (json_extract(entry, '$.request')),
        statement_id TEXT AS (json_extract(json_extract(entry, '$.statement'), '$.id'))
    ) STRICT""",
    "CREATE UNIQUE INDEX entries_statement_id ON entries (statement_id) WHERE statement_id IS NOT NULL",
    "CREATE INDEX entries_actor ON entries (actor)",
    "CREATE INDEX entries_time ON entries (time)",
    "CREATE INDEX entries_kind ON entries (kind)",
    """CREATE TABLE nodes (
        level INTEGER, position INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, position)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT",
    "CREATE TABLE policy_files (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID",
    *_refusals(
        "entries",
        "NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM entries)"
        " OR EXISTS (SELECT 1 FROM entries WHERE statement_id = json_extract(json_extract(NEW.entry, '$.statement'), '$.id'))",
    ),
    *_refusals("nodes", "EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position)"),
    *_refusals("checkpoints", "NEW.size <= (SELECT max(size) FROM checkpoints)"),
    *_refusals("policy_files", "EXISTS (SELECT 1 FROM policy_files WHERE sha256 = NEW.sha256)"),
]
