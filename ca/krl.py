"""Key revocation lists (PROTOCOL.krl): the serials that one CA revoked, in the one form in which we write them.

    header   uint64 magic, uint32 1, uint64 version, uint64 date, uint64 0, string "", string comment
    section  byte 1, string (string CA key, string "", byte 0x20, string (uint64 serial, ascending …))

There is one section even when nothing is revoked: a list cut anywhere, right behind its header too, is malformed. The list has
no signature of its own, for sshd from 9.4 on refuses a signed one. To sshd a file that is no list at all revokes nothing, so
whoever fetches one parses it before it is used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ca.errors import Malformed
from ca.keys import PublicKey
from ca.wire import Reader, string, u32, u64

LARGEST: Final = 8 * 1024 * 1024  # bytes: a million serials
_MAGIC: Final = 0x5353484B524C0A00  # "SSHKRL\n\0"
_FORMAT: Final = 1
_CERTIFICATES: Final = b"\x01"
_SERIALS: Final = b"\x20"


@dataclass(frozen=True)
class Krl:
    """What a list says. `version` only grows, `date` is Unix seconds, `serials` ascend. Raises `Malformed`."""

    version: int
    date: int
    ca_key: PublicKey
    serials: tuple[int, ...]
    comment: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.version < 2**64 and 0 <= self.date < 2**64):
            raise Malformed(f"version {self.version} or date {self.date} of the revocation list is not a 64-bit number")
        if not all(0 < serial < 2**63 for serial in self.serials):  # sshd has no way to revoke serial 0
            raise Malformed("the revocation list has a serial that is not between 1 and 2^63 - 1")
        if not all(one < other for one, other in pairwise(self.serials)):
            raise Malformed("the serials of the revocation list are not in ascending order, each once")
        if not self.comment.isprintable():  # ssh-keygen -Q -l shows it as it is
            raise Malformed("the comment of the revocation list has a character that cannot be shown")

    @property
    def blob(self) -> bytes:
        """The list as sshd's `RevokedKeys` reads it."""
        numbers = u64(_MAGIC) + u32(_FORMAT) + u64(self.version) + u64(self.date) + u64(0)
        header = numbers + string(b"") + string(self.comment)
        listed = b"".join(map(u64, self.serials))
        return header + _CERTIFICATES + string(string(self.ca_key.blob) + string(b"") + _SERIALS + string(listed))


def encode(version: int, date: int, ca_key: PublicKey, serials: Iterable[int], comment: str = "") -> bytes:
    """The list of these serials, in any order, which `ca_key` signed. Raises `Malformed`."""
    return Krl(version, date, ca_key, tuple(sorted(set(serials))), comment).blob


def parse(blob: bytes, ca_key: PublicKey) -> Krl:
    """Reads a list about certificates of `ca_key`. Raises `Malformed` for anything but what `encode` writes."""
    if len(blob) > LARGEST:
        raise Malformed(f"the revocation list has {len(blob)} bytes, more than {LARGEST}")
    reader = Reader(blob, "the revocation list")
    if reader.u64() != _MAGIC or reader.u32() != _FORMAT:
        raise Malformed("this is not a revocation list, or one of a format that is not known")
    version, date, flags = reader.u64(), reader.u64(), reader.u64()
    if flags or reader.string():
        raise Malformed("the revocation list uses a reserved field")
    comment, serials = reader.text(), _section(reader, ca_key)
    reader.end()
    return Krl(version, date, ca_key, serials, comment)


def _section(reader: Reader, ca_key: PublicKey) -> tuple[int, ...]:
    if reader.take(1) != _CERTIFICATES:
        raise Malformed("the revocation list has a section that is not of certificates")
    section = Reader(reader.string(), "the section of certificates")
    named = section.string()
    if named != ca_key.blob:  # an empty one would stand for every CA
        raise Malformed("the revocation list is about certificates of another CA", f"Ask the CA {ca_key.fingerprint}")
    if section.string() or section.take(1) != _SERIALS:
        raise Malformed("the section of certificates is not a list of serials")
    listed = Reader(section.string(), "the list of serials")
    section.end()
    serials = []
    while not listed.done:
        serials.append(listed.u64())
    return tuple(serials)
