"""The log: an append-only Merkle tree of entries under signed checkpoints.

There is one way in, `append`. Whoever waits while another commits is committed with the next batch, so a durable write
(one fsync) is shared by all who came during the one before. The states a crash leaves:

- before the store's commit: nothing of the batch is there, and nobody was answered;
- after it: entries, nodes and checkpoint are all there, durable, and whoever asks again with the same statement is answered.

Between two commits the log remembers where it stands (`ca.batch`), so that an append reads nothing that depends on its size.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from threading import Condition, Lock
from typing import Final, Protocol

from ca import merkle
from ca.batch import RESTORE, Batch, Grown, Make, Memory, Tail
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, sign_note
from ca.entry import AnyEntry
from ca.errors import ClockWentBack, JitSshError, LogDamaged, Malformed, SignerFailed
from ca.merkle import Frontier, Node
from ca.proof import Proof, prove
from ca.request import LONGEST_CASE
from ca.storage import Reading, Store, Writing
from ca.wire import Reader

_LATELY: Final = 8  # commits whose entries are proven without reading the store

__all__ = ["Log", "Made", "Make", "Memory", "Node", "Reading", "Store", "Tail", "Writing"]


class Witnesses(Protocol):
    """Others who watch the log, and cosign its checkpoints."""

    @property
    def required(self) -> bool:
        """Whether a certificate has to wait for them."""

    def demand_one_history(self) -> None:
        """Raises `LogDamaged` when one of them has seen more of this log than there is, or another one. At once."""

    def cosigned(self, size: int) -> str | None:
        """The note over at least `size` entries that as many as are required have cosigned, with their cosignatures.

        Waits for them; None when none is required. Raises `NotWitnessed` when they do not, and `LogDamaged`.
        """

    def published(self) -> str | None:
        """The note that everybody is shown, with the cosignatures that there are. At once."""


Made = Sequence[AnyEntry] | BaseException  # what became of one `Make`: its entries, or why there are none


class _Waiting:
    """One caller of `append`, and what became of each of its calls."""

    def __init__(self, makes: Sequence[Make]) -> None:
        self.makes = makes
        self.made: list[Made] = []
        self.answered = False
        self.turn = Lock()  # held until it is answered, or has to commit for all who wait
        self.turn.acquire()


class Log:
    """A log in a store, with the key that signs its checkpoints. Safe to use from many threads."""

    def __init__(self, store: Store, key: VerifierKey, sign: Callable[[bytes], bytes], clock: Callable[[], int]) -> None:
        """`sign` gives SSH signature blobs by `key`'s private half; `clock` gives Unix milliseconds."""
        self.store = store
        self.key = key
        self._sign = sign
        self._clock = clock
        self.witnesses: Witnesses | None = None  # set once, before the first append
        self._grown = Condition()
        self.released = False
        self._queueing = Lock()  # owns:
        self._queue: deque[_Waiting] = deque()
        self._committing = False  # whether somebody is, who owns:
        self._memory: Memory | None = None
        self._damaged: LogDamaged | None = None  # until the next start, which looks at all of it
        self._grown_lately: deque[Grown] = deque(maxlen=_LATELY)  # whoever was answered asks for proofs of it next

    def cosigned(self, size: int) -> str | None:
        """The note over at least `size` entries with the cosignatures that are required; None when none are.

        What is proven to others is proven against it. Waits for the witnesses, outside every lock. Raises `NotWitnessed`: what
        was appended stays, and is answered when it is asked for again and they are there.
        """
        return None if self.witnesses is None else self.witnesses.cosigned(size)

    def published(self) -> str | None:
        """The checkpoint's note that everybody is shown."""
        return self.store.checkpoint() if self.witnesses is None else self.witnesses.published()

    def proof(self, index: int) -> Proof:
        """That the entry is in the log: under the checkpoint of its own commit, or the newest one that enough witnesses cosigned.

        Raises `NotWitnessed` while they have not, and `LogDamaged` for an entry that is not the one that was logged.
        """
        note = self.cosigned(index + 1)
        grown = next((each for each in self._grown_lately.copy() if each.start <= index < each.size), None)
        if note is None and grown is not None:
            return prove(grown.entries[index], index, grown.size, grown.read, grown.note)
        note = note or self.store.checkpoint_over(index)
        checkpoint, source = self._opened(note), next(self.store.entries(index, index + 1), b"")
        proof = prove(source, index, checkpoint.size, self.store.node, note or "")
        proof.verify_inclusion(checkpoint)
        return proof

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The hashes that show that the log of `new` entries continues that of `old`; none where it cannot (RFC 9162 §2.1.4)."""
        return merkle.consistency_proof(old, new, self.store.node) if 0 <= old <= new <= self.store.size() else []

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
        and appends nothing. Raises `LogUnwritable`, `ClockWentBack` or `SignerFailed`: then nothing was appended; `LogDamaged`,
        too, while a witness has seen another history than this one.
        """
        [made] = self.append_all([make])
        if isinstance(made, BaseException):
            raise made
        return made

    def append_all(self, makes: Sequence[Make]) -> list[Made]:
        """Appends like `append`, one after the other and in one commit, and returns what that would return or raise."""
        if not makes:
            return []
        try:
            if self.witnesses is not None:
                self.witnesses.demand_one_history()
        except LogDamaged as damaged:
            return [damaged] * len(makes)
        waiting = _Waiting(makes)
        with self._queueing:
            self._queue.append(waiting)
            waits, self._committing = self._committing, True
        if waits:
            waiting.turn.acquire()
        if not waiting.answered:
            self._commit_all()
        return waiting.made

    def _commit_all(self) -> None:
        """Commits for everybody who waits, oneself among them; the first who came meanwhile goes on with the next batch."""
        with self._queueing:
            batch, self._queue = self._queue, deque()
        try:
            self._commit(batch)
        finally:
            for waiting in batch:
                waiting.answered = True
                waiting.turn.release()
            with self._queueing:
                self._committing = bool(self._queue)
                if self._queue:
                    self._queue[0].turn.release()
            with self._grown:
                self._grown.notify_all()

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            with self.store.writing() as writing:
                added = Batch(self._known(writing), writing, self._clock())
                self._check_clock(added)
                for waiting in batch:
                    waiting.made = [_made(make, added) for make in waiting.makes]
                signed = self._signed(added) if added.grew else None
            # Only now is what was made remembered. A crash of this thread before it is like another process's commit.
            if signed is None:
                self._memory = added.added_nothing()
            else:
                self._memory = added.committed(*signed)
                self._grown_lately.append(added.grown(signed[0]))
        except BaseException as error:  # of the store, the clock or the log key: nothing was committed, for anybody
            for waiting in batch:
                waiting.made = [error] * len(waiting.makes)

    def _known(self, writing: Writing) -> Memory:
        """Where the log stands. Once it does not continue what is remembered, that is so until the next start."""
        if self._damaged:  # another one each time: an error keeps all that it was raised through
            raise LogDamaged(self._damaged.message, self._damaged.hint)
        try:
            self._memory = self._remembered(self._memory, writing)
        except LogDamaged as error:
            if self._memory is not None:  # what is read anew might not show it any more
                self._damaged = LogDamaged(error.message, error.hint)
            raise
        return self._memory

    def _remembered(self, memory: Memory | None, writing: Writing) -> Memory:
        """Where the log stands: as remembered, and as others went on with it, if they did."""
        generation, size = writing.generation(), writing.size()
        if memory is not None and (memory.generation, memory.frontier.size) == (generation, size):
            return memory
        note = writing.checkpoint()
        if memory is None and size == 0 and note is None:
            return Memory(generation, None, None, Frontier(), 0)
        checkpoint, frontier = self._opened(note), Frontier(size, writing.node)
        if checkpoint.size != size:
            raise LogDamaged(f"the log has {size} entries, but its checkpoint is for {checkpoint.size}", RESTORE)
        if frontier.root() != checkpoint.root:  # no root is signed that does not continue this one
            raise LogDamaged(f"the log's nodes do not add up to its checkpoint of {size} entries", RESTORE)
        if memory is not None:
            return memory.go_on(generation, note or "", checkpoint, writing)
        return Batch(Memory(generation, note, checkpoint, frontier, 0), writing, 0).recalled(1000 * LONGEST_CASE)

    def _check_clock(self, batch: Batch) -> None:
        if batch.time < batch.memory.time:
            raise ClockWentBack(
                f"the clock is {(batch.memory.time - batch.time) / 1000:.1f} s before the newest entry, so nothing is issued",
                "Set the clock of the CA's machine right",
            )

    def _signed(self, batch: Batch) -> tuple[str, Checkpoint]:
        checkpoint = Checkpoint(self.key.name, batch.frontier.size, batch.frontier.root())
        note = sign_note(checkpoint.body(), self.key, self._sign_raw)
        batch.log.add_checkpoint(checkpoint.size, note, batch.nodes)
        return note, checkpoint

    def _sign_raw(self, message: bytes) -> bytes:
        reader = Reader(self._sign(message), "the log key's signature")
        try:
            reader.string()
            return reader.string()
        except Malformed as error:
            raise SignerFailed(f"the log key made no signature: {error.message}") from error

    def check(self, *, tree: bool = True) -> Checkpoint | None:
        """The newest checkpoint, after comparing it with every entry, every node, what is remembered outside the store, and the
        store with itself.

        None for a store without entries. Without `tree`, what the store has is left to the caller, who has `ca.verify` for it.
        Raises `LogDamaged`, naming what differs; constant memory. Others may append meanwhile.
        """
        remembered = self.store.remembered()  # first: it is written last
        note, size = self.store.checkpoint(), self.store.size()
        while note != (newer := self.store.checkpoint()):
            note, size = newer, self.store.size()
        if size == 0 and note is None and remembered is None:
            return None
        checkpoint = self._opened(note)
        if checkpoint.size != size:
            raise LogDamaged(f"the log has {size} entries, but its checkpoint is for {checkpoint.size}", RESTORE)
        if tree:
            self._check_tree(checkpoint)
            self.store.demand_sound()
        self._check_remembered(remembered, size)
        return checkpoint

    def _opened(self, note: str | None) -> Checkpoint:
        if note is None:
            raise LogDamaged("the newest checkpoint is missing", RESTORE)
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
                raise LogDamaged(f"entry {index} is not the one that was logged: its hash differs", RESTORE)
            frontier.append(leaf)
        if frontier.size != checkpoint.size:
            raise LogDamaged(f"entry {frontier.size} is missing", RESTORE)
        if frontier.root() != checkpoint.root:
            raise LogDamaged("the entries do not add up to the root that was signed: some were changed together", RESTORE)
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
                raise LogDamaged(f"node {position} of level {level + 1} is not the hash of its two children", RESTORE)
            found = position + 1
        if found < complete:
            raise LogDamaged(f"node {found} of level {level + 1} is missing", RESTORE)

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
            raise LogDamaged(f"the log is not the one that was signed at {remembered.size} entries: it was rewritten", RESTORE)


def _made(make: Make, batch: Batch) -> Made:
    """Makes and adds one call's entries. An error is that call's alone."""
    try:
        made = make(Tail(batch.frontier.size, batch.time, batch.log, batch))
        batch.add(made)
    except Exception as error:  # for its own caller; the others of the batch go on
        return error
    return made
