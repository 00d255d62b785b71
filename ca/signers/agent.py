"""`agent:FINGERPRINT`: a key in an ssh-agent, so that this process holds none.

Whoever can open the agent's socket can sign without leaving an entry; nobody can copy the key through it.
"""

from typing import Final

from ca.errors import SignerFailed
from ca.keys import PublicKey, fingerprint
from ca.signers.agent_socket import Agent


class AgentSigner:
    """Signs with a key that an agent holds."""

    at_once: Final = False

    def __init__(self, agent: Agent, wanted: str) -> None:
        """Finds the key with this `SHA256:` fingerprint. Raises `SignerFailed` when the agent does not hold it."""
        self._agent = agent
        self.public_key = self._found(wanted)

    def _found(self, wanted: str) -> PublicKey:
        for blob, _comment in self._agent.identities():
            if fingerprint(blob) == wanted:
                return PublicKey.parse(blob)
        raise SignerFailed(f"the ssh-agent at {self._agent.path} does not hold {wanted}", "Add the key with ssh-add")

    def ready(self) -> None:
        """Raises `SignerFailed` when the agent is gone or has lost the key."""
        self._found(self.public_key.fingerprint)

    def sign(self, message: bytes) -> bytes:
        """An SSH signature blob over `message`. Raises `SignerFailed`."""
        return self._agent.sign(self.public_key.blob, message)
