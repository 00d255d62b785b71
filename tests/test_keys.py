"""The wire encoding, public keys and what they verify: judged by ssh-keygen, attacked byte by byte."""

import base64
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import assume, given
from hypothesis import strategies as st

from ca.errors import BadSignature, JitSshError, Malformed
from ca.keys import ALGORITHMS, PublicKey, ed25519_key
from ca.wire import Reader, decode_base64, mpint, string, u32, u64
from tests import policies
from tests.keys import EVERY_TYPE, PROVIDER, Kept, SecurityKey

HOSTILE = Path(__file__).parent / "vectors" / "hostile"
BAD_KEYS = {  # the files of the directory by their defect, and words of the refusal
    "certificate": "a certificate, not a public key",
    "dsa": "'ssh-dss' is not supported",
    "ecdsa-compressed-point": "not an uncompressed point",
    "ecdsa-curve-of-another-name": "does not name its curve",
    "ecdsa-point-at-infinity": "not an uncompressed point",
    "ecdsa-point-not-on-the-curve": "not a point of nistp256",
    "ed25519-31-bytes": "has 32 bytes, this one 31",
    "ed25519-33-bytes": "has 32 bytes, this one 33",
    "ed25519-bytes-behind-the-key": "1 bytes too many",
    "ed25519-line-says-rsa": "holds a key of type ssh-ed25519",
    "ed25519-not-canonical": "degenerate",
    "ed25519-small-order-1": "degenerate",
    "ed25519-small-order-2": "degenerate",
    "ed25519-small-order-3": "degenerate",
    "ed25519-small-order-4": "degenerate",
    "ed25519-small-order-5": "degenerate",
    "ed25519-small-order-6": "degenerate",
    "ed25519-small-order-7": "degenerate",
    "ed25519-small-order-8": "degenerate",
    "host-certificate": "a certificate, not a public key",
    "options-before-the-key": "not base64",
    "private-key": "one line of printable text",
    "rsa-1024": "1024 bits",
    "rsa-2048": "2048 bits",
    "rsa-16384": "bytes, more than",
    "rsa-even-exponent": "exponent",
    "rsa-even-modulus": "small factor",
    "rsa-exponent-0": "zero, negative or padded",
    "rsa-exponent-1": "exponent",
    "rsa-modulus-divisible-by-3": "small factor",
    "rsa-negative-modulus": "zero, negative or padded",
    "rsa-padded-modulus": "zero, negative or padded",
    "sk-application-empty": "of the form ssh:",
    "sk-application-missing": "ends early",
    "sk-application-of-a-web-site": "of the form ssh:",
    "sk-application-with-an-escape": "of the form ssh:",
    "sk-application-without-colon": "of the form ssh:",
    "sk-small-order": "degenerate",
    "sk-webauthn": "is not supported",
    "two-lines": "one line of printable text",
    "unknown-type": "is not supported",
}


def bad_key(name: str) -> str:
    """The text of a hostile .pub file."""
    return (HOSTILE / f"{name}.pub").read_text()


# ------------------------------------------------------------------------- wire

NUMBERS = st.integers(min_value=1, max_value=2**600)


@given(st.binary(), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.text(), NUMBERS)
def test_what_is_written_is_read(raw: bytes, small: int, large: int, text: str, number: int) -> None:
    encoded = string(raw) + u32(small) + u64(large) + string(text) + mpint(number)
    reader = Reader(encoded, "it")
    assert (reader.string(), reader.u32(), reader.u64(), reader.text(), reader.mpint()) == (raw, small, large, text, number)
    assert reader.done
    assert reader.so_far == encoded
    reader.end()


@pytest.mark.parametrize(
    "read", [Reader.u8, Reader.u32, Reader.u64, Reader.string, Reader.text, Reader.mpint], ids=lambda read: read.__name__
)
@given(source=st.binary(max_size=12) | st.binary(max_size=8).map(string))
def test_any_bytes_are_read_or_malformed(read: Callable[[Reader], object], source: bytes) -> None:
    reader = Reader(source, "it")
    with suppress(Malformed):
        read(reader)
        reader.end()


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\x01", b"\x80", b"\xff\x00", b"\0\0\x80"])
def test_an_integer_has_one_spelling(raw: bytes) -> None:
    with pytest.raises(Malformed, match="zero, negative or padded"):
        Reader(string(raw), "it").mpint()


@given(st.binary(max_size=60))
def test_base64_has_one_spelling(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert decode_base64(text, "it") == raw
    for other in (text + "=", text + "\n", " " + text, text + "AB=", text.rstrip("=") + "\u00e9"):
        with pytest.raises(Malformed, match="it is not"):
            decode_base64(other, "it")


@pytest.mark.parametrize("text", ["AB==", "A", "A===", "AA", "A\u0391==", "AA-_", "\ud800AA="])
def test_base64_that_others_accept_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        decode_base64(text, "it")


# ------------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_key_of_every_type_is_read_as_ssh_keygen_reads_it(kind: str, every_key: Mapping[str, Kept]) -> None:
    path = every_key[kind].path.with_suffix(".pub")
    key = PublicKey.parse_line(path.read_text())
    assert key == PublicKey.parse(key.blob) == PublicKey.parse_line(key.line)
    assert path.read_text().startswith(f"{key.line} ")
    assert key.blob == string(key.algorithm) + key.fields
    judged = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True).stdout.split()
    assert key.fingerprint == judged[1]
    assert key.hardware == (kind.startswith("sk-")) == judged[-1].endswith("-SK)")
    assert (key.application == "ssh:") is key.hardware


def test_the_types_tested_are_the_types_there_are(every_key: Mapping[str, Kept]) -> None:
    assert {key.public_key.algorithm for key in every_key.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_signature_of_every_type_verifies_and_no_other_does(kind: str, every_key: Mapping[str, Kept]) -> None:
    key = every_key[kind]
    signature = key.sign(b"a message")
    assert key.public_key.verify(signature, b"a message") is key.public_key.hardware
    with pytest.raises(BadSignature):
        key.public_key.verify(signature, b"a messag")
    for other in every_key.values():
        if other is not key:
            with pytest.raises(JitSshError) as caught:
                other.public_key.verify(signature, b"a message")
            assert isinstance(caught.value, Malformed | BadSignature)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_signature_changed_at_any_byte_or_cut_is_refused(kind: str, every_key: Mapping[str, Kept]) -> None:
    key = every_key[kind]
    signature = key.sign(b"a message")
    for at in range(len(signature)):
        changed = bytearray(signature)
        changed[at] ^= 0x81
        for hostile in (bytes(changed), signature[:at], signature[:at] + b"\0" + signature[at:]):
            with pytest.raises((BadSignature, Malformed)):
                key.public_key.verify(hostile, b"a message")
    with pytest.raises(Malformed, match="too many"):
        key.public_key.verify(signature + b"\0", b"a message")


def test_an_rsa_signature_is_over_the_hash_that_it_names(every_key: Mapping[str, Kept]) -> None:
    private = serialization.load_ssh_private_key(every_key["rsa-3072"].path.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    public = every_key["rsa-3072"].public_key
    chosen = {"SHA256": hashes.SHA256(), "SHA512": hashes.SHA512(), "SHA1": hashes.SHA1()}  # noqa: S303 - to see it refused
    by_hash = {name: private.sign(b"a message", padding.PKCS1v15(), each) for name, each in chosen.items()}
    public.verify(string("rsa-sha2-256") + string(by_hash["SHA256"]), b"a message")
    public.verify(string("rsa-sha2-512") + string(by_hash["SHA512"]), b"a message")
    for algorithm, name in (("rsa-sha2-256", "SHA512"), ("rsa-sha2-512", "SHA256"), ("rsa-sha2-512", "SHA1")):
        with pytest.raises(BadSignature):
            public.verify(string(algorithm) + string(by_hash[name]), b"a message")
    with pytest.raises(Malformed, match="cannot make a signature of type 'ssh-rsa'"):
        public.verify(string("ssh-rsa") + string(by_hash["SHA1"]), b"a message")


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-256-cert-v01@openssh.com", "ssh-ed25519", "", "rsa-sha2-1024"])
def test_an_rsa_signature_is_sha2_or_nothing(algorithm: str, every_key: Mapping[str, Kept]) -> None:
    key = every_key["rsa-3072"]
    reader = Reader(key.sign(b"a message"), "it")
    assert reader.string() == b"rsa-sha2-512"
    with pytest.raises(Malformed, match="cannot make a signature of type"):
        key.public_key.verify(string(algorithm) + string(reader.string()), b"a message")


def test_a_signature_has_the_length_of_its_type(every_key: Mapping[str, Kept]) -> None:
    for kind, words in (("rsa-3072", "rsa signature has 385 bytes, not 384"), ("ecdsa-384", "ecdsa signature has 1 bytes too")):
        key = every_key[kind]
        reader = Reader(key.sign(b"a message"), "it")
        algorithm, raw = reader.string(), reader.string()
        with pytest.raises(Malformed, match=words):
            key.public_key.verify(string(algorithm) + string(raw + b"\0"), b"a message")
    ed25519 = every_key["ed25519"]
    for length in (0, 63, 65):
        with pytest.raises(BadSignature):
            ed25519.public_key.verify(string("ssh-ed25519") + string(bytes(length)), b"a message")


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 5, 0x80, 0xFE, 0xFF])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_touch_is_the_presence_flag_and_nothing_else(kind: str, flags: int) -> None:
    key = SecurityKey(kind, flags=flags)
    assert key.public_key.verify(key.sign(b"a message"), b"a message") is (flags % 2 == 1)


def test_a_security_keys_signature_is_bound_to_its_application() -> None:
    key = SecurityKey(application="ssh:")
    other = PublicKey.parse(key.blob.removesuffix(string("ssh:")) + string("ssh:other"))
    with pytest.raises(BadSignature):
        other.verify(key.sign(b"a message"), b"a message")


# -------------------------------------------------------------------- bad keys


def test_every_hostile_file_is_tried() -> None:
    assert {path.name.removesuffix(".pub") for path in HOSTILE.glob("*.pub")} == BAD_KEYS.keys()


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_hostile_key_is_malformed(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        PublicKey.parse_line(bad_key(name))
    assert BAD_KEYS[name] in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("y", range(2**255 - 19, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_no_point_has_a_second_spelling(y: int, sign: int) -> None:
    with pytest.raises(Malformed, match="degenerate"):
        ed25519_key((y | sign << 255).to_bytes(32, "little"))


def test_the_small_order_points_are_all_of_them() -> None:
    """Multiplying each by eight gives the neutral point; there are eight on the curve, and no encoding of one is accepted."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = one, two
        product = d * x1 * x2 * y1 * y2
        return (
            (x1 * y2 + x2 * y1) * pow(1 + product, -1, p) % p,
            (y1 * y2 + x1 * x2) * pow(1 - product, -1, p) % p,
        )

    for number in range(1, 9):
        raw = Reader(decode_base64(bad_key(f"ed25519-small-order-{number}").split()[1], "it"), "it")
        raw.string()
        y = int.from_bytes(raw.string(), "little") & (2**255 - 1)
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square else x * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square, "it is on the curve"
        point = (x, y)
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)


@pytest.mark.parametrize(
    "text", ["", " ", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519  AAAA", "\n", "A" * 5000, "ssh-ed25519\tAAAA"]
)
def test_text_that_is_no_key_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        PublicKey.parse_line(text)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_key_cut_or_lengthened_anywhere_is_malformed(kind: str, every_key: Mapping[str, Kept]) -> None:
    blob = every_key[kind].public_key.blob
    for at in range(len(blob)):
        for hostile in (blob[:at], blob[at + 1 :], blob + blob[: at + 1]):
            with pytest.raises(Malformed):
                PublicKey.parse(hostile)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_key_changed_at_any_byte_is_malformed_or_another_key(kind: str, every_key: Mapping[str, Kept]) -> None:
    key = every_key[kind]
    blob, signature = key.public_key.blob, key.sign(b"a message")
    for at in range(len(blob)):
        changed = blob[:at] + bytes([blob[at] ^ 0x01]) + blob[at + 1 :]
        try:
            other = PublicKey.parse(changed)
        except Malformed:
            continue
        assert other != key.public_key
        with pytest.raises((BadSignature, Malformed)):
            other.verify(signature, b"a message")


@given(st.binary(max_size=80), st.sampled_from(ALGORITHMS))
def test_any_bytes_are_a_key_or_malformed(rest: bytes, algorithm: str) -> None:
    for source in (rest, string(algorithm) + rest, string(algorithm) + string(rest)):
        with suppress(Malformed):
            assert PublicKey.parse(source).blob == source


@given(st.text(max_size=40), st.data())
def test_any_text_is_a_line_or_malformed(comment: str, data: st.DataObject) -> None:
    line = f"{policies.key(1).line} {comment}"
    cut = line[: data.draw(st.integers(0, len(line)))] + data.draw(st.text(max_size=3))
    assume(cut != line)
    for text in (comment, line, cut):
        try:
            key = PublicKey.parse_line(text)
        except Malformed:
            continue
        assert text.startswith(key.line)
        assert text.removesuffix("\n").isprintable()


def test_the_provider_of_software_security_keys_is_installed() -> None:
    """Without it ssh-keygen cannot make an sk- key, and half of these tests would fail for a reason hard to see."""
    assert Path(PROVIDER["SSH_SK_PROVIDER"]).exists(), "install the package openssh-tests"
