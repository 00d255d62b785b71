"""After an emergency: what a handed-in journal adds to the log, and whether each login and each line of it have one another.

Pure: the log's emergency keys, a journal and logins in, findings out.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ca import journal
from ca.emergency import Emergency
from ca.entry import BreakGlassEntry, KitEntry, SealEntry
from ca.errors import Malformed
from ca.journal import AnyLine, Close, Open
from ca.keys import PublicKey
from ca.sshd_lines import Login
from ca.sshsig import verifier


@dataclass(frozen=True)
class Journal:
    """A journal that is whole and signed: its kit, that kit's seal, its lines, how many the log has, and what to say of it."""

    kit: KitEntry
    seal: SealEntry
    lines: tuple[AnyLine, ...]
    known: int
    doubts: tuple[str, ...]

    @property
    def new(self) -> tuple[AnyLine, ...]:
        """The lines that the log does not have."""
        return self.lines[self.known :]


def read(source: bytes, emergency: Emergency, now: int, *, branched: bool = False) -> Journal:
    """The journal of one of the log's kits at `now` (Unix seconds).

    Raises `Malformed`, naming the line that is damaged, missing or of no kit of this log; unless `branched`, also one that stands
    where the log has another line.
    """
    kit = _kit(source, emergency)
    key = PublicKey.parse_line(kit.facts.key)
    lines = journal.read(source, kit.facts.digest, verifier(key, journal.NAMESPACE))
    known = sum(emergency.holds(line) is not None for line in lines)  # the first ones: what continues a new line is new
    if known < len(lines) and known and not branched:
        behind = emergency.following(lines[known].before)
        if behind is not None:
            raise Malformed(
                f"line {known + 1} of the journal: entry {behind.index} has another line in its place",
                "Lines were taken out of it, or two copies of a journal went on apart. Keep both files; --branched takes it in",
            )
    seal = emergency.seals[kit.seal]
    doubts = (*_cut(lines, known, emergency), *_old(kit, seal, lines, emergency), *_broken_off(lines), *_ahead(lines, now))
    return Journal(kit, seal, lines, known, doubts)


def _kit(source: bytes, emergency: Emergency) -> KitEntry:
    """The kit whose journal it says that it is."""
    first = source.split(b"\n", 1)[0]
    if not first:
        raise Malformed("the journal is empty, or begins with an empty line", "There is nothing to hand in, or it was cut")
    try:
        line = journal.decode(first)
    except Malformed as error:
        raise Malformed(f"line 1 of the journal: {error.message}", error.hint) from error
    kit = emergency.kit_named(line.before)
    if kit is None and (before := emergency.at(line.before)) is not None:
        raise Malformed(f"line 1 of the journal continues entry {before.index}: what stood before it is cut", "Hand it in whole")
    if kit is None:
        raise Malformed(
            "line 1 of the journal does not begin at a kit of this log",
            "It is the journal of another CA's kit, or its first lines are cut",
        )
    return kit


def _cut(lines: Sequence[AnyLine], known: int, emergency: Emergency) -> Iterable[str]:
    behind = emergency.following(lines[-1].digest) if known == len(lines) else None
    if behind is not None:
        yield f"it ends before entry {behind.index}, which continues it: an older copy, or its end was cut"


def _old(kit: KitEntry, seal: SealEntry, lines: Sequence[AnyLine], emergency: Emergency) -> Iterable[str]:
    newer = next((each for each in emergency.seals.values() if each.replaces == seal.index), None)
    if newer is None:
        return
    yield f"its kit (entry {kit.index}) is older than the rotation in entry {newer.index}: destroy it and its shares"
    if any(line.time >= (newer.overlap or 0) for line in lines if not isinstance(line, Close)):
        yield "it was used after hosts should have removed the old key: see that none trusts it"


def _broken_off(lines: Sequence[AnyLine]) -> Iterable[str]:
    closed = {line.session for line in lines if isinstance(line, Close)}
    for line in lines:
        if isinstance(line, Open) and line.session not in closed:
            yield f"the session that begins in line {lines.index(line) + 1} has no end: broken off, or lines behind it are cut"


def _ahead(lines: Sequence[AnyLine], now: int) -> Iterable[str]:
    number = next((at for at, line in enumerate(lines, start=1) if line.time > now), None)
    if number is not None:
        yield f"line {number} is dated in the future: the clock of the kit's machine was wrong"


# -------------------------------------------------------------------- logins


@dataclass(frozen=True)
class Matched:
    """`used`: the uses, each with its logins; `unused`: those without one; `strange`: logins that no use speaks of."""

    used: tuple[tuple[BreakGlassEntry, tuple[Login, ...]], ...]
    unused: tuple[BreakGlassEntry, ...]
    strange: tuple[Login, ...]


def match(emergency: Emergency, uses: Iterable[BreakGlassEntry], logins: Iterable[Login]) -> Matched:
    """Which of these `uses` was for which of these `logins`, and which login under an emergency key is for no use of the log."""
    found, strange = defaultdict[int, list[Login]](list), []
    for login in logins:
        use = emergency.use_of(login)
        if use is not None:
            found[use.index].append(login)
        elif emergency.concerns(login):
            strange.append(login)
    wanted = tuple(uses)
    used = tuple((use, tuple(found[use.index])) for use in wanted if use.index in found)
    return Matched(used, tuple(use for use in wanted if use.index not in found), tuple(strange))
