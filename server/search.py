"""Free-text search over the log, in an index of this process alone.

The index is made from the log and dies with the process, so nobody's change of a file hides an entry from a search. It finds
numbers; what is shown is read from the log. It is not on the issuing path: it catches up when somebody searches.
"""

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final

from ca.errors import Malformed
from ca.log import Reading

LONGEST: Final = 200  # characters that are searched for
MOST_FOUND: Final = 5000
_SECONDS: Final = 5.0  # that one search spends on catching up with the log
_PAGE: Final = 2000  # entries in one transaction
_INSERT: Final = """INSERT INTO words (rowid, actor, person, role, reason, message, principals, address)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_SCHEMA: Final = """
    PRAGMA journal_mode = MEMORY;
    CREATE VIRTUAL TABLE words USING fts5(actor, person, role, reason, message, principals, address, content='');
"""


class Search:
    """The index of the log in `store`, in a file of `directory` that has no name. Safe to use from many threads."""

    def __init__(self, directory: Path, store: Reading) -> None:
        self._directory = directory
        self._store = store
        self._turn = Lock()  # owns:
        self._connection: sqlite3.Connection | None = None
        self._size = 0  # entries that are in

    def find(self, text: str) -> tuple[list[int], int]:
        """The newest entries, at most `MOST_FOUND`, that have all words of `text`, and how many entries were searched.

        A word that ends in `*` stands for every word that begins so. Raises `Malformed` for a text without words.
        """
        asked, sql = words(text), "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?"
        with self._turn:
            connection = self._opened()
            self._catch_up(connection)
            return [index for (index,) in connection.execute(sql, [asked, MOST_FOUND])], self._size

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".search.") as file:  # the name goes at once
                connection = sqlite3.connect(file.name, isolation_level=None, check_same_thread=False)
                connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Takes in entries for a while."""
        end = time.monotonic() + _SECONDS
        while True:
            page = list(self._store.entries(self._size, self._size + _PAGE))
            connection.execute("BEGIN")
            try:
                connection.executemany(_INSERT, ((index, *_words(source)) for index, source in enumerate(page, self._size)))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            self._size += len(page)
            if len(page) < _PAGE or time.monotonic() > end:
                return


def words(text: str) -> str:
    """Words of the person who searches in FTS5's own grammar, of which they cannot use more than the star.

    Raises `Malformed` for a text without words.
    """
    found = list(_quoted(text[:LONGEST]))
    if not found:
        raise Malformed("there is no word to search for", "Give words of the reason, or a person, role or account@host-group")
    return " ".join(found)


def _quoted(text: str) -> Iterator[str]:
    for word in text.split():
        bare = word.removesuffix("*").replace('"', '""').replace("\0", "")
        if any(character.isalnum() for character in bare):
            yield f'"{bare}"' + ("*" if word.endswith("*") else "")


def _words(source: bytes) -> tuple[Any, ...]:
    members = json.loads(source)
    said = json.loads(members.get("statement") or members.get("line", "{}"))  # a person's words, or a break-glass journal's
    principals = said.get("principals") or members.get("privilege", {}).get("principals", ())
    own = (members.get(name) for name in ("actor", "person", "role"))
    return *own, said.get("reason"), members.get("message"), " ".join(principals), members.get("address")
