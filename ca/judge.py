"""Judges single entries: all that can be said of each without the others. Nothing is remembered, so processes can share the work.

What comes out is what `ca.replay` compares with other entries. It travels between processes, so it is small: texts that nobody
looks at again are left out.
"""

from collections import defaultdict
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self, TypeVar

from msgspec import Struct

from ca import entry, merkle, statement
from ca.certificate import BACKDATE, LONGEST
from ca.checkpoint import VerifierKey, open_checkpoint
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    BreakGlassEntry,
    DecidedEntry,
    DenyEntry,
    DropEntry,
    Fork,
    GenesisEntry,
    IssueEntry,
    KitEntry,
    LockEntry,
    LoginEntry,
    PolicyEntry,
    ReadEntry,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SaidEntry,
    SealEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import JitSshError, LogDamaged
from ca.keys import PublicKey
from ca.sshsig import SshSig, signed_bytes
from ca.statement import (
    FRESH,
    AnyStatement,
    ApproveStatement,
    CertificateStatement,
    DenyStatement,
    DropStatement,
    LockStatement,
    ReadStatement,
    RequestStatement,
    RevokeStatement,
    UnlockStatement,
    WithdrawStatement,
)
from ca.trust import Trust
from ca.wire import decode_base64

_AnySaid = (
    RequestEntry
    | ApproveEntry
    | DenyEntry
    | WithdrawEntry
    | RefuseEntry
    | RenewEntry
    | DropEntry
    | RevokeEntry
    | LockEntry
    | UnlockEntry
    | ReviewEntry
    | ReadEntry
)


_E = TypeVar("_E", bound=entry.Entry)
_V = TypeVar("_V", bound=Hashable)


class Judged(Struct, frozen=True):
    """An entry that holds by itself. It is a struct because those travel, and are made, in a third of a tuple's time."""

    entry: AnyEntry
    leaf: bytes


class Words(Judged, frozen=True):
    """And what a person said in it: by which key, proving which other, in a statement of which id.

    `request` and its `request_leaf` are what the statement names, `certificate` the serial of the one whose key signed,
    `signatures` how many were verified.
    """

    signer: bytes
    id: str
    key: bytes | None
    request: int | None
    request_leaf: str | None
    certificate: int | None
    signatures: int


class Certified(Judged, frozen=True):
    """And what the certificate of an `issue` entry says that other entries have to allow."""

    key: bytes
    key_id: str
    principals: tuple[str, ...]
    valid_before: int
    force_command: str | None
    source_address: str | None
    permit: tuple[str, ...]


class Wrong(NamedTuple):
    """What is wrong: an error as a value, because it is told when those before it have been judged."""

    message: str
    leaf: bytes = b""


_Steps = Generator[str, None, Judged]
"""Judges one entry: gives the name of each step before it takes it, and raises what is wrong."""


@dataclass(frozen=True)
class Judge:
    """Judges the entries of one CA's log. `ca_keys` are the blobs of the keys that may sign certificates."""

    origin: str
    log_key: str
    ca_keys: frozenset[bytes]

    @classmethod
    def of(cls, trust: Trust) -> Self:
        """For the log of the CA that is trusted."""
        return cls(trust.origin, trust.log_key, frozenset(key.blob for key in trust.public_keys))

    def entries(self, chunk: Sequence[tuple[int, bytes]]) -> list[tuple[int, Judged | Wrong]]:
        """Each (index, bytes) judged, with its index.

        Those whose next step is the same take it one behind the other: a processor that repeats a step takes two thirds of the
        time of one that goes through all steps for each.
        """
        judged: dict[int, Judged | Wrong] = {}
        to_take: dict[str, list[tuple[int, _Steps]]] = defaultdict(list)
        to_take["decode"] = [(at, self._steps(index, source)) for at, (index, source) in enumerate(chunk)]
        while to_take:
            _, each = to_take.popitem()
            for at, steps in each:
                try:
                    to_take[next(steps)].append((at, steps))
                except StopIteration as over:
                    judged[at] = over.value
                except JitSshError as error:
                    judged[at] = Wrong(error.message, merkle.leaf_hash(chunk[at][1]))
        return [(index, judged[at]) for at, (index, _) in enumerate(chunk)]

    def entry(self, index: int, source: bytes) -> Judged:
        """Judges the entry that `source` should be. Raises what is wrong."""
        steps = self._steps(index, source)
        while True:
            try:
                next(steps)
            except StopIteration as over:
                judged: Judged = over.value
                return judged

    def notes(self, chunk: Sequence[tuple[int, str]]) -> list[tuple[int, bytes | Wrong]]:
        """The root in each (size, note), or what is wrong with the note."""
        key = VerifierKey.parse(self.log_key)
        return [(size, _root(size, note, key)) for size, note in chunk]

    def _steps(self, index: int, source: bytes) -> _Steps:
        """Judges the entry that `source` should be."""
        found, leaf = entry.decode(source), merkle.leaf_hash(source)
        if found.index != index:
            raise LogDamaged(f"it calls itself {found.index}")
        demand((index == 0) == isinstance(found, GenesisEntry), "the first entry, and no other, is the genesis")
        match found:
            case IssueEntry():
                return (yield from self._certified(found, leaf))
            case SaidEntry():
                return (yield from self._words(found, leaf))
            case GenesisEntry():
                demand(found.origin == self.origin, f"it begins the log {found.origin}")
                demand(found.log_key == self.log_key, "its log key is not the one that this machine trusts")
                if found.follows is not None:
                    _check_fork(found, found.follows)
            case SealEntry():
                sealed = PublicKey.parse_line(found.seal.key).blob
                demand(sealed not in self.ca_keys, "the key that it seals is the CA's own")
            case KitEntry():
                demand(found.facts.origin == self.origin, f"it is a kit of {found.facts.origin}")
            case PolicyEntry() | BreakGlassEntry() | LoginEntry():
                pass
        return Judged(found, leaf)

    def _words(self, found: _AnySaid, entry_leaf: bytes) -> _Steps:
        """Who said what, after checking that it was meant for this log, in time, and is what the entry says."""
        yield "statement"
        text = found.statement.encode()
        said = statement.parse(text)
        if said.audience != self.origin:
            raise LogDamaged(f"its statement was made for {said.audience}")
        demand(abs(said.time - found.time // 1000) <= FRESH, "its statement was not fresh")
        _check_same(found, said)
        if isinstance(found, DecidedEntry):
            _check_on_call(found)
        yield "signatures"
        signed = found.signed
        possession = getattr(found, "possession", None)
        proof = None if possession is None else _proof(possession, said)
        message = signed_bytes(text)
        yield "verify"
        touched = signed.key.verify(signed.signature, message)
        if proof is not None:
            proof.key.verify(proof.signature, message)
        demand(touched or not found.hardware_key, "no touch of a security key is proven, though it says so")
        demand(touched or not signed.key.hardware, "its security key signed without a touch")
        yield "words"
        about, leaf = getattr(said, "request", None), getattr(said, "leaf", None)
        certificate = said.serial if isinstance(said, CertificateStatement) else None
        demand(certificate is None or not found.hardware_key, "the key of a certificate is no security key")
        key, verified = (None, 1) if proof is None else (proof.key.blob, 2)
        return Words(_slim(found), entry_leaf, signed.key.blob, said.id, key, about, leaf, certificate, verified)

    def _certified(self, found: IssueEntry, leaf: bytes) -> _Steps:
        yield "certificate"
        given = found.certificate
        demand(given.ca_key.blob in self.ca_keys, "it is for a CA that this machine does not trust")
        if given.serial != found.index:
            raise LogDamaged(f"its serial is {given.serial}")
        demand(given.valid_after == found.time // 1000 - BACKDATE, "it is not valid from its issue on")
        options = given.force_command, given.source_address, given.permit
        return Certified(_slim(found), leaf, given.key.blob, given.key_id, given.principals, given.valid_before, *options)


_UNREAD: Final[dict[str, Any]] = {"findings": (), "ways": (), "on_call": None}
_UNREAD_SAID: Final = _UNREAD | {"statement": "", "signature": "", "possession": ""}
_SHARED: Final = ("actor", "role", "address", "privilege")
_LEFT_OUT: Final[dict[type[entry.Entry], dict[str, Any]]] = {
    RequestEntry: _UNREAD_SAID,
    RefuseEntry: _UNREAD_SAID,
    RenewEntry: _UNREAD_SAID,
    ApproveEntry: _UNREAD,  # an approval's words are looked at again
    IssueEntry: {"tbs": ""},
}


def _slim(found: _E) -> _E:
    """Itself, without the words and reasons that nobody looks at again. It was made here, so nobody else has seen it."""
    left_out = _LEFT_OUT.get(type(found))
    if left_out is not None:
        members = found.__dict__
        members |= left_out  # `dataclasses.replace` would judge it again, and take ten times as long
        for name in _SHARED:
            if (value := members.get(name)) is not None:
                members[name] = _shared(value)
    return found


@lru_cache(maxsize=1024)
def _shared(value: _V) -> _V:
    """An equal value from before: what is one value here travels once, and takes its room once where it is kept."""
    return value


def _proof(possession: str, said: AnyStatement) -> SshSig:
    proof = SshSig.parse(decode_base64(possession, "the proof of possession"))
    if not isinstance(said, RequestStatement | CertificateStatement) or proof.key != said.public_key:
        raise LogDamaged("the proof of possession is by another key than the one to certify")
    return proof


_STATEMENT_OF: Final[dict[type[AnyEntry], type[AnyStatement]]] = {
    ApproveEntry: ApproveStatement,
    DenyEntry: DenyStatement,
    WithdrawEntry: WithdrawStatement,
    DropEntry: DropStatement,
    RevokeEntry: RevokeStatement,
    LockEntry: LockStatement,
    UnlockEntry: UnlockStatement,
}


def _check_same(found: _AnySaid, said: AnyStatement) -> None:
    """The entry is about what its statement is about."""
    match found:
        case RefuseEntry() | ReviewEntry():  # of a review `ca.emergency` says it
            return
        case RequestEntry():
            if not isinstance(said, RequestStatement) or said.role != found.role:
                raise LogDamaged("its statement does not ask for its role")
            longest = LONGEST if said.duration is None else said.duration
            demand(found.privilege.duration <= longest, "it is for longer than was asked for")
        case ReadEntry():
            demand(isinstance(said, ReadStatement), "its statement says something else")
            demand(getattr(said, "request", None) == found.request, "its statement is about another case")
        case RenewEntry():
            demand(isinstance(said, CertificateStatement), "its statement does not ask for a certificate of this grant")
        case RevokeEntry() | LockEntry() | UnlockEntry():
            demand(isinstance(said, _STATEMENT_OF[type(found)]), "its statement says something else")
            demand(getattr(said, "serial", None) == getattr(found, "serial", None), "its statement names another serial")
            named = getattr(said, "person", None)  # who signed for one request or certificate does not name its person
            demand(named in (None, found.person), "its statement names another person")
        case ApproveEntry() | DenyEntry() | WithdrawEntry() | DropEntry():
            demand(isinstance(said, _STATEMENT_OF[type(found)]), "its statement says something else")
            about = getattr(said, "request", None)
            demand(isinstance(found, DropEntry) or about == found.request, "its statement is about another request")


def _check_on_call(found: DecidedEntry) -> None:
    """What a decision says of who is on call follows from what it says was known."""
    duties = found.on_call or ()
    asked = [finding.holds for way in found.ways for finding in way.findings if finding.condition == "on_call"]
    demand(bool(duties) or not asked, "it was decided by who is on call, and what was known of that is not in it")
    demand(True not in asked or any(duty.level is not None for duty in duties), "nobody said that the person is on call")
    ended = [duty.schedule for duty in duties if duty.until is not None and duty.until * 1000 <= found.time]
    demand(not ended, f"the shift on schedule {ended[:1]} had ended")


def _check_fork(found: GenesisEntry, follows: Fork) -> None:
    """It follows another log, and both notes of that are by its key: the one that is left, and a later one that was signed."""
    old = VerifierKey.parse(follows.log_key)
    demand(old.name != found.origin and old.public_key != VerifierKey.parse(found.log_key).public_key, "it follows itself")
    kept = open_checkpoint(follows.kept, old)
    if follows.lost is not None:
        demand(open_checkpoint(follows.lost, old).size > kept.size, "nothing of what it follows is lost")


def _root(size: int, note: str, key: VerifierKey) -> bytes | Wrong:
    try:
        opened = open_checkpoint(note, key)
    except JitSshError as error:
        return Wrong(error.message)
    return opened.root if opened.size == size else Wrong(f"it is for {opened.size} entries")


def demand(holds: bool, otherwise: str) -> None:
    """Raises `LogDamaged` with the sentence `otherwise`."""
    if not holds:
        raise LogDamaged(otherwise)
