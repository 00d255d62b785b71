"""Names of the log's tiles (C2SP tlog-tiles): 256 hashes of one level, or 256 entries, so that a reader fetches few files.

A tile names complete nodes only: a full one never changes, a partial one (1 to 255 hashes) is a prefix of the full one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from ca.errors import Malformed
from ca.merkle import MAX_SIZE

FULL_WIDTH: Final = 256
HEIGHT: Final = 8  # levels of the tree in one level of tiles
_TOP_LEVEL: Final = MAX_SIZE.bit_length() // HEIGHT  # C2SP numbers them up to 63; no tree is that high
_PATH: Final = re.compile(r"tile/(\d{1,2}|entries)/((?:x\d{3}/){0,6}\d{3})(?:\.p/(\d{1,3}))?", re.ASCII)


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
        if not possible or (self.index * FULL_WIDTH + self.width) << HEIGHT * self.level > MAX_SIZE:
            raise Malformed(f"no log has a tile {self.index} of width {self.width} at level {self.level}")

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Reads `tile/<L>/<N>[.p/<W>]`, relative to the log's address; raises `Malformed` for any other spelling."""
        level, index, width = _fields(path)
        if level == _ENTRIES:
            raise Malformed(f"{path[:80]!a} is not the path of a tile of hashes")
        return _spelled(cls(int(level), index, width), path)

    @classmethod
    def over(cls, level: int, position: int, size: int) -> "Tile":
        """The tile with the complete node of a tree of `size` leaves at `position` of tree level 8·`level`, as wide as it is."""
        index = position // FULL_WIDTH
        return cls(level, index, min(FULL_WIDTH, (size >> HEIGHT * level) - index * FULL_WIDTH))

    def __str__(self) -> str:
        return f"tile/{self.level}/{_numbered(self.index, self.width)}"

    def nodes(self) -> Iterator[tuple[int, int]]:
        """The nodes (level, position) whose hashes, concatenated, are this tile."""
        start = self.index * FULL_WIDTH
        return ((self.level * HEIGHT, position) for position in range(start, start + self.width))


@dataclass(frozen=True, slots=True)
class Bundle:
    """`width` entries from entry 256·`index` on.

    Raises `Malformed` for one that no log has.
    """

    index: int
    width: int = FULL_WIDTH

    def __post_init__(self) -> None:
        Tile(0, self.index, self.width)  # there are as many of them

    @classmethod
    def parse(cls, path: str) -> "Bundle":
        """Reads `tile/entries/<N>[.p/<W>]`, relative to the log's address; raises `Malformed` for any other spelling."""
        level, index, width = _fields(path)
        if level != _ENTRIES:
            raise Malformed(f"{path[:80]!a} is not the path of a tile of entries")
        return _spelled(cls(index, width), path)

    def __str__(self) -> str:
        return f"tile/{_ENTRIES}/{_numbered(self.index, self.width)}"

    @property
    def start(self) -> int:
        """The first of its entries."""
        return self.index * FULL_WIDTH

    @property
    def end(self) -> int:
        """The entry behind its last."""
        return self.start + self.width


_ENTRIES: Final = "entries"
TileOrBundle = TypeVar("TileOrBundle", Tile, Bundle)


def pack(entries: Iterable[bytes]) -> bytes:
    """The content of a bundle: each entry behind its length, two bytes, big-endian."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def _fields(path: str) -> tuple[str, int, int]:
    found = _PATH.fullmatch(path)
    if not found:
        raise Malformed(f"{path[:80]!a} is not the path of a tile")
    level, index, width = found.groups()
    return level, int(re.sub("[x/]", "", index)), int(width or FULL_WIDTH)


def _spelled(tile: TileOrBundle, path: str) -> TileOrBundle:
    if str(tile) != path:
        raise Malformed(f"{path[:80]!a} is not how that tile is written", f"its path is {tile}")
    return tile


def _numbered(index: int, width: int) -> str:
    groups = f"{index:,}".split(",")
    *heads, last = [group.zfill(3) for group in groups]
    return "/".join([*("x" + head for head in heads), last]) + (f".p/{width}" if width < FULL_WIDTH else "")
