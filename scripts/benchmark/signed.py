"""A log whose every signature is real: a thousand people ask for the default role, a minute apart, and are granted it at once.

What stands in the entries is what a CA with the starter policy writes, but no CA decides and nobody waits: a million entries take
a few minutes.
"""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmark.growth import fill
from benchmark.load import uuid7
from benchmark.served import ROLE
from ca import canonical
from ca.certificate import BACKDATE, Certificate
from ca.entry import IssueEntry, RequestEntry
from ca.findings import Finding, Privilege, Way
from ca.issue import begun_by
from ca.keys import PublicKey, ed25519_key
from ca.request import key_id
from ca.sshsig import SshSig, signed_bytes
from ca.statement import RequestStatement
from ca.trust import Trust
from ca.wire import string
from server import directory

PEOPLE: Final = 1000
_PACE: Final = 60  # seconds from one request to the next, so that nobody asks before their last grant is over
_HELD: Final = 8 * 3600  # seconds
_TOGETHER: Final = 100  # entries under one checkpoint, as under load
_FINDINGS: Final = (
    Finding("duration", "the duration is between 1s and the role's maximum of 12h", "it is for 8h", True),
    Finding("reason", "the reason is one printable line of at most 500 characters", "it is", True),
)
_WAY: Final = "the person is in one of these groups: engineers"


class _Key:
    """An Ed25519 key that signs statements."""

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public: PublicKey = ed25519_key(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> str:
        """The SSHSIG in base64; `message` is what `signed_bytes` gives."""
        raw = string("ssh-ed25519") + string(self._private.sign(message))
        return base64.b64encode(SshSig(self.public, raw).blob).decode()


@dataclass(frozen=True)
class _Person:
    name: str
    key: _Key
    privilege: Privilege
    ways: tuple[Way, ...]


def signed_log(ca: Path, entries: int) -> Trust:
    """Makes a CA in the directory `ca` whose log has at least so many entries; whose it is."""
    directory.create(ca, "bench", None, None)
    people = [_person(f"p{number}") for number in range(PEOPLE)]
    with (ca / "policies" / "people.toml").open("a") as file:
        for person in people:
            file.write(f'\n[people.{person.name}]\ngroups = ["engineers"]\nkeys = ["{person.key.public.line}"]\n')
    store = directory.open_ca(ca, lambda _path: b"").store
    trust = begun_by(store)
    store.close()
    fill(ca, entries, lambda start, time: _made(people, trust.public_keys[0], start, time // 1000 + BACKDATE), _TOGETHER)
    return trust


def _person(name: str) -> _Person:
    finding = Finding("groups", _WAY, f"{name} is in engineers", True)
    privilege = Privilege(principals=(f"{name}@dev",), duration=_HELD, permit=("port-forwarding", "pty"))
    return _Person(name, _Key(), privilege, (Way("allow 1", (finding,)),))


def _made(people: list[_Person], ca_key: PublicKey, start: int, begin: int) -> Iterator[bytes]:
    """Requests and their certificates, from the index `start` and the Unix second `begin` on."""
    for number in count():
        person, index, now = people[number % PEOPLE], start + 2 * number, begin + number * _PACE
        asked, key = _asked(person, index, now)
        tbs = Certificate(
            key=key,
            serial=index + 1,
            key_id=key_id(asked),
            principals=person.privilege.principals,
            valid_after=now - BACKDATE,
            valid_before=now + _HELD,
            permit=person.privilege.permit,
            ca_key=ca_key,
            nonce=os.urandom(32),
        ).to_be_signed
        yield asked.encode()
        encoded = base64.b64encode(tbs).decode()
        yield IssueEntry(index=index + 1, time=now * 1000, actor=person.name, role=ROLE, request=index, tbs=encoded).encode()


def _asked(person: _Person, index: int, now: int) -> tuple[RequestEntry, PublicKey]:
    """A request, and the key to certify."""
    key = _Key()
    said = canonical.encode(
        RequestStatement(
            audience="bench", id=uuid7(), time=now, role=ROLE, reason="a reason as people give one", key=key.public.line
        )
    )
    message = signed_bytes(said)
    entry = RequestEntry(
        index=index,
        time=now * 1000,
        actor=person.name,
        statement=said.decode(),
        signature=person.key.sign(message),
        address="192.0.2.1",
        hardware_key=False,
        policy=1,
        findings=_FINDINGS,
        ways=person.ways,
        role=ROLE,
        possession=key.sign(message),
        privilege=person.privilege,
    )
    return entry, key.public
