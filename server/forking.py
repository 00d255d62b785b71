"""A new log in the place of one that cannot be continued: `restore --fork`.

What was signed after the backup is lost: certificates that nobody knows of, revocations that nobody can repeat. A log that
went on under the old name would be a second history, and every client and witness that saw the first would call it one. So it is
another log: another origin, another log key, and another CA key, so that no serial and no revocation list of the new log
is mistaken for one of the lost entries. Its first entry says what it follows.
"""

import re
import sqlite3
import tempfile
import time
import tomllib
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ca import issue, roles
from ca.entry import Fork, SealEntry
from ca.errors import JitSshError, Misconfigured
from ca.keys import PublicKey
from ca.names import ORIGIN, require
from ca.signers.file import create as create_key
from ca.signers.uri import open_signer
from ca.store.sqlite import SqliteCopy, SqliteStore
from ca.trust import Trust
from ca.verify import Report
from server import config, directory, emergency
from server.config import Config
from server.copies import DATABASE, KEEP, check_copy, make_durable, newest_known, put_aside

_ORIGIN_LINE: Final = re.compile(r'^origin\s*=\s*("[^"\n]*"|\'[^\'\n]*\')', re.MULTILINE)
_FILE: Final = "file:"


@dataclass(frozen=True)
class Forked:
    """The new CA, the old one, what the backup holds of it, how many entries were signed, and where its database is.

    Besides what the old log had in force and the new one has not: who was `locked` out, and the emergency key that was sealed.
    """

    trust: Trust
    old: Trust
    report: Report
    signed: int
    kept: Path | None
    locked: tuple[str, ...]
    seal: SealEntry | None


def fork(ca: Path, backed_up: Path, origin: str, passphrase: bytes | None) -> Forked:
    """Begins the log `origin` in the directory `ca`, in the place of the one in the backup; new key files get the `passphrase`.

    Nothing is deleted: database and keys that were there are kept under other names. Raises `Misconfigured`, and then nothing was
    changed, unless it was cut off between its last renames: then it is to be run again.
    """
    require(ORIGIN, origin, "origin")
    old, report = check_copy(backed_up / DATABASE)
    settings = config.load(ca)
    if origin == old.origin:
        raise Misconfigured(f"{origin} is the log that the backup is of", f"{KEEP}: a fork is another log, give it another name")
    if settings.origin not in (old.origin, origin):
        raise Misconfigured(f"it is the log of {old.origin}, the CA in {ca} is {settings.origin}", KEEP)
    database = ca / settings.database
    with closing(SqliteCopy(backed_up / DATABASE)) as copy:
        kept_note, locked, seal = copy.checkpoint() or "", copy.locked() | _locked(database), emergency.read(copy).seal
    seal = _seal(database) or seal
    _demand_nobody_unlocked(ca, settings, locked)
    known = newest_known(database, old)
    lost = None if known is None or known[0].size <= report.checkpoint.size else known
    what = Fork(log_key=old.log_key, kept=kept_note, lost=lost[1] if lost else None)
    rewritten = _with_origin(ca / config.NAME, origin)
    try:
        with tempfile.TemporaryDirectory(prefix=".forking.", dir=ca) as private:
            made, trust = _begin(ca, Path(private), settings, origin, what, passphrase, old)
            kept = _put_in_place(ca, database, made, rewritten)
    except OSError as error:
        raise Misconfigured(f"the new log cannot be made: {error.strerror}", "Run it again when that is mended") from error
    return Forked(trust, old, report, lost[0].size if lost else report.checkpoint.size, kept, tuple(sorted(locked)), seal)


def _locked(database: Path) -> frozenset[str]:
    """Who is locked out by the database that is there, as far as it can be read."""
    with suppress(JitSshError, sqlite3.Error), closing(SqliteCopy(database)) as there:
        return there.locked()
    return frozenset()


def _seal(database: Path) -> SealEntry | None:
    """The emergency key of the database that is there, as far as it can be read."""
    with suppress(JitSshError, sqlite3.Error), closing(SqliteCopy(database)) as there:
        return emergency.read(there).seal
    return None


def _demand_nobody_unlocked(ca: Path, settings: Config, locked: frozenset[str]) -> None:
    """A lock is a signed entry of the old log, and there is none in the new one."""
    people = roles.load(directory.read_policies(ca / settings.policies)).people
    if free := sorted(locked & people.keys()):
        raise Misconfigured(
            f"{', '.join(free)}: locked out by the old log, and not by a new one",
            f"{KEEP}. Take them out of people.toml first; who is to come back can be added again, and locked, later",
        )


def _with_origin(path: Path, origin: str) -> str:
    """The text of ca.toml with this origin and nothing else changed. Raises `Misconfigured`."""
    text = path.read_text()
    changed = _ORIGIN_LINE.sub(f'origin = "{origin}"', text, count=1)
    if tomllib.loads(changed) != tomllib.loads(text) | {"origin": origin}:
        raise Misconfigured(f"the origin in {path} cannot be replaced", f'Write origin = "{origin}" there, and run it again')
    return changed


@dataclass(frozen=True)
class _Made:
    """What is ready to be renamed into place: key files by their place, and the database."""

    keys: dict[Path, Path]
    database: Path


def _begin(
    ca: Path, private: Path, settings: Config, origin: str, what: Fork, passphrase: bytes | None, old: Trust
) -> tuple[_Made, Trust]:
    made, uris = _Made({}, private / "jit-ssh.db"), list[str]()
    for number, uri in enumerate((settings.ca_key, settings.log_key)):
        if uri.startswith(_FILE):
            place, fresh = ca / uri.removeprefix(_FILE), private / f"key-{number}"
            _demand_passphrase(place, passphrase)
            create_key(fresh, passphrase)
            made.keys.update({place: fresh, place.with_name(f"{place.name}.pub"): fresh.with_name(f"{fresh.name}.pub")})
            uri = f"{_FILE}{fresh.absolute()}"  # noqa: PLW2901 - the same signer, where its key is for now
        uris.append(uri)
    ca_signer, log_signer = (open_signer(uri, ca, lambda _path: passphrase or b"") for uri in uris)
    _demand_new(old, ca_signer.public_key, log_signer.public_key)
    store = SqliteStore(made.database, create=True)
    log = directory.log_in(store, origin, log_signer, time.time)
    issue.begin(log, ca_signer.public_key.line, what)
    store.close()
    return made, Trust(origin=origin, ca_keys=(ca_signer.public_key.line,), log_key=str(log.key))


def _demand_passphrase(place: Path, passphrase: bytes | None) -> None:
    """The new key is not less protected than the old one."""

    def encrypted(path: Path) -> bytes:
        raise Misconfigured(f"{path} is encrypted, and the new key would not be", f"{KEEP}: give --passphrase-file")

    if passphrase is None and place.exists():
        open_signer(f"{_FILE}{place.absolute()}", place.parent, encrypted)


def _demand_new(old: Trust, ca_key: PublicKey, log_key: PublicKey) -> None:
    if ca_key in old.public_keys:
        raise Misconfigured(
            f"the CA key {ca_key.fingerprint} is the old log's",
            f"{KEEP}. Put a new key into the agent and name it in ca.toml: with the old one, lost certificates stay valid",
        )
    if old.verifier.public_key == log_key.blob[-32:]:
        raise Misconfigured(f"the log key {log_key.fingerprint} is the old log's", f"{KEEP}. Name a new one in ca.toml")


def _put_in_place(ca: Path, database: Path, made: _Made, settings: str) -> Path | None:
    """A crash between two renames leaves a CA without a database, which does not start: run it again."""
    kept = put_aside(database)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for place, fresh in made.keys.items():
        if place.exists():
            place.rename(place.with_name(f"{place.name}.{stamp}"))
        fresh.rename(place)
    replacement = ca / f".{config.NAME}.forking"
    replacement.write_text(settings)
    replacement.chmod((ca / config.NAME).stat().st_mode & 0o777)
    make_durable(replacement)
    replacement.rename(ca / config.NAME)
    beside = database.with_name(f"{database.name}.checkpoint")
    if beside.exists():
        beside.rename(beside.with_name(f"{beside.name}.{stamp}"))
    made.database.with_name(f"{made.database.name}.checkpoint").rename(beside)
    make_durable(made.database)
    made.database.rename(database)
    make_durable(ca)
    return kept
