"""Entries: the records of the log, one dataclass a kind, in canonical JSON of at most 65,535 bytes.

The leaf of the tree is the hash of exactly these bytes. An entry that a person caused carries that person's statement and
signature verbatim, so that it can be checked without this CA. Binary fields are base64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from ca import canonical
from ca.certificate import Certificate
from ca.errors import Malformed
from ca.sshsig import SshSig
from ca.wire import decode_base64

LARGEST: Final = 65_535
OPERATOR: Final = "@operator"  # the actor where no person signed; no person's name can begin with @


@dataclass(frozen=True)
class Finding:
    """One condition as it was considered: its fixed sentence, what was observed, and whether it held; None is unknown."""

    condition: str
    sentence: str
    observed: str
    holds: bool | None


@dataclass(frozen=True)
class Way:
    """One block of the policy as it was considered; `rule` is its name, such as `allow 1` or `guardrails deny 2`."""

    rule: str
    findings: tuple[Finding, ...]
    message: str | None = None  # of a deny: what to do instead

    @property
    def unmet(self) -> int:
        """How many conditions do not hold, or are unknown."""
        return sum(finding.holds is not True for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Privilege:
    """What a grant gives, for `duration` seconds."""

    principals: tuple[str, ...]
    duration: int
    force_command: str | None = None
    source_address: str | None = None
    permit: tuple[str, ...] = ()


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
class GenesisEntry(Entry):
    """The first entry: whose log this is. `ca_key` is an OpenSSH line, `log_key` a C2SP verifier key."""

    TAG: ClassVar = ("kind", "genesis")

    origin: str
    ca_key: str
    log_key: str


@dataclass(frozen=True, kw_only=True)
class PolicyEntry(Entry):
    """The CA took these policy files (name → SHA-256 in hexadecimal); the entries that they decided point here."""

    TAG: ClassVar = ("kind", "policy")

    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class AskedEntry(Entry):
    """What `request` and `refuse` share: the person's own words, and the facts and the policy by which they were judged."""

    role: str
    statement: str
    signature: str
    possession: str
    address: str | None = None
    hardware_key: bool
    policy: int
    findings: tuple[Finding, ...]  # about the request as a whole
    ways: tuple[Way, ...]  # the blocks considered; of a granted request the first decided

    @property
    def signed(self) -> SshSig:
        """The person's signature over the statement."""
        return SshSig.parse(decode_base64(self.signature, "the signature"))

    @property
    def possession_signed(self) -> SshSig:
        """The signature over the same statement by the key to be certified."""
        return SshSig.parse(decode_base64(self.possession, "the proof of possession"))


@dataclass(frozen=True, kw_only=True)
class RequestEntry(AskedEntry):
    """A request that policy granted."""

    TAG: ClassVar = ("kind", "request")

    privilege: Privilege


@dataclass(frozen=True, kw_only=True)
class RefuseEntry(AskedEntry):
    """A request that was refused; `code` and `message` are what the person was told."""

    TAG: ClassVar = ("kind", "refuse")

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class IssueEntry(Entry):
    """A certificate whose serial is this entry's index: its exact to-be-signed bytes, and the `request` that led to it.

    A crash after this entry and before the signature leaves an entry without a certificate, which is harmless.
    """

    TAG: ClassVar = ("kind", "issue")

    role: str
    request: int
    tbs: str

    @property
    def certificate(self) -> Certificate:
        """The certificate to be signed. Raises `Malformed`."""
        return Certificate.parse_to_be_signed(decode_base64(self.tbs, "the certificate"))


AnyEntry = GenesisEntry | PolicyEntry | RequestEntry | RefuseEntry | IssueEntry
KINDS: Final[tuple[type[AnyEntry], ...]] = (GenesisEntry, PolicyEntry, RequestEntry, RefuseEntry, IssueEntry)


def decode(source: bytes) -> AnyEntry:
    """Reads an entry. Raises `Malformed`."""
    if len(source) > LARGEST:
        raise Malformed(f"the entry has {len(source)} bytes, more than {LARGEST}")
    return canonical.decode(source, KINDS, "the entry")
