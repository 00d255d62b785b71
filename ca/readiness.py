"""Whether the emergency key could be used today, and what somebody has to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ca.emergency import Emergency, fingerprint_of
from ca.entry import BreakGlassEntry, KitEntry, SealEntry

DRILL_AGE: Final = 90 * 24 * 3600  # seconds after which a drill is due
_DAY: Final = 24 * 3600


@dataclass(frozen=True)
class Readiness:
    """How it stands: the newest seal, its newest kit, the last drill that entered (Unix seconds), and the uses without a review.

    `concerns` is all that somebody has to do about it, a sentence each.
    """

    seal: SealEntry | None
    kit: KitEntry | None
    last_drill: int | None
    unreviewed: tuple[BreakGlassEntry, ...]
    concerns: tuple[str, ...]

    @classmethod
    def of(cls, emergency: Emergency, now: int, drill_age: int = DRILL_AGE) -> "Readiness":
        """How it stands at `now` (Unix seconds); a drill may be `drill_age` seconds old."""
        seal = emergency.seal
        kits = [each for each in emergency.kits.values() if seal is not None and each.seal == seal.index]
        concerns = tuple(_concerns(emergency, now, drill_age))
        return cls(seal, kits[-1] if kits else None, emergency.last_drill, tuple(emergency.unreviewed), concerns)


def _concerns(emergency: Emergency, now: int, drill_age: int) -> Iterator[str]:
    seal = emergency.seal
    if seal is None:
        yield "no emergency key is sealed: jit-ssh-ca break-glass init"
        return
    if not any(each.seal == seal.index for each in emergency.kits.values()):
        yield f"there is no kit for the key sealed in entry {seal.index}: jit-ssh-ca break-glass kit"
    yield from _drill(emergency.last_drill, now, drill_age)
    for use in emergency.unreviewed:
        yield f"the use in entry {use.index} by {use.person} awaits a review: jit-ssh review {use.index}"
    for strange in emergency.strange:
        if strange.login.ca == fingerprint_of(seal):
            where = strange.login.host or strange.login.address
            yield f"the login in entry {strange.index} ({where}) is one that no line speaks of: somebody else has the key: rotate"
    if (used := _used(emergency, seal)) is not None:
        yield f"its key was rebuilt for an emergency (entry {used.index}): jit-ssh-ca break-glass rotate"


def _drill(last: int | None, now: int, drill_age: int) -> Iterator[str]:
    if last is None:
        yield "no drill has ever entered a host: ./break-glass --drill"
    elif now - last > drill_age:
        yield f"the last drill was {(now - last) // _DAY} days ago, more than {drill_age // _DAY}: ./break-glass --drill"


def _used(emergency: Emergency, seal: SealEntry) -> BreakGlassEntry | None:
    """The first use with the key of this seal that was no drill, by its own word or by its review."""
    for index, use in emergency.uses.items():
        review = emergency.reviews.get(index)
        was_drill = use.told.TAG[1] == "drill" and (review is None or review.verdict == "drill")
        if emergency.kits[use.kit].seal == seal.index and not was_drill:
            return use
    return None
