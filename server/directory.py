"""The directory of a CA: `ca.toml`, `policies/`, `keys/` and the database. All there is to back up.

`create` makes it whole or not at all. `open_ca` refuses to run on one that others can write to, or whose log does not verify.
"""

import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from ca import issue
from ca.checkpoint import VerifierKey
from ca.errors import Misconfigured
from ca.issue import CertificateAuthority
from ca.keys import PublicKey
from ca.log import Log
from ca.names import ORIGIN, PERSON, require
from ca.signers.file import create as create_key
from ca.signers.uri import Signer, open_signer
from ca.store.sqlite import SqliteStore
from ca.trust import Trust
from ca.wire import Reader
from server import config
from server.clock import Steady
from server.config import Config
from server.cosigned import Cosigned
from server.oncall import OnCall
from server.witnesses import Witnesses

_log = logging.getLogger("jit-ssh")
Passphrase = Callable[[Path], bytes]
FOUNDER_GROUPS: Final = ("engineers", "sre", "security")  # of the starter policy


@dataclass(frozen=True)
class OpenedCA:
    """A CA that was checked and is ready to serve."""

    directory: Path
    config: Config
    ca: CertificateAuthority
    store: SqliteStore
    on_call: OnCall
    witnesses: Witnesses | None

    def release(self) -> None:
        """Lets go whoever waits for something: the program is about to stop."""
        self.ca.log.release()
        if self.witnesses is not None:
            self.witnesses.close()

    def reload_policies(self) -> None:
        """Takes the policy files as they are: all of them, or `Misconfigured` and those in use stay."""
        self.ca.adopt(read_policies(self.directory / self.config.policies))


def open_ca(directory: Path, passphrase: Passphrase, clock: Callable[[], float] = time.time) -> OpenedCA:
    """Opens the CA in `directory`; `passphrase` is asked for each encrypted key, `clock` gives Unix seconds.

    Raises `Misconfigured`, `SignerFailed` or `LogDamaged` with what has to be mended first.
    """
    settings, store, log = _open_log(directory, passphrase, clock)
    _log.info("checking the log of %d entries", store.size())  # some twenty seconds for a million
    log.check()
    witnesses = _watched(log, store, settings)
    ca_signer = open_signer(settings.ca_key, directory, passphrase)
    files = read_policies(directory / settings.policies)
    ca = CertificateAuthority(log, ca_signer, files, os.urandom)
    on_call = OnCall(directory, lambda: ca.rules.policy.schedules, clock)
    ca.on_call = on_call.facts
    return OpenedCA(directory, settings, ca, store, on_call, witnesses)


def _watched(log: Log, store: SqliteStore, settings: Config) -> Witnesses | None:
    """Asks the witnesses before anything is appended: what an old copy appends would be a second history."""
    if not settings.log.witnesses:
        return None
    memory = Cosigned(store.path.with_name(store.path.name + ".witnessed"), log.key)
    witnesses = Witnesses(store, log.key, settings.log, memory)
    witnesses.start()
    log.witnesses = witnesses
    return witnesses


def open_log(directory: Path, passphrase: Passphrase) -> Log:
    """The log of the CA in `directory`, for reading beside a running server: the policy and the CA key are left alone.

    Raises `Misconfigured` or `SignerFailed`.
    """
    return _open_log(directory, passphrase, time.time)[2]


def _open_log(directory: Path, passphrase: Passphrase, clock: Callable[[], float]) -> tuple[Config, SqliteStore, Log]:
    _refuse_writable(directory, directory / config.NAME)
    settings = config.load(directory)
    store = SqliteStore(directory / settings.database)
    _refuse_writable(store.path)
    log_signer = open_signer(settings.log_key, directory, passphrase)
    return settings, store, log_in(store, settings.origin, log_signer, Steady(clock))


def read_policies(root: Path) -> Mapping[str, bytes]:
    """The files below `root` by their path relative to it. Raises `Misconfigured` if others could change one."""
    _refuse_writable(root)
    files = {}
    for path in sorted(path for path in root.rglob("*") if path.exists()):  # not what an editor's lock, a dangling link, names
        _refuse_writable(path)
        if path.is_file():
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    return files


def create(directory: Path, origin: str, person: tuple[str, PublicKey] | None, passphrase: bytes | None) -> Trust:
    """Makes a new CA with fresh Ed25519 keys and the starter policy; `person` is the first who may ask and audit.

    Raises `Misconfigured` when there is something at `directory` already, and then changes nothing.
    """
    require(ORIGIN, origin, "origin")
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Misconfigured(f"{directory} is there already and is not empty", "Choose another directory; nothing was changed")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as making:
            fresh = Path(making) / "ca"
            trust = _fill(fresh, origin, person, passphrase)
            fresh.rename(directory)  # a crash before this leaves a hidden directory and no CA
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be made: {error.strerror}", "Choose another directory") from error
    return trust


def _fill(fresh: Path, origin: str, person: tuple[str, PublicKey] | None, passphrase: bytes | None) -> Trust:
    (fresh / "keys").mkdir(mode=0o700, parents=True)
    fresh.chmod(0o700)
    shutil.copytree(_starter_policies(), fresh / "policies")
    if person is not None:
        _add_person(fresh / "policies" / "people.toml", *person)
    (fresh / config.NAME).write_text(_CONFIG.format(origin=origin))
    (fresh / config.NAME).chmod(0o644)  # whatever the umask is
    ca_key = create_key(fresh / "keys" / "ca", passphrase)
    create_key(fresh / "keys" / "log", passphrase)
    log_signer = open_signer("file:keys/log", fresh, lambda _path: passphrase or b"")
    store = SqliteStore(fresh / "jit-ssh.db", create=True)
    log = log_in(store, origin, log_signer, time.time)
    issue.begin(log, ca_key.line)
    store.close()
    return Trust(origin=origin, ca_keys=(ca_key.line,), log_key=str(log.key))


def log_in(store: SqliteStore, origin: str, signer: Signer, clock: Callable[[], float]) -> Log:
    """The log in a store, whose checkpoints `signer` signs; `clock` gives Unix seconds. Raises `Misconfigured`."""
    if signer.public_key.algorithm != "ssh-ed25519":
        raise Misconfigured(f"the log key is of type {signer.public_key.algorithm}", "Checkpoints are signed with ed25519")
    raw = Reader(signer.public_key.fields, "the log key").string()
    return Log(store, VerifierKey(origin, raw), signer.sign, lambda: int(clock() * 1000))


def _starter_policies() -> Path:
    """In the wheel they are inside the package, in a checkout at its top."""
    package = Path(str(resources.files("server")))
    packaged = package / "starter_policies"
    return packaged if packaged.is_dir() else package.parent / "policies"


def _add_person(people: Path, name: str, key: PublicKey) -> None:
    require(PERSON, name, "person")
    groups = ", ".join(f'"{group}"' for group in FOUNDER_GROUPS)
    with people.open("a") as file:
        file.write(f'\n[people."{name}"]\ngroups = [{groups}]\nkeys = ["{key.line}"]\n')


def _refuse_writable(*paths: Path) -> None:
    """Whoever writes these decides who gets what."""
    for path in paths:
        try:
            mode = path.stat().st_mode  # of a link, what it points to
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}", "Make a CA with jit-ssh-ca init DIR") from error
        if mode & stat.S_IWOTH:
            raise Misconfigured(f"{path} can be written by everybody on this machine", f"Run: chmod o-w {path}")


_CONFIG: Final = """\
# How this CA is run. Every key, its default and what it means for security: server/CONFIG.md

origin = "{origin}"            # the log's name, for ever: statements and checkpoints carry it
ca_key = "file:keys/ca"        # signs certificates; or "agent:SHA256:…?socket=/run/ca-agent.sock"
log_key = "file:keys/log"      # signs checkpoints
listen = "127.0.0.1:8022"      # for other machines: an address and both tls_ keys, or a TLS proxy in front
# tls_certificate = "tls/chain.pem"
# tls_key = "tls/key.pem"
# behind_proxy = false
# threads = 16
"""
