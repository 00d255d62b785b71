"""`jit-ssh host …`: what a host does with a certificate, tried by hand, with the very file that hosts run."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from ca.errors import NotFound
from cli import host_verify, output
from cli.problems import WrongCertificate

_DIRECTORY: Final = "/etc/ssh/jit-ssh"


@click.group(epilog="Example:\n\n\b\n  jit-ssh host verify root web-admin-cert.pub")
def host() -> None:
    """Try what hosts do with certificates."""


@host.command(
    epilog="Examples:\n\n\b\n  jit-ssh host verify root ~/.ssh/jit-ssh/web-admin-cert.pub\n"
    "  jit-ssh host verify root web-admin-cert.pub --directory copied-from-web-1"
)
@click.argument("account")
@click.argument("certificate", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=_DIRECTORY,
    show_default=True,
    help="The host's keys and principals, as install-host wrote them, or a copy.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def verify(account: str, certificate: Path, directory: Path, as_json: bool) -> None:
    """Tell whether a host that verifies lets CERTIFICATE into ACCOUNT.

    It prints what sshd gets, the principals of the account, if the certificate proves that it is in the log that the directory
    names, and is what the log says. No network, and nothing of the CA is asked. Whether the certificate is expired or revoked,
    and whether the CA signed it, is sshd's to judge.
    """
    mine = frozenset({0, os.geteuid()})  # on a host root alone is believed; a copy belongs to whoever made it
    told: dict[str, object] = {"account": account, "serial": None, "key_id": None, "principals": []}
    try:
        found = host_verify.certificate_of(*_words(certificate))
        told |= {"serial": found.serial, "key_id": found.key_id}
        principals = host_verify.principals_for(account, found, host_verify.Trusted(str(directory), mine))
    except host_verify.Refused as error:
        if as_json:
            output.result_json(told | {"refused": str(error)})
        hint = f"A host with this {directory} lets nobody into {account} with it"
        raise WrongCertificate(f"{certificate} is refused: {error}", hint) from error
    except OSError as error:
        hint = "Give what a host with --verify-log has in /etc/ssh/jit-ssh, or a copy of it: --directory DIR"
        raise NotFound(f"{error.filename} cannot be read: {error.strerror}", hint) from error
    if as_json:
        output.result_json(told | {"principals": principals})
        return
    output.talk(f"Serial {found.serial} ({found.key_id}) is in the log, and what the log says. sshd gets:")
    for principal in principals:
        output.result(principal)


def _words(certificate: Path) -> tuple[str, str]:
    """The type and the base64 of a certificate. Raises `NotFound`, and `Refused` for what is no text."""
    try:
        text: str = sys.stdin.read() if str(certificate) == "-" else certificate.read_text()
    except OSError as error:
        hint = "Your certificates are ~/.ssh/jit-ssh/ROLE-cert.pub"
        raise NotFound(f"{certificate} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise host_verify.Refused("it is not text, so it is no certificate") from error
    kind, encoded = [*text.split(), "", ""][:2]
    return kind, encoded
