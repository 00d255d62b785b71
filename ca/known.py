"""What is known of a log between two commits: its latest entries, what people asked for, what became of it, who is locked out."""

from collections import ChainMap
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DenyEntry,
    DropEntry,
    IssueEntry,
    LockEntry,
    RequestEntry,
    RevokeEntry,
    UnlockEntry,
    WithdrawEntry,
)

REMEMBERED: Final = 4096  # entries, about 5 KB each, and as many answers of the store
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Told(NamedTuple):
    """The entries that say how a request stands, and what further ones are known by."""

    first: int  # the request that began the grant
    person: str
    entries: tuple[int, ...]
    used: bool  # whether one of them is an `issue`: the first one says so


@dataclass(frozen=True)
class Known:
    """Answers as the store would give them, kept as entries come."""

    entries: MutableMapping[int, AnyEntry] = field(default_factory=dict)
    newest: MutableMapping[str, int | None] = field(default_factory=dict)  # entry of a kind
    asked: MutableMapping[tuple[str, str], int | None] = field(default_factory=dict)  # newest request, by person and role
    told: MutableMapping[int, Told] = field(default_factory=dict)  # by request
    locked: MutableMapping[str, bool] = field(default_factory=dict)  # of everybody who ever was

    def layer(self) -> "Known":
        """The same for one transaction: what is learnt above it is forgotten unless this is told to `keep` it."""
        return Known(
            ChainMap({}, self.entries),
            ChainMap({}, self.newest),
            ChainMap({}, self.asked),
            ChainMap({}, self.told),
            ChainMap({}, self.locked),
        )

    def keep(self, layer: "Known") -> "Known":
        """This, with what was learnt in a layer above it; of what comes without end the latest."""
        _settle(self.entries, layer.entries, REMEMBERED)
        _settle(self.newest, layer.newest)
        _settle(self.asked, layer.asked, REMEMBERED)
        _settle(self.told, layer.told, REMEMBERED)
        _settle(self.locked, layer.locked)
        return self

    def learn(self, one: AnyEntry) -> None:
        """Goes on with the next entry."""
        if one.TAG[1] in self.newest:
            self.newest[one.TAG[1]] = one.index
        match one:
            case RequestEntry():
                self.asked[one.actor, one.role] = one.index
                self.told[one.index] = Told(one.first, one.actor, (one.index,), used=False)
            case LockEntry() | UnlockEntry():
                self.locked[one.person] = isinstance(one, LockEntry)
            case _:
                pass
        self._tell(one)

    def _tell(self, one: AnyEntry) -> None:
        """Adds the entry to what says how requests stand."""
        match one:
            case ApproveEntry() | DenyEntry() | WithdrawEntry():
                if told := self.told.get(one.request):
                    self.told[one.request] = told._replace(entries=(*told.entries, one.index))
            case IssueEntry():
                if (told := self.told.get(one.request)) and not told.used:
                    self.told[one.request] = told._replace(entries=(*told.entries, one.index), used=True)
            case DropEntry() | RevokeEntry(request=int()):
                self._end(one.index, lambda told: told.first == one.request)
            case RevokeEntry() | LockEntry():
                self._end(one.index, lambda told: told.person == one.person)
            case _:
                pass

    def _end(self, index: int, of: Callable[[Told], bool]) -> None:
        for request, told in list(self.told.items()):
            if of(told):
                self.told[request] = told._replace(entries=(*told.entries, index))


def _settle(below: MutableMapping[_Key, _Value], above: MutableMapping[_Key, _Value], most: int | None = None) -> None:
    if isinstance(above, ChainMap):
        below.update(above.maps[0])
    while most is not None and len(below) > most:
        del below[next(iter(below))]
