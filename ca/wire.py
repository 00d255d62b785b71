"""The SSH wire encoding (RFC 4251 §5): strict reading, plain writing. All integers are big-endian and unsigned."""

import binascii
from typing import Any

from ca.errors import Malformed


def u32(number: int) -> bytes:
    """Four bytes."""
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    """Eight bytes."""
    return number.to_bytes(8, "big")


def string(value: bytes | str) -> bytes:
    """A length and the bytes; text as UTF-8."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(4, "big") + raw


def mpint(number: int) -> bytes:
    """A positive integer in the fewest bytes whose first bit is clear."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


class Reader:
    """Reads fields off a byte string, first to last, and refuses (`Malformed`) whatever is short, long or not canonical."""

    def __init__(self, source: bytes, what: str) -> None:
        self._source = source
        self._at = 0
        self._what = what

    def take(self, length: int) -> bytes:
        """Exactly `length` bytes."""
        end = self._at + length
        if end > len(self._source):
            raise Malformed(f"{self._what} ends early: byte {len(self._source)} of at least {end}")
        piece = self._source[self._at : end]
        self._at = end
        return piece

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Eight bytes."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """A length and as many bytes."""
        start = self._at + 4
        end = start + int.from_bytes(self._source[self._at : start], "big")
        if end > len(self._source) or start > len(self._source):
            return self.take(self.u32())  # which says what is missing
        self._at = end
        return self._source[start:end]

    def fields(self, layout: str) -> list[Any]:
        """Several fields in one go: in `layout`, `s` is a string, `I` are four bytes and `Q` are eight."""
        source, at, found = self._source, self._at, list[Any]()
        for kind in layout:
            start = at + (8 if kind == "Q" else 4)
            number = int.from_bytes(source[at:start], "big")
            at = start + number if kind == "s" else start
            found.append(source[start:at] if kind == "s" else number)
        if at > len(source):  # one of them is short, and so is all behind it
            read = {"s": self.string, "I": self.u32, "Q": self.u64}
            return [read[kind]() for kind in layout]  # which says what is missing
        self._at = at
        return found

    def text(self) -> str:
        """A string that is UTF-8."""
        return self.decoded(self.string())

    def decoded(self, raw: bytes) -> str:
        """The text in the bytes of a string."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"{self._what} has text that is not UTF-8") from error

    def mpint(self) -> int:
        """A positive integer in its one canonical form."""
        raw = self.string()
        number = int.from_bytes(raw, "big")
        if mpint(number) != string(raw) or number == 0:
            raise Malformed(f"{self._what} has an integer that is zero, negative or padded")
        return number

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._source) - self._at)

    @property
    def so_far(self) -> bytes:
        """All that was read."""
        return self._source[: self._at]

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._source)

    def end(self) -> None:
        """Nothing may be left."""
        if not self.done:
            raise Malformed(f"{self._what} has {len(self._source) - self._at} bytes too many")


def decode_base64(text: str, what: str) -> bytes:
    """Padded base64 without any other character, in its one canonical spelling. Raises `Malformed`."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)  # as `base64.b64decode` with `validate`
    except ValueError as error:
        raise Malformed(f"{what} is not base64") from error
    if binascii.b2a_base64(raw, newline=False).decode() != text:
        raise Malformed(f"{what} is not canonical base64")
    return raw
