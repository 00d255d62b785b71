"""`jit-ssh revoke`, `lock` and `unlock`: the security team ends what others hold."""

from functools import partial

import click

from ca.statement import LockStatement, RevokeStatement, UnlockStatement
from cli import output
from cli.answers import Members
from cli.machine import Machine


@click.command(
    epilog="Examples:\n\n\b\n  jit-ssh revoke --request 17 --reason 'INC-12 is over'\n"
    "  jit-ssh revoke --person ana --reason 'laptop stolen'"
)
@click.option("--request", "request_", type=click.IntRange(1), metavar="N", help="The grant of request N.")
@click.option("--person", help="All grants of this person.")
@click.option("--serial", type=click.IntRange(1), metavar="N", help="The certificate of this serial, and what its key renewed.")
@click.option("--reason", required=True, help="Why, in one line; it stays in the log.")
def revoke(request_: int | None, person: str | None, serial: int | None, reason: str) -> None:
    """End grants of others, or one certificate.

    Name one of --request, --person and --serial. Hosts refuse the certificates as soon as they have the CA's new revocation
    list; sessions that are open stay open.

    With a certificate end all that its key asked for since, and theirs. The grant stays, so that the person's own key gets the
    next one: if that may be stolen too, name the person, or lock them.
    """
    if [request_, person, serial].count(None) != 2:
        raise click.UsageError("Name one of --request, --person and --serial.")
    words = partial(RevokeStatement, request=request_, person=person, serial=serial, reason=reason)
    answer = Members.parse(Machine.here().client.send("/v1/revocations", words))
    serials = ", ".join(map(str, answer.integers("revoked"))) or "no certificate that is not expired"
    output.result(f"revoked; the CA's revocation list has {serials}")


@click.command(epilog="Example:\n\n\b\n  jit-ssh lock ana --reason 'laptop stolen'")
@click.argument("person")
@click.option("--reason", required=True, help="Why, in one line; it stays in the log.")
def lock(person: str, reason: str) -> None:
    """Give PERSON nothing from now on.

    Nothing can be asked for, approved by or issued to them, and everything that they hold is revoked.
    """
    _tell(Machine.here().client.send("/v1/locks", partial(LockStatement, person=person, reason=reason)))


@click.command(epilog="Example:\n\n\b\n  jit-ssh unlock ana --reason 'has a new laptop'")
@click.argument("person")
@click.option("--reason", required=True, help="Why, in one line; it stays in the log.")
def unlock(person: str, reason: str) -> None:
    """Let PERSON ask and approve again; what was revoked stays so."""
    _tell(Machine.here().client.send("/v1/locks", partial(UnlockStatement, person=person, reason=reason)))


def _tell(answer: bytes) -> None:
    members = Members.parse(answer)
    output.result(f"{members.text('person')} is {'locked' if members.flag('locked') else 'not locked'}")
