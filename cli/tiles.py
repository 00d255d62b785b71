"""The log's tree as the CA serves it, in tiles. What comes is the CA's word, until it gives the root that was signed."""

from collections.abc import Iterator

from ca.errors import Malformed, NotFound
from ca.merkle import HASH_LENGTH, node_hash
from ca.tiles import FULL_WIDTH, HEIGHT, Tile
from cli.client import Address, exchange


def leaves(address: Address, size: int) -> Iterator[bytes]:
    """Every leaf hash of a log of this size, tile by tile."""
    for start in range(0, size, FULL_WIDTH):
        yield from _fetched(address, Tile.over(0, start, size))


class Nodes:
    """The complete nodes of a log of `size` entries; each tile is fetched once."""

    def __init__(self, address: Address, size: int) -> None:
        self._address = address
        self._size = size
        self._tiles: dict[Tile, list[bytes]] = {}

    def read(self, level: int, position: int) -> bytes:
        """The hash of a node, from the tile that has it or what is below it. Raises `Malformed` and what `exchange` raises."""
        row, above = divmod(level, HEIGHT)
        tile = Tile.over(row, position << above, self._size)
        if tile not in self._tiles:
            self._tiles[tile] = _fetched(self._address, tile)
        at = (position << above) % FULL_WIDTH
        below = self._tiles[tile][at : at + (1 << above)]
        while len(below) > 1:
            below = [node_hash(left, right) for left, right in zip(below[::2], below[1::2], strict=True)]
        return below[0]


def _fetched(address: Address, tile: Tile) -> list[bytes]:
    """A tile's hashes; a partial one may be gone when the full one is there (C2SP tlog-tiles)."""
    try:
        hashes = exchange(address, "GET", f"/log/{tile}")
    except NotFound:
        if tile.width == FULL_WIDTH:
            raise
        hashes = exchange(address, "GET", f"/log/{Tile(tile.level, tile.index)}")[: tile.width * HASH_LENGTH]
    if len(hashes) != tile.width * HASH_LENGTH:
        raise Malformed(f"{tile} has {len(hashes)} bytes, not {tile.width * HASH_LENGTH}")
    return [hashes[at : at + HASH_LENGTH] for at in range(0, len(hashes), HASH_LENGTH)]
