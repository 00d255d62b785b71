"""What one transaction of the log adds and sees: the entries so far, and what is remembered of them between two commits.

What is remembered was written here, or was read and proven, and goes on with each entry, whoever wrote it. So what a person did
last, and who is locked out, is not asked of the store again, where somebody who can change the file might hide it.
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


@dataclass
class Told:
    """The entries that say how a request stands, and what further ones are known by."""

    first: int  # the request that began the grant
    person: str
    entries: list[int]
    used: bool  # whether one of them is an `issue`: the first one says so


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
    told: dict[int, Told] = field(default_factory=dict)  # by request
    locked: set[str] = field(default_factory=set)  # everybody who is

    def learn(self, one: AnyEntry) -> None:
        """Goes on with the next entry."""
        if one.TAG[1] in self.newest:
            self.newest[one.TAG[1]] = one.index
        match one:
            case RequestEntry():
                _keep(self.asked, (one.actor, one.role), one.index)
                _keep(self.told, one.index, Told(one.first, one.actor, [one.index], used=False))
            case LockEntry():
                self.locked.add(one.person)
            case UnlockEntry():
                self.locked.discard(one.person)
            case _:
                pass
        self._tell(one)

    def _tell(self, one: AnyEntry) -> None:
        """Adds the entry to what says how requests stand."""
        match one:
            case ApproveEntry() | DenyEntry() | WithdrawEntry():
                if told := self.told.get(one.request):
                    told.entries.append(one.index)
            case IssueEntry():
                if (told := self.told.get(one.request)) and not told.used:
                    told.entries.append(one.index)
                    told.used = True
            case DropEntry() | RevokeEntry(request=int()):
                self._end(one.index, lambda told: told.first == one.request)
            case RevokeEntry() | LockEntry():
                self._end(one.index, lambda told: told.person == one.person)
            case _:
                pass

    def _end(self, index: int, of: Callable[[Told], bool]) -> None:
        for told in self.told.values():
            if of(told):
                told.entries.append(index)

    def go_on(self, now: "Memory", log: Writing) -> "Memory":
        """The same with what others have appended since, as the store has it `now`. Raises `LogDamaged` if that is another log.

        What entries say is read again, and proven: whoever wrote may have changed them, and that is to be noticed.
        """
        frontier = self.frontier.copy()
        for source in log.entries(frontier.size, now.frontier.size):
            frontier.append(leaf_hash(source))
            self.learn(entry.decode(source))
        if (frontier.size, frontier.root()) != (now.frontier.size, now.frontier.root()):
            said = (
                f"the log of {now.frontier.size} entries does not continue the one of {self.frontier.size} that was there before"
            )
            raise LogDamaged(said, RESTORE)
        return replace(now, newest=self.newest, asked=self.asked, told=self.told, locked=self.locked)


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
            self.memory.learn(one)

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
        if (told := self.memory.told.get(request)) is None:
            found = [self.entry(index) for index in self.log.request(request)]
            if not found or not isinstance(asked := found[0], RequestEntry):
                return []
            used = any(isinstance(each, IssueEntry) for each in found)
            told = Told(asked.first, asked.actor, [each.index for each in found], used)
            _keep(self.memory.told, request, told)
        return told.entries

    def recall(self, since: int) -> None:
        """Has remembered who is locked out and how every request stands whose case may not be over, before anybody can hide it.

        Those are the requests since `since` (Unix milliseconds), and what they extend; of many the newest.
        """
        locks = {person: self.entry(index) for person, index in self.log.locks().items()}
        self.memory.locked.update(person for person, newest in locks.items() if isinstance(newest, LockEntry))
        for index in reversed(self.log.newest_requests(since)[: _REMEMBERED // 2]):
            asked = self.entry(index)
            if isinstance(asked, RequestEntry):
                _keep(self.memory.asked, (asked.actor, asked.role), index)
                for request in (asked.extends, index):
                    if request is not None:
                        self.told(request)

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
