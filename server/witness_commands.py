"""`jit-ssh-ca witness`: an independent witness of other people's logs. It holds no CA and needs none."""

import time
from pathlib import Path

import click

from ca.checkpoint import VerifierKey
from ca.errors import Malformed, Misconfigured
from server import requestlog, witness_store
from server.listening import Listen
from server.serving import serve as serve_until_stopped
from server.terminal import DIR, reports_errors
from server.witness_app import create_app
from server.witness_store import Witness

_THREADS = 4  # more would only wait for the disk


@click.group()
def witness() -> None:
    """Watch logs, and cosign what continues everything seen before (C2SP tlog-witness).

    \b
    jit-ssh-ca witness init /var/lib/witness --name witness.example.org/w1
    jit-ssh-ca witness add /var/lib/witness ca.example.com+271527ec+Aa73LKQDe8WC…
    jit-ssh-ca witness serve /var/lib/witness
    """


@witness.command()
@DIR
@click.option("--name", required=True, help="The witness's name for ever, e.g. witness.example.org/w1.")
@reports_errors
def init(dir_: Path, name: str) -> None:
    """Make a new witness in DIR: a key of its own, and the database of what it cosigned.

    A witness whose database was lost, or restored from an old copy, must be retired: under its name and key it could contradict
    what it said.

    Example: jit-ssh-ca witness init /var/lib/witness --name witness.example.org/w1
    """
    key = witness_store.create(dir_, name)
    click.echo(f"Made the witness {key.name} in {dir_}.")
    click.echo(f"  key  {key}")


@witness.command()
@DIR
@click.argument("log_key", metavar="LOGKEY")
@reports_errors
def add(dir_: Path, log_key: str) -> None:
    """Cosign the checkpoints of the log with this key from now on. A running server sees it at once.

    Example: jit-ssh-ca witness add /var/lib/witness ca.example.com+271527ec+Aa73LKQDe8WCylIi47MheWaZvFNwWCOEhMk9ro0ZeGjn
    """
    try:
        key = VerifierKey.parse(log_key)
    except Malformed as error:
        raise Misconfigured(f"{log_key[:80]!a} is not a log's key: {error.message}", "jit-ssh-ca fingerprint shows it") from error
    Witness(dir_, time.time).add(key)
    click.echo(f"Watching {key.name}.")


@witness.command("list")
@DIR
@reports_errors
def list_(dir_: Path) -> None:
    """Show the logs that are watched, and the newest checkpoint that was cosigned of each.

    Example: jit-ssh-ca witness list /var/lib/witness
    """
    opened = Witness(dir_, time.time)
    click.echo(f"{opened.key}")
    for log in opened.logs():
        seen = "nothing yet" if log.newest is None else f"{log.newest.size} entries below {log.newest.root.hex()}"
        click.echo(f"{log.key.name}: {seen}")
        if log.contradictions:
            click.echo(f"  ALARM: its key signed {log.contradictions} checkpoints that contradict cosigned ones (table evidence)")


@witness.command()
@DIR
@click.option("--listen", default="127.0.0.1:8023", show_default=True, help="Such as 192.0.2.20:8443 or unix:/run/witness.sock.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="The chain in PEM. Goes with --tls-key.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its unencrypted key in PEM.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front ends TLS: plain HTTP on every address.")
@reports_errors
def serve(dir_: Path, listen: str, tls_certificate: Path | None, tls_key: Path | None, behind_proxy: bool) -> None:
    """Serve the witness in DIR until SIGTERM. Logs post to URL/add-checkpoint; anybody may, the log's signature decides.

    Example: jit-ssh-ca witness serve /var/lib/witness --listen 192.0.2.20:8443 --tls-certificate chain.pem --tls-key key.pem
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    where = Listen.parse(listen)
    tls = (tls_certificate, tls_key) if tls_certificate and tls_key else None
    if tls is None and not behind_proxy and not where.is_private:
        raise Misconfigured(
            f"{listen} can be reached from other machines without encryption: an answer could be changed on its way",
            "Give --tls-certificate and --tls-key, or --behind-proxy if only a TLS proxy reaches it",
        )
    opened = Witness(dir_, time.time)
    opened.logs()  # a database that cannot be read is told of now
    requestlog.configure()
    serve_until_stopped(
        create_app(opened),
        where,
        tls=tls,
        threads=_THREADS,
        on_hangup=lambda: None,
        on_ready=lambda url: click.echo(f"jit-ssh-ca: witness {opened.key.name} on {url}"),
        on_stop=lambda: None,
    )
