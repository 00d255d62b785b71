"""`jit-ssh log proof`: what it prints proves the entry to whoever has the log's key, and what does not is never believed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.checkpoint import open_checkpoint
from ca.entry import IssueEntry
from ca.merkle import Frontier, Read, leaf_hash
from ca.proof import Proof, prove
from ca.tiles import Tile
from cli.client import Address
from cli.main import run
from cli.tiles import Nodes, leaves
from tests import keys
from tests.home import ORIGIN, Home, LyingCA, lying, make_home

SIZE = 40
ENTRY = IssueEntry(index=18, time=1_800_000_000_000, actor="ana", role="web", request=17, tbs="AA==").encode()


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[LyingCA]:
    """A CA that shows a log of forty entries, the 19th of which is ana's."""
    made = LyingCA(keys.make(tmp_path, name="ca"), keys.make(tmp_path, name="log"))
    with lying(made) as running:
        shows(running, *made.tree(SIZE, ENTRY))
        yield running


def shows(ca: LyingCA, root: bytes, read: Read, size: int = SIZE) -> None:
    tile = Tile(0, 0, size)
    hashes = b"".join(read(level, position) for level, position in tile.nodes())
    page = json.dumps({"entries": [ENTRY.decode()], "more": True, "size": size}).encode()
    for path, content in {
        f"/log/{tile}": hashes,
        "/log/checkpoint": ca.note(size, root).encode(),
        "/v1/log/entries": page,
    }.items():
        ca.answers[path] = lambda content=content: (200, {}, content)  # type: ignore[misc]


@pytest.fixture
def reader(tmp_path: Path, ca: LyingCA, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = make_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert run(["setup", ca.url, "--fingerprint", ca.trust.fingerprint, "--key", str(home.key)]) == 0
    return home


@pytest.fixture
def printed(reader: Home, capsys: pytest.CaptureFixture[str]) -> str:
    """What `log proof 18` prints."""
    capsys.readouterr()
    assert run(["log", "proof", "18"]) == 0
    return capsys.readouterr().out


def test_what_is_printed_is_a_proof_of_the_entry_by_the_logs_key(printed: str, ca: LyingCA) -> None:
    proof = Proof.parse(printed)
    assert proof.verify(ca.trust.verifier).size == SIZE
    assert (proof.entry, proof.index) == (ENTRY, 18)


def test_a_proof_is_printed_in_its_parts(printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    proof = Proof.parse(printed)
    assert run(["log", "proof", "18", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "index": 18,
        "entry": json.loads(ENTRY),
        "leaf": leaf_hash(ENTRY).hex(),
        "path": [step.hex() for step in proof.path],
        "note": proof.note,
    }


def test_the_checkpoint_of_a_proof_is_remembered(printed: str, reader: Home, ca: LyingCA) -> None:
    remembered = (reader.ours / "checkpoint").read_text()
    assert printed.endswith(remembered)
    assert open_checkpoint(remembered, ca.trust.verifier).size == SIZE


def test_a_proof_is_checked_without_the_ca(
    printed: str, reader: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca.answers.clear()
    (file := tmp_path / "x.tlog-proof").write_text(printed)
    assert run(["log", "proof", "--check", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"entry 18 is in the log of {ORIGIN}, below a checkpoint that its key signed\n")
    assert "issue by ana, 2027-01-15 08:00:00 UTC" in said
    assert run(["log", "proof", "--check", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["origin"], told["size"], told["index"], told["entry"]["actor"]) == (ORIGIN, SIZE, 18, "ana")


def test_a_proof_is_read_from_standard_input(printed: str, reader: Home) -> None:
    done = reader.run("log", "proof", "--check", "-", typed=printed)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, f"entry 18 is in the log of {ORIGIN}")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda proof: replace(proof, index=19), "not proven to be in the log"),
        (lambda proof: replace(proof, entry=proof.entry.replace(b"ana", b"bob")), "not proven to be in the log"),
        (lambda proof: replace(proof, path=proof.path[:-1]), "not proven to be in the log"),
        (lambda proof: replace(proof, note=proof.note.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n")), "signature"),
        (lambda proof: replace(proof, note=proof.note.replace(ORIGIN, "an.other.log")), "no signature by"),
    ],
)
def test_a_proof_that_was_changed_proves_nothing(
    printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Proof], Proof], because: str
) -> None:
    (file := tmp_path / "x.tlog-proof").write_text(change(Proof.parse(printed)).encode())
    assert run(["log", "proof", "--check", str(file)]) == 1
    told = capsys.readouterr()
    assert because in told.err
    assert told.out == ""


@pytest.mark.usefixtures("reader")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert run(["log", "proof", "--check", str(path)]) == 1
        assert f"{path} cannot be read" in capsys.readouterr().err


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"c2sp.org/tlog-proof@v1\n", b"ssh-ed25519 AAAA", b"x" * 600_000])
def test_what_is_no_proof_is_a_plain_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (file := tmp_path / "x").write_bytes(content)
    assert run(["log", "proof", "--check", str(file)]) == 1
    assert capsys.readouterr().err.startswith("jit-ssh: error: ")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("arguments", [[], ["18", "--check", "x"], ["--json"], ["-1"], ["eighteen"]])
def test_it_is_an_entry_or_a_file(arguments: list[str]) -> None:
    assert run(["log", "proof", *arguments]) == 2


@pytest.mark.usefixtures("reader")
def test_a_number_that_no_log_has_is_no_entry(ca: LyingCA, capsys: pytest.CaptureFixture[str]) -> None:
    ca.answers.clear()  # it is not asked
    assert run(["log", "proof", "9" * 23]) == 1
    assert f"there is no entry {'9' * 23}" in capsys.readouterr().err


def test_a_log_entry_that_says_another_place_is_told(
    reader: Home, ca: LyingCA, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = ENTRY.replace(b'"index":18', b'"index":17')
    root, read = ca.tree(SIZE, elsewhere)
    (file := tmp_path / "x").write_text(prove(elsewhere, 18, SIZE, read, ca.note(SIZE, root)).encode())
    assert run(["log", "proof", "--check", str(file)]) == 1
    assert "entry 18 of the log says that it is entry 17" in capsys.readouterr().err


def test_an_installed_certificate_is_checked_by_its_own_proof(
    reader: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["login", "web", "--for", "10m"]) == 0
    path = reader.ours / "web-cert.pub"
    assert run(["log", "proof", "--check", str(path)]) == 0
    assert "serial 18, exactly as in the entry" in capsys.readouterr().out
    stranger = LyingCA(keys.make(reader.path, name="stranger"), ca.log)
    asked = json.loads(stranger.issue(ca.requests[-1]))
    path.write_text(asked["certificate"])
    assert run(["log", "proof", "--check", str(path)]) == 1
    assert "which this machine does not believe" in capsys.readouterr().err


LIES: dict[str, tuple[str, Callable[[LyingCA], None]]] = {
    "another entry": (
        "not proven to be in the log",
        lambda ca: shows(ca, *ca.tree(SIZE, ENTRY.replace(b"ana", b"bob"))),
    ),
    "a root that was not signed": (
        "signature",
        lambda ca: ca.answers.update({"/log/checkpoint": lambda: (200, {}, ca.note(SIZE, bytes(32)).replace("A", "B").encode())}),
    ),
    "no tiles": ("tile", lambda ca: ca.answers.update({f"/log/tile/0/000.p/{SIZE}": lambda: (200, {}, b"")})),
    "an old checkpoint": ("not yet under", lambda ca: shows(ca, *ca.tree(10), size=10)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_ca_that_lies_gets_no_proof_printed(reader: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], lie: str) -> None:
    because, change = LIES[lie]
    change(ca)
    capsys.readouterr()
    assert run(["log", "proof", "18"]) != 0
    told = capsys.readouterr()
    assert because in told.err
    assert told.out == ""
    assert not (reader.ours / "checkpoint").exists()


@pytest.mark.parametrize("history", ["another", "longer"])
def test_a_proof_from_a_log_that_does_not_continue_what_was_seen_is_an_alarm(
    reader: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], history: str
) -> None:
    size = 30 if history == "another" else 50
    seen = ca.note(size, Frontier().root() if history == "another" else ca.tree(size, ENTRY)[0])
    (reader.ours / "checkpoint").write_text(seen)
    capsys.readouterr()
    assert run(["log", "proof", "18"]) == 1
    told = capsys.readouterr()
    assert f"which does not continue the log of {size} entries" in told.err
    assert told.out == ""
    assert (reader.ours / "checkpoint").read_text() == seen
    assert list(reader.ours.glob("evidence-*.json"))


def test_a_log_that_only_grew_is_believed(reader: Home, ca: LyingCA) -> None:
    (reader.ours / "checkpoint").write_text(ca.note(30, ca.tree(30, ENTRY)[0]))
    assert run(["log", "proof", "18"]) == 0
    assert open_checkpoint((reader.ours / "checkpoint").read_bytes(), ca.trust.verifier).size == SIZE


def test_every_node_of_a_long_log_is_found_in_its_tiles_and_each_tile_is_fetched_once(ca: LyingCA) -> None:
    size, frontier, nodes, fetched = 66_000, Frontier(), {}, list[str]()
    for index in range(size):
        nodes.update({(level, position): hash_ for level, position, hash_ in frontier.append(leaf_hash(b"%d" % index))})

    def serve(tile: Tile) -> None:
        content = b"".join(nodes[node] for node in tile.nodes())
        ca.answers[f"/log/{tile}"] = lambda: (fetched.append(str(tile)), (200, {}, content))[1]  # type: ignore[func-returns-value]

    tiles = {Tile.over(level, position, size) for level in range(3) for position in range(0, size >> 8 * level, 256)}
    for tile in tiles:
        serve(tile)
    source = Nodes(Address.parse(ca.url), size)
    wanted = {**dict(list(nodes.items())[:: size // 60]), **{node: hash_ for node, hash_ in nodes.items() if node[0] > 9}}
    assert {node: source.read(*node) for node in wanted} == wanted
    assert len(fetched) == len(set(fetched))
    serve(Tile(0, 2, 188))
    assert list(leaves(Address.parse(ca.url), 700)) == [nodes[0, index] for index in range(700)]
