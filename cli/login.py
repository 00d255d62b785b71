"""`jit-ssh login` and `logout`: ask for a certificate, check that it is what was asked for, and put it where ssh finds it."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.certificate import BACKDATE, SignedCertificate
from ca.errors import JitSshError, Malformed, Misconfigured
from ca.keys import PublicKey, ed25519_key
from ca.signers.agent_socket import Agent
from ca.sshsig import SshSig, signed_bytes
from ca.statement import FRESH
from ca.trust import Trust
from ca.wire import string
from cli import agent as agents
from cli import held as holding
from cli import output, profile
from cli.answers import Issued, Role
from cli.completion import complete_held, complete_role
from cli.directory import Directory
from cli.held import Held
from cli.problems import WrongCertificate
from cli.profile import Profile
from cli.roles import client_of, read_roles

LONGEST: Final = 24 * 3600  # seconds that a certificate may last when no duration was asked for


@dataclass(frozen=True)
class Asked:
    """What a certificate must fit: the role, its accounts if the CA listed them before, and at most so many seconds."""

    role: str
    accounts: frozenset[str] | None
    duration: int  # seconds
    key: PublicKey

    @classmethod
    def of(cls, role: str, listed: Role | None, duration: int | None, key: PublicKey) -> "Asked":
        """What was asked for, as far as it is known: without a duration the role's default, if the CA listed it."""
        accounts = frozenset(account.principal for account in listed.accounts) if listed else None
        return cls(role, accounts, duration or (listed.default_duration if listed else LONGEST), key)


@click.command(
    epilog="Examples:\n\n\b\n  jit-ssh login\n  jit-ssh login web-admin --reason 'INC-12 disk full' --for 30m && ssh root@web-1"
)
@click.argument("roles", nargs=-1, metavar="[ROLE]...", shell_complete=complete_role)
@click.option("--reason", default="", help="Why you need it, in one line; it stays in the log.")
@click.option("--for", "duration", type=output.DurationType(), help="How long, e.g. 30m; the role's default if absent.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def login(roles: tuple[str, ...], reason: str, duration: int | None, as_json: bool) -> None:
    """Get certificates, and give them to ssh.

    Without a ROLE: for every role that is marked as a default and granted to you at once. The key is new each time; it stays in
    your ssh-agent until the certificate expires, or in a file for you alone when there is no agent that can hold it.
    """
    directory = Directory.of_home()
    found = profile.load(directory)
    client = client_of(found)
    listed = {} if roles else _defaults(directory, found)
    taken = []
    for role in roles or tuple(listed):
        directory.of_role(role, "")  # raises for a name that cannot be a file's
        key = Ed25519PrivateKey.generate()
        public = ed25519_key(key.public_key().public_bytes_raw())
        issued = Issued.parse(client.request(role, duration, reason, public, partial(_prove, key, public)))
        signed = check(issued, Asked.of(role, listed.get(role), duration, public), found, int(time.time()))
        held = install(directory, found.trust, issued, signed, key)
        taken.append(held)
        if not as_json:
            _tell(directory, held)
    if as_json:
        output.result_json([holding.shown(directory, held) for held in taken])


def _defaults(directory: Directory, found: Profile) -> dict[str, Role]:
    """The roles that a login without a role takes. Raises `Misconfigured` when there is none."""
    everything = read_roles(directory, found).roles
    defaults = {role.role: role for role in everything if role.default and role.outcome == "granted"}
    if not defaults:
        raise Misconfigured("no role is both a default and granted to you", "See what you can have: jit-ssh roles")
    return defaults


def _prove(key: Ed25519PrivateKey, public: PublicKey, message: bytes) -> SshSig:
    return SshSig(public, string("ssh-ed25519") + string(key.sign(signed_bytes(message))))


def check(issued: Issued, asked: Asked, found: Profile, now: int) -> SignedCertificate:
    """The certificate, if it is by the pinned CA and exactly what was asked for, at `now`. Raises `WrongCertificate`."""
    try:
        signed = SignedCertificate.parse_line(issued.certificate)
        certificate = signed.certificate
        if certificate.ca_key not in found.trust.public_keys:
            raise Malformed(f"it is by CA {certificate.ca_key.fingerprint}, which this machine does not believe")
        signed.verify(certificate.ca_key)
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
    older = _older(agent, issued.role, trust)
    comment, seconds = f"jit-ssh:{issued.role}", max(1, issued.valid_before - now)
    in_agent = agent is not None and agents.add(agent, key, signed, comment, seconds)
    held = Held(
        role=issued.role,
        person=issued.person,
        request=issued.request,
        serial=issued.serial,
        valid_after=issued.valid_after,
        valid_before=issued.valid_before,
        accounts=issued.accounts,
        agent=in_agent,
    )
    private = None if in_agent else key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    holding.save(directory, held, signed.line, private, now)
    if agent is not None:
        agents.remove(agent, older)
    return held


def _older(agent: Agent | None, role: str, trust: Trust) -> list[bytes]:
    try:
        return agents.of_role(agent, role, trust.public_keys) if agent else []
    except JitSshError:
        return []  # an agent that does not answer, or not as an agent does, holds nothing for us


def _tell(directory: Directory, held: Held) -> None:
    now = int(time.time())
    output.result(f"{held.person} holds {held.role} until {output.moment(held.valid_before, now)}, serial {held.serial}")
    for account in held.accounts:
        output.result(f"  {account}")
    place = "in your ssh-agent" if held.agent else f"in {directory.of_role(held.role, '')}"
    output.result(f"  key and certificate are {place}")
    output.talk(f"Next: ssh {held.accounts[0].example}")


@click.command(epilog="Examples:\n\n\b\n  jit-ssh logout\n  jit-ssh logout web-admin")
@click.argument("roles", nargs=-1, metavar="[ROLE]...", shell_complete=complete_held)
def logout(roles: tuple[str, ...]) -> None:
    """Remove certificates from agent and disk.

    Those of each ROLE with their keys; without a ROLE, all. A certificate stays valid until it expires, for whoever has
    copied its key; sessions that are open stay open.
    """
    directory = Directory.of_home()
    trust = profile.load(directory).trust
    here = tuple(held.role for held in holding.of_this_machine(directory))
    if missing := [role for role in roles if role not in here]:
        raise Misconfigured(f"you hold no {missing[0]}", "See what you hold with: jit-ssh status")
    agent = Agent.from_environment()
    for role in roles or here:
        if agent is not None:
            agents.remove(agent, _older(agent, role, trust))
        output.result(f"{role} is removed")
    holding.remove(directory, roles or here, int(time.time()))
