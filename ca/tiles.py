"""Names of the log's hash tiles (C2SP tlog-tiles): 256 hashes of one level each, so that a reader fetches few files.

A tile names complete nodes only: a full one never changes, a partial one (1 to 255 hashes) is a prefix of the full one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ca.errors import Malformed
from ca.merkle import MAX_SIZE

FULL_WIDTH: Final = 256
_HEIGHT: Final = 8  # levels of the tree in one level of tiles
_TOP_LEVEL: Final = MAX_SIZE.bit_length() // _HEIGHT  # C2SP numbers them up to 63; no tree is that high
_PATH: Final = re.compile(r"tile/(\d{1,2})/((?:x\d{3}/){0,6}\d{3})(?:\.p/(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes of tree level 8·`level`, from position 256·`index` on.

    Raises `Malformed` for a tile that no tree has.
    """

    level: int
    index: int
    width: int = FULL_WIDTH

    def __post_init__(self) -> None:
        possible = 0 <= self.level <= _TOP_LEVEL and self.index >= 0 and 1 <= self.width <= FULL_WIDTH
        if not possible or (self.index * FULL_WIDTH + self.width) << _HEIGHT * self.level > MAX_SIZE:
            raise Malformed(f"no log has a tile {self.index} of width {self.width} at level {self.level}")

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Reads `tile/<L>/<N>[.p/<W>]`, relative to the log's address; raises `Malformed` for any other spelling."""
        fields = _PATH.fullmatch(path)
        if not fields:
            raise Malformed(f"{path[:80]!a} is not the path of a tile")
        level, index, width = fields.groups()
        tile = cls(int(level), int(re.sub("[x/]", "", index)), int(width or FULL_WIDTH))
        if str(tile) != path:
            raise Malformed(f"{path[:80]!a} is not how that tile is written", f"its path is {tile}")
        return tile

    def __str__(self) -> str:
        groups = f"{self.index:,}".split(",")
        *heads, last = [group.zfill(3) for group in groups]
        number = "/".join([*("x" + head for head in heads), last])
        return f"tile/{self.level}/{number}" + (f".p/{self.width}" if self.width < FULL_WIDTH else "")

    def nodes(self) -> Iterator[tuple[int, int]]:
        """The nodes (level, position) whose hashes, concatenated, are this tile."""
        start = self.index * FULL_WIDTH
        return ((self.level * _HEIGHT, position) for position in range(start, start + self.width))
