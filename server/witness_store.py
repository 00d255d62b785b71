"""The directory of a witness: its key, and the SQLite file with the newest checkpoint that it cosigned of each log.

The rule here: what was cosigned is never forgotten and never shrinks. So the old size is compared and the new checkpoint kept
in one transaction under BEGIN IMMEDIATE, durable (synchronous=FULL) before anything is cosigned, whatever other processes do.
"""

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, signed_alone
from ca.cosignature import WitnessKey, cosign
from ca.errors import JitSshError, LogUnwritable, Misconfigured, NotFound
from ca.signers.file import FileSigner
from ca.signers.file import create as create_key
from ca.wire import Reader
from ca.witness import Conflict, Submission, judge

MOST_EVIDENCE: Final = 100  # contradictions kept of one log: one is enough, and who holds its key could send any number
_PATIENCE: Final = 10.0  # seconds to wait for another process that writes
_RETIRE: Final = "Restore it. If it is lost, retire this witness: make a new one, with a new name and a new key"
_SCHEMA: Final = """
    CREATE TABLE logs (origin TEXT PRIMARY KEY, key TEXT NOT NULL) STRICT;
    CREATE TABLE checkpoints (
        origin TEXT NOT NULL REFERENCES logs, size INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, size)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER checkpoints_grow BEFORE INSERT ON checkpoints
        WHEN NEW.size <= (SELECT max(size) FROM checkpoints WHERE origin = NEW.origin)
        BEGIN SELECT RAISE(ABORT, 'what was cosigned does not shrink'); END;
    CREATE TRIGGER checkpoints_update BEFORE UPDATE ON checkpoints BEGIN SELECT RAISE(ABORT, 'checkpoints stay'); END;
    CREATE TRIGGER checkpoints_newest BEFORE DELETE ON checkpoints
        WHEN OLD.size = (SELECT max(size) FROM checkpoints WHERE origin = OLD.origin)
        BEGIN SELECT RAISE(ABORT, 'the newest checkpoint stays'); END;
    CREATE TABLE evidence (origin TEXT NOT NULL REFERENCES logs, note TEXT NOT NULL, cosigned TEXT NOT NULL) STRICT;
    CREATE UNIQUE INDEX evidence_note ON evidence (origin, note);
"""


@dataclass(frozen=True)
class Watched:
    """A log, the newest note of it that was cosigned, and how many notes its key signed that contradict one cosigned."""

    key: VerifierKey
    note: str | None
    contradictions: int

    @property
    def newest(self) -> Checkpoint | None:
        """What the newest note says. Raises `LogUnwritable` when the log did not sign it."""
        return None if self.note is None else _kept(self.note, self.key)


class Witness:
    """One witness. Safe to use from many threads, and beside other processes on the same directory."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds. Raises `Misconfigured` when something is missing or does not belong together."""
        self._database = directory / "witness.db"
        self._clock = clock
        self._threads = threading.local()
        self._broken: str | None = None
        self.key = _named(directory)
        if not (directory / "key").exists():
            raise Misconfigured(f"{directory / 'key'} is not there: nothing could be cosigned", _RETIRE)
        signer = FileSigner(directory / "key", _no_passphrase)
        raw = Reader(signer.public_key.fields, "the witness's key").string()
        if signer.public_key.algorithm != "ssh-ed25519" or raw != self.key.public_key:
            raise Misconfigured(f"{directory / 'key'} is not the key of {self.key.name}", _RETIRE)
        self._signer = signer
        if not self._database.exists():
            raise Misconfigured(f"{self._database} is not there: nothing would keep this witness to what it cosigned", _RETIRE)

    def add(self, key: VerifierKey) -> None:
        """From now on checkpoints of this log are cosigned. Raises `Misconfigured` when its origin is known with another key."""
        if key.public_key == self.key.public_key:
            raise Misconfigured(f"{key.name} has this witness's own key", "A log does not witness itself")
        with self._transaction() as db:
            known = db.execute("SELECT key FROM logs WHERE origin = ?", [key.name]).fetchone()
            if known and known[0] != str(key):
                raise Misconfigured(f"{key.name} is known with the key {known[0]}", "A log that changed its key is another log")
            db.execute("INSERT OR IGNORE INTO logs (origin, key) VALUES (?, ?)", [key.name, str(key)])

    def logs(self) -> list[Watched]:
        """Every log that is watched."""
        origins = [row[0] for row in self._db.execute("SELECT origin FROM logs ORDER BY origin")]
        return [_watched(self._db, origin) for origin in origins]

    def add_checkpoint(self, body: bytes) -> str:
        """The answer to a submission: the line of this witness's cosignature.

        Raises one of `ca.witness.STATUS`, and `LogUnwritable` when what would be cosigned could not be kept.
        """
        submission = Submission.parse(body)
        log = _watched(self._db, submission.origin)
        # Before the lock: who does not have a log's key makes nobody wait. What others added to the note is not kept.
        submission = replace(submission, note=signed_alone(submission.note, log.key))
        try:
            with self._transaction() as db:
                log = _watched(db, submission.origin)
                checkpoint = judge(submission, log.key, log.newest)
                if checkpoint != log.newest:
                    _keep(db, checkpoint, submission.note)
        except Conflict as error:
            if error.size == submission.old:  # the log signed two roots of one size: that is no mistake
                self._keep_evidence(log, submission.note)
            raise
        # Durable from here on. A crash now leaves what is kept and was not cosigned: the same again, from its own size, gets it.
        return cosign(checkpoint.body(), self.key, int(self._clock()), self._sign).line

    def _keep_evidence(self, log: Watched, note: str) -> None:
        if log.contradictions < MOST_EVIDENCE:
            with self._transaction() as db:
                row = [log.key.name, note, log.note]
                db.execute("INSERT OR IGNORE INTO evidence (origin, note, cosigned) VALUES (?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Durable when the block ends, gone when it raises. Raises `LogUnwritable`."""
        if self._broken:
            raise LogUnwritable(f"the witness stopped after an error: {self._broken}", "Mend the disk, then start again")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if not str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_FULL", "SQLITE_BUSY")):
                self._broken = str(error)  # what was not read back cannot be believed any more
            raise LogUnwritable(f"the witness's database cannot be written: {error}", "Nothing was cosigned") from error

    @property
    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._threads, "db"):
            uri = f"{self._database.resolve().as_uri()}?mode=rw"
            self._threads.db = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
            self._threads.db.execute("PRAGMA synchronous=FULL")
        db: sqlite3.Connection = self._threads.db
        return db

    def _sign(self, message: bytes) -> bytes:
        reader = Reader(self._signer.sign(message), "the witness's signature")
        reader.string()
        return reader.string()


def create(directory: Path, name: str) -> WitnessKey:
    """Makes a new witness with a fresh key. It appears whole or not at all; raises `Misconfigured` when something is there."""
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Misconfigured(f"{directory} is there already and is not empty", "Choose another directory; nothing was changed")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as making:
            fresh = Path(making) / "witness"
            fresh.mkdir(mode=0o700)
            public_key = create_key(fresh / "key", None)
            key = WitnessKey(name, Reader(public_key.fields, "the witness's key").string())
            (fresh / "witness.pub").write_text(f"{key}\n")
            os.close(os.open(fresh / "witness.db", os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(fresh / "witness.db", isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
            fresh.rename(directory)
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be made: {error.strerror}", "Choose another directory") from error
    return key


def _named(directory: Path) -> WitnessKey:
    hint = "Give the directory of a witness, or make one with jit-ssh-ca witness init DIR"
    try:
        return WitnessKey.parse((directory / "witness.pub").read_text().removesuffix("\n"))
    except OSError as error:
        raise Misconfigured(f"{directory / 'witness.pub'} cannot be read: {error.strerror}", hint) from error
    except (UnicodeDecodeError, JitSshError) as error:
        raise Misconfigured(f"{directory / 'witness.pub'} is not a witness's key: {error}", hint) from error


def _watched(db: sqlite3.Connection, origin: str) -> Watched:
    found = db.execute(
        """SELECT key, (SELECT note FROM checkpoints WHERE checkpoints.origin = logs.origin ORDER BY size DESC LIMIT 1),
            (SELECT count(*) FROM evidence WHERE evidence.origin = logs.origin) FROM logs WHERE origin = ?""",
        [origin],
    ).fetchone()
    if found is None:
        raise NotFound(f"this witness does not know a log {origin[:80]!a}", "Its operator adds one with jit-ssh-ca witness add")
    return Watched(VerifierKey.parse(found[0]), found[1], found[2])


def _kept(note: str, key: VerifierKey) -> Checkpoint:
    try:
        return open_checkpoint(note, key)
    except JitSshError as error:
        raise LogUnwritable(f"what this witness kept of {key.name} is damaged: {error.message}", _RETIRE) from error


def _keep(db: sqlite3.Connection, checkpoint: Checkpoint, note: str) -> None:
    row = [checkpoint.origin, checkpoint.size, note]
    db.execute("INSERT INTO checkpoints (origin, size, note) VALUES (?, ?, ?)", row)
    db.execute("DELETE FROM checkpoints WHERE origin = ? AND size < ?", row[:2])


def _no_passphrase(path: Path) -> bytes:
    raise Misconfigured(f"{path} is encrypted", "A witness's key file has no passphrase: it must start alone")
