"""The log in one SQLite file: INSERT and SELECT only, append-only by triggers, durable when a transaction ends.

The searchable columns are generated from the entry's own bytes, so they cannot say anything else. Beside the file, `….checkpoint`
remembers the newest checkpoint: when the database is replaced by an older copy, the two disagree.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

from sqlite_utils import Database, Migrations

from ca.errors import LogDamaged, LogUnwritable, Misconfigured
from ca.merkle import Node
from ca.store.sound import RESTORE, Schema, demand_sound, schema

_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)  # the second for words of a damaged schema in SQLite's own message
_PATIENCE: Final = 10.0  # seconds to wait for another process that writes
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
def _schemas() -> tuple[Schema, ...]:
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


_REQUEST: Final = """
    WITH asked (idx, first, person) AS (SELECT idx, coalesce(request, idx), actor FROM entries WHERE idx = ? AND kind = 'request')
    SELECT idx FROM asked
    UNION ALL SELECT answer.idx FROM asked JOIN entries AS answer INDEXED BY entries_request ON answer.request = asked.idx
        WHERE answer.kind IN ('approve', 'deny', 'withdraw')
    UNION ALL SELECT (SELECT min(idx) FROM entries INDEXED BY entries_request WHERE request = asked.idx AND kind = 'issue')
        FROM asked WHERE EXISTS (SELECT 1 FROM entries INDEXED BY entries_request WHERE request = asked.idx AND kind = 'issue')
    UNION ALL SELECT ending.idx FROM asked JOIN entries AS ending INDEXED BY entries_request ON ending.request = asked.first
        WHERE ending.kind IN ('drop', 'revoke') AND ending.idx > asked.idx
    UNION ALL SELECT ending.idx FROM asked JOIN entries AS ending INDEXED BY entries_person ON ending.person = asked.person
        WHERE ending.kind IN ('revoke', 'lock') AND ending.request IS NULL AND ending.idx > asked.idx
    ORDER BY 1
"""


_VISIBLE: Final = """
    SELECT 0
    UNION SELECT idx FROM entries WHERE actor = ?
    UNION SELECT idx FROM entries WHERE person = ? AND kind IN ('revoke', 'lock', 'unlock', 'break-glass', 'review', 'login')
    UNION SELECT answers.idx FROM entries AS asked JOIN entries AS answers ON answers.request = asked.idx
        WHERE asked.actor = ? AND asked.kind = 'request' AND answers.kind IN ('approve', 'deny')
"""


_OF_CASE: Final = """
    WITH asked (idx) AS (
        SELECT ? UNION SELECT idx FROM entries INDEXED BY entries_request WHERE request = ? AND kind = 'request'
    ),
    told (idx) AS (
        SELECT idx FROM asked
        UNION SELECT about.idx FROM asked JOIN entries AS about INDEXED BY entries_request ON about.request = asked.idx
    )
    SELECT idx FROM told
    UNION SELECT reading.idx FROM told JOIN entries AS reading INDEXED BY entries_request ON reading.request = told.idx
        WHERE reading.kind = 'read'
"""


@dataclass(frozen=True)
class Filter:
    """Which entries to list: all that is given must hold. Times are Unix milliseconds, `since` ≤ time < `until`."""

    actor: str | None = None
    role: str | None = None
    kind: str | None = None
    since: int | None = None
    until: int | None = None
    serial: int | None = None
    request: int | None = None
    start: int | None = None  # index, with it the oldest come first
    before: int | None = None  # index
    among: tuple[int, ...] | None = None  # indices
    case: int | None = None  # the first request of a case: all that names it or one of its requests, and who read it
    visible_to: str | None = None  # a person: only entries of their own or about them, answers to them, and the genesis

    def where(self) -> tuple[str, list[object]]:
        """An SQL condition and its arguments."""
        conditions = [
            ("actor = ?", self.actor),
            ("role = ?", self.role),
            ("kind = ?", self.kind),
            ("time >= ?", self.since),
            ("time < ?", self.until),
            ("idx = ? AND kind = 'issue'", self.serial),
            ("request = ?", self.request),
            ("idx >= ?", self.start),
            ("idx < ?", self.before),
            ("idx IN (SELECT value FROM json_each(?))", None if self.among is None else json.dumps(self.among)),
            (f"idx IN ({_OF_CASE})", self.case),
            (f"idx IN ({_VISIBLE})", self.visible_to),
        ]
        given = [(sql, value) for sql, value in conditions if value is not None]
        return " AND ".join(sql for sql, _ in given) or "true", [value for sql, value in given for _ in range(sql.count("?"))]


class _Session:
    """The statements of the log over one connection: the `Reading` and `Writing` of `ca.log`."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.failure: sqlite3.Error | None = None  # the first of this transaction, which SQLite may have ended then

    def _rows(self, sql: str, *arguments: object) -> Iterator[Any]:
        try:
            for row in self.db.execute(sql, arguments):  # noqa: UP028 - `yield from` closes cursors, also those of a closed database
                yield row
        except _ERRORS as error:
            self._fail(error)

    def _all(self, sql: str, *arguments: object) -> list[Any]:
        """What few rows hold in their first column: in one go, which is what issuing asks for many times."""
        try:
            return [row[0] for row in self.db.conn.execute(sql, arguments).fetchall()]
        except _ERRORS as error:
            self._fail(error)

    def _one(self, sql: str, *arguments: object) -> Any:
        found = self._all(sql, *arguments)
        return found[0] if found else None

    def _fail(self, error: sqlite3.Error | UnicodeDecodeError) -> NoReturn:
        if isinstance(error, sqlite3.Error):
            self.failure = self.failure or error
        undecodable = isinstance(error, UnicodeDecodeError | sqlite3.OperationalError) and not _name(error)  # Python's own
        if undecodable or _name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise LogDamaged(f"the database cannot be read: {error}", RESTORE) from error
        raise error

    def _insert(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        if self.failure:  # whoever met it may have gone on; outside a transaction these rows would stay alone
            raise self.failure
        try:
            self.db.conn.executemany(sql, rows)
        except sqlite3.Error as error:
            self.failure = error
            raise

    def size(self) -> int:
        return int(self._one("SELECT coalesce(max(idx) + 1, 0) FROM entries"))

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        sql = "SELECT entry FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        return map(_source, self._rows(sql, start, end))

    def select(self, wanted: Filter, most: int) -> list[bytes]:
        where, arguments = wanted.where()
        order = "DESC" if wanted.start is None else "ASC"
        sql = f"SELECT entry FROM entries WHERE {where} ORDER BY idx {order} LIMIT ?"  # noqa: S608 - fixed words, bound values
        return [_source(row) for row in self._rows(sql, *arguments, most)]

    def node(self, level: int, position: int) -> bytes:
        found = self._one("SELECT hash FROM nodes WHERE level = ? AND position = ?", level, position)
        if not isinstance(found, bytes):
            raise LogDamaged(f"node {position} of level {level} is missing", RESTORE)
        return found

    def nodes(self, level: int) -> Iterator[bytes]:
        sql = "SELECT position, hash FROM nodes WHERE level = ? ORDER BY position"
        for expected, (position, found) in enumerate(self._rows(sql, level)):
            if position != expected:
                raise LogDamaged(f"node {expected} of level {level} is missing", RESTORE)
            yield found

    def statement(self, statement_id: str) -> int | None:
        found = self._one("SELECT idx FROM entries WHERE statement_id = ?", statement_id)
        return None if found is None else int(found)

    def newest(self, kind: str) -> bytes | None:
        found = self._one("SELECT entry FROM entries WHERE kind = ? ORDER BY idx DESC LIMIT 1", kind)
        return None if found is None else str(found).encode()

    def request(self, index: int) -> list[int]:
        return self._all(_REQUEST, index)

    def requests(self, person: str, role: str, since: int, *, most: int) -> list[int]:
        sql = "SELECT idx FROM entries WHERE actor = ? AND role = ? AND kind = 'request' AND time >= ? ORDER BY idx DESC LIMIT ?"
        return self._all(sql, person, role, since, most)

    def newest_requests(self, since: int) -> list[int]:
        sql = "SELECT max(idx) FROM entries WHERE kind = 'request' AND time >= ? GROUP BY actor, role ORDER BY 1 DESC"
        return [row[0] for row in self._rows(sql, since)]

    def acted(self, person: str) -> bool:
        return self._one("SELECT 1 FROM entries WHERE actor = ? LIMIT 1", person) is not None

    def locked(self) -> frozenset[str]:
        sql = "SELECT person, kind, max(idx) FROM entries WHERE kind IN ('lock', 'unlock') GROUP BY person"
        return frozenset(row[0] for row in self._rows(sql) if row[1] == "lock")  # the kind is that of the largest index

    def lock(self, person: str) -> int | None:
        sql = "SELECT idx FROM entries WHERE person = ? AND kind IN ('lock', 'unlock') ORDER BY idx DESC LIMIT 1"
        found = self._one(sql, person)
        return None if found is None else int(found)

    def reviewed(self, use: int) -> int | None:
        found = self._one("SELECT idx FROM entries INDEXED BY entries_request WHERE request = ? AND kind = 'review'", use)
        return None if found is None else int(found)

    def checkpoint(self) -> str | None:
        found = self._one("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        return None if found is None else str(found)

    def checkpoints(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        sql = "SELECT size, note FROM checkpoints WHERE size >= ? AND size < ? ORDER BY size"
        return ((int(size), str(note)) for size, note in self._rows(sql, start, end))

    def checkpoint_over(self, index: int) -> str | None:
        found = self._one("SELECT note FROM checkpoints WHERE size > ? ORDER BY size LIMIT 1", index)
        return None if found is None else str(found)

    def policy_file(self, digest: str) -> bytes | None:
        found = self._one("SELECT content FROM policy_files WHERE sha256 = ?", digest)
        return None if found is None else bytes(found)

    def demand_sound(self) -> None:
        demand_sound(self._rows, _schemas())

    def generation(self) -> int:
        return int(self._one("PRAGMA data_version"))  # of the commits by other connections than this one

    def add(self, entries: Iterable[tuple[int, bytes]]) -> None:
        self._insert("INSERT INTO entries (idx, entry) VALUES (?, ?)", [(index, source.decode()) for index, source in entries])

    def add_checkpoint(self, size: int, note: str, nodes: Iterable[Node]) -> None:
        self._insert("INSERT INTO nodes (level, position, hash) VALUES (?, ?, ?)", nodes)
        self._insert("INSERT INTO checkpoints (size, note) VALUES (?, ?)", [(size, note)])

    def add_files(self, files: Mapping[str, bytes]) -> None:
        for content in files.values():
            if self.policy_file(digest := sha256(content).hexdigest()) is None:
                self._insert("INSERT INTO policy_files (sha256, content) VALUES (?, ?)", [(digest, content)])


class SqliteStore:
    """A log's store in the file at `path`. Each thread reads over a connection of its own; one at a time writes."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Opens or creates the file and brings its schema up to date.

        Raises `Misconfigured` when it is not there, or when it is there and is to be created.
        """
        if path.exists() == create:
            there = "exists already" if create else "is not there"
            raise Misconfigured(f"the database {path} {there}", "Nothing was changed" if create else RESTORE)
        self.path = path
        self._remembered = path.with_name(path.name + ".checkpoint")
        self._memory = os.open(self._remembered, os.O_WRONLY | os.O_CREAT, 0o600)
        self._threads = threading.local()
        self._turn = threading.Lock()
        self._broken: str | None = None  # after an I/O error nothing that was not read back can be believed: stop
        self._writer = _Session(_connect(path, create=create))
        try:
            with self._transaction() as session:
                migrations.apply(session.db)
        except UnicodeDecodeError as error:
            raise LogDamaged(f"the database {path} cannot be read: {error}", RESTORE) from error

    @property
    def _reader(self) -> _Session:
        if not hasattr(self._threads, "session"):
            self._threads.session = _Session(_connect(self.path))
        session: _Session = self._threads.session
        return session

    def size(self) -> int:
        """How many entries there are."""
        return self._reader.size()

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the entries from `start` up to `end`, in order."""
        return self._reader.entries(start, end)

    def select(self, wanted: Filter, most: int) -> list[bytes]:
        """At most `most` entries that `wanted` describes: the newest, newest first, or those from `wanted.start` on."""
        return self._reader.select(wanted, most)

    def node(self, level: int, position: int) -> bytes:
        """A stored node's hash. Raises `LogDamaged` when it is not there."""
        return self._reader.node(level, position)

    def nodes(self, level: int) -> Iterator[bytes]:
        """All hashes of a level, in order."""
        return self._reader.nodes(level)

    def statement(self, statement_id: str) -> int | None:
        """The index of the entry that this statement caused."""
        return self._reader.statement(statement_id)

    def newest(self, kind: str) -> bytes | None:
        """The bytes of the newest entry of this kind."""
        return self._reader.newest(kind)

    def request(self, index: int) -> list[int]:
        """The entries that say how a request stands; empty if there is none at `index`."""
        return self._reader.request(index)

    def requests(self, person: str, role: str, since: int, *, most: int) -> list[int]:
        """The newest `most` of the person's `request` entries for the role since `since` (Unix milliseconds), newest first."""
        return self._reader.requests(person, role, since, most=most)

    def newest_requests(self, since: int) -> list[int]:
        """The newest request of each person for each role since `since` (Unix milliseconds), newest first."""
        return self._reader.newest_requests(since)

    def acted(self, person: str) -> bool:
        """Whether there is an entry that the person caused."""
        return self._reader.acted(person)

    def locked(self) -> frozenset[str]:
        """Everybody who is locked out."""
        return self._reader.locked()

    def lock(self, person: str) -> int | None:
        """The newest entry that locked or unlocked the person."""
        return self._reader.lock(person)

    def reviewed(self, use: int) -> int | None:
        """The entry that reviewed the use of the emergency key in entry `use`."""
        return self._reader.reviewed(use)

    def checkpoint(self) -> str | None:
        """The newest checkpoint's note."""
        return self._reader.checkpoint()

    def checkpoints(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """Size and note of the checkpoints from the size `start` up to `end`, in order."""
        return self._reader.checkpoints(start, end)

    def checkpoint_over(self, index: int) -> str | None:
        """The note of the first checkpoint that has the entry `index` under it."""
        return self._reader.checkpoint_over(index)

    def policy_file(self, digest: str) -> bytes | None:
        """The policy file with this SHA-256 in hexadecimal."""
        return self._reader.policy_file(digest)

    def demand_sound(self) -> None:
        """Raises `LogDamaged` when what the entries are found by does not agree with them."""
        self._reader.demand_sound()

    def remembered(self) -> str | None:
        """The newest checkpoint's note as kept beside the database, None if nothing is kept."""
        try:
            return self._remembered.read_text(errors="replace") or None
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self) -> Iterator[_Session]:
        """A transaction, durable when the block ends. Raises `LogUnwritable`."""
        with self._transaction() as session:
            yield session
        if (note := self._writer.checkpoint()) is not None:
            # A crash before this leaves an older note beside a newer log, which is allowed. One write, so that a killed process
            # leaves the old note or the new one; a power cut can spoil it, and then nothing is remembered. Notes never shrink.
            try:
                os.pwrite(self._memory, note.encode(), 0)
            except OSError as error:  # what was appended stays; who repeats the statement is answered when this works again
                raise LogUnwritable(f"{self._remembered} cannot be written: {error.strerror}", "Mend the disk") from error

    @contextmanager
    def _transaction(self) -> Iterator[_Session]:
        with self._turn:
            if self._broken:
                raise LogUnwritable(f"the log stopped after an error: {self._broken}", "Mend the disk, then start again")
            self._writer.failure = None
            try:
                self._writer.db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    if self._writer.failure:
                        raise self._writer.failure
                    self._writer.db.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._writer.db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._unwritable(error) from error

    def _unwritable(self, error: sqlite3.Error) -> LogUnwritable:
        if _name(error).startswith(("SQLITE_FULL", "SQLITE_BUSY")):  # rolled back as if nothing was tried
            return LogUnwritable(f"the log cannot be written: {error}", "Make room on the disk, or stop what holds the database")
        self._broken = str(error)
        return LogUnwritable(
            f"the log cannot be written: {error}", "Mend the disk, or restore the newest copy of the database, then start again"
        )

    def settle(self) -> None:
        """Moves what SQLite keeps in its write-ahead log into the file, so that this alone is the whole database.

        Left undone while somebody writes or reads: the next start does it.
        """
        if self._turn.acquire(timeout=1):
            try:
                with suppress(sqlite3.Error):
                    self._writer.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._turn.release()

    def close(self) -> None:
        """Closes this thread's connections."""
        self._writer.db.close()
        os.close(self._memory)
        if hasattr(self._threads, "session"):
            self._reader.db.close()


class SqliteCopy(_Session):
    """A database that nobody writes to, such as a backup: for reading, and nothing of it is changed, not even its schema."""

    def __init__(self, path: Path) -> None:
        """Raises `Misconfigured` when it is not there or is no database."""
        beside = path.with_name(path.name + "-wal")
        how = "mode=ro" if beside.exists() else "immutable=1"  # without a log of its own it may lie where nothing can be written
        try:
            connection = sqlite3.connect(f"{path.resolve(strict=True).as_uri()}?{how}", uri=True, isolation_level=None)
            super().__init__(Database(connection, execute_plugins=False))
            self.db.execute("SELECT count(*) FROM entries LIMIT 0")
        except (OSError, *_ERRORS) as error:
            raise Misconfigured(f"{path} cannot be read as a log's database: {error}", "Give a copy of jit-ssh.db") from error

    def remembered(self) -> str | None:
        """Nothing: what a copy is compared with is the caller's business."""
        return None

    def writing(self) -> NoReturn:
        """Raises `LogUnwritable`."""
        raise LogUnwritable("a copy of a log is not written to")

    def close(self) -> None:
        """Closes the connection."""
        self.db.close()


def _source(row: Sequence[Any]) -> bytes:
    """The bytes of an entry. What is no text was not logged."""
    if not isinstance(row[0], str):
        raise LogDamaged("the database cannot be read: an entry is missing where one should be", RESTORE)
    return row[0].encode()


def _name(error: Exception) -> str:
    """SQLite's extended name of an error; Python's own have none."""
    return str(getattr(error, "sqlite_errorname", ""))


def _connect(path: Path, *, create: bool = False) -> Database:
    """A connection that several threads may use in turn. A file that is created is its owner's alone."""
    try:
        if create:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        db = Database(connection, execute_plugins=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
    except (OSError, *_ERRORS) as error:
        raise Misconfigured(f"the database {path} cannot be opened: {error}") from error
    return db
