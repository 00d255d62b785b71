"""Somebody, or the disk, changes the files themselves: what verifying a copy says of it, and what a start does."""

import dataclasses
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest

from ca import verify
from ca.certificate import SignedCertificate
from ca.checkpoint import Checkpoint, open_checkpoint, sign_note
from ca.entry import AnyEntry, RefuseEntry
from ca.errors import JitSshError, LogDamaged
from ca.log import Log
from ca.merkle import Frontier, leaf_hash
from ca.signers.file import FileSigner
from ca.store.sqlite import SqliteCopy, SqliteStore
from ca.wire import Reader
from server import copies
from tests import keys
from tests.running import ORIGIN, Running, body, run
from tests.test_lifecycle import held
from tests.test_log import change
from tests.world import World

FLIPS: Final = 200
CUTS: Final = 40
SEED: Final = random.SystemRandom().randrange(2**32)
# Of the log of `lived`: 0 genesis, 1 policy, 2 request, 3 issue, 4 refuse, 5 request, 6 approve, 7 renew, 8 issue, 9 drop


@pytest.fixture
def lived(world: World) -> World:
    """A log with something of most kinds."""
    return live(world)


def live(world: World) -> World:
    """Lets something of most kinds happen."""
    world.ask("ana", role="dev")
    world.ask("bo")
    request = held(world)
    world.renew("bo", request)
    world.give_back("bo", "drop", request)
    return world


def copy(world: World, name: str = "copy.db") -> Path:
    """The world's database as one file, as a backup has it."""
    path = world.directory / name
    copies._copy_database(world.directory / "log.db", path)
    return path


def text_of(path: Path, index: int) -> str:
    with closing(sqlite3.connect(path)) as connection:
        [[text]] = connection.execute("SELECT entry FROM entries WHERE idx = ?", [index]).fetchall()
    return str(text)


# ---------------------------------------------------------------- row by row

CHANGES: Final = {
    "an entry changed": (
        ["UPDATE entries SET entry = replace(entry, 'INC-12', 'INC-13') WHERE idx = 4"],
        "entry 4 is not the one in the log's tree: the signature is not one by",
    ),
    "an entry changed where nobody signed": (
        ["""UPDATE entries SET entry = replace(entry, '"address":"127.0.0.1"', '"address":"127.0.0.2"') WHERE idx = 4"""],
        "entry 4 is not the one in the log's tree: something in it was changed",
    ),
    "an entry that is none": (
        ["UPDATE entries SET entry = '{}' WHERE idx = 6"],
        "entry 6 is not the one in the log's tree: the entry is of no known kind",
    ),
    "an entry deleted": (["DELETE FROM entries WHERE idx = 6"], "entry 6 is missing"),
    "the newest entry deleted": (["DELETE FROM entries WHERE idx = 9"], "the log has 9 entries, but its checkpoint is for 10"),
    "an entry inserted": (
        [
            "UPDATE entries SET idx = -idx WHERE idx > 4",
            "INSERT INTO entries (idx, entry) SELECT 5, replace(entry, '-', '_') FROM entries WHERE idx = 4",
            "UPDATE entries SET idx = 1 - idx WHERE idx < 0 AND idx > -9",
        ],
        "entry 5 is not the one in the log's tree: it calls itself 4",
    ),
    "two entries swapped": (
        [
            "UPDATE entries SET idx = -1 WHERE idx = 2",
            "UPDATE entries SET idx = 2 WHERE idx = 5",
            "UPDATE entries SET idx = 5 WHERE idx = -1",
        ],
        "entry 2 is not the one in the log's tree: it calls itself 5",
    ),
    "a node changed": (
        ["UPDATE nodes SET hash = zeroblob(32) WHERE level = 2 AND position = 1"],
        "node 1 of level 2 is not the hash of its two children",
    ),
    "a node deleted": (["DELETE FROM nodes WHERE level = 3"], "node 0 of level 3 is missing"),
    "an old checkpoint changed": (
        ["UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 5) WHERE size = 4"],
        "the checkpoint at 4 entries: it is for 5 entries",
    ),
    "an old checkpoint by somebody else": (
        ["UPDATE checkpoints SET note = replace(note, char(10) || '4' || char(10), char(10) || '5' || char(10)) WHERE size = 4"],
        "the checkpoint at 4 entries: the signature by ca.example.com/jit-ssh does not fit",
    ),
    "a policy file changed": (
        ["UPDATE policy_files SET content = CAST(content || ' ' AS BLOB) WHERE CAST(content AS TEXT) LIKE '%auditors%'"],
        "entry 1: its guardrails.toml was changed",
    ),
    "a policy file deleted": (
        ["DELETE FROM policy_files WHERE CAST(content AS TEXT) LIKE '%[people.ana]%'"],
        "entry 1: its people.toml is not there",
    ),
}


@pytest.mark.parametrize(("statements", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_copy_is_refused_and_the_first_wrong_place_is_named(lived: World, statements: list[str], message: str) -> None:
    path = copy(lived)
    assert copies.check_copy(path)[1].entries == 10
    change(path, *statements)
    with pytest.raises(LogDamaged) as refused:
        copies.check_copy(path)
    assert message in refused.value.message


# ------------------------------------------------- by who holds the log's key


def rewrite(world: World, path: Path, entries: list[AnyEntry]) -> None:
    """Makes `path` a log of these entries, with the stolen log key: the tree and every checkpoint fit."""
    frontier, key = Frontier(), world.ca.log.key

    def sign(message: bytes) -> bytes:
        reader = Reader(world.log_signer.sign(message), "signature")
        reader.string()
        return reader.string()

    change(path, "DELETE FROM nodes", "DELETE FROM checkpoints", "DELETE FROM entries")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for each in entries:
            source = each.encode()
            connection.execute("INSERT INTO entries (idx, entry) VALUES (?, ?)", [each.index, source.decode()])
            connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", frontier.append(leaf_hash(source)))
            note = sign_note(Checkpoint(key.name, frontier.size, frontier.root()).body(), key, sign)
            connection.execute("INSERT INTO checkpoints VALUES (?, ?)", [frontier.size, note])


def test_the_stolen_log_key_puts_no_words_into_anybodys_mouth(lived: World) -> None:
    path, entries = copy(lived), lived.entries()
    refused = entries[4]
    assert isinstance(refused, RefuseEntry)
    entries[4] = dataclasses.replace(refused, statement=refused.statement.replace("INC-12", "INC-13"))
    rewrite(lived, path, entries)
    with pytest.raises(LogDamaged, match=r"^entry 4: the signature is not one by SHA256:"):
        copies.check_copy(path)


def test_what_the_stolen_log_key_can_rewrite_is_seen_by_whoever_remembers_a_checkpoint(lived: World) -> None:
    """The CA's own word (an address, what it observed) and the end of the log: that is what clients and witnesses are for."""
    seen = open_checkpoint(lived.store.checkpoint() or "", lived.ca.log.key)
    refused = lived.entries()[4]
    assert isinstance(refused, RefuseEntry)
    moved = dataclasses.replace(refused, address="192.0.2.1")
    for entries, told in (
        ([*lived.entries()[:4], moved, *lived.entries()[5:]], "the first 10 entries are not those that this machine has seen"),
        (lived.entries()[:9], "the log has 9 entries, but this machine has seen 10: an old copy was restored"),
    ):
        path = copy(lived, f"copy{len(entries)}.db")
        rewrite(lived, path, entries)
        assert copies.check_copy(path)[1].entries == len(entries), "the file alone does not show it"
        with closing(SqliteCopy(path)) as rewritten:
            checkpoint = open_checkpoint(rewritten.checkpoint() or "", lived.ca.log.key)
            leaves, sources = rewritten.nodes(0), enumerate(rewritten.entries(0, len(entries)))
            with pytest.raises(LogDamaged, match=told):
                verify.verify(lived.ca.trust, checkpoint, leaves, sources, seen)


# ---------------------------------------------------------------- bit by bit


LOG: Final = ("SELECT idx, entry FROM entries", "SELECT * FROM nodes", "SELECT max(size), note FROM checkpoints")
HISTORY: Final = ("SELECT * FROM checkpoints", "SELECT * FROM policy_files")


def content(path: Path, *tables: str) -> object:
    """What stands in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(f"{each} ORDER BY 1, 2").fetchall() for each in tables]


def test_no_flipped_bit_of_a_copy_passes_as_another_log(lived: World) -> None:
    print(f"seed {SEED}")
    chance, path = random.Random(SEED), copy(lived)  # noqa: S311 - places, not secrets
    whole, before, found = path.read_bytes(), content(path, *LOG, *HISTORY), 0
    for _ in range(FLIPS):
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            copies.check_copy(path)
        except JitSshError:
            found += 1
        else:
            assert content(path, *LOG, *HISTORY) == before, f"bit {bit} of byte {at}: it verifies, and says something else"
    assert found > FLIPS // 20, "some bits matter"


def test_no_flipped_bit_is_served_as_another_log(lived: World) -> None:
    print(f"seed {SEED}")
    chance, path = random.Random(SEED + 1), copy(lived)  # noqa: S311 - places, not secrets
    whole, before = path.read_bytes(), content(path, *LOG)
    for _ in range(FLIPS // 4):
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            store = SqliteStore(path)
        except JitSshError:
            continue
        try:
            start(lived, store)
            assert content(path, *LOG) == before, f"bit {bit} of byte {at}: it starts, and says something else"
        except JitSshError:
            pass
        finally:
            store.close()


def start(world: World, store: SqliteStore) -> Checkpoint | None:
    """What a CA does before it serves."""
    return Log(store, world.ca.log.key, world.log_signer.sign, lambda: int(world.now * 1000)).check()


# ---------------------------------------------------------------- cut by cut


def test_what_was_answered_is_in_a_cut_write_ahead_log_or_the_start_refuses(lived: World) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED + 2)  # noqa: S311 - places, not secrets
    names = ("log.db", "log.db-wal", "log.db.checkpoint")
    kept = {name: (lived.directory / name).read_bytes() for name in names}  # as a power cut leaves them
    size, whole, outcomes = lived.store.size(), kept["log.db-wal"], set()
    places = [len(whole), len(whole) - 1, 0, *(chance.randrange(len(whole)) for _ in range(CUTS))]
    for number, at in enumerate(places):
        directory = lived.directory / f"cut{number}"
        directory.mkdir()
        for name, there in kept.items():
            (directory / name).write_bytes(there[:at] if name.endswith("-wal") else there)
        outcomes.add(_after_a_cut(lived, directory / "log.db", size))
        shutil.rmtree(directory)
    assert outcomes == {"all", "refused"}


def _after_a_cut(world: World, path: Path, size: int) -> str:
    try:
        store = SqliteStore(path)
    except JitSshError:
        return "refused"
    with closing(store):
        if store.size() < size:
            with pytest.raises(LogDamaged, match=r"this is an old copy|the newest checkpoint is missing"):
                start(world, store)
            return "refused"
        checkpoint = start(world, store)
        assert checkpoint is not None
        assert checkpoint.size == size
        return "all"


# --------------------------------------------------- servers, and a full disk


@pytest.fixture
def ana(tmp_path: Path) -> FileSigner:
    return keys.make(tmp_path, name="ana")


def initialised(directory: Path, ana: Path) -> Path:
    """A new CA in which Ana may have the role `dev`."""
    made = run("init", directory, "--origin", ORIGIN, "--person", "ana", "--key", ana)
    assert made.code == 0, made.err
    return directory


def test_two_servers_on_one_file_make_one_log(tmp_path: Path, ana: FileSigner) -> None:
    ca = initialised(tmp_path / "ca", tmp_path / "ana.pub")
    servers = [Running(ca), Running(ca)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: servers[number % 2].ask(body(ana, ana)), range(16)))
    assert [server.stops() for server in servers] == [0, 0]
    assert [status for status, _ in answers] == [201] * 16, answers
    assert len({serial(answer) for _, answer in answers}) == 16
    whole(ca, answers)


def serial(answer: Mapping[str, Any]) -> int:
    return SignedCertificate.parse_line(answer["certificate"]).certificate.serial


def whole(directory: Path, answers: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """The log verifies, and has what was answered."""
    verified = run("log", "verify", directory)
    assert verified.code == 0, verified.err
    with closing(SqliteCopy(directory / "jit-ssh.db")) as copied:
        size = copied.size()
    assert all(status != 201 or serial(answer) < size for status, answer in answers)


@pytest.mark.root
def test_a_disk_that_fills_up_issues_nothing_more_and_loses_nothing(tmp_path: Path, ana: FileSigner) -> None:
    """A real disk, of two MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    with ExitStack() as ending:
        ending.callback(subprocess.run, ["umount", str(disk)], check=True)
        ca = initialised(disk / "ca", tmp_path / "ana.pub")
        (disk / "ballast").write_bytes(bytes(2**20))
        with (ca / "ca.toml").open("a") as file:
            file.write("reserve = 0\nstatements_per_minute = 100000\n")
        server, answers = Running(ca), list[tuple[int, dict[str, Any]]]()
        ending.callback(server.kill)
        server.log.unlink()  # what it tells of itself needs room, too, and goes on into a file without a name
        while not answers or answers[-1][0] == 201:
            answers.append(server.ask(body(ana, ana)))
            assert len(answers) < 2000
        status, problem = answers[-1]
        assert (status, problem["code"]) == (503, "log-unwritable"), problem
        whole(ca, answers)
        (disk / "ballast").unlink()
        answers.append(server.ask(body(ana, ana)))
        assert answers[-1][0] == 201, answers[-1]
        assert server.stops() == 0
        whole(ca, answers)


def test_after_a_failed_fsync_nothing_is_answered_until_a_new_start(tmp_path: Path, ana: FileSigner) -> None:
    """The kernel says once that it could not write: strace says so in its place, to the real server."""
    ca, trace = initialised(tmp_path / "ca", tmp_path / "ana.pub"), tmp_path / "trace"
    server = Running(ca)
    answers = [server.ask(body(ana, ana))]
    failing = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1"]
    with subprocess.Popen(["strace", "-f", "-qq", "-o", str(trace), *failing, "-p", str(server.process.pid)]) as tracing:
        _until_traced(server.process.pid)
        answers += [server.ask(body(ana, ana)) for _ in range(3)]
        tracing.terminate()
    assert "EIO" in trace.read_text()
    assert [status for status, _ in answers] == [201, 503, 503, 503], answers
    assert "the log stopped after an error" in answers[-1][1]["detail"]
    server.kill()
    server = Running(ca)
    answers.append(server.ask(body(ana, ana)))
    assert answers[-1][0] == 201
    assert server.stops() == 0
    whole(ca, answers)


def _until_traced(pid: int) -> None:
    """Until every thread of the process is traced: that has no event to wait for."""
    deadline = time.monotonic() + 20
    while any("TracerPid:\t0" in each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/status")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
