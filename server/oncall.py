"""Who is on call, kept at hand: a decision never waits for a network.

Each source has a thread of its own, which asks it again three times within the schedule's `max_age` and owns its newest answer.
The first source in order with an answer that is young enough speaks for the schedule; when none has one, what is known is a
sentence that says why. Nothing is stored: after a restart the first decision waits for the first answers, `SECONDS` at most.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ca import oncall
from ca.oncall import Rota, Schedule, Shift, Slot
from server.oncall_sources import SECONDS, NoAnswer, ask

_ASKED_IN_AGE: Final = 3  # times: two failures in a row are no outage
_SILENT: Final = "did not answer"

Clock = Callable[[], float]  # Unix seconds

_log = logging.getLogger("jit-ssh")


@dataclass(frozen=True)
class _Answer:
    slots: tuple[Slot, ...]
    asked: float  # Unix seconds; what was said may have been true only then


class _Watch:
    """One source's newest answer. Its thread alone writes; each value is replaced whole, so that readers need no lock."""

    def __init__(self, name: str, asking: Callable[[float], tuple[Slot, ...]], every: float, clock: Clock) -> None:
        self.answer: _Answer | None = None
        self.failure: str | None = None  # empty while it answers, None before it was asked
        self._name = name
        self._ask = asking
        self._every = every
        self._clock = clock
        self._began = time.monotonic()
        self._tried, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name=name, daemon=True)
        self._thread.start()

    def await_first(self) -> None:
        """Returns when the source was asked once, or could have been."""
        self._tried.wait(max(0, self._began + SECONDS - time.monotonic()))

    def stop(self) -> None:
        """Asks no more. An answer that is on its way is not waited for."""
        self._stopped.set()

    def join(self, deadline: float) -> None:
        """Waits until the thread has ended, or `time.monotonic()` is at the deadline: a look-up of a name can take longer."""
        self._thread.join(max(0, deadline - time.monotonic()))

    def _keep_asking(self) -> None:
        while not self._stopped.is_set():
            asked = self._clock()
            try:
                self.answer = _Answer(self._ask(asked), asked)
                self._say("")
            except NoAnswer as error:
                self._say(str(error))
            except Exception as error:  # the thread has to live; the message could hold what is secret
                self._say(f"could not be asked ({type(error).__name__})")
            self._tried.set()
            self._stopped.wait(self._every)

    def _say(self, failure: str) -> None:
        if failure != self.failure:
            self.failure = failure
            _log.log(logging.WARNING if failure else logging.INFO, "on call: %s %s", self._name, failure or "answers")


class OnCall:
    """What the schedules of the policy in use say. Any thread may ask."""

    def __init__(self, directory: Path, schedules: Callable[[], Mapping[str, Schedule]], clock: Clock = time.time) -> None:
        """`schedules` gives those of the policy in use, the same object until that changes."""
        self._directory = directory
        self._schedules = schedules
        self._clock = clock
        self._lock = threading.Lock()  # over the two below
        self._followed: Mapping[str, Schedule] = {}
        self._watches: dict[str, tuple[_Watch | Rota, ...]] = {}
        self._follow()

    def facts(self, person: str) -> Mapping[str, Shift | str]:
        """For each schedule the person's shift, or a sentence that says why it is not known. A schedule is looked at once."""
        followed, watches = self._follow()
        return _Facts(followed, lambda name: self._fact(name, followed[name], watches[name], person))

    def close(self) -> None:
        """Stops asking."""
        with self._lock:
            ending = list(_each(self._watches.values()))
            self._followed, self._watches, self._schedules = {}, {}, dict
        for watch in ending:
            watch.stop()
        deadline = time.monotonic() + SECONDS + 1
        for watch in ending:
            watch.join(deadline)

    def _follow(self) -> tuple[Mapping[str, Schedule], dict[str, tuple[_Watch | Rota, ...]]]:
        """The schedules of the policy in use and their watches; a schedule that stayed as it was keeps its answers."""
        with self._lock:
            wanted = self._schedules()
            if wanted is not self._followed:
                stay = {name for name, schedule in wanted.items() if self._followed.get(name) == schedule}
                for watch in _each(self._watches[name] for name in self._watches.keys() - stay):
                    watch.stop()
                self._watches = {
                    name: self._watches[name] if name in stay else tuple(self._begin(name, schedule))
                    for name, schedule in wanted.items()
                }
                self._followed = wanted
            return self._followed, self._watches

    def _begin(self, name: str, schedule: Schedule) -> Iterator[_Watch | Rota]:
        for source in schedule.sources:
            if isinstance(source, Rota):
                yield source  # it is in the policy itself
            else:
                asking = partial(ask, schedule, source, self._directory)
                yield _Watch(f"{source.label} of {name}", asking, schedule.max_age / _ASKED_IN_AGE, self._clock)

    def _fact(self, name: str, schedule: Schedule, watches: tuple[_Watch | Rota, ...], person: str) -> Shift | str:
        failures = []
        for source, watch in zip(schedule.sources, watches, strict=True):
            if isinstance(watch, Rota):
                now = self._clock()
                return oncall.shift(name, source.label, watch.slots(now), person, now, 0)
            watch.await_first()
            answer, failure, now = watch.answer, watch.failure, self._clock()
            age = None if answer is None else math.ceil(now - answer.asked)
            if answer and age is not None and 0 <= age <= schedule.max_age:
                return oncall.shift(name, source.label, answer.slots, person, now, age)
            failures.append(f"{source.label} {failure or _SILENT}{oncall.kept(age, schedule.max_age)}")
        return f"unknown: {'; '.join(failures)}"


class _Facts(Mapping[str, Shift | str]):
    """What is found when a decision asks for it: most ask for no schedule, or for one of many. What was found stays so."""

    def __init__(self, schedules: Mapping[str, Schedule], find: Callable[[str], Shift | str]) -> None:
        self._schedules = schedules
        self._find = find
        self._found: dict[str, Shift | str] = {}

    def __getitem__(self, name: str) -> Shift | str:
        if name not in self._schedules:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._schedules)

    def __len__(self) -> int:
        return len(self._schedules)


def _each(watches: Iterable[tuple[_Watch | Rota, ...]]) -> Iterator[_Watch]:
    return (watch for some in watches for watch in some if isinstance(watch, _Watch))
