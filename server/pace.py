"""How fast one person may add to the log, so that nobody fills the disk that issuing depends on.

Each person has a budget of so many statements, which comes back over a minute. It is in memory: a restart forgives.

The rule here: whoever uses up a budget leaves entries that show it, and nobody uses it up for the person's own keys but these.
So what adds nothing is given back, and what the keys of a person's certificates sign has a budget of its own.
"""

import time
from collections.abc import Callable
from math import ceil
from threading import Lock

from ca.errors import TooMany

_MINUTE = 60.0  # seconds


class Pace:
    """`per_minute` statements of each person, all at once or one by one, and as many by the keys of their certificates.

    None for as many as they like. For many threads.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and never goes back."""
        self._per_minute = per_minute
        self._clock = clock
        self._turn = Lock()  # owns:
        self._spent: dict[tuple[str, bool], tuple[float, float]] = {}  # of each, and when; only known people get here

    def count(self, person: str, *, by_certificate: bool = False) -> None:
        """Takes one statement from the person's budget, or that of their certificates. Raises `TooMany` when it is used up."""
        if self._per_minute is None:
            return
        rate = self._per_minute / _MINUTE
        with self._turn:
            now = self._clock()
            spent, at = self._spent.get((person, by_certificate), (0.0, now))
            spent = max(0.0, spent - (now - at) * rate) + 1
            if spent <= self._per_minute:
                self._spent[person, by_certificate] = spent, now
                return
        seconds = ceil((spent - self._per_minute) / rate)
        who = f"the keys of {person}'s certificates" if by_certificate else person
        message = f"{who} signed more than {self._per_minute} statements within a minute: this one is not in the log"
        raise TooMany(message, f"Try again in {seconds} s", seconds)

    def give_back(self, person: str, *, by_certificate: bool = False) -> None:
        """Takes back a `count`: the statement added nothing to the log."""
        with self._turn:
            if (known := self._spent.get((person, by_certificate))) is not None:
                spent, at = known
                self._spent[person, by_certificate] = max(0.0, spent - 1), at
