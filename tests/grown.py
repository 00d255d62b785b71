"""A long log as a company makes it, for measuring: by the CA itself, with a clock of its own and signatures made on the way.

    python -m tests.grown DIR ENTRIES

makes a CA in DIR with about so many entries. A thousand people ask for roles, approve, renew, give back and are refused, some
seconds apart, for days or months. Nothing waits for the disk, so a machine that stops meanwhile leaves nothing to use.
"""

import random
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import canonical, merkle
from ca.acts import Said
from ca.asking import Asked
from ca.entry import AnyEntry, RequestEntry
from ca.issue import Issued
from ca.keys import PublicKey, ed25519_key
from ca.sshsig import SshSig, signed_bytes
from ca.statement import parse
from ca.store.sqlite import SqliteStore
from ca.wire import string
from server import directory
from tests.running import ORIGIN
from tests.world import FILES, START, uuid7

ENGINEERS: Final = 1000
LEADS: Final = 20
PACE: Final = 10.0  # seconds from one thing that somebody does to the next, on average
SHORT: Final = 900  # seconds for which most ask


class MemoryKey:
    """An Ed25519 key that is nowhere else."""

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public_key: PublicKey = ed25519_key(self._private.public_key().public_bytes_raw())

    def sshsig(self, text: bytes) -> str:
        """The signature of a text, in base64."""
        raw = self._private.sign(signed_bytes(text))
        return b64encode(SshSig(self.public_key, string("ssh-ed25519") + string(raw)).blob).decode()


class Company:
    """The people of a CA, and what they do with it."""

    def __init__(self, made: Path, seed: int = 1) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - who does what, not secrets
        self.now = START
        engineers = [f"e{number}" for number in range(ENGINEERS)]
        self._keys = {name: MemoryKey() for name in (*engineers, *(f"l{number}" for number in range(LEADS)))}
        self._engineers, self._leads = engineers, [name for name in self._keys if name.startswith("l")]
        directory.create(made, ORIGIN, None, None)
        self._write_policies(made / "policies")
        self.opened = directory.open_ca(made, lambda _path: b"", lambda: self.now)
        self.store: SqliteStore = self.opened.store
        self.store._writer.db.execute("PRAGMA synchronous=OFF")
        self.opened.ca._sign = lambda _issue, _proof: None  # type: ignore[assignment,method-assign,return-value]  # nobody uses them

    def _write_policies(self, policies: Path) -> None:
        for path in policies.rglob("*.toml"):
            path.unlink()
        for name, text in FILES.items():
            (policies / name).write_text(text)
        people = ['[groups]\nengineers = "Everybody"\nsre = "On call"\nleads = "Approve"\nsecurity = "Auditors"\n']
        for at, (name, key) in enumerate(self._keys.items()):
            groups = '"leads"' if name in self._leads else '"engineers", "sre"' if at % 2 else '"engineers"'
            people.append(f'[people.{name}]\ngroups = [{groups}]\nkeys = ["{key.public_key.line}"]\n')
        (policies / "people.toml").write_text("".join(people))

    def grow(self, entries: int) -> None:
        """People do things until the log has as many entries."""
        while self.store.size() < entries:
            self.now += self._chance.expovariate(1 / PACE)
            person = self._chance.choice(self._engineers)
            match self._chance.random():
                case chance if chance < 0.1:
                    self._approved(person)
                case chance if chance < 0.15:
                    self._ask(self._engineers[0], "web-admin")  # who is not in sre: refused
                case chance if chance < 0.5:
                    self._ask(self._engineers[1 + 2 * self._chance.randrange(len(self._engineers) // 2)], "web-admin")
                case _:
                    self._ask(person, "dev")

    def _approved(self, person: str) -> None:
        """A request that somebody else approves, its certificate, mostly another one later, and now and then the end."""
        if not isinstance(asked := self._ask(person, "db-admin"), RequestEntry) or not asked.steps:
            return
        self.now += 20
        leaf = merkle.leaf_hash(asked.encode()).hex()
        self._act(self._chance.choice(self._leads), "approve", request=asked.index, leaf=leaf)
        for _ in range(self._chance.randrange(1, 3)):
            self.now += 30
            self._certificate(person, asked.index)
        if self._chance.random() < 0.3:
            self._act(person, "drop", request=asked.index)

    def _ask(self, person: str, role: str) -> AnyEntry | Issued:
        fresh = MemoryKey()
        reason = f"INC-{self._chance.randrange(10_000)} something is slow"
        said = self._said(person, "request", role=role, duration=SHORT, reason=reason, key=fresh.public_key.line)
        return self._decided(Asked(**said, possession=fresh.sshsig(said["text"].encode())))

    def _certificate(self, person: str, request: int) -> None:
        fresh = MemoryKey()
        said = self._said(person, "certificate", request=request, key=fresh.public_key.line)
        self._decided(Asked(**said, possession=fresh.sshsig(said["text"].encode())))

    def _decided(self, asked: Asked) -> AnyEntry | Issued:
        [made] = self.opened.ca.decide([asked])
        if isinstance(made, BaseException):
            raise made
        return self.opened.ca.outcome(made)

    def _act(self, person: str, action: str, **members: object) -> None:
        self.opened.ca.act(Said(**self._said(person, action, **members)))

    def _said(self, person: str, action: str, **members: object) -> dict[str, Any]:
        common = {"action": action, "audience": ORIGIN, "id": uuid7(), "time": int(self.now)}
        text = canonical.encode(common | members)
        key = self._keys[person]
        return {
            "person": person,
            "key": key.public_key,
            "statement": parse(text),
            "text": text.decode(),
            "signature": key.sshsig(text),
            "address": "198.51.100.7",
            "hardware_key": False,
        }


if __name__ == "__main__":
    company = Company(Path(sys.argv[1]))
    company.grow(int(sys.argv[2]))
    company.store.close()
