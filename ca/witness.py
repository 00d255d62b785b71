"""What a witness is asked, what it decides, and how its answer is read (C2SP tlog-witness, `add-checkpoint`).

A witness's whole duty is the order of these steps: read the submission, `judge` it against the newest checkpoint that was
cosigned, keep the new one in its place, durably and under one lock with the judging, and only then cosign. A crash before the
keeping leaves nothing; one after it a checkpoint that is kept and not cosigned: whoever asks again, with its size as the old
one, gets the cosignature.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ca import merkle
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, split_note
from ca.cosignature import Cosignature, WitnessKey, received
from ca.errors import BadSignature, JitSshError, LogDamaged, Malformed, NotFound
from ca.merkle import EMPTY_ROOT, HASH_LENGTH, MAX_SIZE, Read
from ca.wire import decode_base64

MOST_HASHES: Final = 63  # of a consistency proof
LARGEST_ANSWER: Final = 64 * 1024  # bytes: more cosignatures than anybody makes of one checkpoint
SIZE_TYPE: Final = "text/x.tlog.size"  # the content type of a 409 answer
_INTRODUCE: Final = "Give its operator the log key that jit-ssh-ca fingerprint shows"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class Conflict(JitSshError):
    """The witness has cosigned a checkpoint of `size` entries, which is not where the submission begins, or not its root."""

    code = "conflict"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class NoCosignature(JitSshError):
    """A witness did not cosign, for a reason that says nothing about the log."""

    code = "no-cosignature"


class AnotherHistory(JitSshError):
    """A witness has cosigned what this log does not continue: here, or there, is an old copy or a second history."""

    code = "another-history"


# ------------------------------------------------------------- the submission


@dataclass(frozen=True)
class Submission:
    """A log's note, and the proof that it continues the checkpoint of `old` entries."""

    old: int
    proof: tuple[bytes, ...]
    note: str

    @classmethod
    def of(cls, note: str, checkpoint: Checkpoint, old: int, read: Read) -> "Submission":
        """What to send to a witness that cosigned `old` entries last; `read` gives the nodes of the tree."""
        return cls(old, tuple(merkle.consistency_proof(old, checkpoint.size, read)), note)

    def encode(self) -> bytes:
        """The body of the request."""
        hashes = "".join(f"{b64encode(each).decode()}\n" for each in self.proof)
        return f"old {self.old}\n{hashes}\n{self.note}".encode()

    @classmethod
    def parse(cls, body: bytes) -> "Submission":
        """Reads what `encode` writes; the note is not looked into. Raises `Malformed`."""
        try:
            head, empty_line, note = body.decode().partition("\n\n")
        except UnicodeDecodeError as error:
            raise Malformed("a submission that is not UTF-8") from error
        first, *hashes = head.split("\n")
        old = _OLD.fullmatch(first)
        if not empty_line or not old or int(old[1]) > MAX_SIZE:
            raise Malformed("a submission begins with the line `old SIZE`, the lines of the proof and an empty line")
        if len(hashes) > MOST_HASHES:
            raise Malformed(f"a proof has at most {MOST_HASHES} hashes, this one {len(hashes)}")
        proof = tuple(decode_base64(each, "a hash of the proof") for each in hashes)
        if any(len(each) != HASH_LENGTH for each in proof):
            raise Malformed(f"a hash of the proof has {HASH_LENGTH} bytes")
        return cls(int(old[1]), proof, note)

    @property
    def origin(self) -> str:
        """Whose checkpoint it says to be."""
        return self.note.partition("\n")[0]

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says, whoever signed it. Raises `Malformed`."""
        return Checkpoint.parse(split_note(self.note)[0])


# --------------------------------------------------------- what a witness decides


def judge(submission: Submission, key: VerifierKey, newest: Checkpoint | None) -> Checkpoint:
    """The checkpoint that may be kept instead of `newest` and then cosigned; None is before the first. `key` is the log's.

    Raises `Malformed`, `BadSignature` when the log did not sign it, `Conflict`, or `LogDamaged` when the proof does not verify.
    """
    checkpoint = open_checkpoint(submission.note, key)
    before = newest or Checkpoint(key.name, 0, EMPTY_ROOT)
    if submission.old > checkpoint.size:
        raise Malformed(f"a checkpoint of {checkpoint.size} entries cannot continue one of {submission.old}")
    if submission.old != before.size:
        raise Conflict(f"the newest checkpoint cosigned here has {before.size} entries, not {submission.old}", before.size)
    if checkpoint.size == before.size > 0 and checkpoint.root != before.root:
        raise Conflict(f"{_both(checkpoint, before)} Both are signed by the log: it has two histories", before.size)
    try:
        merkle.verify_consistency(before.size, before.root, checkpoint.size, checkpoint.root, submission.proof)
    except LogDamaged as error:
        raise LogDamaged(f"{_both(checkpoint, before)} The first is not proven to continue the second") from error
    return checkpoint


def _both(checkpoint: Checkpoint, before: Checkpoint) -> str:
    shown = (f"{each.size} entries below {each.root.hex()}" for each in (checkpoint, before))
    return "submitted: {}; cosigned before: {}.".format(*shown)


STATUS: Final[dict[type[JitSshError], HTTPStatus]] = {
    Malformed: HTTPStatus.BAD_REQUEST,
    BadSignature: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    LogDamaged: HTTPStatus.UNPROCESSABLE_ENTITY,
}


# ------------------------------------------------------- how its answer is read


def read_answer(sent: Submission, witness: WitnessKey, status: int, body: bytes) -> Cosignature | int:
    """The cosignature that was asked for, or the size that the witness has instead of `sent.old`.

    Raises `AnotherHistory` when it has seen a log that this one does not continue, else `NoCosignature` with the reason.
    """
    match status:
        case HTTPStatus.OK:
            return _cosignature(sent, witness, body)
        case HTTPStatus.CONFLICT:
            size = _SIZE.fullmatch(body)
            if not size or int(size[1]) > MAX_SIZE:
                raise NoCosignature("answered 409 without a size")
            if int(size[1]) != sent.old:
                return int(size[1])
            if sent.checkpoint.size != sent.old:
                raise NoCosignature(f"answered that it has not cosigned {sent.old} entries but {sent.old}")
            raise AnotherHistory(f"has cosigned {sent.old} entries with another root")
        case HTTPStatus.UNPROCESSABLE_ENTITY if sent.old:
            raise AnotherHistory(f"has cosigned {sent.old} entries that are not those at the beginning of this log")
        case HTTPStatus.NOT_FOUND:
            raise NoCosignature("does not know this log", _INTRODUCE)
        case HTTPStatus.FORBIDDEN:
            raise NoCosignature("knows this log with another key", _INTRODUCE)
        case _:
            raise NoCosignature(f"answered {status}")


def _cosignature(sent: Submission, witness: WitnessKey, body: bytes) -> Cosignature:
    try:
        return received(sent.note, body.decode(), witness)
    except UnicodeDecodeError as error:
        raise NoCosignature("answered something that is not UTF-8") from error
    except (Malformed, BadSignature) as error:
        raise NoCosignature(f"answered without its cosignature: {error.message}", error.hint) from error
