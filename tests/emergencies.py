"""An emergency in a `World`: a sealed key, its kit, and a journal whose lines are in the log."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ca.entry import OPERATOR, BreakGlassEntry, KitEntry, LoginEntry, SealEntry
from ca.journal import AnyLine, Certified
from ca.keys import PublicKey
from ca.kit import Facts, Seal, Share, share_fingerprint
from ca.log import Tail
from ca.sshd_lines import Login
from tests.formats_example import FixedKey
from tests.journals import Pen, facts
from tests.keys import Key
from tests.world import World

OFFICERS = ("cy", "di", "eve")  # those of `journals.facts`
ANA = FixedKey(3)  # the key that is certified


@dataclass(frozen=True)
class Sealed:
    """An emergency key, what a kit knows of it, and their entries."""

    key: Key
    kit: Facts
    seal_entry: int
    kit_entry: int

    def pen(self) -> Pen:
        """Writes a journal of the kit."""
        return Pen(self.key, self.kit)


def seal(emergency: Key) -> Seal:
    """A seal of this key by 2 of `OFFICERS`."""
    shares = tuple(Share(officer=name, fingerprint=share_fingerprint(f"share of {name}")) for name in OFFICERS)
    return Seal(key=emergency.public_key.line, quorum=2, shares=shares, shares_id=4711)


def sealed(world: World, key: Key | None = None, /, *, replaces: int | None = None, **known: Any) -> Sealed:
    """A key that is sealed from now on, and a kit for it; both are in the world's log."""
    emergency = key or FixedKey(9)
    kit = facts(emergency, **known)
    overlap = None if replaces is None else int(world.now) + 86_400

    def write(tail: Tail) -> list[SealEntry | KitEntry]:
        head: dict[str, Any] = {"time": tail.time, "actor": OPERATOR}
        made = SealEntry(index=tail.index, seal=seal(emergency), replaces=replaces, overlap=overlap, **head)
        return [made, KitEntry(index=tail.index + 1, seal=tail.index, facts=kit, **head)]

    written = world.ca.log.append(write)
    return Sealed(emergency, kit, written[0].index, written[1].index)


def lines(world: World, of: Sealed, told: Iterable[AnyLine]) -> list[int]:
    """The entries of these lines, which are written without being judged."""

    def write(tail: Tail) -> list[BreakGlassEntry]:
        return [
            BreakGlassEntry(
                index=tail.index + number, time=tail.time, actor=OPERATOR, kit=of.kit_entry, line=line.encode().decode(),
                person=line.person if isinstance(line, Certified) else None,
            )
            for number, line in enumerate(told)
        ]  # fmt: skip

    return [each.index for each in world.ca.log.append(write)]


def hand_in(world: World, of: Sealed) -> int:
    """The entry of ana's use, in a session of its own."""
    pen = of.pen()
    pen.begin()
    pen.use(ANA)
    pen.close(1)
    return lines(world, of, pen.lines)[1]


def login(of: Sealed, line: Certified, **changes: Any) -> Login:
    """What a host saw of the certificate of a line."""
    told = Login(
        user="root", address="192.0.2.7", port=4, key=PublicKey.parse_line(line.key).fingerprint, key_id=line.key_id,
        serial=line.serial, ca=of.key.public_key.fingerprint, time=line.time + 60, host="web-1",
    )  # fmt: skip
    return replace(told, **changes)


def seen(world: World, of: Sealed, use: int, /, **changes: Any) -> int:
    """The entry of a login with the certificate of the use in entry `use`, or with another one; nobody judges it."""
    used = world.entries()[use]
    assert isinstance(used, BreakGlassEntry)
    told = login(of, used.certified, **changes)
    about: dict[str, Any] = {} if changes else {"request": use, "person": used.person}
    written = world.ca.log.append(
        lambda tail: [LoginEntry(index=tail.index, time=tail.time, actor=OPERATOR, login=told, **about)]
    )
    return written[0].index
