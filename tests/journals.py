"""Break-glass journals for tests, written with the real formats and any key."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from ca.journal import FIRST_SERIAL, NAMESPACE, AnyLine, Close, Drill, Drilled, Open, Refused, Use, sign
from ca.kit import Facts
from ca.sshsig import SshSig, signed_bytes
from tests.keys import Key

NOW = 1_800_000_000  # Unix seconds
_L = TypeVar("_L", bound=AnyLine)


def facts(emergency: Key, /, **changes: Any) -> Facts:
    """What a kit with this emergency key knows."""
    known: dict[str, Any] = {
        "origin": "ca.example.com/jit-ssh", "made": NOW - 86_400, "key": emergency.public_key.line, "quorum": 2,
        "officers": ("cy", "di", "eve"), "shares_id": 4711, "people": ("ana", "bo"), "hosts": {"web": ("root",)},
        "longest": 3600, "certificates": 2, "ask": (),
    }  # fmt: skip
    return Facts(**known | changes)


@dataclass
class Pen:
    """Writes the lines of one journal with the emergency key; `lines` is what it wrote. Each line is a second after the other."""

    key: Key
    kit: Facts
    time: int = NOW
    session: str = "0" * 32
    lines: list[AnyLine] = field(default_factory=list)

    def begin(self, *, drill: bool = False, **changes: Any) -> Open:
        """A new session."""
        self.session = f"{len(self.lines) + 1:032x}"
        shares = ("a" * 64, "b" * 64)
        given: dict[str, Any] = {"kit": self.kit.digest, "host": "laptop", "version": "1", "drill": drill, "shares": shares}
        return self.write(Open, **given | changes)

    def use(self, certified: Key, *, drill: bool = False, **changes: Any) -> Use | Drill:
        """A certificate for ana on web, for half an hour."""
        given: dict[str, Any] = {
            "person": "ana", "key": certified.public_key.line, "principals": ("break-glass@web",), "reason": "CA down, INC-77",
            "serial": FIRST_SERIAL + len(self.lines), "valid_after": self.time - 300, "valid_before": self.time + 1800,
        }  # fmt: skip
        kind: type[Use | Drill] = Drill if drill else Use
        return self.write(kind, **given | changes)

    def drilled(self, *, entered: bool = True) -> Drilled:
        return self.write(Drilled, target="root@127.0.0.1 22", entered=entered)

    def refused(self, *, signed: bool = False) -> Refused:
        return self.write(Refused, signed=signed, attempted="ana on web", why="the CA answers")

    def close(self, certificates: int) -> Close:
        return self.write(Close, certificates=certificates)

    def write(self, kind: type[_L], *, signed: bool = True, **members: Any) -> _L:
        """A line behind those that are there; anything but its members is filled in."""
        self.time += 1
        before = self.lines[-1].digest if self.lines else self.kit.digest
        given: dict[str, Any] = {"before": before, "time": self.time, "session": self.session}
        line: AnyLine = kind(**given | members)
        if signed:
            line = sign(line, self._sshsig)
        self.lines.append(line)
        assert isinstance(line, kind)
        return line

    def _sshsig(self, message: bytes) -> bytes:
        return SshSig(self.key.public_key, self.key.sign(signed_bytes(message, NAMESPACE)), NAMESPACE).blob

    @property
    def journal(self) -> bytes:
        """The file."""
        return b"".join(line.encode() + b"\n" for line in self.lines)
