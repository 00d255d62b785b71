"""`jit-ssh-ca break-glass watch|import|status`: seeing every use of the emergency key, and taking account of it afterwards."""

import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from ca.errors import Misconfigured
from ca.sshd_lines import FINGERPRINT, Login, moment
from server import watching
from server.terminal import public_key, reports_errors
from server.watching import Seen

_FOUND = 3  # the exit code when there is something that somebody has to look at


@click.command()
@click.option("--log", type=click.Path(path_type=Path), help="sshd's log, syslog's or that of sshd -e. - is stdin.")
@click.option("--journald", is_flag=True, help="Read what sshd told journald.")
@click.option("--ca", "cas", multiple=True, metavar="SHA256:…", help="The emergency key's fingerprint. May be repeated.")
@click.option("--key", "keys", multiple=True, type=click.Path(path_type=Path), help="Or its public key file.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until SIGTERM or Ctrl-C; log rotation is followed.")
@click.option("--exec", "command", metavar="CMD", help="Run this for each login, given as JSON on its stdin. No shell.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each login.")
@reports_errors
def watch(
    log: Path | None,
    journald: bool,
    cas: tuple[str, ...],
    keys: tuple[Path, ...],
    follow: bool,
    command: str | None,
    as_json: bool,
) -> None:
    """Report each login under the emergency key, and each line of the log that could hide one.

    It needs no CA, so it runs on a host or a log server. Exit code 0: there was none; 3: there was one; 1: the log cannot be
    read.

    Example: jit-ssh-ca break-glass watch --journald --follow --key emergency.pub --exec /usr/local/bin/page-security
    """
    if (log is not None) == journald:
        raise click.UsageError("Give --log FILE or --journald.")
    fingerprints = [*map(_fingerprint, cas), *(public_key(path).fingerprint for path in keys)]
    if not fingerprints:
        raise click.UsageError("Give the emergency key: --ca SHA256:… or --key FILE.")
    words = shlex.split(command) if command else []
    lines = watching.of_journald(follow=follow) if log is None else watching.of_file(log, follow=follow)
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
