"""A real `jit-ssh-ca witness serve`: asked over HTTP, by two processes on one file, and killed at random moments."""

import random
import resource
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.checkpoint import VerifierKey
from ca.cosignature import Quorum, WitnessKey, attach, received
from ca.errors import JitSshError
from ca.witness import Submission
from server import admin
from tests.histories import History, log_key
from tests.running import run
from tests.witnessing import NAME, Serving, made

RACES: Final = 100
KILLS: Final = 4
LOGS: Final = 40  # for each kill: about as many as are answered before it
OTHER_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"\3" * 32).public_key().public_bytes_raw()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("witness") / "w1"


@pytest.fixture(scope="module")
def key(directory: Path) -> WitnessKey:
    return made(directory)


@pytest.fixture(scope="module")
def witness(directory: Path, key: WitnessKey) -> Iterator[Serving]:
    del key  # made
    serving = Serving(directory)
    yield serving
    serving.stop()


def told(*arguments: str | Path) -> Result:
    """What a command says, in this process: most of the time of a real one is its start."""
    return CliRunner().invoke(admin.main, ["witness", *map(str, arguments)])


def refusal(*arguments: str | Path) -> str:
    """What a command that fails says."""
    refused = told(*arguments)
    assert (refused.exit_code, refused.stdout) == (1, ""), refused.output
    return refused.stderr


def fresh_log(directory: Path, origin: str) -> History:
    """A log that the witness knows and has not seen a checkpoint of."""
    added = told("add", directory, str(log_key(origin)))
    assert (added.exit_code, added.output) == (0, f"Watching {origin}.\n")
    return History(origin).grow("genesis", "policy", "a")


# ------------------------------------------------------------------ over HTTP


def test_a_log_gets_its_checkpoints_cosigned(witness: Serving, directory: Path, key: WitnessKey) -> None:
    log = fresh_log(directory, "grows.example.com")
    old = 0
    for leaf in ("b", "c", "d"):
        status, answer = witness.submit(log.submission(old))
        assert status == 200
        assert answer == received(log.note(), answer, key).line, "its line, and nothing else"
        Quorum((key,), 1).open(attach(log.note(), [received(log.note(), answer, key)]), log_key(log.origin))
        old = log.size
        log.grow(leaf)
    assert witness.submit(log.submission(old, old))[0] == 200, "who lost the answer asks again"


def test_each_refusal_has_the_status_of_the_specification(witness: Serving, directory: Path) -> None:
    log = fresh_log(directory, "refused.example.com")
    assert witness.submit(log.submission(0))[0] == 200
    other = History(log.origin).grow("genesis", "another", "history")
    assert witness.submit(log.submission(1)) == (409, "3\n"), "begins elsewhere"
    assert witness.submit(other.submission(3)) == (409, "3\n"), "another root"
    status, answer = witness.submit(other.fork("longer").submission(3))
    assert (status, answer.count("entries below")) == (422, 2), "both are named"
    assert witness.submit(History("stranger.example.com").grow("a").submission(0))[0] == 404
    unsigned = log.submission(3).encode().replace(b"\n3\n", b"\n4\n")
    assert witness.submit(unsigned)[0] == 403
    for body in (b"", b"old 3\n", b"old 4\n\n" + log.note().encode(), b"\xff"):
        assert witness.submit(body)[0] == 400
    assert witness.submit(bytes(70_000))[0] == 413
    assert witness.submit(log.submission(3, 3))[0] == 200, "nothing of that changed anything"


def test_a_size_is_said_in_its_content_type(witness: Serving, directory: Path) -> None:
    log = fresh_log(directory, "types.example.com")
    assert witness.submit(log.submission(0))[0] == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{witness.url}/add-checkpoint", log.submission(1).encode(), timeout=20)  # noqa: S310 - ours
    with refused.value as answer:
        assert (answer.code, answer.headers["Content-Type"], answer.read()) == (409, "text/x.tlog.size", b"3\n")


def test_two_roots_of_one_size_are_kept_as_evidence_and_shown(witness: Serving, directory: Path) -> None:
    log = fresh_log(directory, "split.example.com")
    other = History(log.origin).grow("genesis", "another", "history")
    assert witness.submit(log.submission(0))[0] == 200
    for junk in ("", "— a AAAAAAAA\n", "— b AAAAAAAA\n"):  # what anybody may add to a note makes it no other evidence
        sent = other.submission(3)
        assert witness.submit(Submission(3, sent.proof, sent.note + junk))[0] == 409
    with closing(sqlite3.connect(directory / "witness.db")) as db:
        kept = db.execute("SELECT note, cosigned FROM evidence WHERE origin = ?", [log.origin]).fetchall()
    assert kept == [(other.note(), log.note())]
    assert f"split.example.com: 3 entries below {log.checkpoint().root.hex()}\n  ALARM" in told("list", directory).output


def test_nobody_makes_a_contradiction_out_of_a_logs_own_checkpoints(witness: Serving, directory: Path) -> None:
    """Whoever has no log key can still send what the log signed, with another old size or a wrong proof."""
    log = fresh_log(directory, "replayed.example.com")
    assert witness.submit(log.submission(0))[0] == 200
    log.grow("b", "c")
    for old in (0, 1, 2, 4, 5):
        assert witness.submit(log.submission(old)) == (409, "3\n")
    assert witness.submit(Submission(3, (bytes(32),), log.note()))[0] == 422
    assert witness.submit(log.submission(3, 3))[0] == 200
    with closing(sqlite3.connect(directory / "witness.db")) as db:
        assert db.execute("SELECT count(*) FROM evidence WHERE origin = ?", [log.origin]).fetchone() == (0,)


# ---------------------------------------------------- at the same moment, and killed


def test_two_processes_on_one_file_cosign_one_history(witness: Serving, directory: Path) -> None:
    log = fresh_log(directory, "raced.example.com")
    beside = Serving(directory)
    assert witness.submit(log.submission(0))[0] == 200
    with ThreadPoolExecutor(2) as both:
        for race in range(RACES):
            old = log.size
            rivals = [log.fork(f"{race} one"), log.fork(f"{race} other", "longer")]
            answers = list(both.map(Serving.submit, (witness, beside), [rival.submission(old) for rival in rivals]))
            assert sorted(status for status, _ in answers) == [200, 409]
            won = next(rival for rival, answer in zip(rivals, answers, strict=True) if answer[0] == 200)
            assert {body for status, body in answers if status == 409} == {f"{won.size}\n"}
            log = won
    beside.stop()


class Attack:
    """Two histories of each of many logs, submitted at the same time; and which of the two the witness has cosigned."""

    def __init__(self, key: WitnessKey) -> None:
        self.key = key
        self.cosigned: dict[str, set[str]] = {}

    def submit(self, server: Serving, origin: str, leaf: str) -> None:
        """As a log does: whoever is told its own size asks again from there."""
        history = History(origin).grow("genesis", leaf)
        status, answer = server.submit(history.submission(0))
        if (status, answer) == (409, "2\n"):
            status, answer = server.submit(history.submission(2))
        if status == 200:
            received(history.note(), answer, self.key)
            self.cosigned.setdefault(origin, set()).add(leaf)

    def until_killed(self, server: Serving, origins: list[str], moment: float) -> None:
        """SIGKILL after so many seconds of it."""

        def insist(leaf: str) -> None:
            with suppress(OSError, HTTPException, JitSshError):  # the last: an answer that broke off
                for origin in origins:
                    self.submit(server, origin, leaf)

        threads = [threading.Thread(target=insist, args=(leaf,)) for leaf in ("one", "other")]
        threads.append(threading.Timer(moment, server.process.kill))
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        server.process.wait(20)


def test_no_kill_makes_a_witness_contradict_itself(tmp_path: Path) -> None:
    attack = Attack(made(tmp_path / "w"))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    server = Serving(tmp_path / "w")
    for kill in range(KILLS):
        origins = [f"log{kill}-{number}.example.com" for number in range(LOGS)]
        with closing(sqlite3.connect(tmp_path / "w" / "witness.db")) as db, db:
            db.executemany("INSERT INTO logs VALUES (?, ?)", [(origin, str(log_key(origin))) for origin in origins])
        attack.until_killed(server, origins, moments.uniform(0.01, 0.2))
        server = Serving(tmp_path / "w")
        for origin in origins:
            for leaf in ("other", "one"):
                attack.submit(server, origin, leaf)
    server.stop()
    assert sorted(len(leaves) for leaves in attack.cosigned.values()) == [1] * (KILLS * LOGS)


def test_a_witness_that_cannot_write_cosigns_nothing(tmp_path: Path) -> None:
    key = made(tmp_path / "w")
    log = History().grow("genesis", "policy")
    server = Serving(tmp_path / "w")
    assert server.submit(log.submission(0))[0] == 200
    written = (tmp_path / "w" / "witness.db-wal").stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (written, written))  # as a full disk would be
    log.grow("a")
    for _ in range(2):
        assert server.submit(log.submission(2))[0] == 503
    server.stop()
    again = Serving(tmp_path / "w")
    other = History().grow("genesis", "policy").fork("b")
    status, answer = again.submit(other.submission(2))
    assert status == 200, "it never said anything of the checkpoint that it could not keep"
    received(other.note(), answer, key)
    again.stop()


# -------------------------------------------------------------------- commands


def test_a_witness_is_made_once_and_whole(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()  # as systemd makes it
    init = run("witness", "init", tmp_path / "w", "--name", NAME)
    assert (init.code, init.out.splitlines()[0]) == (0, f"Made the witness {NAME} in {tmp_path / 'w'}."), init.err
    assert WitnessKey.parse(init.out.split()[-1]).name == NAME
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "w").iterdir()}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {"key.pub": 0o644, "witness.pub": 0o644}
    assert {"key", "witness.db"} <= modes.keys()
    before = (tmp_path / "w" / "key").read_bytes()
    assert "is there already" in refusal("init", tmp_path / "w", "--name", NAME)
    assert (tmp_path / "w" / "key").read_bytes() == before


def test_a_name_that_cannot_stand_in_a_note_makes_no_witness(tmp_path: Path) -> None:
    assert "cannot be named" in refusal("init", tmp_path / "w", "--name", "a b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["witness.db", "key", "witness.pub"])
def test_a_witness_without_its_memory_or_key_does_not_start(tmp_path: Path, name: str) -> None:
    made(tmp_path / "w")
    (tmp_path / "w" / name).unlink()
    said = refusal("serve", tmp_path / "w", "--listen", "127.0.0.1:0")
    assert ("hint: " in said, "ca.toml" in said) == (True, False)


def test_a_directory_without_a_witness_is_told_how_to_make_one(tmp_path: Path) -> None:
    assert "hint: Give the directory of a witness, or make one" in refusal("list", tmp_path / "nosuch")


def test_a_log_that_changed_its_key_is_another_log(directory: Path, key: WitnessKey) -> None:
    changed = VerifierKey("log.example.com", key.public_key)
    for given, why in (
        (str(log_key("log.example.com"))[:-2], "is not a log's key"),
        (str(key), "not Ed25519"),
        ("log.example.com", "is not a log's key"),
        (str(changed), "has this witness's own key"),
        (str(VerifierKey("log.example.com", OTHER_KEY)), "is known with the key log"),
    ):
        assert why in refusal("add", directory, given)
    assert told("add", directory, str(log_key("log.example.com"))).exit_code == 0, "again the same is no mistake"


def test_the_network_is_not_served_without_encryption(directory: Path, key: WitnessKey) -> None:
    del key
    assert "without encryption" in refusal("serve", directory, "--listen", "0.0.0.0:0")
