"""What an operator does with the log itself: `jit-ssh-ca log verify|export`, `backup` and `restore`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ca import fields
from ca.emergency import fingerprint_of
from ca.errors import LogDamaged, Malformed, Misconfigured
from ca.issue import begun_by
from ca.trust import Trust
from ca.verify import Report
from server import config, copies, exports, forking
from server.directory import open_log
from server.forking import Forked
from server.terminal import DIR, PASSPHRASE_FILE, asker, reports_errors
from server.verifying import verify_all


@click.group()
def log() -> None:
    """Check and export the log of a CA."""


@log.command("verify")
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--fingerprint", help="Of a file: the CA whose log it has to be, as jit-ssh-ca fingerprint shows it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was checked as JSON.")
@PASSPHRASE_FILE
@reports_errors
def verify_(path: Path, fingerprint: str | None, as_json: bool, passphrase_file: Path | None) -> None:
    """Check all of the log in DIR: entries, tree, checkpoints, signatures and whose, certificates. Exit code 0: all hold.

    Instead of a CA's directory, DIR may be a file: a copy of its database, or what jit-ssh-ca log export wrote. It is checked
    without the CA; give --fingerprint, or compare the one that is printed.

    An export has no policy files, no earlier checkpoints, and perhaps not all entries. So it shows that these entries are in
    the log, unchanged and with none between them left out, and that each signature is by the key that it names; not that
    this key was the person's. That takes the directory, a copy of the database, or an auditor's: jit-ssh log verify --full

    Example: jit-ssh-ca log verify audit.db --fingerprint SHA256:EK3MV5UNA48FmTm6qUyX//97MjPeFOwrIjYmyJUO9ZQ
    """
    start, exported = 0, not path.is_dir() and exports.is_export(path)
    if exported:
        proof, report = exports.verify_file(path)
        trust, start = proof.ca, proof.start
    else:
        trust, report = _verify_directory(path, passphrase_file) if path.is_dir() else copies.check_copy(path)
    if fingerprint is not None and fingerprint != trust.fingerprint:
        raise LogDamaged(f"it is the log of the CA {trust.fingerprint}, not of {fingerprint}", "Trust nothing in it")
    if as_json:
        size, root = report.checkpoint.size, report.checkpoint.root.hex()
        counts = {name: value for name, value in vars(report).items() if name != "checkpoint"}
        told = {"origin": trust.origin, "fingerprint": trust.fingerprint, "size": size, "root": root, "start": start}
        click.echo(json.dumps(told | counts | {"whose_keys": report.policies > 0}))
        return
    click.echo(f"{report.entries} entries, {report.signatures} signatures, {report.certificates} certificates: all verify")
    if report.policies:
        keys = f"keys that were their person's by {report.policies} policies"
        click.echo(f"{report.checkpoints} checkpoints, all of this log; {keys}")
    if exported:
        click.echo(f"not checked: whose keys signed, which takes the policy files{_missing(report, start)}")
    if fingerprint is None and not path.is_dir():
        click.echo(f"for the CA {trust.origin} with the fingerprint {trust.fingerprint}: is it yours?")


def _verify_directory(directory: Path, passphrase_file: Path | None) -> tuple[Trust, Report]:
    kind, _, key = config.load(directory).log_key.partition(":")
    database = directory / copies.DATABASE
    if kind == "file" and not (directory / key).exists() and database.exists():
        raise Misconfigured(f"{directory} has no log key {key}, as a backup has none", f"Give its database: {database}")
    opened = open_log(directory, asker(passphrase_file))
    trust = begun_by(opened.store)
    return trust, verify_all(opened, trust)


def _missing(report: Report, start: int) -> str:
    size = report.checkpoint.size
    if report.entries == size:
        return ""
    return f", and the log's other entries: these are {report.entries} of {size}, from {start} on"


@log.command()
@DIR
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--since", metavar="TIME", help="Only entries from then on: 90d (ago), 2026-03-01 or 2026-03-01T14:30+01:00.")
@click.option("--until", metavar="TIME", help="Only entries before then.")
@PASSPHRASE_FILE
@reports_errors
def export(dir_: Path, out: Path, since: str | None, until: str | None, passphrase_file: Path | None) -> None:
    """Write the log of the CA in DIR to OUT, for an auditor or another program. OUT's ending chooses the form.

    \b
    .db     an SQLite database: a table of entries with columns, full-text search, and the
            views requests, issuances, approvals, denials and revocations
    .jsonl  the entries' own bytes, one a line, after a line that proves them
    .csv    a table for a spreadsheet; it cannot be verified

    Every entry is checked first. The first two can be checked again, without the CA, but for whose keys signed:
    jit-ssh-ca log verify OUT; its --help says what that shows.

    Example: jit-ssh-ca log export /etc/jit-ssh audit-2026.db --since 2026-01-01 --until 2027-01-01
    """
    opened = open_log(dir_, asker(passphrase_file))
    now = datetime.now(UTC)
    first, last = (None if text is None else milliseconds(text, now) for text in (since, until))
    if first is not None and last is not None and first > last:
        raise Malformed(f"--since {since} is later than --until {until}", "Nothing was exported: exchange them")
    proof, report = exports.export(opened.store, begun_by(opened.store), out, first, last)
    click.echo(f"{report.entries} entries, from {proof.start} on, of {report.checkpoint.size}: {out}")


def milliseconds(text: str, now: datetime) -> int:
    """Unix milliseconds of a date or moment (UTC unless it says otherwise), or of a duration before `now`."""
    try:
        return int((now - timedelta(seconds=fields.seconds(text))).timestamp() * 1000)
    except Malformed:
        pass
    try:
        read = datetime.fromisoformat(text)
        return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        hint = "Write 90d for ninety days ago, 2026-03-01, or 2026-03-01T14:30Z"
        raise Malformed(f"{text[:80]!a} is not a time", hint) from error


@click.command()
@DIR
@click.argument("to", type=click.Path(path_type=Path))
@reports_errors
def backup(dir_: Path, to: Path) -> None:
    """Copy the CA in DIR to the new directory TO, and verify the copy. The server need not stop.

    TO holds the log, ca.toml and the policies; not the keys, which are to be kept apart, once.

    Example: jit-ssh-ca backup /etc/jit-ssh /backup/jit-ssh-$(date +%F)
    """
    report = copies.backup(dir_, to)
    click.echo(f"{to}: {report.entries} entries, all verify")
    click.echo(f"  checkpoint  {report.checkpoint.size} entries below {report.checkpoint.root.hex()}")
    click.echo("The keys are not in it.")


@click.command()
@DIR
@click.argument("backed_up", metavar="FROM", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--fork", "origin", metavar="NEW-ORIGIN", help="Begin another log, with new keys, that says what is lost.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --fork: encrypt the new keys with the first line of this file.",
)
@reports_errors
def restore(dir_: Path, backed_up: Path, origin: str | None, passphrase_file: Path | None) -> None:
    """Put the log of the backup FROM in the place of the one in DIR. Stop the server first.

    The backup is verified before anything is changed, and refused when more was signed in DIR than it holds. The database
    that was there is kept under another name.

    When there is no newer backup, --fork begins a new log with a new CA key; hosts and people have to be told of it.

    Example: jit-ssh-ca restore /etc/jit-ssh /backup/jit-ssh-2026-03-01
    """
    if origin is not None:
        passphrase = None if passphrase_file is None else asker(passphrase_file)(passphrase_file)
        _tell_fork(dir_, forking.fork(dir_, backed_up, origin, passphrase or None))
        return
    if passphrase_file is not None:
        raise click.UsageError("--passphrase-file goes with --fork: the keys are not restored")
    report, kept = copies.restore(dir_, backed_up)
    click.echo(f"{dir_}: {report.entries} entries, all verify")
    if kept is not None:
        click.echo(f"The database that was there is {kept}")


def _tell_fork(dir_: Path, made: Forked) -> None:
    trust, held = made.trust, made.report.checkpoint.size
    click.echo(f"{dir_} is now the CA {trust.origin}: another log, with another CA key, and nothing granted in it.")
    click.echo(f"  follows      {made.old.origin}, of which {held} entries are kept in the backup: all verify")
    click.echo(f"  lost         {made.signed - held} entries that were signed, and what came after them that nobody knows of")
    if made.kept is not None:
        click.echo(f"  old log      {made.kept}")
    for key in trust.public_keys:
        click.echo(f"  CA key       {key.fingerprint} ({key.algorithm})")
    click.echo(f"  log key      {trust.log_key}")
    click.echo(f"  fingerprint  {trust.fingerprint}")
    click.echo("\nNext:")
    click.echo("  hosts      install-host with the new CA key alone: until then they take certificates of the lost entries")
    click.echo(f"  people     jit-ssh setup URL --fingerprint {trust.fingerprint}")
    click.echo("  witnesses  jit-ssh-ca witness add, with the new log key")
    for person in made.locked:
        click.echo(
            f"  lock       {person} was locked out: once they are in people.toml again, jit-ssh lock {person} --reason '…'"
        )
    if made.kept is None or made.signed > held:
        click.echo("  locks      whom the lost entries locked, nobody may know: ask the security team before serving")
    if made.seal is None:
        click.echo("  emergency  no break-glass key was sealed: jit-ssh-ca break-glass init")
        return
    officers = ",".join(share.officer for share in made.seal.seal.shares)
    opened = f"--officers {officers} --quorum {made.seal.seal.quorum}" if officers else "--security-key PUB"
    click.echo(f"  emergency  {fingerprint_of(made.seal)} was sealed, and is not in the new log:")
    click.echo(f"             jit-ssh-ca break-glass init {dir_} {opened}, then break-glass kit {dir_} OUT")
    click.echo(
        "             install-host --emergency with the new key alone: until then hosts take the old one, of which no log tells"
    )
