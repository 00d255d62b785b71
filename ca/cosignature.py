"""Cosignatures: what a witness says of a checkpoint (C2SP tlog-cosignature, `cosignature/v1`, Ed25519).

A witness says "at this time this was the largest checkpoint of that log that I saw, and it continued all those before". The
signed message names the log and the time, but not the witness, so one key must never serve two witnesses: `Quorum` refuses that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ca.checkpoint import Checkpoint, NoteKey, Sign, VerifierKey, checked_note, open_checkpoint, split_note
from ca.errors import BadSignature, Malformed, Misconfigured, NotWitnessed, SignerFailed
from ca.wire import Reader, u64

LATEST: Final = 2**63 - 1  # Unix seconds


@dataclass(frozen=True, slots=True)
class WitnessKey(NoteKey):
    """A witness: its signatures are over a time and a checkpoint."""

    TYPE: ClassVar = b"\x04"
    WHAT: ClassVar = "a witness's (Ed25519 cosignatures)"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """That `witness` cosigned, at `time` (Unix seconds), and the line of the note that says so."""

    witness: WitnessKey
    time: int
    line: str


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that the log signed, and its cosignatures by witnesses that the reader knows, one each."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]


@dataclass(frozen=True)
class Quorum:
    """Which witnesses a reader knows, and how many of them must have seen what it believes.

    Raises `Misconfigured` for a number that cannot be reached, and for two witnesses with one name or one key.
    """

    witnesses: tuple[WitnessKey, ...] = ()
    required: int = 0

    def __post_init__(self) -> None:
        for what, values in (
            ("name", [witness.name for witness in self.witnesses]),
            ("key", [witness.public_key.hex() for witness in self.witnesses]),
        ):
            if twice := {value for value in values if values.count(value) > 1}:
                raise Misconfigured(f"two witnesses have the {what} {min(twice)}", "Name each once, or it counts twice")
        if not 0 <= self.required <= len(self.witnesses):
            raise Misconfigured(
                f"{self.required} witnesses are required, {len(self.witnesses)} are known", "Require at most as many as there are"
            )

    def open(self, note: str | bytes, key: VerifierKey) -> Witnessed:
        """The checkpoint in a note that the log's `key` signed and enough of the witnesses cosigned.

        Raises what `open_checkpoint` raises, `BadSignature` or `Malformed` for a line of a witness that does not verify, and
        `NotWitnessed` when they are too few.
        """
        checkpoint = open_checkpoint(note, key)
        if any(witness.public_key == key.public_key for witness in self.witnesses):
            raise Misconfigured(f"the key of {key.name} cannot be its own witness", "Name witnesses that others run")
        found = cosignatures(note, self.witnesses)
        if len(found) < self.required:
            seen_by = ", ".join(each.witness.name for each in found) or "none"
            raise NotWitnessed(
                f"the checkpoint of {checkpoint.size} entries has to be cosigned by {self.required} witnesses: {seen_by} did",
                "Try again; if it stays so, the witnesses are down, or have seen another log than this one",
            )
        return Witnessed(checkpoint, found)


def cosign(text: str, witness: WitnessKey, time: int, sign: Sign) -> Cosignature:
    """The cosignature of a checkpoint's text (its three lines) at `time` (Unix seconds), made with the witness's private half.

    The caller has checked that the checkpoint continues everything that this witness cosigned before, and made it durable.
    Raises `Malformed` for what is no checkpoint or no time, `SignerFailed` for a signature that does not verify.
    """
    Checkpoint.parse(text)
    message = _message(text, time)
    signature = sign(message)
    try:
        witness.verify(message, signature)
    except BadSignature as error:
        raise SignerFailed(f"the signer made a signature that the key of {witness.name} does not verify") from error
    return Cosignature(witness, time, witness.line(u64(time) + signature))


def cosignatures(note: str | bytes, witnesses: Iterable[WitnessKey]) -> tuple[Cosignature, ...]:
    """The cosignatures in a note by these witnesses, in their order; lines by others are skipped.

    Whether the log signed the note is not looked at. Raises `Malformed` when one of them has two lines or one that is no
    cosignature, `BadSignature` for one that does not verify.
    """
    text, lines = split_note(note)
    found = []
    for witness in witnesses:
        theirs = [signature for name, key_id, signature in lines if (name, key_id) == (witness.name, witness.key_id)]
        if len(theirs) > 1:
            raise Malformed(f"the note has {len(theirs)} cosignatures by {witness.name}")
        found += [_verified(text, witness, signature) for signature in theirs]
    return tuple(found)


def received(note: str, answer: str, witness: WitnessKey) -> Cosignature:
    """The cosignature of the note's text in what a witness answered: signature lines, of which those by other keys are skipped.

    Raises `Malformed` for an answer of anything else, `BadSignature` when the witness's is not there or does not verify.
    """
    text, _ = split_note(note)
    together = f"{text}\n{answer}"
    if split_note(together)[0] != text:  # the answer would be a part of the text that it is a signature of
        raise Malformed("the witness answered something else than signature lines")
    found = cosignatures(together, (witness,))
    if not found:
        raise BadSignature(f"the answer has no cosignature by {witness.name}", "Compare the key with the witness's own")
    return found[0]


def attach(note: str, found: Iterable[Cosignature]) -> str:
    """The note with these cosignatures behind its own lines. Raises `Malformed` when it becomes too long."""
    return checked_note(note + "".join(each.line for each in found))


def _verified(text: str, witness: WitnessKey, signature: bytes) -> Cosignature:
    reader = Reader(signature, f"the cosignature by {witness.name}")
    time, signed = reader.u64(), reader.take(64)
    reader.end()
    witness.verify(_message(text, time), signed)
    return Cosignature(witness, time, witness.line(signature))


def _message(text: str, time: int) -> bytes:
    if not 0 <= time <= LATEST:
        raise Malformed(f"a cosignature cannot be made at the time {time}")
    return f"cosignature/v1\ntime {time}\n{text}".encode()
