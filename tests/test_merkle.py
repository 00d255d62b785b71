"""The tree: judged by the published Certificate Transparency vectors and by the RFC's own recursive definitions."""

import json
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import LogDamaged
from ca.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    Read,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

PUBLISHED = json.loads(Path(__file__).with_name("vectors").joinpath("rfc6962.json").read_text())
MOST = 130
LEAVES = [leaf_hash(b"entry %d" % index) for index in range(MOST)]
STRANGER = leaf_hash(b"not in this log")


# The definitions of RFC 9162 §2.1.1, §2.1.3.1 and §2.1.4.1, word for word and slow, over D[start:end] of LEAVES.


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


@cache
def mth(start: int, end: int) -> bytes:
    if start == end:
        return sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    k = start + split(end - start)
    return sha256(b"\x01" + mth(start, k) + mth(k, end)).digest()


def path(m: int, start: int, end: int) -> list[bytes]:
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, whole: bool) -> list[bytes]:
    if m == end - start:
        return [] if whole else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*subproof(m, start, start + k, whole), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, False), mth(start, start + k)]


def stored(leaves: list[bytes]) -> dict[tuple[int, int], bytes]:
    """What a store holds after these leaves; fails if a node is ever written twice."""
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for leaf in leaves:
        for level, position, hash_ in frontier.append(leaf):
            assert (level, position) not in nodes
            nodes[level, position] = hash_
    return nodes


def reader(nodes: dict[tuple[int, int], bytes]) -> Read:
    return lambda level, position: nodes[level, position]


READ = reader(stored(LEAVES))


def spoiled(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every proof one step away from this one."""
    for at, step in enumerate(proof):
        yield [*proof[:at], bytes([step[0] ^ 1]) + step[1:], *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
    for at in range(len(proof) + 1):
        yield [*proof[:at], STRANGER, *proof[at:]]
    for at, (step, following) in enumerate(pairwise(proof)):
        yield [*proof[:at], following, step, *proof[at + 2 :]]


def resized(proof: list[bytes]) -> Iterator[list[bytes]]:
    """The same bytes, or nearly, cut elsewhere."""
    yield [*proof, b""]
    for at, step in enumerate(proof):
        yield [*proof[:at], step[:-1], *proof[at + 1 :]]
        yield [*proof[:at], step + b"\0", *proof[at + 1 :]]
    for at, (step, following) in enumerate(pairwise(proof)):
        yield [*proof[:at], step + following, *proof[at + 2 :]]


def included(leaf: bytes, index: int, size: int, proof: list[bytes], top: bytes) -> bool:
    try:
        verify_inclusion(leaf, index, size, proof, top)
    except LogDamaged:
        return False
    return True


def consistent(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: list[bytes]) -> bool:
    try:
        verify_consistency(old_size, old_root, new_size, new_root, proof)
    except LogDamaged:
        return False
    return True


# ------------------------------------------------------------------ published


def test_the_published_roots_come_out_of_the_published_leaves() -> None:
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in PUBLISHED["leaves"]]
    read = reader(stored(leaves))
    assert [root(size, read).hex() for size in range(len(leaves) + 1)] == PUBLISHED["roots"]


@pytest.mark.parametrize("case", PUBLISHED["inclusion"], ids=lambda case: f"{case['index']}-in-{case['size']}")
def test_the_published_inclusion_proofs_are_made_and_accepted(case: dict[str, int | list[str]]) -> None:
    index, size, proof = int(str(case["index"])), int(str(case["size"])), case["proof"]
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in PUBLISHED["leaves"]]
    made = inclusion_proof(index, size, reader(stored(leaves)))
    assert [step.hex() for step in made] == proof
    verify_inclusion(leaves[index], index, size, made, bytes.fromhex(PUBLISHED["roots"][size]))


@pytest.mark.parametrize("case", PUBLISHED["consistency"], ids=lambda case: f"{case['old']}-to-{case['new']}")
def test_the_published_consistency_proofs_are_made_and_accepted(case: dict[str, int | list[str]]) -> None:
    old, new, proof = int(str(case["old"])), int(str(case["new"])), case["proof"]
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in PUBLISHED["leaves"]]
    made = consistency_proof(old, new, reader(stored(leaves)))
    assert [step.hex() for step in made] == proof
    verify_consistency(old, bytes.fromhex(PUBLISHED["roots"][old]), new, bytes.fromhex(PUBLISHED["roots"][new]), made)


# ----------------------------------------------------------------- exhaustive


def test_every_stored_node_is_the_hash_of_its_leaves_and_is_written_once() -> None:
    nodes = stored(LEAVES)
    for (level, position), hash_ in nodes.items():
        assert hash_ == mth(position << level, (position + 1) << level)
    assert len(nodes) == 2 * MOST - MOST.bit_count()


def test_the_root_of_every_size_is_the_one_the_rfc_defines() -> None:
    frontier = Frontier()
    for size in range(MOST + 1):
        assert root(size, READ) == frontier.root() == mth(0, size)
        assert frontier.size == size
        if size < MOST:
            frontier.append(LEAVES[size])


def test_every_inclusion_proof_is_the_one_the_rfc_defines_and_no_other_is_accepted() -> None:
    for size in range(1, MOST + 1):
        top = mth(0, size)
        for index in range(size):
            proof = inclusion_proof(index, size, READ)
            assert proof == path(index, 0, size)
            assert included(LEAVES[index], index, size, proof, top)
            assert not any(included(LEAVES[index], index, size, bad, top) for bad in spoiled(proof))


def test_every_consistency_proof_is_the_one_the_rfc_defines_and_no_other_is_accepted() -> None:
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, READ)
            assert proof == subproof(old, 0, new, True)
            assert consistent(old, mth(0, old), new, mth(0, new), proof)
            assert not any(consistent(old, mth(0, old), new, mth(0, new), bad) for bad in spoiled(proof))


# ------------------------------------------------------------------- refusals


def test_a_proof_holds_for_no_other_leaf_index_or_root() -> None:
    for size in range(1, 40):
        for index in range(size):
            proof, top = inclusion_proof(index, size, READ), mth(0, size)
            assert not included(STRANGER, index, size, proof, top)
            assert not included(LEAVES[index], index, size, proof, mth(0, size - 1))
            assert not included(LEAVES[index], index, size, proof, mth(0, size + 1))
            for other in {*range(-1, size + 2), -size, index + 2**64} - {index}:
                assert not included(LEAVES[index], other, size, proof, top)


def test_a_proof_that_leads_to_the_root_is_refused_when_it_is_too_long_or_too_short_for_the_size() -> None:
    assert not included(LEAVES[1], 0, 1, [LEAVES[0]], mth(0, 2))
    assert not included(LEAVES[0], 0, 4, [LEAVES[1]], mth(0, 2))
    assert not consistent(3, mth(0, 7), 4, mth(0, 8), consistency_proof(7, 8, READ))
    assert not consistent(2, mth(0, 2), 8, mth(0, 4), consistency_proof(2, 4, READ))
    assert not consistent(3, mth(0, 3), 7, mth(0, 7), [])


def test_a_node_does_not_pass_for_an_entry() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)
    assert not included(node_hash(left, right), 0, 4, [mth(2, 4)], mth(0, 4))


def test_bytes_cannot_move_between_the_two_halves_of_a_node() -> None:
    for size in range(1, 40):
        top = mth(0, size)
        for index in range(size):
            old, old_root = index + 1, mth(0, index + 1)
            assert not any(included(LEAVES[index], index, size, bad, top) for bad in resized(inclusion_proof(index, size, READ)))
            assert not any(consistent(old, old_root, size, top, bad) for bad in resized(consistency_proof(old, size, READ)))
    joined = LEAVES[0] + LEAVES[1]
    assert not included(joined[:31], 0, 2, [joined[31:]], mth(0, 2))
    assert not included(joined, 0, 2, [b""], mth(0, 2))
    assert not consistent(1, joined[:31], 2, mth(0, 2), [joined[31:]])


def test_a_rewritten_log_is_not_consistent_with_the_old_one() -> None:
    rewritten = [*LEAVES[:5], STRANGER, *LEAVES[6:20]]
    read = reader(stored(rewritten))
    for old in range(6, 21):
        proof = consistency_proof(old, 20, read)
        assert consistent(old, root(old, read), 20, root(20, read), proof)
        assert not consistent(old, mth(0, old), 20, root(20, read), proof)
    assert consistent(5, mth(0, 5), 20, root(20, read), consistency_proof(5, 20, read))


def test_a_log_that_was_cut_is_not_consistent_with_the_longer_one() -> None:
    for proof in ([], [STRANGER], consistency_proof(5, 8, READ)):
        assert not consistent(8, mth(0, 8), 5, mth(0, 5), proof)
    assert not consistent(8, mth(0, 8), 5, mth(0, 8), [])


def test_two_logs_of_one_size_are_consistent_only_with_the_same_root_and_an_empty_proof() -> None:
    assert consistency_proof(7, 7, READ) == []
    assert consistent(7, mth(0, 7), 7, mth(0, 7), [])
    assert not consistent(7, mth(0, 7), 7, STRANGER, [])
    assert not consistent(7, mth(0, 7), 7, mth(0, 7), [mth(0, 7)])


def test_every_log_continues_the_empty_one_and_nothing_else_of_size_0() -> None:
    assert consistency_proof(0, 7, READ) == []
    assert consistent(0, EMPTY_ROOT, 7, mth(0, 7), [])
    assert consistent(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not consistent(0, STRANGER, 7, mth(0, 7), [])
    assert not consistent(0, EMPTY_ROOT, 0, STRANGER, [])
    assert not consistent(0, EMPTY_ROOT, 7, mth(0, 7), [STRANGER])
    assert not consistent(-1, EMPTY_ROOT, 7, mth(0, 7), [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 5), (5, 5)])
def test_nobody_gets_an_inclusion_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_proof(index, size, READ)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 5), (1, 0)])
def test_nobody_gets_a_consistency_proof_from_a_longer_tree_to_a_shorter(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="does not begin with"):
        consistency_proof(old, new, READ)


@given(st.binary(max_size=40), st.integers(), st.integers(), st.lists(st.binary(max_size=40)), st.binary(max_size=40))
def test_an_arbitrary_proof_is_refused_and_breaks_nothing(
    leaf: bytes, index: int, size: int, proof: list[bytes], top: bytes
) -> None:
    assert not included(leaf, index, size, proof, top)
    assert not consistent(index, leaf, size, top, [*proof, STRANGER])


# ----------------------------------------------------------------------- cost


def test_proofs_in_the_largest_tree_read_few_nodes_and_verify() -> None:
    same = [leaf_hash(b"")]  # every leaf alike, so a node's hash depends on its level only
    for _ in range(63):
        same.append(node_hash(same[-1], same[-1]))
    reads = 0

    def read(level: int, _position: int) -> bytes:
        nonlocal reads
        reads += 1
        return same[level]

    top, size = root(MAX_SIZE, read), MAX_SIZE
    for index in (0, 1, 2**62 - 1, 2**62, size - 2, size - 1):
        verify_inclusion(same[0], index, size, inclusion_proof(index, size, read), top)
        verify_consistency(index + 1, root(index + 1, read), size, top, consistency_proof(index + 1, size, read))
    assert len(Frontier(2**62 - 1, read).append(same[0])) == 63
    assert reads < 20 * 130
