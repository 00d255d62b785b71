"""The clock of the log's entries. It does not believe the machine's when that leaps ahead.

Entry times never go backwards, so one entry from next year stops issuing until then. A clock that runs is compared with the time
since the machine started, which nobody sets and which counts while it sleeps; at its own start there is nothing to compare with.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from ca.errors import ClockJumped

LEAP: Final = 300  # seconds that the clock may be set ahead at once


def since_boot() -> float:
    """Seconds since the machine started, asleep or awake where the system says so (Linux)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Steady:
    """`clock` (Unix seconds), as long as it does not leap ahead of `passed` (seconds). For many threads."""

    def __init__(self, clock: Callable[[], float], passed: Callable[[], float] = since_boot) -> None:
        self._clock = clock
        self._passed = passed
        self._turn = Lock()  # owns:
        self._ahead = clock() - passed()  # by how much it was, at most, when it was believed

    def __call__(self) -> float:
        """Unix seconds. Raises `ClockJumped`."""
        with self._turn:
            now = self._clock()
            ahead = now - self._passed()
            if (leapt := ahead - self._ahead) > LEAP:
                raise ClockJumped(
                    f"the clock leapt {leapt:.0f} s ahead while the CA was running, so nothing is issued",
                    "Set the clock of the CA's machine right; if it is right now, and was wrong before, start the CA again",
                )
            self._ahead = max(self._ahead, ahead)  # a clock that was set back may be set right again
            return now
