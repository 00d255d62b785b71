"""The log as files (C2SP tlog-tiles): hashes for everybody, entries for auditors. What is full never changes, and may be kept."""

import zlib
from collections.abc import Iterable
from typing import Final

from flask import Response, request

from ca.errors import LogDamaged, NotFound
from ca.storage import Reading
from ca.tiles import FULL_WIDTH, Bundle, Tile, pack

_FOR_EVER: Final = "max-age=31536000, immutable"
_GZIP: Final = zlib.MAX_WBITS | 16  # zlib's name for a gzip header, which says nothing of time or place
_LATER: Final = "The checkpoint says how large the log is"


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
    """The entries of a bundle, for one reader; compressed for whoever accepts it (RFC 9110 §12.5.3)."""
    found = store.entries(wanted.start, wanted.end)
    smaller = request.accept_encodings.best_match(("gzip", "identity")) == "gzip"
    answer = _kept(_compressed(found) if smaller else pack(found), wanted.width, "private")
    answer.vary.add("Accept-Encoding")
    if smaller:
        answer.content_encoding = "gzip"
    return answer


def _compressed(entries: Iterable[bytes]) -> bytes:
    """What `pack` gives, in gzip; of what it was before there is one entry at a time."""
    gzip = zlib.compressobj(wbits=_GZIP)
    parts = [gzip.compress(pack([each])) for each in entries]
    return b"".join([*parts, gzip.flush()])


def _kept(content: bytes, width: int, by_whom: str) -> Response:
    """An answer that may be kept if it is full; what is partial is soon a part of another, and nobody asks for it again."""
    answer = Response(content, mimetype="application/octet-stream")
    if width == FULL_WIDTH:
        answer.headers["Cache-Control"] = f"{by_whom}, {_FOR_EVER}"
    return answer
