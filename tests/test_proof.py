"""Proofs that an entry is in the log (C2SP tlog-proof), and certificates that carry one: no part of them can be another.

FORMATS.md's worked example, which openssl checks, is the public judge of the sound one.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ca.certificate import LOG_PROOF, Certificate, SignedCertificate
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.cosignature import Quorum, WitnessKey, attach, cosign
from ca.entry import LARGEST, IssueEntry
from ca.errors import BadSignature, JitSshError, LogDamaged, Malformed, NotWitnessed
from ca.merkle import Frontier, Read, leaf_hash
from ca.proof import Proof, carried, prove, proven
from ca.trust import Trust
from ca.wire import string, u32
from tests.formats_example import CA_KEY, FRESH_KEY, LOG_KEY, NONCE, ORIGIN

KEY: Final = VerifierKey(ORIGIN, LOG_KEY.raw)
TRUST: Final = Trust(origin=ORIGIN, ca_keys=(CA_KEY.public_key.line,), log_key=str(KEY))
MOST: Final = 70
ENTRIES: Final = [b"entry %d" % index for index in range(MOST)]
SIZES: Final = st.integers(1, MOST)


@cache
def tree(size: int, last: bytes | None = None) -> tuple[bytes, Read]:
    """The root of a log of so many entries, the last of which may be another, and its nodes."""
    frontier, nodes = Frontier(), {}
    for source in [*ENTRIES[: size - 1], last or ENTRIES[size - 1]]:
        nodes.update({(level, position): hash_ for level, position, hash_ in frontier.append(leaf_hash(source))})
    return frontier.root(), lambda level, position: nodes[level, position]


@cache
def note(size: int, root: bytes) -> str:
    return sign_note(Checkpoint(ORIGIN, size, root).body(), KEY, lambda message: LOG_KEY.sign(message)[-64:])


def of_entry(index: int, size: int) -> Proof:
    root, read = tree(size)
    return prove(ENTRIES[index], index, size, read, note(size, root))


@st.composite
def proofs(draw: Any) -> Proof:
    size = draw(SIZES)
    return of_entry(draw(st.integers(0, size - 1)), size)


# ------------------------------------------------------------------- proofs


@given(proofs())
def test_a_proof_survives_its_text_and_verifies(proof: Proof) -> None:
    assert Proof.parse(proof.encode()) == proof
    assert proof.verify(KEY).size == proof.size


def accepted(text: str) -> Proof | None:
    """The proof in a text, if it is one and verifies."""
    try:
        proof = Proof.parse(text)
        proof.verify(KEY)
    except (Malformed, BadSignature, LogDamaged):
        return None
    return proof


@given(proofs(), st.data())
def test_no_beginning_of_a_proof_is_one(proof: Proof, data: st.DataObject) -> None:
    text = proof.encode()
    assert accepted(text[: data.draw(st.integers(0, len(text) - 1))]) is None


@given(proofs(), st.data())
def test_no_character_of_a_proof_can_be_another(proof: Proof, data: st.DataObject) -> None:
    text = proof.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("\n\r\0 +/=0129AZazé—").filter(lambda character: character != text[at]))
    assert accepted(text[:at] + other + text[at + 1 :]) is None


@given(proofs(), st.data())
def test_no_line_of_a_proof_can_be_left_out_repeated_or_swapped(proof: Proof, data: st.DataObject) -> None:
    lines = proof.encode().split("\n")
    at = data.draw(st.integers(0, len(lines) - 2))
    left_out, repeated = [*lines[:at], *lines[at + 1 :]], [*lines[: at + 1], *lines[at:]]
    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    for other in (left_out, repeated, swapped):
        assert other == lines or accepted("\n".join(other)) is None, other


@given(st.text(st.sampled_from("c2sp.org/tlog-proof@v1extraindex 0123=\n—"), max_size=120))
def test_text_is_a_proof_or_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Proof.parse(text)


HEAD: Final = "c2sp.org/tlog-proof@v1\nextra YQ==\nindex 0\n"
HASH: Final = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "is not a c2sp"),
        (HEAD, "is not a c2sp"),
        ("c2sp.org/tlog-proof@v1\nindex 0\n\n", "is not a c2sp"),  # sound for C2SP, and without the entry
        (HEAD.replace("@v1", "@v2") + "\n", "is not a c2sp"),
        (HEAD.replace("\n", "\r\n") + "\r\n", "is not a c2sp"),
        (HEAD.replace("YQ==", "YQ") + "\n", "base64"),
        (HEAD.replace("YQ==", "YR==") + "\n", "base64"),
        (HEAD.replace("index 0", "index 00") + "\n", "index"),
        (HEAD.replace("index 0", "index -1") + "\n", "index"),
        (HEAD.replace("index 0", "index ٠") + "\n", "index"),
        (HEAD.replace("index 0", f"index {2**63}") + "\n", "index"),
        (HEAD + "AAAA\n\n", "32 bytes"),
        (HEAD + f"{HASH}\n" * 64 + "\n", "levels"),
        ("a" * (2 * LARGEST + 64 * 63 + 131072 + 1), "characters, more than"),
    ],
)
def test_a_proof_has_one_spelling(text: str, because: str) -> None:
    Proof.parse(HEAD + f"{HASH}\n" * 63 + "\nwhatever")  # the note is read when it is verified
    with pytest.raises(Malformed, match=because):
        Proof.parse(text)


@given(proofs(), proofs())
def test_a_proof_proves_one_entry_at_one_place(proof: Proof, other: Proof) -> None:
    for other_proof in (replace(proof, entry=other.entry), replace(proof, index=other.index), replace(proof, path=other.path)):
        if other_proof != proof:
            with pytest.raises(LogDamaged):
                other_proof.verify(KEY)


@given(proofs(), SIZES)
def test_a_proof_fits_the_checkpoint_that_it_was_made_for(proof: Proof, size: int) -> None:
    other = replace(proof, note=note(size, tree(size)[0]))
    assert (accepted(other.encode()) is not None) == (size == proof.size)


def test_a_proof_is_under_the_logs_key_and_no_other() -> None:
    proof, stranger = of_entry(3, 7), VerifierKey(ORIGIN, FRESH_KEY.raw)
    renamed = VerifierKey("another.log", LOG_KEY.raw)
    for key in (stranger, renamed):
        with pytest.raises(BadSignature):
            proof.verify(key)


def test_where_witnesses_are_required_a_proof_needs_them() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    witness = WitnessKey("witness.example", private.public_key().public_bytes_raw())
    proof, quorum = of_entry(3, 7), Quorum((witness,), 1)
    with pytest.raises(NotWitnessed):
        proof.verify(KEY, quorum)
    line = cosign(proof.note.partition("\n\n")[0] + "\n", witness, 1, private.sign)
    witnessed = replace(proof, note=attach(proof.note, [line]))
    assert witnessed.verify(KEY, quorum) == witnessed.verify(KEY) == proof.verify(KEY)
    forged = replace(proof, note=proof.note + line.line.replace("A", "B", 1))
    with pytest.raises((BadSignature, Malformed, NotWitnessed)):
        forged.verify(KEY, quorum)


# ------------------------------------------------------------------- certificates


@dataclass(frozen=True)
class Issue:
    """A certificate of a log of so many entries, the last of which is its own."""

    size: int

    @property
    def bare(self) -> Certificate:
        return Certificate(
            key=FRESH_KEY.public_key,
            serial=self.size - 1,
            key_id="ana/web-admin/2",
            principals=("root@web",),
            valid_after=1_800_000_000,
            valid_before=1_800_001_000,
            force_command="uptime",
            permit=("port-forwarding", "pty"),
            ca_key=CA_KEY.public_key,
            nonce=NONCE,
        )

    @property
    def entry(self) -> IssueEntry:
        tbs = b64encode(self.bare.to_be_signed).decode()
        return IssueEntry(index=self.size - 1, time=1, actor="ana", role="web-admin", request=2, tbs=tbs)

    def proof(self, entry: IssueEntry | None = None) -> Proof:
        source = (entry or self.entry).encode()
        root, read = tree(self.size, source)
        return prove(source, self.size - 1, self.size, read, note(self.size, root))


ISSUE: Final = Issue(9)


def signed(certificate: Certificate) -> SignedCertificate:
    return SignedCertificate(certificate, CA_KEY.sign(certificate.to_be_signed))


def carrying(proof: Proof | None, bare: Certificate = ISSUE.bare) -> SignedCertificate:
    return signed(replace(bare, log_proof=None if proof is None else proof.encode()))


@given(st.integers(4, MOST))
def test_a_certificate_survives_with_its_proof(size: int) -> None:
    issue = Issue(size)
    made = carrying(issue.proof(), issue.bare)
    read = SignedCertificate.parse_line(made.line)
    assert read == made
    assert carried(read) == issue.proof()
    assert proven(read, TRUST).size == size
    assert read.certificate.bare == issue.bare
    assert read.certificate.bare.to_be_signed == issue.bare.to_be_signed


def changed(**members: Any) -> SignedCertificate:
    """Another certificate than the one whose proof it carries."""
    return carrying(ISSUE.proof(), replace(ISSUE.bare, **members))


OTHER: Final = "not the one that is in the log"
FORGED: Final[dict[str, tuple[str, Callable[[], SignedCertificate]]]] = {
    "no proof": ("does not prove", lambda: carrying(None)),
    "an empty proof": ("is not a c2sp", lambda: signed(replace(ISSUE.bare, log_proof=""))),
    "the proof of another certificate": ("another entry", lambda: carrying(Issue(12).proof())),
    "the proof of what is no entry": ("not JSON", lambda: carrying(of_entry(8, 9))),
    "an entry of another index": ("another entry", lambda: carrying(ISSUE.proof(replace(ISSUE.entry, index=7)))),
    "a log of one's own": ("signature", lambda: carrying(replace(ISSUE.proof(), note=own_note()))),
    "another serial": ("another entry", lambda: changed(serial=7)),
    "another principal": (OTHER, lambda: changed(principals=("root@db",))),
    "another key": (OTHER, lambda: changed(key=LOG_KEY.public_key)),
    "a longer life": (OTHER, lambda: changed(valid_before=1_800_002_000)),
    "no forced command": (OTHER, lambda: changed(force_command=None)),
    "one more permit": (OTHER, lambda: changed(permit=("agent-forwarding", *ISSUE.bare.permit))),
    "another nonce": (OTHER, lambda: changed(nonce=bytes(32))),
}


def own_note() -> str:
    """A checkpoint of the same name by another key."""
    key = VerifierKey(ORIGIN, FRESH_KEY.raw)
    body = Checkpoint(ORIGIN, ISSUE.size, tree(ISSUE.size, ISSUE.entry.encode())[0]).body()
    return sign_note(body, key, lambda message: FRESH_KEY.sign(message)[-64:])


@pytest.mark.parametrize("forged", FORGED)
def test_what_the_stolen_ca_key_signs_is_not_proven(forged: str) -> None:
    because, make = FORGED[forged]
    made = make()
    made.verify(CA_KEY.public_key)  # for sshd it is as good as any
    with pytest.raises(JitSshError, match=because):
        proven(SignedCertificate.parse_line(made.line), TRUST)


@given(st.data())
def test_no_bit_of_a_certificate_with_its_proof_can_be_another(data: st.DataObject) -> None:
    blob = bytearray(carrying(ISSUE.proof()).blob)
    at = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[at // 8] ^= 1 << at % 8
    with pytest.raises(JitSshError):  # never another exception
        _believe(bytes(blob))


def _believe(blob: bytes) -> None:
    found = SignedCertificate.parse(blob)
    proven(found, TRUST)
    found.verify(CA_KEY.public_key)


@given(st.data())
def test_no_beginning_of_a_certificate_with_its_proof_is_one(data: st.DataObject) -> None:
    blob = carrying(ISSUE.proof()).blob
    with pytest.raises(Malformed):
        SignedCertificate.parse(blob[: data.draw(st.integers(0, len(blob) - 1))])


PERMITS: Final = string("permit-port-forwarding") + string(b"") + string("permit-pty") + string(b"")


def with_extensions(packed: bytes) -> bytes:
    """The certificate's blob, signed, with these extensions."""
    tbs = ISSUE.bare.to_be_signed
    assert tbs.count(string(PERMITS)) == 1
    other = tbs.replace(string(PERMITS), string(packed))
    return other + string(CA_KEY.sign(other))


@pytest.mark.parametrize("place", ["twice", "behind the permits", "as a flag", "with bytes behind it", "under another name"])
def test_the_proof_stands_once_and_in_its_place(place: str) -> None:
    text = ISSUE.proof().encode()
    extension = string(LOG_PROOF) + string(string(text))
    assert SignedCertificate.parse(with_extensions(extension + PERMITS)) == carrying(ISSUE.proof())
    packed = {
        "twice": extension + extension + PERMITS,
        "behind the permits": PERMITS + extension,
        "as a flag": string(LOG_PROOF) + string(b"") + PERMITS,
        "with bytes behind it": string(LOG_PROOF) + string(string(text) + u32(0)) + PERMITS,
        "under another name": string("log-proof@other") + string(string(text)) + PERMITS,
    }[place]
    with pytest.raises(Malformed):
        SignedCertificate.parse(with_extensions(packed))


def test_the_proof_is_no_critical_option() -> None:
    options = string(string("force-command") + string(string("uptime")))
    both = string(string("force-command") + string(string("uptime")) + string(LOG_PROOF) + string(string(ISSUE.proof().encode())))
    tbs = ISSUE.bare.to_be_signed
    assert tbs.count(options) == 1
    with pytest.raises(Malformed, match="critical option"):
        Certificate.parse_to_be_signed(tbs.replace(options, both))
