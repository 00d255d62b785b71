"""The log's Merkle tree (RFC 9162 §2.1, the tree of RFC 6962 §2.1): SHA-256, pure functions over stored nodes.

A node is (level, position) and covers the leaves from position·2^level up to (position+1)·2^level; level 0 holds the
leaf hashes. Only complete nodes are stored, so a stored node never changes and the tree of every past size is still
there. Whoever makes a proof reads nodes; whoever checks one trusts only the root it was given.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from ca.errors import LogDamaged

Read = Callable[[int, int], bytes]
"""Gives the hash of the stored node at (level, position), 32 bytes; raises `LogDamaged` where there should be one."""

Node = tuple[int, int, bytes]  # level, position, hash
HASH_LENGTH: Final = 32
MAX_SIZE: Final = 2**63 - 1  # leaves; the largest integer that the store and most readers can hold
EMPTY_ROOT: Final = sha256(b"").digest()

_SHOW_IT: Final = "keep what was received, and show it to whoever watches this log: an honest log has no such answer"


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry. Its first byte differs from a node's, so that no node passes for an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return sha256(b"\x01" + left + right).digest()


# ------------------------------------------------------------------- growing


class Frontier:
    """A tree that grows in memory and keeps only what its next root needs: at most one hash a level."""

    def __init__(self, size: int = 0, read: Read | None = None) -> None:
        """The tree of the first `size` leaves, whose nodes `read` gives."""
        self.size = size
        # The complete subtrees, largest first: one for each bit set in `size`.
        self._peaks = [read(level, position) for level, position in complete_nodes(0, size)] if read else []

    def append(self, node: bytes, level: int = 0) -> list[Node]:
        """Adds the next leaf hash, or the next complete node of that level; every node that it completes, itself first.

        Two nodes a leaf on average. Raises `ValueError` where none of that level begins.
        """
        position, remainder = divmod(self.size, 1 << level)
        if remainder:
            raise ValueError(f"no node of level {level} begins after {self.size} leaves")
        self.size += 1 << level
        nodes = [(level, position, node)]
        while position % 2:
            node = node_hash(self._peaks.pop(), node)
            level, position = level + 1, position // 2
            nodes.append((level, position, node))
        self._peaks.append(node)
        return nodes

    def peaks(self) -> list[Node]:
        """The complete subtrees, from left to right."""
        nodes = complete_nodes(0, self.size)
        return [(level, position, hash_) for (level, position), hash_ in zip(nodes, self._peaks, strict=True)]

    def copy(self) -> "Frontier":
        """Another one that grows by itself."""
        other = Frontier()
        other.size, other._peaks = self.size, self._peaks.copy()
        return other

    def root(self) -> bytes:
        """The root of the leaves so far."""
        return _joined(self._peaks)


# ------------------------------------------------------------------- proving


def root(size: int, read: Read) -> bytes:
    """The root of the first `size` leaves."""
    return _hash_of(0, size, read)


def inclusion_proof(index: int, size: int, read: Read) -> list[bytes]:
    """The hashes that lead from leaf number `index` to the root of the first `size` leaves (RFC 9162 §2.1.3.1).

    Raises `ValueError` if that tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    start, end = 0, size
    path = []
    while end - start > 1:
        middle = _middle(start, end)
        if index < middle:
            path.append(_hash_of(middle, end, read))
            end = middle
        else:
            path.append(_hash_of(start, middle, read))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, read: Read) -> list[bytes]:
    """The hashes that show that the first `new` leaves begin with the first `old` ones (RFC 9162 §2.1.4.1).

    Empty for equal sizes and for an empty old tree. Raises `ValueError` unless 0 ≤ old ≤ new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with one of {old}")
    if old == 0:
        return []
    start, end = 0, new
    path = []
    while end != old:
        middle = _middle(start, end)
        if old <= middle:
            path.append(_hash_of(middle, end, read))
            end = middle
        else:
            path.append(_hash_of(start, middle, read))
            start = middle
    if start:  # otherwise this last subtree is the old tree, whose root the verifier has
        path.append(_hash_of(start, end, read))
    return path[::-1]


def _middle(start: int, end: int) -> int:
    """Where the RFC splits these leaves: after the largest power of two smaller than their number."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _hash_of(start: int, end: int, read: Read) -> bytes:
    """The tree hash of these leaves; `start` is a multiple of the largest power of two in their number."""
    if (count := end - start) and not count & (count - 1):  # as most of a path are: one node, without the search for the fewest
        level = count.bit_length() - 1
        return read(level, start >> level)
    return _joined([read(level, position) for level, position in complete_nodes(start, end)])


def complete_nodes(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The fewest complete nodes (level, position) that cover the leaves from `start` up to `end`, from left to right."""
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)  # no node begins where a larger one lies across
        yield level, start >> level
        start += 1 << level


def _joined(peaks: Sequence[bytes]) -> bytes:
    """The root above complete subtrees that shrink from left to right."""
    if not peaks:
        return EMPTY_ROOT
    *lefts, hash_ = peaks
    for left in reversed(lefts):
        hash_ = node_hash(left, hash_)
    return hash_


# ------------------------------------------------------------------ checking


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Checks that the leaf hash `leaf` is number `index` of the `size` leaves below `root` (RFC 9162 §2.1.3.2).

    Raises `LogDamaged` for every proof but the one that `inclusion_proof` makes.
    """
    refusal = LogDamaged(f"entry {index} is not proven to be in the log of {size} entries", _SHOW_IT)
    if not 0 <= index < size or not _are_hashes(proof):
        raise refusal
    node, last, hash_ = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise refusal  # more steps than the tree has levels
        if node % 2 or node == last:
            hash_ = node_hash(step, hash_)
            node, last = _up_to_right_child(node, last)
        else:
            hash_ = node_hash(hash_, step)
        node, last = node // 2, last // 2
    if last or hash_ != root:
        raise refusal


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the new tree is the old one with leaves added (RFC 9162 §2.1.4.2).

    Raises `LogDamaged` for every proof but the one that `consistency_proof` makes.
    """
    refusal = LogDamaged(f"the log of {new_size} entries is not proven to continue the one of {old_size}", _SHOW_IT)
    if not 0 <= old_size <= new_size or not _are_hashes(proof):
        raise refusal
    if old_size in {0, new_size}:
        expected = new_root if old_size == new_size else EMPTY_ROOT
        if proof or old_root != expected:
            raise refusal
        return
    node, last = old_size - 1, new_size - 1
    while node % 2:
        node, last = node // 2, last // 2
    steps = list(proof) if node else [old_root, *proof]  # a complete old tree is a node of the new one
    if not steps:
        raise refusal
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise refusal
        if node % 2 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            node, last = _up_to_right_child(node, last)
        else:
            new = node_hash(new, step)
        node, last = node // 2, last // 2
    if last or old != old_root or new != new_root:
        raise refusal


def _up_to_right_child(node: int, last: int) -> tuple[int, int]:
    """Climbs past the levels at which an incomplete edge of the tree has no sibling to its left."""
    while node and node % 2 == 0:
        node, last = node // 2, last // 2
    return node, last


def _are_hashes(proof: Sequence[bytes]) -> bool:
    """Whether each step has a hash's length: any other would let bytes move between the two halves of a node."""
    return all(len(step) == HASH_LENGTH for step in proof)
