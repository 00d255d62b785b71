"""Which 32 bytes may not be an Ed25519 key. Imports nothing but what also runs inside the break-glass kit."""

from typing import Final

from ca.errors import Malformed

_P: Final = 2**255 - 19
# The y of the eight points of small order. A certificate over one lets in anybody, without a private key.
_SMALL_ORDER_Y: Final = frozenset(
    [
        0,
        1,
        _P - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    ]
)


def ed25519_point(raw: bytes) -> None:
    """Raises `Malformed` if `raw` is of small order or not canonical (RFC 8032 §5.1.2).

    One that is no point of the curve passes and harms nobody: no signature verifies with it.
    """
    if len(raw) != 32:
        raise Malformed(f"an ed25519 key has 32 bytes, this one {len(raw)}")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise Malformed("the ed25519 key is a degenerate point: anybody could sign with it")
