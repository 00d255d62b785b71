"""What a witness cosigns and what it refuses, judged by the specification's example and by another witness's tests."""

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ca import merkle
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.cosignature import WitnessKey, cosign
from ca.errors import BadSignature, LogDamaged, Malformed
from ca.merkle import EMPTY_ROOT
from ca.witness import MOST_HASHES, STATUS, AnotherHistory, Conflict, NoCosignature, Submission, judge, read_answer
from tests.histories import PRIVATE, History, log_key

# The example of the specification, whose keys nobody has.
EXAMPLE: Final = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""

# What the tests of litewitness, the witness of the Sigsum project's logs, submit to it: a log of five made-up leaf hashes.
SIGSUM: Final = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY: Final = VerifierKey(SIGSUM, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"))
SIGSUM_1: Final = f"""old 0

{SIGSUM}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
SIGSUM_3: Final = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {SIGSUM} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
SIGSUM_5: Final = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {SIGSUM} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""

KEY: Final = log_key("log.example.com")
HONEST: Final = History().grow("genesis", "policy", "a", "b", "c", "d", "e")
OTHER: Final = History().grow("genesis", "policy", "a").fork("x", "y", "z", "w")  # the same key signed another history
WITNESS_PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
WITNESS: Final = WitnessKey("w.example.com/1", WITNESS_PRIVATE.public_key().public_bytes_raw())


def cosigned(text: str) -> str:
    return cosign(text, WITNESS, 1_800_000_000, WITNESS_PRIVATE.sign).line


# ------------------------------------------------------------------ published


def test_the_example_of_the_specification_is_read_and_written() -> None:
    submission = Submission.parse(EXAMPLE.encode())
    assert (submission.old, len(submission.proof), submission.origin) == (20852014, 4, "example.com/behind-the-sofa")
    assert submission.checkpoint.size == 20852163
    assert submission.encode() == EXAMPLE.encode()


def test_what_another_witness_cosigns_is_cosigned_in_the_same_order() -> None:
    first = judge(Submission.parse(SIGSUM_1.encode()), SIGSUM_KEY, None)
    fifth = judge(Submission.parse(SIGSUM_5.encode()), SIGSUM_KEY, first)
    assert (first.size, fifth.size) == (1, 5)
    assert judge(Submission.parse(SIGSUM_3.encode()), SIGSUM_KEY, first).size == 3
    with pytest.raises(Conflict) as refused:  # what the other witness's test of a race is about
        judge(Submission.parse(SIGSUM_3.encode()), SIGSUM_KEY, fifth)
    assert refused.value.size == 5


LEAF: Final = merkle.leaf_hash(b"leaf")


@pytest.mark.parametrize(
    ("known", "old", "new", "root", "proof", "status"),
    [
        (0, 0, 0, EMPTY_ROOT, (), 200),
        (0, 0, 0, LEAF, (), 422),
        (0, 0, 0, bytes(32), (), 422),
        (0, 0, 0, EMPTY_ROOT, (LEAF,), 422),
        (0, 0, 1, LEAF, (), 200),
        (0, 0, 1, LEAF, (LEAF,), 422),
        (1, 0, 1, LEAF, (LEAF,), 409),
        (1, 1, 0, EMPTY_ROOT, (), 400),
    ],
    ids=str,
)
def test_the_smallest_logs_get_the_statuses_that_another_witness_gives(
    known: int, old: int, new: int, root: bytes, proof: tuple[bytes, ...], status: int
) -> None:
    note = sign_note(Checkpoint("log.example.com", new, root).body(), KEY, PRIVATE.sign)
    newest = Checkpoint("log.example.com", 1, LEAF) if known else None
    try:
        judge(Submission(old, proof, note), KEY, newest)
        answered = 200
    except (Malformed, Conflict, LogDamaged) as error:
        answered = STATUS[type(error)].value
    assert answered == status


# ------------------------------------------------------------- what is cosigned


@pytest.mark.parametrize("old", range(1, 8))
def test_what_continues_the_newest_is_accepted(old: int) -> None:
    for size in range(old, 8):
        assert judge(HONEST.submission(old, size), KEY, HONEST.checkpoint(old)) == HONEST.checkpoint(size)


def test_the_first_checkpoint_of_a_log_is_believed() -> None:
    assert judge(HONEST.submission(0), KEY, None) == HONEST.checkpoint()


@pytest.mark.parametrize("old", [0, 1, 2, 4, 6, 7])
def test_whoever_begins_elsewhere_is_told_the_size(old: int) -> None:
    with pytest.raises(Conflict) as refused:
        judge(HONEST.submission(old), KEY, HONEST.checkpoint(5))
    assert refused.value.size == 5


def test_an_old_copy_is_told_the_size_that_was_cosigned() -> None:
    with pytest.raises(Conflict) as refused:
        judge(HONEST.submission(4, 4), KEY, HONEST.checkpoint(6))
    assert refused.value.size == 6


@pytest.mark.parametrize("size", [5, 6, 7])
def test_a_second_history_is_refused_and_both_are_named(size: int) -> None:
    newest = HONEST.checkpoint(5)
    with pytest.raises((Conflict, LogDamaged)) as refused:
        judge(OTHER.submission(5, size), KEY, newest)
    assert STATUS[type(refused.value)] == (409 if size == 5 else 422)
    for checkpoint in (newest, OTHER.checkpoint(size)):
        assert f"{checkpoint.size} entries below {checkpoint.root.hex()}" in str(refused.value)


def test_histories_that_part_later_are_one_until_then() -> None:
    assert judge(OTHER.submission(3), KEY, HONEST.checkpoint(3)) == OTHER.checkpoint()


@pytest.mark.parametrize("change", ["drop", "add", "flip", "swap"])
def test_another_proof_than_the_one_is_refused(change: str) -> None:
    sent = HONEST.submission(3, 7)
    proof = list(sent.proof)
    match change:
        case "drop":
            proof.pop()
        case "add":
            proof.append(bytes(32))
        case "flip":
            proof[1] = bytes([proof[1][0] ^ 1, *proof[1][1:]])
        case _:
            proof[0], proof[1] = proof[1], proof[0]
    with pytest.raises(LogDamaged):
        judge(Submission(3, tuple(proof), sent.note), KEY, HONEST.checkpoint(3))


def test_a_checkpoint_by_another_key_is_refused() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
    key = VerifierKey("log.example.com", stranger.public_key().public_bytes_raw())
    note = sign_note(HONEST.checkpoint().body(), key, stranger.sign)
    with pytest.raises(BadSignature):
        judge(Submission(0, (), note), KEY, None)


def test_signatures_by_others_do_not_matter() -> None:
    sent = HONEST.submission(0)
    note = sent.note + WITNESS.line(bytes(72)) + "— log.example.com AAAAAAAA\n"
    assert judge(Submission(0, (), note), KEY, None) == HONEST.checkpoint()


Sent = tuple[bool, int, int]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 7)), max_size=40))
def test_all_that_a_witness_ever_cosigns_is_one_history(sent: list[Sent]) -> None:
    newest, seen = None, list[Checkpoint]()
    for other, old, size in sent:
        history = OTHER if other else HONEST
        with suppress(Conflict, LogDamaged, Malformed):
            newest = judge(history.submission(min(old, size), size), KEY, newest)
            seen.append(newest)
    assert [each.size for each in seen] == sorted(each.size for each in seen)
    assert any(all(each == history.checkpoint(each.size) for each in seen) for history in (HONEST, OTHER))


# ------------------------------------------------------------------ submissions

HASH: Final = b64encode(bytes(32)).decode()
NOTE: Final = HONEST.note()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "old 0\n",
        f"old 0\n{NOTE}",
        f"old\n\n{NOTE}",
        f"old 00\n\n{NOTE}",
        f"old -1\n\n{NOTE}",
        f"old +1\n\n{NOTE}",
        f"old 1 \n\n{NOTE}",
        f"old  1\n\n{NOTE}",
        f"Old 1\n\n{NOTE}",
        f"old 1\r\n\r\n{NOTE}",
        f"old ١\n\n{NOTE}",
        f"old {2**63}\n\n{NOTE}",
        f"old 1{'0' * 5000}\n\n{NOTE}",
        f"new 1\n\n{NOTE}",
        f"{HASH}\nold 1\n\n{NOTE}",
        f"old 1\n{HASH[:-1]}\n\n{NOTE}",
        f"old 1\n{HASH[:-2]}B=\n\n{NOTE}",
        f"old 1\n {HASH}\n\n{NOTE}",
        f"old 1\n{b64encode(bytes(31)).decode()}\n\n{NOTE}",
        f"old 1\n{b64encode(bytes(33)).decode()}\n\n{NOTE}",
        "old 1\n" + f"{HASH}\n" * (MOST_HASHES + 1) + f"\n{NOTE}",
    ],
    ids=lambda body: ascii(body)[:40],
)
def test_a_body_that_is_not_exactly_a_submission_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        Submission.parse(body.encode())


def test_bytes_that_are_not_text_are_malformed() -> None:
    with pytest.raises(Malformed):
        Submission.parse(b"old 1\n\n\xff")


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=MOST_HASHES), st.text())
def test_every_submission_survives_a_round_trip(old: int, proof: list[bytes], note: str) -> None:
    try:
        sent = Submission(old, tuple(proof), note).encode()
    except UnicodeEncodeError:
        return
    assert Submission.parse(sent) == Submission(old, tuple(proof), note)


@given(st.binary() | st.text(alphabet="old 0123456789\n=AQ").map(str.encode))
def test_whatever_is_read_is_written_the_same(body: bytes) -> None:
    with suppress(Malformed):
        assert Submission.parse(body).encode() == body


# --------------------------------------------------------- what a log makes of answers

SENT: Final = HONEST.submission(3)
TEXT: Final = HONEST.checkpoint().body()


def test_a_cosignature_is_taken_from_among_others() -> None:
    stranger = WitnessKey("stranger.example.com", log_key("x").public_key)
    answer = stranger.line(bytes(72)) + cosigned(TEXT)
    assert read_answer(SENT, WITNESS, 200, answer.encode()) == cosign(TEXT, WITNESS, 1_800_000_000, WITNESS_PRIVATE.sign)


@pytest.mark.parametrize("size", [0, 1, 4, 7, 1000])
def test_a_size_says_where_to_begin(size: int) -> None:
    assert read_answer(SENT, WITNESS, 409, f"{size}\n".encode()) == size


def test_another_root_of_the_same_size_is_another_history() -> None:
    with pytest.raises(AnotherHistory, match="7 entries with another root"):
        read_answer(HONEST.submission(7), WITNESS, 409, b"7\n")


def test_a_proof_that_the_witness_does_not_take_is_another_history() -> None:
    with pytest.raises(AnotherHistory, match="3 entries that are not those"):
        read_answer(SENT, WITNESS, 422, b"")


LIES: Final[dict[str, tuple[int, Callable[[], str]]]] = {
    "nothing": (200, lambda: ""),
    "only others": (200, lambda: WitnessKey("stranger.example.com", log_key("x").public_key).line(bytes(72))),
    "another checkpoint's": (200, lambda: cosigned(HONEST.checkpoint(6).body())),
    "zeros": (200, lambda: WITNESS.line(bytes(72))),
    "twice": (200, lambda: cosigned(TEXT) * 2),
    "no newline": (200, lambda: cosigned(TEXT).rstrip("\n")),
    "a page": (200, lambda: "<html></html>\n"),
    "too long": (200, lambda: cosigned(TEXT) + WITNESS.line(bytes(100)) * 2000),
    "redirect": (302, lambda: ""),
    "busy": (503, lambda: "busy"),
    "unknown log": (404, lambda: ""),
    "unknown key": (403, lambda: ""),
    "no size": (409, lambda: ""),
    "a size with words": (409, lambda: "7 entries\n"),
    "a size without newline": (409, lambda: "7"),
    "the same size again": (409, lambda: "3\n"),
    "an endless size": (409, lambda: "9" * 5000 + "\n"),
    "a size that no log has": (409, lambda: f"{2**63}\n"),
}


@pytest.mark.parametrize(("status", "body"), LIES.values(), ids=LIES.keys())
def test_other_answers_are_no_cosignature_and_no_alarm(status: int, body: Callable[[], str]) -> None:
    with pytest.raises(NoCosignature):
        read_answer(SENT, WITNESS, status, body().encode())


def test_an_answer_cannot_move_the_end_of_the_text() -> None:
    """A note's text ends at its last empty line: with one in the answer, the witness's line would be over another text."""
    longer = sign_note(TEXT, KEY, PRIVATE.sign) + "more\n"
    signature = WITNESS_PRIVATE.sign(f"cosignature/v1\ntime 5\n{longer}".encode())
    answer = f"more\n\n{WITNESS.line((5).to_bytes(8, 'big') + signature)}"
    with pytest.raises(NoCosignature):
        read_answer(SENT, WITNESS, 200, answer.encode())


def test_bytes_that_are_not_text_are_no_cosignature() -> None:
    with pytest.raises(NoCosignature, match="not UTF-8"):
        read_answer(SENT, WITNESS, 200, b"\xff")
