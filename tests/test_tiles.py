"""Tiles: their names are judged by the examples of C2SP tlog-tiles, bundles of entries by the tiles of their hashes."""

import gzip
import struct
import subprocess
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import canonical
from ca.entry import LARGEST
from ca.errors import Malformed
from ca.merkle import MAX_SIZE, Frontier, leaf_hash
from ca.statement import ReadStatement
from ca.store.sqlite import SqliteCopy
from ca.tiles import FULL_WIDTH, Bundle, Tile, pack
from server import tiles
from server.sittings import SITTING
from tests import keys, running
from tests.running import Running, run
from tests.world import ORIGIN, World, authorization, uuid7

TILES = st.tuples(st.integers(0, 7), st.integers(0, MAX_SIZE), st.integers(1, FULL_WIDTH)).filter(
    lambda fields: (fields[1] * FULL_WIDTH + fields[2]) << 8 * fields[0] <= MAX_SIZE
)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/x001/x234/067", Tile(0, 1234067)),  # the specification's example
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/272", Tile(0, 272)),  # these five are its tree of 70,000 leaves
        ("tile/0/273.p/112", Tile(0, 273, 112)),
        ("tile/1/000", Tile(1, 0)),
        ("tile/1/001.p/17", Tile(1, 1, 17)),
        ("tile/2/000.p/1", Tile(2, 0, 1)),
        ("tile/0/x001/000.p/255", Tile(0, 1000, 255)),
    ],
)
def test_a_tile_is_written_as_the_specification_writes_it(path: str, tile: Tile) -> None:
    assert str(tile) == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/0/x001/x000",
        "tile/0/001/000", "tile/00/000", "tile/8/000.p/1", "tile/63/000.p/1", "tile/64/000", "tile/-1/000", "tile/0/-01",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p", "tile/0/000/p/1",
        "/tile/0/000", "tile/0/000/", "tile/0/000\n", "tile/0/000 ", "tile/0/٠٠٠", "tile/0/X001/000", "tile/0/x1/000",
        "tile/0//000", "tile/0/../000", "tile/0/000.p/1.p/1", "tile/entries/000", "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 10_000 + "999", "tile/7/127", "tile/" + "9" * 5000 + "/000",
    ],
)  # fmt: skip
def test_any_other_spelling_of_a_tile_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Tile.parse(path)


@pytest.mark.parametrize(
    "fields", [(-1, 0, 1), (8, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257), (0, 2**55 - 1, 256), (7, 127, 256)]
)
def test_a_tile_that_no_tree_has_cannot_be_made(fields: tuple[int, int, int]) -> None:
    Tile(0, 2**55 - 1, 255)  # the last tile of the largest tree
    with pytest.raises(Malformed):
        Tile(*fields)


@given(TILES)
def test_a_tile_survives_its_path(fields: tuple[int, int, int]) -> None:
    assert Tile.parse(str(Tile(*fields))) == Tile(*fields)


@given(st.text("tile/0123456789x.p\n ", max_size=40))
def test_text_is_a_tiles_path_or_malformed(path: str) -> None:
    try:
        tile = Tile.parse(path)
    except Malformed:
        return
    assert str(tile) == path


def test_the_specifications_tree_of_70000_leaves_has_every_node_of_its_tiles_and_not_one_more() -> None:
    frontier = Frontier()
    nodes = [(level, position) for _ in range(70_000) for level, position, _ in frontier.append(leaf_hash(b""))]
    tiles = [*(Tile(0, index) for index in range(273)), Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    named = [node for tile in tiles for node in tile.nodes()]
    assert sorted(named) == sorted(node for node in nodes if node[0] % 8 == 0)


# ------------------------------------------------------------------- bundles


def unpacked(content: bytes) -> list[bytes]:
    """The entries of a bundle, by the specification."""
    found = []
    while content:
        (length,) = struct.unpack_from(">H", content)
        found.append(content[2 : 2 + length])
        content = content[2 + length :]
    return found


@given(st.integers(0, MAX_SIZE).filter(lambda index: (index + 1) * FULL_WIDTH <= MAX_SIZE), st.integers(1, FULL_WIDTH))
def test_a_bundle_survives_its_path_and_is_numbered_like_the_tile_of_its_leaves(index: int, width: int) -> None:
    bundle = Bundle(index, width)
    assert Bundle.parse(str(bundle)) == bundle
    assert str(bundle) == str(Tile(0, index, width)).replace("tile/0/", "tile/entries/")
    assert (bundle.start, bundle.end) == (index * 256, index * 256 + width)


@pytest.mark.parametrize(
    "path",
    [
        "tile/entries", "tile/entries/0", "tile/entries/000.p/0", "tile/entries/000.p/256", "tile/entries/000.p/07",
        "tile/entries/x000/000", "tile/entries/entries/000", "tile/0/000", "tile/entries/000\n",
        "tile/Entries/000", "tile/entries/" + "x999/" * 6 + "999",
    ],
)  # fmt: skip
def test_any_other_spelling_of_a_bundle_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Bundle.parse(path)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_is_each_entry_behind_its_length(entries: list[bytes]) -> None:
    assert unpacked(pack(entries)) == entries


def test_the_largest_entry_fits_a_bundle() -> None:
    assert pack([bytes(LARGEST)]) == b"\xff\xff" + bytes(LARGEST)


@given(TILES, st.integers(1, MAX_SIZE))
def test_the_tile_over_a_node_is_as_wide_as_the_tree_makes_it(fields: tuple[int, int, int], size: int) -> None:
    level, index, width = fields
    position = index * FULL_WIDTH + width - 1
    if (position + 1) << 8 * level <= size:  # the node is complete
        over = Tile.over(level, position, size)
        assert (8 * level, position) in over.nodes()
        assert (over.index * FULL_WIDTH + over.width) << 8 * level <= size
        assert over.width == FULL_WIDTH or (over.index * FULL_WIDTH + over.width + 1) << 8 * level > size


# ------------------------------------------------------------------- served


@pytest.fixture(scope="module")
def long_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of 259 entries."""
    world = World(tmp_path_factory.mktemp("long"))
    while world.store.size() < FULL_WIDTH + 3:
        assert world.ask("bo").status_code == 403
    return world


@pytest.mark.parametrize(("number", "width"), [("000", 256), ("001", 3), ("000", 7)])
def test_an_auditor_reads_bundles_whose_entries_hash_to_the_tile_of_the_same_number(
    long_world: World, number: str, width: int
) -> None:
    path = number if width == FULL_WIDTH else f"{number}.p/{width}"
    answer = long_world.read("eve", f"/log/tile/entries/{path}")
    assert (answer.status_code, answer.mimetype) == (200, "application/octet-stream")
    hashes = long_world.http.get(f"/log/tile/0/{path}")
    assert b"".join(map(leaf_hash, unpacked(answer.data))) == hashes.data
    assert len(hashes.data) == 32 * width
    kept = "max-age=31536000, immutable"
    expected = (f"private, {kept}", f"public, {kept}") if width == FULL_WIDTH else ("no-store", "no-store")
    assert (answer.headers["Cache-Control"], hashes.headers["Cache-Control"]) == expected


def test_what_changes_or_is_wrong_is_kept_by_nobody(long_world: World) -> None:
    for path in ("/log/checkpoint", "/log/tile/0/009", "/log/tile/0/9", "/log/tile/entries/000"):
        assert long_world.http.get(path).headers["Cache-Control"] == "no-store"


def test_nobody_but_auditors_reads_bundles(world: World) -> None:
    path = "/log/tile/entries/000.p/1"
    assert world.http.get(path).status_code == 401
    for person in ("ana", "cy"):
        assert (world.read(person, path).json or {})["code"] == "forbidden"
    elsewhere = world.read("eve", "/log/tile/entries/000.p/2")
    stolen = world.http.get(path, headers={"Authorization": elsewhere.request.headers["Authorization"]})
    assert (stolen.json or {})["code"] == "bad-signature"


def test_a_bundle_that_is_not_there_is_not_found_and_leaves_no_entry(world: World) -> None:
    size = world.store.size()
    later = ("000", "001.p/1", f"000.p/{size + 1}")
    for path, status in (*((path, 404) for path in later), ("0", 400), ("000.p/256", 400), ("x/..", 400)):
        assert world.read("eve", f"/log/tile/entries/{path}").status_code == status, path
    assert world.store.size() == size


def test_reading_bundle_after_bundle_leaves_one_entry_and_another_place_one_more(long_world: World) -> None:
    long_world.now += 2 * SITTING
    before = long_world.kinds().count("read")
    for path in ("000.p/7", "000", "001.p/3", "001.p/4"):
        assert long_world.read("eve", f"/log/tile/entries/{path}").status_code == 200
    assert long_world.kinds().count("read") == before + 1
    long_world.now += SITTING
    assert long_world.read("eve", "/log/tile/entries/001.p/1").status_code == 200
    assert long_world.read("eve", "/log/tile/entries/000").status_code == 200, "an earlier place than where the sitting began"
    assert long_world.kinds().count("read") == before + 3
    long_world.check()


# ------------------------------------------------------------- made smaller


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, identity", "gzip"),  # what the specification wants of clients
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br, gzip;q=0.8, *;q=0.1", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0.5, identity;q=0.1", "gzip"),
        ("identity;q=0, gzip", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0", None),
        ("*;q=0", None),
        ("identity", None),
        ("br, zstd", None),
        ("gzipped", None),
        ("", None),
        (None, None),
    ],
)
def test_a_bundle_is_compressed_for_whoever_accepts_it(long_world: World, accepted: str | None, coding: str | None) -> None:
    said = ReadStatement(audience=ORIGIN, id=uuid7(), time=int(long_world.now), path="/log/tile/entries/000")
    headers = {"Authorization": authorization(canonical.encode(said), long_world.people["eve"])}
    answer = long_world.http.get(said.path, headers=headers | ({} if accepted is None else {"Accept-Encoding": accepted}))
    assert answer.status_code == 200
    assert (answer.headers.get("Content-Encoding"), answer.headers["Vary"]) == (coding, "Accept-Encoding")
    assert answer.headers["Cache-Control"].startswith("private, max-age=")
    content = gzip.decompress(answer.data) if coding else answer.data
    assert content == pack(long_world.store.entries(0, FULL_WIDTH))
    assert not coding or len(answer.data) < len(content) / 3
    assert int(answer.headers["Content-Length"]) == len(answer.data)


def test_what_is_not_a_bundle_is_served_as_it_is(long_world: World) -> None:
    """Hashes do not get smaller."""
    for path in ("/log/tile/0/000", "/log/checkpoint", "/log/tile/entries/009"):
        answer = long_world.http.get(path, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in answer.headers


def test_a_bundle_is_compressed_an_entry_at_a_time(long_world: World) -> None:
    """So that a bundle of the largest entries needs no more memory for being compressed."""
    wide = [bytes(LARGEST)] * FULL_WIDTH
    tracemalloc.start()
    try:
        compressed = tiles._compressed(iter(wide))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gzip.decompress(compressed) == pack(wide)
    assert most < 2**20, "its entries have 16 MiB"


def test_curl_reads_a_compressed_bundle_from_a_real_server(tmp_path: Path) -> None:
    ana = keys.make(tmp_path, name="ana")
    assert run("init", tmp_path / "ca", "--origin", running.ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub").code == 0
    server, path = Running(tmp_path / "ca"), "/log/tile/entries/000.p/2"
    try:
        answers = [
            _curl(server.url + path, _read(ana, path), *more) for more in ([], ["--compressed"], ["-H", "Accept-Encoding: gzip"])
        ]
    finally:
        assert server.stops() == 0
    (plain, packed), (smaller, unpacked_), (same, raw) = answers
    with closing(SqliteCopy(tmp_path / "ca" / "jit-ssh.db")) as log:
        assert packed == unpacked_ == gzip.decompress(raw) == pack(log.entries(0, 2))
    assert "content-encoding" not in plain
    assert (smaller["content-encoding"], same["content-encoding"]) == ("gzip", "gzip")
    assert {each["vary"] for each in (plain, smaller, same)} == {"Accept-Encoding"}
    assert int(same["content-length"]) == len(raw) < len(packed)


def _read(signer: keys.Key, path: str) -> str:
    said = ReadStatement(audience=running.ORIGIN, id=uuid7(), time=int(time.time()), path=path)
    return authorization(canonical.encode(said), signer)


def _curl(url: str, signed: str, *more: str) -> tuple[dict[str, str], bytes]:
    """Headers and content."""
    command = ["curl", "-sS", "-f", "-i", "-H", f"Authorization: {signed}", *more, url]
    head, _, content = subprocess.run(command, check=True, capture_output=True).stdout.partition(b"\r\n\r\n")
    lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return {name.lower(): value for name, value in lines}, content
