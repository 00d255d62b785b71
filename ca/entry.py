"""Entries: the records of the log, one dataclass a kind, in canonical JSON of at most 65,535 bytes.

The leaf of the tree is the hash of exactly these bytes. An entry that a person caused carries that person's statement and
signature verbatim, so that it can be checked without this CA. Binary fields are base64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, get_args

from ca import canonical, spelled
from ca.certificate import Certificate
from ca.errors import Malformed
from ca.findings import Duty, Finding, Privilege, Step, Way
from ca.journal import AnyLine, Certified
from ca.journal import decode as decode_line
from ca.kit import Facts, Seal
from ca.sshd_lines import Login
from ca.sshsig import SshSig
from ca.wire import decode_base64

LARGEST: Final = 65_535
OPERATOR: Final = "@operator"  # the actor where no person signed; no person's name can begin with @


@dataclass(frozen=True, kw_only=True)
class Entry(canonical.Tagged):
    """What every entry says. `time` is Unix milliseconds and never less than the entry's before."""

    index: int
    time: int
    actor: str

    def encode(self) -> bytes:
        """The bytes that are hashed and stored. Raises `Malformed` when they are too many."""
        encoded = canonical.encode(self)
        if len(encoded) > LARGEST:
            raise Malformed(f"entry {self.index} has {len(encoded)} bytes, more than {LARGEST}")
        return encoded


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Which log cannot be continued: its log key, the newest note that is left of it, and, if there was one, a later one."""

    log_key: str
    kept: str
    lost: str | None = None


@dataclass(frozen=True, kw_only=True)
class GenesisEntry(Entry):
    """The first entry: whose log this is. `ca_key` is an OpenSSH line, `log_key` a C2SP verifier key.

    `follows` is the log that it stands in for, of which it has no entry.
    """

    TAG: ClassVar = ("kind", "genesis")

    origin: str
    ca_key: str
    log_key: str
    follows: Fork | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyEntry(Entry):
    """The CA took these policy files (name → SHA-256 in hexadecimal); the entries that they decided point here."""

    TAG: ClassVar = ("kind", "policy")

    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SaidEntry(Entry):
    """What every entry that a person caused has: their own words, signed, and the facts and policy by which they were judged."""

    statement: str
    signature: str
    address: str | None = None
    hardware_key: bool
    policy: int

    @property
    def signed(self) -> SshSig:
        """The person's signature over the statement."""
        return SshSig.parse(decode_base64(self.signature, "the signature"))


@dataclass(frozen=True, kw_only=True)
class DecidedEntry(SaidEntry):
    """What every decision has: its reasons, condition by condition, and what was known of who is on call. Raises `Malformed`."""

    findings: tuple[Finding, ...]  # about the request as a whole
    ways: tuple[Way, ...]  # the blocks considered; the first is the one that decided
    on_call: tuple[Duty, ...] | None = None  # of the schedules that the rules ask for, by name

    def __post_init__(self) -> None:
        schedules = None if self.on_call is None else [duty.schedule for duty in self.on_call]
        if schedules is not None and (not schedules or schedules != sorted(set(schedules))):
            raise Malformed(f"entry {self.index} does not name each schedule once, in order")


@dataclass(frozen=True, kw_only=True)
class RequestEntry(DecidedEntry):
    """A request that policy granted at once (without `steps`) or that waits for approvals until `expires` (Unix seconds).

    `request` is the first request of the grant that this one extends, `extends` the one under which that lasted longest, and
    `extension` how often it will have been extended with this one.
    """

    TAG: ClassVar = ("kind", "request")

    role: str
    possession: str
    privilege: Privilege
    steps: tuple[Step, ...] | None = None
    expires: int | None = None
    request: int | None = None
    extends: int | None = None
    extension: int | None = None

    @property
    def first(self) -> int:
        """The request that began the grant that this one extends, or else itself: the name of the case."""
        return self.index if self.request is None else self.request

    @property
    def possession_signed(self) -> SshSig:
        """The signature over the same statement by the key to be certified."""
        return SshSig.parse(decode_base64(self.possession, "the proof of possession"))


@dataclass(frozen=True, kw_only=True)
class RefuseEntry(DecidedEntry):
    """What a person asked for or did and was refused; `code` and `message` are what they were told."""

    TAG: ClassVar = ("kind", "refuse")

    role: str | None = None
    possession: str | None = None
    request: int | None = None
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ApproveEntry(DecidedEntry):
    """Another person's yes to a request. With `privilege` it was the last one needed: the grant begins at this entry's time."""

    TAG: ClassVar = ("kind", "approve")

    role: str
    request: int
    privilege: Privilege | None = None


@dataclass(frozen=True, kw_only=True)
class _OnRequest(SaidEntry):
    role: str
    request: int


@dataclass(frozen=True, kw_only=True)
class DenyEntry(_OnRequest):
    """An approver's no: it ends the request."""

    TAG: ClassVar = ("kind", "deny")


@dataclass(frozen=True, kw_only=True)
class WithdrawEntry(_OnRequest):
    """The person who asked takes it back before it is granted."""

    TAG: ClassVar = ("kind", "withdraw")


@dataclass(frozen=True, kw_only=True)
class DropEntry(_OnRequest):
    """The person gives the grant back early."""

    TAG: ClassVar = ("kind", "drop")


@dataclass(frozen=True, kw_only=True)
class RevokeEntry(SaidEntry):
    """The security team ends one grant (`request`), one certificate (`serial`), or every grant of `person` so far."""

    TAG: ClassVar = ("kind", "revoke")

    person: str
    request: int | None = None
    serial: int | None = None


@dataclass(frozen=True, kw_only=True)
class LockEntry(SaidEntry):
    """From here on `person` gets nothing and approves nothing, and every grant of theirs so far ends."""

    TAG: ClassVar = ("kind", "lock")

    person: str


@dataclass(frozen=True, kw_only=True)
class UnlockEntry(SaidEntry):
    """`person` may ask and approve again; what was ended stays ended."""

    TAG: ClassVar = ("kind", "unlock")

    person: str


@dataclass(frozen=True, kw_only=True)
class ReadEntry(SaidEntry):
    """Somebody looks at what others did: at the case of the entry `request`, or at many. The statement has the path."""

    TAG: ClassVar = ("kind", "read")

    request: int | None = None


@dataclass(frozen=True, kw_only=True)
class RenewEntry(DecidedEntry):
    """Another certificate within the grant of `request`, as policy decided it again; the next entry is its `issue`.

    It ends at `until` (Unix seconds) at the latest: with the grant, or before with the rule that decided.
    """

    TAG: ClassVar = ("kind", "renew")

    role: str
    request: int
    possession: str
    until: int

    @property
    def possession_signed(self) -> SshSig:
        """The signature over the same statement by the key to be certified."""
        return SshSig.parse(decode_base64(self.possession, "the proof of possession"))


@dataclass(frozen=True, kw_only=True)
class IssueEntry(Entry):
    """A certificate whose serial is this entry's index: its exact to-be-signed bytes, and the `request` whose grant it is.

    The entry before it is the `request` granted at once or the `renew` that asked for it. Nothing personal but what the
    certificate says is in here. A crash after this entry and before the signature leaves an entry without a certificate,
    which is harmless.
    """

    TAG: ClassVar = ("kind", "issue")

    role: str
    request: int
    tbs: str

    @property
    def certificate(self) -> Certificate:
        """The certificate to be signed, but for the proof that this entry is in the log. Raises `Malformed`."""
        certificate = Certificate.parse_to_be_signed(decode_base64(self.tbs, "the certificate"))
        if certificate.log_proof is not None:
            raise Malformed("the certificate of the entry carries a proof, which cannot be of the entry itself")
        return certificate


@dataclass(frozen=True, kw_only=True)
class SealEntry(Entry):
    """An emergency key was sealed.

    It `replaces` the one of an earlier entry, which hosts may trust until `overlap` (Unix seconds).
    """

    TAG: ClassVar = ("kind", "seal")

    seal: Seal
    replaces: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if (self.replaces is None) != (self.overlap is None):
            raise Malformed(f"entry {self.index} replaces a seal without an overlap, or has one without replacing any")


@dataclass(frozen=True, kw_only=True)
class KitEntry(Entry):
    """A break-glass kit was made for the seal in entry `seal`; `facts` is all that it knows."""

    TAG: ClassVar = ("kind", "kit")

    seal: int
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class BreakGlassEntry(Entry):
    """A `line` of the journal of a kit, verbatim, as it was handed in; `person` is who was named in it, if somebody was.

    Raises `Malformed` for what is no line, or another person's.
    """

    TAG: ClassVar = ("kind", "break-glass")

    kit: int
    line: str
    person: str | None = None

    def __post_init__(self) -> None:
        told = self.told
        if self.person != (told.person if isinstance(told, Certified) else None):
            raise Malformed(f"entry {self.index} names another person than its line")

    @cached_property
    def told(self) -> AnyLine:
        """What the line says."""
        return decode_line(self.line.encode())

    @property
    def certified(self) -> Certified:
        """The line of a use. Raises `Malformed` for another."""
        if not isinstance(self.told, Certified):
            raise Malformed(f"entry {self.index} is no use of the emergency key")
        return self.told


@dataclass(frozen=True, kw_only=True)
class ReviewEntry(SaidEntry):
    """What an auditor or revoker found that the use of the emergency key in the `break-glass` entry `request` was."""

    TAG: ClassVar = ("kind", "review")

    request: int
    person: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class LoginEntry(Entry):
    """A login under an emergency key, as a host's sshd told of it and as it was handed in.

    `request` is the `break-glass` entry of the use whose certificate it was, and `person` who was named in that; absent when no
    line of the log so far speaks of that certificate.
    """

    TAG: ClassVar = ("kind", "login")

    login: Login
    request: int | None = None
    person: str | None = None


EmergencyEntry = SealEntry | KitEntry | BreakGlassEntry | ReviewEntry | LoginEntry
AnyEntry = (
    GenesisEntry
    | PolicyEntry
    | RequestEntry
    | ApproveEntry
    | DenyEntry
    | WithdrawEntry
    | RefuseEntry
    | RenewEntry
    | IssueEntry
    | DropEntry
    | RevokeEntry
    | LockEntry
    | UnlockEntry
    | ReadEntry
    | SealEntry
    | KitEntry
    | BreakGlassEntry
    | ReviewEntry
    | LoginEntry
)
KINDS: Final[tuple[type[AnyEntry], ...]] = get_args(AnyEntry)
_decode: Final = spelled.decoder(KINDS, "the entry")


def decode(source: bytes) -> AnyEntry:
    """Reads an entry. Raises `Malformed`."""
    if len(source) > LARGEST:
        raise Malformed(f"the entry has {len(source)} bytes, more than {LARGEST}")
    return _decode(source)
