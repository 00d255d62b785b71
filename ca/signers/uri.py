"""Which signer a URI means: `file:keys/ca` or `agent:SHA256:…[?socket=PATH]`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ca.errors import Misconfigured
from ca.keys import PublicKey
from ca.signers.agent import AgentSigner
from ca.signers.agent_socket import Agent
from ca.signers.file import FileSigner


class Signer(Protocol):
    """A key that signs, wherever it lives."""

    @property
    def at_once(self) -> bool:
        """Whether it signs without waiting for another program."""

    @property
    def public_key(self) -> PublicKey:
        """Its public half."""

    def sign(self, message: bytes) -> bytes:
        """An SSH signature blob over `message`. Raises `SignerFailed`."""

    def ready(self) -> None:
        """Raises `SignerFailed` when the key is out of reach."""


def open_signer(uri: str, directory: Path, passphrase: Callable[[Path], bytes]) -> Signer:
    """The signer that `uri` means; a relative path is one below `directory`.

    Raises `Misconfigured` for a URI of another scheme or an unusable key file, `SignerFailed` for an agent without the key.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "file" and rest:
        return FileSigner(directory / rest, passphrase)
    if scheme == "agent" and rest:
        fingerprint, _, path = rest.partition("?socket=")
        agent = Agent(directory / path) if path else Agent.from_environment()
        if agent is None:
            raise Misconfigured(f"signer {uri!r}: SSH_AUTH_SOCK is not set", f"Write {uri}?socket=/path/to/agent.sock")
        return AgentSigner(agent, fingerprint)
    raise Misconfigured(f"signer {uri!r} is not of a known kind", "Write file:PATH or agent:SHA256:FINGERPRINT[?socket=PATH]")
