"""One connection to the database, and every statement of SQL that the log needs."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NoReturn

from sqlite_utils import Database

from ca.errors import LogDamaged
from ca.merkle import Node
from ca.store.filter import Filter
from ca.store.schema import schemas
from ca.store.sound import RESTORE, demand_sound

ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)  # the second for words of a damaged schema in SQLite's own message
_ROOM: Final = 16 * 1024  # KiB for pages while indexes are compared, in no order: with less it takes half as long again
_REQUEST: Final = """
    WITH asked (idx, first, person) AS (SELECT idx, coalesce(request, idx), actor FROM entries WHERE idx = ? AND kind = 'request')
    SELECT idx FROM asked
    UNION ALL SELECT answer.idx FROM asked JOIN entries AS answer INDEXED BY entries_request ON answer.request = asked.idx
        WHERE answer.kind IN ('approve', 'deny', 'withdraw')
    UNION ALL SELECT (SELECT min(idx) FROM entries INDEXED BY entries_request WHERE request = asked.idx AND kind = 'issue')
        FROM asked WHERE EXISTS (SELECT 1 FROM entries INDEXED BY entries_request WHERE request = asked.idx AND kind = 'issue')
    UNION ALL SELECT ending.idx FROM asked JOIN entries AS ending INDEXED BY entries_request ON ending.request = asked.first
        WHERE ending.kind IN ('drop', 'revoke') AND ending.idx > asked.idx
    UNION ALL SELECT ending.idx FROM asked JOIN entries AS ending INDEXED BY entries_person ON ending.person = asked.person
        WHERE ending.kind IN ('revoke', 'lock') AND ending.request IS NULL AND ending.idx > asked.idx
    ORDER BY 1
"""
_SESSION: Final = """
    SELECT line.idx FROM entries AS used JOIN entries AS line INDEXED BY entries_kind ON line.kind = used.kind
        WHERE used.idx = ? AND used.kind = 'break-glass' AND json_extract(line.entry, '$.kit') = json_extract(used.entry, '$.kit')
        AND json_extract(line.entry, '$.line') ->> '$.session' = json_extract(used.entry, '$.line') ->> '$.session'
    ORDER BY 1
"""


class Session:
    """The statements of the log over one connection: the `Reading` and `Writing` of `ca.log`."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.failure: BaseException | None = None  # the first of this transaction, which SQLite may have ended then

    def _rows(self, sql: str, *arguments: object) -> Iterator[Any]:
        try:
            for row in self.db.execute(sql, arguments):  # noqa: UP028 - `yield from` closes cursors, also those of a closed database
                yield row
        except ERRORS as error:
            self._fail(error)

    def _all(self, sql: str, *arguments: object) -> list[Any]:
        """What few rows hold in their first column: in one go, which is what issuing asks for many times."""
        try:
            return [row[0] for row in self.db.conn.execute(sql, arguments).fetchall()]
        except ERRORS as error:
            self._fail(error)

    def _one(self, sql: str, *arguments: object) -> Any:
        found = self._all(sql, *arguments)
        return found[0] if found else None

    def _fail(self, error: sqlite3.Error | UnicodeDecodeError) -> NoReturn:
        if isinstance(error, sqlite3.Error):
            self.failure = self.failure or error
        undecodable = isinstance(error, UnicodeDecodeError | sqlite3.OperationalError) and not error_name(error)  # Python's own
        if undecodable or error_name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise LogDamaged(f"the database cannot be read: {error}", RESTORE) from error
        raise error

    def _insert(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        if self.failure:  # whoever met it may have gone on; outside a transaction these rows would stay alone
            raise self.failure
        try:
            self.db.conn.executemany(sql, rows)
        except BaseException as error:  # also for want of memory, in the middle of them
            self.failure = error
            raise

    def size(self) -> int:
        return int(self._one("SELECT coalesce(max(idx) + 1, 0) FROM entries"))

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        sql = "SELECT entry FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        return map(_source, self._rows(sql, start, end))

    def numbered(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        sql = "SELECT entry, idx FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        for row in self._rows(sql, start, end):
            yield row[1], _source(row)

    def select(self, wanted: Filter, most: int) -> list[bytes]:
        where, arguments = wanted.where()
        order = "DESC" if wanted.start is None else "ASC"
        sql = f"SELECT entry FROM entries WHERE {where} ORDER BY idx {order} LIMIT ?"  # noqa: S608 - fixed words, bound values
        return [_source(row) for row in self._rows(sql, *arguments, most)]

    def node(self, level: int, position: int) -> bytes:
        found = self._one("SELECT hash FROM nodes WHERE level = ? AND position = ?", level, position)
        if not isinstance(found, bytes):
            raise LogDamaged(f"node {position} of level {level} is missing", RESTORE)
        return found

    def nodes(self, level: int) -> Iterator[bytes]:
        sql = "SELECT position, hash FROM nodes WHERE level = ? ORDER BY position"
        for expected, (position, found) in enumerate(self._rows(sql, level)):
            if position != expected:
                raise LogDamaged(f"node {expected} of level {level} is missing", RESTORE)
            yield found

    def statement(self, statement_id: str) -> int | None:
        found = self._one("SELECT idx FROM entries WHERE statement_id = ?", statement_id)
        return None if found is None else int(found)

    def newest(self, kind: str) -> bytes | None:
        found = self._one("SELECT entry FROM entries WHERE kind = ? ORDER BY idx DESC LIMIT 1", kind)
        return None if found is None else str(found).encode()

    def request(self, index: int) -> list[int]:
        return self._all(_REQUEST, index)

    def requests(self, person: str, role: str, since: int, *, most: int) -> list[int]:
        sql = "SELECT idx FROM entries WHERE actor = ? AND role = ? AND kind = 'request' AND time >= ? ORDER BY idx DESC LIMIT ?"
        return self._all(sql, person, role, since, most)

    def newest_requests(self, since: int) -> list[int]:
        sql = "SELECT max(idx) FROM entries WHERE kind = 'request' AND time >= ? GROUP BY actor, role ORDER BY 1 DESC"
        return [row[0] for row in self._rows(sql, since)]

    def acted(self, person: str) -> bool:
        return self._one("SELECT 1 FROM entries WHERE actor = ? LIMIT 1", person) is not None

    def locked(self) -> frozenset[str]:
        sql = "SELECT person, kind, max(idx) FROM entries WHERE kind IN ('lock', 'unlock') GROUP BY person"
        return frozenset(row[0] for row in self._rows(sql) if row[1] == "lock")  # the kind is that of the largest index

    def locks(self) -> Mapping[str, int]:
        return dict(self._rows("SELECT person, max(idx) FROM entries WHERE kind IN ('lock', 'unlock') GROUP BY person"))

    def reviewed(self, use: int) -> int | None:
        found = self._one("SELECT idx FROM entries INDEXED BY entries_request WHERE request = ? AND kind = 'review'", use)
        return None if found is None else int(found)

    def session(self, use: int) -> list[int]:
        return self._all(_SESSION, use)

    def checkpoint(self) -> str | None:
        found = self._one("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        return None if found is None else str(found)

    def checkpoints(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        sql = "SELECT size, note FROM checkpoints WHERE size >= ? AND size < ? ORDER BY size"
        return ((int(size), str(note)) for size, note in self._rows(sql, start, end))

    def checkpoint_over(self, index: int) -> str | None:
        found = self._one("SELECT note FROM checkpoints WHERE size > ? ORDER BY size LIMIT 1", index)
        return None if found is None else str(found)

    def policy_file(self, digest: str) -> bytes | None:
        found = self._one("SELECT content FROM policy_files WHERE sha256 = ?", digest)
        return None if found is None else bytes(found)

    def demand_sound(self) -> None:
        before = self._one("PRAGMA cache_size")
        self.db.execute(f"PRAGMA cache_size = {-_ROOM}")
        try:
            demand_sound(self._rows, schemas())
        finally:
            self.db.execute(f"PRAGMA cache_size = {before}")

    def generation(self) -> int:
        return int(self._one("PRAGMA data_version"))  # of the commits by other connections than this one

    def add(self, entries: Iterable[tuple[int, bytes]]) -> None:
        self._insert("INSERT INTO entries (idx, entry) VALUES (?, ?)", [(index, source.decode()) for index, source in entries])

    def add_checkpoint(self, size: int, note: str, nodes: Iterable[Node]) -> None:
        self._insert("INSERT INTO nodes (level, position, hash) VALUES (?, ?, ?)", nodes)
        self._insert("INSERT INTO checkpoints (size, note) VALUES (?, ?)", [(size, note)])

    def add_files(self, files: Mapping[str, bytes]) -> None:
        for content in files.values():
            if self.policy_file(digest := sha256(content).hexdigest()) is None:
                self._insert("INSERT INTO policy_files (sha256, content) VALUES (?, ?)", [(digest, content)])


def _source(row: Sequence[Any]) -> bytes:
    """The bytes of an entry. What is no text was not logged."""
    if not isinstance(row[0], str):
        raise LogDamaged("the database cannot be read: an entry is missing where one should be", RESTORE)
    return row[0].encode()


def error_name(error: Exception) -> str:
    """SQLite's extended name of an error; Python's own have none."""
    return str(getattr(error, "sqlite_errorname", ""))
