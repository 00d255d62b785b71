"""Short-lived identities in ssh-agent (draft-ietf-sshm-ssh-agent): a key together with its certificate, never the key alone.

An agent may say yes and hold nothing, or hold the plain key (some do), so it is asked afterwards what it really holds.
"""

from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.certificate import SignedCertificate, certificate_algorithm
from ca.errors import JitSshError, Malformed, SignerFailed
from ca.keys import PublicKey
from ca.signers.agent_socket import SUCCESS, Agent
from ca.wire import string, u32

_ADD_CONSTRAINED: Final = 25
_REMOVE: Final = 18
_LIFETIME: Final = b"\x01"


def add(agent: Agent, key: Ed25519PrivateKey, signed: SignedCertificate, comment: str, seconds: int) -> bool:
    """Gives the agent the key and its certificate for so many seconds; whether it holds them. Leaves nothing behind if not."""
    public = key.public_key().public_bytes_raw()
    body = (
        string(certificate_algorithm("ssh-ed25519"))
        + string(signed.blob)
        + string(public)
        + string(key.private_bytes_raw() + public)
        + string(comment)
        + _LIFETIME
        + u32(seconds)
    )
    try:
        agent.ask(_ADD_CONSTRAINED, body, SUCCESS)
        held = holds(agent, signed.blob)
    except JitSshError:  # it refused, went away, or answered something else
        held = False
    if not held:
        remove(agent, (signed.blob, signed.certificate.key.blob))
    return held


def holds(agent: Agent, blob: bytes) -> bool:
    """Whether the agent has this identity. Raises `SignerFailed`."""
    return any(blob == held for held, _ in agent.identities())


def remove(agent: Agent, blobs: Iterable[bytes]) -> int:
    """Removes these identities as far as the agent has them; how many it had."""
    count = 0
    for blob in blobs:
        try:
            agent.ask(_REMOVE, string(blob), SUCCESS)
            count += 1
        except SignerFailed:
            continue  # it was not there, or the agent is gone and its keys with it
    return count


def of_role(agent: Agent, role: str, ca_keys: Iterable[PublicKey]) -> list[bytes]:
    """The identities whose certificate one of these CA keys is said to have signed for the role. Raises `SignerFailed`."""
    trusted, found = set(ca_keys), []
    for blob, _ in agent.identities():
        try:
            certificate = SignedCertificate.parse(blob).certificate
        except Malformed:
            continue
        if certificate.ca_key in trusted and certificate.key_id.split("/")[1:2] == [role]:
            found.append(blob)
    return found
