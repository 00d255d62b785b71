"""What is sealed for an emergency, and what the break-glass kit knows: public facts, nothing secret.

Imports nothing but what also runs inside the kit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final, Self

from ca import canonical
from ca.errors import Malformed
from ca.names import ACCOUNT, GROUP, LINE, ORIGIN, PERSON, require

MOST_OFFICERS: Final = 16  # SLIP-39's limit
LONGEST: Final = 3600  # seconds that an emergency certificate lives at most
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LARGEST: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Share:
    """Who keeps a share of the emergency key, and the SHA-256 of its words, by which a journal says whose were used."""

    officer: str
    fingerprint: str

    def __post_init__(self) -> None:
        require(PERSON, self.officer, "officer")
        require(_SHA256, self.fingerprint, "fingerprint of a share")


def share_fingerprint(mnemonic: str) -> str:
    """SHA-256 in hexadecimal of a share's words, in lower case with one space between them. It tells nothing about the share."""
    return sha256(" ".join(mnemonic.lower().split()).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Seal:
    """An emergency key and who can rebuild it: `quorum` of the shares. A security key has no shares, and the quorum is 1.

    `key` is an OpenSSH line; `shares_id` is the number (15 bits) that SLIP-39 writes into every share of one seal.
    """

    key: str
    quorum: int
    shares: tuple[Share, ...]
    shares_id: int | None = None

    def __post_init__(self) -> None:
        _check_line(self.key)
        officers = [share.officer for share in self.shares]
        if len(set(officers)) != len(officers) or len({share.fingerprint for share in self.shares}) != len(officers):
            raise Malformed("two shares are the same, or of the same officer")
        if bool(officers) != (self.shares_id is not None) or len(officers) > MOST_OFFICERS:
            raise Malformed(f"a seal has its shares' number and up to {MOST_OFFICERS} shares, or neither")
        if not (2 <= self.quorum <= len(officers) if officers else self.quorum == 1):
            raise Malformed(f"a quorum of {self.quorum} does not fit {len(officers)} shares")


@dataclass(frozen=True, kw_only=True)
class Facts(canonical.Tagged):
    """What a kit knows: whose it is, the seal's key, and what it may do with it.

    `made` is Unix seconds; `people` may be named; `hosts` says for each host group which accounts `break-glass@GROUP` enters;
    `longest` is in seconds; `certificates` is how many a session makes at most; `ask` are the CA's URLs, which must not answer.
    """

    TAG: ClassVar = ("kit", "jit-ssh-break-glass/1")

    origin: str
    made: int
    key: str
    quorum: int
    officers: tuple[str, ...]
    shares_id: int | None = None
    people: tuple[str, ...]
    hosts: Mapping[str, tuple[str, ...]]
    longest: int
    certificates: int
    ask: tuple[str, ...]

    def __post_init__(self) -> None:
        require(ORIGIN, self.origin, "origin")
        _check_line(self.key)
        for name in (*self.officers, *self.people):
            require(PERSON, name, "person")
        for group, accounts in self.hosts.items():
            require(GROUP, group, "host group")
            for account in accounts:
                require(ACCOUNT, account, "account")
        for url in self.ask:
            _check_line(url)
        if not (0 < self.longest <= LONGEST and self.certificates > 0 and self.made >= 0 and self.quorum > 0):
            raise Malformed("the kit's limits are not sound")

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads `encode`'s bytes. Raises `Malformed`."""
        if len(source) > _LARGEST:
            raise Malformed(f"the kit's facts have {len(source)} bytes, more than {_LARGEST}")
        return canonical.decode(source, (cls,), "the kit's facts")

    def encode(self) -> bytes:
        """The facts as the kit and the log have them."""
        return canonical.encode(self)

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal: the kit's name in a journal."""
        return sha256(self.encode()).hexdigest()


def _check_line(text: str) -> None:
    if len(text) > 2048 or not LINE.fullmatch(text):
        raise Malformed("a text is longer than 2,048 characters or has control or direction characters")
