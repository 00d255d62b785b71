"""Proofs that an entry is in the log (C2SP tlog-proof), and certificates that carry the one of their own `issue` entry.

A proof is text: the entry's own bytes as `extra`, its index, the hashes from its leaf to the root, and the log's signed
checkpoint. Nothing in it is believed before the checkpoint's signature and the hashes are checked; then the entry is in the log
of whoever holds the log's key, and a certificate that differs from what its entry says is not one that the log knows of.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from ca import entry, merkle
from ca.certificate import SignedCertificate
from ca.checkpoint import MAX_NOTE_LENGTH, Checkpoint, VerifierKey
from ca.cosignature import Quorum
from ca.entry import LARGEST, IssueEntry
from ca.errors import LogDamaged, Malformed
from ca.merkle import HASH_LENGTH, MAX_SIZE, leaf_hash
from ca.trust import Trust
from ca.wire import decode_base64

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_LONGEST_PATH: Final = 63  # hashes: no tree is higher
_LARGEST: Final = 2 * LARGEST + 64 * _LONGEST_PATH + MAX_NOTE_LENGTH
NOBODY: Final = Quorum()
_SHOW: Final = "Keep the certificate and show it to the security team: whoever made it has the CA's key, and not its log"


@dataclass(frozen=True)
class Proof:
    """That the `entry` is number `index` of the log whose checkpoint is in `note`. `path` leads from the leaf to the root."""

    entry: bytes
    index: int
    path: tuple[bytes, ...]
    note: str

    def encode(self) -> str:
        """The proof as C2SP writes it; its last line ends in a newline."""
        hashes = [b64encode(step).decode() for step in self.path]
        return "\n".join([_HEADER, f"extra {b64encode(self.entry).decode()}", f"index {self.index}", *hashes, "", self.note])

    @property
    def size(self) -> int:
        """The size of the log that its checkpoint speaks of, as little to be believed as the rest. Raises `Malformed`."""
        return Checkpoint.parse(self.note.partition("\n\n")[0] + "\n").size

    @classmethod
    def parse(cls, text: str) -> "Proof":
        """Reads what `encode` writes, and nothing else. Raises `Malformed`."""
        if len(text) > _LARGEST:
            raise Malformed(f"the proof has {len(text)} characters, more than {_LARGEST}")
        head, empty_line, note = text.partition("\n\n")
        lines = head.split("\n")
        if not empty_line or len(lines) < 3 or lines[0] != _HEADER or not lines[1].startswith("extra "):
            raise Malformed(f"the proof is not a {_HEADER} with its entry")
        index = _INDEX.fullmatch(lines[2])
        if index is None or int(index[1]) > MAX_SIZE or len(lines) - 3 > _LONGEST_PATH:
            raise Malformed("the proof has no index, or more hashes than a log has levels")
        path = tuple(decode_base64(line, "a hash of the proof") for line in lines[3:])
        if any(len(step) != HASH_LENGTH for step in path):
            raise Malformed(f"the proof has a hash that is not of {HASH_LENGTH} bytes")
        return cls(decode_base64(lines[1].removeprefix("extra "), "the entry of the proof"), int(index[1]), path, note)

    def verify(self, key: VerifierKey, quorum: Quorum = NOBODY) -> Checkpoint:
        """The log's checkpoint, which the log's `key` signed, enough witnesses cosigned, and this entry is under.

        Raises what `Quorum.open` raises, and `LogDamaged` when the entry is not proven to be there.
        """
        checkpoint = quorum.open(self.note, key).checkpoint
        self.verify_inclusion(checkpoint)
        return checkpoint

    def verify_inclusion(self, checkpoint: Checkpoint) -> None:
        """Raises `LogDamaged` unless the entry is proven to be under this checkpoint, which somebody else has opened."""
        merkle.verify_inclusion(leaf_hash(self.entry), self.index, checkpoint.size, self.path, checkpoint.root)


def prove(source: bytes, index: int, size: int, read: merkle.Read, note: str) -> Proof:
    """The proof of an entry under the `note` of `size` entries, whose nodes `read` gives."""
    return Proof(source, index, tuple(merkle.inclusion_proof(index, size, read)), note)


def carried(signed: SignedCertificate) -> Proof:
    """The proof in a certificate. Raises `Malformed` when there is none."""
    if signed.certificate.log_proof is None:
        raise Malformed("the certificate does not prove that it is in the log", "The CA is older than this, or it is not its own")
    return Proof.parse(signed.certificate.log_proof)


def proven(signed: SignedCertificate, trust: Trust, quorum: Quorum = NOBODY) -> Checkpoint:
    """The checkpoint that a certificate is under, which is signed and says exactly what its entry in the log says.

    Raises `Malformed`, `BadSignature`, `NotWitnessed` or `LogDamaged` for any other.
    """
    proof = carried(signed)
    checkpoint = proof.verify(trust.verifier, quorum)
    check_entry(signed, proof)
    return checkpoint


def check_entry(signed: SignedCertificate, proof: Proof) -> None:
    """Raises `LogDamaged` unless the proof's entry is this very certificate's. Whether it is in the log is not looked at."""
    found = entry.decode(proof.entry)
    if not isinstance(found, IssueEntry) or (found.index, found.index) != (proof.index, signed.certificate.serial):
        raise LogDamaged("the certificate carries the proof of another entry", _SHOW)
    if decode_base64(found.tbs, "the certificate") != signed.certificate.bare.to_be_signed:
        raise LogDamaged("the certificate is not the one that is in the log under its serial", _SHOW)
