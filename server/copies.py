"""Copies of a CA: a backup that was verified before it is called one, and the way back, which never goes backwards.

A backup is a directory with the log's database as one file, its newest checkpoint, `ca.toml` and the policies. The keys are not
in it: whoever finds it can read the log and issue nothing.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from ca import merkle
from ca.checkpoint import Checkpoint, open_checkpoint
from ca.errors import JitSshError, LogDamaged, Misconfigured, SignerFailed
from ca.issue import begun_by
from ca.log import Log
from ca.store.sound import RESTORE
from ca.store.sqlite import SqliteCopy
from ca.trust import Trust
from ca.verify import Report
from server import config
from server.config import Config
from server.verifying import verify_all

DATABASE: Final = "jit-ssh.db"  # in a backup, whatever the CA calls its own
KEEP: Final = "Nothing was changed"


def check_copy(path: Path) -> tuple[Trust, Report]:
    """Checks a copy of a log's database: every hash, node, signature and rule. Whose log it is, its first entry says.

    Raises `Misconfigured` for what is no such database, `LogDamaged` naming the first thing that is wrong.
    """
    with closing(SqliteCopy(path)) as copy, _readable(path):
        trust = begun_by(copy)
        return trust, verify_all(Log(copy, trust.verifier, _signs_nothing, lambda: 0), trust)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises `LogDamaged` for what SQLite cannot read."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise LogDamaged(f"{path} cannot be read: {error}", "Take another copy") from error


def backup(directory: Path, to: Path) -> Report:
    """Copies the CA in `directory`, which may be serving, to the new directory `to`; verified, durable, whole or not at all.

    Raises `Misconfigured` when `to` is there already, `LogDamaged` when what was copied does not verify.
    """
    settings = config.load(directory)
    if to.exists():
        raise Misconfigured(f"{to} is there already", f"{KEEP}: name a new directory for each backup")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.absolute().parent) as private:
            made = Path(private) / "backup"
            made.mkdir(mode=0o700)
            _copy_database(directory / settings.database, made / DATABASE)
            trust, report = check_copy(made / DATABASE)
            _demand_same(settings, trust, directory)
            shutil.copy2(directory / config.NAME, made / config.NAME)
            shutil.copytree(directory / settings.policies, made / settings.policies)
            for path in [*made.rglob("*"), made]:
                make_durable(path)
            made.rename(to)  # a crash before this leaves a hidden directory and no backup
            make_durable(to.absolute().parent)
    except OSError as error:
        raise Misconfigured(f"{to} cannot be made: {error.strerror}", "Nothing was kept of it") from error
    return report


def restore(directory: Path, backed_up: Path) -> tuple[Report, Path | None]:
    """Puts the log of a backup in the place of the one in `directory`; the one that was there is kept, its path is returned.

    Raises `Misconfigured` when that would forget what was signed, when the CA is running, or for another CA's backup.
    """
    for name in (config.NAME, "policies"):
        if not (directory / name).exists():
            raise Misconfigured(f"{directory / name} is not there", f"Copy it from {backed_up}, and keys/ from where you keep it")
    settings = config.load(directory)
    database = directory / settings.database
    if database.exists() and (backed_up / DATABASE).exists() and database.samefile(backed_up / DATABASE):
        raise Misconfigured(f"{backed_up / DATABASE} is the CA's own database", f"{KEEP}: name the directory of a backup")
    trust, report = check_copy(backed_up / DATABASE)
    _demand_same(settings, trust, directory)
    with closing(SqliteCopy(backed_up / DATABASE)) as copy:
        known = newest_known(database, trust)
        _demand_nothing_forgotten(copy, report.checkpoint, known[0] if known else None)
    fresh = database.with_name(f".{database.name}.restoring")
    try:
        fresh.unlink(missing_ok=True)
        shutil.copyfile(backed_up / DATABASE, fresh)
        fresh.chmod(0o600)
        make_durable(fresh)
        kept = put_aside(database)
        fresh.rename(database)  # a crash before this leaves no database under that name: run restore again
        make_durable(directory)
    except OSError as error:
        raise Misconfigured(f"{database} cannot be replaced: {error.strerror}") from error
    return report, kept


def _copy_database(source: Path, target: Path) -> None:
    """What is committed at one moment, as one file without a log of its own. Others may write meanwhile."""
    if not source.exists():
        raise Misconfigured(f"the database {source} is not there", "There is nothing to back up")
    os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target)) as writing,
        ):
            if not reading.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchall():
                raise Misconfigured(f"the database {source} holds no log", RESTORE)
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise Misconfigured(f"the database {source} cannot be copied: {error}", "Nothing was backed up") from error


def _demand_same(settings: Config, trust: Trust, directory: Path) -> None:
    if trust.origin != settings.origin:
        raise Misconfigured(f"it is the log of {trust.origin}, the CA in {directory} is {settings.origin}", KEEP)


def newest_known(database: Path, trust: Trust) -> tuple[Checkpoint, str] | None:
    """The largest checkpoint that was signed here and its note, by what the database and the file beside it say."""
    notes = []
    beside = database.with_name(database.name + ".checkpoint")
    if beside.exists():
        notes.append(beside.read_text(errors="replace"))
    try:
        with closing(SqliteCopy(database)) as there:
            notes.append(there.checkpoint() or "")
    except (JitSshError, sqlite3.Error):
        pass  # damaged or gone: that is why somebody restores
    known = [(opened, note) for note in notes if (opened := _opened(note, trust)) is not None]
    return max(known, key=lambda each: each[0].size, default=None)


def _opened(note: str, trust: Trust) -> Checkpoint | None:
    try:
        return open_checkpoint(note, trust.verifier)
    except JitSshError:
        return None


def _demand_nothing_forgotten(copy: SqliteCopy, held: Checkpoint, known: Checkpoint | None) -> None:
    if known is None:
        return
    if known.size > held.size:
        raise Misconfigured(
            f"the backup has {held.size} entries, but {known.size} were signed here: {known.size - held.size} would be forgotten",
            f"{KEEP}. Find a newer backup: clients and witnesses that saw those entries will refuse a log without them. "
            "If there is none, begin another log, which says so: --fork NEW-ORIGIN",
        )
    if merkle.root(known.size, copy.node) != known.root:
        raise Misconfigured(f"the backup's first {known.size} entries are not those that were signed here", KEEP)


def put_aside(database: Path) -> Path | None:
    """Renames the database and what SQLite keeps beside it, after making sure that nobody has it open."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(database, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # needs the file for itself, and takes in what is in the -wal
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Misconfigured(f"{database} is in use", f"{KEEP}: stop the server first") from error
    except sqlite3.DatabaseError:
        pass  # damaged: kept as it is
    kept = database.with_name(f"{database.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("-wal", "-shm", ""):
        beside = database.with_name(database.name + suffix)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + suffix))
    return kept


def make_durable(path: Path) -> None:
    """What was written to this file, or renamed in this directory, outlives a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _signs_nothing(_message: bytes) -> NoReturn:
    raise SignerFailed("a copy of a log signs nothing")
