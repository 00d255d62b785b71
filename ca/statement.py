"""Statements: what a person signed with their SSH key to cause an entry or to read.

Canonical JSON (`ca.canonical`). `audience` is the log's origin, so a statement for one CA means nothing to another; `id` is a
UUIDv7 that the client makes and the log accepts once; `time` is Unix seconds.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, get_args

from ca.canonical import Tagged
from ca.errors import Malformed
from ca.keys import PublicKey
from ca.names import LINE, ORIGIN, PERSON, ROLE, require
from ca.spelled import decoder

FRESH: Final = 120  # seconds around the CA's clock within which a statement is accepted
LONGEST_REASON: Final = 500  # characters
VERDICTS: Final = ("drill", "real", "misuse")  # of a use of the emergency key
_LEAF: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LARGEST: Final = 8 * 1024
_CASE: Final = re.compile(r"/v1/(?:requests|cases)/0*([0-9]{1,18})(?:\?|\Z)", re.ASCII)  # as a server reads the number
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
        _check_reason(self.reason)
        _check_key(self.key, self.public_key)

    @cached_property
    def public_key(self) -> PublicKey:
        """The key to certify."""
        return PublicKey.parse_line(self.key)


@dataclass(frozen=True, kw_only=True)
class OnRequest(Statement):
    """What is said about the request in entry `request`."""

    request: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.request < 2**62:
            raise Malformed(f"there is no request {self.request}")


@dataclass(frozen=True, kw_only=True)
class Answer(OnRequest):
    """An answer to exactly the request that was shown: `leaf` is its entry's leaf hash, 64 lower-case hexadecimal digits."""

    leaf: str
    reason: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(_LEAF, self.leaf, "leaf")
        _check_reason(self.reason or "")


@dataclass(frozen=True, kw_only=True)
class ApproveStatement(Answer):
    """Yes, for the duration asked or a shorter one in seconds."""

    TAG: ClassVar = ("action", "approve")

    duration: int | None = None


@dataclass(frozen=True, kw_only=True)
class DenyStatement(Answer):
    """No."""

    TAG: ClassVar = ("action", "deny")


@dataclass(frozen=True, kw_only=True)
class ReviewStatement(Answer):
    """What a use of the emergency key was, one of `VERDICTS`; `request` is its `break-glass` entry, `reason` the finding."""

    TAG: ClassVar = ("action", "review")

    verdict: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.verdict not in VERDICTS:
            raise Malformed(f"a use of the emergency key is not {self.verdict[:20]!a}", f"Say one of {', '.join(VERDICTS)}")
        _check_reason(self.reason or "", needed=True)


@dataclass(frozen=True, kw_only=True)
class WithdrawStatement(OnRequest):
    """The person who asked takes it back."""

    TAG: ClassVar = ("action", "withdraw")


@dataclass(frozen=True, kw_only=True)
class DropStatement(OnRequest):
    """The person who holds the grant gives it back."""

    TAG: ClassVar = ("action", "drop")


@dataclass(frozen=True, kw_only=True)
class CertificateStatement(OnRequest):
    """Another certificate within a grant, for `key`.

    With `serial` it is signed by the key of that certificate of the same request, and not by the person's own.
    """

    TAG: ClassVar = ("action", "certificate")

    key: str
    serial: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.serial is not None and not self.request < self.serial < 2**62:
            raise Malformed(f"there is no certificate {self.serial} of request {self.request}")
        _check_key(self.key, self.public_key)

    @cached_property
    def public_key(self) -> PublicKey:
        """The key to certify."""
        return PublicKey.parse_line(self.key)


@dataclass(frozen=True, kw_only=True)
class RevokeStatement(Statement):
    """The security team ends one grant, one certificate, or every grant of a person."""

    TAG: ClassVar = ("action", "revoke")

    reason: str
    request: int | None = None
    person: str | None = None
    serial: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reason(self.reason, needed=True)
        if [self.request, self.person, self.serial].count(None) != 2:
            raise Malformed("to revoke, name one of request, person and serial")
        if self.person is not None:
            require(PERSON, self.person, "person")


@dataclass(frozen=True, kw_only=True)
class _OnPerson(Statement):
    person: str
    reason: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(PERSON, self.person, "person")
        _check_reason(self.reason, needed=True)


@dataclass(frozen=True, kw_only=True)
class LockStatement(_OnPerson):
    """The person gets nothing from now on."""

    TAG: ClassVar = ("action", "lock")


@dataclass(frozen=True, kw_only=True)
class UnlockStatement(_OnPerson):
    """The person may ask again."""

    TAG: ClassVar = ("action", "unlock")


@dataclass(frozen=True, kw_only=True)
class ReadStatement(Statement):
    """A person reads `path`: the request target, query included."""

    TAG: ClassVar = ("action", "read")

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable():
            raise Malformed("the path to read is not a path")

    @property
    def request(self) -> int | None:
        """The entry of the case that is read, if it is one."""
        found = _CASE.match(self.path)
        return int(found[1]) if found else None


AnyStatement = (
    RequestStatement
    | ApproveStatement
    | DenyStatement
    | ReviewStatement
    | WithdrawStatement
    | DropStatement
    | CertificateStatement
    | RevokeStatement
    | LockStatement
    | UnlockStatement
    | ReadStatement
)
_KINDS: Final[tuple[type[AnyStatement], ...]] = get_args(AnyStatement)
_decode: Final = decoder(_KINDS, "the statement")


def _check_reason(reason: str, *, needed: bool = False) -> None:
    if needed and not reason.strip():
        raise Malformed("there is no reason", "Say why in one line: it stays in the log")
    if len(reason) > LONGEST_REASON or not LINE.fullmatch(reason):
        raise Malformed(
            f"the reason is longer than {LONGEST_REASON} characters or has control or direction characters",
            "Write one line of plain text",
        )


def _check_key(line: str, key: PublicKey) -> None:
    if key.line != line:
        raise Malformed("the key is not of the form `type base64`", "Leave out the comment")


def parse(source: bytes) -> AnyStatement:
    """Reads a statement. Raises `Malformed`."""
    if len(source) > _LARGEST:
        raise Malformed(f"the statement has {len(source)} bytes, more than {_LARGEST}")
    return _decode(source)
