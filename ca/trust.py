"""What a client or host has to know to believe a CA: its log's name and key, and the keys that sign its certificates."""

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from typing import ClassVar

from ca import canonical
from ca.checkpoint import VerifierKey
from ca.errors import Malformed
from ca.keys import PublicKey
from ca.names import ORIGIN, require


@dataclass(frozen=True, kw_only=True)
class Trust(canonical.Tagged):
    """`ca_keys` are OpenSSH lines (several while a key is being replaced), `log_key` a C2SP verifier key named `origin`.

    Raises `Malformed` when they do not belong together.
    """

    TAG: ClassVar = ("trust", "jit-ssh")

    origin: str
    ca_keys: tuple[str, ...]
    log_key: str

    def __post_init__(self) -> None:
        require(ORIGIN, self.origin, "origin")
        if self.verifier.name != self.origin:
            raise Malformed(f"the log key is named {self.verifier.name[:80]!a}, not {self.origin}")
        if not self.ca_keys or [key.line for key in self.public_keys] != list(self.ca_keys):
            raise Malformed("a CA has at least one key, each of the form `type base64`")

    @property
    def verifier(self) -> VerifierKey:
        """The key that signs checkpoints."""
        return VerifierKey.parse(self.log_key)

    @property
    def public_keys(self) -> tuple[PublicKey, ...]:
        """The keys that sign certificates."""
        return tuple(PublicKey.parse_line(line) for line in self.ca_keys)

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and 43 characters over all of it: what a person compares before believing it."""
        return "SHA256:" + b64encode(hashlib.sha256(self.encode()).digest()).decode().rstrip("=")

    def encode(self) -> bytes:
        """Its canonical JSON."""
        return canonical.encode(self)

    @classmethod
    def parse(cls, source: bytes) -> "Trust":
        """Reads what `encode` writes. Raises `Malformed`."""
        return canonical.decode(source, (cls,), "the CA's description of itself")
