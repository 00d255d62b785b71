"""Figures: one measured value each, as a line of a table and as JSON."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Times = Sequence[float]  # milliseconds


@dataclass(frozen=True)
class Figure:
    """One measured value: of several times the median, with the least and the one that 99 of 100 do not exceed."""

    name: str
    value: float
    unit: str
    least: float | None = None
    p99: float | None = None
    goal: float | None = None
    more_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else (self.value >= self.goal) if self.more_is_better else (self.value <= self.goal)


def figure(name: str, times: Times, goal: float | None = None) -> Figure:
    """The figure of several times."""
    return Figure(name, median(times), "ms", min(times), percentile(times, 99), goal)


def percentile(times: Times, percent: int) -> float:
    """The time that `percent` of 100 do not exceed."""
    return sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]


def timed(call: Callable[[], object], count: int) -> Times:
    """How long each of `count` calls took, after one that is not counted."""
    call()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return times


def line(one: Figure) -> str:
    """A figure as a line of the table."""
    least, p99 = (" " * 10 if value is None else f"{value:10.2f}" for value in (one.least, one.p99))
    sign = "≥" if one.more_is_better else "≤"
    goal = "" if one.goal is None else f"   {sign} {one.goal:g} {'met' if one.met else 'missed'}"
    return f"{one.name:<62}{least}{one.value:10.2f}{p99} {one.unit:<3}{goal}"
