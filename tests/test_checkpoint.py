"""Checkpoints: judged by the published notes of Go's note package, of C2SP and of sum.golang.org."""

import base64
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from ca.checkpoint import MAX_NOTE_LENGTH, Checkpoint, VerifierKey, open_checkpoint, open_note, sign_note, signed_alone
from ca.errors import BadSignature, Malformed, SignerFailed
from ca.merkle import EMPTY_ROOT, MAX_SIZE

NOTES = Path(__file__).with_name("vectors") / "notes"
NEUMANN = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
NEUMANN_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]  # published with it
SUM_GOLANG = VerifierKey.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")

ORIGIN = "log.example.com/jit-ssh"


def key_pair(name: str, seed: int) -> tuple[VerifierKey, Callable[[bytes], bytes]]:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return VerifierKey(name, private.public_key().public_bytes_raw()), private.sign


KEY, SIGN = key_pair(ORIGIN, 1)
WITNESS, WITNESS_SIGN = key_pair("witness.example.com", 2)
NAMESAKE, NAMESAKE_SIGN = key_pair(ORIGIN, 3)  # our name, another key

CHECKPOINT = Checkpoint(ORIGIN, 1042, bytes(range(32)))
NOTE = sign_note(CHECKPOINT.body(), KEY, SIGN)
TEXT, OUR_LINE = CHECKPOINT.body(), NOTE.rpartition("\n\n")[2]
ROOT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def line_of(key: VerifierKey, sign: Callable[[bytes], bytes], text: str = TEXT) -> str:
    return sign_note(text, key, sign).rpartition("\n\n")[2]


# ------------------------------------------------------------------ published


def test_the_note_of_gos_note_package_opens_and_is_made_byte_for_byte() -> None:
    note = NOTES.joinpath("peter-neumann.note").read_text()
    text = open_note(note, NEUMANN)
    assert text.endswith("what your problem is.\n")
    private = Ed25519PrivateKey.from_private_bytes(NEUMANN_SEED)
    assert private.public_key().public_bytes_raw() == NEUMANN.public_key
    assert sign_note(text, NEUMANN, private.sign) == note


@pytest.mark.parametrize("size", [65209736, 15067302])
def test_a_public_logs_notes_open_with_and_without_a_witness(size: int) -> None:
    (file,) = NOTES.glob(f"sum.golang.org-{size}*.note")
    checkpoint = Checkpoint.parse(open_note(file.read_bytes(), SUM_GOLANG))
    assert (checkpoint.origin, checkpoint.size) == ("go.sum database tree", size)


def test_the_example_checkpoint_of_c2sp_is_read_but_believed_by_nobody_without_its_key() -> None:
    note = NOTES.joinpath("c2sp-checkpoint.note").read_text()
    body = note.rpartition("\n\n")[0] + "\n"
    assert Checkpoint.parse(body).body() == body
    assert Checkpoint.parse(body).size == 20852163
    with pytest.raises(BadSignature, match="no signature by"):
        open_checkpoint(note, KEY)


@pytest.mark.parametrize("key", [NEUMANN, SUM_GOLANG], ids=lambda key: key.name)
def test_published_verifier_keys_survive_a_round_trip(key: VerifierKey) -> None:
    assert VerifierKey.parse(str(key)) == key


def test_a_note_alone_has_the_signature_of_one_key() -> None:
    assert signed_alone(NOTE + line_of(WITNESS, WITNESS_SIGN) + "— somebody AAAAAAAA\n", KEY) == NOTE
    with pytest.raises(BadSignature):
        signed_alone(NOTE, NAMESAKE)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_three_lines() -> None:
    assert CHECKPOINT.body() == f"{ORIGIN}\n1042\n{ROOT}\n"


def test_a_signed_checkpoint_opens_as_text_and_as_bytes() -> None:
    assert open_checkpoint(NOTE, KEY) == open_checkpoint(NOTE.encode(), KEY) == CHECKPOINT


@given(st.integers(0, MAX_SIZE), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_survives_signing_and_opening(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert open_checkpoint(sign_note(checkpoint.body(), KEY, SIGN), KEY) == checkpoint


@pytest.mark.parametrize(
    "body",
    {
        "empty": "",
        "one line": f"{ORIGIN}\n",
        "no root": f"{ORIGIN}\n1\n",
        "no last newline": f"{ORIGIN}\n1\n{ROOT}",
        "extension line": f"{ORIGIN}\n1\n{ROOT}\nextension\n",
        "extension without newline": f"{ORIGIN}\n1\n{ROOT}\nextension",
        "empty line": f"{ORIGIN}\n1\n{ROOT}\n\n",
        "no origin": f"\n1\n{ROOT}\n",
        "origin drives a terminal": f"a\x9b31mb\n1\n{ROOT}\n",
        "origin turns text around": f"a\u202eb\n1\n{ROOT}\n",
        "origin with a line separator": f"a\u2028b\n1\n{ROOT}\n",
        "leading zero": f"{ORIGIN}\n01\n{ROOT}\n",
        "two zeros": f"{ORIGIN}\n00\n{ROOT}\n",
        "plus": f"{ORIGIN}\n+1\n{ROOT}\n",
        "minus": f"{ORIGIN}\n-1\n{ROOT}\n",
        "space": f"{ORIGIN}\n1 \n{ROOT}\n",
        "underscore": f"{ORIGIN}\n1_0\n{ROOT}\n",
        "no size": f"{ORIGIN}\n\n{ROOT}\n",
        "hexadecimal": f"{ORIGIN}\n0x1\n{ROOT}\n",
        "Arabic digits": f"{ORIGIN}\n١\n{ROOT}\n",
        "2^63": f"{ORIGIN}\n{2**63}\n{ROOT}\n",
        "10^400": f"{ORIGIN}\n1{'0' * 400}\n{ROOT}\n",
        "10^5000": f"{ORIGIN}\n1{'0' * 5000}\n{ROOT}\n",
        "short root": f"{ORIGIN}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        "long root": f"{ORIGIN}\n1\n{base64.b64encode(bytes(33)).decode()}\n",
        "no padding": f"{ORIGIN}\n1\n{ROOT[:-1]}\n",
        "loose last bits": f"{ORIGIN}\n1\n{ROOT[:-2]}9=\n",
        "URL alphabet": f"{ORIGIN}\n1\n{'_' + ROOT[1:]}\n",
        "space in base64": f"{ORIGIN}\n1\n{ROOT} \n",
        "base64 that is not ASCII": f"{ORIGIN}\n1\n{'é' + ROOT[1:]}\n",
        "carriage returns": f"{ORIGIN}\r\n1\r\n{ROOT}\r\n",
    }.values(),
    ids=lambda body: ascii(body)[:60],
)
def test_a_body_that_is_not_exactly_a_checkpoint_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        Checkpoint.parse(body)


@given(
    st.text() | st.just(ORIGIN),
    st.integers(-1, 2**64) | st.just(1042),
    st.binary(min_size=31, max_size=33) | st.binary(min_size=32, max_size=32),
)
def test_a_checkpoint_that_can_be_made_can_be_read_back(origin: str, size: int, root: bytes) -> None:
    try:
        checkpoint = Checkpoint(origin, size, root)
    except Malformed:
        return
    assert Checkpoint.parse(checkpoint.body()) == checkpoint


def test_a_key_signs_for_no_other_origin_than_its_name() -> None:
    note = sign_note(Checkpoint("log.example.com/other", 1, EMPTY_ROOT).body(), KEY, SIGN)
    with pytest.raises(BadSignature, match=r"a checkpoint of log\.example\.com/other"):
        open_checkpoint(note, KEY)


def test_a_signed_text_that_is_no_checkpoint_is_malformed() -> None:
    with pytest.raises(Malformed):
        open_checkpoint(sign_note("hello\n", KEY, SIGN), KEY)


# ----------------------------------------------------------------- signatures


def test_signatures_by_others_are_skipped_wherever_they_stand() -> None:
    witness, namesake = line_of(WITNESS, WITNESS_SIGN), line_of(NAMESAKE, NAMESAKE_SIGN)
    with_our_id = f"— {WITNESS.name} {base64.b64encode(KEY.key_id + bytes(64)).decode()}\n"
    post_quantum = f"— quantum.example.com {base64.b64encode(bytes(5000)).decode()}\n"
    sixteen = post_quantum * 15 + OUR_LINE
    for lines in (witness + OUR_LINE, OUR_LINE + witness, namesake + OUR_LINE + with_our_id, sixteen):
        assert open_checkpoint(f"{TEXT}\n{lines}", KEY) == CHECKPOINT


def test_a_note_without_our_signature_is_refused_whoever_else_signed() -> None:
    for lines in (line_of(WITNESS, WITNESS_SIGN), line_of(NAMESAKE, NAMESAKE_SIGN)):
        with pytest.raises(BadSignature, match="no signature by"):
            open_checkpoint(f"{TEXT}\n{lines}", KEY)


@pytest.mark.parametrize(
    "signature",
    [b"\0", bytes(64), SIGN(b"another text"), SIGN(TEXT.encode())[:-1], SIGN(TEXT.encode()) + b"\0"],
    ids=["one byte", "zeros", "of another text", "too short", "too long"],
)
def test_a_bad_signature_under_our_key_is_refused_even_beside_a_witness(signature: bytes) -> None:
    ours = f"— {ORIGIN} {base64.b64encode(KEY.key_id + signature).decode()}\n"
    with pytest.raises(BadSignature, match="does not fit"):
        open_checkpoint(f"{TEXT}\n{ours}{line_of(WITNESS, WITNESS_SIGN)}", KEY)


def test_a_signature_with_a_multiple_of_the_group_order_added_is_refused() -> None:
    signature = SIGN(TEXT.encode())
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(BadSignature):
        KEY.verify(TEXT.encode(), signature[:32] + scalar.to_bytes(32, "little"))


def test_our_signature_twice_is_malformed_good_or_bad() -> None:
    bad = f"— {ORIGIN} {base64.b64encode(KEY.key_id + bytes(64)).decode()}\n"
    for lines in (OUR_LINE * 2, OUR_LINE + bad, bad + OUR_LINE):
        with pytest.raises(Malformed, match="2 signatures"):
            open_checkpoint(f"{TEXT}\n{lines}", KEY)


def test_the_text_ends_at_the_last_empty_line() -> None:
    text = f"first\n\n{OUR_LINE}\nlast\n"
    assert open_note(sign_note(text, KEY, SIGN), KEY) == text
    with pytest.raises(Malformed):  # a second note appended does not hide in the first
        open_checkpoint(NOTE + "\n" + TEXT, KEY)


SIGNATURE = OUR_LINE.split(" ")[2].strip()


@pytest.mark.parametrize(
    "lines",
    [
        "", "\n", OUR_LINE[:-1], OUR_LINE + "\n", OUR_LINE + " ", " " + OUR_LINE, OUR_LINE.replace("—", "-"),
        OUR_LINE.replace("—", "–"), OUR_LINE.replace("—", "--"), OUR_LINE[1:], OUR_LINE[2:], OUR_LINE.replace("— ", "—"),
        OUR_LINE.replace("— ", "—  "), OUR_LINE.replace(" ", "\u00a0"), OUR_LINE.replace("\n", "\r\n"),
        f"— {SIGNATURE}\n", f"—  {SIGNATURE}\n", f"— two words {SIGNATURE}\n", f"— a+b {SIGNATURE}\n",
        f"— a\u2003b {SIGNATURE}\n", f"— {ORIGIN} {SIGNATURE} \n", f"— {ORIGIN} {SIGNATURE} more\n", f"— {ORIGIN}\n",
        f"— {ORIGIN} \n", f"— {ORIGIN} {SIGNATURE.rstrip('=')}\n", f"— {ORIGIN} {SIGNATURE}=\n", f"— {ORIGIN} AAAA\n",
        f"— {ORIGIN} AAAAAA==\n", f"— {ORIGIN} =\n", "— other ????\n", OUR_LINE + "— other AAAAAAB=\n", OUR_LINE + "junk\n",
    ],
    ids=lambda lines: ascii(lines)[:40],
)  # fmt: skip
def test_a_note_with_any_line_that_is_not_a_signature_is_malformed(lines: str) -> None:
    with pytest.raises(Malformed):
        open_checkpoint(f"{TEXT}\n{lines}", KEY)


def test_signatures_without_a_text_are_malformed() -> None:
    with pytest.raises(Malformed, match="a text, an empty line"):
        open_note(line_of(KEY, SIGN, "\n"), KEY)


@pytest.mark.parametrize("control", [chr(code) for code in range(32) if chr(code) != "\n"])
def test_a_note_with_a_control_character_is_malformed_and_never_signed(control: str) -> None:
    with pytest.raises(Malformed, match="control character"):
        open_note(NOTE + f"— a{control} AAAAAAA=\n", KEY)
    with pytest.raises(Malformed, match="control character"):
        sign_note(f"a{control}b\n", KEY, SIGN)


@pytest.mark.parametrize(
    "note",
    [b"\xff" + NOTE.encode(), NOTE.encode("utf-16"), NOTE.encode() + "— ".encode()[:2], "\ud800" + NOTE],
    ids=["a byte 255", "UTF-16", "half an em dash", "half a surrogate pair"],
)
def test_a_note_that_is_not_utf_8_is_malformed(note: str | bytes) -> None:
    with pytest.raises(Malformed, match="not UTF-8"):
        open_note(note, KEY)


def test_a_note_is_no_longer_than_the_limit() -> None:
    short = len(sign_note("\n", KEY, SIGN).encode()) - 1
    longest = "a" * (MAX_NOTE_LENGTH - short - 1) + "\n"
    assert open_note(sign_note(longest, KEY, SIGN), KEY) == longest
    with pytest.raises(Malformed, match="bytes, more than"):
        sign_note("a" + longest, KEY, SIGN)
    with pytest.raises(Malformed, match="bytes, more than"):
        open_note(NOTE + line_of(WITNESS, WITNESS_SIGN) * 2000, KEY)


# -------------------------------------------------------------------- signing


@pytest.mark.parametrize("text", ["", "no newline", f"{TEXT}\n{OUR_LINE[:-1]}", "\ud800\n"])
def test_nobody_signs_a_text_that_would_not_come_back_out_of_the_note(text: str) -> None:
    with pytest.raises(Malformed):
        sign_note(text, KEY, SIGN)


@pytest.mark.parametrize("broken", [lambda _: b"", lambda _: bytes(64), NAMESAKE_SIGN, lambda message: SIGN(message) + b"\0"])
def test_a_signature_that_does_not_verify_never_leaves(broken: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SignerFailed, match="does not verify"):
        sign_note(TEXT, KEY, broken)


# ----------------------------------------------------------------------- keys


def written(kind: bytes, raw: bytes) -> str:
    """A verifier key with the id that belongs to it."""
    key_id = sha256(ORIGIN.encode() + b"\n" + kind + raw).digest()[:4]
    return f"{ORIGIN}+{key_id.hex()}+{base64.b64encode(kind + raw).decode()}"


def test_a_verifier_key_is_written_as_c2sp_writes_it() -> None:
    assert str(KEY) == written(b"\x01", KEY.public_key)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\x9b", "a\u2003b", "ä", "a\u202eb", "a" * 513])
def test_a_key_has_a_name_that_can_stand_in_a_note_and_on_a_screen(name: str) -> None:
    with pytest.raises(Malformed, match="cannot be named"):
        VerifierKey(name, KEY.public_key)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_that_anybody_could_sign_with_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        VerifierKey(ORIGIN, raw)
    with pytest.raises(Malformed):
        VerifierKey.parse(written(b"\x01", raw))


def test_every_mangling_of_a_verifier_key_is_malformed() -> None:
    text = str(KEY)
    pieces = {text[start:end] for start in range(len(text)) for end in range(start, len(text) + 1)} - {text}
    bumped = {text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :] for at in range(len(text))}
    others = {text.upper(), text + "\n", " " + text, text + "=", text.replace("+", " ", 1), NOTE, str(NAMESAKE)[:-1]}
    for mangled in pieces | bumped | others:
        with pytest.raises(Malformed):
            VerifierKey.parse(mangled)


@pytest.mark.parametrize("kind", [b"\x00", b"\x02", b"\x04", b"\xff", b""])
def test_a_key_of_another_algorithm_is_malformed(kind: bytes) -> None:
    with pytest.raises(Malformed):
        VerifierKey.parse(written(kind, KEY.public_key))


# -------------------------------------------------------------------- fuzzing


@given(st.data())
def test_any_mutation_of_a_note_is_malformed_or_badly_signed(data: st.DataObject) -> None:
    raw = NOTE.encode()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(start + 8, len(raw))))
    mutated = raw[:start] + data.draw(st.binary(max_size=8) | st.just(raw[start:end] * 2)) + raw[end:]
    assume(mutated != raw)
    with pytest.raises((Malformed, BadSignature)):
        open_checkpoint(mutated, KEY)


def test_a_note_cut_or_changed_at_any_byte_is_malformed_or_badly_signed() -> None:
    raw = NOTE.encode()
    for at in range(len(raw)):
        changed = (raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :] for bit in (1, 0x20, 0x80))
        for bad in (raw[:at], raw[at + 1 :], *changed):
            with pytest.raises((Malformed, BadSignature)):
                open_checkpoint(bad, KEY)


PIECES = [TEXT, OUR_LINE, line_of(WITNESS, WITNESS_SIGN), ORIGIN, SIGNATURE, ROOT, "1042", "0", "— "]
CRUMBS = ["\n", " ", "+", "=", "\r", "é", "\ud800"]


@given(st.lists(st.sampled_from(PIECES + CRUMBS), max_size=12).map("".join) | st.text() | st.binary())
def test_whatever_opens_is_the_checkpoint_that_was_signed(note: str | bytes) -> None:
    with suppress(Malformed, BadSignature):
        assert open_checkpoint(note, KEY) == CHECKPOINT


KEY_PIECES = [str(KEY), ORIGIN, KEY.key_id.hex(), "AQ==", "+", "é", "\n"]


@given(st.lists(st.sampled_from(KEY_PIECES), max_size=6).map("".join) | st.text())
def test_text_is_a_verifier_key_or_malformed(text: str) -> None:
    with suppress(Malformed):
        assert str(VerifierKey.parse(text)) == text
