"""What one transaction of the log adds and sees: the entries so far, and what is remembered of them between two commits.

What is remembered was written here, or was read and proven, and goes on with each entry, whoever wrote it. So what a person did
last, and who is locked out, is not asked of the store again, where somebody who can change the file might hide it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ca import entry, merkle
from ca.checkpoint import Checkpoint
from ca.entry import (
    AnyEntry,
    IssueEntry,
    LockEntry,
    RequestEntry,
)
from ca.errors import LogDamaged
from ca.known import REMEMBERED, Known, Told
from ca.merkle import Frontier, Node, leaf_hash
from ca.storage import Reading, Writing

RESTORE: Final = "Restore the newest copy of the database; to see what differs, keep this one"


@dataclass(frozen=True)
class Grown:
    """What one commit made of the tree: enough to prove each of the entries from `start` up to `size` under its `note`."""

    start: int
    size: int
    note: str
    nodes: dict[tuple[int, int], bytes]
    entries: dict[int, bytes]

    def read(self, level: int, position: int) -> bytes:
        """The node's hash. What a path from a new leaf needs is new as well, or was on the tree's right edge before."""
        return self.nodes[level, position]


@dataclass(frozen=True)
class Memory:
    """Where the log stands, as of one commit, and what is known of it. `generation` is the store's of that time."""

    generation: int
    note: str | None
    checkpoint: Checkpoint | None  # None when there are no entries
    frontier: Frontier
    time: int  # of the newest entry, in Unix milliseconds
    known: Known = field(default_factory=Known)

    def go_on(self, generation: int, note: str, checkpoint: Checkpoint, log: Reading) -> "Memory":
        """The same with what was appended since, up to the checkpoint. Raises `LogDamaged` if that is of another log.

        What entries say is read again, and proven: whoever wrote may have changed them, and that is to be noticed.
        """
        frontier, time, known = self.frontier.copy(), self.time, self.known.layer()
        for source in log.entries(frontier.size, checkpoint.size):
            frontier.append(leaf_hash(source))
        if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
            sizes = f"the log of {checkpoint.size} entries does not continue the one of {self.frontier.size}"
            raise LogDamaged(f"{sizes} that was there before", RESTORE)
        for one in map(entry.decode, log.entries(self.frontier.size, checkpoint.size)):
            known.learn(one)
            time = one.time
        return Memory(generation, note, checkpoint, frontier, time, replace(self.known.keep(known), entries={}))


class Batch:
    """What one transaction adds, and all that its callers see of the log. Nothing of it counts before the commit."""

    def __init__(self, memory: Memory, log: Writing, time: int) -> None:
        """`time` is that of the new entries, in Unix milliseconds."""
        self.memory = memory
        self.known = memory.known.layer()
        self.log = log
        self.time = time
        self.frontier = memory.frontier.copy()
        self.nodes: list[Node] = []
        self._entries: dict[int, AnyEntry] = {}
        self._encoded: dict[int, bytes] = {}

    @property
    def grew(self) -> bool:
        """Whether there are new entries."""
        return bool(self._entries)

    def add(self, made: Sequence[AnyEntry]) -> None:
        """Adds the new ones of a caller's entries, all or none. Raises `Malformed`, `LogDamaged` or an error of the store."""
        new = [one for one in made if one.index >= self.frontier.size]
        encoded = [(one.index, one.encode()) for one in new]
        self.log.add(encoded)
        for one, (index, source) in zip(new, encoded, strict=True):
            self.nodes += self.frontier.append(leaf_hash(source))
            self._entries[index], self._encoded[index] = one, source
            self.known.learn(one)

    def entry(self, index: int) -> AnyEntry:
        """An entry that is there. Raises `LogDamaged` for another than was logged."""
        found = self._entries.get(index) or self.known.entries.get(index)
        if found is None:
            found = self.known.entries[index] = self._proven(index)
        return found

    def _proven(self, index: int) -> AnyEntry:
        source = next(self.log.entries(index, index + 1), b"")
        size, root = self.memory.frontier.size, self.memory.frontier.root()
        if index >= size:
            raise LogDamaged(f"the store has an entry {index}, which was not logged", RESTORE)
        proof = merkle.inclusion_proof(index, size, self.log.node)
        merkle.verify_inclusion(leaf_hash(source), index, size, proof, root)
        return entry.decode(source)

    def newest(self, kind: str) -> AnyEntry | None:
        """The newest entry of this kind."""
        if kind not in self.known.newest:
            found = self.log.newest(kind)
            self.known.newest[kind] = None if found is None else entry.decode(found).index
        at = self.known.newest[kind]
        return None if at is None else self.entry(at)

    def newest_request(self, person: str, role: str, since: int) -> int | None:
        """The person's newest request for the role, unless it was made before `since` (Unix milliseconds)."""
        asked = self.known.asked
        if (person, role) not in asked:  # of any age: the clock may go back, and what is remembered must still be the newest
            found = self.log.requests(person, role, 0, most=1)
            asked[person, role] = found[0] if found else None
        index = asked[person, role]
        return None if index is None or self.entry(index).time < since else index

    def told(self, request: int) -> tuple[int, ...]:
        """The entries that say how a request stands; empty if there is none."""
        if (told := self.known.told.get(request)) is None:
            found = [self.entry(index) for index in self.log.request(request)]
            if not found or not isinstance(asked := found[0], RequestEntry):
                return ()
            used = any(isinstance(each, IssueEntry) for each in found)
            told = self.known.told[request] = Told(asked.first, asked.actor, tuple(each.index for each in found), used)
        return told.entries

    def recalled(self, longest: int) -> Memory:
        """What there is to remember at a start: who is locked out, and how every request stands whose case may not be over.

        Those are the requests of the last `longest` milliseconds, and what they extend; of many the newest. What is remembered
        nobody can hide who writes to the file.
        """
        newest = self.entry(self.frontier.size - 1)
        for person, index in self.log.locks().items():
            self.known.locked[person] = isinstance(self.entry(index), LockEntry)
        for index in reversed(self.log.newest_requests(newest.time - longest)[: REMEMBERED // 2]):
            asked = self.entry(index)
            if isinstance(asked, RequestEntry):
                self.known.asked[asked.actor, asked.role] = index
                for request in (asked.extends, index):
                    if request is not None:
                        self.told(request)
        return replace(self.added_nothing(), time=newest.time)

    def grown(self, note: str) -> Grown:
        """What the commit under this note made."""
        before = self.memory.frontier
        nodes = {(level, position): hash_ for level, position, hash_ in [*before.peaks(), *self.nodes]}
        return Grown(before.size, self.frontier.size, note, nodes, self._encoded)

    def committed(self, note: str, checkpoint: Checkpoint) -> Memory:
        """Where the log stands after the commit, which is under this note."""
        self.known.entries.update(self._entries)
        return replace(self.added_nothing(), note=note, checkpoint=checkpoint, frontier=self.frontier, time=self.time)

    def added_nothing(self) -> Memory:
        """Where the log stands as before, with what was read on the way."""
        return replace(self.memory, known=self.memory.known.keep(self.known))


@dataclass(frozen=True)
class Tail:
    """Where the next entry goes: its index, its time in Unix milliseconds, and the entries so far.

    What the store says of entries is believed as far as the log's checkpoint proves it, or this transaction made it.
    """

    index: int
    time: int
    log: Writing
    batch: Batch

    def caused_by(self, statement_id: str) -> AnyEntry | None:
        """The entry that this statement caused."""
        index = self.log.statement(statement_id)
        return None if index is None else self.entry(index)

    def entry(self, index: int) -> AnyEntry:
        """An entry that is there. Raises `LogDamaged` for another than was logged."""
        return self.batch.entry(index)

    def newest(self, kind: str) -> AnyEntry | None:
        """The newest entry of this kind."""
        return self.batch.newest(kind)


Make = Callable[[Tail], Sequence[AnyEntry]]
