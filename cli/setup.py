"""`jit-ssh setup`: believe a CA, choose the key that signs, and let ssh know.

Nothing is written before the CA knows the person.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import click

from ca.errors import Misconfigured, UnknownSigner
from ca.trust import Trust
from cli import files, held, output, profile, signing, sshconfig
from cli.answers import Roles
from cli.client import Address, Client, exchange
from cli.directory import Directory
from cli.known import keep
from cli.profile import Profile
from cli.roles import introduced

_NOT_CONFIRMED: Final = "the CA was not confirmed; nothing was changed"


@click.command(
    epilog="Examples:\n\n\b\n  jit-ssh setup https://ca.example.org\n"
    "  jit-ssh setup https://ca.example.org --fingerprint SHA256:… --key ~/.ssh/id_ed25519"
)
@click.argument("url")
@click.option("--fingerprint", "expected", metavar="SHA256:…", help="Believe the CA if this is its fingerprint; do not ask.")
@click.option("--key", "wanted", metavar="KEY", help="The SSH key that signs for you: a file, or a SHA256: fingerprint.")
def setup(url: str, expected: str | None, wanted: str | None) -> None:
    """Believe a CA, and choose your signing key.

    Compare the fingerprint with the one that the CA's operator tells you: whoever owns that key can let anybody in where this
    CA is trusted. One Include line is put first in ~/.ssh/config; everything else of ours is in ~/.ssh/jit-ssh.
    """
    directory, address = Directory.of_home(), Address.parse(url)
    sshconfig.quoted(directory.config)
    trust = Trust.parse(exchange(address, "GET", "/v1/ca"))
    known = profile.find(directory)
    _show(address, trust)
    _believe(trust, known, expected)
    candidate = _choose(wanted, expected is not None, directory)
    roles = _introduce(address, trust, candidate)
    _write(directory, known, trust, address, candidate, roles)
    output.talk(f"You are {introduced(roles)}. See what you can have: jit-ssh roles")


def _show(address: Address, trust: Trust) -> None:
    output.talk(f"{address.url} is the CA {trust.origin}")
    for key in trust.public_keys:
        output.talk(f"  certificates  {key.algorithm} {key.fingerprint}")
    output.talk(f"  log           {trust.log_key}")
    output.talk(f"  fingerprint   {trust.fingerprint}")


def _believe(trust: Trust, known: Profile | None, expected: str | None) -> None:
    """Returns if the CA is the one that was believed before, or is confirmed. Raises `Misconfigured`."""
    if expected is not None and expected != trust.fingerprint:
        hint = "Do not go on: ask the CA's operator, and not over this network"
        raise Misconfigured(f"this CA's fingerprint is {trust.fingerprint}, not {expected}", hint)
    if expected is not None or (known is not None and known.trust == trust):
        return
    if known is not None:
        output.talk(f"This machine believed another CA so far: {known.origin} at {known.url}, {known.trust.fingerprint}")
    question = "Believe this one instead?" if known else "Is this the fingerprint that the CA's operator gave you?"
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise Misconfigured(_NOT_CONFIRMED, "In a script, give the fingerprint with --fingerprint")


def _choose(wanted: str | None, confirmed: bool, directory: Directory) -> signing.Candidate:
    if wanted is not None:
        return signing.choose(wanted, directory.ssh_config.parent)
    found = signing.candidates(directory.ssh_config.parent)
    if not found:
        raise Misconfigured(
            "you have no SSH key that could sign for you", "Make one with: ssh-keygen -t ed25519, or name one with --key"
        )
    if confirmed and len(found) == 1:
        return found[0]
    output.talk("Which key signs for you?")
    for number, candidate in enumerate(found, 1):
        output.talk(f"  {number}  {candidate}")
    default = 1 if len(found) == 1 else None
    try:
        chosen: int = click.prompt("Number", type=click.IntRange(1, len(found)), default=default, err=True)
    except click.Abort as error:
        raise Misconfigured("no key was chosen; nothing was changed", "Name one with --key") from error
    return found[chosen - 1]


def _introduce(address: Address, trust: Trust, candidate: signing.Candidate) -> Roles:
    """Asks the CA who this key is. Raises `UnknownSigner` with the line that makes it known."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            key = candidate.usable(Path(scratch) / "signer.pub")
            return Roles.parse(Client(address, trust.origin, partial(signing.sign, key)).read("/v1/roles"))
    except UnknownSigner as error:
        hint = f"Send this line to the CA's operator, then run setup again:\n{candidate.key.line}"
        raise UnknownSigner("the CA does not know your key; nothing was changed", hint) from error


def _write(
    directory: Directory, known: Profile | None, trust: Trust, address: Address, candidate: signing.Candidate, roles: Roles
) -> None:
    """The profile is written last but one, so a crash before it leaves the old one; the Include line needs its file first."""
    files.make_private_directory(directory.path)
    if known is not None and known.log_key != trust.log_key:
        directory.checkpoint.unlink(missing_ok=True)  # of the other log
    keep(directory, roles.roles)
    held.write_ssh_config(directory, int(time.time()))
    Profile(
        url=address.url,
        origin=trust.origin,
        ca_keys=trust.ca_keys,
        log_key=trust.log_key,
        key=candidate.usable(directory.signer),
        person=roles.person,
        roles=tuple(role.role for role in roles.roles),
    ).save(directory)
    try:
        if sshconfig.include(directory):
            output.talk(f"Put first in {directory.ssh_config}: Include {sshconfig.quoted(directory.config)}")
    except OSError as error:
        raise Misconfigured(f"{directory.ssh_config} cannot be written: {error}", "Add the line to it yourself") from error
