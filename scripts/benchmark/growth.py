"""A log that has grown: entries as people cause them, with nodes and checkpoint, but for signatures, which nothing here reads."""

import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from ca import entry
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.entry import RefuseEntry
from ca.merkle import Frontier, leaf_hash
from ca.signers.file import FileSigner
from ca.store.sqlite import SqliteStore
from ca.wire import Reader

PEOPLE = 1000
_BATCH = 20_000  # entries under one checkpoint
_REASON = "a reason as people give one, with the number of an incident and what they want to look at"


def grow(ca: Path, entries: int) -> None:
    """Adds so many entries to the log of the CA in the directory `ca`, which nobody serves meanwhile."""
    fill(ca, entries, _made, _BATCH)


def fill(ca: Path, entries: int, make: Callable[[int, int], Iterator[bytes]], together: int) -> None:
    """The same, with what `make` gives from an index and a time (Unix milliseconds) on, so many `together` under a checkpoint."""
    store = SqliteStore(ca / "jit-ssh.db")
    start = store.size()
    newest = entry.decode(next(store.entries(start - 1, start)))
    frontier, made = Frontier(start, store.node), make(start, newest.time)
    while frontier.size < start + entries:
        some = min(together, start + entries - frontier.size)
        nodes, added = [], []
        for index in range(frontier.size, frontier.size + some):
            source = next(made)
            nodes += frontier.append(leaf_hash(source))
            added.append((index, source))
        with store.writing() as writing:
            writing.add(added)
            writing.add_checkpoint(frontier.size, _note(ca, frontier), nodes)
    store.close()


def _made(start: int, time: int) -> Iterator[bytes]:
    """Refused requests of many people, each for a role of its own, from the index `start` on; `time` in Unix milliseconds."""
    index, number, moment = 987654321, 123456789, 1234567890123
    said = f'{{"action":"request","audience":"bench","id":"{uuid.UUID(int=number)}","reason":"{_REASON}","role":"r{number}"}}'
    pattern = RefuseEntry(
        index=index,
        time=moment,
        actor=f"p{number}",
        statement=said,
        signature="A" * 250,
        address="192.0.2.1",
        hardware_key=False,
        policy=1,
        findings=(),
        ways=(),
        role=f"r{number}",
        possession="A" * 250,
        code="denied",
        message=_REASON,
    )
    text = pattern.encode().decode()
    text = text.replace("{", "{{").replace("}", "}}").replace(str(uuid.UUID(int=number)), "{id}")
    text = text.replace(str(index), "{index}").replace(str(moment), "{time}").replace(str(number), "{person}")
    for at in count(start):
        yield text.format(index=at, time=time, person=at % PEOPLE, id=uuid.UUID(int=at)).encode()


def _note(ca: Path, frontier: Frontier) -> str:
    signer = FileSigner(ca / "keys" / "log", lambda _path: b"")
    key = VerifierKey("bench", Reader(signer.public_key.fields, "the log key").string())
    checkpoint = Checkpoint("bench", frontier.size, frontier.root())
    return sign_note(checkpoint.body(), key, lambda message: signer.sign(message)[-64:])
