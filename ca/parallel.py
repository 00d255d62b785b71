"""The same pure function over many values on all processors, in order, with a bounded number under way.

What runs elsewhere gets and gives copies: nothing is shared, and nothing here is needed to understand what is computed.
"""

import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from threading import Thread
from typing import Any, Final, TypeVar

from ca.errors import Misconfigured

_AHEAD: Final = 4  # values under way for each process
_A = TypeVar("_A")
_B = TypeVar("_B")


class Processes:
    """A `map` over processes of one's own. Raises `Misconfigured` when one of them was ended by somebody else."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool = pool
        self._most = count * _AHEAD

    def __call__(self, function: Callable[[_A], _B], values: Iterable[_A], /) -> Iterator[_B]:
        """The results in the order of the values."""
        under_way: deque[Future[_B]] = deque()
        try:
            for value in values:
                under_way.append(self._pool.submit(function, value))
                if len(under_way) >= self._most:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise Misconfigured("a process that shared the work was ended from outside", "Is there enough memory?") from error


@contextmanager
def processes(count: int | None = None) -> Iterator[Processes]:
    """As many processes as there are processors for this one, or `count`. They start empty and end with the block.

    Meanwhile no garbage is collected in this one either: see `_begin`.
    """
    count = count or os.cpu_count() or 1
    # Not forked: whoever calls may have threads, and what they hold at that moment would be held for ever.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)
    collected = gc.isenabled()
    gc.disable()
    try:
        yield Processes(pool, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if collected:
            gc.enable()


def beside(function: Callable[[], _A]) -> Callable[[], _A]:
    """Calls it in another thread. What comes back waits for its result, or raises what it raised; the program's end does not."""
    result: Future[_A] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # raised again where it is waited for
            result.set_exception(error)

    Thread(target=call, daemon=True).start()
    return result.result


def _begin(*_arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this, and ends this with it
    gc.disable()  # there are no cycles in what is judged, and looking for them takes a tenth of the time; more, the more is kept
