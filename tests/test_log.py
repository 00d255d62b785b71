"""`ca.log`: one way in, shared commits, all or nothing; and a start that refuses every log but the one that was signed."""

import multiprocessing
import resource
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from ca.entry import OPERATOR, AnyEntry, PolicyEntry
from ca.errors import ClockWentBack, LogDamaged, LogUnwritable, Malformed, SignerFailed
from ca.log import Log, Make, Tail
from ca.signers.file import FileSigner
from ca.store.session import Session
from ca.store.sqlite import SqliteStore
from ca.wire import Reader, string
from tests import keys

NAME: Final = "ca.example.com"
START: Final = 1_800_000_000_000
UNLIMITED: Final = 1_073_741_823  # pages


class Opened:
    """A log of policy entries, its clock and its key."""

    def __init__(self, path: Path, key: FileSigner, *, create: bool = False) -> None:
        self.now = START
        self.sign: Callable[[bytes], bytes] = key.sign
        self.store = SqliteStore(path, create=create)
        raw = Reader(key.public_key.fields, "key").string()
        self.log = Log(self.store, VerifierKey(NAME, raw), self._sign, lambda: self.now)

    def _sign(self, message: bytes) -> bytes:
        return self.sign(message)

    def grow(self, entries: int = 1, text: str = "x") -> None:
        for _ in range(entries):
            self.log.append(note(text))

    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.store.checkpoint() or "", self.log.key)


def note(text: str = "x", count: int = 1) -> Make:
    """Makes entries that carry a text."""

    def make(tail: Tail) -> Sequence[AnyEntry]:
        return [
            PolicyEntry(index=tail.index + more, time=tail.time, actor=OPERATOR, files={"text": text}) for more in range(count)
        ]

    return make


def refuse(_tail: Tail) -> Sequence[AnyEntry]:
    raise Malformed("this caller's own mistake")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> FileSigner:
    return keys.make(tmp_path_factory.mktemp("log"), name="log")


@pytest.fixture
def opened(tmp_path: Path, key: FileSigner) -> Iterator[Opened]:
    made = Opened(tmp_path / "log.db", key, create=True)
    yield made
    made.store.close()


def all_at_once(opened: Opened, first: Make, others: Sequence[Make]) -> list[Sequence[AnyEntry] | BaseException]:
    """What `others` got when all of them were made to wait while `first` was being committed."""
    everybody_waits = threading.Event()

    def slow(tail: Tail) -> Sequence[AnyEntry]:
        assert everybody_waits.wait(20)
        return first(tail)

    def append(make: Make) -> Sequence[AnyEntry] | BaseException:
        try:
            return opened.log.append(make)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(others) + 1) as threads:
        leading = threads.submit(append, slow)
        until(lambda: opened.log._committing and not opened.log._queue)
        answers = []
        for make in others:
            answers.append(threads.submit(append, make))
            until(lambda: len(opened.log._queue) == len(answers))  # in this order
        everybody_waits.set()
        assert leading.result()
        return [answer.result() for answer in answers]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.0005)  # a queue has no event to wait for


# -------------------------------------------------------------------- appending


def test_what_is_appended_is_there_under_a_checkpoint_when_append_returns(opened: Opened) -> None:
    (entry,) = opened.log.append(note("hello"))
    assert list(opened.store.entries(0, 9)) == [entry.encode()]
    assert opened.checkpoint() == opened.log.check()
    assert opened.checkpoint().size == 1


def test_the_entries_of_one_caller_stand_together(opened: Opened) -> None:
    answers = all_at_once(opened, note(count=2), [note(str(count), count) for count in (1, 2, 3)])
    assert [[entry.index for entry in answer] for answer in answers if not isinstance(answer, BaseException)] == [
        [2],
        [3, 4],
        [5, 6, 7],
    ]
    opened.log.check()


def test_appending_nothing_makes_no_checkpoint(opened: Opened) -> None:
    assert opened.log.append(lambda _tail: []) == []
    assert opened.store.checkpoint() is None
    assert opened.log.check() is None


def test_an_entry_that_is_there_already_is_passed_through(opened: Opened) -> None:
    (first,) = opened.log.append(note())
    assert opened.log.append(lambda tail: [tail.entry(0)]) == [first]
    assert opened.store.size() == 1


def test_whoever_waits_while_another_commits_shares_the_next_commit(opened: Opened) -> None:
    answers = all_at_once(opened, note(), [note(str(number)) for number in range(20)])
    indexes = [entry.index for answer in answers if not isinstance(answer, BaseException) for entry in answer]
    assert sorted(indexes) == list(range(1, 21)), "all are answered, without a gap"
    with closing(sqlite3.connect(opened.store.path)) as connection:
        assert connection.execute("SELECT size FROM checkpoints").fetchall() == [(1,), (21,)], "20 callers, one commit"
    opened.log.check()


def test_many_threads_give_one_consistent_log(opened: Opened) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: opened.log.append(note(str(number))), range(120)))
    assert sorted(entry.index for answer in answers for entry in answer) == list(range(120))
    for number, (entry,) in enumerate(answers):
        assert isinstance(entry, PolicyEntry)
        assert entry.files == {"text": str(number)}, "each caller is answered with their own entry"
        assert next(opened.store.entries(entry.index, entry.index + 1)) == entry.encode()
    opened.log.check()


def append_from_a_process_of_its_own(directory: Path, count: int) -> None:
    opened = Opened(directory / "log.db", FileSigner(directory / "log", lambda _path: b""))
    opened.grow(count)


def test_two_processes_give_one_consistent_log(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "log.db", keys.make(tmp_path, name="log"), create=True)
    processes = [
        multiprocessing.get_context("spawn").Process(target=append_from_a_process_of_its_own, args=(tmp_path, 40))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        opened.grow()
        opened.log.check()
    assert [process.exitcode for process in processes] == [0, 0]
    assert opened.store.size() > 80
    opened.log.check()
    opened.store.close()


# --------------------------------------------------------------- all or nothing


def test_a_failing_caller_fails_alone(opened: Opened) -> None:
    answers = all_at_once(opened, note(), [note("before"), refuse, note("after")])
    assert isinstance(answers[1], Malformed)
    assert opened.store.size() == 3
    assert not isinstance(answers[0], BaseException)
    assert not isinstance(answers[2], BaseException)
    opened.log.check()


def test_an_entry_too_large_fails_its_own_caller_alone(opened: Opened) -> None:
    answers = all_at_once(opened, note(), [note("x" * 65_536), note("after")])
    assert isinstance(answers[0], Malformed)
    assert not isinstance(answers[1], BaseException)
    assert opened.store.size() == 2
    opened.log.check()


def test_of_two_entries_of_a_caller_both_are_logged_or_none(opened: Opened) -> None:
    def second_too_large(tail: Tail) -> Sequence[AnyEntry]:
        return [*note()(tail), *note("x" * 65_536)(replace(tail, index=tail.index + 1))]

    with pytest.raises(Malformed):
        opened.log.append(second_too_large)
    assert opened.store.size() == 0


@pytest.mark.parametrize(
    "sign",
    [
        lambda _message: b"",
        lambda _message: b"garbage",
        lambda _message: string("ssh-ed25519") + string(bytes(64)),
        lambda _message: string("ssh-ed25519") + string(b"short"),
    ],
)
def test_a_log_key_that_signs_wrongly_leaves_nothing(opened: Opened, sign: Callable[[bytes], bytes]) -> None:
    opened.grow(3)
    good, opened.sign = opened.sign, sign
    with pytest.raises(SignerFailed):
        opened.grow()
    assert opened.store.size() == 3
    opened.sign = good
    opened.grow()
    opened.log.check()


def test_a_log_key_that_is_gone_fails_everybody_and_leaves_nothing(opened: Opened) -> None:
    opened.grow(3)
    good = opened.sign

    def gone(_message: bytes) -> bytes:
        raise SignerFailed("the key is gone")

    def lose_the_key(tail: Tail) -> Sequence[AnyEntry]:
        opened.sign = gone
        return note()(tail)

    answers = all_at_once(opened, refuse, [note(), lose_the_key, refuse])
    assert [type(answer) for answer in answers] == [SignerFailed] * 3
    assert opened.store.size() == 3
    opened.sign = good
    opened.grow()
    opened.log.check()


def test_a_caller_that_is_torn_down_answers_nobody_with_what_was_not_committed(opened: Opened) -> None:
    def torn_down(_tail: Tail) -> Sequence[AnyEntry]:
        raise SystemExit

    waiting: list[BaseException | None] = []

    def append() -> None:
        try:
            opened.log.append(note())
            waiting.append(None)
        except BaseException as error:
            waiting.append(error)

    def first(tail: Tail) -> Sequence[AnyEntry]:
        for thread in others:
            thread.start()
        until(lambda: len(opened.log._queue) == 2)
        opened.log._queue.append(opened.log._queue.popleft())
        return note()(tail)

    def append_torn_down() -> None:
        with pytest.raises(SystemExit):
            opened.log.append(torn_down)

    others = [threading.Thread(target=append), threading.Thread(target=append_torn_down)]
    opened.log.append(first)
    for thread in others:
        thread.join()
    assert len(waiting) == 1
    assert opened.store.size() == (2 if waiting == [None] else 1)
    opened.log.check()


def test_a_lock_held_by_another_program_is_waited_for(opened: Opened) -> None:
    opened.grow()
    with closing(sqlite3.connect(opened.store.path, isolation_level=None)) as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN IMMEDIATE")
        waiting = threads.submit(opened.log.append, note())
        until(lambda: opened.log._committing and not opened.log._queue)
        other.execute("COMMIT")
        assert [entry.index for entry in waiting.result()] == [1]


def test_a_lock_that_is_never_released_issues_nothing_and_says_so(opened: Opened) -> None:
    opened.grow()
    opened.store._writer.db.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(opened.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnwritable, match="locked") as refused:
            opened.grow()
        assert "stop what holds the database" in refused.value.hint
        other.execute("ROLLBACK")
    opened.grow()
    assert opened.store.size() == 2
    opened.log.check()


def fill_up(opened: Opened) -> None:
    """From here on the database cannot grow: as on a full disk, SQLite answers SQLITE_FULL."""
    opened.store._writer.db.execute("PRAGMA max_page_count = 1")


def make_room(opened: Opened) -> None:
    opened.store._writer.db.execute(f"PRAGMA max_page_count = {UNLIMITED}")


def test_a_full_disk_fails_everybody_leaves_nothing_and_the_log_goes_on_afterwards(opened: Opened) -> None:
    opened.grow(3)
    fill_up(opened)
    answers = all_at_once(opened, refuse, [note("small"), note("x" * 60_000), note("small")])
    assert [type(answer) for answer in answers] == [LogUnwritable] * 3
    assert "Make room on the disk" in str(getattr(answers[0], "hint", ""))
    assert opened.store.size() == 3
    opened.log.check()
    make_room(opened)
    opened.grow(2)
    assert opened.store.size() == 5
    opened.log.check()


def test_a_full_disk_met_by_one_caller_alone_commits_nobody_elses_entry_half(opened: Opened) -> None:
    """SQLite then ends the transaction by itself: what the others add behind it must not be committed row by row."""

    def keep_a_large_file(tail: Tail) -> Sequence[AnyEntry]:
        tail.log.add_files({"large": bytes(500_000)})
        return note()(tail)

    opened.grow(3)
    fill_up(opened)
    answers = all_at_once(opened, refuse, [note("before"), keep_a_large_file, note("after")])
    assert [type(answer) for answer in answers] == [LogUnwritable] * 3
    assert opened.store.size() == 3
    opened.log.check()
    with pytest.raises(LogUnwritable):
        opened.log.append(keep_a_large_file)
    make_room(opened)
    opened.log.append(keep_a_large_file)
    opened.log.check()


def test_when_sqlite_ends_a_transaction_by_itself_nothing_behind_it_is_committed_alone(opened: Opened) -> None:
    def end_it(tail: Tail) -> Sequence[AnyEntry]:
        assert isinstance(tail.log, Session)
        tail.log._insert("INSERT OR ROLLBACK INTO entries (idx, entry) VALUES (?, '{\"index\":99}')", [(tail.index,)])
        return []

    opened.grow(3)
    answers = all_at_once(opened, refuse, [end_it, note("behind"), note("after")])
    assert [type(answer) for answer in answers] == [LogUnwritable] * 3
    assert opened.store.size() == 3
    opened.log.check()


def append_until_the_file_may_not_grow(directory: Path) -> None:
    opened = Opened(directory / "log.db", FileSigner(directory / "log", lambda _path: b""))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(LogUnwritable, match="disk I/O error"):
        opened.grow(100, "x" * 10_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(LogUnwritable, match="stopped after an error: disk I/O error"):
        opened.grow()


def test_after_an_error_of_the_disk_the_log_stops_until_a_new_start(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "log.db", keys.make(tmp_path, name="log"), create=True)
    opened.grow(3)
    process = multiprocessing.get_context("spawn").Process(target=append_until_the_file_may_not_grow, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert opened.store.size() > 3, "what was answered before is there"
    opened.log.check()
    opened.grow()
    opened.log.check()
    opened.store.close()


# -------------------------------------------------------------------- the clock


def test_a_clock_that_went_back_stops_the_log_until_it_is_right_again(opened: Opened) -> None:
    opened.grow()
    opened.now -= 1_500
    with pytest.raises(ClockWentBack, match=r"the clock is 1\.5 s before the newest entry, so nothing is issued"):
        opened.grow()
    assert opened.store.size() == 1
    opened.now += 1_500
    opened.grow()
    opened.log.check()


def test_a_clock_that_stands_still_is_fine(opened: Opened) -> None:
    opened.grow(2)
    assert opened.store.size() == 2


def test_one_millisecond_back_is_too_much(opened: Opened) -> None:
    opened.grow()
    opened.now -= 1
    with pytest.raises(ClockWentBack):
        opened.grow()


# ----------------------------------------------------------- the check at start

SEVEN: Final = 7
DAMAGES: Final = {
    "an entry changed": (
        ["UPDATE entries SET entry = replace(entry, 'text\":\"3', 'text\":\"4') WHERE idx = 3"],
        "entry 3 is not the one that was logged: its hash differs",
    ),
    "the newest entry changed": (
        ["UPDATE entries SET entry = replace(entry, 'text\":\"6', 'text\":\"4') WHERE idx = 6"],
        "entry 6 is not the one that was logged",
    ),
    "a leaf changed": (["UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND position = 5"], "entry 5 is not the one that"),
    "an entry and its leaf removed": (
        ["DELETE FROM entries WHERE idx = 6", "DELETE FROM nodes WHERE position = 6 AND level = 0"],
        "the log has 6 entries, but its checkpoint is for 7",
    ),
    "an entry in the middle removed": (["DELETE FROM entries WHERE idx = 2"], "entry 2 is not the one that was logged"),
    "the newest entry removed": (["DELETE FROM entries WHERE idx = 6"], "the log has 6 entries, but its checkpoint is for 7"),
    "all entries removed": (["DELETE FROM entries"], "the log has 0 entries, but its checkpoint is for 7"),
    "an entry added": (
        ["INSERT INTO entries (idx, entry) VALUES (7, '{\"index\":7}')"],
        "the log has 8 entries, but its checkpoint is for 7",
    ),
    "two entries swapped": (
        [
            "UPDATE entries SET idx = -1 WHERE idx = 2",
            "UPDATE entries SET idx = 2 WHERE idx = 4",
            "UPDATE entries SET idx = 4 WHERE idx = -1",
        ],
        "entry 2 is not the one that was logged",
    ),
    "an entry moved away": (["UPDATE entries SET idx = -5 WHERE idx = 0"], "entry 0 is not the one that was logged"),
    "a node changed": (
        ["UPDATE nodes SET hash = zeroblob(32) WHERE level = 1 AND position = 2"],
        "node 2 of level 1 is not the hash of its two children",
    ),
    "the top node changed": (["UPDATE nodes SET hash = zeroblob(32) WHERE level = 2"], "node 0 of level 2 is not the hash"),
    "a node removed": (["DELETE FROM nodes WHERE level = 1 AND position = 1"], "node 1 of level 1 is missing"),
    "the last node removed": (["DELETE FROM nodes WHERE level = 1 AND position = 2"], "node 2 of level 1 is missing"),
    "a level removed": (["DELETE FROM nodes WHERE level = 2"], "node 0 of level 2 is missing"),
    "a node moved": (["UPDATE nodes SET position = 3 WHERE level = 1 AND position = 2"], "node 2 of level 1 is missing"),
    "the checkpoint changed": (
        ["UPDATE checkpoints SET note = replace(note, char(10) || '7' || char(10), char(10) || '6' || char(10))"],
        "the newest checkpoint is not one by this log's key",
    ),
    "the newest checkpoint removed": (
        ["DELETE FROM checkpoints WHERE size = 7"],
        "the log has 7 entries, but its checkpoint is for 6",
    ),
    "an older checkpoint in its place": (
        [
            "UPDATE checkpoints SET size = 8 WHERE size = 6",
        ],
        "the log has 7 entries, but its checkpoint is for 6",
    ),
    "all checkpoints removed": (["DELETE FROM checkpoints"], "the newest checkpoint is missing"),
    "everything removed": (
        ["DELETE FROM entries", "DELETE FROM nodes", "DELETE FROM checkpoints"],
        "the newest checkpoint is missing",
    ),
}


@pytest.fixture
def seven(opened: Opened) -> Opened:
    """A log of seven entries that differ."""
    for number in range(SEVEN):
        opened.grow(text=str(number))
    return opened


def change(path: Path, *statements: str) -> None:
    """What somebody who controls the file can do: without the triggers and the constraints."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert connection.execute(statement).rowcount, "this test changes nothing"
        for _, sql in triggers:
            connection.execute(sql)


@pytest.mark.parametrize(("statements", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_log_that_was_changed_is_refused_and_the_place_is_named(seven: Opened, statements: list[str], message: str) -> None:
    change(seven.store.path, *statements)
    with pytest.raises(LogDamaged) as refused:
        seven.log.check()
    assert message in refused.value.message
    assert refused.value.hint


def test_an_entry_changed_together_with_its_nodes_is_refused(seven: Opened, tmp_path: Path, key: FileSigner) -> None:
    other = Opened(tmp_path / "other.db", key, create=True)
    for number in (0, 1, 2, 33, 4, 5, 6):
        other.grow(text=str(number))
    change(
        seven.store.path,
        f"ATTACH '{other.store.path}' AS other",
        "UPDATE entries SET entry = (SELECT entry FROM other.entries AS o WHERE o.idx = entries.idx)",
        "UPDATE nodes SET hash = (SELECT hash FROM other.nodes AS o WHERE o.level = nodes.level AND o.position = nodes.position)",
    )
    with pytest.raises(LogDamaged, match="do not add up to the root that was signed"):
        seven.log.check()
    other.store.close()


def test_an_untouched_log_passes_whoever_opens_it(seven: Opened, key: FileSigner) -> None:
    again = Opened(seven.store.path, key)
    assert again.log.check() == seven.log.check() == seven.checkpoint()
    again.store.close()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 255, 256, 257])
def test_an_untouched_log_of_any_size_passes(opened: Opened, size: int) -> None:
    opened.log.append(note(count=size))
    checked = opened.log.check()
    assert checked is not None
    assert checked.size == size


def test_a_log_of_another_key_or_another_name_is_refused(seven: Opened, tmp_path: Path) -> None:
    raw = Reader(keys.make(tmp_path, name="other").public_key.fields, "key").string()
    for key in (VerifierKey(NAME, raw), VerifierKey("other.example.com", seven.log.key.public_key)):
        with pytest.raises(LogDamaged, match="not one by this log's key") as refused:
            Log(seven.store, key, seven.sign, lambda: START).check()
        assert "Set origin and log_key" in refused.value.hint


def copied(opened: Opened, directory: Path) -> Path:
    """A copy of the database as a backup makes it, without what is remembered beside it."""
    path = directory / "copy.db"
    with closing(sqlite3.connect(opened.store.path)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
    return path


def test_an_old_copy_beside_the_newest_memory_is_refused(seven: Opened, tmp_path: Path, key: FileSigner) -> None:
    old = copied(seven, tmp_path)
    seven.grow(2)
    memory = seven.store.path.with_name("log.db.checkpoint")
    shutil.copy(memory, tmp_path / "copy.db.checkpoint")
    restored = Opened(old, key)
    with pytest.raises(LogDamaged, match="the log has 7 entries, but one of 9 was signed: this is an old copy"):
        restored.log.check()
    restored.store.close()


def test_the_newest_copy_is_taken(seven: Opened, tmp_path: Path, key: FileSigner) -> None:
    restored = Opened(copied(seven, tmp_path), key)
    shutil.copy(seven.store.path.with_name("log.db.checkpoint"), tmp_path / "copy.db.checkpoint")
    assert restored.log.check() == seven.checkpoint()
    restored.grow()
    restored.log.check()
    restored.store.close()


def test_a_log_that_went_another_way_since_is_refused(seven: Opened, tmp_path: Path, key: FileSigner) -> None:
    forked = Opened(copied(seven, tmp_path), key)
    seven.grow(2, "the way that was seen")
    forked.grow(3, "another way")
    forked.log.check()
    shutil.copy(seven.store.path.with_name("log.db.checkpoint"), tmp_path / "copy.db.checkpoint")
    with pytest.raises(LogDamaged, match="not the one that was signed at 9 entries: it was rewritten"):
        forked.log.check()
    forked.store.close()


@pytest.mark.parametrize("memory", [b"", b"garbage", b"\xff\x00"])
def test_a_spoiled_memory_is_no_reason_to_stop(seven: Opened, memory: bytes) -> None:
    seven.store.path.with_name("log.db.checkpoint").write_bytes(memory)
    assert seven.log.check() == seven.checkpoint()


def test_the_memory_is_the_newest_checkpoint(seven: Opened) -> None:
    assert seven.store.remembered() == seven.store.checkpoint()


def test_an_emptied_log_is_refused_because_of_what_is_remembered(seven: Opened, tmp_path: Path, key: FileSigner) -> None:
    shutil.copy(seven.store.path.with_name("log.db.checkpoint"), tmp_path / "empty.db.checkpoint")
    empty = Opened(tmp_path / "empty.db", key, create=True)
    with pytest.raises(LogDamaged, match="the newest checkpoint is missing"):
        empty.log.check()
    empty.store.close()


def test_a_file_with_bad_pages_is_refused_as_damaged(opened: Opened, key: FileSigner) -> None:
    opened.log.append(note("x" * 5_000, count=20))
    with closing(sqlite3.connect(opened.store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'nodes'").fetchone()[0]
    with opened.store.path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    again = Opened(opened.store.path, key)
    with pytest.raises(LogDamaged, match="malformed") as refused:
        again.log.check()
    assert "newest copy" in refused.value.hint
    again.store.close()


def test_a_log_that_grows_meanwhile_is_no_damaged_log(opened: Opened, key: FileSigner) -> None:
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            opened.grow()

    opened.grow()
    reader = Opened(opened.store.path, key)
    with ThreadPoolExecutor(1) as threads:
        growing = threads.submit(grow)
        try:
            sizes = [checked.size for _ in range(40) if (checked := reader.log.check())]
        finally:
            stop.set()
        growing.result()
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    reader.store.close()
