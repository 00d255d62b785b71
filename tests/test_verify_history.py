"""What only the whole history shows: whose key it was then, every checkpoint and node. Time forgets nothing that matters."""

import dataclasses
import gc
import json
import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest

from ca import canonical, merkle, parallel, verify
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.entry import AnyEntry, PolicyEntry, RefuseEntry, RenewEntry, SaidEntry
from ca.errors import LogDamaged, Malformed, Misconfigured
from ca.judge import Judge
from ca.keyring import Keyring
from ca.replay import Replay
from ca.request import LONGEST_CASE
from ca.statement import FRESH
from ca.verify import Spread, Stored
from ca.wire import Reader
from tests import keys
from tests.running import PROGRAM
from tests.test_lifecycle import ask, held
from tests.world import PEOPLE, World, uuid7

Entries = list[AnyEntry]
Note = tuple[int, str]


def check(
    world: World,
    entries: Entries | None = None,
    files: Mapping[str, bytes] | None = None,
    notes: list[Note] | None = None,
    spread: Spread = verify.in_turn,
) -> verify.Report:
    """Verifies a log of these entries (else the world's), with more policy files, and with these checkpoints (else none)."""
    encoded = [each.encode() for each in entries or world.entries()]
    levels = nodes(encoded)
    checkpoint = Checkpoint(world.ca.trust.origin, len(encoded), root(encoded))
    more = files or {}
    return verify.verify(
        world.ca.trust,
        checkpoint,
        levels[0],
        enumerate(encoded),
        stored=None if notes is None else Stored(notes, lambda level: iter(levels[level])),
        policy_file=lambda digest: more.get(digest) or world.store.policy_file(digest),
        spread=spread,
    )


def nodes(encoded: list[bytes]) -> list[list[bytes]]:
    """The complete nodes of each level."""
    frontier, levels = merkle.Frontier(), [list[bytes]() for _ in range(64)]
    for source in encoded:
        for level, _, node in frontier.append(merkle.leaf_hash(source)):
            levels[level].append(node)
    return levels


def root(encoded: list[bytes]) -> bytes:
    frontier = merkle.Frontier()
    for source in encoded:
        frontier.append(merkle.leaf_hash(source))
    return frontier.root()


def people(world: World, **instead: str) -> str:
    """people.toml with other keys for some."""
    return PEOPLE.format(**{name: key.public_key.line for name, key in world.people.items()} | instead)


# -------------------------------------------------------------------- whose key


def decided_by(world: World, text: str) -> tuple[Entries, dict[str, bytes]]:
    """The world's log as if its first policy had had this people.toml, and that file."""
    entries, digest = world.entries(), sha256(text.encode()).hexdigest()
    policy = entries[1]
    assert isinstance(policy, PolicyEntry)
    entries[1] = dataclasses.replace(policy, files={**policy.files, "people.toml": digest})
    return entries, {digest: text.encode()}


def test_a_key_is_its_persons_for_as_long_as_the_policy_says(world: World) -> None:
    world.ask("ana")
    old, world.people["ana"] = world.people["ana"], keys.make(world.directory, name="newer")
    world.adopt(people=f'revoked_keys = ["{old.public_key.fingerprint}"]\n' + people(world))
    world.ask("ana", role="dev")
    report = check(world)
    assert (report.policies, report.certificates) == (2, 2)


@pytest.mark.parametrize("what", ["another's", "revoked", "nobody's"])
def test_a_signature_by_a_key_that_was_not_the_persons_is_found(world: World, what: str) -> None:
    world.ask("ana")
    ana, bo = (world.people[name].public_key for name in ("ana", "bo"))
    text = {
        "another's": people(world, ana=bo.line, bo=ana.line),
        "revoked": f'revoked_keys = ["{ana.fingerprint}"]\n' + people(world),
        "nobody's": people(world, ana=keys.make(world.directory, name="another").public_key.line),
    }[what]
    with pytest.raises(LogDamaged, match=r"^entry 2: its signature is by SHA256:\S+, no key of ana by the policy in force$"):
        check(world, *decided_by(world, text))


@pytest.mark.parametrize("act", ["approve", "refuse"])
def test_not_only_requests_are_by_their_persons_keys(world: World, act: str) -> None:
    request = ask(world)
    world.answer("cy" if act == "approve" else "bo", "approve", request)
    mallory = keys.make(world.directory, name="mallory").public_key
    text = people(world, cy=mallory.line) if act == "approve" else people(world).replace("[people.bo]", "[people.bob]")
    wrong = 3 if act == "approve" else 2
    with pytest.raises(LogDamaged, match=rf"^entry {wrong}: its signature is by"):
        check(world, *decided_by(world, text))


def test_a_policy_whose_files_are_gone_or_changed_is_found(world: World) -> None:
    policy = world.entries()[1]
    assert isinstance(policy, PolicyEntry)
    for name, digest in policy.files.items():
        with pytest.raises(LogDamaged, match=rf"^entry 1: its {name} was changed"):
            check(world, files={digest: b"# another"})
        missing = dataclasses.replace(policy, files={**policy.files, name: "0" * 64})
        with pytest.raises(LogDamaged, match=rf"^entry 1: its {name} is not there: no file with the SHA-256 0{{64}}$"):
            check(world, [world.entries()[0], missing])
    without = {name: digest for name, digest in policy.files.items() if name != "people.toml"}
    with pytest.raises(LogDamaged, match=r"^entry 1: it has no people.toml"):
        check(world, [world.entries()[0], dataclasses.replace(policy, files=without)])


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMqTrBcFGHBx1nuDx/8O/oEI6OxFMFdddyaHkzPb2r58"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"people = 1",
        b"[people]\nana = 1",
        b"[people.ana]",
        b"[people.ana]\nkeys = 1",
        b"[people.ana]\nkeys = [1]",
        b'[people.ana]\nkeys = ["ssh-rsa AAAA"]',
        f'[people.ana]\nkeys = ["{KEY}"]\n[people.bo]\nkeys = ["{KEY} bo"]'.encode(),
        f'revoked_keys = 1\n[people.ana]\nkeys = ["{KEY}"]'.encode(),
        f'revoked_keys = [[]]\n[people.ana]\nkeys = ["{KEY}"]'.encode(),
        b"a = " + b"[" * 5000,
    ],
)
def test_a_people_file_that_says_not_whose_keys_are_whose_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed, match=r"people.toml|key"):
        Keyring.parse(text)


def test_a_people_file_of_nobody_is_nobodys() -> None:
    assert Keyring.parse(b"").owners == {}
    assert list(Keyring.parse(f'[people.ana]\nkeys = ["{KEY} a comment"]'.encode()).owners.values()) == ["ana"]


# ------------------------------------------------------- checkpoints and nodes


def notes(world: World) -> list[Note]:
    return list(world.store.checkpoints(0, world.store.size() + 1))


def signed(world: World, size: int, root_: bytes) -> str:
    """A checkpoint by the log's own key."""
    trust = world.ca.trust
    key = VerifierKey.parse(trust.log_key)

    def sign(message: bytes) -> bytes:
        reader = Reader(world.log_signer.sign(message), "signature")
        reader.string()
        return reader.string()

    return sign_note(Checkpoint(trust.origin, size, root_).body(), key, sign)


def test_every_checkpoint_that_was_signed_is_of_this_log(world: World) -> None:
    for person in ("ana", "bo", "ana"):
        world.ask(person)
    there = notes(world)
    assert len(there) == 5
    assert check(world, notes=there).checkpoints == 5
    size, note = there[2]
    encoded = [each.encode() for each in world.entries()]
    other = root([*encoded[: size - 1], b"something else"])
    for wrong, because in (
        ((size, signed(world, size, other)), f"that was signed at {size} entries is of another log than this: rewritten"),
        ((size, note.replace("\n4\n", "\n5\n")), f"^the checkpoint at {size} entries: the signature by"),
        ((size, note.partition("—")[0]), f"^the checkpoint at {size} entries: "),
        ((size, signed(world, size - 1, root(encoded[: size - 1]))), f"at {size} entries: it is for {size - 1} entries"),
    ):
        with pytest.raises(LogDamaged, match=because):
            check(world, notes=[*there[:2], wrong, *there[3:]])
    with pytest.raises(LogDamaged, match=r"^there is a checkpoint at 9 entries, but the log has"):
        check(world, notes=[*there, (9, signed(world, 9, other))])


def test_every_stored_node_is_the_hash_of_its_children(world: World) -> None:
    for _ in range(4):
        world.ask("ana", role="dev")
    assert world.check().checkpoints == len(notes(world))
    for level, position, what in ((1, 0, "is not the hash"), (2, 1, "is not the hash"), (3, 0, "is missing")):
        encoded = [each.encode() for each in world.entries()]
        levels = nodes(encoded)
        if what == "is missing":
            del levels[level][position]
        else:
            levels[level][position] = bytes(32)
        stored = Stored([], lambda at, levels=levels: iter(levels[at]))  # type: ignore[misc]  # mypy wants no default here
        checkpoint = world.check().checkpoint
        with pytest.raises(LogDamaged, match=f"^node {position} of level {level} {what}"):
            verify.verify(world.ca.trust, checkpoint, levels[0], enumerate(encoded), stored=stored)


# ------------------------------------------------------------------ forgetting


def test_a_statement_is_accepted_once_for_as_long_as_it_could_be_fresh(world: World) -> None:
    world.now += FRESH
    assert world.ask("bo", time=int(world.now) + FRESH).status_code == 403
    *_, refusal = world.entries()
    assert isinstance(refusal, RefuseEntry)
    later = dataclasses.replace(refusal, index=refusal.index + 1, time=refusal.time + 2 * FRESH * 1000)
    with pytest.raises(LogDamaged, match="stands in an earlier entry"):
        check(world, [*world.entries(), later])
    too_late = dataclasses.replace(later, time=later.time + 1000)
    with pytest.raises(LogDamaged, match="not fresh"):
        check(world, [*world.entries(), too_late])


def test_two_days_later_nothing_is_remembered_of_a_request(world: World) -> None:
    for _ in range(3):
        request = held(world)
        world.renew("bo", request)
        held(world)
        world.give_back("bo", "drop", request)
        world.act("eve", "revoke", "/v1/revocations", person="bo", reason="test")
        world.now += LONGEST_CASE + 1
    world.ask("ana", role="dev")
    replay, judge = Replay(), Judge.of(world.ca.trust)
    for index, each in enumerate(world.entries()):
        replay.check(judge.entry(index, each.encode()))
    of_the_last = (replay._told, replay._cases, replay._first, replay._newest, replay._asked_at)
    assert [len(table) for table in of_the_last] == [1, 1, 1, 1, 1]
    assert not replay._ended
    assert not replay._ended_at


@pytest.mark.parametrize("kind", ["approve", "drop", "renew", "revoke"])
def test_nothing_is_done_about_a_request_that_was_over_long_before(world: World, kind: str) -> None:
    request = held(world)
    world.renew("bo", request)
    world.give_back("bo", "drop", request)
    second = held(world)
    world.act("eve", "revoke", "/v1/revocations", request=second, reason="test")
    entries = world.entries()
    old = next(each for each in entries if each.TAG[1] == kind)
    assert isinstance(old, SaidEntry)
    signer = {"approve": "cy", "revoke": "eve"}.get(kind, "bo")
    time = entries[-1].time + LONGEST_CASE * 1000 + 1000
    words: dict[str, Any] = json.loads(old.statement) | {"id": uuid7(), "time": time // 1000}
    text = canonical.encode(words)
    signature = b64encode(keys.sshsig(world.people[signer], text)).decode()
    again = dataclasses.replace(old, index=len(entries), time=time, statement=text.decode(), signature=signature)
    if isinstance(again, RenewEntry):
        again = dataclasses.replace(again, possession=signature)
    with pytest.raises(LogDamaged, match="which is not a request, or one that was over long before"):
        check(world, [*entries, again])


# ------------------------------------------------------------- more processors


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Spread]:
    with parallel.processes(2) as spread:
        yield spread


def test_many_processes_find_what_one_finds(world: World, two_processes: Spread) -> None:
    for at in range(170):
        world.now += 1
        world.ask("ana" if at % 3 else "bo")
    entries = world.entries()
    assert check(world, entries, notes=notes(world), spread=two_processes) == check(world, entries, notes=notes(world))
    requests = [each for each in entries if each.TAG[1] == "request"]
    for spoiled in (requests[0], requests[-1]):
        assert isinstance(spoiled, SaidEntry)
        refused = entries.copy()
        refused[spoiled.index] = dataclasses.replace(spoiled, address="192.0.2.1", policy=0)
        refused[260] = dataclasses.replace(refused[260], index=259)
        first = min(spoiled.index, 260)
        with pytest.raises(LogDamaged, match=f"^entry {first}: "):
            check(world, refused, spread=two_processes)


def _end_it(_value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_process_that_is_ended_from_outside_is_an_error_and_no_result() -> None:
    with parallel.processes(1) as spread, pytest.raises(Misconfigured, match="ended from outside"):
        list(spread(_end_it, range(3)))


def test_values_are_taken_as_they_are_needed() -> None:
    taken = 0

    def values() -> Iterator[int]:
        nonlocal taken
        for value in range(1000):
            taken += 1
            yield value

    gc.enable()
    with parallel.processes(1) as spread:
        assert not gc.isenabled()
        results = spread(abs, values())
        assert next(results) == 0
        assert taken < 10, "memory stays bounded"
        assert list(results) == list(range(1, 1000))
    assert gc.isenabled()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_to_whoever_sits_at_a_terminal(world: World, terminal: bool) -> None:
    world.ask("ana")
    heard, said = os.openpty() if terminal else os.pipe()
    command = [PROGRAM, "log", "verify", str(world.directory / "log.db")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=said, env=os.environ | {"TERM": "xterm"}, check=True)
    os.close(said)
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody writes any more
        while piece := os.read(heard, 65536):
            shown += piece
    os.close(heard)
    assert done.stdout.startswith(b"4 entries, 2 signatures, 1 certificates: all verify\n")
    assert (b"verifying" in shown) == terminal, shown
    assert terminal or shown == b""
