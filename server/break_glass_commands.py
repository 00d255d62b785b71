"""`jit-ssh-ca break-glass`: what is prepared while all is well, and what is done afterwards. BREAK-GLASS.md is the manual."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import click

from ca import fields, roles
from ca.emergency import Emergency
from ca.entry import OPERATOR, KitEntry, SealEntry
from ca.errors import Malformed, Misconfigured
from ca.fields import suggestion
from ca.issue import begun_by
from ca.keys import PublicKey
from ca.kit import Seal
from ca.log import Log, Tail
from ca.roles import Policy
from ca.store.sqlite import SqliteStore
from ca.trust import Trust
from server import config, emergency, handing_out, kit, sealing
from server.aftermath_commands import import_, status, watch
from server.directory import open_log, read_policies
from server.terminal import DIR, PASSPHRASE_FILE, asker, reports_errors

_PATH: Final = click.Path(path_type=Path)
_DAY: Final = 24 * 3600
_LONGEST_OVERLAP: Final = 90 * _DAY  # seconds


@click.group("break-glass")
def break_glass() -> None:
    """Prepare for the day on which this CA is gone, and take account afterwards."""


def _sealing(command: Callable[..., None]) -> Callable[..., None]:
    """The options of whoever seals a key."""
    for option in (
        PASSPHRASE_FILE,
        click.option("--security-key", type=_PATH, metavar="PUB", help="Seal this security key instead of shares."),
        click.option("--encrypted", type=_PATH, metavar="OUT", help="Write files that age opens with SSH keys."),
        click.option("--sheets", type=_PATH, metavar="OUT", help="Write sheets to print into this new directory."),
        click.option("--quorum", type=int, default=2, show_default=True, help="How many of them open the key together."),
        click.option("--officers", help="Who keeps a share each: cy,di,eve,fay,gus. People of people.toml."),
        DIR,
    ):
        command = option(command)
    return command


@break_glass.command()
@_sealing
@reports_errors
def init(
    dir_: Path, officers: str | None, quorum: int, sheets: Path | None, encrypted: Path | None, security_key: Path | None,
    passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Make an emergency key for the CA in DIR, take it apart into shares, and hand each officer theirs.

    Without --sheets and --encrypted each officer comes to this screen and copies their words. The key itself is never written;
    what is recorded is its public half, who has a share, and the quorum.

    Example: jit-ssh-ca break-glass init /etc/jit-ssh --officers cy,di,eve,fay,gus --quorum 2
    """
    _check_options(officers, sheets, encrypted, security_key)
    opened = Preparing.open(dir_, passphrase_file)
    if opened.emergency.seal is not None:
        raise Misconfigured("there is a sealed emergency key already", "To replace it: jit-ssh-ca break-glass rotate")
    seal = new_seal(opened, officers, quorum, sheets, encrypted, security_key)
    record_seal(opened, seal, replaces=None, overlap=None)
    show_seal(opened, seal)


@break_glass.command()
@click.option("--overlap", default="14d", show_default=True, help="How long hosts may trust the old key too; 0 if it is stolen.")
@_sealing
@reports_errors
def rotate(
    dir_: Path, overlap: str, officers: str | None, quorum: int, sheets: Path | None, encrypted: Path | None,
    security_key: Path | None, passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Seal a new emergency key for the CA in DIR in the place of the one before.

    After each emergency, because the key was in the memory of a laptop; when an officer leaves or a share is lost. For the
    overlap hosts trust both keys, so that there is no day without one; install-host lets the old one end by itself.

    Example: jit-ssh-ca break-glass rotate /etc/jit-ssh --officers cy,di,eve,fay,gus --overlap 7d
    """
    _check_options(officers, sheets, encrypted, security_key)
    opened = Preparing.open(dir_, passphrase_file)
    before = _newest(opened.emergency)
    until = _end_of_overlap(overlap, int(time.time()))
    seal = new_seal(opened, officers, quorum, sheets, encrypted, security_key)
    record_seal(opened, seal, replaces=before.index, overlap=until)
    show_seal(opened, seal, before.seal, until)


def _check_options(officers: str | None, sheets: Path | None, encrypted: Path | None, security_key: Path | None) -> None:
    if (officers is None) == (security_key is None):
        raise click.UsageError("give either --officers or --security-key")
    if sheets is not None and encrypted is not None:
        raise click.UsageError("give --sheets or --encrypted, not both")


def _end_of_overlap(text: str, now: int) -> int:
    """Unix seconds of the first midnight (UTC) after the overlap, because hosts end a key at a day's beginning; `now` for 0."""
    if text == "0":
        return now
    seconds = fields.seconds(text)
    if seconds > _LONGEST_OVERLAP:
        raise Malformed(f"an overlap of {text} is more than {_LONGEST_OVERLAP // _DAY} days", "Nothing was sealed")
    return -(-(now + seconds) // _DAY) * _DAY


@dataclass(frozen=True)
class Preparing:
    """A CA whose log is written to, beside a server that may be running; the policy is read and not taken into force."""

    directory: Path
    log: Log
    store: SqliteStore
    policy: Policy
    trust: Trust

    @classmethod
    def open(cls, directory: Path, passphrase_file: Path | None) -> Self:
        """Raises what `open_log` raises, and `Misconfigured` for a policy with problems."""
        log = open_log(directory, asker(passphrase_file))
        log.check()
        settings = config.load(directory)
        policy = roles.load(read_policies(directory / settings.policies))
        return cls(directory, log, SqliteStore(directory / settings.database), policy, begun_by(log.store))

    @property
    def emergency(self) -> Emergency:
        """What the log says of emergency keys so far."""
        return emergency.read(self.store)


def new_seal(
    opened: Preparing, officers: str | None, quorum: int, sheets: Path | None, encrypted: Path | None, security_key: Path | None
) -> Seal:
    """A seal whose shares are with their officers when this returns. Raises `Misconfigured`, and then none counts."""
    if security_key is not None:
        return sealing.seal_hardware(security_key)
    people, origin = opened.policy.people, opened.trust.origin
    names = tuple(name.strip() for name in (officers or "").split(","))
    for name in names:
        if name not in people:
            raise Misconfigured(f"{name[:60]!a} is not in people.toml{suggestion(name, people)}", "Nothing was sealed")
    for out in (sheets, encrypted):
        if out is not None and out.absolute().resolve().is_relative_to(opened.directory.resolve()):
            raise Misconfigured(f"{out} is in the CA's directory", "Shares have no business there: name another place")
    sealed = sealing.seal(names, quorum)
    if sheets is not None:
        handing_out.on_sheets(sealed, origin, sheets)
        click.echo(f"Print what is in {sheets}, give each officer theirs, and destroy the files.", err=True)
    elif encrypted is not None:
        handing_out.encrypted(sealed, origin, encrypted, {name: people[name].keys for name in names})
        click.echo(f"Send each officer their file of {encrypted}; they open it with: age -d -i ~/.ssh/id_ed25519 FILE", err=True)
    else:
        handing_out.on_screen(sealed, origin)
    return sealed.seal


def record_seal(opened: Preparing, seal: Seal, *, replaces: int | None, overlap: int | None) -> int:
    """The index of the new entry; before it, the shares open nothing that counts. Raises `Misconfigured` for a key in use."""
    key = PublicKey.parse_line(seal.key)
    if key in opened.trust.public_keys or opened.policy.owner_of(key) is not None:
        raise Misconfigured(f"{key.fingerprint} is the CA's key or a person's", "Seal a key that is used for nothing else")

    def write(tail: Tail) -> list[SealEntry]:
        newest = tail.newest("seal")
        if (None if newest is None else newest.index) != replaces:
            raise Misconfigured("another key was sealed meanwhile", "These shares open nothing that counts: destroy them")
        return [SealEntry(index=tail.index, time=tail.time, actor=OPERATOR, seal=seal, replaces=replaces, overlap=overlap)]

    return opened.log.append(write)[0].index


def show_seal(opened: Preparing, seal: Seal, before: Seal | None = None, until: int | None = None) -> None:
    """What was sealed, and what to do next; `before` is the seal that it replaces, which hosts trust `until` (Unix seconds)."""
    key = PublicKey.parse_line(seal.key)
    click.echo(f"Sealed the emergency key {key.fingerprint} ({key.algorithm})")
    if seal.shares:
        click.echo(f"  {seal.quorum} of {', '.join(share.officer for share in seal.shares)} open it")
    click.echo(f"  {seal.key} break-glass")
    old = ""
    if before is not None and until is not None:
        day = datetime.fromtimestamp(until, UTC)
        old_key = PublicKey.parse_line(before.key).fingerprint
        click.echo(f"It replaces {old_key}, which hosts may trust until {day:%Y-%m-%d %H:%M} UTC")
        click.echo(f"  {before.key} old-break-glass")
        old = f" --emergency 'THE OLD LINE' --emergency-until {day:%Y%m%d}" if until > time.time() else ""
    click.echo("\nNext:")
    click.echo(f"  install-host … --emergency 'THAT LINE'{old} --emergency-account root --reload     # on every host")
    click.echo(f"  jit-ssh-ca break-glass kit {opened.directory} break-glass                # a copy for each officer")
    click.echo("  ./break-glass --drill …                                                    # before you need it")
    if before is not None:
        click.echo("  destroy the old kits and shares; hand in their journals first")


@break_glass.command("kit")
@DIR
@click.argument("out", type=click.Path(path_type=Path))
@PASSPHRASE_FILE
@reports_errors
def kit_(dir_: Path, out: Path, passphrase_file: Path | None) -> None:
    """Write the break-glass kit of the CA in DIR to the file OUT: the program and what it has to know, nothing secret.

    It runs with Python 3.11 and OpenSSH alone. Who may be named, and where, is as break-glass.toml says now: make a new kit
    when that changes, and after every rotation.

    Example: jit-ssh-ca break-glass kit /etc/jit-ssh /media/usb/break-glass
    """
    opened = Preparing.open(dir_, passphrase_file)
    sealed = _newest(opened.emergency)
    facts = kit.facts_of(opened.policy, sealed.seal, opened.trust.origin, int(time.time()))
    kit.expect_free(out)

    def write(tail: Tail) -> list[KitEntry]:
        return [KitEntry(index=tail.index, time=tail.time, actor=OPERATOR, seal=sealed.index, facts=facts)]

    entry = opened.log.append(write)[0].index  # first: a kit that the log does not know could not hand in its journal
    kit.build(out, facts)
    click.echo(f"{out}: kit {facts.digest[:16]}, entry {entry}")
    click.echo(f"  SHA-256 {sha256(out.read_bytes()).hexdigest()}: write it on the sheets, compare it before typing")
    click.echo(f"  names {', '.join(facts.people)}; enters {', '.join(facts.hosts)}; at most {facts.longest // 60} minutes")
    click.echo("Put a copy on each laptop that may be there in an emergency, and on a stick beside the sheets.")


def _newest(known: Emergency) -> SealEntry:
    if known.seal is None:
        raise Misconfigured("no emergency key is sealed", "Begin with: jit-ssh-ca break-glass init")
    return known.seal


for command in (import_, status, watch):
    break_glass.add_command(command)
