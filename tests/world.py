"""The whole product in one process: a CA with a fake clock and a signer that counts, its HTTP door, and people with keys.

`World.check` verifies every invariant of the log from scratch; call it after each step that matters.
"""

import json
import os
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ca import canonical, entry, issue, verify
from ca.certificate import SignedCertificate
from ca.checkpoint import VerifierKey
from ca.entry import AnyEntry
from ca.issue import CertificateAuthority
from ca.keys import PublicKey
from ca.log import Log
from ca.merkle import leaf_hash
from ca.oncall import Shift
from ca.signers.uri import Signer
from ca.statement import ReadStatement, RequestStatement, Statement
from ca.store.sqlite import SqliteStore
from ca.wire import Reader
from server.app import create_app
from server.cases import Cases
from tests import keys
from tests.keys import Key

ORIGIN = "ca.example.com/jit-ssh"
START = 1_800_000_000.0  # Friday 2027-01-15, 08:00 UTC

PEOPLE = """
[groups]
engineers = "Everybody"
sre = "On call"
leads = "Approve"
security = "Auditors"
[people.ana]
groups = ["engineers", "sre"]
keys = ["{ana}"]
[people.bo]
groups = ["engineers"]
keys = ["{bo}"]
[people.cy]
groups = ["leads"]
keys = ["{cy}"]
[people.di]
groups = ["leads", "engineers"]
keys = ["{di}"]
[people.eve]
groups = ["security"]
keys = ["{eve}"]
"""
FILES = {
    "hosts.toml": '[groups.web]\nabout = "Web"\nhosts = ["web-*.example.com"]\n[groups.dev]\nabout = "Dev"\nhosts = ["*.dev"]\n',
    "guardrails.toml": 'auditors = ["security"]\nrevokers = ["security"]\n',
    "roles/dev.toml": """
about = "Your own account"
owner = "sre"
review_by = 2027-12-31
principals = ["{person}@dev"]
default = true
default_duration = "8h"
max_duration = "12h"
[[allow]]
groups = ["engineers"]
""",
    "roles/web-admin.toml": """
about = "Root on the web tier"
owner = "sre"
review_by = 2027-12-31
principals = ["root@web"]
default_duration = "30m"
max_duration = "1h"
reason = { pattern = "^INC-[0-9]+", message = "Start with the incident, e.g. INC-12" }
[[allow]]
groups = ["sre"]
""",
    "roles/db-admin.toml": """
about = "Everything on the databases"
owner = "leads"
review_by = 2027-12-31
principals = ["postgres@web"]
default_duration = "30m"
max_duration = "1h"
certificate_duration = "10m"
max_extensions = 2
pending_expiry = "15m"
[[allow]]
groups = ["engineers"]
approvals = [{ from = "leads", count = 1 }]
""",
}


class CountingSigner:
    """A signer that knows how often it was used."""

    def __init__(self, inner: Signer) -> None:
        self._inner = inner
        self.public_key = inner.public_key
        self.at_once = inner.at_once
        self.calls = 0

    def sign(self, message: bytes) -> bytes:
        self.calls += 1
        return self._inner.sign(message)

    def ready(self) -> None:
        self._inner.ready()


class World:
    """A CA in `directory` whose clock reads `now` (Unix seconds) and stands still unless a test moves it."""

    def __init__(self, directory: Path, now: float = START) -> None:
        self.directory = directory
        self.now = now
        self.signer = CountingSigner(keys.make(directory, name="ca"))
        self.log_signer = keys.make(directory, name="log")
        self.people: dict[str, Key] = {name: keys.make(directory, name=name) for name in ("ana", "bo", "cy", "di", "eve")}
        self.files: dict[str, bytes] = {name: text.encode() for name, text in FILES.items()}
        self.files["people.toml"] = PEOPLE.format(**{n: k.public_key.line for n, k in self.people.items()}).encode()
        self.shifts: dict[str, Mapping[str, Shift | str]] = {}  # by person and schedule: what the on-call sources say
        self.store = SqliteStore(directory / "log.db", create=True)
        issue.begin(self.log_of(self.store), self.signer.public_key.line)
        self.open()

    def log_of(self, store: SqliteStore) -> Log:
        """The log in a store, as a process of its own has it: a store is one log's."""
        raw = Reader(self.log_signer.public_key.fields, "key").string()
        return Log(store, VerifierKey(ORIGIN, raw), self.log_signer.sign, lambda: int(self.now * 1000))

    def open(self) -> None:
        """Starts the CA and its HTTP door over the store as it is; call it again for a restart."""
        log, shifts = self.log_of(self.store), self.shifts
        self.ca = CertificateAuthority(log, self.signer, self.files, os.urandom, lambda person: shifts.get(person, {}))
        self.http: FlaskClient = create_app(self.ca, self.store, clock=lambda: self.now).test_client()

    def open_beside(self) -> "World":
        """The same CA in another process, as far as the log can tell: with a store of its own."""
        other = copy(self)
        other.store = SqliteStore(self.store.path)
        other.open()
        return other

    def reopen(self) -> None:
        """A restart: the store is closed and opened again."""
        self.store.close()
        self.store = SqliteStore(self.directory / "log.db")
        self.open()

    def adopt(self, **files: str) -> None:
        """Replaces policy files, e.g. `people="…"` or `role_dev="…"`, and reloads."""
        for name, text in files.items():
            path = f"roles/{name.removeprefix('role_').replace('_', '-')}.toml" if name.startswith("role_") else f"{name}.toml"
            self.files[path] = text.encode()
        self.ca.adopt(self.files)

    # ------------------------------------------------------------- statements

    def statement(self, key: PublicKey, /, **changes: Any) -> bytes:
        """A request statement for `key`; `changes` replace members, None removes one."""
        said = RequestStatement(
            audience=ORIGIN, id=uuid7(), time=int(self.now), role="web-admin", reason="INC-12 disk full", key=key.line
        )
        return spelled(said, changes)

    def body(self, person: str, fresh: Key | None = None, **changes: Any) -> dict[str, str]:
        """The body of a request by `person` for the key `fresh` (else their own)."""
        key = fresh or self.people[person]
        return self.signed(self.statement(key.public_key, **changes), self.people[person], key)

    def signed(self, text: bytes, signer: Key, fresh: Key) -> dict[str, str]:
        """A body of these very bytes."""
        signature, possession = (b64encode(keys.sshsig(key, text)).decode() for key in (signer, fresh))
        return {"statement": text.decode(), "signature": signature, "possession": possession}

    # ------------------------------------------------------------------- HTTP

    def ask(self, person: str, fresh: Key | None = None, **changes: Any) -> TestResponse:
        """`POST /v1/requests` as this person."""
        return self.post(self.body(person, fresh, **changes))

    def post(self, body: Mapping[str, object] | bytes) -> TestResponse:
        """`POST /v1/requests` with this body."""
        return self.http.post("/v1/requests", data=body if isinstance(body, bytes) else json.dumps(body))

    def act(self, who: str, action: str, path: str, /, **members: Any) -> TestResponse:
        """A signed statement of this action by this person, posted to `path`."""
        common = {"action": action, "audience": ORIGIN, "id": uuid7(), "time": int(self.now)}
        text = canonical.encode({name: value for name, value in (common | members).items() if value is not None})
        signature = b64encode(keys.sshsig(self.people[who], text)).decode()
        return self.http.post(path, data=json.dumps({"statement": text.decode(), "signature": signature}))

    def answer(self, person: str, action: str, request: int, **members: Any) -> TestResponse:
        """`approve` or `deny` of exactly the request in that entry."""
        leaf = leaf_hash(next(self.store.entries(request, request + 1))).hex()
        return self.act(person, action, f"/v1/requests/{request}/{action}", **({"request": request, "leaf": leaf} | members))

    def give_back(self, person: str, action: str, request: int) -> TestResponse:
        """`withdraw` or `drop`."""
        return self.act(person, action, f"/v1/requests/{request}/{action}", request=request)

    def renew(self, person: str, request: int, fresh: Key | None = None) -> TestResponse:
        """Another certificate within the grant of a request."""
        key = fresh or self.people[person]
        common = {"action": "certificate", "audience": ORIGIN, "id": uuid7(), "time": int(self.now)}
        text = canonical.encode(common | {"request": request, "key": key.public_key.line})
        return self.http.post("/v1/certificates", data=json.dumps(self.signed(text, self.people[person], key)))

    def status(self, request: int) -> str:
        """How a request stands now."""
        return Cases(self.ca, self.store).of(request, self.now).status

    def read(self, person: str, path: str, /, **changes: Any) -> TestResponse:
        """`GET path` as this person."""
        said = ReadStatement(audience=ORIGIN, id=uuid7(), time=int(self.now), path=path)
        return self.http.get(path, headers={"Authorization": authorization(spelled(said, changes), self.people[person])})

    # ------------------------------------------------------------- invariants

    def entries(self) -> list[AnyEntry]:
        """The whole log."""
        return [entry.decode(source) for source in self.store.entries(0, self.store.size())]

    def kinds(self) -> list[str]:
        """The kinds of all entries, in order."""
        return [one.TAG[1] for one in self.entries()]

    def check(self) -> verify.Report:
        """Everything that must always hold, from scratch."""
        checkpoint = self.ca.log.check()
        assert checkpoint is not None
        entries = enumerate(self.store.entries(0, checkpoint.size))
        stored = verify.Stored(self.store.checkpoints(0, checkpoint.size + 1), self.store.nodes)
        files = self.store.policy_file
        return verify.verify(self.ca.trust, checkpoint, self.store.nodes(0), entries, stored=stored, policy_file=files)


def spelled(said: Statement, changes: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a statement with some members replaced or, by None, removed."""
    members: dict[str, Any] = json.loads(canonical.encode(said)) | changes
    return canonical.encode({name: value for name, value in members.items() if value is not None})


def authorization(text: bytes, signer: Key) -> str:
    """The header of a signed read."""
    packed = (urlsafe_b64encode(part).decode().rstrip("=") for part in (text, keys.sshsig(signer, text)))
    return "JIT-SSH " + ".".join(packed)


def uuid7() -> str:
    """A statement id. The time inside does not matter to the CA."""
    digits = secrets.token_hex(16)
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def certificate(answer: TestResponse) -> SignedCertificate:
    """The certificate of a granted request."""
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    return SignedCertificate.parse_line(answer.json["certificate"])
