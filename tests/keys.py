"""SSH keys for tests: real ones made by ssh-keygen, and a software security key whose flags a test chooses."""

import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ca.keys import PublicKey
from ca.signers.agent import AgentSigner
from ca.signers.agent_socket import Agent
from ca.signers.file import FileSigner
from ca.sshsig import SshSig, signed_bytes
from ca.wire import mpint, string, u32

TYPES = {"ed25519": None, "ecdsa-256": 256, "ecdsa-384": 384, "ecdsa-521": 521, "rsa-3072": 3072}
SECURITY_TYPES: Final = {"sk-ed25519": "ed25519-sk", "sk-ecdsa": "ecdsa-sk"}  # as we and as ssh-keygen call them
EVERY_TYPE: Final = (*TYPES, *SECURITY_TYPES)
# The software authenticator of Debian's openssh-tests, for ssh, ssh-keygen, ssh-add and ssh-agent; it always reports a touch.
PROVIDER: Final = {"SSH_SK_PROVIDER": "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"}


class Key(Protocol):
    """A key pair."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, message: bytes) -> bytes: ...


def make(directory: Path, kind: str = "ed25519", name: str | None = None) -> FileSigner:
    """A key pair of one of `TYPES`, made by ssh-keygen in `directory`."""
    path = directory / (name or kind)
    bits = ["-b", str(TYPES[kind])] if TYPES[kind] else []
    command = ["ssh-keygen", "-q", "-t", kind.partition("-")[0], *bits, "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return FileSigner(path, lambda _path: b"")


@dataclass(frozen=True)
class Kept:
    """A real key of any type: its private file, for OpenSSH's programs, and its signer, for us."""

    path: Path
    signer: Key

    @property
    def public_key(self) -> PublicKey:
        return self.signer.public_key

    def sign(self, message: bytes) -> bytes:
        return self.signer.sign(message)


def keep(directory: Path, kind: str, agent: Agent) -> Kept:
    """A new key of one of `EVERY_TYPE`; only `agent` signs with the security keys, through OpenSSH's own code."""
    path = directory / kind
    if kind in TYPES:
        return Kept(path, make(directory, kind))
    line = ["ssh-keygen", "-q", "-t", SECURITY_TYPES[kind], "-N", "", "-C", kind, "-f", str(path)]
    environment = os.environ | PROVIDER | {"SSH_AUTH_SOCK": str(agent.path)}
    for command in (line, ["ssh-add", "-q", str(path)]):
        subprocess.run(command, check=True, capture_output=True, env=environment)
    public_key = PublicKey.parse_line(path.with_suffix(".pub").read_text())
    return Kept(path, AgentSigner(agent, public_key.fingerprint))


@contextmanager
def ssh_agent(socket: Path) -> Iterator[Agent]:
    """A real ssh-agent of our own; it listens when this returns, because ssh-agent goes to the background only then."""
    said = subprocess.run(["ssh-agent", "-s", "-a", str(socket)], check=True, capture_output=True, text=True).stdout
    number = re.search(r"SSH_AGENT_PID=(\d+)", said)
    assert number, said
    try:
        yield Agent(socket)
    finally:
        os.kill(int(number[1]), signal.SIGTERM)


def sshsig(key: Key, message: bytes) -> bytes:
    """The SSHSIG blob of `key` over `message`."""
    return SshSig(key.public_key, key.sign(signed_bytes(message))).blob


class SecurityKey:
    """A software stand-in for a security key (PROTOCOL.u2f): `flags` 1 is user presence, 4 user verification."""

    def __init__(self, kind: str = "ed25519", *, flags: int = 1, application: str = "ssh:") -> None:
        self.flags = flags
        self._application = application.encode()
        self._ed25519 = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else None
        self._ecdsa = ec.generate_private_key(ec.SECP256R1())
        self.counter = 0

    @property
    def blob(self) -> bytes:
        """The public key blob."""
        if self._ed25519:
            fields = string(self._ed25519.public_key().public_bytes_raw())
            return string("sk-ssh-ed25519@openssh.com") + fields + string(self._application)
        numbers = self._ecdsa.public_key().public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        return string("sk-ecdsa-sha2-nistp256@openssh.com") + string("nistp256") + string(point) + string(self._application)

    @property
    def public_key(self) -> PublicKey:
        """The parsed public key."""
        return PublicKey.parse(self.blob)

    def sign(self, message: bytes) -> bytes:
        """A signature blob with the chosen flags and a counter that grows."""
        self.counter += 1
        tail = bytes([self.flags]) + u32(self.counter)
        signed = hashlib.sha256(self._application).digest() + tail + hashlib.sha256(message).digest()
        if self._ed25519:
            return string("sk-ssh-ed25519@openssh.com") + string(self._ed25519.sign(signed)) + tail
        r, s = decode_dss_signature(self._ecdsa.sign(signed, ec.ECDSA(hashes.SHA256())))
        return string("sk-ecdsa-sha2-nistp256@openssh.com") + string(mpint(r) + mpint(s)) + tail
