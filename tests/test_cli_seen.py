"""Every laptop is a witness: `jit-ssh login` believes no certificate without its proof, and no log that does not continue."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.checkpoint import open_checkpoint
from ca.proof import Proof
from cli.main import run
from cli.seen import LONGEST_ANSWER, MOST_EVIDENCE
from tests import keys
from tests.home import ORIGIN, Home, LyingCA, lying, make_home


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[LyingCA]:
    with lying(LyingCA(keys.make(tmp_path, name="ca"), keys.make(tmp_path, name="log"))) as running:
        yield running


@pytest.fixture
def believer(tmp_path: Path, ca: LyingCA, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Somebody who was set up for this CA, and has no agent."""
    home = make_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert run(["setup", ca.url, "--fingerprint", ca.trust.fingerprint, "--key", str(home.key)]) == 0
    return home


def installed(home: Home) -> bool:
    return "web-cert.pub" in home.files()


def other_root(proof: Proof) -> Proof:
    lines = proof.note.split("\n")
    return replace(proof, note=proof.note.replace(lines[2], "A" * 43 + "="))


PROOFS: dict[str, tuple[str, Callable[[Proof], Proof | None]]] = {
    "no proof": ("does not prove that it is in the log", lambda proof: None),
    "another index": ("not proven to be in the log", lambda proof: replace(proof, index=17)),
    "a hash too few": ("not proven to be in the log", lambda proof: replace(proof, path=proof.path[:-1])),
    "a hash too many": ("not proven to be in the log", lambda proof: replace(proof, path=(*proof.path, bytes(32)))),
    "another hash": ("not proven to be in the log", lambda proof: replace(proof, path=(bytes(32), *proof.path[1:]))),
    "another entry": ("not proven to be in the log", lambda proof: replace(proof, entry=proof.entry.replace(b"ana", b"bo"))),
    "a root that was not signed": ("signature", other_root),
    "a note of another log": ("no signature by", lambda proof: replace(proof, note=proof.note.replace(ORIGIN, "an.other.log"))),
}


@pytest.mark.parametrize("change", PROOFS)
def test_a_certificate_that_is_not_proven_to_be_in_the_log_is_not_installed(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    expected, ca.change_proof = PROOFS[change]
    assert run(["login", "web", "--for", "10m"]) == 1
    assert expected in capsys.readouterr().err
    assert not installed(believer)


def test_the_checkpoint_of_a_certificates_proof_is_remembered(believer: Home, ca: LyingCA) -> None:
    assert run(["login", "web", "--for", "10m"]) == 0
    remembered = open_checkpoint((believer.ours / "checkpoint").read_bytes(), ca.trust.verifier)
    assert (remembered.size, remembered.root) == (ca.size, ca.shown[0])


def test_a_log_that_only_grew_is_believed(believer: Home, ca: LyingCA) -> None:
    kept = believer.ours / "checkpoint"
    kept.write_text(ca.note(18, ca.tree(18)[0]))  # all before the certificate's own entry
    assert run(["login", "web", "--for", "10m"]) == 0
    assert open_checkpoint(kept.read_bytes(), ca.trust.verifier).size == ca.size


HISTORIES: dict[str, Callable[[LyingCA], None]] = {
    "an old copy": lambda ca: setattr(ca, "size", 25),
    "another history": lambda ca: setattr(ca, "history", b"forged"),
    "no proof that it continues": lambda ca: setattr(ca, "consistency", False),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_log_that_does_not_continue_what_was_seen_is_an_alarm_that_names_both_and_keeps_them(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], history: str
) -> None:
    seen = ca.note(30, ca.tree(30)[0])
    (believer.ours / "checkpoint").write_text(seen)
    HISTORIES[history](ca)
    assert run(["login", "web", "--for", "10m"]) == 1
    said = capsys.readouterr().err
    assert not installed(believer)
    assert f"a log of {ca.size} entries and root {ca.shown[0].hex()[:16]}" in said
    assert f"the log of 30 entries and root {open_checkpoint(seen, ca.trust.verifier).root.hex()[:16]}" in said
    evidence = json.loads(Path(re.findall(r"\S+evidence-\d+\.json", said)[0]).read_text())
    assert evidence["seen"] == seen
    assert open_checkpoint(evidence["shown"], ca.trust.verifier).root == ca.shown[0]
    assert (believer.ours / "checkpoint").read_text() == seen, "what was believed before stays what is believed"


def test_a_remembered_checkpoint_that_was_changed_asks_for_nothing(believer: Home, ca: LyingCA) -> None:
    (believer.ours / "checkpoint").write_text("forged")
    assert run(["login", "web", "--for", "10m"]) == 1
    assert ca.requests == []


def test_a_ca_that_contradicts_itself_again_and_again_does_not_fill_the_disk(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came first is kept, of an answer of 3 MB its beginning, and the person is told both."""
    (believer.ours / "checkpoint").write_text(ca.note(30, ca.tree(30)[0]))
    ca.history, ca.change_answer = b"forged", lambda answer: answer | {"more": "\0" * 600_000}  # six bytes each in JSON
    kept = set[Path]()
    for number in range(MOST_EVIDENCE + 2):
        capsys.readouterr()
        assert run(["login", "web", "--for", "10m"]) == 1
        said, found = capsys.readouterr().err, set(believer.ours.glob("evidence-*.json"))
        if number < MOST_EVIDENCE:
            [path] = found - kept
            assert f"Both checkpoints, and of the answer at most {LONGEST_ANSWER} bytes, are kept in {path}" in said
        else:
            assert found == kept
            assert f"These two are not kept: there are {MOST_EVIDENCE} files {believer.ours}/evidence-*.json" in said
            assert "Both checkpoints" not in said
        kept = found
    evidence = json.loads(min(kept).read_text())
    assert open_checkpoint(evidence["seen"], ca.trust.verifier).size == 30
    assert open_checkpoint(evidence["shown"], ca.trust.verifier).size == 40
    assert sum(path.stat().st_size for path in kept) < MOST_EVIDENCE * 7 * LONGEST_ANSWER
    assert not installed(believer)
