"""The formats of `ca/FORMATS.md` read by a second program, of which nothing is imported from this project.

The lists of fields are read from the document itself. RFC 6962 §2.1 for the tree, RFC 8032 by OpenSSL, OpenSSH's PROTOCOL
files; other keys than Ed25519 are judged by `ssh-keygen`.
"""

import base64
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DOCUMENT = (Path(__file__).parents[1] / "ca" / "FORMATS.md").read_text()
LIMITS = {name: int(value) for name, value in re.findall(r"\| `([a-z._]+\.[A-Z_]+)` \| (\d+) \|", DOCUMENT)}
Fields = dict[str, tuple[str, bool]]  # name → type, whether it is optional
Members = dict[str, Any]


class Wrong(Exception):
    """What is wrong."""


def demand(holds: object, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)


# -------------------------------------------------------- the document's lists


def parts() -> dict[str, Fields]:
    """The fields below each heading of the document."""
    found = {}
    for part in DOCUMENT.split("\n### ")[1:]:
        heading, _, rest = part.partition("\n")
        listed = re.search(r"```fields\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)
        lines = [re.split(r"\s{2,}", line.strip()) for line in listed[1].splitlines()] if listed else []
        found[heading] = {line[1]: (line[0], line[2:] == ["optional"]) for line in lines if len(line) > 1}
    return found


PARTS = parts()


def named(word: str) -> dict[str, Fields]:
    """The fields of each thing that the headings `WORD …` name."""
    headings = [heading for heading in PARTS if re.match(rf"{word}s? ", heading, re.IGNORECASE) and "`" in heading]
    return {name: PARTS[heading] for heading in headings for name in re.findall(r"`([a-z-]+)`", heading)}


STATEMENTS = {name: PARTS["Every statement"] | fields for name, fields in (named("Statement") | named("Statements")).items()}
ENTRIES = {}
for kind, own in (named("Entry") | named("Entries")).items():
    said = {} if kind in {"genesis", "policy", "issue", "seal", "kit", "break-glass", "login"} else PARTS["What a person caused"]
    decided = PARTS["Every decision"] if kind in {"request", "approve", "renew", "refuse"} else {}
    ENTRIES[kind] = PARTS["Every entry"] | said | decided | own
HEADINGS = {"facts": "Kit facts"}  # of structures that have another name than their type


def read(source: bytes, kinds: dict[str, Fields], tag: str) -> Members:
    """One JSON object in its canonical spelling, with the members that its kind has."""
    try:
        text = source.decode()
        members = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"no JSON: {error}") from error
    demand(isinstance(members, dict) and members.get(tag) in kinds, "of no known kind")
    check_fields(members, kinds[members[tag]])
    canonical = json.dumps(members, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    demand(canonical == text, "not canonical")
    return dict(members)


def check_fields(members: Any, fields: Fields) -> None:
    demand(isinstance(members, dict), "no object")
    demand(members.keys() <= fields.keys(), f"unknown members {members.keys() - fields.keys()}")
    demand({name for name, (_, optional) in fields.items() if not optional} <= members.keys(), "members are missing")
    for name, value in members.items():
        check_type(value, fields[name][0])


def check_type(value: Any, kind: str) -> None:
    for prefix, shape in (("list of ", list), ("map of ", dict)):
        if kind.startswith(prefix):
            demand(type(value) is shape, f"not a {kind}")
            for member in value.values() if shape is dict else value:
                check_type(member, kind.removeprefix(prefix))
            return
    if (heading := HEADINGS.get(kind, kind.capitalize())) in PARTS:
        check_fields(value, PARTS[heading])
        return
    demand(type(value) is {"text": str, "base64": str, "integer": int, "boolean": bool}[kind], f"not {kind}")
    demand(kind != "integer" or -(2**63) <= value < 2**63, "an integer of more than 64 bits")
    if kind == "base64":
        binary(value)


def binary(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Wrong("no base64") from error
    demand(base64.b64encode(raw).decode() == text, "no canonical base64")
    return raw


# ------------------------------------------------------------- keys, signatures


class Wire:
    """RFC 4251 §5."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, count: int) -> bytes:
        demand(self.at + count <= len(self.raw), "it ends early")
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))

    def strings(self) -> Iterator[bytes]:
        while self.at < len(self.raw):
            yield self.string()

    def end(self) -> None:
        demand(self.at == len(self.raw), "bytes behind the end")


def packed(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def key_of(line: str) -> bytes:
    """The blob of `type base64 …`."""
    words = line.split(" ")
    blob = binary(words[1])
    demand(Wire(blob).string() == words[0].encode(), "a key of another type")
    return blob


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def small_or_not_canonical(point: bytes) -> bool:
    """Of small order is what has y = 0 or y² = 1, and what doubles to y = 0, so has x² = −y²."""
    y = int.from_bytes(point, "little") % 2**255
    return y >= P or y * (y * y - 1) * (D * y**4 + 2 * y * y - 1) % P == 0


def ed25519(key: bytes, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Wrong("a signature that does not verify") from error
    demand(not small_or_not_canonical(key) and not small_or_not_canonical(signature[:32]), "a point of small order")


def check_sshsig(encoded: str, message: str) -> tuple[bytes, bool]:
    """The key that signed, and whether a security key proved a touch."""
    blob = binary(encoded)
    wire = Wire(blob)
    demand(wire.take(6) == b"SSHSIG" and wire.number(4) == 1, "no SSHSIG")
    key, namespace, reserved, digest, signature = (wire.string() for _ in range(5))
    wire.end()
    demand((namespace, reserved, digest) == (b"jit-ssh", b"", b"sha512"), "an SSHSIG for something else")
    signed = b"SSHSIG" + packed(namespace, reserved, digest, hashlib.sha512(message.encode()).digest())
    public, made = Wire(key), Wire(signature)
    kind, algorithm = public.string(), made.string()
    if kind == b"ssh-ed25519" == algorithm:
        ed25519(public.string(), made.string(), signed)
        made.end()
        return key, False
    by_ssh_keygen(blob, message)
    if not kind.startswith(b"sk-"):
        return key, False
    raw = made.string()
    demand(b"ed25519" not in kind or not small_or_not_canonical(raw[:32]), "a point of small order")
    return key, bool(made.take(1)[0] & 1)


def by_ssh_keygen(blob: bytes, message: str) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        body = base64.encodebytes(blob).decode()
        file.write(f"-----BEGIN SSH SIGNATURE-----\n{body}-----END SSH SIGNATURE-----\n")
        file.flush()
        command = ["ssh-keygen", "-Y", "check-novalidate", "-n", "jit-ssh", "-s", file.name]
        done = subprocess.run(command, input=message.encode(), capture_output=True, check=False)
    demand(done.returncode == 0, "a signature that ssh-keygen refuses")


# --------------------------------------------------------------- tree and notes


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def check_note(note: str, log_key: str) -> tuple[int, bytes]:
    """Size and root of a checkpoint that this verifier key signed."""
    name, key_id, encoded = log_key.split("+", 2)
    key = binary(encoded)
    expected = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    demand(key[:1] == b"\x01" and len(key) == 33 and key_id == expected.hex(), "a verifier key that is none")
    text, found, lines = note.rpartition("\n\n")
    demand(found and re.fullmatch(r"(— [^ +\n]+ [A-Za-z0-9+/=]+\n)+", lines), "no signed note")
    ours = [binary(line.split(" ")[2]) for line in lines.splitlines() if line.split(" ")[1] == name]
    ours = [raw for raw in ours if raw[:4] == expected]
    demand(len(ours) == 1, "not exactly one signature by the log")
    ed25519(key[1:], ours[0][4:], text.encode() + b"\n")
    body = text.split("\n")
    demand(len(body) == 3 and body[0] == name and re.fullmatch(r"0|[1-9][0-9]*", body[1]), "no checkpoint")
    root = binary(body[2])
    demand(len(root) == 32, "a root of another length")
    return int(body[1]), root


# ---------------------------------------------------------------- certificates

KEY_FIELDS = {name: int(count) for name, count in re.findall(r"\| `((?:ssh|sk|ecdsa)[a-z0-9@.-]+)` \| (\d) \|", DOCUMENT)}


def certificate(tbs: bytes) -> Members:
    """The fields of a certificate to be signed, in the one form that the document allows."""
    wire = Wire(tbs)
    kind = wire.string().decode(errors="replace")
    types = {name.removesuffix("@openssh.com") + "-cert-v01@openssh.com": name for name in KEY_FIELDS}
    demand(kind in types, "a certificate of another type")
    demand(len(wire.string()) == 32, "a nonce of another length")
    key = packed(types[kind].encode(), *(wire.string() for _ in range(KEY_FIELDS[types[kind]])))
    serial, user = wire.number(8), wire.number(4)
    demand(user == 1, "no user certificate")
    key_id, principals = wire.string().decode(), [name.decode() for name in Wire(wire.string()).strings()]
    demand(principals, "no principals")
    valid_after, valid_before = wire.number(8), wire.number(8)
    critical, extensions = (list(Wire(wire.string()).strings()) for _ in range(2))
    demand(wire.string() == b"", "the reserved field is used")
    ca_key = wire.string()
    wire.end()
    found: Members = {"force_command": None, "source_address": None}
    for name, value in zip(critical[::2], critical[1::2], strict=True):
        option = {b"force-command": "force_command", b"source-address": "source_address"}.get(name)
        demand(option and found[option] is None and not (option == "force_command" and found["source_address"]), "an option")
        inner = Wire(value)
        found[str(option)] = inner.string().decode()
        inner.end()
    permit = [name.decode().removeprefix("permit-") for name in extensions[::2]]
    demand(not any(extensions[1::2]) and [f"permit-{each}".encode() for each in permit] == extensions[::2], "an extension")
    return found | {
        "key": key,
        "serial": serial,
        "key_id": key_id,
        "principals": principals,
        "valid_after": valid_after,
        "valid_before": valid_before,
        "permit": permit,
        "ca_key": ca_key,
    }


def check_proven(line: str, trust: Members) -> Members:
    """The `issue` entry of a certificate that carries the proof of it, after all that the document wants of both."""
    blob = binary(line.split(" ")[1])
    before, extensions, after, signature = split(blob)
    pairs = list(Wire(extensions).strings())
    demand(pairs[:1] == [b"log-proof@jit-ssh"], "no proof in its place")
    value = Wire(pairs[1])
    text = value.string()
    value.end()
    bare = before + packed(packed(*pairs[2:])) + after
    fields = certificate(bare)
    check_ca(blob[: len(blob) - len(packed(signature))], signature, fields["ca_key"], trust)
    source, index = check_proof(text.decode(), trust["log_key"])
    entry = read(source, ENTRIES, "kind")
    demand(entry["kind"] == "issue" and entry["index"] == index == fields["serial"], "the proof of another entry")
    demand(binary(entry["tbs"]) == bare, "not the certificate that is in the log")
    return entry


def split(blob: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """What stands before the extensions, they, what stands between them and the signature, and it."""
    wire = Wire(blob)
    kind = wire.string().decode(errors="replace")
    key_type = next((name for name in KEY_FIELDS if kind == name.removesuffix("@openssh.com") + "-cert-v01@openssh.com"), None)
    demand(key_type, "a certificate of another type")
    for _ in range(1 + KEY_FIELDS[str(key_type)]):
        wire.string()
    wire.take(12)  # serial, type
    for _ in range(2):
        wire.string()  # key id, principals
    wire.take(16)  # times
    wire.string()  # critical options
    at, extensions = wire.at, wire.string()
    behind = wire.at
    for _ in range(2):
        wire.string()  # reserved, CA key
    end = wire.at
    signature = wire.string()
    wire.end()
    return blob[:at], extensions, blob[behind:end], signature


def check_ca(signed: bytes, signature: bytes, ca_key: bytes, trust: Members) -> None:
    demand(ca_key in [key_of(each) for each in trust["ca_keys"]], "another CA")
    public, made = Wire(ca_key), Wire(signature)
    demand(public.string() == made.string() == b"ssh-ed25519", "a CA key that is not judged here")
    ed25519(public.string(), made.string(), signed)
    made.end()


def check_proof(text: str, log_key: str) -> tuple[bytes, int]:
    """The entry that a proof proves, and its index."""
    form = r"c2sp\.org/tlog-proof@v1\nextra ([^\n]*)\nindex (0|[1-9][0-9]*)\n((?:[A-Za-z0-9+/]{43}=\n)*)\n(.*)"
    found = re.fullmatch(form, text, re.DOTALL)
    if found is None:
        raise Wrong("no proof")
    source, index, path = binary(found[1]), int(found[2]), [binary(each) for each in found[3].split()]
    size, root = check_note(found[4], log_key)
    demand(index < size, "an entry behind the end")
    demand(climb(leaf_hash(source), index, size, path) == root and not path, "hashes that do not lead to the root")
    return source, index


def climb(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root of RFC 6962 §2.1.1, from the top down; takes the hashes that it needs off the end of `path`."""
    if size == 1:
        return leaf
    demand(path, "too few hashes")
    beside, split_at = path.pop(), 1
    while split_at * 2 < size:
        split_at *= 2
    if index < split_at:
        return hashlib.sha256(b"\x01" + climb(leaf, index, split_at, path) + beside).digest()
    return hashlib.sha256(b"\x01" + beside + climb(leaf, index - split_at, size - split_at, path)).digest()
