"""Taking a certificate: a new key, a check that the CA gave what was asked for, and a place where ssh finds both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from ca.certificate import BACKDATE, SignedCertificate
from ca.errors import JitSshError, Malformed
from ca.keys import PublicKey, ed25519_key
from ca.proof import carried, proven
from ca.signers.agent_socket import Agent
from ca.sshsig import SshSig, signed_bytes
from ca.statement import FRESH
from ca.trust import Trust
from ca.wire import string
from cli import agent as agents
from cli import held as holding
from cli import seen, watchers
from cli.accounts import Account
from cli.answers import Issued
from cli.client import Address
from cli.directory import Directory
from cli.held import Held
from cli.machine import Machine
from cli.problems import WrongCertificate
from cli.profile import Profile
from cli.seen import Seen

LONGEST: Final = 24 * 3600  # seconds that a grant may last when no duration was asked for


class FreshKey:
    """An Ed25519 key for one certificate; it never leaves this machine."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = ed25519_key(self.private.public_key().public_bytes_raw())

    def prove(self, message: bytes) -> SshSig:
        """Its signature over a statement: the proof of possession."""
        return SshSig(self.public, string("ssh-ed25519") + string(self.private.sign(signed_bytes(message))))


def signer(directory: Directory, held: Held, now: int) -> Callable[[bytes], SshSig] | None:
    """What signs with the key of the certificate that is held; None when that is over at `now`, or its key is gone."""
    if now >= held.valid_before:
        return None
    try:
        signed = SignedCertificate.parse_line(directory.of_role(held.role, "-cert.pub").read_text())
        public = signed.certificate.key
        if held.agent:
            agent = Agent(Path(held.agent))
            return lambda message: SshSig(public, agent.sign(signed.blob, signed_bytes(message)))
        private = load_ssh_private_key(directory.of_role(held.role, "-cert").read_bytes(), None)
    except (OSError, ValueError, JitSshError):
        return None
    if not isinstance(private, Ed25519PrivateKey):
        return None
    return lambda message: SshSig(public, string("ssh-ed25519") + string(private.sign(signed_bytes(message))))


@dataclass(frozen=True)
class Asked:
    """What a certificate must fit: the role, its accounts if the CA listed them before, and at most so many seconds."""

    role: str
    accounts: frozenset[str] | None
    duration: int  # seconds
    key: PublicKey

    @classmethod
    def of(cls, role: str, accounts: tuple[Account, ...] | None, duration: int | None, key: FreshKey) -> "Asked":
        """What was asked for, as far as it is known."""
        principals = None if accounts is None else frozenset(account.principal for account in accounts)
        return cls(role, principals, duration or LONGEST, key.public)


def take(machine: Machine, answer: bytes, asked: Asked, key: FreshKey, before: Seen | None) -> Held:
    """Checks the certificate in an answer and gives it to ssh; `before` is what this machine had seen of the log when it asked.

    Raises `Malformed`, `WrongCertificate`, `SplitView` when the log does not continue what was seen, and as `seen.remember` does.
    """
    issued, directory, trust = Issued.parse(answer), machine.directory, machine.profile.trust
    signed = check(issued, asked, machine.profile, int(time.time()))
    proof = carried(signed)
    shown = Seen(proof.verify(trust.verifier, watchers.quorum(directory)), proof.note)
    seen.demand_continued(directory, before, shown, answer)
    seen.remember(directory, Address.parse(machine.profile.url), trust.verifier, before, shown)
    return install(directory, trust, issued, signed, key.private)


def check(issued: Issued, asked: Asked, found: Profile, now: int) -> SignedCertificate:
    """The certificate, if it is by the pinned CA, proven to be in its log and exactly what was asked for, at `now`.

    Raises `WrongCertificate`.
    """
    try:
        signed = SignedCertificate.parse_line(issued.certificate)
        certificate = signed.certificate
        if certificate.ca_key not in found.trust.public_keys:
            raise Malformed(f"it is by CA {certificate.ca_key.fingerprint}, which this machine does not believe")
        signed.verify(certificate.ca_key)
        proven(signed, found.trust)
    except JitSshError as error:
        raise _wrong(error.message) from error
    principals, listed = frozenset(certificate.principals), ", ".join(certificate.principals)
    longest = asked.duration
    for holds, otherwise in (
        (issued.certificate == signed.line, "it is not one line of type, base64 and key id"),
        (certificate.key == asked.key, "it certifies another key"),
        ((issued.person, issued.role) == (found.person, asked.role), f"it is for {issued.person} as {issued.role}"),
        (certificate.key_id == f"{found.person}/{asked.role}/{issued.request}", f"its key id is {certificate.key_id}"),
        (certificate.serial == issued.serial, f"its serial is {certificate.serial}, not {issued.serial}"),
        (principals == {account.principal for account in issued.accounts}, f"its principals are {listed}"),
        (asked.accounts in {None, principals}, f"its principals are {listed}, not the role's"),
        (certificate.valid_after == issued.valid_after, "it is valid from another time than the CA said"),
        (certificate.valid_before == issued.valid_before, "it ends at another time than the CA said"),
        (certificate.valid_before - certificate.valid_after <= longest + BACKDATE, f"it lasts longer than {longest} s"),
        (certificate.valid_before <= now + longest + FRESH, f"it ends more than {longest} s from now"),
        (now < certificate.valid_before, "it has expired"),
        (certificate.valid_after <= now + FRESH, "it is not valid yet"),
        (certificate.valid_before <= issued.until, "it outlives its grant"),
        (issued.until <= now + longest + FRESH, f"its grant ends more than {longest} s from now"),
    ):
        if not holds:
            raise _wrong(otherwise)
    return signed


def _wrong(otherwise: str) -> WrongCertificate:
    return WrongCertificate(
        f"the CA issued a certificate that was not asked for: {otherwise}",
        "Nothing of it was installed. If this machine's clock is right, tell the security team",
    )


def install(directory: Directory, trust: Trust, issued: Issued, signed: SignedCertificate, key: Ed25519PrivateKey) -> Held:
    """Puts key and certificate into the agent, or into files, in place of the role's older ones.

    A crash before the files are written leaves the new identity in the agent, which removes it itself when it expires.
    """
    now = int(time.time())
    agent = Agent.from_environment()
    older = in_agent(agent, issued.role, trust)
    comment, seconds = f"jit-ssh:{issued.role}", max(1, issued.valid_before - now)
    socket = str(agent.path) if agent is not None and agents.add(agent, key, signed, comment, seconds) else None
    held = Held(
        role=issued.role,
        person=issued.person,
        request=issued.request,
        serial=issued.serial,
        valid_after=issued.valid_after,
        valid_before=issued.valid_before,
        until=issued.until,
        accounts=issued.accounts,
        agent=socket,
    )
    private = None if socket else key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    holding.save(directory, held, signed.line, private, now)
    if agent is not None:
        agents.remove(agent, older)
    return held


def in_agent(agent: Agent | None, role: str, trust: Trust) -> list[bytes]:
    """The role's identities in the agent, as far as it answers."""
    try:
        return agents.of_role(agent, role, trust.public_keys) if agent else []
    except JitSshError:
        return []  # an agent that does not answer, or not as an agent does, holds nothing for us
