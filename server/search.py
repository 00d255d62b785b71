"""Free-text search over the log, in an index of its own beside the database.

The index is made from the log and thrown away when in doubt. It finds numbers; what is shown is read from the log. It is not
on the issuing path: it catches up when somebody searches.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final

from ca.errors import Malformed
from ca.log import Reading
from ca.merkle import leaf_hash

LONGEST: Final = 200  # characters that are searched for
MOST_FOUND: Final = 5000
_SECONDS: Final = 5.0  # that one search spends on catching up with the log
_PAGE: Final = 2000  # entries in one transaction
_INSERT: Final = """INSERT INTO words (rowid, actor, person, role, reason, message, principals, address)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_SCHEMA: Final = """
    CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(actor, person, role, reason, message, principals, address, content='');
    CREATE TABLE IF NOT EXISTS upto (size INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT;
"""


class Search:
    """The index in the file at `path` of the log in `store`. Safe to use from many threads."""

    def __init__(self, path: Path, store: Reading) -> None:
        self._path = path
        self._store = store
        self._turn = Lock()  # owns:
        self._connection: sqlite3.Connection | None = None

    def find(self, text: str) -> tuple[list[int], int]:
        """The newest entries, at most `MOST_FOUND`, that have all words of `text`, and how many entries were searched.

        A word that ends in `*` stands for every word that begins so. Raises `Malformed` for a text without words.
        """
        asked = words(text)
        with self._turn:
            try:
                return self._find(asked)
            except sqlite3.DatabaseError:  # spoilt, or another log's: nothing is lost with it
                self._begin_again()
                return self._find(asked)

    def _find(self, asked: str) -> tuple[list[int], int]:
        connection = self._opened()
        size = self._catch_up(connection)
        sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?"
        return [index for (index,) in connection.execute(sql, [asked, MOST_FOUND])], size

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.executescript(_SCHEMA)
        return self._connection

    def _begin_again(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._path.unlink(missing_ok=True)

    def _catch_up(self, connection: sqlite3.Connection) -> int:
        """Takes in entries for a while; the number of those that are in. Raises `DatabaseError` for the index of another log."""
        end = time.monotonic() + _SECONDS
        while True:
            connection.execute("BEGIN IMMEDIATE")
            try:
                size, more = self._take_in(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            if not more or time.monotonic() > end:
                return size

    def _take_in(self, connection: sqlite3.Connection) -> tuple[int, bool]:
        size, leaf = next(connection.execute("SELECT size, leaf FROM upto ORDER BY size DESC LIMIT 1"), (0, b""))
        if size and leaf_hash(next(self._store.entries(size - 1, size), b"")) != leaf:
            raise sqlite3.DatabaseError("it is the index of another log")
        page = list(self._store.entries(size, size + _PAGE))
        if page:
            rows = ((index, *_words(source)) for index, source in enumerate(page, start=size))
            connection.executemany(_INSERT, rows)
            size += len(page)
            connection.execute("DELETE FROM upto")
            connection.execute("INSERT INTO upto VALUES (?, ?)", [size, leaf_hash(page[-1])])
        return size, len(page) == _PAGE


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
