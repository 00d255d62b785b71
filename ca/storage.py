"""What a log needs of a store: to append, and to find its entries again. `ca.store` has the one there is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ca.merkle import Node


class Reading(Protocol):
    """What a store answers without a lock. Everything it gives was committed."""

    def size(self) -> int:
        """How many entries there are."""

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the entries from `start` up to `end`, in order, as many as there are."""

    def numbered(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The same, each with the index that it stands at."""

    def node(self, level: int, position: int) -> bytes:
        """A stored node's hash. Raises `LogDamaged` when it is not there."""

    def nodes(self, level: int) -> Iterator[bytes]:
        """All hashes of a level, in order."""

    def statement(self, statement_id: str) -> int | None:
        """The index of the entry that this statement caused."""

    def newest(self, kind: str) -> bytes | None:
        """The bytes of the newest entry of this kind."""

    def request(self, index: int) -> list[int]:
        """The entries that say how a request stands, as `ca.request.fold` wants them; empty if there is none at `index`.

        As cheap for the last of many that extend a grant as for the first.
        """

    def requests(self, person: str, role: str, since: int, *, most: int) -> list[int]:
        """The newest `most` of the person's `request` entries for the role since `since` (Unix milliseconds), newest first."""

    def newest_requests(self, since: int) -> list[int]:
        """The newest `request` entry of each person for each role since `since` (Unix milliseconds), newest first.

        No other one waits: whoever asks while one waits is refused.
        """

    def acted(self, person: str) -> bool:
        """Whether there is an entry that the person caused."""

    def locked(self) -> frozenset[str]:
        """Everybody who is locked out."""

    def locks(self) -> Mapping[str, int]:
        """The newest entry that locked or unlocked each person who ever was."""

    def reviewed(self, use: int) -> int | None:
        """The entry that reviewed the use of the emergency key in entry `use`."""

    def session(self, use: int) -> list[int]:
        """The `break-glass` entries of all lines that one run of a kit wrote: that of the use in entry `use`, in order."""

    def checkpoint(self) -> str | None:
        """The newest checkpoint's note."""

    def checkpoint_over(self, index: int) -> str | None:
        """The note of the first checkpoint that has the entry `index` under it."""

    def checkpoints(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """Size and note of the checkpoints from the size `start` up to `end`, in order."""

    def policy_file(self, digest: str) -> bytes | None:
        """The policy file with this SHA-256 in hexadecimal."""

    def demand_sound(self) -> None:
        """Raises `LogDamaged` when the store's other answers are not those that its entries give, or it has more than they.

        That entries, nodes and checkpoints are the log's has to be known before. Takes time in proportion to the log.
        """


class Writing(Reading, Protocol):
    """What the one writer may add, all of it or nothing."""

    def generation(self) -> int:
        """A number that is another one as soon as anybody else has written to the store, whatever it was."""

    def add(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Appends entries, each with its index, in order."""

    def add_checkpoint(self, size: int, note: str, nodes: Iterable[Node]) -> None:
        """Keeps the signed checkpoint of this size, and the nodes that were completed on the way there."""

    def add_files(self, files: Mapping[str, bytes]) -> None:
        """Keeps policy files by their SHA-256 in hexadecimal."""


class Store(Reading, Protocol):
    """Where a log lives."""

    def writing(self) -> AbstractContextManager[Writing]:
        """A transaction under the store's one lock, durable when the block ends, gone when it raises.

        Raises `LogUnwritable` when it cannot be made durable.
        """

    def remembered(self) -> str | None:
        """The newest checkpoint's note as kept outside the store, so that an old copy of the store is noticed."""
