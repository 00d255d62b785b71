"""Whatever one changes in the file of a log: verifying it says so, or everybody who asks is answered as before."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca.errors import JitSshError
from ca.store.filter import Filter
from ca.store.sqlite import SqliteCopy, SqliteStore
from server import copies
from server.cases import Cases
from tests.test_lifecycle import held
from tests.test_store_sound import INDEXES, rows_of, schema_writable
from tests.test_tampering import copy, live
from tests.world import World

EXAMPLES: Final = 120
PEOPLE: Final = ("ana", "bo", "cy", "di", "eve", "zoe")
KINDS: Final = (
    "genesis",
    "policy",
    "request",
    "issue",
    "refuse",
    "approve",
    "renew",
    "drop",
    "revoke",
    "lock",
    "unlock",
    "review",
)
CELLS: Final = (
    ("entries", "idx"), ("entries", "entry"), ("nodes", "level"), ("nodes", "position"), ("nodes", "hash"),
    ("checkpoints", "size"), ("checkpoints", "note"), ("policy_files", "sha256"), ("policy_files", "content"),
)  # fmt: skip
WORDS: Final = ("'$.kind'", "'$.person'", "'$.actor'", "'$.role'", "'$.request'", "'$.time'", "IS NOT NULL", "'request'")
HEADER: Final = 100  # bytes at the beginning of the file


class Written:
    """A log, the file that it is in, and what everybody is told of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.path = copy(world)
        self.content = self.path.read_bytes()
        self.used = [at for at, byte in enumerate(self.content) if byte or at < HEADER]
        self.answers = self.told()

    def told(self) -> Mapping[str, Any]:
        """All that the store's readers answer, and what follows from it for who waits, holds and may not any more."""
        with closing(SqliteCopy(self.path)) as log:
            size, digests = (
                self.world.store.size(),
                [file for (file,) in self.world.store._reader._rows("SELECT sha256 FROM policy_files")],
            )
            filters = [
                *(Filter(kind=kind) for kind in KINDS),
                *(Filter(actor=person) for person in PEOPLE),
                *(Filter(visible_to=person) for person in PEOPLE),
                *(Filter(case=index) for index in range(size)),
                *(Filter(request=index, start=0) for index in range(size)),
                *(Filter(serial=index) for index in range(size)),
                Filter(role="db-admin", since=0),
            ]
            cases = Cases(self.world.ca, cast("SqliteStore", log))
            ids = [str(found) for (found,) in self.world.store._reader._rows("SELECT statement_id FROM entries") if found]
            return {
                "size": log.size(),
                "entries": list(log.entries(0, size)),
                "selected": [log.select(wanted, 100) for wanted in filters],
                "statements": [log.statement(each) for each in [*ids, "none"]],
                "newest": [log.newest(kind) for kind in KINDS],
                "requests": [log.request(index) for index in range(size)],
                "of whom": [log.requests(who, role, 0, most=9) for who in PEOPLE for role in ("dev", "db-admin", "web-admin")],
                "newest of each": log.newest_requests(0),
                "acted": [log.acted(person) for person in PEOPLE],
                "locked": (log.locked(), log.locks()),
                "reviewed": [log.reviewed(index) for index in range(size)],
                "sessions": [log.session(index) for index in range(size)],
                "checkpoint": log.checkpoint(),
                "proven": all(int((log.checkpoint_over(at) or "none\n0").split("\n")[1]) > at for at in range(size)),
                "nodes": [list(log.nodes(level)) for level in range(6)],
                "files": [log.policy_file(digest) for digest in digests],
                "revoked": cases.revoked(int(self.world.now)),
                "waiting": [case.status for case in map(self._status(cases), range(size)) if case is not None],
            }

    def _status(self, cases: Cases) -> Any:
        return lambda index: cases.of(index, self.world.now) if self.world.store.request(index) else None

    def restore(self) -> None:
        for beside in ("-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + beside).unlink(missing_ok=True)
        self.path.write_bytes(self.content)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    """Ana is locked out, Bo's newest certificate is revoked, Di waits."""
    world = live(World(tmp_path_factory.mktemp("written")))
    held(world)
    assert world.renew("bo", world.store.size() - 2).status_code == 201
    assert world.act("eve", "revoke", "/v1/revocations", person="bo", reason="left").status_code == 200
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="laptop lost").status_code == 200
    assert world.ask("di", role="db-admin", reason="").status_code == 202
    world.adopt(people=world.files["people.toml"].decode() + "# changed\n")
    written = Written(world)
    assert written.answers["locked"][0] == {"ana"}
    assert written.answers["revoked"]
    assert "pending" in written.answers["waiting"]
    copies.check_copy(written.path)
    yield written
    world.store.close()


def flip(written: Written, data: st.DataObject) -> None:
    """A byte of the file, where there is something."""
    at = written.used[data.draw(st.integers(0, len(written.used) - 1), label="byte")]
    changed = bytearray(written.content)
    changed[at] ^= data.draw(st.integers(1, 255), label="bits")
    written.path.write_bytes(changed)


def change_index(written: Written, data: st.DataObject) -> None:
    """A row of an index, and nothing else."""
    index = data.draw(st.sampled_from(sorted(INDEXES)), label="index")
    columns = [name.strip() for name in INDEXES[index].split(",")]
    with rows_of(written.path, index) as bare:
        rows = bare.execute("SELECT * FROM bare").fetchall()
        row, other = (data.draw(st.sampled_from(rows), label=which) for which in ("row", "as"))
        if data.draw(st.booleans(), label="gone"):
            bare.execute("DELETE FROM bare WHERE entry = ?", [row[-1]])
        else:
            column = data.draw(st.integers(0, len(columns)), label="column")
            name = [*columns, "entry"][column]
            bare.execute(f"UPDATE OR REPLACE bare SET {name} = ? WHERE entry = ?", [other[column], row[-1]])  # noqa: S608


def change_cell(written: Written, data: st.DataObject) -> None:
    """A cell of a table, or a row is gone or stands there twice, in a file without triggers; they are put back."""
    table, column = data.draw(st.sampled_from(CELLS), label="column")
    columns = ", ".join(name for where, name in CELLS if where == table)
    with closing(sqlite3.connect(written.path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        values = [value for (value,) in connection.execute(f"SELECT {column} FROM {table}")]  # noqa: S608
        old = data.draw(st.sampled_from(values), label="old")
        new = data.draw(st.sampled_from([*values, -1, 99] if isinstance(old, int) else values), label="new")
        changes = {
            "changed": f"UPDATE OR REPLACE {table} SET {column} = :new WHERE {column} = :old",  # noqa: S608
            "gone": f"DELETE FROM {table} WHERE {column} = :old",  # noqa: S608
            "twice": f"INSERT OR IGNORE INTO {table} ({columns}) SELECT {columns.replace(column, ':new')} FROM {table}"  # noqa: S608
            f" WHERE {column} = :old",
        }
        connection.execute(changes[data.draw(st.sampled_from(sorted(changes)), label="how")], {"old": old, "new": new})
        for _, sql in triggers:
            connection.execute(sql)


def change_schema(written: Written, data: st.DataObject) -> None:
    """A word of a definition; every index is then made anew by it."""
    with schema_writable(written.path) as connection:
        old, new = (data.draw(st.sampled_from(WORDS), label=which) for which in ("word", "instead"))
        having = "SELECT name, sql FROM sqlite_master WHERE instr(sql, ?) ORDER BY name"
        name, sql = data.draw(st.sampled_from(connection.execute(having, [old]).fetchall()), label="definition")
        changed = sql.replace(old, new)
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", [changed, name])
    with closing(sqlite3.connect(written.path)) as connection, suppress(sqlite3.Error):  # no definition any more
        connection.executescript("PRAGMA synchronous = OFF; REINDEX")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(change=st.sampled_from([flip, change_index, change_cell, change_schema]), data=st.data())
def test_any_change_is_told_or_changes_nothing_that_anybody_is_told(written: Written, change: Any, data: st.DataObject) -> None:
    written.restore()
    change(written, data)
    try:
        copies.check_copy(written.path)
    except JitSshError:
        return
    assert written.told() == written.answers
