"""The log as files (C2SP tlog-tiles): hashes for everybody, entries for auditors. What is full never changes, and may be kept."""

from flask import Response

from ca.errors import LogDamaged, NotFound
from ca.storage import Reading
from ca.tiles import FULL_WIDTH, Bundle, Tile, pack

_FOR_EVER = "max-age=31536000, immutable"
_LATER = "The checkpoint says how large the log is"


def hashes(store: Reading, path: str) -> Response:
    """A tile of hashes. Raises `Malformed`, and `NotFound` for one that is not there yet."""
    tile = Tile.parse(path)
    try:
        content = b"".join(store.node(level, position) for level, position in tile.nodes())
    except LogDamaged as error:
        raise NotFound(f"{tile} is not there, or not yet", _LATER) from error
    return _kept(content, tile.width, "public")


def bundle(store: Reading, path: str) -> Bundle:
    """The bundle at a path, whose entries are all there. Raises `Malformed` or `NotFound`."""
    found = Bundle.parse(path)
    if found.end > store.size():
        raise NotFound(f"{found} is not there, or not yet", _LATER)
    return found


def entries(store: Reading, wanted: Bundle) -> Response:
    """The entries of a bundle, for one reader."""
    return _kept(pack(store.entries(wanted.start, wanted.end)), wanted.width, "private")


def _kept(content: bytes, width: int, by_whom: str) -> Response:
    """An answer that may be kept if it is full; what is partial is soon a part of another, and nobody asks for it again."""
    answer = Response(content, mimetype="application/octet-stream")
    if width == FULL_WIDTH:
        answer.headers["Cache-Control"] = f"{by_whom}, {_FOR_EVER}"
    return answer
