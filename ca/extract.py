"""Extracts: consecutive entries of a log, with the few hashes that prove them against a checkpoint.

Whoever has an extract can check it without the CA. What they must have by another way is the fingerprint of the CA's `Trust`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ca import canonical, merkle
from ca.checkpoint import Checkpoint, open_checkpoint
from ca.errors import Malformed
from ca.log import Reading
from ca.trust import Trust
from ca.verify import Report, verify_part


@dataclass(frozen=True, kw_only=True)
class Extract(canonical.Tagged):
    """What proves the entries from `start` up to `end`: the CA's trust, the checkpoint's note, and hashes in hexadecimal.

    `before` and `after` are the complete nodes that cover the leaves to the left and to the right, from left to right.
    """

    TAG: ClassVar = ("extract", "jit-ssh")

    trust: str
    checkpoint: str
    start: int
    end: int
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def ca(self) -> Trust:
        """The CA whose log this is, as the extract says. Raises `Malformed`."""
        return Trust.parse(self.trust.encode())

    def opened(self) -> Checkpoint:
        """The checkpoint, signed by the log key of `ca`. Raises `Malformed` or `BadSignature`."""
        return open_checkpoint(self.checkpoint, self.ca.verifier)

    def encode(self) -> bytes:
        """Its canonical JSON, one line."""
        return canonical.encode(self)

    @classmethod
    def parse(cls, source: bytes) -> "Extract":
        """Reads what `encode` writes. Raises `Malformed`."""
        return canonical.decode(source, (cls,), "the extract's proof")


def extract(log: Reading, trust: Trust, note: str, start: int, end: int) -> Extract:
    """What proves these entries of a log against the checkpoint in `note`.

    Raises `Malformed` when the checkpoint's log has no such entries, `LogDamaged` for a node that is missing.
    """
    size = open_checkpoint(note, trust.verifier).size
    if not 0 <= start <= end <= size:
        raise Malformed(f"a log of {size} entries has none from {start} to {end}")
    before, after = (
        tuple(log.node(level, position).hex() for level, position in merkle.complete_nodes(*ends))
        for ends in ((0, start), (end, size))
    )
    return Extract(trust=trust.encode().decode(), checkpoint=note, start=start, end=end, before=before, after=after)


def verify(proof: Extract, entries: Iterable[bytes]) -> Report:
    """Checks an extract's entries, in order.

    Raises `LogDamaged`, naming the first that is wrong, and `Malformed` or `BadSignature` for the proof.
    """
    before, after = ([_hash(text) for text in texts] for texts in (proof.before, proof.after))
    return verify_part(proof.ca, proof.opened(), (proof.start, proof.end), entries, before, after)


def _hash(text: str) -> bytes:
    if len(text) != 2 * merkle.HASH_LENGTH or text.strip("0123456789abcdef"):
        raise Malformed(f"{text[:80]!a} is not a hash in hexadecimal")
    return bytes.fromhex(text)
