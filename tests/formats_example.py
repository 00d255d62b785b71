"""The worked example of ca/FORMATS.md: two requests through the real code with fixed keys, clock and random bytes.

`python -m tests.formats_example` writes what the code makes into tests/vectors/statement-and-entry and into the document. Run it
only when a format was changed on purpose: whoever holds an old log or certificate has the old bytes.
"""

import re
import shutil
import subprocess
import tempfile
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient

from ca import canonical, issue, roles
from ca.certificate import SignedCertificate
from ca.checkpoint import VerifierKey
from ca.issue import CertificateAuthority
from ca.keys import ed25519_key
from ca.log import Log
from ca.merkle import leaf_hash
from ca.proof import carried
from ca.roles import Policy
from ca.sshsig import SshSig, signed_bytes
from ca.statement import ApproveStatement, CertificateStatement, DropStatement, ReadStatement, RequestStatement
from ca.store.sqlite import SqliteStore
from ca.tiles import Tile
from ca.wire import string
from server.app import create_app
from tests import journals

ORIGIN: Final = "ca.example.com/jit-ssh"
NOW: Final = 1_800_000_000  # 2027-01-15 08:00:00 UTC
ADDRESS: Final = "198.51.100.7"
NONCE: Final = b"\x05" * 32
DOCUMENT: Final = Path(__file__).parents[1] / "ca" / "FORMATS.md"
VECTORS: Final = Path(__file__).parent / "vectors" / "statement-and-entry"
_CONSOLE: Final = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_SHOWN: Final = re.compile(r"^`(?P<name>[a-z0-9./-]+)`:\n\n```\n(?P<content>.*?)\n?```$", re.MULTILINE | re.DOTALL)


class FixedKey:
    """An Ed25519 key whose 32 private bytes are all the same number."""

    at_once = True

    def __init__(self, number: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.raw = self._key.public_key().public_bytes_raw()
        self.public_key = ed25519_key(self.raw)

    def sign(self, message: bytes) -> bytes:
        return string("ssh-ed25519") + string(self._key.sign(message))

    def ready(self) -> None:
        """It is here."""

    @property
    def private_file(self) -> bytes:
        """The private key in OpenSSH's format."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def sshsig(self, message: bytes) -> SshSig:
        return SshSig(self.public_key, self.sign(signed_bytes(message)))


CA_KEY, LOG_KEY, ANA, FRESH_KEY, BO, EMERGENCY = (FixedKey(number) for number in (1, 2, 3, 4, 6, 7))
POLICY: Final = {
    "guardrails.toml": 'auditors = ["security"]\n',
    "hosts.toml": '[groups.web-prod]\nabout = "The web tier"\nhosts = ["web-*.example.com"]\n',
    "people.toml": f"""\
[groups]
engineers = "Everybody"
leads = "Approve"
security = "Auditors"

[people.ana]
groups = ["engineers"]
keys = ["{ANA.public_key.line}"]

[people.bo]
groups = ["leads"]
keys = ["{BO.public_key.line}"]
""",
    "roles/web-admin.toml": """\
about = "Root on the web tier"
owner = "leads"
review_by = 2027-06-30
principals = ["root@web-prod"]
default_duration = "30m"
max_duration = "1h"
certificate_duration = "10m"
max_extensions = 2
pending_expiry = "15m"

[[allow]]
groups = ["engineers"]
approvals = [{ from = "leads", count = 1, escalate_after = "5m", escalate_to = "security" }]
""",
    "roles/web-logs.toml": """\
about = "Follow the web tier's log"
owner = "engineers"
review_by = 2027-06-30
principals = ["logs@web-prod"]
default_duration = "30m"
max_duration = "4h"
force_command = "journalctl --unit=nginx --follow"
permit = ["pty"]
pin_source_address = true

[[allow]]
groups = ["engineers"]
""",
}


def _id(number: int) -> str:
    return f"01a31cc6-5400-7000-8000-{number:012}"


STATEMENT: Final = canonical.encode(
    RequestStatement(
        audience=ORIGIN,
        id=_id(1),
        time=NOW,
        role="web-logs",
        duration=900,
        reason='INC-12 "café" is slow',
        key=FRESH_KEY.public_key.line,
    )
)
READ: Final = canonical.encode(ReadStatement(audience=ORIGIN, id=_id(2), time=NOW, path="/v1/log/entries?start=0&limit=500"))
ASKED: Final = canonical.encode(
    RequestStatement(audience=ORIGIN, id=_id(3), time=NOW, role="web-admin", reason="INC-12", key=FRESH_KEY.public_key.line)
)
CERTIFICATE: Final = canonical.encode(
    CertificateStatement(audience=ORIGIN, id=_id(5), time=NOW, request=4, key=FRESH_KEY.public_key.line)
)
DROP: Final = canonical.encode(DropStatement(audience=ORIGIN, id=_id(6), time=NOW, request=4))


def approval(asked: bytes) -> bytes:
    """What Bo signs when he was shown the entry `asked`."""
    leaf = leaf_hash(asked).hex()
    return canonical.encode(ApproveStatement(audience=ORIGIN, id=_id(4), time=NOW, request=4, leaf=leaf, duration=1200))


def body(statement: bytes, signer: FixedKey, fresh: FixedKey | None = None) -> bytes:
    """What is posted: with the proof of possession where a key is to be certified."""
    proofs = {"signature": signer, "possession": fresh}
    signed = {name: b64encode(key.sshsig(statement).blob).decode() for name, key in proofs.items() if key is not None}
    return canonical.encode({"statement": statement.decode()} | signed)


def authorization() -> str:
    """The header of a signed read."""
    return "JIT-SSH " + ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in (READ, ANA.sshsig(READ).blob))


def policy() -> Policy:
    """The policy of the example."""
    return roles.load({name: text.encode() for name, text in POLICY.items()})


def make() -> dict[str, bytes]:
    """Every file of the example by its name, made by the code that a CA runs."""
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "log.db", create=True)
        try:
            return _make(store)
        finally:
            store.close()


def _make(store: SqliteStore) -> dict[str, bytes]:
    log = Log(store, VerifierKey(ORIGIN, LOG_KEY.raw), LOG_KEY.sign, lambda: NOW * 1000 + 250)
    issue.begin(log, CA_KEY.public_key.line)
    ca = CertificateAuthority(log, CA_KEY, {name: text.encode() for name, text in POLICY.items()}, lambda _: NONCE)
    door = create_app(ca, store, clock=lambda: NOW).test_client()
    door.environ_base["REMOTE_ADDR"] = ADDRESS
    certificate = _posted(door, "/v1/requests", STATEMENT, ANA, FRESH_KEY)["certificate"]
    tile = Tile(0, 0, store.size())
    seen = {
        "tile": b"".join(store.node(level, position) for level, position in tile.nodes()),
        "checkpoint": (store.checkpoint() or "").encode(),
    }
    asked = _posted(door, "/v1/requests", ASKED, ANA, FRESH_KEY)["entry"].encode()
    _posted(door, "/v1/requests/4/approve", approval(asked), BO)
    another = _posted(door, "/v1/certificates", CERTIFICATE, ANA, FRESH_KEY)["certificate"]
    _posted(door, "/v1/requests/4/drop", DROP, ANA)
    return {
        **{f"policies/{name}": text.encode() for name, text in POLICY.items()},
        "trust.json": ca.trust.encode(),
        "statement.json": STATEMENT,
        "statement.sig": ANA.sshsig(STATEMENT).armored.encode(),
        "possession.sig": FRESH_KEY.sshsig(STATEMENT).armored.encode(),
        "signers": f"ana {ANA.public_key.line}\nfresh {FRESH_KEY.public_key.line}\nbo {BO.public_key.line}\n".encode()
        + f"break-glass {EMERGENCY.public_key.line}\n".encode(),
        "body.json": body(STATEMENT, ANA, FRESH_KEY),
        "read.json": READ,
        "authorization": authorization().encode(),
        **{f"entry-{index}.json": source for index, source in enumerate(store.entries(0, store.size()))},
        **seen,
        "certificate.tlog-proof": carried(SignedCertificate.parse_line(certificate)).encode().encode(),
        "certificate-cert.pub": f"{certificate}\n".encode(),
        "asked.json": ASKED,
        "approval.json": approval(asked),
        "approval.sig": BO.sshsig(approval(asked)).armored.encode(),
        "another.json": CERTIFICATE,
        "another-cert.pub": f"{another}\n".encode(),
        "drop.json": DROP,
        "krl": door.get("/v1/krl").data,
        **_break_glass(),
    }


def _break_glass() -> dict[str, bytes]:
    """The facts of a kit, and its journal after one use."""
    kit = journals.facts(EMERGENCY)
    pen = journals.Pen(EMERGENCY, kit)
    pen.begin()
    pen.use(FRESH_KEY)
    pen.close(1)
    return {"facts.json": kit.encode(), "journal.jsonl": pen.journal}


def _posted(door: FlaskClient, path: str, statement: bytes, signer: FixedKey, fresh: FixedKey | None = None) -> dict[str, Any]:
    answer = door.post(path, data=body(statement, signer, fresh))
    if not answer.is_json or answer.status_code >= HTTPStatus.BAD_REQUEST:
        raise AssertionError(f"{path} answered {answer.status_code}: {answer.text}")
    return dict(answer.get_json())


def with_files(document: str, files: Mapping[str, bytes]) -> str:
    """The document with the content of every file that it shows."""

    def block(match: re.Match[str]) -> str:
        content = files[match["name"]].decode().removesuffix("\n")
        return f"`{match['name']}`:\n\n```\n{content}\n```"

    return _SHOWN.sub(block, document)


def with_answers(document: str, files: Path) -> str:
    """The document with what its commands print, run one after the other in a copy of the directory `files`."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = shutil.copytree(files, Path(temporary) / "files")

        def answered(match: re.Match[str]) -> str:
            commands = [line.removeprefix("$ ") for line in match[0].splitlines() if line.startswith("$ ")]
            return "".join(f"$ {command}\n{_run(command, directory)}" for command in commands)

        return _CONSOLE.sub(answered, document)


def _run(command: str, directory: Path) -> str:
    ran = subprocess.run(
        ["sh", "-c", command], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return "".join(f"{line.rstrip()}\n" for line in ran.stdout.splitlines())  # ssh-keygen -L ends lines in a space


def _write() -> None:
    files = make()
    for name, content in files.items():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    DOCUMENT.write_text(with_answers(with_files(DOCUMENT.read_text(), files), VECTORS))


if __name__ == "__main__":
    _write()
