"""Two jit-ssh of one machine at once: what both were shown is of one log, whoever of them keeps it first."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import pytest

from ca.certificate import SignedCertificate
from ca.checkpoint import open_checkpoint
from ca.errors import NotFound
from ca.merkle import Read
from ca.proof import carried
from ca.tiles import Tile
from cli import files, seen
from cli.client import Address, exchange
from cli.directory import Directory
from cli.main import run
from cli.problems import SplitView, Unreachable
from cli.seen import Seen
from tests import keys
from tests.home import PATIENCE, Answer, Home, LyingCA, lying, make_home, served_ca

ROLE = """about = "A test"
owner = "sre"
review_by = 2099-01-01
principals = ["root@web"]
default_duration = "10m"
max_duration = "1h"
[[allow]]
groups = ["sre"]
"""
HOSTS = '[groups.web]\nabout = "Web"\nhosts = ["web-1"]\n'


@dataclass
class TwoFaced(LyingCA):
    """A CA that issues each certificate from a log of its own, with the next of these sizes: their 19th entries differ."""

    sizes: list[int] = field(default_factory=list)
    tiles: bool = True
    turn: Lock = field(default_factory=Lock)

    def issue(self, body: bytes, seen: int | None = None) -> bytes:
        with self.turn:
            one = LyingCA(self.signer, self.log, size=self.sizes.pop(0))
            answer = one.issue(body, seen)
            self.serve(one.size, one.shown[1])
            return answer

    def serve(self, size: int, read: Read) -> None:
        """Serves the tile of a log of this size."""
        tile = Tile(0, 0, size)
        hashes = b"".join(read(level, position) for level, position in tile.nodes())
        missing: Answer = 404, {}, json.dumps({"code": NotFound.code, "detail": f"{tile} is not there, or not yet"}).encode()
        self.answers[f"/log/{tile}"] = lambda: (200, {}, hashes) if self.tiles else missing
        self.answers[f"/log/{Tile(0, 0)}"] = lambda: missing

    def seen(self, size: int, entry: bytes = b"") -> Seen:
        """What its log of this size is."""
        note = self.note(size, self.tree(size, entry)[0])
        return Seen(open_checkpoint(note, self.trust.verifier), note)


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[TwoFaced]:
    made = TwoFaced(keys.make(tmp_path, name="ca"), keys.make(tmp_path, name="log"))
    with lying(made):
        yield made


@pytest.fixture
def believer(tmp_path: Path, ca: TwoFaced, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Somebody who was set up for this CA, and has no agent."""
    home = make_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert run(["setup", ca.url, "--fingerprint", ca.trust.fingerprint, "--key", str(home.key)]) == 0
    return home


def race(home: Home, are_answered: Callable[[], bool], *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Runs a process for each command: their exit codes, and what they said. None can keep what it is shown before all are."""
    with ExitStack() as running:
        with files.locked(home.ours):
            processes = [running.enter_context(home.started(*command)) for command in commands]
            deadline = time.monotonic() + PATIENCE
            while not are_answered():
                assert time.monotonic() < deadline, "they did not ask"
                time.sleep(0.02)
        return [(process.end(), process.said) for process in processes]


@pytest.mark.parametrize("tiles", [True, False], ids=["with tiles", "without tiles"])
@pytest.mark.parametrize("sizes", [(40, 40), (40, 44)], ids=["of one size", "of two sizes"])
@pytest.mark.parametrize("before", [None, 18], ids=["never seen", "seen"])
def test_of_two_histories_that_two_processes_are_shown_at_once_one_is_kept_and_the_other_is_an_alarm(
    believer: Home, ca: TwoFaced, sizes: tuple[int, int], before: int | None, tiles: bool
) -> None:
    if before:
        (believer.ours / "checkpoint").write_text(ca.seen(before).note)  # both histories continue it
    ca.sizes, ca.tiles = list(sizes), tiles
    login = ("login", "web", "--for", "10m")
    believed, refused = sorted(race(believer, lambda: not ca.sizes, login, login))
    assert (believed[0], refused[0]) == (0, 1), believed + refused
    assert "that another jit-ssh on this machine saw meanwhile" in refused[1]
    [path] = believer.ours.glob("evidence-*.json")
    evidence, kept = json.loads(path.read_text()), (believer.ours / "checkpoint").read_text()
    assert evidence["seen"] == kept, "of the log whose certificate is installed"
    one, other = (open_checkpoint(evidence[which], ca.trust.verifier) for which in ("seen", "shown"))
    assert sorted([one.size, other.size]) == sorted(sizes)
    assert one.root != other.root
    assert all(f"root {each.root.hex()[:16]}" in refused[1] for each in (one, other))
    installed = SignedCertificate.parse_line((believer.ours / "web-cert.pub").read_text())
    assert carried(installed).note == kept


def test_two_processes_that_are_shown_one_log_both_get_their_certificate_and_the_larger_is_kept(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    public = home.key.with_suffix(".pub").read_text().strip()
    people = f'[groups]\nsre = "On call"\nsecurity = "Auditors"\n[people.ana]\ngroups = ["sre"]\nkeys = ["{public}"]\n'
    roles = {f"roles/{name}.toml": ROLE for name in ("web", "db", "dns")}
    with served_ca(tmp_path / "ca", people, {"hosts.toml": HOSTS, "guardrails.toml": 'auditors = ["security"]\n'} | roles) as ca:
        assert home.run("setup", ca.url, "--fingerprint", ca.fingerprint).returncode == 0
        address = Address.parse(ca.url)

        def size() -> int:
            return int(exchange(address, "GET", "/log/checkpoint").split(b"\n")[1])

        assert home.run("login", "dns").returncode == 0
        before = size()
        done = race(home, lambda: size() >= before + 4, ("login", "web"), ("login", "db"), ("log", "verify"))
        assert [code for code, _ in done] == [0, 0, 0], done
        assert (home.ours / "checkpoint").read_bytes().split(b"\n")[1] == b"%d" % (before + 4)
        assert {"web-cert.pub", "db-cert.pub"} <= home.files()
        assert not list(home.ours.glob("evidence-*"))


@pytest.mark.parametrize(("kept", "now"), [(18, 40), (40, 18), (40, 40)])
def test_the_larger_of_two_checkpoints_is_kept_and_only_with_the_proof(believer: Home, ca: TwoFaced, kept: int, now: int) -> None:
    directory, address, key = Directory(believer.ours), Address.parse(ca.url), ca.trust.verifier
    seen.remember(directory, address, key, None, ca.seen(kept))
    ca.serve(40, ca.tree(40)[1])
    for _ in range(2):
        seen.remember(directory, address, key, None, ca.seen(now))
        assert seen.newest(directory, key) == ca.seen(40)
    with pytest.raises(SplitView, match=f"a log of {now} entries .* the log of 40 entries"):
        seen.remember(directory, address, key, None, replace(ca, history=b"forged").seen(now))
    assert seen.newest(directory, key) == ca.seen(40)


def test_a_ca_that_is_not_there_for_the_proof_changes_nothing(believer: Home, ca: TwoFaced) -> None:
    directory, key = Directory(believer.ours), ca.trust.verifier
    gone = Address.parse("http://127.0.0.1:1")
    seen.remember(directory, gone, key, None, ca.seen(18))
    with pytest.raises(Unreachable):
        seen.remember(directory, gone, key, None, ca.seen(40))
    assert seen.newest(directory, key) == ca.seen(18)
    assert not list(believer.ours.glob("evidence-*")), "nothing contradicts anything"


def test_what_two_witnesses_cosigned_is_no_other_log(believer: Home, ca: TwoFaced) -> None:
    directory, key, one = Directory(believer.ours), ca.trust.verifier, ca.seen(40)
    gone = Address.parse("http://127.0.0.1:1")
    seen.remember(directory, gone, key, None, one)
    seen.remember(directory, gone, key, None, replace(one, note=one.note + "— witness AAAAAAAA\n"))
    assert seen.newest(directory, key) == one
