"""The second program follows a log over HTTP and reads exports: it and ours believe the same, and refuse the same changes."""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from werkzeug.serving import make_server

from ca import merkle, verify
from ca.checkpoint import open_checkpoint
from ca.errors import JitSshError, Malformed
from ca.tiles import pack
from ca.trust import Trust
from cli import tiles
from cli.client import Address, exchange
from server import exports
from server.sittings import SITTING
from tests import keys, running, test_exports, test_tiles
from tests.independent_checker import first_wrong
from tests.independent_doors import Door, Export, from_lines, from_table, wrong_with
from tests.independent_formats import Wrong
from tests.running import Running, run
from tests.test_exports import export
from tests.test_independent_checker import trusted
from tests.world import World

lived, long_world = test_exports.lived, test_tiles.long_world  # fixtures
Change: TypeAlias = Callable[[bytes], bytes]


@contextmanager
def serving(world: World, path: str = "", change: Change = bytes) -> Iterator[str]:
    """The world's door over HTTP, at this address; what is answered at `path` passes through `change`."""

    def door(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == path:
            environ.pop("HTTP_ACCEPT_ENCODING", None)
        application: Any = world.http.application
        if environ["PATH_INFO"] != path:
            return list(application(environ, start))
        answered: list[Any] = []
        content = b"".join(application(environ, lambda status, headers, *_: answered.extend((status, dict(headers)))))
        changed = change(content)
        assert changed != content, "this test changes nothing"
        start(answered[0], list((answered[1] | {"Content-Length": str(len(changed))}).items()))
        return [changed]

    server = make_server("127.0.0.1", 0, door, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def followed(world: World, url: str) -> Door:
    return Door(url, trusted(world.ca.trust), world.directory / "eve", int(world.now))


def theirs(door: Door) -> object:
    """What the second program finds wrong."""
    try:
        return first_wrong(door.log())
    except Wrong as error:
        return error


def ours(door: Door, trust: Trust) -> verify.Report:
    """What this project's own client reads there, and its verifier says of it."""
    address = Address.parse(door.url)
    note = exchange(address, "GET", "/log/checkpoint").decode()
    checkpoint = open_checkpoint(note, trust.verifier)
    sources = list[bytes]()
    for start in range(0, checkpoint.size, 256):
        width = min(256, checkpoint.size - start)
        path = f"/log/tile/entries/{start // 256:03}" + (f".p/{width}" if width < 256 else "")
        bundle = exchange(address, "GET", path, headers={"Authorization": door.words(path)})
        sources += test_tiles.unpacked(bundle)
    nodes = tiles.Nodes(address, checkpoint.size)
    if merkle.root(checkpoint.size, nodes.read) != checkpoint.root:
        raise Malformed("the tiles do not give the root")
    report = verify.verify(trust, checkpoint, tiles.leaves(address, checkpoint.size), enumerate(sources))
    if report.entries != checkpoint.size:
        raise Malformed("entries are missing")
    return report


# ----------------------------------------------------------------- over HTTP


def test_both_believe_a_log_of_several_tiles_that_an_honest_ca_serves(long_world: World) -> None:
    with serving(long_world) as url:
        door = followed(long_world, url)
        log = door.log()
        assert first_wrong(log) is None
        assert log.entries == list(long_world.store.entries(0, len(log.entries)))
        assert {level for level, _ in log.nodes or ()} == {0, 8}
        assert ours(door, long_world.ca.trust).entries >= len(log.entries) > 256


def test_it_follows_the_real_server(tmp_path: Path) -> None:
    keys.make(tmp_path, name="ana")
    assert run("init", tmp_path / "ca", "--origin", running.ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub").code == 0
    server = Running(tmp_path / "ca")
    try:
        trust = Trust.parse(exchange(Address.parse(server.url), "GET", "/v1/ca"))
        first, second = (Door(server.url, trusted(trust), tmp_path / "ana", int(time.time())).log() for _ in range(2))
    finally:
        assert server.stops() == 0
    assert (first_wrong(first), first_wrong(second)) == (None, None)
    assert second.entries[:-1] == first.entries, "that somebody read it stands in it"
    assert json.loads(second.entries[-1])["kind"] == "read"


def swapped(content: bytes, size: int = 32) -> bytes:
    return content[size : 2 * size] + content[:size] + content[2 * size :]


def flipped(at: int) -> Change:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def grown(content: bytes) -> bytes:
    """A checkpoint of one more entry."""
    return re.sub(rb"\n(\d+)\n", lambda found: b"\n%d\n" % (int(found[1]) + 1), content, count=1)


TOLD: Final[dict[str, tuple[str, Change]]] = {
    "a checkpoint of another size": ("/log/checkpoint", grown),
    "a checkpoint of another root": (
        "/log/checkpoint",
        lambda note: re.sub(rb"\n[A-Za-z0-9+/]{43}=\n", b"\n" + b"A" * 43 + b"=\n", note),
    ),
    "a checkpoint by nobody": ("/log/checkpoint", lambda note: note.partition("\u2014".encode())[0]),
    "a leaf changed": ("/log/tile/0/000", flipped(32 * 7)),
    "two leaves swapped": ("/log/tile/0/000", swapped),
    "a leaf missing": ("/log/tile/0/000", lambda hashes: hashes[:-32]),
    "a leaf too many": ("/log/tile/0/000", lambda hashes: hashes + bytes(32)),
    "a leaf of the last tile changed": ("/log/tile/0/001.p/{last}", flipped(5)),
    "a node changed": ("/log/tile/1/000.p/1", flipped(31)),
    "an entry changed": ("/log/tile/entries/000", lambda bundle: bundle.replace(b"INC-12", b"INC-13", 1)),
    "two entries swapped": (
        "/log/tile/entries/000",
        lambda bundle: pack([*reversed(test_tiles.unpacked(bundle)[:2]), *test_tiles.unpacked(bundle)[2:]]),
    ),
    "an entry missing": ("/log/tile/entries/000", lambda bundle: pack(test_tiles.unpacked(bundle)[:-1])),
    "an entry twice": (
        "/log/tile/entries/000",
        lambda bundle: bundle + pack(test_tiles.unpacked(bundle)[-1:]),
    ),
    "a bundle cut off": ("/log/tile/entries/000", lambda bundle: bundle[:-1]),
    "a length that lies": ("/log/tile/entries/000", flipped(1)),
    "no bundle": ("/log/tile/entries/001.p/{last}", lambda _bundle: b""),
}


@pytest.mark.parametrize(("path", "change"), TOLD.values(), ids=TOLD.keys())
def test_both_refuse_what_was_changed_on_the_way(long_world: World, path: str, change: Change) -> None:
    long_world.now += 2 * SITTING
    with serving(long_world) as url:  # that somebody reads is written first: then the log stays as long as it is
        followed(long_world, url).log()
    with serving(long_world, path.format(last=long_world.store.size() - 256), change) as url:
        door = followed(long_world, url)
        assert theirs(door)
        with pytest.raises(JitSshError):
            ours(door, long_world.ca.trust)


# ------------------------------------------------------------------- exports

PARTS: Final = {
    "all": (None, None),
    "the beginning": (None, -5 * 60),
    "the middle": (-6 * 60, -3 * 60),
    "the end": (-4 * 60, None),
}


def exported(world: World, name: str, part: str) -> Path:
    since, until = (None if each is None else world.now + each for each in PARTS[part])
    return export(world, name, since, until)


@pytest.mark.parametrize("part", PARTS)
def test_both_believe_an_export_in_either_form(lived: World, part: str) -> None:
    lines, table = from_lines(exported(lived, "out.jsonl", part)), from_table(exported(lived, "out.db", part))
    assert (wrong_with(lines), wrong_with(table)) == (None, None)
    assert (lines.proof, lines.entries) == (table.proof, table.entries)
    assert len(lines.entries) > 2
    for name in ("out.jsonl", "out.db"):
        assert exports.verify_file(lived.directory / name)[1].entries == len(lines.entries)


def judged(path: Path, read: Callable[[Path], Export]) -> tuple[str | None, str | None]:
    """What the second program and ours say of a file."""
    try:
        found = wrong_with(read(path))
    except Wrong as error:
        found = repr(error)
    try:
        exports.verify_file(path)
    except JitSshError as error:
        return found, error.message
    return found, None


@pytest.mark.parametrize("part", PARTS)
def test_both_refuse_every_changed_line(lived: World, part: str) -> None:
    out = exported(lived, "out.jsonl", part)
    first, *entries = out.read_bytes().splitlines()
    proof = json.loads(first)

    def other(**members: Any) -> bytes:
        return json.dumps(proof | members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    changed = {
        "the end is missing": [first, *entries[:-1]],
        "the beginning is missing": [first, *entries[1:]],
        "an entry is twice": [first, *entries, entries[-1]],
        "two are swapped": [first, entries[1], entries[0], *entries[2:]],
        "one is empty": [first, b"", *entries[1:]],
        "no proof": entries,
        "a proof twice": [first, first, *entries],
        "a part that begins later": [other(start=proof["start"] + 1), *entries[1:]],
        "a part that ends later": [other(end=proof["end"] + 1), *entries],
        "a hash more": [other(before=[*proof["before"], "00" * 32]), *entries],
        "a hash more behind": [other(after=[*proof["after"], "00" * 32]), *entries],
        "another CA": [other(trust=proof["trust"].replace("ca.example.com", "ca.example.org")), *entries],
        "another size": [other(checkpoint=grown(proof["checkpoint"].encode()).decode()), *entries],
        "another form": [first.replace(b'":', b'": ', 1), *entries],
        "unknown": [other(more=1), *entries],
    }
    changed |= {
        f"entry {at}": [first, *entries[:at], each.replace(b'"time":1', b'"time":2', 1), *entries[at + 1 :]]
        for at, each in enumerate(entries)
    }
    for side in ("before", "after"):
        if proof[side]:
            changed[f"a hash less {side}"] = [other(**{side: proof[side][1:]}), *entries]
            changed[f"another hash {side}"] = [other(**{side: ["ab" * 32, *proof[side][1:]]}), *entries]
            changed[f"a hash in capitals {side}"] = [other(**{side: [each.upper() for each in proof[side]]}), *entries]
    for what, lines in changed.items():
        out.write_bytes(b"".join(line + b"\n" for line in lines))
        assert None not in judged(out, from_lines), what


# fmt: off
CELLS: Final = ["time", "kind", "actor", "person", "role", "request", "reason", "message", "address", "duration", "principals",
                "serial", "key", "key_id", "valid_after", "valid_before", "path"]
# fmt: on


@pytest.mark.parametrize("column", CELLS)
def test_both_refuse_a_cell_that_does_not_say_what_its_entry_says(lived: World, column: str) -> None:
    out = export(lived, "out.db")
    assert judged(out, from_table) == (None, None)
    with closing(sqlite3.connect(out, isolation_level=None)) as database:
        what = "7" if column in {"duration", "serial", "request"} else "'x'"
        assert database.execute(f'UPDATE entries SET {column} = {what} WHERE "index" = 3').rowcount == 1  # noqa: S608
    ours = f"row 3 does not say what its entry says: its {column} is another"
    assert judged(out, from_table) == ("row 3 says something else", ours)
