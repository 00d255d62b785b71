"""What a CA remembers of its witnesses: the file `….witnessed` beside the database, append-only.

It is a file of its own because a commit of the log must not wait for it, and because an older copy of the database is noticed
by it. Losing it loses no proof: whoever got a certificate has the cosignatures in it, and the witnesses remember by themselves.
"""

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

from ca.checkpoint import VerifierKey
from ca.cosignature import Cosignature, WitnessKey
from ca.errors import Misconfigured

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS answers (
        id INTEGER PRIMARY KEY, log TEXT NOT NULL, witness TEXT NOT NULL, size INTEGER NOT NULL, line TEXT, alarm TEXT,
        CHECK ((line IS NULL) <> (alarm IS NULL))
    ) STRICT;
    CREATE INDEX IF NOT EXISTS answers_witness ON answers (log, witness, id);
    CREATE TRIGGER IF NOT EXISTS answers_update BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS answers_delete BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
"""
_PACE: Final = 1.0  # seconds between two rows of a witness: under load there are many cosignatures a second
_INSERT: Final = "INSERT INTO answers (log, witness, size, line, alarm) VALUES (?, ?, ?, ?, ?)"


class Cosigned:
    """The answers of witnesses that were kept. Safe to use from many threads."""

    def __init__(self, path: Path, log: VerifierKey) -> None:
        """Opens or makes the file; `log` is whose checkpoints are cosigned. Raises `Misconfigured`."""
        self._log = str(log)
        self._turn = Lock()  # owns all of:
        self._newest: dict[WitnessKey, tuple[int, str]] = {}  # what is not kept yet: size and line
        self._kept: dict[WitnessKey, float] = {}  # when something was, by the monotonic clock
        try:
            path.touch(0o600, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            # Not FULL: what a power cut takes is asked for again, and a witness's own memory is durable.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            hint = f"Remove {path.name}, {path.name}-wal and {path.name}-shm: the witnesses remember by themselves"
            raise Misconfigured(f"{path} cannot be used: {error}", hint) from error

    def keep(self, size: int, cosignature: Cosignature) -> None:
        """That a witness cosigned the checkpoint of this size: the newest of each second, at the latest with the next or `flush`.

        What cannot be kept is not: it was cosigned all the same.
        """
        with self._turn:
            self._newest[cosignature.witness] = size, cosignature.line
            due = time.monotonic() >= self._kept.get(cosignature.witness, 0) + _PACE
        if due:
            self.flush()

    def flush(self) -> None:
        """Keeps what was not kept yet."""
        with self._turn:
            newest, self._newest = self._newest, {}
            self._kept |= dict.fromkeys(newest, time.monotonic())
        for witness, (size, line) in newest.items():
            self._add(str(witness), size, line, None)

    def alarm(self, size: int, witness: WitnessKey, sentence: str) -> None:
        """That a witness has seen another history than this log of so many entries."""
        self.flush()
        self._add(str(witness), size, None, sentence)

    def largest(self, witness: WitnessKey) -> int:
        """The size of the largest checkpoint that the witness cosigned, as far as is remembered; else 0."""
        return int(self._one("SELECT max(size) FROM answers WHERE log = ? AND witness = ? AND line IS NOT NULL", witness) or 0)

    def alarmed(self, witness: WitnessKey) -> str | None:
        """The alarm, if that is the newest that is remembered of the witness."""
        found = self._one("SELECT alarm FROM answers WHERE log = ? AND witness = ? ORDER BY id DESC LIMIT 1", witness)
        return None if found is None else str(found)

    def _one(self, sql: str, witness: WitnessKey) -> Any:
        with self._turn:
            row = self._db.execute(sql, [self._log, str(witness)]).fetchone()
        return None if row is None else row[0]

    def _add(self, *row: object) -> None:
        with suppress(sqlite3.Error), self._turn:
            self._db.execute(_INSERT, [self._log, *row])
