"""Tile names: judged by the examples of C2SP tlog-tiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.merkle import MAX_SIZE, Frontier, leaf_hash
from ca.tiles import FULL_WIDTH, Tile

TILES = st.tuples(st.integers(0, 7), st.integers(0, MAX_SIZE), st.integers(1, FULL_WIDTH)).filter(
    lambda fields: (fields[1] * FULL_WIDTH + fields[2]) << 8 * fields[0] <= MAX_SIZE
)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/x001/x234/067", Tile(0, 1234067)),  # the specification's example
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/272", Tile(0, 272)),  # these five are its tree of 70,000 leaves
        ("tile/0/273.p/112", Tile(0, 273, 112)),
        ("tile/1/000", Tile(1, 0)),
        ("tile/1/001.p/17", Tile(1, 1, 17)),
        ("tile/2/000.p/1", Tile(2, 0, 1)),
        ("tile/0/x001/000.p/255", Tile(0, 1000, 255)),
    ],
)
def test_a_tile_is_written_as_the_specification_writes_it(path: str, tile: Tile) -> None:
    assert str(tile) == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/0/x001/x000",
        "tile/0/001/000", "tile/00/000", "tile/8/000.p/1", "tile/63/000.p/1", "tile/64/000", "tile/-1/000", "tile/0/-01",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p", "tile/0/000/p/1",
        "/tile/0/000", "tile/0/000/", "tile/0/000\n", "tile/0/000 ", "tile/0/٠٠٠", "tile/0/X001/000", "tile/0/x1/000",
        "tile/0//000", "tile/0/../000", "tile/0/000.p/1.p/1", "tile/entries/000", "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 10_000 + "999", "tile/7/127", "tile/" + "9" * 5000 + "/000",
    ],
)  # fmt: skip
def test_any_other_spelling_of_a_tile_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Tile.parse(path)


@pytest.mark.parametrize(
    "fields", [(-1, 0, 1), (8, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257), (0, 2**55 - 1, 256), (7, 127, 256)]
)
def test_a_tile_that_no_tree_has_cannot_be_made(fields: tuple[int, int, int]) -> None:
    Tile(0, 2**55 - 1, 255)  # the last tile of the largest tree
    with pytest.raises(Malformed):
        Tile(*fields)


@given(TILES)
def test_a_tile_survives_its_path(fields: tuple[int, int, int]) -> None:
    assert Tile.parse(str(Tile(*fields))) == Tile(*fields)


@given(st.text("tile/0123456789x.p\n ", max_size=40))
def test_text_is_a_tiles_path_or_malformed(path: str) -> None:
    try:
        tile = Tile.parse(path)
    except Malformed:
        return
    assert str(tile) == path


def test_the_specifications_tree_of_70000_leaves_has_every_node_of_its_tiles_and_not_one_more() -> None:
    frontier = Frontier()
    nodes = [(level, position) for _ in range(70_000) for level, position, _ in frontier.append(leaf_hash(b""))]
    tiles = [*(Tile(0, index) for index in range(273)), Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    named = [node for tile in tiles for node in tile.nodes()]
    assert sorted(named) == sorted(node for node in nodes if node[0] % 8 == 0)
