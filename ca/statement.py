"""Statements: what a person signed with their SSH key to cause an entry or to read.

Canonical JSON (`ca.canonical`). `audience` is the log's origin, so a statement for one CA means nothing to another; `id` is a
UUIDv7 that the client makes and the log accepts once; `time` is Unix seconds.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

from ca.canonical import Tagged, decode
from ca.errors import Malformed
from ca.keys import PublicKey
from ca.names import LINE, ORIGIN, ROLE, require

FRESH: Final = 120  # seconds around the CA's clock within which a statement is accepted
LONGEST_REASON: Final = 500  # characters
_LARGEST: Final = 8 * 1024
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Statement(Tagged):
    """What every statement says. Raises `Malformed` for a value that no client of ours would write."""

    audience: str
    id: str
    time: int

    def __post_init__(self) -> None:
        require(ORIGIN, self.audience, "audience")
        require(_UUID7, self.id, "statement id")
        if self.time < 0:
            raise Malformed("the statement's time is negative")


@dataclass(frozen=True, kw_only=True)
class RequestStatement(Statement):
    """A person asks for a role. `duration` is in seconds, absent for the role's default; `key` is the one to certify."""

    TAG: ClassVar = ("action", "request")

    role: str
    duration: int | None = None
    reason: str
    key: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(ROLE, self.role, "role")
        if len(self.reason) > LONGEST_REASON or not LINE.fullmatch(self.reason):
            raise Malformed(
                f"the reason is longer than {LONGEST_REASON} characters or has control or direction characters",
                "Write one line of plain text",
            )
        if self.public_key.line != self.key:
            raise Malformed("the key is not of the form `type base64`", "Leave out the comment")

    @cached_property
    def public_key(self) -> PublicKey:
        """The key to certify."""
        return PublicKey.parse_line(self.key)


@dataclass(frozen=True, kw_only=True)
class ReadStatement(Statement):
    """A person reads `path`: the request target, query included."""

    TAG: ClassVar = ("action", "read")

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable():
            raise Malformed("the path to read is not a path")


AnyStatement = RequestStatement | ReadStatement
_KINDS: Final[tuple[type[AnyStatement], ...]] = (RequestStatement, ReadStatement)


def parse(source: bytes) -> AnyStatement:
    """Reads a statement. Raises `Malformed`."""
    if len(source) > _LARGEST:
        raise Malformed(f"the statement has {len(source)} bytes, more than {_LARGEST}")
    return decode(source, _KINDS, "the statement")
