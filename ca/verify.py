"""Checks a log, or the part of it that one may read, without trusting the CA, its policy or its disk.

What holds afterwards: the leaves add up to the signed root; the remembered checkpoint is a prefix; every entry shown is the one
in the tree; every person's signature verifies; every certificate is exactly what its request was granted, and no more.
Which key belongs to which person is policy's business and not judged here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ca import entry, merkle, statement
from ca.certificate import BACKDATE, LONGEST, Certificate
from ca.checkpoint import Checkpoint
from ca.entry import AnyEntry, AskedEntry, GenesisEntry, IssueEntry, PolicyEntry, RefuseEntry, RequestEntry
from ca.errors import JitSshError, LogDamaged
from ca.statement import FRESH, RequestStatement
from ca.trust import Trust

_SHOW: Final = "Keep what was received and show it to the security team: an honest log has no such entry"


@dataclass(frozen=True)
class Report:
    """What was checked: the log's size, how many of its entries could be read, and how many certificates are among them."""

    checkpoint: Checkpoint
    entries: int
    signatures: int
    certificates: int


def verify(
    trust: Trust,
    checkpoint: Checkpoint,
    leaves: Iterable[bytes],
    entries: Iterable[tuple[int, bytes]],
    remembered: Checkpoint | None = None,
) -> Report:
    """Checks all `leaves` of a log against an opened `checkpoint`, and the (index, bytes) of the `entries` that can be read.

    Both come in order of the index. `remembered` is a checkpoint that was seen before. Raises `LogDamaged`, naming the first
    entry that is wrong and what is wrong with it.
    """
    if remembered is not None and remembered.size > checkpoint.size:
        raise LogDamaged(
            f"the log has {checkpoint.size} entries, but this machine has seen {remembered.size}: an old copy was restored", _SHOW
        )
    frontier, reader, shown = merkle.Frontier(), _Reader(trust), _InOrder(entries)
    _check_remembered(remembered, frontier)
    for leaf in leaves:
        source = shown.at(frontier.size)
        if source is not None and merkle.leaf_hash(source) != leaf:
            raise LogDamaged(f"entry {frontier.size} is not the one in the log's tree", _SHOW)
        if source is not None:
            reader.check(frontier.size, source)
        frontier.append(leaf)
        _check_remembered(remembered, frontier)
    if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
        raise LogDamaged(f"the log's leaves do not add up to its checkpoint at {checkpoint.size} entries", _SHOW)
    if (left := shown.next_index()) is not None:
        raise LogDamaged(f"entry {left} is shown, but the log has {checkpoint.size} entries", _SHOW)
    return Report(checkpoint, shown.taken, reader.signatures, reader.certificates)


def _check_remembered(remembered: Checkpoint | None, frontier: merkle.Frontier) -> None:
    if remembered is not None and remembered.size == frontier.size and remembered.root != frontier.root():
        raise LogDamaged(f"the first {remembered.size} entries are not those that this machine has seen: rewritten", _SHOW)


class _InOrder:
    """The entries that can be read, taken one by one as the leaves go by."""

    def __init__(self, entries: Iterable[tuple[int, bytes]]) -> None:
        self._entries: Iterator[tuple[int, bytes]] = iter(entries)
        self._next = next(self._entries, None)
        self.taken = 0

    def next_index(self) -> int | None:
        return None if self._next is None else self._next[0]

    def at(self, index: int) -> bytes | None:
        if self._next is None or self._next[0] != index:
            return None
        source = self._next[1]
        self._next = next(self._entries, None)
        self.taken += 1
        return source


class _Reader:
    """The rules that hold for every entry, whatever the policy; remembers what later entries refer to."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._ca_keys = trust.public_keys
        self._time = 0
        self._statements: set[str] = set()
        self._requests: dict[int, RequestEntry] = {}
        self.signatures = 0
        self.certificates = 0

    def check(self, index: int, source: bytes) -> None:
        """Raises `LogDamaged` for the entry that `source` should be."""
        try:
            found = entry.decode(source)
            self._check_order(index, found)
            self._check_kind(found)
        except JitSshError as error:
            raise LogDamaged(f"entry {index}: {error.message}", _SHOW) from error

    def _check_order(self, index: int, found: AnyEntry) -> None:
        _demand(found.index == index, f"it calls itself {found.index}")
        _demand(found.time >= self._time, "its time is before the entry's before it")
        _demand((found.index == 0) == isinstance(found, GenesisEntry), "the first entry, and no other, is the genesis")
        self._time = found.time

    def _check_kind(self, found: AnyEntry) -> None:
        match found:
            case GenesisEntry():
                _demand(found.origin == self._trust.origin, f"it begins the log {found.origin}")
                _demand(found.log_key == self._trust.log_key, "its log key is not the one that this machine trusts")
            case PolicyEntry():
                pass
            case RequestEntry():
                self._check_asked(found)
                self._requests[found.index] = found
            case RefuseEntry():
                self._check_asked(found)
            case IssueEntry():
                self._check_issue(found)

    def _check_asked(self, found: AskedEntry) -> None:
        said = statement.parse(found.statement.encode())
        _demand(isinstance(said, RequestStatement), "its statement does not ask for a role")
        assert isinstance(said, RequestStatement)  # noqa: S101 - for the type checker, which does not follow _demand
        _demand(said.audience == self._trust.origin, f"its statement was made for {said.audience}")
        _demand(said.id not in self._statements, "its statement stands in an earlier entry")
        _demand(abs(said.time - found.time // 1000) <= FRESH, "its statement was not fresh")
        _demand(said.role == found.role, f"its statement asks for {said.role}")
        touched = found.signed.verify(found.statement.encode())
        _demand(touched or not found.hardware_key, "no touch of a security key is proven, though it says so")
        possession = found.possession_signed
        _demand(possession.key == said.public_key, "the proof of possession is by another key than the one to certify")
        possession.verify(found.statement.encode())
        self._statements.add(said.id)
        self.signatures += 2

    def _check_issue(self, found: IssueEntry) -> None:
        request = self._requests.get(found.request)
        if request is None:
            raise LogDamaged(f"it points to entry {found.request}, which is not a request that was granted")
        said = statement.parse(request.statement.encode())
        _demand((found.actor, found.role) == (request.actor, request.role), "it names another person or role than its request")
        assert isinstance(said, RequestStatement)  # noqa: S101 - so it was when it became one of the requests
        _demand(found.certificate.key == said.public_key, "it certifies another key")
        longest = LONGEST if said.duration is None else said.duration
        _demand(request.privilege.duration <= longest, "it was granted for longer than was asked for")
        _check_certificate(found, found.certificate, request)
        _demand(found.certificate.ca_key in self._ca_keys, "it is for a CA that this machine does not trust")
        self.certificates += 1


def _check_certificate(found: IssueEntry, certificate: Certificate, request: RequestEntry) -> None:
    granted, issued_at = request.privilege, found.time // 1000
    grant_end = request.time // 1000 + granted.duration
    _demand(certificate.serial == found.index, f"its serial is {certificate.serial}")
    _demand(certificate.key_id == key_id(request), f"its key id is {certificate.key_id}")
    _demand(certificate.principals == granted.principals, "its principals are not those that were granted")
    _demand(certificate.force_command == granted.force_command, "its forced command is not the one that was granted")
    _demand(certificate.source_address == granted.source_address, "its source address is not the one that was granted")
    _demand(certificate.permit == granted.permit, "it permits something else than was granted")
    _demand(certificate.valid_after == issued_at - BACKDATE, "it is not valid from its issue on")
    _demand(certificate.valid_before <= grant_end, "it outlives its grant")


def key_id(request: RequestEntry) -> str:
    """`person/role/request-index`: what sshd's own log will show."""
    return f"{request.actor}/{request.role}/{request.index}"


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LogDamaged(otherwise)
