"""The break-glass journal: what was done with the emergency key cannot be taken out, put in or changed without showing."""

import base64
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.journal import FIRST_SERIAL, NAMESPACE, AnyLine, Drill, Use, decode, read
from ca.kit import Facts, Seal, Share, share_fingerprint
from ca.sshsig import SshSig, verifier
from tests import keys
from tests.formats_example import FixedKey
from tests.journals import NOW, Pen, facts

EMERGENCY, OTHER, ANA = FixedKey(9), FixedKey(10), FixedKey(3)
KIT = facts(EMERGENCY)


def told(journal: bytes, kit: Facts = KIT) -> tuple[AnyLine, ...]:
    return read(journal, kit.digest, verifier(EMERGENCY.public_key, NAMESPACE))


def refused(journal: bytes, kit: Facts = KIT) -> str:
    with pytest.raises(Malformed) as caught:
        told(journal, kit)
    return f"{caught.value.message}. {caught.value.hint}"


def written() -> Pen:
    """A refusal, a session with two certificates, and a drill."""
    pen = Pen(EMERGENCY, KIT)
    pen.refused()
    pen.begin()
    pen.use(ANA)
    pen.use(OTHER, person="bo")
    pen.refused(signed=True)
    pen.close(2)
    pen.begin(drill=True)
    pen.use(ANA, drill=True)
    pen.drilled()
    pen.close(1)
    return pen


def test_a_journal_is_read_as_it_was_written() -> None:
    pen = written()
    assert told(pen.journal) == tuple(pen.lines)
    assert told(b"") == ()
    assert [decode(line.encode()) for line in pen.lines] == pen.lines


def test_a_key_id_names_the_very_line() -> None:
    used = Pen(EMERGENCY, KIT).use(ANA)
    assert used.key_id == f"break-glass/ana/{used.digest[:16]}"
    assert replace(used, reason="another").key_id != used.key_id


def test_the_lines_are_signed_as_ssh_keygen_says(tmp_path: Path) -> None:
    line = Pen(EMERGENCY, KIT).begin()
    (tmp_path / "allowed").write_text(f"kit {EMERGENCY.public_key.line}\n")
    signature = SshSig.parse(base64.b64decode(line.signature or ""), NAMESPACE)
    (tmp_path / "line.sig").write_text(signature.armored)
    command = ["ssh-keygen", "-Y", "verify", "-n", "jit-ssh-break-glass", "-I", "kit", "-f", "allowed", "-s", "line.sig"]
    ran = subprocess.run(command, cwd=tmp_path, input=line.signed_bytes, capture_output=True, check=False)
    assert ran.returncode == 0
    ran = subprocess.run(command, cwd=tmp_path, input=line.encode(), capture_output=True, check=False)
    assert ran.returncode != 0


def test_what_ssh_keygen_signs_is_a_signature_of_a_line(tmp_path: Path) -> None:
    key = keys.make(tmp_path)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(tmp_path / "ed25519")]
    armored = subprocess.run(command, input=b"line", capture_output=True, check=True).stdout.decode()
    blob = base64.b64decode("".join(armored.splitlines()[1:-1]))
    verifier(key.public_key, NAMESPACE)(blob, b"line")
    with pytest.raises(Malformed, match="namespace"):
        verifier(key.public_key, "jit-ssh")(blob, b"line")


@pytest.mark.parametrize("at", range(9))
def test_a_line_taken_out_shows(at: int) -> None:
    lines = written().journal.splitlines(keepends=True)
    said = refused(b"".join(lines[:at] + lines[at + 1 :]))
    assert said.startswith(f"line {at + 1} of the journal: it does not continue")


def test_a_cut_end_shows_by_the_missing_close() -> None:
    lines = told(b"".join(written().journal.splitlines(keepends=True)[:-1]))
    assert lines[-1].TAG[1] == "drilled"


def test_a_line_cut_in_its_middle_shows() -> None:
    assert "line 10 of the journal has no end" in refused(written().journal[:-9])


def test_a_line_put_in_twice_or_at_another_place_shows() -> None:
    lines = written().journal.splitlines(keepends=True)
    assert "line 4 of the journal: it does not continue" in refused(b"".join([*lines[:3], lines[2], *lines[3:]]))
    assert "line 3 of the journal: it does not continue" in refused(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]))


def test_another_kits_journal_shows() -> None:
    assert "another kit's journal" in refused(written().journal, facts(EMERGENCY, made=NOW - 1))


@given(st.data())
def test_no_byte_can_be_another(data: st.DataObject) -> None:
    journal = bytearray(written().journal)
    at = data.draw(st.integers(0, len(journal) - 1))
    journal[at] ^= data.draw(st.integers(1, 255))
    refused(bytes(journal))


def test_whoever_has_not_the_key_writes_no_line_but_a_refusal() -> None:
    pen = Pen(EMERGENCY, KIT)
    pen.write(type(Pen(EMERGENCY, KIT).begin()), signed=False, **opening())
    assert "it is not signed by the emergency key" in refused(pen.journal)
    pen = Pen(OTHER, KIT)
    pen.begin()
    assert "the signature is by" in refused(pen.journal)


def opening() -> dict[str, Any]:
    return {"kit": KIT.digest, "host": "laptop", "version": "1", "drill": False, "shares": ()}


def _twice(pen: Pen) -> None:
    opened = pen.begin()
    pen.write(type(opened), **opening())


def _after_close(pen: Pen) -> None:
    pen.begin()
    pen.close(0)
    pen.use(ANA)


def _miscounted(pen: Pen) -> None:
    pen.begin()
    pen.use(ANA)
    pen.close(0)


def _mixed(pen: Pen) -> None:
    pen.begin(drill=True)
    pen.use(ANA)


def _drilled_nothing(pen: Pen) -> None:
    pen.begin(drill=True)
    pen.drilled()


def _other_kit(pen: Pen) -> None:
    pen.begin(kit="0" * 64)


def _back_in_time(pen: Pen) -> None:
    pen.begin()
    pen.time -= 3600
    pen.close(0)


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (lambda pen: pen.use(ANA), "its session has not begun"),
        (_twice, "its session has begun already"),
        (_after_close, "or is over"),
        (_miscounted, "it counts other certificates"),
        (_mixed, "a drill and a use are not of one session"),
        (_drilled_nothing, "there is no drill before it"),
        (_other_kit, "a line of another kit"),
        (_back_in_time, "older than the line before it"),
    ],
)
def test_a_line_out_of_its_sessions_order_is_refused(does: Callable[[Pen], None], words: str) -> None:
    pen = Pen(EMERGENCY, KIT)
    does(pen)
    assert words in refused(pen.journal)


@pytest.mark.parametrize(
    "changes",
    [
        {"person": "../ana"}, {"person": "Ana"}, {"principals": ()}, {"principals": ("root@web",)},
        {"principals": ("break-glass",)}, {"principals": ("break-glass@web,root@web",)}, {"reason": " "},
        {"reason": "a\x1b[2J"}, {"key": "k" * 501},
        {"serial": 2**62 - 1}, {"serial": 2**63}, {"valid_before": NOW + 3602}, {"valid_before": NOW}, {"valid_after": NOW + 60},
        {"before": "0"}, {"session": "z" * 32}, {"reason": "x" * 501}, {"time": -1},
    ],
)  # fmt: skip
def test_a_line_that_the_kit_would_not_write_cannot_be_built(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Pen(EMERGENCY, KIT).use(ANA, **changes)


@given(
    st.sampled_from([Use, Drill]), st.text("abc-_.9é\"\\", min_size=1, max_size=500), st.integers(FIRST_SERIAL, 2**63 - 1),
    st.integers(1, 3600),
)  # fmt: skip
def test_every_line_is_read_back(kind: type[Use | Drill], reason: str, serial: int, lives: int) -> None:
    line = Pen(EMERGENCY, KIT).use(ANA, drill=kind is Drill, reason=reason, serial=serial, valid_before=NOW + 1 + lives)
    assert decode(line.encode()) == line


# ------------------------------------------------------------------ the facts and the seal


def test_facts_are_read_back_and_named_by_their_hash() -> None:
    assert Facts.parse(KIT.encode()) == KIT
    assert KIT.digest != facts(EMERGENCY, people=("ana",)).digest
    with pytest.raises(Malformed):
        Facts.parse(KIT.encode()[:-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"longest": 3601}, {"longest": 0}, {"certificates": 0}, {"people": ("a b",)}, {"hosts": {"web prod": ("root",)}},
        {"hosts": {"web": ("root,x",)}}, {"ask": ("http://\x1b",)}, {"origin": "A B"}, {"made": -1}, {"quorum": 0},
        {"key": "x\ny"},
    ],
)  # fmt: skip
def test_facts_that_no_ca_would_write_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        facts(EMERGENCY, **changes)


def shares(*officers: str) -> tuple[Share, ...]:
    return tuple(Share(officer=name, fingerprint=share_fingerprint(f"{number} {name}")) for number, name in enumerate(officers))


@pytest.mark.parametrize(
    "changes",
    [
        {"quorum": 1}, {"quorum": 4}, {"shares_id": None}, {"shares": ()}, {"shares": shares("cy", "cy", "di")},
        {"shares": (*shares("cy", "di"), Share(officer="eve", fingerprint=share_fingerprint("0 cy")))},
        {"shares": shares(*(f"p{number}" for number in range(17)))}, {"key": "x\ny"},
    ],
)  # fmt: skip
def test_a_seal_that_could_not_be_opened_or_by_one_alone_is_refused(changes: dict[str, Any]) -> None:
    line = EMERGENCY.public_key.line
    given: dict[str, Any] = {"key": line, "quorum": 2, "shares": shares("cy", "di", "eve"), "shares_id": 1}
    Seal(**given)
    Seal(key=line, quorum=1, shares=())  # a security key
    with pytest.raises(Malformed):
        Seal(**given | changes)


def test_a_share_has_one_fingerprint_however_it_is_typed() -> None:
    assert share_fingerprint(" Academic  acid\n") == share_fingerprint("academic acid") != share_fingerprint("academic aid")
