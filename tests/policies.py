"""Small policies for tests: four people, two host groups, and the roles that a test writes."""

from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import roles
from ca.conditions import Facts
from ca.errors import Misconfigured
from ca.keys import PublicKey, ed25519_key
from ca.policy import Decision, Denied, Granted, Pending, evaluate
from ca.roles import Policy

NOON = datetime(2027, 3, 2, 12, 0, tzinfo=UTC)  # a Tuesday

HEAD = """
about = "A role"
owner = "sre"
review_by = 2027-03-31
principals = ["root@web-prod"]
default_duration = "30m"
max_duration = "1h"
"""
ALLOW_SRE = '[[allow]]\ngroups = ["sre"]\n'
FOR_SRE = HEAD + ALLOW_SRE


def key(number: int) -> PublicKey:
    """A key of its own for each number from 1 to 255."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return ed25519_key(private.public_key().public_bytes_raw())


PEOPLE = f"""
revoked_keys = ["{key(99).fingerprint}"]

[groups]
sre = "Keeps production running"
sre-leads = "Approves"
security = "Reads the log"

[people.ana]
groups = ["sre"]
keys = ["{key(1).line} ana@laptop", "{key(2).line}"]

[people.ben]
groups = ["sre", "sre-leads"]
keys = ["{key(3).line}"]

[people.cleo]
groups = ["security"]
keys = ["{key(4).line}"]

[people.dora]
groups = []
keys = ["{key(5).line}"]
"""
HOSTS = """
[groups.web-prod]
about = "The web tier"
hosts = ["web-*.prod.example.com", "www.example.com"]

[groups.dev]
about = "Development"
hosts = ["*.dev.example.com"]
"""
GUARDRAILS = 'auditors = ["security"]\n'


def files(written: Mapping[str, str] | None = None, /, **role_files: str) -> dict[str, bytes]:
    """A sound policy's files with some written anew, by path, and roles by name."""
    texts = {"people.toml": PEOPLE, "hosts.toml": HOSTS, "guardrails.toml": GUARDRAILS}
    texts |= {f"roles/{name}.toml": text for name, text in role_files.items()} | dict(written or {})
    return {name: text.encode() for name, text in texts.items()}


def policy(written: Mapping[str, str] | None = None, /, **role_files: str) -> Policy:
    """The same, loaded."""
    return roles.load(files(written, **role_files))


def problems(written: Mapping[str, str] | None = None, /, **role_files: str) -> tuple[str, ...]:
    """What is wrong with it; fails when nothing is."""
    return problems_of(files(written, **role_files))


def problems_of(contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """What is wrong with these files; fails when nothing is."""
    try:
        roles.load(contents)
    except Misconfigured as error:
        return error.problems
    raise AssertionError("the policy was loaded")


def facts(person: str = "ana", address: str | None = "203.0.113.9", hardware_key: bool = False, now: datetime = NOON) -> Facts:
    """Ana at noon with an ordinary key, unless said otherwise."""
    return Facts(person, address, hardware_key, now)


def ask(loaded: Policy, role: str = "web", duration: int | None = None, reason: str = "", by: Facts | None = None) -> Decision:
    """Ana asks for the role `web`, unless said otherwise."""
    return evaluate(loaded, role, duration, reason, by or facts())


def granted(decision: Decision) -> Granted:
    """The decision, which has to be this one."""
    assert isinstance(decision, Granted), decision
    return decision


def denied(decision: Decision) -> Denied:
    """The decision, which has to be this one."""
    assert isinstance(decision, Denied), decision
    return decision


def pending(decision: Decision) -> Pending:
    """The decision, which has to be this one."""
    assert isinstance(decision, Pending), decision
    return decision
