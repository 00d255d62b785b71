"""Which entries are wanted, as SQL."""

import json
from dataclasses import dataclass
from typing import Final

_VISIBLE: Final = """
    SELECT 0
    UNION SELECT idx FROM entries WHERE actor = ?
    UNION SELECT idx FROM entries WHERE person = ? AND kind IN ('revoke', 'lock', 'unlock', 'break-glass', 'review', 'login')
    UNION SELECT answers.idx FROM entries AS asked JOIN entries AS answers ON answers.request = asked.idx
        WHERE asked.actor = ? AND asked.kind = 'request' AND answers.kind IN ('approve', 'deny')
"""


_OF_CASE: Final = """
    WITH asked (idx) AS (
        SELECT ? UNION SELECT idx FROM entries INDEXED BY entries_request WHERE request = ? AND kind = 'request'
    ),
    told (idx) AS (
        SELECT idx FROM asked
        UNION SELECT about.idx FROM asked JOIN entries AS about INDEXED BY entries_request ON about.request = asked.idx
    )
    SELECT idx FROM told
    UNION SELECT reading.idx FROM told JOIN entries AS reading INDEXED BY entries_request ON reading.request = told.idx
        WHERE reading.kind = 'read'
"""


@dataclass(frozen=True)
class Filter:
    """Which entries to list: all that is given must hold. Times are Unix milliseconds, `since` ≤ time < `until`."""

    actor: str | None = None
    role: str | None = None
    kind: str | None = None
    since: int | None = None
    until: int | None = None
    serial: int | None = None
    request: int | None = None
    start: int | None = None  # index, with it the oldest come first
    before: int | None = None  # index
    among: tuple[int, ...] | None = None  # indices
    case: int | None = None  # the first request of a case: all that names it or one of its requests, and who read it
    visible_to: str | None = None  # a person: only entries of their own or about them, answers to them, and the genesis

    def where(self) -> tuple[str, list[object]]:
        """An SQL condition and its arguments."""
        conditions = [
            ("actor = ?", self.actor),
            ("role = ?", self.role),
            ("kind = ?", self.kind),
            ("time >= ?", self.since),
            ("time < ?", self.until),
            ("idx = ? AND kind = 'issue'", self.serial),
            ("request = ?", self.request),
            ("idx >= ?", self.start),
            ("idx < ?", self.before),
            ("idx IN (SELECT value FROM json_each(?))", None if self.among is None else json.dumps(self.among)),
            (f"idx IN ({_OF_CASE})", self.case),
            (f"idx IN ({_VISIBLE})", self.visible_to),
        ]
        given = [(sql, value) for sql, value in conditions if value is not None]
        return " AND ".join(sql for sql, _ in given) or "true", [value for sql, value in given for _ in range(sql.count("?"))]
