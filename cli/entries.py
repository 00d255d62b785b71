"""Reading the log's entries from the CA, page by page. What comes is the CA's word, until `jit-ssh log verify` has checked it."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlencode

from ca import entry
from ca.canonical import parse_object
from ca.errors import Malformed, NotFound
from cli import output
from cli.answers import Members
from cli.client import Client

_PAGE: Final = 1000  # entries that the CA gives at once
_TOO_LARGE: Final = 10**18  # for the CA to read; no log has so many entries
_LARGEST_PAGE: Final = 2 * _PAGE * entry.LARGEST  # bytes: JSON in JSON may double


def newest(client: Client, asked: Mapping[str, object], limit: int) -> Iterator[bytes]:
    """At most `limit` entries that the query `asked` selects, the newest first."""
    before: dict[str, object] = {}
    while limit > 0:
        page, more = _page(client, {**asked, **before, "limit": min(limit, _PAGE)})
        yield from page
        limit -= len(page)
        if not more or not page:
            return
        before = {"before": index(page[-1])}


def one(client: Client, number: int) -> bytes:
    """The entry of this index. Raises `NotFound`."""
    page, _ = _page(client, {"start": number, "limit": 1}) if number < _TOO_LARGE else ([], False)
    if not page or index(page[0]) != number:
        raise NotFound(f"there is no entry {number}, or it is not yours to read", "List those that are with: jit-ssh log")
    return page[0]


def follow(client: Client, asked: Mapping[str, object], start: int, wait: int) -> Iterator[list[bytes]]:
    """The entries from `start` on that the query `asked` selects, as they come; asks again every `wait` seconds, for ever.

    Each page is asked for with a statement of its own.
    """
    while True:
        query = {**asked, "start": start, "wait": wait, "limit": _PAGE}
        answer = Members.parse(client.read(f"/v1/log/entries?{urlencode(query)}", _LARGEST_PAGE, wait))
        page = [text.encode() for text in answer.texts("entries")]
        if page:
            yield page
        start = max(start, index(page[-1]) + 1 if page else 0, 0 if answer.flag("more") else answer.integer("size"))


def visible(client: Client, size: int) -> Iterator[tuple[int, bytes]]:
    """The entries that this person may read, below `size`: those after it came while this was running."""
    start, more = 0, True
    while more and start < size:
        page, more = _page(client, {"start": start, "limit": _PAGE})
        if more and not page:
            raise Malformed("there are more entries, and none of them was given")
        for source in page:
            number = index(source)
            if number < start:
                raise Malformed(f"entry {number} comes after entry {start - 1}")
            start = number + 1
            if number < size:
                yield number, source


def _page(client: Client, query: Mapping[str, object]) -> tuple[list[bytes], bool]:
    answer = Members.parse(client.read(f"/v1/log/entries?{urlencode(query)}", _LARGEST_PAGE))
    if "searched" in answer and answer.integer("searched") < answer.integer("size"):
        output.talk(f"{answer.integer('searched')} of {answer.integer('size')} entries were searched: again for the rest")
    return [text.encode() for text in answer.texts("entries")], answer.flag("more")


def index(source: bytes) -> int:
    """The index that an entry says it has. Raises `Malformed`."""
    return Members(parse_object(source, "the entry"), "the entry").integer("index")
