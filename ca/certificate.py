"""OpenSSH user certificates (PROTOCOL.certkeys): one value, its one encoding, and a parser that accepts nothing else.

A `Certificate` without principals, without an expiry, with an option in the wrong section or with a name that sshd would read
otherwise cannot be built. The parser reads the fields, builds that value, and compares its encoding with what it read.
"""

import base64
import ipaddress
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from struct import Struct
from typing import Final, Self

from ca.errors import Malformed
from ca.keys import ALGORITHMS, PublicKey
from ca.names import BREAK_GLASS, KEY_ID, LINE, PRINCIPAL, require
from ca.wire import Reader, decode_base64, string

BACKDATE: Final = 60  # seconds before its issue from which a certificate is valid: hosts' clocks differ
LONGEST: Final = 24 * 3600 + BACKDATE  # seconds; just-in-time privilege that lasts longer is not
MOST_PRINCIPALS: Final = 256  # sshd reads no more
PERMITS: Final = ("X11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc")
NONCE_BYTES: Final = 32
LOG_PROOF: Final = "log-proof@jit-ssh"  # the extension; as text it sorts before every permit
_USER: Final = 1
_SERIAL_AND_TYPE: Final = Struct(">QI")
_VALIDITY: Final = Struct(">QQ")
_LARGEST: Final = 64 * 1024
_KEY_STRINGS: Final = {  # how many strings (an mpint is one) follow the type of each key
    "ssh-ed25519": 1,
    "sk-ssh-ed25519@openssh.com": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
    "ssh-rsa": 2,
}


def certificate_algorithm(key_algorithm: str) -> str:
    """The type of a certificate over a key of this type."""
    return key_algorithm.removesuffix("@openssh.com") + "-cert-v01@openssh.com"


_KEY_ALGORITHM: Final = {certificate_algorithm(name): name for name in ALGORITHMS}
_LAYOUTS: Final = {certificate_algorithm(name): "s" + _KEY_STRINGS[name] * "s" + "QIssQQssss" for name in ALGORITHMS}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a CA signs. Times are Unix seconds, valid from `valid_after` inclusive to `valid_before` exclusive.

    Raises `Malformed` when a field may not be in a certificate.
    """

    key: PublicKey
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    force_command: str | None = None
    source_address: str | None = None  # canonical CIDR, several joined by commas
    permit: tuple[str, ...] = ()  # of PERMITS, in that order
    ca_key: PublicKey
    nonce: bytes
    log_proof: str | None = None  # of the `issue` entry, which says all the rest: see `ca.proof`

    def __post_init__(self) -> None:
        if not 0 < self.serial < 2**63:
            raise Malformed(f"serial {self.serial} is not between 1 and 2^63 - 1")
        require(KEY_ID, self.key_id, "key id")
        _check_principals(self.principals)
        if not 0 <= self.valid_after < self.valid_before <= self.valid_after + LONGEST:
            raise Malformed(f"validity {self.valid_after} to {self.valid_before} is empty or longer than {LONGEST} s")
        _check_permit(self.permit)
        if self.key == self.ca_key:
            raise Malformed("the key to certify is the CA's own")
        if len(self.nonce) != NONCE_BYTES:
            raise Malformed(f"the nonce has {len(self.nonce)} bytes, not {NONCE_BYTES}")
        _check_options(self.force_command, self.source_address)

    @property
    def bare(self) -> "Certificate":
        """The certificate without its proof: what its entry in the log says."""
        return self if self.log_proof is None else replace(self, log_proof=None)

    @cached_property
    def to_be_signed(self) -> bytes:
        """The bytes under the CA's signature."""
        return self._packed()

    def _packed(self) -> bytes:
        proof = b"" if self.log_proof is None else string(LOG_PROOF) + string(string(self.log_proof))
        return (
            _packed_type(self.key.algorithm)
            + string(self.nonce)
            + self.key.fields
            + _SERIAL_AND_TYPE.pack(self.serial, _USER)
            + string(self.key_id)
            + _packed_principals(self.principals)
            + _VALIDITY.pack(self.valid_after, self.valid_before)
            + _packed_options(self.force_command, self.source_address)
            + string(proof + _permits(self.permit))
            + string(b"")
            + string(self.ca_key.blob)
        )

    @classmethod
    def parse_to_be_signed(cls, blob: bytes) -> Self:
        """Reads what `to_be_signed` writes. Raises `Malformed`."""
        reader = Reader(blob, "the certificate")
        certificate = cls._read(reader)
        reader.end()
        return certificate

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        algorithm = reader.text()
        if algorithm not in _KEY_ALGORITHM:
            raise Malformed(f"certificate type {algorithm[:60]!a} is not supported")
        key_type, layout = _KEY_ALGORITHM[algorithm], _LAYOUTS[algorithm]
        nonce, *key, serial, kind, key_id, principals, after, before, critical, extensions, reserved, ca_key = reader.fields(
            layout
        )
        if kind != _USER:
            raise Malformed(f"the certificate is of type {kind}, not a user certificate")
        if reserved:
            raise Malformed("the certificate uses the reserved field")
        force_command, source_address = _critical(critical)
        log_proof, permit = _extended(extensions)
        certificate = cls(
            key=PublicKey.parse(b"".join(map(string, (key_type, *key)))),
            serial=serial,
            key_id=reader.decoded(key_id),
            principals=_principals(principals),
            valid_after=after,
            valid_before=before,
            force_command=force_command,
            source_address=source_address,
            permit=permit,
            ca_key=PublicKey.parse(ca_key),
            nonce=nonce,
            log_proof=log_proof,
        )
        if reader.so_far != certificate._packed():
            raise Malformed("the certificate is not in its canonical form: an option is out of order or stands twice")
        return certificate


def add_proof(to_be_signed: bytes, proof: str) -> bytes:
    """The bytes of the same certificate with the proof among its extensions, before all others.

    Whoever signs them parses the outcome: here nothing is judged but where the extensions are. Raises `Malformed`.
    """
    reader = Reader(to_be_signed, "the certificate")
    for _ in range(1 + _KEY_STRINGS[_KEY_ALGORITHM[reader.text()]]):
        reader.string()  # the nonce, and the key
    reader.take(8 + 4)  # serial and type
    for _ in range(2):
        reader.string()  # key id and principals
    reader.take(8 + 8)  # the validity
    reader.string()  # critical options
    before, extensions, behind = reader.so_far, reader.string(), reader.rest()
    return before + string(string(LOG_PROOF) + string(string(proof)) + extensions) + behind


@dataclass(frozen=True)
class SignedCertificate:
    """A certificate and the CA's signature over it; nothing is believed until `verify`."""

    certificate: Certificate
    signature: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Reads a certificate blob. Raises `Malformed` for all but a user certificate as this product makes them."""
        if len(blob) > _LARGEST:
            raise Malformed(f"the certificate has {len(blob)} bytes, more than {_LARGEST}")
        reader = Reader(blob, "the certificate")
        certificate = Certificate._read(reader)
        signature = reader.string()
        reader.end()
        return cls(certificate, signature)

    @classmethod
    def parse_line(cls, text: str) -> Self:
        """Reads `type base64 [comment]`, as in a -cert.pub file. Raises `Malformed`."""
        name, _, rest = text.removesuffix("\n").partition(" ")
        signed = cls.parse(decode_base64(rest.partition(" ")[0], "the certificate"))
        if name != certificate_algorithm(signed.certificate.key.algorithm):
            raise Malformed(f"the line says {name[:60]!a} but holds another type of certificate")
        return signed

    @property
    def blob(self) -> bytes:
        """The certificate as sshd reads it."""
        return self.certificate.to_be_signed + string(self.signature)

    @property
    def line(self) -> str:
        """`type base64 key-id`, as in a -cert.pub file."""
        encoded = base64.b64encode(self.blob).decode()
        return f"{certificate_algorithm(self.certificate.key.algorithm)} {encoded} {self.certificate.key_id}"

    def verify(self, ca_key: PublicKey) -> None:
        """Checks that `ca_key` signed it. Raises `Malformed` when it names another CA, `BadSignature` when it does not fit."""
        if self.certificate.ca_key != ca_key:
            raise Malformed(f"the certificate is by CA {self.certificate.ca_key.fingerprint}, not {ca_key.fingerprint}")
        ca_key.verify(self.signature, self.certificate.to_be_signed)


# What follows judges, packs and reads parts that a log repeats, so each outcome is kept for the next one.


@lru_cache(maxsize=128)
def _check_principals(principals: tuple[str, ...]) -> None:
    if not 0 < len(principals) <= MOST_PRINCIPALS:
        raise Malformed(f"a certificate has 1 to {MOST_PRINCIPALS} principals, not {len(principals)}")
    for principal in principals:
        require(PRINCIPAL, principal, "principal")
        if principal.startswith(f"{BREAK_GLASS}@"):
            raise Malformed(f"principal {principal} is the emergency key's alone")
    if len(set(principals)) != len(principals):
        raise Malformed("a principal stands twice")


@lru_cache(maxsize=128)
def _check_permit(permit: tuple[str, ...]) -> None:
    if list(permit) != [name for name in PERMITS if name in permit]:
        raise Malformed(f"permit {permit!r} is not a sorted choice of {', '.join(PERMITS)}")


@lru_cache(maxsize=128)
def _check_options(force_command: str | None, source_address: str | None) -> None:
    if force_command is not None and not (0 < len(force_command) <= 1024 and LINE.fullmatch(force_command)):
        raise Malformed("force-command is empty, longer than 1,024 characters, or has a control character")
    for cidr in source_address.split(",") if source_address is not None else ():
        try:
            canonical = str(ipaddress.ip_network(cidr))
        except ValueError as error:
            raise Malformed(f"source-address {cidr[:60]!a} is not a network") from error
        if "%" in cidr:  # a zone, of any characters: it means something on one machine only, and sshd refuses it
            raise Malformed(f"source-address {cidr[:60]!a} has a zone")
        if canonical != cidr:
            raise Malformed(f"source-address {cidr[:60]!a} is not canonical, write {canonical}")


@cache
def _packed_type(key_algorithm: str) -> bytes:
    return string(certificate_algorithm(key_algorithm))


@lru_cache(maxsize=128)
def _packed_principals(principals: tuple[str, ...]) -> bytes:
    return string(b"".join(string(principal) for principal in principals))


@lru_cache(maxsize=128)
def _packed_options(force_command: str | None, source_address: str | None) -> bytes:
    options = [("force-command", force_command), ("source-address", source_address)]
    return string(b"".join(string(name) + string(string(value)) for name, value in options if value is not None))


@cache  # there are 32
def _permits(names: tuple[str, ...]) -> bytes:
    return b"".join(string(f"permit-{name}") + string(b"") for name in names)


@lru_cache(maxsize=128)
def _principals(packed: bytes) -> tuple[str, ...]:
    reader, principals = Reader(packed, "the certificate's principals"), list[str]()
    while not reader.done:
        principals.append(reader.text())
    return tuple(principals)


@lru_cache(maxsize=128)
def _critical(packed: bytes) -> tuple[str | None, str | None]:
    """The forced command and the source address."""
    options = _options(packed)
    if unknown := options.keys() - {"force-command", "source-address"}:
        raise Malformed(f"the certificate has an unknown critical option {min(unknown)[:60]!a}")
    return _valued(options.get("force-command")), _valued(options.get("source-address"))


@lru_cache(maxsize=128)
def _extended(packed: bytes) -> tuple[str | None, tuple[str, ...]]:
    """The proof and what is permitted."""
    extensions = _options(packed)
    log_proof = _valued(extensions.pop(LOG_PROOF, None))
    if unknown := {name for name, value in extensions.items() if value or name.removeprefix("permit-") not in PERMITS}:
        raise Malformed(f"the certificate has an unknown extension {min(unknown)[:60]!a}")
    return log_proof, tuple(name for name in PERMITS if f"permit-{name}" in extensions)


def _options(packed: bytes) -> dict[str, bytes]:
    reader, options = Reader(packed, "the certificate's options"), dict[str, bytes]()
    while not reader.done:
        name = reader.text()
        options[name] = reader.string()
    return options


def _valued(packed: bytes | None) -> str | None:
    if packed is None:
        return None
    reader = Reader(packed, "a critical option")
    value = reader.text()
    reader.end()
    return value
