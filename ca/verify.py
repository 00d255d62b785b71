"""Checks a log, or the part of it that one may read, without trusting the CA, its policy or its disk.

What holds afterwards: the leaves add up to the signed root, and to every root that was signed before; the remembered checkpoint
is a prefix; every entry shown is the one in the tree; every person's signature verifies and, with the policy files, is by a key
that was theirs then; every certificate is exactly what its request was granted, and no more.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Protocol, TypeVar

from ca import merkle
from ca.checkpoint import Checkpoint
from ca.errors import JitSshError, LogDamaged
from ca.judge import Judge, Judged, Wrong
from ca.replay import PolicyFile, Replay
from ca.trust import Trust

_SHOW: Final = "Keep it as it is and show it to the security team: no honest log is like this"
_CHUNK: Final = 256  # entries that are judged by one process at once
_A = TypeVar("_A")
_B = TypeVar("_B")


class Spread(Protocol):
    """What does as `map` does, perhaps on more processors; it takes no more from `values` than it needs."""

    def __call__(self, function: Callable[[_A], _B], values: Iterable[_A], /) -> Iterator[_B]:
        """The results in the order of the values."""


def in_turn(function: Callable[[_A], _B], values: Iterable[_A], /) -> Iterator[_B]:
    """`map`: on this processor, one after the other."""
    return map(function, values)


@dataclass(frozen=True)
class Report:
    """What was checked: the log's size, and how many of its entries could be read, with what was found in them.

    `checkpoints` were signed, `policies` had all their files: without these, whose keys signed was not judged.
    """

    checkpoint: Checkpoint
    entries: int
    signatures: int
    certificates: int
    checkpoints: int
    policies: int


@dataclass(frozen=True)
class Stored:
    """What else is kept: every checkpoint with its size and, in a store, the nodes of each level above the leaves."""

    notes: Iterable[tuple[int, str]]
    nodes: Callable[[int], Iterator[bytes]] | None = None


def verify(
    trust: Trust,
    checkpoint: Checkpoint,
    leaves: Iterable[bytes],
    entries: Iterable[tuple[int, bytes]],
    remembered: Checkpoint | None = None,
    *,
    stored: Stored | None = None,
    policy_file: PolicyFile | None = None,
    spread: Spread = in_turn,
) -> Report:
    """Checks all `leaves` of a log against an opened `checkpoint`, and the (index, bytes) of the `entries` that can be read.

    Both come in order of the index. `remembered` is a checkpoint that was seen before. Raises `LogDamaged`, naming the first
    entry that is wrong and what is wrong with it. Memory does not grow with the log.
    """
    if remembered is not None and remembered.size > checkpoint.size:
        raise LogDamaged(
            f"the log has {checkpoint.size} entries, but this machine has seen {remembered.size}: an old copy was restored", _SHOW
        )
    judge = Judge.of(trust)
    tree, replay, shown = _Tree(remembered), Replay(policy_file=policy_file), _Shown(judge, entries, spread)
    if stored is not None:
        tree.compare_with(stored, judge, spread)
    passed: list[bytes] = []  # leaves that are to be put into the tree: in one go, for the reason of `Judge.entries`
    try:
        for index, leaf in enumerate(leaves):
            judged = shown.at(index)
            if judged is None and stored is not None:
                raise LogDamaged(f"entry {index} is missing", _SHOW)
            if judged is not None and judged.leaf != leaf:
                what = judged.message if isinstance(judged, Wrong) else "something in it was changed"
                raise LogDamaged(f"entry {index} is not the one in the log's tree: {what}", _SHOW)
            _replay(replay, index, judged)
            passed.append(leaf)
            if len(passed) == _CHUNK:
                passed, chunk = [], passed
                tree.extend(chunk)
    finally:
        tree.extend(passed)  # also when an entry is wrong: what is wrong before it is told first
    tree.end(checkpoint)
    _replay(replay, checkpoint.size, None)
    if (left := shown.next_index()) is not None:
        raise LogDamaged(f"entry {left} is shown, but the log has {checkpoint.size} entries", _SHOW)
    return _report(checkpoint, shown.taken, replay, tree.checkpoints)


def verify_part(
    trust: Trust,
    checkpoint: Checkpoint,
    part: tuple[int, int],
    entries: Iterable[bytes],
    before: Sequence[bytes],
    after: Sequence[bytes],
    *,
    spread: Spread = in_turn,
) -> Report:
    """Checks the `entries` from the first index of `part` up to the second, between the hashes of what surrounds them.

    `before` and `after` are those of `merkle.complete_nodes`. Raises `LogDamaged`, naming the first entry that is wrong.
    """
    (start, end), frontier = part, merkle.Frontier()
    replay, shown = Replay(start), _Shown(Judge.of(trust), enumerate(entries, start), spread)
    _append_nodes(frontier, start, before)
    replay.hidden = start > 0
    while (judged := shown.at(frontier.size)) is not None:
        _replay(replay, frontier.size, judged)
        frontier.append(judged.leaf)
    if frontier.size != end:
        raise LogDamaged(f"there are {shown.taken} entries, not the {end - start} from {start} to {end}", _SHOW)
    _append_nodes(frontier, checkpoint.size, after)
    if frontier.root() != checkpoint.root:
        raise LogDamaged(f"the entries from {start} to {end} do not add up to the checkpoint at {checkpoint.size}", _SHOW)
    if end == checkpoint.size:
        _replay(replay, end, None)
    return _report(checkpoint, shown.taken, replay, 1)


def _replay(replay: Replay, index: int, judged: Judged | Wrong | None) -> None:
    """Judges an entry after those before it; None is one that is not shown, or the end."""
    try:
        match judged:
            case Judged():
                replay.check(judged)
            case Wrong():
                raise LogDamaged(judged.message)
            case None:
                replay.hide()
    except JitSshError as error:
        raise LogDamaged(f"entry {index}: {error.message}", _SHOW) from error


def _report(checkpoint: Checkpoint, entries: int, replay: Replay, checkpoints: int) -> Report:
    return Report(checkpoint, entries, replay.signatures, replay.certificates, checkpoints, replay.policies)


def _append_nodes(frontier: merkle.Frontier, end: int, hashes: Sequence[bytes]) -> None:
    nodes = list(merkle.complete_nodes(frontier.size, end))
    if len(nodes) != len(hashes):
        raise LogDamaged(f"{len(nodes)} hashes cover the entries from {frontier.size} to {end}, not {len(hashes)}", _SHOW)
    for (level, _), node in zip(nodes, hashes, strict=True):
        frontier.append(node, level)


class _Tree:
    """The tree that the leaves make, and all that has to agree with it on the way."""

    def __init__(self, remembered: Checkpoint | None) -> None:
        self._frontier = merkle.Frontier()
        self._remembered = remembered
        self._nodes: Callable[[int], Iterator[bytes]] | None = None
        self._levels: list[Iterator[bytes]] = []  # the stored nodes of each level above the leaves
        self._notes: Iterator[tuple[int, bytes | Wrong]] = iter(())
        self._note: tuple[int, bytes | Wrong] | None = None  # the next checkpoint that was signed
        self.checkpoints = 0

    def compare_with(self, stored: Stored, judge: Judge, spread: Spread) -> None:
        """Every node and checkpoint of a store has to agree, too."""
        self._nodes = stored.nodes
        self._notes = chain.from_iterable(spread(judge.notes, _chunks(stored.notes)))
        self._note = next(self._notes, None)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """The next leaves. Raises `LogDamaged`, naming the first thing that does not agree."""
        for leaf in leaves:
            self._append(leaf)

    def _append(self, leaf: bytes) -> None:
        self._check_remembered()
        completed = self._frontier.append(leaf)
        if self._nodes is not None and len(completed) > 1:
            self._check_nodes(completed[1:], self._nodes)
        while self._note is not None and self._note[0] <= self._frontier.size:
            self._check_note(*self._note)
            self._note = next(self._notes, None)

    def end(self, checkpoint: Checkpoint) -> None:
        """There are no more leaves than `checkpoint` says. Raises `LogDamaged`."""
        if (self._frontier.size, self._frontier.root()) != (checkpoint.size, checkpoint.root):
            raise LogDamaged(f"the log's leaves do not add up to its checkpoint at {checkpoint.size} entries", _SHOW)
        self._check_remembered()
        if self._note is not None:
            raise LogDamaged(f"there is a checkpoint at {self._note[0]} entries, but the log has {checkpoint.size}", _SHOW)
        self.checkpoints = self.checkpoints or 1

    def _check_remembered(self) -> None:
        known, frontier = self._remembered, self._frontier
        if known is not None and known.size == frontier.size and known.root != frontier.root():
            raise LogDamaged(f"the first {known.size} entries are not those that this machine has seen: rewritten", _SHOW)

    def _check_nodes(self, completed: Sequence[merkle.Node], nodes: Callable[[int], Iterator[bytes]]) -> None:
        for level, position, node in completed:
            if level > len(self._levels):
                self._levels.append(nodes(level))
            found = next(self._levels[level - 1], None)
            if found != node:
                what = "is missing" if found is None else "is not the hash of its two children"
                raise LogDamaged(f"node {position} of level {level} {what}", _SHOW)

    def _check_note(self, size: int, root: bytes | Wrong) -> None:
        if isinstance(root, Wrong):
            raise LogDamaged(f"the checkpoint at {size} entries: {root.message}", _SHOW)
        if size != self._frontier.size or root != self._frontier.root():
            raise LogDamaged(f"the checkpoint that was signed at {size} entries is of another log than this: rewritten", _SHOW)
        self.checkpoints += 1


class _Shown:
    """The entries that can be read, judged, and taken one by one as the leaves go by."""

    def __init__(self, judge: Judge, entries: Iterable[tuple[int, bytes]], spread: Spread) -> None:
        self._entries = chain.from_iterable(spread(judge.entries, _chunks(entries)))
        self._next = next(self._entries, None)
        self.taken = 0

    def next_index(self) -> int | None:
        """The index of the next one, None at the end."""
        return None if self._next is None else self._next[0]

    def at(self, index: int) -> Judged | Wrong | None:
        """The entry there, if it is shown."""
        if self._next is None or self._next[0] != index:
            return None
        judged = self._next[1]
        self._next = next(self._entries, None)
        self.taken += 1
        return judged


def _chunks(values: Iterable[_A]) -> Iterator[list[_A]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
