"""The log in one SQLite file: INSERT and SELECT only, append-only by triggers, durable when a transaction ends.

The searchable columns are generated from the entry's own bytes, so they cannot say anything else. Beside the file, `….checkpoint`
remembers the newest checkpoint: when the database is replaced by an older copy, the two disagree.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from sqlite_utils import Database

from ca.errors import LogDamaged, LogUnwritable, Misconfigured
from ca.store.filter import Filter
from ca.store.schema import migrations
from ca.store.session import ERRORS, Session, error_name
from ca.store.sound import RESTORE

_PATIENCE: Final = 10.0  # seconds to wait for another process that writes


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
        self._writer = Session(_connect(path, create=create))
        try:
            with self._transaction() as session:
                migrations.apply(session.db)
        except BaseException as error:
            self.close()  # what it holds locked would be so until somebody collects it, and the next one waits
            if isinstance(error, UnicodeDecodeError):
                raise LogDamaged(f"the database {path} cannot be read: {error}", RESTORE) from error
            raise

    @property
    def _reader(self) -> Session:
        if not hasattr(self._threads, "session"):
            self._threads.session = Session(_connect(self.path))
        session: Session = self._threads.session
        return session

    def size(self) -> int:
        """How many entries there are."""
        return self._reader.size()

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the entries from `start` up to `end`, in order."""
        return self._reader.entries(start, end)

    def numbered(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The same, each with the index that it stands at."""
        return self._reader.numbered(start, end)

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

    def locks(self) -> Mapping[str, int]:
        """The newest entry that locked or unlocked each person who ever was."""
        return self._reader.locks()

    def reviewed(self, use: int) -> int | None:
        """The entry that reviewed the use of the emergency key in entry `use`."""
        return self._reader.reviewed(use)

    def session(self, use: int) -> list[int]:
        """The `break-glass` entries of all lines that one run of a kit wrote: that of the use in entry `use`, in order."""
        return self._reader.session(use)

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
    def writing(self) -> Iterator[Session]:
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
    def _transaction(self) -> Iterator[Session]:
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
        if error_name(error).startswith(("SQLITE_FULL", "SQLITE_BUSY")):  # rolled back as if nothing was tried
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


class SqliteCopy(Session):
    """A database that nobody writes to, such as a backup: for reading, and nothing of it is changed, not even its schema."""

    def __init__(self, path: Path) -> None:
        """Raises `Misconfigured` when it is not there or is no database."""
        self._path, beside = path, path.with_name(path.name + "-wal")
        how = "mode=ro" if beside.exists() else "immutable=1"  # without a log of its own it may lie where nothing can be written
        try:
            connection = sqlite3.connect(f"{path.resolve(strict=True).as_uri()}?{how}", uri=True, isolation_level=None)
            super().__init__(Database(connection, execute_plugins=False))
            self.db.execute("SELECT count(*) FROM entries LIMIT 0")
        except (OSError, *ERRORS) as error:
            raise Misconfigured(f"{path} cannot be read as a log's database: {error}", "Give a copy of jit-ssh.db") from error

    def remembered(self) -> str | None:
        """Nothing: what a copy is compared with is the caller's business."""
        return None

    def demand_sound(self) -> None:
        """As a session does, over a connection of its own: any thread may ask, and nobody else's reading waits for it."""
        with closing(SqliteCopy(self._path)) as another:
            Session.demand_sound(another)

    def writing(self) -> NoReturn:
        """Raises `LogUnwritable`."""
        raise LogUnwritable("a copy of a log is not written to")

    def close(self) -> None:
        """Closes the connection."""
        self.db.close()


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
    except (OSError, *ERRORS) as error:
        raise Misconfigured(f"the database {path} cannot be opened: {error}") from error
    return db
