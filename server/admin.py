"""`jit-ssh-ca`: the operator's command line. Each command is a thin skin over one call."""

import json
import logging
import re
from pathlib import Path

import click

from ca.errors import Misconfigured
from ca.issue import begun_by
from ca.names import PERSON, require
from ca.trust import Trust
from server import config, directory, requestlog
from server.app import create_app
from server.break_glass_commands import break_glass
from server.completion import completion
from server.directory import OpenedCA, open_ca, open_log
from server.listening import Listen
from server.log_commands import backup, log, restore
from server.policy_changes import diff, replay
from server.policy_commands import policy
from server.serving import serve as serve_until_stopped
from server.terminal import DIR, PASSPHRASE_FILE, asker, public_key, reports_errors
from server.witness_commands import witness

_log = logging.getLogger("jit-ssh")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jit-ssh")
def main() -> None:
    """Run a jit-ssh certificate authority.

    \b
    jit-ssh-ca init /etc/jit-ssh --origin ca.example.com --person ana --key ana.pub
    jit-ssh-ca policy check /etc/jit-ssh
    jit-ssh-ca serve /etc/jit-ssh
    """


@main.command()
@DIR
@click.option("--origin", help="The log's name for ever, e.g. ca.example.com/jit-ssh. Default: the directory's name.")
@click.option("--person", help="The first person: may ask for the starter roles and read the log.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="That person's public key file.")
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase to encrypt the CA's keys with.")
@click.option("--passphrase-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take it from this file.")
@reports_errors
def init(
    dir_: Path, origin: str | None, person: str | None, key: Path | None, passphrase: bool, passphrase_file: Path | None
) -> None:
    """Make a new CA in DIR: ca.toml, policies/, keys/ and the log with its first entry.

    Nothing is overwritten. Everything that has to be backed up is in DIR.

    Example: jit-ssh-ca init /etc/jit-ssh --origin ca.example.com --person ana --key ~/.ssh/id_ed25519.pub
    """
    if (person is None) != (key is None):
        raise click.UsageError("--person and --key go together")
    first = (require(PERSON, person, "person"), public_key(key)) if person and key else None
    trust = directory.create(dir_, origin or _origin_of(dir_), first, _new_passphrase(passphrase, passphrase_file))
    click.echo(f"Made the CA {trust.origin} in {dir_}.")
    _show_trust(trust)
    click.echo("\nNext:")
    if first is None:
        click.echo(f"  edit {dir_ / 'policies' / 'people.toml'}       # name the people and their keys")
    click.echo(f"  jit-ssh-ca serve {dir_}")
    click.echo(f"  jit-ssh setup http://127.0.0.1:8022 --fingerprint {trust.fingerprint}")


def _origin_of(dir_: Path) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", dir_.absolute().name.lower()).strip("-._") or "jit-ssh"


def _new_passphrase(asked: bool, file: Path | None) -> bytes | None:
    if file is not None:
        if passphrase := asker(file)(file):
            return passphrase
        raise Misconfigured(f"{file} holds no passphrase in its first line", "The keys would not be encrypted")
    if not asked:
        return None
    return str(click.prompt("Passphrase for the CA's keys", hide_input=True, confirmation_prompt=True)).encode()


def _show_trust(trust: Trust) -> None:
    for key in trust.public_keys:
        click.echo(f"  CA key       {key.fingerprint} ({key.algorithm})")
    click.echo(f"  log key      {trust.log_key}")
    click.echo(f"  fingerprint  {trust.fingerprint}")


@main.command()
@DIR
@click.option("--listen", help="Instead of ca.toml's: 127.0.0.1:8022, [::1]:0 or unix:/run/jit-ssh/ca.sock.")
@PASSPHRASE_FILE
@reports_errors
def serve(dir_: Path, listen: str | None, passphrase_file: Path | None) -> None:
    """Serve the CA in DIR until SIGTERM. SIGHUP reads the policies again, all or nothing.

    It refuses to start on a wrong configuration or policy, on keys that others can read, and on a log that does not verify.

    Example: jit-ssh-ca serve /etc/jit-ssh --listen 127.0.0.1:8022
    """
    requestlog.configure()
    opened = open_ca(dir_, asker(passphrase_file))
    settings = config.listening(opened.config, listen)
    app = create_app(
        opened.ca,
        opened.store,
        waiting=settings.threads // 2,
        per_minute=settings.statements_per_minute,
        reserve=settings.reserve,
    )
    try:
        serve_until_stopped(
            app,
            Listen.parse(settings.listen),
            tls=_tls(dir_, settings),
            threads=settings.threads,
            together=app,
            behind_proxy=settings.behind_proxy,
            on_hangup=lambda: _reload(opened),
            on_ready=lambda url: click.echo(f"jit-ssh-ca: serving {opened.ca.trust.origin} on {url}"),
            on_stop=opened.release,
        )
    finally:
        opened.on_call.close()
        opened.store.settle()


def _tls(dir_: Path, settings: config.Config) -> tuple[Path, Path] | None:
    certificate, key = settings.tls_certificate, settings.tls_key
    return (dir_ / certificate, dir_ / key) if certificate and key else None


def _reload(opened: OpenedCA) -> None:
    try:
        opened.reload_policies()
        _log.info("policies reloaded: entry %d decides from here on", opened.ca.rules.index)
    except Misconfigured as error:
        _log.error("policies not reloaded, those in use stay: %s", "; ".join((error.message, *error.problems)))


@main.command()
@DIR
@click.option("--json", "as_json", is_flag=True, help="Print the keys themselves, and the fingerprint, as JSON.")
@PASSPHRASE_FILE
@reports_errors
def fingerprint(dir_: Path, as_json: bool, passphrase_file: Path | None) -> None:
    """Show the CA's public keys and the fingerprint that `jit-ssh setup` asks people to compare.

    Example: jit-ssh-ca fingerprint /etc/jit-ssh
    """
    opened = open_log(dir_, asker(passphrase_file))
    opened.check()
    trust = begun_by(opened.store)
    if as_json:
        click.echo(json.dumps({**json.loads(trust.encode()), "fingerprint": trust.fingerprint}))
    else:
        _show_trust(trust)


for change in (diff, replay):
    policy.add_command(change)
for command in (policy, log, backup, restore, witness, break_glass, completion):
    main.add_command(command)
