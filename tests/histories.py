"""Logs for tests of witnesses: a history of leaves, its checkpoints and proofs, and a second history by the same key."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import merkle
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.witness import Submission

Nodes = Mapping[tuple[int, int], bytes]
PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)


def log_key(origin: str) -> VerifierKey:
    """The key that every log here signs with."""
    return VerifierKey(origin, PRIVATE.public_key().public_bytes_raw())


class History:
    """What a log's entries were; `fork` begins another one that shares some of them."""

    def __init__(self, origin: str = "log.example.com", nodes: Nodes = MappingProxyType({}), size: int = 0) -> None:
        self.origin = origin
        self._nodes = dict(nodes)
        self._frontier = merkle.Frontier(size, self.read)

    @property
    def size(self) -> int:
        return self._frontier.size

    def grow(self, *leaves: str) -> "History":
        """Itself, with these leaves more."""
        for leaf in leaves:
            nodes = self._frontier.append(merkle.leaf_hash(leaf.encode()))
            self._nodes |= {(level, position): node for level, position, node in nodes}
        return self

    def fork(self, *leaves: str) -> "History":
        """Another history that begins with all of this one."""
        return History(self.origin, self._nodes, self.size).grow(*leaves)

    def read(self, level: int, position: int) -> bytes:
        return self._nodes[level, position]

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = self.size if size is None else size
        return Checkpoint(self.origin, size, merkle.root(size, self.read))

    def note(self, size: int | None = None) -> str:
        """The signed checkpoint of this size."""
        return sign_note(self.checkpoint(size).body(), log_key(self.origin), PRIVATE.sign)

    def submission(self, old: int, size: int | None = None) -> Submission:
        """What this history would send to a witness that has `old` entries."""
        return Submission.of(self.note(size), self.checkpoint(size), old, self.read)
