"""SSHSIG, the signature that `ssh-keygen -Y` makes and verifies (OpenSSH PROTOCOL.sshsig).

Here always with hash sha512 and namespace `jit-ssh`, so that nothing signed for git, for a file or for a login passes as a
statement, and no statement passes as one of those. Only the lines of a break-glass journal have a namespace of their own.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from ca.errors import BadSignature, Malformed
from ca.keys import PublicKey
from ca.wire import Reader, decode_base64, string, u32

NAMESPACE: Final = "jit-ssh"
_MAGIC: Final = b"SSHSIG"
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"
_LARGEST: Final = 4096


# An SSHSIG by an Ed25519 key in our namespace is these bytes, the key, the others and the signature.
_ED25519: Final = _MAGIC + u32(1) + u32(51) + string("ssh-ed25519") + u32(32)
_ED25519_BEHIND: Final = string(NAMESPACE) + string(b"") + string("sha512") + u32(83) + string("ssh-ed25519") + u32(64)


def signed_bytes(message: bytes, namespace: str = NAMESPACE) -> bytes:
    """What the key signs for `message`: bytes that no other SSH protocol could mean, 98 of them in namespace `jit-ssh`."""
    return _signed_before(namespace) + hashlib.sha512(message).digest()


@cache
def _signed_before(namespace: str) -> bytes:
    return _MAGIC + string(namespace) + string(b"") + string("sha512") + u32(64)


@dataclass(frozen=True)
class SshSig:
    """A signature with the key that claims to have made it; nothing is believed until `verify`."""

    key: PublicKey
    signature: bytes  # an SSH signature blob
    namespace: str = NAMESPACE

    @classmethod
    def parse(cls, blob: bytes, wanted: str = NAMESPACE) -> Self:
        """Reads the binary form. Raises `Malformed`, also for another namespace or hash."""
        if len(blob) == 177 and wanted == NAMESPACE and blob[:33] == _ED25519 and blob[65:113] == _ED25519_BEHIND:
            return cls(PublicKey.parse(blob[14:65]), blob[94:])
        if len(blob) > _LARGEST:
            raise Malformed(f"the signature has {len(blob)} bytes, more than {_LARGEST}")
        reader = Reader(blob, "the signature")
        if reader.take(len(_MAGIC)) != _MAGIC or reader.u32() != 1:
            raise Malformed("the signature is not an SSHSIG of version 1", "Make it with: ssh-keygen -Y sign -n jit-ssh")
        key = PublicKey.parse(reader.string())
        namespace, reserved, digest = reader.text(), reader.string(), reader.text()
        if namespace != wanted:
            raise Malformed(f"the signature is for namespace {namespace[:60]!a}, not {wanted!a}")
        if reserved or digest != "sha512":
            raise Malformed(f"the signature uses hash {digest[:60]!a} or a reserved field; only sha512 is accepted")
        signature = reader.string()
        reader.end()
        return cls(key, signature, wanted)

    @classmethod
    def parse_armored(cls, text: str) -> Self:
        """Reads the form between BEGIN and END lines that `ssh-keygen -Y sign` writes. Raises `Malformed`."""
        lines = text.strip().splitlines()
        if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
            raise Malformed("this is not an armored SSH signature")
        return cls.parse(decode_base64("".join(lines[1:-1]), "the armored signature"))

    @property
    def blob(self) -> bytes:
        """The binary form."""
        fields = (self.key.blob, self.namespace, b"", "sha512", self.signature)
        return _MAGIC + u32(1) + b"".join(string(value) for value in fields)

    @property
    def armored(self) -> str:
        """The form that `ssh-keygen -Y verify` reads."""
        body = base64.b64encode(self.blob).decode()
        return "\n".join([_BEGIN, *(body[at : at + 70] for at in range(0, len(body), 70)), _END, ""])

    def verify(self, message: bytes) -> bool:
        """Checks the signature over `message`; whether it proves the touch of a security key.

        Raises `BadSignature` or `Malformed`.
        """
        return self.key.verify(self.signature, signed_bytes(message, self.namespace))


def verifier(key: PublicKey, namespace: str) -> Callable[[bytes, bytes], None]:
    """What checks an SSHSIG's blob over a message: it must be by this key. Raises `BadSignature` or `Malformed`."""

    def check(blob: bytes, message: bytes) -> None:
        signed = SshSig.parse(blob, namespace)
        if signed.key != key:
            raise BadSignature(f"the signature is by {signed.key.fingerprint}, not {key.fingerprint}")
        signed.verify(message)

    return check
