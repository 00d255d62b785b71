"""An end to waiting for others."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stopped_at(deadline: float, stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` when the deadline passes within the block; a timeout of the socket would begin anew with each byte.

    `deadline` is of the monotonic clock.
    """

    def stop_quietly() -> None:
        with suppress(OSError, AttributeError):  # it ended by itself meanwhile
            stop()

    timer = threading.Timer(max(0, deadline - time.monotonic()), stop_quietly)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
