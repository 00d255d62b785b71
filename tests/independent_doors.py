"""How a log comes to the second program other than as a database: over HTTP, as C2SP tlog-tiles has it, and as an export.

From `ca/FORMATS.md` and the specification alone, as `independent_checker`; statements are signed by `ssh-keygen`.
"""

import base64
import gzip
import hashlib
import json
import secrets
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.independent_checker import Log, check_words, first_wrong
from tests.independent_formats import (
    ENTRIES,
    PARTS,
    STATEMENTS,
    Members,
    Wrong,
    binary,
    certificate,
    check_fields,
    check_note,
    demand,
    key_of,
    leaf_hash,
    read,
    tree_hash,
)

FULL = 256  # of a tile

# ----------------------------------------------------------------- over HTTP


@dataclass
class Door:
    """A CA's address, and an auditor at it whose private key is in a file; `now` is the CA's clock, in Unix seconds."""

    url: str
    trust: Members
    key: Path
    now: int

    def log(self) -> Log:
        """The log as of the newest checkpoint: its entries, and all hashes that are served of it. Raises `Wrong`."""
        note = self.get("/log/checkpoint").decode()
        size, _ = check_note(note, self.trust["log_key"])
        entries = [entry for name, width in tiles(size) for entry in unpacked(self.get(f"/log/tile/entries/{name}", True), width)]
        nodes: dict[tuple[int, int], bytes] = {}
        for level in range(8):
            for name, width in tiles(size >> 8 * level):
                hashes = self.get(f"/log/tile/{level}/{name}")
                demand(len(hashes) == 32 * width, "a tile of another width")
                start = sum(known == 8 * level for known, _ in nodes)
                nodes |= {(8 * level, start + at): hashes[32 * at : 32 * at + 32] for at in range(width)}
        return Log(self.trust, entries, {size: note}, nodes, levels=range(0, 64, 8))

    def get(self, path: str, signed: bool = False) -> bytes:
        headers = {"Accept-Encoding": "gzip, identity"} | ({"Authorization": self.words(path)} if signed else {})
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=20) as answer:  # noqa: S310
                content: bytes = answer.read()
                coding = answer.headers.get("Content-Encoding", "identity")
        except urllib.error.HTTPError as error:
            raise Wrong(f"{path}: {error.code}") from error
        demand(coding in {"gzip", "identity"}, "a coding that nobody asked for")
        try:
            return gzip.decompress(content) if coding == "gzip" else content
        except (OSError, EOFError) as error:
            raise Wrong(f"{path}: no gzip") from error

    def words(self, path: str) -> str:
        """A signed `read` statement."""
        digits = secrets.token_hex(16)
        about = {"action": "read", "audience": self.trust["origin"], "time": self.now, "path": path}
        about["id"] = f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
        text = json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
        read(text, STATEMENTS, "action")
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "jit-ssh", "-f", str(self.key)]
        armored = subprocess.run(command, input=text, capture_output=True, check=True).stdout
        signature = base64.b64decode(b"".join(armored.splitlines()[1:-1]))
        return "JIT-SSH " + ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (text, signature))


def tiles(count: int) -> Iterator[tuple[str, int]]:
    """The names of the tiles of so many hashes or entries, and their widths."""
    for start in range(0, count, FULL):
        number, width = str(start // FULL), min(FULL, count - start)
        number = number.zfill(-(-len(number) // 3) * 3)
        groups = [number[at : at + 3] for at in range(0, len(number), 3)]
        name = "/".join([*(f"x{each}" for each in groups[:-1]), groups[-1]])
        yield (name if width == FULL else f"{name}.p/{width}"), width


def unpacked(bundle: bytes, width: int) -> list[bytes]:
    """The entries of a bundle, each behind its length."""
    found = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        found.append(bundle[2 : 2 + length])
        demand(len(found[-1]) == length, "a bundle that is cut off")
        bundle = bundle[2 + length :]
    demand(len(found) == width, "a bundle of another width")
    return found


# ------------------------------------------------------------------- exports


@dataclass
class Export:
    """What stands in a file: the proof, the entries, and in a database the other columns of each."""

    proof: Members
    entries: list[bytes]
    rows: list[Members] | None = None


def from_lines(path: Path) -> Export:
    """A JSON Lines file. Raises `Wrong`."""
    content = path.read_bytes()
    demand(content.endswith(b"\n"), "cut off")
    first, *entries = content[:-1].split(b"\n")
    return Export(proof_of(first), entries)


def from_table(path: Path) -> Export:
    """A database. Raises `Wrong`."""
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in db.execute('SELECT * FROM entries ORDER BY "index"')]
        proofs = [row["extract"] for row in db.execute("SELECT * FROM proof")]
    finally:
        db.close()
    demand(len(proofs) == 1, "not exactly one proof")
    return Export(proof_of(proofs[0].encode()), [row.pop("entry").encode() for row in rows], rows)


def proof_of(source: bytes) -> Members:
    return read(source, {"jit-ssh": PARTS["Extract proof"]}, "extract")


def wrong_with(export: Export) -> str | None:
    """What is wrong with an export; None for a sound one."""
    try:
        trust, size = check_proof(export)
        if export.rows is not None:
            demand(len(export.rows) == len(export.entries), "a row without an entry")
            for source, row in zip(export.entries, export.rows, strict=True):
                check_row(json.loads(source), row)
    except (Wrong, ValueError, KeyError, IndexError) as error:
        return str(error) or repr(error)
    if export.proof["start"] > 0:
        return None
    found = first_wrong(Log(trust, export.entries, {size: export.proof["checkpoint"]} if size == export.proof["end"] else {}))
    if found and found[0] == len(export.entries) and size > export.proof["end"]:
        return None  # a certificate that follows the last entry of a part
    return found and f"entry {found[0]}: {found[1]}"


def check_proof(export: Export) -> tuple[Members, int]:
    """The trust that the export names and the size of its log; each entry alone, and that the hashes give the root."""
    proof = export.proof
    trust = json.loads(proof["trust"])
    canonical = json.dumps(trust, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    demand(canonical == proof["trust"], "a trust description that is not canonical")
    check_fields(trust, PARTS["Trust"])
    size, root = check_note(proof["checkpoint"], trust["log_key"])
    start, end = proof["start"], proof["end"]
    demand(0 <= start <= end <= size and end - start == len(export.entries), "another number of entries")
    time = 0
    for index, source in enumerate(export.entries, start):
        entry = read(source, ENTRIES, "kind")
        demand(entry["index"] == index and entry["time"] >= time, "another index, or the time goes back")
        time = entry["time"]
        if "statement" in entry:
            check_words(entry, trust["origin"])
        if entry["kind"] == "issue":
            issued = certificate(binary(entry["tbs"]))
            demand(issued["serial"] == index, "another serial")
            demand(issued["ca_key"] in [key_of(line) for line in trust["ca_keys"]], "another CA")
    given = cover(0, start, proof["before"]) | cover(end, size, proof["after"])
    given |= {(0, index): leaf_hash(source) for index, source in enumerate(export.entries, start)}
    demand(root_of(0, size, given) == root, "the hashes do not give the root")
    return trust, size


def cover(start: int, end: int, hashes: list[str]) -> dict[tuple[int, int], bytes]:
    """The hashes of the fewest complete nodes that cover these leaves, by level and position."""
    found, left = {}, [*hashes]
    while start < end:
        level = 0
        while start % (2 << level) == 0 and start + (2 << level) <= end:
            level += 1
        demand(left and len(left[0]) == 64 and left[0] == left[0].lower(), "too few hashes, or no hash")
        found[level, start >> level] = bytes.fromhex(left.pop(0))
        start += 1 << level
    demand(not left, "too many hashes")
    return found


def root_of(start: int, end: int, given: dict[tuple[int, int], bytes]) -> bytes:
    """MTH of RFC 6962 §2.1 over these leaves, of which some are given together."""
    size = end - start
    if size == 0:
        return tree_hash([])
    level = size.bit_length() - 1
    if size == 1 << level and (level, start >> level) in given:
        return given[level, start >> level]
    demand(size > 1, "a leaf is missing")
    middle = start + (1 << (size - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + root_of(start, middle, given) + root_of(middle, end, given)).digest()


def check_row(entry: Members, row: Members) -> None:
    """The other columns say what the entry says; those of break-glass are not looked at."""
    if entry["kind"] in {"break-glass", "login"}:
        return
    words = json.loads(entry.get("statement", "{}"))
    expected: Members = {
        name: entry.get(name) for name in ("index", "kind", "actor", "person", "role", "request", "message", "address")
    }
    expected |= {
        "time": iso(entry["time"]),
        "reason": words.get("reason"),
        "path": words.get("path"),
        "serial": entry.get("serial"),
    }
    privilege = entry.get("privilege", {})
    expected |= {"duration": privilege.get("duration"), "principals": joined(privilege.get("principals"))}
    expected |= dict.fromkeys(("key", "key_id", "valid_after", "valid_before"))
    if entry["kind"] == "issue":
        issued = certificate(binary(entry["tbs"]))
        fingerprint = base64.b64encode(hashlib.sha256(issued["key"]).digest()).decode().rstrip("=")
        expected |= {"serial": issued["serial"], "key_id": issued["key_id"], "key": f"SHA256:{fingerprint}"}
        expected |= {"principals": joined(issued["principals"])}
        expected |= {name: iso(issued[name] * 1000) for name in ("valid_after", "valid_before")}
    demand(row == expected, f"row {row.get('index')} says something else")


def joined(names: list[str] | None) -> str | None:
    return None if names is None else " ".join(names)


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
