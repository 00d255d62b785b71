"""What auditors read beside the entries: every checkpoint that was signed, and the policy files of every time."""

import json
from hashlib import sha256

import pytest

from ca.checkpoint import open_checkpoint
from ca.errors import Malformed
from cli import audit
from cli.client import Client
from server import api
from tests.world import World


class Reading:
    """A client whose CA answers from memory: the world's, or what a test makes it say."""

    def __init__(self, world: World, *said: bytes) -> None:
        self._world, self._said = world, list(said)
        self.paths: list[str] = []

    def read(self, path: str, _largest: int = 0) -> bytes:
        self.paths.append(path)
        return self._said.pop(0) if self._said else self._world.read("eve", path).data


def client(world: World, *said: bytes) -> Client:
    return Reading(world, *said)  # type: ignore[return-value]  # it reads as one does


def test_every_checkpoint_is_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        world.ask("ana", role="dev")
    monkeypatch.setattr(api, "MOST_ENTRIES", 2)
    stored = list(world.store.checkpoints(0, 100))
    reading = client(world)
    assert list(audit.checkpoints(reading, world.store.size())) == stored
    assert len(getattr(reading, "paths")) == 4  # noqa: B009 - seven of them, by two
    assert [open_checkpoint(note, world.ca.log.key).size for _, note in stored] == [size for size, _ in stored]
    assert list(audit.checkpoints(client(world), 6)) == [each for each in stored if each[0] <= 6]


@pytest.mark.parametrize("note", ["", "one line", "origin\n-1\n", "origin\n1x\nroot\n", "origin\n" + "9" * 30 + "\n"])
def test_what_is_no_checkpoint_is_malformed(world: World, note: str) -> None:
    with pytest.raises(Malformed, match="does not say its size"):
        list(audit.checkpoints(client(world, json.dumps({"checkpoints": [note], "more": False}).encode()), 9))


def test_checkpoints_that_go_backwards_do_not_go_on_for_ever(world: World) -> None:
    page = json.dumps({"checkpoints": ["origin\n1\nroot\n"], "more": True}).encode()
    with pytest.raises(Malformed, match="a checkpoint of 1 entries comes after one of 1"):
        list(audit.checkpoints(client(world, page, page), 9))


def test_a_policy_file_is_read_by_its_digest_also_when_it_is_no_longer_in_force(world: World) -> None:
    before = world.files["guardrails.toml"]
    world.adopt(guardrails='auditors = ["security", "sre"]\n')
    for content in (before, world.files["guardrails.toml"]):
        assert audit.policy_file(client(world), sha256(content).hexdigest()) == content


@pytest.mark.parametrize("path", ["/v1/log/checkpoints", "/v1/log/checkpoints?start=3", "/v1/log/policies/" + "0" * 64])
def test_nobody_but_auditors_reads_them(world: World, path: str) -> None:
    assert world.http.get(path).status_code == 401
    for person in ("ana", "bo", "cy"):
        assert world.read(person, path).status_code == 403
    assert world.read("eve", path).status_code in {200, 404}


@pytest.mark.parametrize("digest", ["0" * 64, "x", "people.toml", "%2e%2e", "A" * 2000, "' OR 1=1 --"])
def test_what_is_no_digest_of_a_policy_file_is_not_found(world: World, digest: str) -> None:
    assert world.read("eve", f"/v1/log/policies/{digest}").status_code in {401, 404}


@pytest.mark.parametrize("start", ["-1", "x", "9" * 30, "1.5"])
def test_a_start_that_is_no_size_is_malformed(world: World, start: str) -> None:
    assert world.read("eve", f"/v1/log/checkpoints?start={start}").status_code == 400
