"""What a policy for a large company costs: to load, to decide by, to ask, and to compare with a change."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

from benchmark.figures import Figure, figure, timed
from ca import roles
from ca.compare import compare
from ca.conditions import Facts
from ca.keys import ed25519_key
from ca.policy import evaluate
from ca.reach import who_can

PEOPLE, ROLES, GROUPS = 10_000, 2000, 100
ROLE_FILE = """
about = "One of many"
owner = "all"
review_by = 2099-01-01
principals = ["app{number}@hosts"]
default_duration = "30m"
max_duration = "1h"
reason = {{ pattern = "^INC-[0-9]+", message = "Start with the incident number" }}
[[allow]]
groups = ["g{group}"]
hardware_key = true
[[allow]]
groups = ["all"]
hours = {{ from = "00:00", to = "24:00", zone = "Europe/Berlin" }}
approvals = [{{ from = "all", count = 2 }}]
[[deny]]
groups = ["g{other}"]
message = "Not for these"
"""


def large_policy() -> dict[str, bytes]:
    """The files of a policy for a large company; everybody may approve, which is the most that there is to look through."""
    groups = "".join(f'g{number} = "A group"\n' for number in range(GROUPS))
    people = [f'[groups]\nall = "Everybody"\n{groups}']
    for number in range(PEOPLE):
        key = ed25519_key(hashlib.sha256(b"%d" % number).digest()).line
        mine = f'"all", "g{number % GROUPS}"'
        people.append(f'[people.p{number}]\ngroups = [{mine}]\nkeys = ["{key} p{number}@laptop"]\n')
    roles_ = {
        f"roles/r{number}.toml": ROLE_FILE.format(number=number, group=number % GROUPS, other=(number + 1) % GROUPS)
        for number in range(ROLES)
    }
    files = {
        "people.toml": "".join(people),
        "hosts.toml": '[groups.hosts]\nabout = "All"\nhosts = ["*.example.com"]\n',
        "guardrails.toml": 'auditors = ["all"]\n',
    }
    return {name: text.encode() for name, text in (files | roles_).items()}


def deciding(count: int) -> Iterator[Figure]:
    """What a policy for a large company costs: to load, to decide by, to ask, and to compare with a change."""
    name, files = f"policy, {ROLES} roles, {PEOPLE} people", large_policy()
    yield figure(f"{name}: load", timed(lambda: roles.load(files), max(1, count // 100)), 3000)
    policy, now = roles.load(files), datetime.now(UTC)
    facts = Facts("p17", "192.0.2.1", hardware_key=False, now=now)
    yield figure(f"{name}: a decision", timed(lambda: evaluate(policy, "r15", None, "INC-1", facts), count), 1)
    yield figure(f"{name}: who-can", timed(lambda: who_can(policy, "app17@hosts"), max(1, count // 100)), 1000)
    files["roles/r17.toml"] += b'[[deny]]\nnetworks = ["192.0.2.0/24"]\nmessage = "Not from there"\n'
    changed = roles.load(files)
    yield figure(f"{name}: diff of one role", timed(lambda: compare(policy, changed, now), max(1, count // 100)))
