"""The journal of the break-glass kit: what was done, refused or practised with the emergency key while there was no CA.

One line of canonical JSON for each act, each with the SHA-256 of the line before it. A line is durable before what it says is
done, so a certificate without a line is one that the kit did not make. Imports nothing but what also runs inside the kit.
"""

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import ClassVar, Final, get_args

from ca import canonical
from ca.errors import JitSshError, Malformed
from ca.kit import LONGEST
from ca.names import BREAK_GLASS, GROUP, LINE, PERSON, require
from ca.wire import decode_base64

NAMESPACE: Final = "jit-ssh-break-glass"
FIRST_SERIAL: Final = 2**62  # below it are the serials of the log's own certificates
HASH_IN_KEY_ID: Final = 16  # hexadecimal digits
_LONGEST_LINE: Final = 16 * 1024
_LONGEST_TEXT: Final = 500
_LARGEST: Final = 16 * 1024 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SESSION: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Line(canonical.Tagged):
    """What every line says. `before` is the SHA-256 of the line before it, of the first line the kit's; `time` is Unix seconds.

    `session` is 16 random bytes, the same for all lines of one run of the kit. Raises `Malformed`, as do all lines.
    """

    before: str
    time: int
    session: str
    signature: str | None = None

    def __post_init__(self) -> None:
        require(_SHA256, self.before, "hash of the line before")
        require(_SESSION, self.session, "session")
        if self.time < 0:
            raise Malformed("the line's time is negative")

    def encode(self) -> bytes:
        """The line without its line feed: what is hashed."""
        return canonical.encode(self)

    @property
    def signed_bytes(self) -> bytes:
        """What the emergency key signs: the line without its signature."""
        return replace(self, signature=None).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the line in hexadecimal."""
        return sha256(self.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Open(Line):
    """A session begins: whoever signed this line had the emergency key, so the quorum met.

    `kit` is the SHA-256 of the kit's public facts, `shares` are the fingerprints of the shares that were typed; `forced` is
    why it was used although the CA answered.
    """

    TAG: ClassVar = ("kind", "open")

    kit: str
    host: str
    version: str
    drill: bool
    shares: tuple[str, ...]
    forced: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(_SHA256, self.kit, "kit")
        for share in self.shares:
            require(_SHA256, share, "fingerprint of a share")
        for text in (self.host, self.version, self.forced or ""):
            _check_text(text)


@dataclass(frozen=True, kw_only=True)
class Certified(Line):
    """What a certificate says that may be signed once this line is durable. Times are Unix seconds, `valid_before` exclusive."""

    person: str
    key: str
    principals: tuple[str, ...]
    reason: str
    serial: int
    valid_after: int
    valid_before: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(PERSON, self.person, "person")
        if not self.principals:
            raise Malformed("the line names no principal")
        for principal in self.principals:
            account, _, group = principal.partition("@")
            require(GROUP, group, "host group")
            if account != BREAK_GLASS:
                raise Malformed(f"principal {principal[:80]!a} is not {BREAK_GLASS}@ and a host group")
        if not self.reason.strip():
            raise Malformed("the line has no reason")
        _check_text(self.reason)
        _check_text(self.key)
        if not FIRST_SERIAL <= self.serial < 2**63:
            raise Malformed(f"serial {self.serial} is not between 2^62 and 2^63 - 1")
        if not self.valid_after <= self.time < self.valid_before <= self.time + LONGEST:
            raise Malformed(f"the certificate does not end within {LONGEST} s after its line")

    @property
    def key_id(self) -> str:
        """The certificate's key id: it names this very line, so it cannot be made before it."""
        return f"{BREAK_GLASS}/{self.person}/{self.digest[:HASH_IN_KEY_ID]}"


@dataclass(frozen=True, kw_only=True)
class Use(Certified):
    """A certificate for an emergency."""

    TAG: ClassVar = ("kind", "use")


@dataclass(frozen=True, kw_only=True)
class Drill(Certified):
    """A certificate for practice."""

    TAG: ClassVar = ("kind", "drill")


@dataclass(frozen=True, kw_only=True)
class Drilled(Line):
    """Whether ssh got into `target` (`account@host port`) with the certificate of the drill before it."""

    TAG: ClassVar = ("kind", "drilled")

    target: str
    entered: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_text(self.target)


@dataclass(frozen=True, kw_only=True)
class Refused(Line):
    """What was attempted in vain, and why. Unsigned where the key had not been rebuilt."""

    TAG: ClassVar = ("kind", "refused")

    attempted: str
    why: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_text(self.attempted)
        _check_text(self.why)


@dataclass(frozen=True, kw_only=True)
class Close(Line):
    """The session ended by itself, after so many certificates; a session without this line was broken off, or cut."""

    TAG: ClassVar = ("kind", "close")

    certificates: int


AnyLine = Open | Use | Drill | Drilled | Refused | Close
_KINDS: Final[tuple[type[AnyLine], ...]] = get_args(AnyLine)
Verify = Callable[[bytes, bytes], None]  # an SSHSIG's blob and the signed bytes; raises `JitSshError` when it does not fit


def _check_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT or not LINE.fullmatch(text):
        raise Malformed(f"a text is longer than {_LONGEST_TEXT} characters or has control or direction characters")


def sign(line: AnyLine, sign_bytes: Callable[[bytes], bytes]) -> AnyLine:
    """The line with its signature; `sign_bytes` gives an SSHSIG's blob in this journal's namespace."""
    return replace(line, signature=base64.b64encode(sign_bytes(line.signed_bytes)).decode())


def decode(source: bytes) -> AnyLine:
    """Reads one line, without its line feed. Raises `Malformed`."""
    if len(source) > _LONGEST_LINE:
        raise Malformed(f"the line has {len(source)} bytes, more than {_LONGEST_LINE}")
    return canonical.decode(source, _KINDS, "the line")


def read(source: bytes, kit: str, verify: Verify) -> tuple[AnyLine, ...]:
    """Every line of a journal of the kit with this SHA-256, none if it is empty.

    Raises `Malformed`, naming the first line that is damaged, does not continue the one before, is out of its session's order, or
    lacks a good signature.
    """
    if len(source) > _LARGEST:
        raise Malformed(f"the journal has {len(source)} bytes, more than {_LARGEST}")
    lines: list[AnyLine] = []
    sessions = defaultdict[str, list[AnyLine]](list)
    sources = source.split(b"\n")
    if sources.pop():
        raise Malformed(f"line {len(sources) + 1} of the journal has no end", "It was cut, or the disk was full")
    for number, each in enumerate(sources, start=1):
        try:
            line = decode(each)
            _check_chain(line, lines, kit)
            check_order(line, sessions[line.session], kit)
            check_signature(line, verify)
        except JitSshError as error:
            raise Malformed(f"line {number} of the journal: {error.message}", error.hint) from error
        lines.append(line)
        sessions[line.session].append(line)
    return tuple(lines)


def _check_chain(line: AnyLine, before: Sequence[AnyLine], kit: str) -> None:
    if line.before != (before[-1].digest if before else kit):
        hint = "A line was changed, taken out or put in" if before else "It is another kit's journal, or its first lines are cut"
        raise Malformed("it does not continue what stands before it", hint)
    if before and line.time < before[-1].time:
        raise Malformed("it is older than the line before it")


def check_order(line: AnyLine, session: Sequence[AnyLine], kit: str) -> None:
    """Raises `Malformed` for a line out of its session's order; `session` is what stands before it of that."""
    signed = [each for each in session if each.signature is not None]
    match line:
        case Open() if session:
            raise Malformed("its session has begun already")
        case Open() if line.kit != kit:
            raise Malformed("it is a line of another kit")
        case Open() | Refused(signature=None):
            pass
        case _ if not signed or isinstance(signed[-1], Close):
            raise Malformed("its session has not begun, or is over")
        case Use() | Drill() if isinstance(signed[0], Open) and signed[0].drill != isinstance(line, Drill):
            raise Malformed("a drill and a use are not of one session")
        case Drilled() if not isinstance(signed[-1], Drill):
            raise Malformed("there is no drill before it")
        case Close() if line.certificates != sum(isinstance(each, Certified) for each in signed):
            raise Malformed("it counts other certificates than there are")
        case _:
            pass


def check_signature(line: AnyLine, verify: Verify) -> None:
    """Raises `Malformed`, or what `verify` raises, for a line that the emergency key did not sign, though it has to."""
    if line.signature is not None:
        verify(decode_base64(line.signature, "the signature"), line.signed_bytes)
    elif not isinstance(line, Refused):
        raise Malformed("it is not signed by the emergency key")
