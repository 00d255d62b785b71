"""What `cli.host_verify` verifies signatures with, in Python alone, is Ed25519 as RFC 8032 and `cryptography` have it."""

from typing import Final

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.host_verify import verifies

RFC_8032: Final = [  # §7.1: public key, message, signature of tests 1, 2, 3 and SHA(abc)
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]  # fmt: skip
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
PRIME: Final = 2**255 - 19


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(key: str, message: str, signature: str) -> None:
    raw = bytes.fromhex(signature)
    assert verifies(bytes.fromhex(key), raw, bytes.fromhex(message))
    assert not verifies(bytes.fromhex(key), raw, bytes.fromhex(message) + b"\0")
    for bit in range(0, 512, 17):
        other = (int.from_bytes(raw, "big") ^ 1 << bit).to_bytes(64, "big")
        assert not verifies(bytes.fromhex(key), other, bytes.fromhex(message))


def theirs(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_signatures_are_judged_as_cryptography_does(seed: bytes, message: bytes, data: st.DataObject) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, good = private.public_key().public_bytes_raw(), private.sign(message)
    assert verifies(key, good, message)
    scalar = int.from_bytes(good[32:], "little")
    spoilt = bytearray(good)
    spoilt[data.draw(st.integers(0, 63))] ^= 1 << data.draw(st.integers(0, 7))
    for signature in (
        bytes(spoilt), good[:32] + (scalar + ORDER).to_bytes(32, "little"), good[:32] + bytes(32), good[:-1], good + b"\0", b"",
        (PRIME + 1).to_bytes(32, "little") + good[32:], bytes(64), data.draw(st.binary(min_size=64, max_size=64)),
    ):  # fmt: skip
        assert verifies(key, signature, message) == theirs(key, signature, message) == (signature == good)


@pytest.mark.parametrize("key", [
    "00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
    "01" + "00" * 30 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "02" + "00" * 31, "ff" * 32, "00" * 31, "00" * 33, "",
])  # fmt: skip
def test_by_a_key_that_anybody_could_sign_with_nothing_is_signed(key: str) -> None:
    raw = bytes.fromhex(key)
    neutral, zero = b"\x01" + bytes(31), bytes(32)
    for message in (b"", b"a", b"b", b"c", b"d", b"e", b"f", b"g"):  # with some, cryptography says yes
        assert not verifies(raw, neutral + zero, message)
        assert not verifies(raw, raw[:32] + zero, message)
