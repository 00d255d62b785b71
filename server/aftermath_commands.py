"""`jit-ssh-ca break-glass watch|import|status`: seeing every use of the emergency key, and taking account of it afterwards."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import click

from ca import roles
from ca.errors import Misconfigured
from ca.log import Log
from ca.readiness import Readiness
from ca.sshd_lines import FINGERPRINT, Login, moment
from ca.store.sqlite import SqliteStore
from server import aftermath, config, emergency, handing_in, kit, watching
from server.aftermath import Findings
from server.directory import open_log, read_policies
from server.terminal import DIR, PASSPHRASE_FILE, asker, public_key, reports_errors
from server.watching import Seen

_FOUND: Final = 3  # the exit code when there is something that somebody has to look at
_LOG_OF: Final = "sshd's log, journald's JSON, or what watch --json printed. May be repeated."


@click.command()
@click.option("--log", type=click.Path(path_type=Path), help="sshd's log, syslog's or that of sshd -e. - is stdin.")
@click.option("--journald", is_flag=True, help="Read what sshd told journald.")
@click.option("--ca", "cas", multiple=True, metavar="SHA256:…", help="The emergency key's fingerprint. May be repeated.")
@click.option("--key", "keys", multiple=True, type=click.Path(path_type=Path), help="Or its public key file.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until SIGTERM or Ctrl-C; log rotation is followed.")
@click.option("--new", is_flag=True, help="With --follow: leave out what is in the log already.")
@click.option("--exec", "command", metavar="CMD", help="Run this for each login, given as JSON on its stdin. No shell.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each login.")
@reports_errors
def watch(
    log: Path | None,
    journald: bool,
    cas: tuple[str, ...],
    keys: tuple[Path, ...],
    follow: bool,
    new: bool,
    command: str | None,
    as_json: bool,
) -> None:
    """Report each login under the emergency key, and each line of the log that could hide one.

    It asks no CA, so it runs wherever this package is installed and sshd's log comes, such as a log server. Exit code 0: there
    was none; 3: there was one; 1: the log cannot be read.

    Example: jit-ssh-ca break-glass watch --journald --follow --key emergency.pub --exec /usr/local/bin/page-security
    """
    if (log is not None) == journald:
        raise click.UsageError("Give --log FILE or --journald.")
    fingerprints = [*map(_fingerprint, cas), *(public_key(path).fingerprint for path in keys)]
    if not fingerprints:
        raise click.UsageError("Give the emergency key: --ca SHA256:… or --key FILE.")
    if new and not follow:
        raise click.UsageError("--new goes with --follow.")
    words = shlex.split(command) if command else []
    lines = watching.of_journald(follow=follow, new=new) if log is None else watching.of_file(log, follow=follow, new=new)
    found = False
    try:
        if follow:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            click.echo(f"Watching {log or 'journald'} for logins under {', '.join(fingerprints)}", err=True)
        for seen in watching.watch(lines, fingerprints):
            found = True
            click.echo(seen.json.decode() if as_json else _sentence(seen))
            sys.stdout.flush()
            if words and (problem := watching.run(words, seen)):
                click.echo(f"jit-ssh-ca: {problem}", err=True)
    except _Stopped:
        pass
    sys.exit(_FOUND if found else 0)


@click.command("import")
@DIR
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--logins", multiple=True, type=click.Path(path_type=Path), help=_LOG_OF)
@click.option("--branched", is_flag=True, help="Take in a copy of a journal that went on apart from one that was handed in.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@PASSPHRASE_FILE
@reports_errors
def import_(
    dir_: Path, journal: Path, logins: tuple[Path, ...], branched: bool, as_json: bool, passphrase_file: Path | None
) -> None:
    """Take the JOURNAL of a break-glass kit into the log of the CA in DIR, and compare it with the logins that hosts saw.

    Every line and signature is checked first, and nothing of a journal with a wrong line is taken. Handed in again it adds only
    what is new. Exit code 3: there is a login that no line speaks of, or a line of a log that could hide one.

    Example: jit-ssh-ca break-glass import /etc/jit-ssh break-glass-3f1c.jsonl --logins web-1/auth.log
    """
    source, seen = handing_in.read_file(journal), handing_in.logins(logins)
    log, store = _opened(dir_, passphrase_file)
    handed = handing_in.hand_in(log, store, source, seen[0], branched=branched)
    found = Findings.of(handed, store, *seen)
    click.echo(found.json if as_json else "\n".join(found.lines(dir_, compared=bool(logins))))
    sys.exit(_FOUND if found.matched.strange or found.unreadable else 0)


@click.command()
@DIR
@click.option("--drill-days", type=click.IntRange(1), default=90, show_default=True, help="How old the last drill may be.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@PASSPHRASE_FILE
@reports_errors
def status(dir_: Path, drill_days: int, as_json: bool, passphrase_file: Path | None) -> None:
    """Say whether the emergency key of the CA in DIR could be used today. Exit code 3: somebody has something to do.

    Safe beside a running server, and meant for monitoring.

    Example: jit-ssh-ca break-glass status /etc/jit-ssh
    """
    _, store = _opened(dir_, passphrase_file)
    now = int(time.time())
    found = Readiness.of(emergency.read(store), now, drill_days * 24 * 3600)
    found = replace(found, concerns=(*found.concerns, *_outdated(dir_, found)))
    click.echo(aftermath.status_json(found) if as_json else "\n".join(aftermath.status_lines(found, now)))
    sys.exit(_FOUND if found.concerns else 0)


def _outdated(directory: Path, found: Readiness) -> Iterator[str]:
    """Whether the newest kit is not the one that would be made now."""
    if found.kit is None or found.seal is None:
        return
    known = found.kit.facts
    try:
        policy = roles.load(read_policies(directory / config.load(directory).policies))
        facts = kit.facts_of(policy, found.seal.seal, known.origin, known.made)
    except Misconfigured as error:
        yield f"no kit could be made now: {error.message}: jit-ssh-ca policy check"
        return
    if facts != known:
        yield f"the kit in entry {found.kit.index} is not what break-glass.toml says now: jit-ssh-ca break-glass kit"


def _opened(directory: Path, passphrase_file: Path | None) -> tuple[Log, SqliteStore]:
    """The log, after comparing it with its checkpoint, and its store. Raises what `open_log` and `Log.check` raise."""
    log = open_log(directory, asker(passphrase_file))
    log.check()
    return log, SqliteStore(directory / config.load(directory).database)


class _Stopped(BaseException):
    """A signal says that it is enough."""


def _stop(_number: int, _frame: object) -> NoReturn:
    raise _Stopped


def _fingerprint(text: str) -> str:
    if not FINGERPRINT.fullmatch(text):
        raise Misconfigured(f"{text[:80]!a} is not a key's fingerprint", "It is SHA256: and 43 characters: ssh-keygen -l -f FILE")
    return text


def _sentence(seen: Seen) -> str:
    told = seen.told
    where = f" on {told.host}" if told.host else ""
    if isinstance(told, Login):
        who = f"{told.user} from {told.address} port {told.port}, {told.key_id} (serial {told.serial}), key {told.key}"
        return f"BREAK-GLASS LOGIN{where} {moment(told.time)}: {who}, CA {told.ca}"
    return f"UNREADABLE LOGIN{where} {moment(told.time)}, perhaps under the emergency key: {told.line}"
