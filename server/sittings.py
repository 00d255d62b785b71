"""Who reads what others did leaves an entry: one for each sitting, not for each page or each time that a follower asks again.

A sitting is a person, what they look at (a case, or the log through one filter), and an hour. Reading on from where the last
answer ended belongs to it, and so does what has come since; another place in the log, another filter or another case does not.
It is in memory: after a restart somebody who reads on leaves one entry more, never one less.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Final

SITTING: Final = 3600  # seconds
_MOST: Final = 10_000  # sittings that are remembered
_END: Final = 2**63  # of a log, wherever that is


@dataclass(frozen=True)
class Place:
    """From where in the log somebody reads: onwards from `start`, backwards from `before`, or backwards from its end."""

    start: int | None = None
    before: int | None = None

    @property
    def index(self) -> int:
        """The index that the reading begins at."""
        return next((index for index in (self.start, self.before) if index is not None), _END)

    def to(self, last: int | None) -> tuple[int, int]:
        """What is read from here when `last` is the last entry of the answer, or None if there are no more."""
        if self.start is not None:
            return self.start, _END if last is None else last + 1
        return 0 if last is None else last, self.index


EVERYWHERE: Final = Place()  # of what has no places, such as a case


@dataclass
class _Sitting:
    began: float
    low: int
    high: int


class Sittings:
    """The sittings of everybody. For many threads."""

    def __init__(self) -> None:
        self._turn = Lock()  # owns:
        self._sittings: dict[tuple[str, str], _Sitting] = {}

    def has(self, person: str, what: str, place: Place, now: float) -> bool:
        """Whether reading `what` from this place on belongs to a sitting that has its entry."""
        with self._turn:
            sitting = self._current(person, what, now)
            return sitting is not None and sitting.low <= place.index <= sitting.high

    def begin(self, person: str, what: str, place: Place, now: float) -> None:
        """A sitting has its entry."""
        with self._turn:
            if len(self._sittings) >= _MOST:
                self._sittings.clear()
            self._sittings[person, what] = _Sitting(now, place.index, place.index)

    def goes_on(self, person: str, what: str, read: tuple[int, int], now: float) -> None:
        """This much was read in it."""
        with self._turn:
            if (sitting := self._current(person, what, now)) is not None:
                sitting.low, sitting.high = min(sitting.low, read[0]), max(sitting.high, read[1])

    def _current(self, person: str, what: str, now: float) -> _Sitting | None:
        sitting = self._sittings.get((person, what))
        return sitting if sitting is not None and 0 <= now - sitting.began < SITTING else None
