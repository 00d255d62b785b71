#!/usr/bin/python3 -ISB
"""What sshd asks on a host that was installed with `--verify-log`: which principals enter an account with this certificate?

    host-verify ACCOUNT TYPE BASE64     the account's principals, or nothing and exit 1
    host-verify --check USER            whether that question could be answered as USER; prints nothing

It prints them only for a certificate that proves that it is in the log: whoever stole the CA's key can sign a certificate, but
can make no such proof. sshd has checked the CA's signature before it asks, and the validity and the principals after.

`scripts/install-host` copies this file to hosts, so it is all there is: the standard library of Python 3.9, no network, nothing
of jit-ssh, and no import that makes logins slower. It is a second reading of ca/FORMATS.md, not the first one again. One line
prints principals, and everything that is not as it should be, whatever raises it, is a refusal.
"""

from __future__ import annotations

import os
import stat
import sys
from base64 import b64decode, b64encode
from hashlib import sha256, sha512

CERTIFICATES = {  # how many strings of its key each type has
    "ssh-ed25519-cert-v01@openssh.com": 1,
    "sk-ssh-ed25519-cert-v01@openssh.com": 2,
    "ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
    "ecdsa-sha2-nistp384-cert-v01@openssh.com": 2,
    "ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": 3,
    "ssh-rsa-cert-v01@openssh.com": 2,
}
LARGEST = 64 * 1024  # bytes of a certificate, and of each file that is read here
LOG_PROOF = b"log-proof@jit-ssh"
HEADER = "c2sp.org/tlog-proof@v1"
LOG_KEY, WITNESS_KEY = b"\x01", b"\x04"  # the C2SP types of keys of notes
_LETTERS = set("abcdefghijklmnopqrstuvwxyz_")
_NAME = _LETTERS | set("0123456789.-")


class Refused(Exception):
    """Why there are no principals."""


def demand(holds: bool, otherwise: str) -> None:
    """Raises `Refused` with `otherwise` unless it holds."""
    if not holds:
        raise Refused(otherwise)


# ------------------------------------------------------------------- Ed25519 (RFC 8032 §5.1): verifying alone, nothing secret

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_NEUTRAL = (0, 1, 1, 0)

Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, x·y = T/Z


def _decoded(raw: bytes) -> Point | None:
    """The point that 32 bytes stand for; None for bytes that are none, or not the one spelling of one (§5.1.3)."""
    number = int.from_bytes(raw, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if len(raw) != 32 or y >= _P:
        return None
    u, v = y * y - 1, _D * y * y + 1
    x = u * v**3 * pow(u * v**7, (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _ROOT_OF_MINUS_1 % _P
    if (v * x * x - u) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


def _sum(a: Point, b: Point) -> Point:
    """Two points added (§5.1.4)."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    t, z = 2 * _D * a[3] * b[3] % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = n - m, z - t, z + t, n + m
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _twice(a: Point) -> Point:
    """A point added to itself (§5.1.4)."""
    x, y = a[0] * a[0] % _P, a[1] * a[1] % _P
    h, g = x + y, x - y
    e, f = h - (a[0] + a[1]) ** 2, 2 * a[2] * a[2] + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _encoded(a: Point) -> bytes:
    inverse = pow(a[2], -1, _P)
    return (a[1] * inverse % _P | (a[0] * inverse % _P & 1) << 255).to_bytes(32, "little")


_BASE = _decoded((4 * pow(5, -1, _P) % _P).to_bytes(32, "little")) or _NEUTRAL


def _small(a: Point) -> bool:
    """Whether it is one of the eight points of small order."""
    return _encoded(_twice(_twice(_twice(a)))) == _encoded(_NEUTRAL)


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` is one by `key` (32 bytes); with a key or an R of small order none is."""
    a, s = _decoded(key), int.from_bytes(signature[32:], "little")
    if a is None or _small(a) or len(signature) != 64 or s >= _L:
        return False
    k = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % _L
    minus_a = _P - a[0], a[1], 1, _P - a[3]
    terms, found = (_NEUTRAL, _BASE, minus_a, _sum(_BASE, minus_a)), _NEUTRAL
    for bit in range(252, -1, -1):  # S·B − k·A, both from the highest bit down
        found = _twice(found)
        if term := (s >> bit & 1) | (k >> bit & 1) << 1:
            found = _sum(found, terms[term])
    return _encoded(found) == signature[:32] and not _small(found)


# ------------------------------------------------------------------- bytes


def base64(text: str, what: str) -> bytes:
    """Padded base64 in its one spelling."""
    try:
        raw = b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Refused(f"{what} is not base64") from error
    demand(b64encode(raw).decode() == text, f"{what} is not canonical base64")
    return raw


class Reader:
    """Reads SSH's fields (RFC 4251 §5) off bytes."""

    def __init__(self, source: bytes) -> None:
        self.source, self.at = source, 0

    def take(self, length: int) -> bytes:
        """So many bytes."""
        self.at += length
        demand(self.at <= len(self.source), "the certificate ends early")
        return self.source[self.at - length : self.at]

    def string(self) -> bytes:
        """A length of four bytes and as many bytes."""
        return self.take(int.from_bytes(self.take(4), "big"))

    def end(self) -> None:
        """Nothing is left."""
        demand(self.at == len(self.source), "the certificate has bytes too many")


def string(raw: bytes) -> bytes:
    """What `Reader.string` reads."""
    return len(raw).to_bytes(4, "big") + raw


# ------------------------------------------------------------------- the certificate (PROTOCOL.certkeys)


class Certificate:
    """What is read in a certificate: `bare` are the bytes to be signed without the `proof`. Whose it is, the entry says."""

    def __init__(self, blob: bytes) -> None:
        """Raises `Refused` unless it is a user certificate with exactly one proof."""
        demand(len(blob) <= LARGEST, "the certificate is too large")
        reader = Reader(blob)
        self.type = reader.string().decode("ascii", "replace")
        demand(self.type in CERTIFICATES, "the certificate is of a type that is not known")
        demand(len(reader.string()) == 32, "the certificate has no nonce of 32 bytes")
        for _ in range(CERTIFICATES[self.type]):
            reader.string()
        self.serial = int.from_bytes(reader.take(8), "big")
        demand(reader.take(4) == b"\0\0\0\x01", "the certificate is none for a user")
        self.key_id, principals = reader.string().decode("ascii", "replace"), Reader(reader.string())
        self.principals = []
        while principals.at < len(principals.source):
            self.principals.append(principals.string())
        reader.take(16)  # from when until when: sshd's to judge
        _options(reader.string())
        start = reader.at
        options = _options(reader.string())
        behind = reader.at
        demand(reader.string() == b"", "the certificate uses the reserved field")
        self.ca_key = reader.string()
        rest = b"".join(string(name) + string(content) for name, content in options if name != LOG_PROOF)
        self.bare = blob[:start] + string(rest) + blob[behind : reader.at]
        demand(len(reader.string()) > 0, "the certificate has no signature")
        reader.end()
        proofs = [content for name, content in options if name == LOG_PROOF]
        demand(len(proofs) == 1, "the certificate does not prove that it is in the log")
        inner = Reader(proofs[0])
        try:
            self.proof = inner.string().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("the proof is not UTF-8") from error
        inner.end()


def certificate_of(kind: str, encoded: str) -> Certificate:
    """The certificate in two words, as sshd's %t and %k. Raises `Refused`."""
    found = Certificate(base64(encoded, "the certificate"))
    demand(kind == found.type, "the certificate is of another type than is said")
    return found


def _options(packed: bytes) -> list[tuple[bytes, bytes]]:
    """Options or extensions, by name: each once, in order."""
    reader, found = Reader(packed), []
    while reader.at < len(packed):
        found.append((reader.string(), reader.string()))
    names = [name for name, _ in found]
    demand(names == sorted(set(names)), "the certificate has options out of order, or one twice")
    return found


# ------------------------------------------------------------------- signed notes (C2SP signed-note, checkpoint, cosignature)


class NoteKey:
    """A key of a log or of a witness: `name+id+base64`."""

    def __init__(self, text: str, kind: bytes) -> None:
        """Raises `Refused` for another kind of key, and for a name or an id that is not the key's."""
        self.name, _, rest = text.partition("+")
        self.id, _, encoded = rest.partition("+")
        raw = base64(encoded, f"the key {text[:200]!a}")
        self.key = raw[1:]
        demand(raw[:1] == kind and len(self.key) == 32, f"{text[:200]!a} is not a key of the kind that belongs there")
        named = self.name.isascii() and self.name.isprintable() and " " not in self.name
        expected = sha256(self.name.encode() + b"\n" + raw).digest()[:4].hex()
        demand(bool(self.name) and named and self.id == expected, f"the key {text[:200]!a} has another name or id than it says")


class Note:
    """A text, and the signatures below it."""

    def __init__(self, source: str) -> None:
        text, empty_line, lines = source.rpartition("\n\n")
        demand(bool(empty_line) and lines.endswith("\n"), "the proof has no signed checkpoint")
        demand(all(letter >= " " or letter == "\n" for letter in set(source)), "the checkpoint has control characters")
        self.text, self._signatures = text + "\n", []
        for line in lines[:-1].split("\n"):
            _, name, encoded = [*line.split(" "), "", "", ""][:3]
            named = bool(name) and "+" not in name and not any(letter.isspace() for letter in name)
            demand(named and line == f"— {name} {encoded}", "the checkpoint has a line that is no signature")
            raw = base64(encoded, "a signature of the checkpoint")
            demand(len(raw) > 4, "the checkpoint has an empty signature")
            self._signatures.append((name, raw[:4].hex(), raw[4:]))

    def signature(self, key: NoteKey) -> bytes | None:
        """The key's one signature, or None. Nothing is verified."""
        found = [signature for name, id_, signature in self._signatures if (name, id_) == (key.name, key.id)]
        demand(len(found) < 2, f"the checkpoint has {len(found)} signatures by {key.name!a}")
        return found[0] if found else None

    def signed_by(self, key: NoteKey) -> bool:
        """Whether the log's key signed it. Raises `Refused` for a signature by that key that does not verify."""
        signature = self.signature(key)
        if signature is not None:
            demand(verifies(key.key, signature, self.text.encode()), f"the checkpoint has no good signature by {key.name!a}")
        return signature is not None

    def cosigned_by(self, key: NoteKey) -> bool:
        """Whether the witness cosigned it. Raises `Refused` for a cosignature by that key that does not verify."""
        signature = self.signature(key)
        if signature is not None:
            time = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {time}\n{self.text}".encode()
            good = len(signature) == 72 and time < 2**63 and verifies(key.key, signature[8:], message)
            demand(good, f"the checkpoint has no good cosignature by {key.name!a}")
        return signature is not None


# ------------------------------------------------------------------- the proof (C2SP tlog-proof)


def number(text: str, what: str) -> int:
    """A decimal number below 2^63 in its one spelling."""
    digits = text.isascii() and text.isdigit() and len(text) < 20
    demand(digits and str(int(text)) == text and int(text) < 2**63, f"{what} is no number")
    return int(text)


def proven(proof: str, trusted: Trusted) -> tuple[bytes, int]:
    """The entry in a proof and its index, if it is in one of the logs that are trusted. Raises `Refused`."""
    head, empty_line, source = proof.partition("\n\n")
    lines = head.split("\n")
    well_formed = bool(empty_line) and 3 <= len(lines) <= 3 + 63 and lines[0] == HEADER
    demand(well_formed and lines[1].startswith("extra ") and lines[2].startswith("index "), "the proof is not one of an entry")
    entry, index = base64(lines[1][6:], "the entry of the proof"), number(lines[2][6:], "the index of the proof")
    path = [base64(line, "a hash of the proof") for line in lines[3:]]
    size, root = trusted.opened(Note(source))
    demand(root_above(entry, index, size, path) == root, f"entry {index} is not proven to be in the log of {size} entries")
    return entry, index


def root_above(entry: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root to which the hashes of a proof lead from the entry (RFC 9162 §2.1.3.2)."""
    demand(index < size and all(len(step) == 32 for step in path), "the proof is not one for this log")
    node, last, found = index, size - 1, sha256(b"\0" + entry).digest()
    for step in path:
        demand(last > 0, "the proof has more hashes than the log has levels")
        if node & 1 or node == last:
            found = sha256(b"\1" + step + found).digest()
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = sha256(b"\1" + found + step).digest()
        node, last = node >> 1, last >> 1
    demand(last == 0, "the proof has fewer hashes than the log has levels")
    return found


# ------------------------------------------------------------------- what the host believes


def believed(path: str, directory: str, owners: frozenset[int]) -> str:
    """The text of a file of the `directory` that nobody but `owners` could have written, nor put there. Raises `Refused`."""
    top = os.path.realpath(directory)
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib makes each login 5 ms slower
        facts = os.fstat(file.fileno())
        demand(stat.S_ISREG(facts.st_mode), f"{path} is no file")
        _demand_owned(path, facts, owners, mendable=True)
        try:
            text = file.read(LARGEST + 1)
        except UnicodeDecodeError as error:
            raise Refused(f"{path} is not UTF-8") from error
    demand(len(text) <= LARGEST, f"{path} is too large")
    place = os.path.realpath(path)
    while place != "/":
        place = os.path.dirname(place)  # noqa: PTH120
        facts = os.stat(place)  # noqa: PTH116
        _demand_owned(place, facts, owners, mendable=f"{place}/".startswith(f"{top}/") and not facts.st_mode & stat.S_ISVTX)
    return text


def _demand_owned(path: str, facts: os.stat_result, owners: frozenset[int], *, mendable: bool) -> None:
    """`mendable` is what is jit-ssh's own: the mode of a directory above it, such as /tmp, is not for it to change."""
    others = facts.st_uid not in owners or stat.S_IMODE(facts.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    elsewhere = "put the jit-ssh directory, and all that it links to, somewhere that only root can write to"
    mend = f"chown root {path}; chmod go-w {path}" if mendable else elsewhere
    demand(not others, f"{path} could be written by others than root: {mend}")


def lines_of(text: str) -> list[str]:
    """Its lines without comments and empty ones."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


class Trusted:
    """The keys in a host's directory: of CAs, of logs, and of witnesses, so many of which are required."""

    def __init__(self, directory: str, owners: frozenset[int]) -> None:
        """Raises `Refused` for what cannot be believed, or not be read; `OSError` for what is not there."""
        self._directory, self._owners = directory, owners
        self.logs = [NoteKey(line, LOG_KEY) for line in lines_of(self._read("log.pub"))]
        demand(bool(self.logs), "log.pub has no key")
        self.ca_keys = [base64(line.split(" ")[1], "a key of ca.pub") for line in lines_of(self._read("ca.pub"))]
        self.required = 0
        self.witnesses: list[NoteKey] = []
        if os.path.lexists(f"{directory}/witnesses.pub"):
            self._read_witnesses(lines_of(self._read("witnesses.pub")))

    def _read_witnesses(self, lines: list[str]) -> None:
        required = [line for line in lines if line.startswith("require ")]
        demand(len(required) == 1, "witnesses.pub does not say once how many it requires: require N")
        self.required = number(required[0][8:], "what witnesses.pub requires")
        self.witnesses = [NoteKey(line, WITNESS_KEY) for line in lines if line not in required]
        names, keys = {each.name for each in self.witnesses}, {each.key for each in self.witnesses}
        demand(len(names) == len(keys) == len(self.witnesses), "witnesses.pub has a witness twice")
        demand(not keys & {each.key for each in self.logs}, "a log cannot be its own witness")
        demand(1 <= self.required <= len(self.witnesses), "witnesses.pub requires none, or more witnesses than it names")

    def _read(self, name: str) -> str:
        return believed(f"{self._directory}/{name}", self._directory, self._owners)

    def principals(self, account: str) -> list[str]:
        """The principals of an account: the lines of its file. Raises like `Trusted`."""
        named = len(account) <= 32 and account[:1] in _LETTERS and set(account) <= _NAME
        demand(named, f"the account {account[:80]!a} has no principals")
        try:
            found = lines_of(self._read(f"principals/{account}"))
        except FileNotFoundError as error:
            raise Refused(f"the account {account} has no principals: there is no file principals/{account}") from error
        for line in found:
            name, _, group = line.partition("@")
            demand(name == account and bool(group) and set(group) <= _NAME, f"principals/{account} has a line of something else")
        return found

    def opened(self, note: Note) -> tuple[int, bytes]:
        """The size and root of the checkpoint in a note, of one of the logs, that enough witnesses saw. Raises `Refused`."""
        signers = [log.name for log in self.logs if note.signed_by(log)]
        demand(bool(signers), "the checkpoint is signed by no log that this host trusts")
        lines = note.text.split("\n")
        demand(len(lines) == 4 and lines[0] in signers and not lines[3], "the checkpoint is of another log than signed it")
        size, root = number(lines[1], "the size of the checkpoint"), base64(lines[2], "the root of the checkpoint")
        seen_by = sum(note.cosigned_by(witness) for witness in self.witnesses)
        demand(seen_by >= self.required, f"the checkpoint has cosignatures of {seen_by} witnesses, not of {self.required}")
        return size, root


# ------------------------------------------------------------------- the question


def principals_for(account: str, certificate: Certificate, trusted: Trusted) -> list[str]:
    """The principals of an account, for a certificate that is in the log, is exactly what the log says, and has one of them.

    Raises `Refused`, or `OSError` for what cannot be read.
    """
    demand(certificate.ca_key in trusted.ca_keys, "the certificate is by a CA that this host does not trust")
    entry, index = proven(certificate.proof, trusted)
    demand(index == certificate.serial, "the proof is of another entry than the certificate's")
    demand(says(entry, certificate), "the certificate is not the one that is in the log under its serial")
    found = trusted.principals(account)
    enters = any(line.encode() in certificate.principals for line in found)
    demand(enters, f"the certificate has no principal that enters {account}")
    return found


def says(entry: bytes, certificate: Certificate) -> bool:
    """Whether an entry is the `issue` entry of this very certificate.

    There is one spelling of such an entry, and all of it but its time is in the certificate: so it is written here and
    compared, and no JSON is read.
    """
    actor, _, rest = certificate.key_id.partition("/")
    role, _, request = rest.partition("/")
    named = all(name and set(name) <= _NAME for name in (actor, role)) and request.isdigit()
    tbs = b64encode(certificate.bare).decode()
    whose = f'"actor":"{actor}","index":{certificate.serial},"kind":"issue","request":{request},"role":"{role}"'
    before = f'{{{whose},"tbs":"{tbs}","time":'
    time = entry[len(before) : -1]
    return named and entry.startswith(before.encode()) and time.isdigit() and entry.endswith(b"}")


def main(arguments: list[str], directory: str, owners: frozenset[int] = frozenset({0})) -> int:
    """Answers sshd, or the check of `install-host`; gives the exit status."""
    told = ""
    try:
        if len(arguments) == 2 and arguments[0] == "--check":
            _check(arguments[1], directory, owners)
            return 0
        demand(len(arguments) == 3, "usage: host-verify ACCOUNT TYPE BASE64")
        account, kind, encoded = arguments
        certificate = certificate_of(kind, encoded)
        told = f" serial {certificate.serial} ID {certificate.key_id[:120]!a} for {account[:32]!a}"
        found = principals_for(account, certificate, Trusted(directory, owners))
        answer = "".join(f"{line}\n" for line in found).encode()
        demand(os.write(1, answer) == len(answer), "the answer could not be written whole")
    except Exception as error:  # whatever it is: no principals, and not 0
        _complain(f"refused{told}: {error}" if isinstance(error, (Refused, OSError)) else f"refused{told}: {error!r}")
        return 1
    return 0


def _check(user: str, directory: str, owners: frozenset[int]) -> None:
    """Raises when sshd, which asks as `user`, would get no answer."""
    import pwd  # noqa: PLC0415 - no login needs it

    wanted = pwd.getpwnam(user)
    if os.geteuid() != wanted.pw_uid:
        os.setgroups([])
        os.setgid(wanted.pw_gid)
        os.setuid(wanted.pw_uid)
    trusted = Trusted(directory, owners)
    for account in sorted(os.listdir(f"{directory}/principals")):  # noqa: PTH208
        trusted.principals(account)


def _complain(sentence: str) -> None:
    """Tells the person who tries it by hand, and the system's log, because sshd throws away what a command says."""
    sentence = ascii(sentence)[1:-1][:1000]
    print(f"host-verify: {sentence}", file=sys.stderr)
    import syslog  # noqa: PLC0415 - only a refusal needs it

    syslog.openlog("jit-ssh-host-verify", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE, sentence)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
