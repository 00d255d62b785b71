"""The log: an append-only Merkle tree of entries under signed checkpoints.

There is one way in, `append`. Whoever waits while another commits is committed with the next batch, so a durable write
(one fsync) is shared by all who came during the one before. The states a crash leaves:

- before the store's commit: nothing of the batch is there, and nobody was answered;
- after it: entries, nodes and checkpoint are all there, durable, and whoever asks again with the same statement is answered.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from threading import Condition, Lock
from typing import Final, Protocol

from ca import entry, merkle
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, sign_note
from ca.entry import AnyEntry
from ca.errors import ClockWentBack, JitSshError, LogDamaged, Malformed, SignerFailed
from ca.wire import Reader

Node = tuple[int, int, bytes]  # level, position, hash
_RESTORE: Final = "Restore the newest copy of the database; to see what differs, keep this one"


class Reading(Protocol):
    """What a store answers without a lock. Everything it gives was committed."""

    def size(self) -> int:
        """How many entries there are."""

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the entries from `start` up to `end`, in order, as many as there are."""

    def node(self, level: int, position: int) -> bytes:
        """A stored node's hash. Raises `LogDamaged` when it is not there."""

    def nodes(self, level: int) -> Iterator[bytes]:
        """All hashes of a level, in order."""

    def statement(self, statement_id: str) -> int | None:
        """The index of the entry that this statement caused."""

    def newest(self, kind: str) -> bytes | None:
        """The bytes of the newest entry of this kind."""

    def request(self, index: int) -> list[int]:
        """The entries that say how a request stands, as `ca.request.fold` wants them; empty if there is none at `index`.

        As cheap for the last of many that extend a grant as for the first.
        """

    def requests(self, person: str, role: str, since: int, *, most: int) -> list[int]:
        """The newest `most` of the person's `request` entries for the role since `since` (Unix milliseconds), newest first."""

    def newest_requests(self, since: int) -> list[int]:
        """The newest `request` entry of each person for each role since `since` (Unix milliseconds), newest first.

        No other one waits: whoever asks while one waits is refused.
        """

    def acted(self, person: str) -> bool:
        """Whether there is an entry that the person caused."""

    def locked(self) -> frozenset[str]:
        """Everybody who is locked out."""

    def lock(self, person: str) -> int | None:
        """The newest entry that locked or unlocked the person."""

    def checkpoint(self) -> str | None:
        """The newest checkpoint's note."""


class Writing(Reading, Protocol):
    """What the one writer may add, all of it or nothing."""

    def add(self, index: int, encoded: bytes, nodes: Iterable[Node]) -> None:
        """Appends one entry and the nodes that it completes."""

    def add_checkpoint(self, size: int, note: str) -> None:
        """Keeps the signed checkpoint of this size."""

    def add_files(self, files: Mapping[str, bytes]) -> None:
        """Keeps policy files by their SHA-256 in hexadecimal."""


class Store(Reading, Protocol):
    """Where a log lives."""

    def writing(self) -> AbstractContextManager[Writing]:
        """A transaction under the store's one lock, durable when the block ends, gone when it raises.

        Raises `LogUnwritable` when it cannot be made durable.
        """

    def remembered(self) -> str | None:
        """The newest checkpoint's note as kept outside the store, so that an old copy of the store is noticed."""


@dataclass(frozen=True)
class Tail:
    """Where the next entry goes: its index, its time in Unix milliseconds, and the entries so far.

    What the store says of them is believed as far as `checkpoint` proves it, or this transaction made it.
    """

    index: int
    time: int
    log: Writing
    checkpoint: Checkpoint | None  # over all entries before this transaction; None when there are none

    def caused_by(self, statement_id: str) -> AnyEntry | None:
        """The entry that this statement caused."""
        index = self.log.statement(statement_id)
        return None if index is None else self.entry(index)

    def entry(self, index: int) -> AnyEntry:
        """An entry that is there. Raises `LogDamaged` for another than was logged."""
        source = next(self.log.entries(index, index + 1), b"")
        if self.checkpoint is not None and index < self.checkpoint.size:
            size, root = self.checkpoint.size, self.checkpoint.root
            proof = merkle.inclusion_proof(index, size, self.log.node)
            merkle.verify_inclusion(merkle.leaf_hash(source), index, size, proof, root)
        return entry.decode(source)

    def newest(self, kind: str) -> AnyEntry | None:
        """The newest entry of this kind."""
        found = self.log.newest(kind)
        return None if found is None else self.entry(entry.decode(found).index)


Make = Callable[[Tail], Sequence[AnyEntry]]


class _Waiting:
    """One caller of `append`, its entries or its error."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.made: Sequence[AnyEntry] = ()
        self.error: BaseException | None = None
        self.answered = False


class Log:
    """A log in a store, with the key that signs its checkpoints. Safe to use from many threads."""

    def __init__(self, store: Store, key: VerifierKey, sign: Callable[[bytes], bytes], clock: Callable[[], int]) -> None:
        """`sign` gives SSH signature blobs by `key`'s private half; `clock` gives Unix milliseconds."""
        self.store = store
        self.key = key
        self._sign = sign
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._grown = Condition()
        self.released = False
        self._turn = Lock()  # held by whoever commits for all in the queue, and owns:
        self._newest: tuple[str, Checkpoint] | None = None  # the newest note that was seen, and what it says

    def wait(self, size: int, seconds: float) -> None:
        """Returns when the log has more than `size` entries by an append here, after so many seconds, or on `release`."""
        with self._grown:
            self._grown.wait_for(lambda: self.released or self.store.size() > size, seconds)

    def release(self) -> None:
        """Lets go whoever waits, and nobody waits any more: the program is about to stop."""
        with self._grown:
            self.released = True
            self._grown.notify_all()

    def append(self, make: Make) -> Sequence[AnyEntry]:
        """Appends the entries that `make` returns for the tail of the log; durable and under a checkpoint on return.

        Of what `make` returns, entries that are in the log already are passed through. What `make` raises is raised here,
        and appends nothing. Raises `LogUnwritable`, `ClockWentBack` or `SignerFailed`: then nothing was appended.
        """
        waiting = _Waiting(make)
        self._queue.append(waiting)
        with self._turn:
            if not waiting.answered:
                self._commit([self._queue.popleft() for _ in range(len(self._queue))])
        if waiting.error is not None:
            raise waiting.error
        return waiting.made

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            with self.store.writing() as writing:
                before = index = writing.size()
                time, checkpoint = self._time(writing, index), self._checkpoint(writing, index)
                for waiting in batch:
                    index = _make(waiting, Tail(index, time, writing, checkpoint))
                if index > before:
                    writing.add_checkpoint(index, self._signed(writing, index, checkpoint))
        except BaseException as error:  # of the store, the clock or the log key: nothing was committed, for anybody
            for waiting in batch:
                waiting.error = error
        finally:
            for waiting in batch:
                waiting.answered = True
            with self._grown:
                self._grown.notify_all()

    def _time(self, writing: Writing, size: int) -> int:
        time = self._clock()
        newest = entry.decode(next(writing.entries(size - 1, size))).time if size else 0
        if time < newest:
            raise ClockWentBack(
                f"the clock is {(newest - time) / 1000:.1f} s before the newest entry, so nothing is issued",
                "Set the clock of the CA's machine right",
            )
        return time

    def _checkpoint(self, writing: Writing, size: int) -> Checkpoint | None:
        """The checkpoint over the `size` entries that are there. Another process may have signed it."""
        note = writing.checkpoint()
        if size == 0 and note is None:
            return None
        if self._newest is None or self._newest[0] != note:
            self._newest = (note or "", self._opened(note))
        checkpoint = self._newest[1]
        if checkpoint.size != size:
            raise LogDamaged(f"the log has {size} entries, but its checkpoint is for {checkpoint.size}", _RESTORE)
        return checkpoint

    def _signed(self, writing: Writing, size: int, before: Checkpoint | None) -> str:
        """The note for `size` entries. No root is signed that does not continue the one before, whatever the store says."""
        root = merkle.root(size, writing.node)
        if before is not None:
            proof = merkle.consistency_proof(before.size, size, writing.node)
            merkle.verify_consistency(before.size, before.root, size, root, proof)
        checkpoint = Checkpoint(self.key.name, size, root)
        note = sign_note(checkpoint.body(), self.key, self._sign_raw)
        self._newest = (note, checkpoint)  # if this is not committed, the note in the store is another one, and is opened
        return note

    def _sign_raw(self, message: bytes) -> bytes:
        reader = Reader(self._sign(message), "the log key's signature")
        try:
            reader.string()
            return reader.string()
        except Malformed as error:
            raise SignerFailed(f"the log key made no signature: {error.message}") from error

    def check(self) -> Checkpoint | None:
        """The newest checkpoint, after comparing it with every entry, every node and what is remembered outside the store.

        None for a store without entries. Raises `LogDamaged`, naming what differs; constant memory. Others may append meanwhile.
        """
        remembered = self.store.remembered()  # first: it is written last
        note, size = self.store.checkpoint(), self.store.size()
        while note != (newer := self.store.checkpoint()):
            note, size = newer, self.store.size()
        if size == 0 and note is None and remembered is None:
            return None
        checkpoint = self._opened(note)
        if checkpoint.size != size:
            raise LogDamaged(f"the log has {size} entries, but its checkpoint is for {checkpoint.size}", _RESTORE)
        self._check_tree(checkpoint)
        self._check_remembered(remembered, size)
        return checkpoint

    def _opened(self, note: str | None) -> Checkpoint:
        if note is None:
            raise LogDamaged("the newest checkpoint is missing", _RESTORE)
        try:
            return open_checkpoint(note, self.key)
        except JitSshError as error:
            raise LogDamaged(
                f"the newest checkpoint is not one by this log's key: {error.message}",
                "Set origin and log_key to those that the log was begun with, or restore the newest copy of the database",
            ) from error

    def _check_tree(self, checkpoint: Checkpoint) -> None:
        frontier, leaves, index = merkle.Frontier(), self.store.nodes(0), 0
        for index, encoded in enumerate(self.store.entries(0, checkpoint.size)):
            leaf = merkle.leaf_hash(encoded)
            if leaf != next(leaves, None):
                raise LogDamaged(f"entry {index} is not the one that was logged: its hash differs", _RESTORE)
            frontier.append(leaf)
        if frontier.size != checkpoint.size:
            raise LogDamaged(f"entry {frontier.size} is missing", _RESTORE)
        if frontier.root() != checkpoint.root:
            raise LogDamaged("the entries do not add up to the root that was signed: some were changed together", _RESTORE)
        level = 0
        while checkpoint.size >> (level + 1):
            self._check_level(level, checkpoint.size)
            level += 1

    def _check_level(self, level: int, size: int) -> None:
        lower, upper, complete = self.store.nodes(level), self.store.nodes(level + 1), size >> (level + 1)
        found = 0
        for position, node in enumerate(islice(upper, complete)):
            left, right = next(lower, b""), next(lower, b"")
            if merkle.node_hash(left, right) != node:
                raise LogDamaged(f"node {position} of level {level + 1} is not the hash of its two children", _RESTORE)
            found = position + 1
        if found < complete:
            raise LogDamaged(f"node {found} of level {level + 1} is missing", _RESTORE)

    def _check_remembered(self, note: str | None, size: int) -> None:
        try:
            remembered = open_checkpoint(note or "", self.key)
        except JitSshError:  # whoever could spoil it could remove it as well: it is for accidents; clients are the witnesses
            return
        if remembered.size > size:
            raise LogDamaged(
                f"the log has {size} entries, but one of {remembered.size} was signed: this is an old copy",
                "Restore the newest copy of the database; what was issued since is missing here",
            )
        if merkle.root(remembered.size, self.store.node) != remembered.root:
            raise LogDamaged(f"the log is not the one that was signed at {remembered.size} entries: it was rewritten", _RESTORE)


def _make(waiting: _Waiting, tail: Tail) -> int:
    """Makes and adds one caller's entries; the index behind them. An error is that caller's alone."""
    try:
        made = waiting.make(tail)
        encoded = [(one.index, one.encode()) for one in made if one.index >= tail.index]
    except Exception as error:  # raised again in its own caller's thread; the others of the batch go on
        waiting.error = error
        return tail.index
    for index, source in encoded:
        tail.log.add(index, source, merkle.completed(index, merkle.leaf_hash(source), tail.log.node))
    waiting.made = made
    return tail.index + len(encoded)
