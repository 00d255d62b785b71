"""Who can write the file leaves every entry, node and checkpoint as it is, and changes what they are found by."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from ca.errors import LogDamaged, LogUnwritable, Misconfigured
from ca.store.schema import migrations
from ca.store.sqlite import SqliteCopy, SqliteStore
from server import copies, verifying
from tests.running import ORIGIN, run
from tests.test_log import change
from tests.test_tampering import copy, live, start
from tests.world import World

INDEXES: Final = {
    "entries_actor": "actor",
    "entries_kind": "kind",
    "entries_of_role": "actor, role, idx",
    "entries_person": "person",
    "entries_request": "request, kind",
    "entries_statement_id": "statement_id",
    "entries_time": "time",
}
REINDEX: Final = "sqlite3 DATABASE REINDEX"
Sqlite = sqlite3.Connection


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A log with something of most kinds, at whose end Ana is locked out. No test writes to it."""
    world = live(World(tmp_path_factory.mktemp("lived")))
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="laptop lost").status_code == 200
    yield world
    world.check()
    world.store.close()


@pytest.fixture
def path(lived: World, tmp_path: Path) -> Path:
    """A copy of its database."""
    return Path(shutil.move(copy(lived), tmp_path / "copy.db"))


@contextmanager
def schema_writable(path: Path) -> Iterator[Sqlite]:
    """For a change of what SQLite believes the file to hold; the next connection sees it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        yield connection


@contextmanager
def rows_of(path: Path, index: str, columns: str = "") -> Iterator[Sqlite]:
    """The rows of an index alone, as a table `bare` of its columns and `entry`, the entry that each row finds."""
    columns = f"{columns or INDEXES[index]}, entry"
    bare = f"CREATE TABLE bare ({columns}, PRIMARY KEY ({columns})) WITHOUT ROWID"
    with schema_writable(path) as connection:
        add = "INSERT INTO sqlite_master SELECT 'table', 'bare', 'bare', rootpage, ? FROM sqlite_master WHERE name = ?"
        assert connection.execute(add, [bare, index]).rowcount == 1
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        yield connection
    with schema_writable(path) as connection:
        connection.execute("DELETE FROM sqlite_master WHERE name = 'bare'")


def refusal(path: Path) -> LogDamaged:
    """What is said of the copy."""
    with pytest.raises(LogDamaged) as refused:
        copies.check_copy(path)
    return refused.value


def test_a_copy_that_nobody_changed_is_sound(path: Path) -> None:
    assert copies.check_copy(path)[1].entries == 11
    with closing(sqlite3.connect(path)) as connection:
        made = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'ent%'")
        }
    assert made == set(INDEXES), "each index is damaged below"


# ------------------------------------------------------------------- indexes


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_that_hides_an_entry_is_found_and_mended(path: Path, index: str) -> None:
    before = copies.check_copy(path)
    with rows_of(path, index) as bare:
        [[hidden]] = bare.execute("SELECT max(entry) FROM bare").fetchall()
        assert bare.execute("DELETE FROM bare WHERE entry = ?", [hidden]).rowcount == 1
    refused = refusal(path)
    assert refused.message == f"the index {index} hides entry {hidden}"
    assert refused.hint is not None
    assert REINDEX in refused.hint
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("REINDEX")
    assert copies.check_copy(path) == before


def test_what_is_wrong_is_told_in_its_turn_also_when_the_indexes_are_looked_at_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_FEW", 1)
    assert copies.check_copy(path)[1].entries == 11
    with rows_of(path, "entries_kind") as connection:
        assert connection.execute("DELETE FROM bare WHERE entry = 10").rowcount == 1
    assert refusal(path).message == "the index entries_kind hides entry 10"
    change(path, "UPDATE entries SET entry = replace(entry, 'ana', 'eva') WHERE idx = 3")
    assert refusal(path).message.startswith("entry 3")


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_that_finds_what_no_entry_says_is_found(path: Path, index: str) -> None:
    first, *others = (name.strip() for name in INDEXES[index].split(","))
    with rows_of(path, index) as bare:
        more = "".join(f", {name}" for name in (*others, "entry"))
        assert bare.execute(f"INSERT INTO bare SELECT 'zoe'{more} FROM bare ORDER BY {first} LIMIT 1").rowcount == 1  # noqa: S608
    assert refusal(path).message == f"the index {index} finds what no entry says"


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_that_finds_another_entry_is_found(path: Path, index: str) -> None:
    with rows_of(path, index) as bare:
        [[taken]] = bare.execute("SELECT max(entry) FROM bare").fetchall()
        assert bare.execute("UPDATE OR REPLACE bare SET entry = 0 WHERE entry = ?", [taken]).rowcount == 1
    assert refusal(path).message == f"the index {index} hides entry {taken}"


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("how", ["emptied", "another's"])
def test_a_damaged_page_of_an_index_is_found(path: Path, index: str, how: str) -> None:
    roots = "SELECT rootpage FROM sqlite_master WHERE name = ?"
    with closing(sqlite3.connect(path)) as connection:
        [[size]] = connection.execute("PRAGMA page_size").fetchall()
        [[page]] = connection.execute(roots, [index]).fetchall()
        [[other]] = connection.execute(roots, ["entries_kind" if index == "entries_actor" else "entries_actor"]).fetchall()
    content = bytearray(path.read_bytes())
    empty = b"\x0a\0\0\0\0" + size.to_bytes(2, "big") + bytes(size - 7)  # a leaf of an index, with no cells
    content[(page - 1) * size : page * size] = empty if how == "emptied" else content[(other - 1) * size : other * size]
    path.write_bytes(content)
    assert f"index {index} hides entry" in refusal(path).message


def test_every_command_that_checks_the_log_finds_a_damaged_index_and_says_what_to_do(tmp_path: Path) -> None:
    ca, backup = tmp_path / "ca", tmp_path / "backup"
    assert run("init", ca, "--origin", ORIGIN).code == 0
    assert run("backup", ca, backup).code == 0
    for database in (ca / "jit-ssh.db", backup / "jit-ssh.db"):
        with rows_of(database, "entries_kind") as bare:
            assert bare.execute("DELETE FROM bare WHERE kind = 'genesis'").rowcount == 1
    commands: list[list[str | Path]] = [
        ["log", "verify", ca],
        ["log", "verify", backup / "jit-ssh.db"],
        ["backup", ca, tmp_path / "another"],
        ["restore", ca, backup],
        ["fingerprint", ca],
        ["serve", ca, "--listen", "127.0.0.1:0"],
    ]
    for command in commands:
        told = run(*command)
        assert (told.code, told.out) == (1, ""), command
        assert "error: the index entries_kind hides entry 0\nhint: The entries are those that were signed." in told.err
        assert REINDEX in told.err
    with closing(sqlite3.connect(ca / "jit-ssh.db")) as connection:
        connection.execute("REINDEX")
    assert run("log", "verify", ca).code == 0


def test_a_lock_that_an_index_hides_is_found_before_anybody_is_let_in(lived: World, path: Path) -> None:
    with rows_of(path, "entries_kind") as bare:
        assert bare.execute("DELETE FROM bare WHERE kind = 'lock'").rowcount == 1
    with closing(SqliteCopy(path)) as hiding:
        assert [*lived.store.locked(), *hiding.locked()] == ["ana"], "she would be let in again"
    with pytest.raises(LogDamaged, match="the index entries_kind hides entry 10"), closing(SqliteStore(path)) as store:
        start(lived, store)


# -------------------------------------------------------------------- schema

DEFINITIONS: Final = {
    "an index of fewer entries": ("entries_person", "person IS NOT NULL", "person IS NOT NULL AND idx <> 10"),
    "an index that takes one word for another": ("entries_actor", "(actor)", "(actor COLLATE NOCASE)"),
    "an index that may hold a statement twice": ("entries_statement_id", "UNIQUE INDEX", "INDEX"),
    "a column that says something else": ("entries", "'$.kind'", "'$.role'"),
    "a place that need not be the entry's": ("entries", "CHECK (idx = json_extract(entry, '$.index'))", ""),
    "a trigger that lets pass": ("entries_delete", "RAISE(ABORT, 'entries is append-only')", "1"),
    "a trigger of nothing": ("nodes_replace", "WHEN EXISTS", "WHEN NOT EXISTS"),
}


@pytest.mark.parametrize(("name", "old", "new"), DEFINITIONS.values(), ids=DEFINITIONS.keys())
def test_a_changed_definition_is_found_also_when_all_agrees_with_it(path: Path, name: str, old: str, new: str) -> None:
    with schema_writable(path) as connection:
        replace = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ? AND instr(sql, ?)"
        assert connection.execute(replace, [old, new, name, old]).rowcount == 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("REINDEX")
    assert refusal(path).message == f"{name} in the database is missing, or defined in another way than jit-ssh does"


@pytest.mark.parametrize("what", ["INDEX entries_time", "TRIGGER entries_update", "TABLE nodes"])
def test_a_definition_that_is_gone_is_found(path: Path, what: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP {what}")
    said = refusal(path).message
    assert "cannot be read: no such table" in said if what == "TABLE nodes" else said.startswith(f"{what.split()[1]} in the")


ASIDE: Final = "aside in the database is not jit-ssh's, and could change what is written"
KEEPS_LOCKS_OUT: Final = "INDEX aside ON entries (CASE WHEN json_extract(entry, '$.kind') = 'lock' THEN json('{') END)"
LATER: Final = {
    "a trigger": "TRIGGER aside AFTER INSERT ON policy_files BEGIN DELETE FROM policy_files; END",
    "an index by an expression": KEEPS_LOCKS_OUT.replace("'lock'", "'unlock'"),
    "an index of some": "INDEX aside ON Entries (idx) WHERE CASE kind WHEN 'unlock' THEN json('{') END",
    "an index of what is there once": "UNIQUE INDEX aside ON entries (kind) WHERE kind = 'lock'",
    "an index of a column": "INDEX aside ON entries (kind, time)",
    "an index of nodes": "UNIQUE INDEX aside ON nodes (level) WHERE level = 4",
    "an index of checkpoints": "UNIQUE INDEX aside ON checkpoints (note)",
    "an index of policy files": "UNIQUE INDEX aside ON policy_files (content)",
}


@pytest.mark.parametrize("made", LATER.values(), ids=LATER.keys())
def test_what_would_change_later_entries_is_found(path: Path, made: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE {made}")
    refused = refusal(path)
    assert refused.message == ASIDE
    assert "drop it if it is your own" in (refused.hint or "")


def test_an_index_that_keeps_locks_from_being_written_is_found_at_the_next_start(world: World) -> None:
    with closing(sqlite3.connect(world.directory / "log.db")) as connection:
        connection.execute(f"CREATE {KEEPS_LOCKS_OUT}")
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="laptop lost").status_code == 503
    world.reopen()
    with pytest.raises(LogDamaged, match=ASIDE):
        start(world, world.store)


@pytest.mark.parametrize("called", ["ENTRIES", "notes"])
def test_an_index_is_on_the_logs_table_whatever_the_schema_calls_that(path: Path, called: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE notes (text); CREATE INDEX aside ON entries (kind, time)")
    with schema_writable(path) as connection:
        assert connection.execute("UPDATE sqlite_master SET tbl_name = ? WHERE name = 'aside'", [called]).rowcount == 1
    if called == "ENTRIES":
        assert refusal(path).message == ASIDE
    else:
        with pytest.raises(Misconfigured, match=r"malformed database schema \(aside\)"):  # SQLite's own finding
            copies.check_copy(path)


def test_what_an_operator_adds_to_read_the_log_is_no_damage(path: Path) -> None:
    before = copies.check_copy(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """CREATE VIEW issued AS SELECT * FROM entries WHERE kind = 'issue';
            CREATE TABLE notes (text); CREATE UNIQUE INDEX mine ON notes (text); ANALYZE"""
        )
    assert copies.check_copy(path) == before


def test_a_backup_from_before_the_last_migration_is_sound(path: Path) -> None:
    """It has the columns and indexes that there were."""
    before = copies.check_copy(path)
    with closing(sqlite3.connect(path)) as connection:
        for index in ("entries_of_role", "entries_request", "entries_person"):
            connection.execute(f"DROP INDEX {index}")
        connection.execute("ALTER TABLE entries DROP COLUMN person")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'lifecycle'")
        connection.commit()
    assert copies.check_copy(path) == before
    SqliteStore(path).close()
    assert copies.check_copy(path) == before
    with closing(SqliteCopy(path)) as migrated:
        assert migrations.pending(migrated.db) == []


# ------------------------------------------------- rows that nothing vouches for

UNLOCK: Final = """replace(replace(replace(entry, '"index":10', '"index":-1'), '"lock"', '"unlock"'), '-7', '-8')
    FROM entries WHERE idx = 10"""
SURPLUS: Final = {
    "an entry before the first": (f"INSERT INTO entries (idx, entry) SELECT -1, {UNLOCK}", "there is an entry -1"),
    "a node of the next entry": ("INSERT INTO nodes VALUES (0, 11, zeroblob(32))", "there is a node 11 of level 0"),
    "a node of the next pair": ("INSERT INTO nodes VALUES (2, 2, zeroblob(32))", "there is a node 2 of level 2"),
    "a node above the tree": ("INSERT INTO nodes VALUES (70, 0, zeroblob(32))", "there is a node 0 of level 70"),
    "a node below it": ("INSERT INTO nodes VALUES (-1, 0, zeroblob(32))", "there is a node 0 of level -1"),
    "a node to the left": ("INSERT INTO nodes VALUES (0, -1, zeroblob(32))", "node 0 of level 0 is missing"),
    "a checkpoint of less than nothing": ("INSERT INTO checkpoints VALUES (-1, 'note')", "there is a checkpoint at -1 entries"),
    "a checkpoint of more than there is": (
        "INSERT INTO checkpoints SELECT 99, note FROM checkpoints WHERE size = 11",
        "there is a checkpoint at 99 entries",
    ),
    "a policy file under another's name": (
        "INSERT INTO policy_files SELECT replace(sha256, 'a', 'b'), content FROM policy_files LIMIT 1",
        "the policy file ",
    ),
}


@pytest.mark.parametrize(("statement", "message"), SURPLUS.values(), ids=SURPLUS.keys())
def test_a_row_that_the_log_does_not_have_is_found(path: Path, statement: str, message: str) -> None:
    change(path, statement)
    assert refusal(path).message.startswith(message)


def test_a_database_that_cannot_be_opened_is_let_go(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        [[page, size]] = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = '_sqlite_migrations'"
        ).fetchall()
    whole = path.read_bytes()
    path.write_bytes(whole[: (page - 1) * size] + bytes(size) + whole[page * size :])
    with pytest.raises(LogUnwritable, match="malformed") as kept:
        SqliteStore(path)
    assert kept.value.__traceback__ is not None, "whose frames have what was opened"
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [each for each in opened if each.name.startswith(path.name)], "a lock would stay until it is collected"
