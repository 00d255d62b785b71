"""What is an Ed25519 signature and what is none: at the edges where libraries differ, and for all three that judge here.

`ca.ed25519` is libsodium, `cli.host_verify` is Python's arithmetic, and the second checker is OpenSSL with a rule of its own.
"""

from collections.abc import Callable
from hashlib import sha512
from typing import Final

import nacl.bindings
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ca import ed25519
from cli import host_verify
from tests import independent_formats
from tests.test_host_verify_ed25519 import RFC_8032

P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
NEUTRAL: Final = (0, 1)
MESSAGES: Final = [b"%d" % number for number in range(400)]


def added(one: Point, two: Point) -> Point:
    (x1, y1), (x2, y2) = one, two
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def times(number: int, point: Point) -> Point:
    total = NEUTRAL
    for bit in f"{number:b}":
        total = added(total, total)
        total = added(total, point) if bit == "1" else total
    return total


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decoded(raw: bytes) -> Point:
    number = int.from_bytes(raw, "little")
    sign, y = divmod(number, 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    x = root if root * root % P == square else root * pow(2, (P - 1) // 4, P) % P
    return (x if x % 2 == sign else P - x), y


BASE: Final = decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
EIGHTH: Final = decoded(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
SMALL: Final = [times(number, EIGHTH) for number in range(8)]
SECRET, NONCE = 2**200 + 12345, 2**199 + 54321
KEY, COMMITMENT = times(SECRET, BASE), times(NONCE, BASE)


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + key + message).digest(), "little") % ORDER


def signed(r: bytes, key: bytes, message: bytes, *, nonce: int = NONCE, secret: int = SECRET, more: int = 0) -> bytes:
    """The signature of who knows the logarithms of both points, but for what is of small order in them."""
    return r + ((nonce + challenge(r, key, message) * secret) % ORDER + more).to_bytes(32, "little")


def openssl(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def second_checker(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        independent_formats.ed25519(key, signature, message)
    except independent_formats.Wrong:
        return False
    return True


JUDGES: Final = (ed25519.verifies, host_verify.verifies, second_checker)


def judged(key: bytes, signature: bytes, message: bytes) -> bool:
    """What all say, who never say yes where OpenSSL, and so OpenSSH, says no."""
    said = {judge(key, signature, message) for judge in JUDGES}
    assert len(said) == 1
    assert openssl(key, signature, message) or said == {False}
    return said.pop()


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(key: str, message: str, signature: str) -> None:
    assert judged(bytes.fromhex(key), bytes.fromhex(signature), bytes.fromhex(message))


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_what_was_changed_anywhere_is_not_signed(seed: bytes, message: bytes, data: st.DataObject) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, good = private.public_key().public_bytes_raw(), private.sign(message)
    assert judged(key, good, message)
    at, bit = data.draw(st.integers(0, 63)), 1 << data.draw(st.integers(0, 7))
    assert not judged(key, good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :], message)
    assert not judged(key, good, message + b"\0")


def test_a_byte_does_not_wander_between_signature_and_message() -> None:
    key = encoded(KEY)
    good = signed(encoded(COMMITMENT), key, b"message")
    assert judged(key, good, b"message")
    for signature, message in (
        (good + b"m", b"essage"),
        (good[:-1], good[-1:] + b"message"),
        (good + b"message", b""),
        (b"", good + b"m"),
    ):
        assert not ed25519.verifies(key, signature, message)
    for wrong in (key[:-1], key + b"\0", b""):
        assert not ed25519.verifies(wrong, good, b"message")


def test_the_second_spelling_of_s_is_none() -> None:
    key, r = encoded(KEY), encoded(COMMITMENT)
    for count in range(1, 15):
        assert not judged(key, signed(r, key, b"a", more=count * ORDER), b"a")


@pytest.mark.parametrize("small", range(1, 8))
def test_what_only_holds_with_the_cofactor_is_not_signed(small: int) -> None:
    key, r = encoded(KEY), encoded(added(COMMITMENT, SMALL[small]))
    assert not any(judged(key, signed(r, key, message), message) for message in MESSAGES[:8])
    mixed = encoded(added(KEY, SMALL[small]))
    for message in MESSAGES[:16]:  # the key has a point of small order in it, and the equation holds or not by the message
        holds = times(challenge(encoded(COMMITMENT), mixed, message), SMALL[small]) == NEUTRAL
        assert judged(mixed, signed(encoded(COMMITMENT), mixed, message), message) is holds


def test_points_of_small_order_that_cancel_out_are_taken_by_all() -> None:
    """OpenSSH takes this, and nobody but the key's owner can make it."""
    mixed, r = encoded(added(KEY, SMALL[1])), encoded(added(COMMITMENT, SMALL[3]))
    message = next(each for each in MESSAGES if (3 + challenge(r, mixed, each)) % 8 == 0)
    assert judged(mixed, signed(r, mixed, message), message)


@pytest.mark.parametrize("small", range(8))
def test_with_a_key_or_an_r_of_small_order_nothing_is_signed(small: int) -> None:
    tiny = encoded(SMALL[small])
    other = added(KEY, SMALL[1])
    for message in MESSAGES[:24]:  # OpenSSL takes some of these
        assert not judged(tiny, signed(encoded(COMMITMENT), tiny, message, secret=0), message)
        assert not judged(tiny, signed(encoded(SMALL[0]), tiny, message, secret=0, nonce=0), message)
        assert not judged(encoded(KEY), signed(tiny, encoded(KEY), message, nonce=0), message)
        assert not judged(encoded(other), signed(tiny, encoded(other), message, nonce=0), message)


def test_openssl_alone_would_take_an_r_of_small_order() -> None:
    """So that the test above means something."""
    key, r = encoded(KEY), encoded(NEUTRAL)
    assert openssl(key, signed(r, key, b"a", nonce=0), b"a")


@pytest.mark.parametrize("y", [*range(P, P + 19), P + 1 + 2**255])
def test_a_point_has_one_spelling(y: int) -> None:
    other = y.to_bytes(32, "little")
    for message in MESSAGES[:8]:
        assert not judged(encoded(KEY), signed(other, encoded(KEY), message, nonce=0), message)
        assert not any(judge(other, signed(encoded(COMMITMENT), other, message, secret=0), message) for judge in JUDGES)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_library_that_takes_more_is_not_used(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    right = nacl.bindings.crypto_sign_open

    def takes_more(signed: bytes, key: bytes) -> bytes:
        return b"" if signed == ed25519._REFUSED[taken] else right(signed, key)

    monkeypatch.setattr(nacl.bindings, "crypto_sign_open", takes_more)
    library: Callable[[], object] = ed25519._library.__wrapped__
    with pytest.raises(ImportError, match="others refuse"):
        library()


@pytest.mark.parametrize("signature", ed25519._REFUSED)
def test_what_libraries_are_tried_with_some_would_take(signature: bytes) -> None:
    """The equation holds, with the cofactor; and nobody here takes it."""
    key, r, s = ed25519._KEY, signature[:32], int.from_bytes(signature[32:], "little")
    right = added(times(8, decoded(r)), times(8 * challenge(r, key, b""), decoded(key)))
    assert times(8 * s, BASE) == right
    assert openssl(key, signature, b"") is (r == encoded(NEUTRAL))
    assert not any(judge(key, signature, b"") for judge in JUDGES)
