"""`ca.store.sqlite`: the file itself refuses changes, is private and durable, and other programs can read it while it grows."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from ca.errors import LogUnwritable, Misconfigured
from ca.store.filter import Filter
from ca.store.sqlite import SqliteStore
from tests.world import World

TABLES = ("entries", "nodes", "checkpoints", "policy_files")
COLUMNS = {
    "entries": "idx, entry",
    "nodes": "level, position, hash",
    "checkpoints": "size, note",
    "policy_files": "sha256, content",
}
SQLITE_UTILS = str(Path(sys.executable).with_name("sqlite-utils"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A log in which every table has rows: a granted request and a refused one. No test of it succeeds in a change."""
    world = World(tmp_path_factory.mktemp("filled"))
    world.ask("ana")
    world.ask("bo")
    yield world
    world.check()
    world.store.close()


@pytest.fixture
def plain(filled: World) -> Iterator[sqlite3.Connection]:
    """A connection as any program would open it: recursive triggers are off, so REPLACE fires no delete trigger."""
    with closing(sqlite3.connect(filled.store.path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA recursive_triggers").fetchone() == (0,)
        yield connection


def contents(world: World) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(world.store.path)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}  # noqa: S608


def newest_request(world: World) -> str:
    return next(source.decode() for source in world.store.select(Filter(kind="request"), 1))


# ----------------------------------------------------------------- append-only

CHANGES = [
    "UPDATE {table} SET ({columns}) = ({columns})",
    "UPDATE OR REPLACE {table} SET {first} = {first} + 1",
    "DELETE FROM {table}",
    "INSERT OR REPLACE INTO {table} ({columns}) SELECT {columns} FROM {table}",
    "REPLACE INTO {table} ({columns}) SELECT {columns} FROM {table} LIMIT 1",
    "INSERT OR IGNORE INTO {table} ({columns}) SELECT {columns} FROM {table}",
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE true ON CONFLICT DO UPDATE SET {last} = excluded.{last}",
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("table", TABLES)
def test_no_row_of_any_table_is_changed_removed_or_replaced(
    filled: World, plain: sqlite3.Connection, table: str, change: str
) -> None:
    columns = COLUMNS[table]
    first, last = columns.split(", ")[0], columns.split(", ")[-1]
    before = contents(filled)
    with pytest.raises(sqlite3.IntegrityError, match=f"^{table} is append-only$"):
        plain.execute(change.format(table=table, columns=columns, first=first, last=last))
    assert contents(filled) == before


@pytest.mark.parametrize("table", TABLES)
def test_sqlite_utils_cannot_change_a_row_either(filled: World, table: str) -> None:
    before = contents(filled)
    with closing(sqlite3.connect(filled.store.path)) as connection:
        rows = Database(connection).table(table)
        row = {name: value for name, value in next(rows.rows).items() if name in COLUMNS[table]}
        key = tuple(row[name] for name in rows.pks)
        for attempt in (
            lambda: rows.delete(key),
            lambda: rows.delete_where("true"),
            lambda: rows.update(key, row),
            lambda: rows.insert(row, replace=True),
            lambda: rows.upsert(row, pk=rows.pks),
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                attempt()  # type: ignore[no-untyped-call]  # sqlite-utils' own
            connection.rollback()
    assert contents(filled) == before


@pytest.mark.parametrize("index", [-1, 0, 3, 6, 2**62, None])
def test_an_entry_goes_to_the_end_or_nowhere(filled: World, plain: sqlite3.Connection, index: int | None) -> None:
    assert filled.store.size() == 5
    with pytest.raises(sqlite3.IntegrityError):
        plain.execute("INSERT OR REPLACE INTO entries (idx, entry) VALUES (?, ?)", [index, json.dumps({"index": index})])
    assert filled.store.size() == 5


def test_the_next_entry_is_taken(filled: World, plain: sqlite3.Connection) -> None:
    plain.execute("BEGIN")
    plain.execute("INSERT INTO entries (idx, entry) VALUES (5, ?)", [json.dumps({"index": 5})])
    assert plain.execute("SELECT count(*) FROM entries").fetchone() == (6,)
    plain.execute("ROLLBACK")
    assert filled.check().entries == 5


def test_an_entry_stands_where_it_says(plain: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        plain.execute("INSERT INTO entries (idx, entry) VALUES (5, ?)", [json.dumps({"index": 4})])


def test_a_statement_cannot_replace_the_entry_that_it_caused(filled: World, plain: sqlite3.Connection) -> None:
    copy = json.loads(newest_request(filled)) | {"index": 5}
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        plain.execute("INSERT OR REPLACE INTO entries (idx, entry) VALUES (5, ?)", [json.dumps(copy)])
    fresh = json.loads(copy["statement"]) | {"id": "another"}
    plain.execute("BEGIN")
    plain.execute("INSERT INTO entries (idx, entry) VALUES (5, ?)", [json.dumps(copy | {"statement": json.dumps(fresh)})])
    plain.execute("ROLLBACK")


def test_a_checkpoint_of_an_earlier_size_is_not_added_later(plain: sqlite3.Connection) -> None:
    plain.execute("BEGIN")
    plain.execute("INSERT INTO checkpoints (size, note) VALUES (9, 'note')")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        plain.execute("INSERT INTO checkpoints (size, note) VALUES (7, 'note')")


def test_the_searchable_columns_cannot_say_something_else_than_the_entry(plain: sqlite3.Connection) -> None:
    for column in ("time", "kind", "actor", "role", "request", "statement_id"):
        with pytest.raises(sqlite3.OperationalError, match="generated column"):
            plain.execute(f"INSERT INTO entries (idx, entry, {column}) VALUES (5, '{{\"index\":5}}', 'x')")  # noqa: S608


# ------------------------------------------------------ durable, private, whole


def test_a_commit_waits_for_the_disk(world: World) -> None:
    assert world.store._writer._one("PRAGMA journal_mode") == "wal"
    assert world.store._writer._one("PRAGMA synchronous") == 2, "FULL: in WAL mode, an fsync at each commit"
    assert world.store._writer._one("PRAGMA busy_timeout") == 10_000


def test_all_files_of_the_log_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        world = World(tmp_path)
        world.ask("ana")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("log.db*")}
    assert modes == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm", "log.db.checkpoint"), 0o600)
    world.store.close()


def test_a_database_is_not_created_over_another(world: World) -> None:
    with pytest.raises(Misconfigured, match="exists already"):
        SqliteStore(world.store.path, create=True)
    world.check()


def test_a_database_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is not there"):
        SqliteStore(tmp_path / "typo.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database" * 500)
    with pytest.raises(Misconfigured, match="cannot be opened"):
        SqliteStore(tmp_path / "log.db")


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("CREATE TABLE entries (title TEXT)")
    with pytest.raises(LogUnwritable, match="entries already exists"):
        SqliteStore(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("entries",)]


def test_opening_it_again_changes_nothing(filled: World) -> None:
    before = contents(filled)
    for _ in range(3):
        SqliteStore(filled.store.path).close()
    assert contents(filled) == before


def test_policy_files_are_kept_once_by_their_digest(world: World) -> None:
    count = "SELECT count(*) FROM policy_files"
    assert world.store._writer._one(count) == len(world.files)
    people = world.files["people.toml"].decode()
    world.adopt(people=people + "\n")
    world.adopt(people=people)
    assert world.store._writer._one(count) == len(world.files) + 1


# ------------------------------------------------------------- read by everybody


@pytest.fixture
def growing(world: World) -> Iterator[World]:
    """A log to which a thread appends until the test ends."""
    stop, began = threading.Event(), threading.Event()

    def ask() -> None:
        client = world.http.application.test_client()
        while not stop.is_set():
            assert client.post("/v1/requests", json=world.body("ana")).status_code == 201
            began.set()

    thread = threading.Thread(target=ask)
    thread.start()
    began.wait()
    yield world
    stop.set()
    thread.join()
    world.check()


def said(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_sqlite3_program_reads_the_log_while_it_grows(growing: World) -> None:
    sizes = "SELECT (SELECT count(*) FROM entries), (SELECT max(idx) + 1 FROM entries), (SELECT max(size) FROM checkpoints)"
    for _ in range(5):
        counted, following, signed = said("sqlite3", growing.store.path, sizes).split("|")
        assert int(counted) == int(following) == int(signed) > 2
    assert said("sqlite3", growing.store.path, "PRAGMA integrity_check") == "ok\n"


def test_sqlite_utils_reads_the_log_while_it_grows(growing: World) -> None:
    by_kind = "SELECT kind, count(*) AS n FROM entries WHERE idx < 4 GROUP BY kind ORDER BY kind"
    found = json.loads(said(SQLITE_UTILS, growing.store.path, by_kind))
    assert found == [{"kind": kind, "n": 1} for kind in ("genesis", "issue", "policy", "request")]
    assert json.loads(said(SQLITE_UTILS, "rows", growing.store.path, "entries", "--limit", "1"))[0]["kind"] == "genesis"


def test_neither_program_can_change_it_while_it_grows(growing: World) -> None:
    delete = "DELETE FROM entries WHERE idx = 2"
    path = str(growing.store.path)
    for command in (["sqlite3", "-cmd", ".timeout 10000", path, delete], [SQLITE_UTILS, path, delete]):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "entries is append-only" in refused.stderr


# ------------------------------------------------------------------ the listing


def indexes(world: World, most: int = 100, **wanted: str | int) -> list[int]:
    found = world.store.select(Filter(**wanted), most)  # type: ignore[arg-type]  # the test's words are the fields'
    return [json.loads(source)["index"] for source in found]


def test_the_newest_come_first_unless_a_start_is_given(filled: World) -> None:
    assert indexes(filled) == [4, 3, 2, 1, 0]
    assert indexes(filled, start=1) == [1, 2, 3, 4]
    assert indexes(filled, most=2) == [4, 3]
    assert indexes(filled, before=2) == [1, 0]


def test_each_filter_narrows_the_list(filled: World) -> None:
    now = int(filled.now * 1000)
    assert indexes(filled, actor="ana") == [3, 2]
    assert indexes(filled, kind="refuse") == [4]
    assert indexes(filled, role="web-admin") == [4, 3, 2]
    assert indexes(filled, serial=3) == [3]
    assert indexes(filled, serial=2) == [], "a request is no certificate"
    assert indexes(filled, since=now, until=now + 1) == [4, 3, 2, 1, 0]
    assert indexes(filled, until=now) == indexes(filled, since=now + 1) == []
    assert indexes(filled, visible_to="bo") == [4, 0]
    assert indexes(filled, visible_to="bo", actor="ana") == []


@pytest.mark.parametrize("hostile", ["x' OR '1'='1", "ana' --", "%", "_na", "*", "ANA", "ana\0"])
def test_a_filter_is_a_value_and_never_sql(filled: World, hostile: str) -> None:
    assert indexes(filled, actor=hostile) == indexes(filled, visible_to=hostile, start=1) == []
