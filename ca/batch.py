"""What one transaction of the log adds and sees: the entries so far, and what is remembered of them between two commits.

What is remembered was written here, or was read and proven; it is forgotten as soon as anybody else has written to the store. Of
the store's answers it keeps those that issuing asks for every time, and keeps them as the store would answer after each entry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from ca import entry, merkle
from ca.checkpoint import Checkpoint
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    LockEntry,
    RequestEntry,
    RevokeEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import LogDamaged
from ca.merkle import Frontier, Node, leaf_hash
from ca.storage import Writing

RESTORE: Final = "Restore the newest copy of the database; to see what differs, keep this one"
_REMEMBERED: Final = 4096  # entries, about 5 KB each, and as many answers of the store
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


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
    """Where the log stands, as of one commit. `generation` is the store's of that time. What follows it is added to in place."""

    generation: int
    note: str | None
    checkpoint: Checkpoint | None  # None when there are no entries
    frontier: Frontier
    time: int  # of the newest entry, in Unix milliseconds
    entries: dict[int, AnyEntry] = field(default_factory=dict)
    newest: dict[str, int | None] = field(default_factory=dict)  # entry of a kind
    asked: dict[tuple[str, str], int | None] = field(default_factory=dict)  # newest request, by person and role
    told: dict[int, list[int]] = field(default_factory=dict)  # the entries that say how a request stands
    locks: dict[str, int | None] = field(default_factory=dict)  # newest lock or unlock, by person


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Remembers a value, in place of the one that was remembered first when there are too many."""
    if len(kept) >= _REMEMBERED and key not in kept:
        del kept[next(iter(kept))]
    kept[key] = value
    return value


class Batch:
    """What one transaction adds, and all that its callers see of the log. Nothing of it counts before the commit.

    If the transaction fails, the memory that it was given is not to be used again.
    """

    def __init__(self, memory: Memory, log: Writing, time: int) -> None:
        """`time` is that of the new entries, in Unix milliseconds."""
        self.memory = memory
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
            self._remember(one)

    def _remember(self, one: AnyEntry) -> None:
        """Brings what is remembered of the store's answers up to date."""
        memory = self.memory
        if one.TAG[1] in memory.newest:
            memory.newest[one.TAG[1]] = one.index
        match one:
            case RequestEntry():
                _keep(memory.asked, (one.actor, one.role), one.index)
                _keep(memory.told, one.index, [one.index])
            case ApproveEntry() | DenyEntry() | WithdrawEntry():
                memory.told.get(one.request, []).append(one.index)
            case IssueEntry():
                told = memory.told.get(one.request, [])
                if not any(isinstance(self.entry(index), IssueEntry) for index in told):  # the first one says that it was used
                    told.append(one.index)
            case DropEntry() | RevokeEntry():
                memory.told.clear()  # it ends all requests of a case, or of a person
            case LockEntry() | UnlockEntry():
                memory.told.clear()
                _keep(memory.locks, one.person, one.index)
            case _:
                pass

    def entry(self, index: int) -> AnyEntry:
        """An entry that is there. Raises `LogDamaged` for another than was logged."""
        found = self._entries.get(index) or self.memory.entries.get(index)
        return _keep(self.memory.entries, index, self._proven(index)) if found is None else found

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
        if kind not in self.memory.newest:
            found = self.log.newest(kind)
            self.memory.newest[kind] = None if found is None else entry.decode(found).index
        at = self.memory.newest[kind]
        return None if at is None else self.entry(at)

    def newest_request(self, person: str, role: str, since: int) -> int | None:
        """The person's newest request for the role, unless it was made before `since` (Unix milliseconds)."""
        asked = self.memory.asked
        if (person, role) not in asked:  # of any age: the clock may go back, and what is remembered must still be the newest
            found = self.log.requests(person, role, 0, most=1)
            _keep(asked, (person, role), found[0] if found else None)
        index = asked[person, role]
        return None if index is None or self.entry(index).time < since else index

    def told(self, request: int) -> list[int]:
        """The entries that say how a request stands; empty if there is none."""
        told = self.memory.told
        return told[request] if request in told else _keep(told, request, self.log.request(request))

    def lock(self, person: str) -> int | None:
        """The newest entry that locked or unlocked the person."""
        locks = self.memory.locks
        return locks[person] if person in locks else _keep(locks, person, self.log.lock(person))

    def grown(self, note: str) -> Grown:
        """What the commit under this note made."""
        before = self.memory.frontier
        nodes = {(level, position): hash_ for level, position, hash_ in [*before.peaks(), *self.nodes]}
        return Grown(before.size, self.frontier.size, note, nodes, self._encoded)

    def committed(self, note: str, checkpoint: Checkpoint) -> Memory:
        """Where the log stands after the commit, which is under this note."""
        for index, one in self._entries.items():
            _keep(self.memory.entries, index, one)
        return replace(self.memory, note=note, checkpoint=checkpoint, frontier=self.frontier, time=self.time)


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
