"""Threads that answer requests, and hand what they found out to the event loop."""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from server.gateway import Answer, Request

_log = logging.getLogger("jit-ssh")
MOST_TOGETHER: Final = 64  # requests that are answered at a time: so long the first of them waits for the last
Call = Callable[[], Any]
Done = Callable[[Any], None]  # called in the event loop, with what was returned or raised


class _Results:
    """What threads found out, on its way to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._results = deque[tuple[Done, Any]]()
        self._told = False  # whether the loop knows that there are some: it is woken once for many

    def add(self, results: Iterable[tuple[Done, Any]]) -> None:
        """Has each `Done` called. Raises `RuntimeError` when the loop is closed: the server stopped without these answers."""
        self._results.extend(results)
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._told = False  # first: what is added from here on wakes the loop again
        while self._results:
            done, result = self._results.popleft()
            try:
                done(result)
            except Exception as error:  # of one alone: the loop is told once of all that are here
                self._loop.call_exception_handler({"message": "an answer could not be handed over", "exception": error})


class Threads:
    """A fixed number of threads, which unlike an executor's are not waited for when the program ends.

    One that is cut off then is like a crash there: at worst it leaves an entry without a certificate. Belongs to one event loop.
    """

    def __init__(self, count: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._jobs = queue.SimpleQueue[tuple[Call, Done]]()
        self._results = _Results(loop)
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return self._jobs.qsize()

    def run(self, call: Call, done: Done) -> None:
        """Calls in the next free thread, and `done` with what it returned or raised in the event loop."""
        self._jobs.put((call, done))

    def _work(self) -> None:
        with suppress(RuntimeError):  # of the results, when the loop is closed
            while True:
                call, done = self._jobs.get()
                self._results.add([(done, _outcome(call))])


@dataclass(frozen=True)
class LastStep:
    """What gives a request its answer. Not `at_once` if it may wait for others, or take long."""

    answer: Callable[[], Answer]
    at_once: bool


class Together(Protocol):
    """An application that answers some requests many at a time."""

    def takes(self, asking: Request) -> bool:
        """Whether it is one of those."""

    def begin(self, many: Sequence[Request]) -> list[LastStep]:
        """Takes all steps but the last for all of them; the last one of each."""


class Gathering:
    """One thread, which begins all that has come while it was busy at once. Belongs to one event loop."""

    def __init__(self, together: Together, threads: Threads, loop: asyncio.AbstractEventLoop) -> None:
        """`threads` take the last steps that would hold up the others."""
        self._together = together
        self._threads = threads
        self._loop = loop
        self._jobs = queue.SimpleQueue[tuple[Request, Done]]()
        self._results = _Results(loop)
        self._coming: list[tuple[Request, Done]] = []
        threading.Thread(target=self._work, name="gathering", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many requests wait to be begun."""
        return self._jobs.qsize()

    def takes(self, asking: Request) -> bool:
        """Whether a request is one to `add`."""
        return self._together.takes(asking)

    def add(self, asking: Request, done: Done) -> None:
        """Has a request answered together with those that the event loop reads in the same turn."""
        if not self._coming:
            self._loop.call_soon(self._hand_over)
        self._coming.append((asking, done))

    def _hand_over(self) -> None:
        for job in self._coming:
            self._jobs.put(job)
        self._coming.clear()

    def _work(self) -> None:
        with suppress(RuntimeError):  # of the results, when the loop is closed
            while True:
                some = [self._jobs.get()]
                with suppress(queue.Empty):
                    while len(some) < MOST_TOGETHER:
                        some.append(self._jobs.get_nowait())
                self._answer(some)

    def _answer(self, some: Sequence[tuple[Request, Done]]) -> None:
        steps = _outcome(lambda: list(zip(some, self._together.begin([asking for asking, _ in some]), strict=True)))
        if isinstance(steps, BaseException):
            _log.error("%d requests failed together", len(some), exc_info=steps)
            self._results.add([(done, steps) for _, done in some])
            return
        results = []
        for (_, done), step in steps:
            if step.at_once:
                results.append((done, _outcome(step.answer)))
            else:
                self._threads.run(step.answer, done)
        self._results.add(results)


def _outcome(call: Call) -> Any:
    try:
        return call()
    except BaseException as caught:  # a SystemExit, too, goes to who asked, or it would cost a thread
        return caught
