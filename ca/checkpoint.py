"""Checkpoints: the log's size and root, signed (C2SP signed-note and tlog-checkpoint, Ed25519).

A note is believed only after the signature of a key that the reader already had. Others may sign the same note
(witnesses); their signatures are skipped, so a note says nothing about who they are.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final, Self

from ca.ed25519 import verifies
from ca.errors import BadSignature, Malformed, SignerFailed
from ca.merkle import HASH_LENGTH, MAX_SIZE
from ca.point import ed25519_point

MAX_NOTE_LENGTH: Final = 128 * 1024  # bytes: sixteen post-quantum signatures of 5 kB, which C2SP wants accepted

_KEY_NAME: Final = re.compile(r"[!-*,-~]{1,512}", re.ASCII)  # visible ASCII, so that it can be shown; no `+`, no space
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIGNATURE_LINE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all but the newline
_CHANGED: Final = "the note was changed on its way, or another key made it: trust nothing in it"

Sign = Callable[[bytes], bytes]
"""Gives the raw 64-byte Ed25519 signature of a message; raises `SignerFailed`."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log named `origin` was: `size` entries below a `root` of 32 bytes.

    Raises `Malformed` for values that no checkpoint can have.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or not self.origin.isprintable():
            raise Malformed(f"a checkpoint cannot have the origin {self.origin[:80]!a}")
        if not 0 <= self.size <= MAX_SIZE:
            raise Malformed(f"a checkpoint cannot have the size {self.size}")
        if len(self.root) != HASH_LENGTH:
            raise Malformed(f"a checkpoint's root has {HASH_LENGTH} bytes, this one {len(self.root)}")

    def body(self) -> str:
        """The text that is signed: three lines, each with its newline."""
        return f"{self.origin}\n{self.size}\n{_to_base64(self.root)}\n"

    @classmethod
    def parse(cls, body: str) -> "Checkpoint":
        """Reads a body; raises `Malformed`, also for extension lines, which no log of ours writes."""
        lines = body.split("\n")
        if len(lines) != 4 or lines[3]:
            raise Malformed("a checkpoint has three lines: origin, size and root")
        origin, size, root, _ = lines
        if not _SIZE.fullmatch(size):
            raise Malformed(f"a checkpoint's size is a decimal number, not {size[:80]!a}")
        return cls(origin, int(size), _from_base64(root, "a checkpoint's root"))


@dataclass(frozen=True, slots=True)
class NoteKey:
    """An Ed25519 key (32 bytes) and the `name` that its signatures have in notes. Written `name+<id>+<base64>`.

    Raises `Malformed` for a name that cannot stand in a note, and for a key that anybody could sign with.
    """

    TYPE: ClassVar[bytes]  # the C2SP signature type: what the key's signatures are over
    WHAT: ClassVar[str]

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _KEY_NAME.fullmatch(self.name):
            raise Malformed(f"a note's key cannot be named {self.name[:80]!a}")
        ed25519_point(self.public_key)

    @property
    def key_id(self) -> bytes:
        """Four bytes that say which key a signature line means. They identify; they do not authenticate."""
        return sha256(self.name.encode() + b"\n" + self.TYPE + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_to_base64(self.TYPE + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` writes, and nothing else; raises `Malformed`."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = _from_base64(encoded, "a verifier key")
        if raw[:1] != cls.TYPE:
            raise Malformed(f"a verifier key that is not {cls.WHAT}")
        key = cls(name, raw[1:])
        if str(key) != text:
            raise Malformed(f"the verifier key of {name} has the id {key.key_id.hex()}, not {key_id[:80]!a}")
        return key

    def line(self, signature: bytes) -> str:
        """The line of a note that carries a signature by this key."""
        return f"— {self.name} {_to_base64(self.key_id + signature)}\n"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises `BadSignature` unless this key made the raw 64-byte `signature` of `message`."""
        if not verifies(self.public_key, signature, message):
            raise BadSignature(f"the signature by {self.name} does not fit the note", _CHANGED)


@dataclass(frozen=True, slots=True)
class VerifierKey(NoteKey):
    """A key whose signatures are over a note's text: for a log, its name is the origin."""

    TYPE: ClassVar = b"\x01"
    WHAT: ClassVar = "Ed25519"


def sign_note(text: str, key: VerifierKey, sign: Sign) -> str:
    """A note of `text` (which ends in a newline) with the signature that `sign` makes with the private half of `key`.

    Raises `Malformed` for a text that no note can carry, `SignerFailed` for a signature that does not verify.
    """
    message = checked_note(text).encode()
    if not text.endswith("\n"):
        raise Malformed("the text of a note ends in a newline")
    signature = sign(message)
    try:
        key.verify(message, signature)
    except BadSignature as error:
        raise SignerFailed(f"the signer made a signature that the key of {key.name} does not verify") from error
    return checked_note(f"{text}\n{key.line(signature)}")


def open_note(note: str | bytes, key: VerifierKey) -> str:
    """The text of a note that `key` signed.

    Raises `Malformed` for what is not a note or has two signatures by `key`, `BadSignature` unless it has a good one.
    """
    text, signatures = split_note(note)
    ours = [signature for name, key_id, signature in signatures if (name, key_id) == (key.name, key.key_id)]
    if not ours:
        raise BadSignature(f"the note has no signature by {key.name}", _CHANGED)
    if len(ours) > 1:
        raise Malformed(f"the note has {len(ours)} signatures by {key.name}")
    key.verify(text.encode(), ours[0])
    return text


def signed_alone(note: str | bytes, key: VerifierKey) -> str:
    """The note without the signature lines of others. Raises like `open_note`."""
    text, lines = open_note(note, key), split_note(note)[1]
    [ours] = [signature for name, key_id, signature in lines if (name, key_id) == (key.name, key.key_id)]
    return f"{text}\n{key.line(ours)}"


def open_checkpoint(note: str | bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note that the log's `key` signed, whose name is the log's origin.

    Raises `Malformed` for what is not a checkpoint, `BadSignature` for another log's or one that `key` did not sign.
    """
    checkpoint = Checkpoint.parse(open_note(note, key))
    if checkpoint.origin != key.name:
        raise BadSignature(f"the key of {key.name} signed a checkpoint of {checkpoint.origin}", _CHANGED)
    return checkpoint


def checked_note(note: str | bytes) -> str:
    """A note, or a part of one, that is UTF-8, not too long and free of control characters."""
    try:
        raw = note.encode() if isinstance(note, str) else note
        text = raw.decode()
    except UnicodeError as error:
        raise Malformed("a note that is not UTF-8") from error
    if len(raw) > MAX_NOTE_LENGTH:
        raise Malformed(f"a note of {len(raw)} bytes, more than {MAX_NOTE_LENGTH}")
    if control := _CONTROL.search(text):
        raise Malformed(f"a note with the control character {control[0]!a}")
    return text


def split_note(note: str | bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and the (name, key id, signature) of each signature line. The last empty line stands between them."""
    text, empty_line, signatures = checked_note(note).rpartition("\n\n")
    if not empty_line or not signatures.endswith("\n"):
        raise Malformed("a note is a text, an empty line and signature lines, each with its newline")
    return text + "\n", list(_signatures(signatures))


def _signatures(lines: str) -> Iterator[tuple[str, bytes, bytes]]:
    for line in lines[:-1].split("\n"):
        fields = _SIGNATURE_LINE.fullmatch(line)
        if not fields:
            raise Malformed(f"{line[:80]!a} is not a signature line")
        raw = _from_base64(fields[2], "a note's signature")
        if len(raw) <= 4:
            raise Malformed("a note's signature has a key id and nothing after it")
        yield fields[1], raw[:4], raw[4:]


def _to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: str, what: str) -> bytes:
    """Bytes from their one standard base64 form: the same signature must not have two spellings."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{what} is not base64") from error
    if _to_base64(raw) != text:
        raise Malformed(f"{what} is not canonical base64")
    return raw
