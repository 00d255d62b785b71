"""`file:PATH`: a private key in OpenSSH's format, readable by its owner alone.

Whoever reads the file, and knows its passphrase if it has one, can sign without leaving an entry: prefer `agent:` in production.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ca.errors import Misconfigured, SignerFailed
from ca.keys import PublicKey
from ca.wire import mpint, string

_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CURVE_HASHES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}


class FileSigner:
    """Signs with a private key held in this process."""

    at_once: Final = True

    def __init__(self, path: Path, passphrase: Callable[[Path], bytes]) -> None:
        """Reads the key; `passphrase` is asked only if the file is encrypted.

        Raises `Misconfigured` for a file that others can read, that is no private key, or that the passphrase does not open.
        """
        source = _read_private(path)
        try:
            try:
                key = serialization.load_ssh_private_key(source, None)
            except TypeError:  # encrypted
                key = serialization.load_ssh_private_key(source, passphrase(path))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # the last for a security key's file
            raise Misconfigured(f"{path} is not a private key that this passphrase opens: {error}") from error
        if not isinstance(key, _PrivateKey):
            raise Misconfigured(f"{path} holds a key of a type that cannot sign here", "Use an ed25519 key")
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self._key = key
        self.public_key = PublicKey.parse_line(line.decode())

    def sign(self, message: bytes) -> bytes:
        """An SSH signature blob over `message` (rsa: rsa-sha2-512)."""
        match self._key:
            case ed25519.Ed25519PrivateKey() as key:
                return string("ssh-ed25519") + string(key.sign(message))
            case ec.EllipticCurvePrivateKey() as key:
                r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_CURVE_HASHES[key.curve.name])))
                return string(self.public_key.algorithm) + string(mpint(r) + mpint(s))
            case rsa.RSAPrivateKey() as key:
                return string("rsa-sha2-512") + string(key.sign(message, padding.PKCS1v15(), hashes.SHA512()))
        raise SignerFailed("unreachable: the key's type was checked when it was read")

    def ready(self) -> None:
        """The key is here."""


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (os.getuid(), 0) or stat.S_IMODE(found.st_mode) & 0o077:
                raise Misconfigured(
                    f"{path} can be read or written by others (mode {stat.S_IMODE(found.st_mode):04o})",
                    f"Run: chown {os.getuid()} {path} && chmod 600 {path}",
                )
            return file.read(64 * 1024)
    except OSError as error:
        hint = "Restore it, or name another in ca.toml"
        raise Misconfigured(f"the key file {path} cannot be read: {error.strerror}", hint) from error


def create(path: Path, passphrase: bytes | None) -> PublicKey:
    """Makes a new Ed25519 key in a new file, mode 0600, and `….pub` beside it, on disk when this returns.

    Raises `FileExistsError`.
    """
    key = ed25519.Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)
    _write(path, encoded, 0o600)
    public_key = FileSigner(path, lambda _path: passphrase or b"").public_key
    _write(path.with_name(f"{path.name}.pub"), f"{public_key.line}\n".encode(), 0o644)
    return public_key


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123 - Path.open has no mode
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
