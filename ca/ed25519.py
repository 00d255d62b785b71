"""Verifying Ed25519 signatures, in one place and by one library: libsodium, which takes half the time of OpenSSL.

RFC 8032 §5.1.7 without a cofactor, as `ssh-keygen` does, and stricter: S is below the order, and neither the key nor R is a point
of small order. What one part of jit-ssh takes for signed the others do, too.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

# Signatures of the empty message by one key that no library may take. In the first R has a point of order eight in it, and the
# equation holds only when it is multiplied by eight; in the second R is the neutral point.
_KEY: Final = bytes.fromhex("7767a3242dc9b58bbc68488c1265cc6cc5f26c6f3c88a5d55e901b0734dca572")
_REFUSED: Final = (
    bytes.fromhex("dfd3145e691e9b998cb20bd6e1790ccfbd79f23e01dc20a7349e3aec7193acf6")
    + bytes.fromhex("8ff2136a0d2bd99b698ad25b7dff18027db837e79c5b2a95320640e4d721ac04"),
    bytes.fromhex("0100000000000000000000000000000000000000000000000000000000000000")
    + bytes.fromhex("fcef16bc7d65da13ea0db9fa1a508f105e08bc52ab6e9dd2e825658a16aad705"),
)


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` is one by `key` (32 bytes).

    Raises `ImportError` when the installed libsodium takes what others refuse.
    """
    return len(signature) == 64 and len(key) == 32 and _library()(key, signature, message)


@cache
def _library() -> Callable[[bytes, bytes, bytes], bool]:
    from nacl.bindings import crypto_sign_open  # noqa: PLC0415 - takes 12 ms, and many commands verify nothing
    from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - as above

    def verified(key: bytes, signature: bytes, message: bytes) -> bool:
        try:
            crypto_sign_open(signature + message, key)
        except BadSignatureError:
            return False
        return True

    if any(verified(_KEY, signature, b"") for signature in _REFUSED):
        # No error of ours: those are told as what is wrong with a signature or a log.
        raise ImportError("this libsodium takes Ed25519 signatures that others refuse: install PyNaCl from its wheel")
    return verified
