"""Cosignatures: judged by a public log's checkpoint with cosignatures of four public witnesses."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, open_note, sign_note
from ca.cosignature import LATEST, Cosignature, Quorum, WitnessKey, attach, cosign, cosignatures
from ca.errors import BadSignature, Malformed, Misconfigured, NotWitnessed, SignerFailed
from ca.merkle import MAX_SIZE

NOTE_DIRECTORY: Final = Path(__file__).with_name("vectors") / "notes"
NOTE_OF_A_PUBLIC_LOG: Final = (NOTE_DIRECTORY / "arche2025h1-witnessed.note").read_text()
PUBLIC_LOG: Final = VerifierKey.parse(
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
PUBLIC_WITNESSES: Final = tuple(
    WitnessKey.parse(key)
    for key in (
        "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
        "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    )
)
ABSENT: Final = WitnessKey.parse("rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG")

# A log of this program under the cosignatures of litewitness 0.9 and of this program's own witness; the Go library of the former,
# filippo.io/torchwood, verified all three lines.
BOTH: Final = NOTE_DIRECTORY / "cosigned-by-litewitness.note"
BOTH_LOG: Final = VerifierKey.parse("ca.example.com+92e0953c+ATDf+NttjRWlBpEYs7pusuFLNh/Gw5kjdv+O0QFymQ7O")
BOTH_WITNESSES: Final = tuple(
    WitnessKey.parse(key)
    for key in (
        "lite.example.org/w+3fe1e6df+BIHgZvKapalxLquUCsqSSooZz0uvspmfQp85WZ1S/Uor",
        "w2.example.org+e8e9ed18+BEm/+KfpGI5nmHWvsv9i/VYJzVqAiTyQebY3HBCy6aax",
    )
)

Sign = Callable[[bytes], bytes]


def private(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def raw(seed: int) -> bytes:
    return private(seed).public_key().public_bytes_raw()


ORIGIN: Final = "ca.example.com/jit-ssh"
LOG: Final = VerifierKey(ORIGIN, raw(1))
CHECKPOINT: Final = Checkpoint(ORIGIN, 1042, bytes(range(32)))
TEXT: Final = CHECKPOINT.body()
NOTE: Final = sign_note(TEXT, LOG, private(1).sign)
WITNESSES: Final = tuple(WitnessKey(f"w{seed}.example.com", raw(seed)) for seed in (2, 3, 4))
NOW: Final = 1_800_000_000


def by(number: int, text: str = TEXT, time: int = NOW) -> Cosignature:
    """What the witness of this number says of a text."""
    return cosign(text, WITNESSES[number], time, private(number + 2).sign)


# ------------------------------------------------------------------- published


def test_the_cosignatures_of_public_witnesses_verify() -> None:
    witnessed = Quorum(PUBLIC_WITNESSES, 4).open(NOTE_OF_A_PUBLIC_LOG, PUBLIC_LOG)
    assert witnessed.checkpoint.size == 1432088532
    assert [each.witness for each in witnessed.cosignatures] == list(PUBLIC_WITNESSES)
    assert {each.time for each in witnessed.cosignatures} == {1779573024}
    assert all(each.line in NOTE_OF_A_PUBLIC_LOG for each in witnessed.cosignatures)


def test_a_note_that_another_program_cosigned_and_verified_opens() -> None:
    witnessed = Quorum(BOTH_WITNESSES, 2).open(BOTH.read_text(), BOTH_LOG)
    assert [each.witness.name for each in witnessed.cosignatures] == ["lite.example.org/w", "w2.example.org"]


def test_a_witness_that_did_not_cosign_does_not_count() -> None:
    quorum = Quorum((*PUBLIC_WITNESSES, ABSENT), 5)
    with pytest.raises(NotWitnessed, match=r"by 5 witnesses: .*remora\.n621\.de.* did"):
        quorum.open(NOTE_OF_A_PUBLIC_LOG, PUBLIC_LOG)
    assert len(replace(quorum, required=4).open(NOTE_OF_A_PUBLIC_LOG, PUBLIC_LOG).cosignatures) == 4


@pytest.mark.parametrize("witness", [*PUBLIC_WITNESSES, ABSENT], ids=lambda key: key.name)
def test_published_witness_keys_survive_a_round_trip(witness: WitnessKey) -> None:
    assert WitnessKey(witness.name, witness.public_key) == witness
    with pytest.raises(Malformed, match="not Ed25519"):
        VerifierKey.parse(str(witness))


def test_a_logs_key_is_no_witnesss() -> None:
    with pytest.raises(Malformed, match="not a witness's"):
        WitnessKey.parse(str(LOG))
    assert LOG.key_id != WitnessKey(LOG.name, LOG.public_key).key_id


# -------------------------------------------------------------- what is believed


def test_the_signed_message_is_the_one_of_the_specification() -> None:
    line = by(0).line
    name, encoded = line.removeprefix("— ").removesuffix("\n").split(" ")
    signature = b64decode(encoded)
    assert (name, signature[:4], signature[4:12]) == (WITNESSES[0].name, WITNESSES[0].key_id, NOW.to_bytes(8, "big"))
    private(2).public_key().verify(signature[12:], f"cosignature/v1\ntime {NOW}\n{TEXT}".encode())


@given(st.integers(0, LATEST), st.integers(0, MAX_SIZE), st.binary(min_size=32, max_size=32), st.sets(st.integers(0, 2)))
def test_every_cosignature_survives_attaching_and_opening(time: int, size: int, root: bytes, who: set[int]) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    given = tuple(by(number, checkpoint.body(), time) for number in sorted(who))
    note = attach(sign_note(checkpoint.body(), LOG, private(1).sign), given)
    witnessed = Quorum(WITNESSES, len(who)).open(note, LOG)
    assert (witnessed.checkpoint, witnessed.cosignatures) == (checkpoint, given)
    assert open_checkpoint(note, LOG) == checkpoint, "who knows no witness reads it all the same"


def test_without_witnesses_a_note_opens_as_before() -> None:
    assert Quorum().open(NOTE, LOG).checkpoint == CHECKPOINT
    assert Quorum(WITNESSES).open(NOTE, LOG).cosignatures == ()


def test_a_witness_alone_signs_no_checkpoint() -> None:
    unsigned = f"{TEXT}\n{by(0).line}{by(1).line}{by(2).line}"
    with pytest.raises(BadSignature, match="no signature by ca"):
        Quorum(WITNESSES, 3).open(unsigned, LOG)


def test_a_witness_counts_once_however_often_it_signs() -> None:
    with pytest.raises(Malformed, match="2 cosignatures by w2"):
        Quorum(WITNESSES, 2).open(attach(NOTE, [by(0), by(0, time=NOW + 1)]), LOG)


@pytest.mark.parametrize("required", [1, 2, 3])
def test_fewer_than_required_are_too_few(required: int) -> None:
    enough = attach(NOTE, [by(number) for number in range(required)])
    assert len(Quorum(WITNESSES, required).open(enough, LOG).cosignatures) == required
    too_few = attach(NOTE, [by(number) for number in range(required - 1)])
    with pytest.raises(NotWitnessed, match=f"by {required} witnesses"):
        Quorum(WITNESSES, required).open(too_few, LOG)


def test_a_cosignature_of_another_checkpoint_is_worth_nothing() -> None:
    other = by(0, Checkpoint(ORIGIN, 1043, bytes(32)).body())
    with pytest.raises(BadSignature, match="by w2"):
        Quorum(WITNESSES, 1).open(attach(NOTE, [other]), LOG)


def test_a_notes_plain_signature_is_no_cosignature() -> None:
    plain = WITNESSES[0].line(private(2).sign(TEXT.encode()))
    with pytest.raises(Malformed):
        Quorum(WITNESSES, 1).open(NOTE + plain, LOG)
    timed = WITNESSES[0].line(NOW.to_bytes(8, "big") + private(2).sign(TEXT.encode()))
    with pytest.raises(BadSignature):
        Quorum(WITNESSES, 1).open(NOTE + timed, LOG)


def test_another_time_than_the_one_signed_is_refused() -> None:
    signature = b64decode(by(0).line.split(" ")[2])
    with pytest.raises(BadSignature):
        cosignatures(NOTE + WITNESSES[0].line((NOW + 1).to_bytes(8, "big") + signature[12:]), WITNESSES)
    beyond = (LATEST + 1).to_bytes(8, "big")
    signed = private(2).sign(f"cosignature/v1\ntime {LATEST + 1}\n{TEXT}".encode())
    with pytest.raises(Malformed, match="at the time"):
        cosignatures(NOTE + WITNESSES[0].line(beyond + signed), WITNESSES)


@pytest.mark.parametrize("length", [1, 7, 8, 63, 71, 73, 136])
def test_a_line_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        cosignatures(NOTE + WITNESSES[0].line(bytes(length)), WITNESSES)


def test_lines_of_others_are_skipped() -> None:
    stranger = WitnessKey("stranger.example.com", raw(9))
    namesake = WitnessKey(WITNESSES[0].name, raw(9))
    lines = [cosign(TEXT, stranger, NOW, private(9).sign), cosign(TEXT, namesake, NOW, private(9).sign), by(1)]
    assert cosignatures(attach(NOTE, lines), WITNESSES) == (by(1),)


# ------------------------------------------------------------------------ quorums


@pytest.mark.parametrize("required", [-1, 4])
def test_a_number_that_cannot_be_reached_is_misconfigured(required: int) -> None:
    with pytest.raises(Misconfigured, match=f"^{required} witnesses are required, 3 are known"):
        Quorum(WITNESSES, required)


@pytest.mark.parametrize("again", [WitnessKey("other.example.com", raw(2)), WitnessKey("w2.example.com", raw(9))])
def test_nobody_is_two_witnesses(again: WitnessKey) -> None:
    with pytest.raises(Misconfigured, match="two witnesses have the"):
        Quorum((*WITNESSES, again), 2)


def test_a_log_is_not_its_own_witness() -> None:
    itself = WitnessKey("w1.example.com", raw(1))
    note = attach(NOTE, [cosign(TEXT, itself, NOW, private(1).sign)])
    with pytest.raises(Misconfigured, match="cannot be its own witness"):
        Quorum((itself,), 1).open(note, LOG)


# ------------------------------------------------------------------------ signing


@pytest.mark.parametrize("text", ["", "three\nlines\nonly\n", TEXT + "extension\n", TEXT[:-1]])
def test_only_checkpoints_are_cosigned(text: str) -> None:
    with pytest.raises(Malformed):
        cosign(text, WITNESSES[0], NOW, private(2).sign)


@pytest.mark.parametrize("time", [-1, LATEST + 1])
def test_no_cosignature_at_a_time_that_cannot_be_written(time: int) -> None:
    with pytest.raises(Malformed, match="at the time"):
        cosign(TEXT, WITNESSES[0], time, private(2).sign)


def test_a_signer_with_another_key_is_found_out() -> None:
    with pytest.raises(SignerFailed, match=r"w2\.example\.com"):
        cosign(TEXT, WITNESSES[0], NOW, private(9).sign)


# ---------------------------------------------------------------------- mutations


@given(st.data())
def test_whatever_opens_has_the_cosignatures_that_were_made(data: st.DataObject) -> None:
    honest = attach(NOTE, [by(0), by(1)])
    mutated = bytearray(honest.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with suppress(Malformed, BadSignature, NotWitnessed):
        witnessed = Quorum(WITNESSES, 2).open(bytes(mutated), LOG)
        assert witnessed.checkpoint == CHECKPOINT
        assert witnessed.cosignatures == (by(0), by(1))


@given(st.sampled_from(WITNESSES), st.integers(0, 71), st.integers(1, 255))
def test_every_flipped_byte_of_a_cosignature_is_refused(witness: WitnessKey, at: int, flip: int) -> None:
    number = WITNESSES.index(witness)
    signature = bytearray(b64decode(by(number).line.split(" ")[2])[4:])
    signature[at] ^= flip
    with pytest.raises((BadSignature, Malformed)):
        cosignatures(NOTE + witness.line(bytes(signature)), WITNESSES)


def test_a_line_survives_only_in_its_one_spelling() -> None:
    line = by(0).line
    loose = line.rstrip("\n").rstrip("=")
    with pytest.raises(Malformed):
        cosignatures(NOTE + loose + "\n", WITNESSES)
    assert b64encode(b64decode(line.split(" ")[2])).decode() + "\n" == line.split(" ")[2]
    assert open_note(attach(NOTE, [by(0)]), LOG) == TEXT
