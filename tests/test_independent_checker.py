"""A second program, written from the document alone, judges the same logs: sound ones, and each that breaks one rule."""

import ast
import dataclasses
import json
import random
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from ca import canonical, verify
from ca.certificate import SignedCertificate
from ca.checkpoint import Checkpoint
from ca.entry import PolicyEntry
from ca.errors import BadSignature, LogDamaged, Malformed
from ca.merkle import Frontier, leaf_hash
from ca.proof import proven
from ca.trust import Trust
from server import copies
from tests import (
    independent_checker,
    independent_doors,
    independent_formats,
    test_proof,
    test_request_verify,
    test_store_sound,
    test_tampering,
    test_verify,
)
from tests.independent_checker import Log, first_wrong, from_database
from tests.independent_formats import Wrong, check_proven
from tests.test_lifecycle import ask, held, lock
from tests.test_log import change
from tests.world import World, certificate

lived = test_request_verify.lived  # a fixture


def cases(module: Any) -> list[tuple[Callable[..., None], str]]:
    """The broken logs of another module's test."""
    [mark] = module.test_a_log_that_breaks_one_rule_is_refused.pytestmark
    return list(mark.args[1])


def trusted(trust: Trust) -> dict[str, Any]:
    return dict(json.loads(trust.encode()))


def ours(trust: Trust, entries: list[bytes], files: Mapping[str, bytes] | None = None) -> int | None:
    """The first entry that `ca.verify` finds wrong."""
    frontier, leaves = Frontier(), list(map(leaf_hash, entries))
    for leaf in leaves:
        frontier.append(leaf)
    checkpoint = Checkpoint(trust.origin, frontier.size, frontier.root())
    try:
        policy_file = None if files is None else dict(files).get
        verify.verify(trust, checkpoint, leaves, enumerate(entries), policy_file=policy_file)
    except LogDamaged as error:
        return int(re.findall(r"^entry (\d+): ", error.message)[0])
    return None


def same_verdict(trust: Trust, entries: list[bytes]) -> tuple[int | None, str] | None:
    """What the other program finds, after seeing that ours finds it in the same entry."""
    found = first_wrong(Log(trusted(trust), entries))
    assert (found and found[0]) == ours(trust, entries), found
    return found


def test_it_shares_no_code_with_what_it_judges() -> None:
    for module in (independent_checker, independent_doors, independent_formats):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        ours = {name for name in modules if name.partition(".")[0] in {"ca", "cli", "server", "tests", "None"}}
        assert ours <= {"tests.independent_checker", "tests.independent_formats"}
        assert "importlib" not in modules


def test_both_find_a_world_sound(world: World) -> None:
    world.ask("ana", role="dev")
    world.ask("bo")
    request = held(world)
    world.now += 30
    world.renew("bo", request)
    extension = ask(world)
    world.answer("di", "approve", extension, duration=600)
    world.renew("bo", extension)
    world.read("eve", f"/v1/requests/{request}")
    world.give_back("bo", "drop", request)
    waiting = ask(world)
    world.give_back("bo", "withdraw", waiting)
    world.answer("cy", "deny", ask(world))
    world.act("eve", "revoke", "/v1/revocations", person="ana", reason="left")
    lock(world, "bo")
    lock(world, "bo", "unlock")
    world.now += 3 * 24 * 3600
    world.adopt(guardrails='auditors = ["security", "sre"]\nrevokers = ["security"]\n')
    world.ask("ana")
    path = test_tampering.copy(world)
    assert copies.check_copy(path)[1].entries == world.store.size()
    assert first_wrong(from_database(path, trusted(world.ca.trust))) is None
    assert {"request", "approve", "renew", "issue", "drop", "withdraw", "deny", "revoke", "lock", "refuse"} < set(world.kinds())


@pytest.mark.parametrize(("broken", "because"), cases(test_verify))
def test_both_find_the_same_entry_of_a_small_log_wrong(broken: Callable[[Any], None], because: str) -> None:
    entries = test_verify.sound()
    broken(entries)
    assert same_verdict(test_verify.TRUST, [each.encode() for each in entries]), because


@pytest.mark.parametrize(("broken", "because"), cases(test_request_verify))
def test_both_find_the_same_entry_of_a_life_wrong(broken: Callable[..., None], because: str, lived: World) -> None:
    entries = lived.entries()
    broken(lived, entries)
    assert same_verdict(lived.ca.trust, [each.encode() for each in entries]), because


@pytest.mark.parametrize(("statements", "message"), test_tampering.CHANGES.values(), ids=test_tampering.CHANGES.keys())
def test_both_refuse_a_changed_database(world: World, statements: list[str], message: str) -> None:
    path = test_tampering.copy(test_tampering.live(world))
    trust = trusted(world.ca.trust)
    assert first_wrong(from_database(path, trust)) is None
    change(path, *statements)
    with pytest.raises(LogDamaged):
        copies.check_copy(path)
    assert first_wrong(from_database(path, trust)), message


@pytest.mark.parametrize(("statement", "message"), test_store_sound.SURPLUS.values(), ids=test_store_sound.SURPLUS.keys())
def test_both_refuse_a_row_that_the_log_does_not_have(world: World, statement: str, message: str) -> None:
    test_tampering.live(world)
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="laptop lost").status_code == 200
    path, trust = test_tampering.copy(world), trusted(world.ca.trust)
    change(path, statement)
    with pytest.raises(LogDamaged):
        copies.check_copy(path)
    assert first_wrong(from_database(path, trust)), message


SPELLINGS: Final = {
    "white space": (b":", b": "),
    "a null": (b'"hardware_key"', b'"address":null,"hardware_key"'),
    "an unknown member": (b'"index"', b'"immortal":true,"index"'),
    "another escape": (b"INC-12", b"\\u0049NC-12"),
    "a fraction": (b'"policy":1', b'"policy":1.0'),
    "a true for a number": (b'"policy":1', b'"policy":true'),
    "no base64": (b'"signature":"U', b'"signature":"*'),
    "a member too few": (b'"hardware_key":false,', b""),
}


@pytest.mark.parametrize(("old", "new"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_both_refuse_every_other_spelling(old: bytes, new: bytes) -> None:
    entries = [each.encode() for each in test_verify.sound()]
    changed = entries[2].replace(old, new, 1)
    assert changed != entries[2]
    assert same_verdict(test_verify.TRUST, [*entries[:2], changed, entries[3]])


def test_both_notice_whose_key_it_was_not(world: World) -> None:
    world.ask("ana")
    entries = [each.encode() for each in world.entries()]
    policy = world.entries()[1]
    assert isinstance(policy, PolicyEntry)
    stored = {digest: world.store.policy_file(digest) or b"" for digest in policy.files.values()}
    assert first_wrong(Log(trusted(world.ca.trust), entries, files=stored)) is None
    people = stored[policy.files["people.toml"]].replace(b"people.ana", b"people.anna")
    digest = sha256(people).hexdigest()
    other = dataclasses.replace(policy, files={**policy.files, "people.toml": digest})
    forged, files = [entries[0], other.encode(), *entries[2:]], stored | {digest: people}
    assert (first_wrong(Log(trusted(world.ca.trust), forged, files=files)) or (None,))[0] == 2
    assert ours(world.ca.trust, forged, files) == 2


# ------------------------------------------------------------ proofs in certificates


def test_both_believe_a_certificate_with_its_proof(world: World) -> None:
    world.ask("bo")
    trust = trusted(world.ca.trust)
    for person, role in (("ana", "web-admin"), ("bo", "dev"), ("ana", "dev")):
        issued = certificate(world.ask(person, role=role))
        believed(issued.line, world.ca.trust)
        assert check_proven(issued.line, trust)["index"] == issued.certificate.serial


@pytest.mark.parametrize("forged", test_proof.FORGED)
def test_both_refuse_what_the_stolen_ca_key_signs(forged: str) -> None:
    _, make = test_proof.FORGED[forged]
    made, trust = make(), test_proof.TRUST
    with pytest.raises((LogDamaged, Malformed, BadSignature)):
        proven(made, trust)
    with pytest.raises(Wrong):
        check_proven(made.line, trusted(trust))


def believed(line: str, trust: Trust) -> None:
    """What a client does before it installs a certificate."""
    parsed = SignedCertificate.parse_line(line)
    parsed.verify(trust.public_keys[0])
    proven(parsed, trust)


def test_both_refuse_every_flipped_bit_of_a_certificate(world: World) -> None:
    print(f"seed {SEED}")
    chance, issued = random.Random(SEED), certificate(world.ask("ana"))  # noqa: S311 - places, not secrets
    kind, encoded, _ = issued.line.split(" ")
    blob, trust = b64decode(encoded), trusted(world.ca.trust)
    for _ in range(150):
        at, bit = chance.randrange(len(blob)), 1 << chance.randrange(8)
        flipped = blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1 :]
        line = f"{kind} {b64encode(flipped).decode()}"
        with pytest.raises((LogDamaged, Malformed, BadSignature)):
            believed(line, world.ca.trust)
        with pytest.raises((Wrong, ValueError)):
            check_proven(line, trust)


# ------------------------------------------------------------------ any change

SEED: Final = random.SystemRandom().randrange(2**32)
CHANGES: Final = 120


def altered(chance: random.Random, sources: list[bytes]) -> list[bytes]:
    """One member of one entry, or of what somebody said, is gone or has a value that stands elsewhere in the log."""
    entries = [json.loads(source) for source in sources]
    target = chance.choice(entries)
    other = chance.choice([each for each in entries if each["kind"] == target["kind"] or chance.random() < 0.2])
    name = chance.choice([each for each in target if each not in {"kind", "index"}] + [each for each in other if each != "kind"])
    match chance.randrange(4):
        case 0:
            target.pop(name, None)
        case 1 if isinstance(target.get(name), int):
            target[name] += chance.choice([-1, 1, 900, 1000, 10**6])
        case 2 if isinstance(target.get("privilege"), dict):
            target["privilege"]["duration"] += chance.choice([-1, 1, 900])
        case _ if name in other:
            target[name] = other[name]
        case _:
            pass
    return [canonical.encode(each) for each in entries]


def test_both_judge_any_change_alike(lived: World) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)  # noqa: S311 - changes, not secrets
    sources = [each.encode() for each in lived.entries()]
    wrong = sum(same_verdict(lived.ca.trust, altered(chance, sources)) is not None for _ in range(CHANGES))
    assert wrong > CHANGES // 4
