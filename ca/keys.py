"""SSH public keys and the signatures they verify.

Blobs are parsed here, strictly, because `cryptography` drops the application of `sk-` keys, accepts degenerate points and
returns a certificate's inner key where a key was expected. It does the arithmetic only, and not that of Ed25519.

Key blobs: RFC 4253 §6.6 (rsa), RFC 5656 §3.1 (ecdsa), RFC 8709 §4 (ed25519), OpenSSH PROTOCOL.u2f (sk-).
Signature blobs: the same, with RFC 8332 for rsa-sha2-256/512. SHA-1 and DSA do not exist here.
"""

import base64
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ca.ed25519 import verifies
from ca.errors import BadSignature, Malformed
from ca.point import ed25519_point
from ca.wire import Reader, decode_base64, string, u32

RSA_BITS: Final = range(3072, 8192 + 1)
_LARGEST_BLOB: Final = 2048  # an RSA key of 8192 bits takes 1,040 bytes, an sk application at most 255
_CERTIFICATE_SUFFIX: Final = "-cert-v01@openssh.com"

# verify(signature algorithm, signature bytes, message); raises InvalidSignature or Malformed
_Verify = Callable[[str, bytes, bytes], None]


@dataclass(frozen=True)
class PublicKey:
    """A key that passed every check of its type. Equal keys have equal blobs."""

    blob: bytes
    algorithm: str = field(compare=False)
    application: str | None = field(compare=False)  # of an sk- key, "ssh:" or "ssh:…"
    _verify: _Verify = field(compare=False, repr=False)

    @staticmethod
    @lru_cache(maxsize=4096)  # issuing one certificate reads the same three keys eight times; what was refused is read again
    def parse(blob: bytes) -> "PublicKey":
        """Reads a key blob.

        Raises `Malformed` for anything but a sound ed25519, ecdsa, rsa (3072 to 8192 bits) or sk- key, a certificate included.
        """
        if blob[:19] == _ED25519_KEY and len(blob) == 51:  # most keys, and each request brings another one
            return PublicKey(blob, "ssh-ed25519", None, _ed25519(blob[19:]))
        if len(blob) > _LARGEST_BLOB:
            raise Malformed(f"the public key has {len(blob)} bytes, more than {_LARGEST_BLOB}")
        reader = Reader(blob, "the public key")
        algorithm = reader.text()
        if algorithm.endswith(_CERTIFICATE_SUFFIX):
            raise Malformed("this is a certificate, not a public key", "Give the key that it certifies (the .pub file)")
        if algorithm not in _SCHEMES:
            raise Malformed(f"key type {algorithm[:60]!a} is not supported", f"Use one of {', '.join(_SCHEMES)}")
        verify = _SCHEMES[algorithm](reader)
        application = _application(reader) if algorithm.startswith("sk-") else None
        reader.end()
        return PublicKey(blob, algorithm, application, verify)

    @classmethod
    def parse_line(cls, text: str) -> "PublicKey":
        """Reads the one-line form, `type base64 [comment]`; the comment is dropped. Raises `Malformed`."""
        line = text.removesuffix("\n")
        if len(line) > 2 * _LARGEST_BLOB or not line.isprintable():
            raise Malformed("a public key is one line of printable text", "Give the content of one .pub file")
        name, _, rest = line.partition(" ")
        key = cls.parse(decode_base64(rest.partition(" ")[0], "the public key"))
        if name != key.algorithm:
            raise Malformed(f"the line says {name[:60]!a} but holds a key of type {key.algorithm}")
        return key

    @property
    def line(self) -> str:
        """`type base64`, as in a .pub file without comment."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and 43 characters, as `ssh-keygen -l` prints it."""
        return fingerprint(self.blob)

    @property
    def hardware(self) -> bool:
        """Whether the private key lives in a security key."""
        return self.application is not None

    @property
    def fields(self) -> bytes:
        """The blob behind its type: what a certificate repeats."""
        return self.blob[4 + len(self.algorithm) :]

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Checks an SSH signature blob over `message`; whether it also proves that a person touched a security key.

        Raises `Malformed` for bytes that are no signature blob of this key's type, `BadSignature` for one that does not fit.
        """
        if self.algorithm == "ssh-ed25519" and signature[:19] == _ED25519_SIGNATURE and len(signature) == 83:
            self._demand("ssh-ed25519", signature[19:], message)
            return False
        reader = Reader(signature, "the signature")
        algorithm, raw, touched = reader.text(), reader.string(), False
        if algorithm not in _SIGNATURE_ALGORITHMS.get(self.algorithm, (self.algorithm,)):
            raise Malformed(f"a {self.algorithm} key cannot make a signature of type {algorithm[:60]!a}")
        if self.application is not None:
            flags = reader.take(1)
            digest = hashlib.sha256(self.application.encode()).digest()
            message = digest + flags + reader.take(4) + hashlib.sha256(message).digest()
            touched = bool(flags[0] & _USER_PRESENT)
        reader.end()
        self._demand(algorithm, raw, message)
        return touched

    def _demand(self, algorithm: str, raw: bytes, message: bytes) -> None:
        try:
            self._verify(algorithm, raw, message)
        except InvalidSignature as error:
            raise BadSignature(f"the signature is not one by {self.fingerprint} over this text") from error


_USER_PRESENT: Final = 1
_ED25519_KEY: Final = string("ssh-ed25519") + u32(32)  # and 32 bytes
_ED25519_SIGNATURE: Final = string("ssh-ed25519") + u32(64)  # and 64 bytes
_SIGNATURE_ALGORITHMS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


def fingerprint(blob: bytes) -> str:
    """SHA-256 of a key blob in unpadded base64, prefixed with `SHA256:`."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# ------------------------------------------------------------------ ed25519


def _read_ed25519(reader: Reader) -> _Verify:
    return _ed25519(reader.string())


def _ed25519(raw: bytes) -> _Verify:
    ed25519_point(raw)

    def verify(_algorithm: str, signature: bytes, message: bytes) -> None:
        if not verifies(raw, signature, message):
            raise InvalidSignature

    return verify


# -------------------------------------------------------------------- ecdsa


def _ecdsa_reader(name: str, curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Callable[[Reader], _Verify]:
    size = 1 + 2 * ((curve.key_size + 7) // 8)

    def read(reader: Reader) -> _Verify:
        if reader.text() != name:
            raise Malformed(f"the ecdsa key does not name its curve, {name}")
        point = reader.string()
        if len(point) != size or point[0] != 4:
            raise Malformed(f"the ecdsa key is not an uncompressed point of {name}")
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        except ValueError as error:
            raise Malformed(f"the ecdsa key is not a point of {name}") from error
        return lambda _algorithm, signature, message: key.verify(_dss(signature), message, ec.ECDSA(digest))

    return read


def _dss(signature: bytes) -> bytes:
    reader = Reader(signature, "the ecdsa signature")
    r, s = reader.mpint(), reader.mpint()
    reader.end()
    return encode_dss_signature(r, s)


# ---------------------------------------------------------------------- rsa

_RSA_HASHES: Final = {"rsa-sha2-512": hashes.SHA512(), "rsa-sha2-256": hashes.SHA256()}
_SMALL_PRIMES_PRODUCT: Final = math.prod(n for n in range(2, 1000) if all(n % d for d in range(2, math.isqrt(n) + 1)))


def _read_rsa(reader: Reader) -> _Verify:
    exponent, modulus = reader.mpint(), reader.mpint()
    bits = modulus.bit_length()
    if bits not in RSA_BITS:
        raise Malformed(f"the rsa key has {bits} bits, not {RSA_BITS[0]} to {RSA_BITS[-1]}")
    if exponent % 2 == 0 or not 3 <= exponent < 2**32:
        raise Malformed("the rsa key has a public exponent that is even, below 3 or above 32 bits")
    if math.gcd(modulus, _SMALL_PRIMES_PRODUCT) != 1:
        raise Malformed("the rsa key has a modulus with a small factor: anybody could sign with it")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    size = (bits + 7) // 8

    def verify(algorithm: str, signature: bytes, message: bytes) -> None:
        if len(signature) != size:
            raise Malformed(f"the rsa signature has {len(signature)} bytes, not {size}")
        key.verify(signature, message, padding.PKCS1v15(), _RSA_HASHES[algorithm])

    return verify


# ---------------------------------------------------------------------- sk-


def _application(reader: Reader) -> str:
    application = reader.text()
    printable = application.isascii() and application.isprintable()
    if not application.startswith("ssh:") or len(application) > 255 or not printable:
        raise Malformed("the security key's application is not of the form ssh:…")
    return application


_P256: Final = _ecdsa_reader("nistp256", ec.SECP256R1(), hashes.SHA256())
_SCHEMES: Final[dict[str, Callable[[Reader], _Verify]]] = {
    "ssh-ed25519": _read_ed25519,
    "sk-ssh-ed25519@openssh.com": _read_ed25519,
    "ecdsa-sha2-nistp256": _P256,
    "ecdsa-sha2-nistp384": _ecdsa_reader("nistp384", ec.SECP384R1(), hashes.SHA384()),
    "ecdsa-sha2-nistp521": _ecdsa_reader("nistp521", ec.SECP521R1(), hashes.SHA512()),
    "sk-ecdsa-sha2-nistp256@openssh.com": _P256,
    "ssh-rsa": _read_rsa,
}
ALGORITHMS: Final = tuple(_SCHEMES)


def ed25519_key(raw: bytes) -> PublicKey:
    """The SSH form of 32 bytes of Ed25519 public key. Raises `Malformed` for a degenerate point."""
    return PublicKey.parse(string("ssh-ed25519") + string(raw))
