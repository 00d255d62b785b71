"""`ca.batch`: what the log remembers between two commits is what the store says."""

import random
from collections.abc import Callable, Sequence

import pytest
from werkzeug.test import TestResponse

from ca import known
from ca.acts import Moment
from ca.batch import Batch, Tail
from ca.entry import AnyEntry, RequestEntry
from ca.errors import NotTouched
from ca.known import Known
from ca.request import LONGEST_CASE
from tests.world import World

STEPS = 120


def seen(world: World) -> Batch:
    """The next batch, with all that is remembered."""
    batches = []

    def look(tail: Tail) -> Sequence[AnyEntry]:
        batches.append(tail.batch)
        return []

    world.ca.log.append(look)
    return batches[0]


def told(memory: Known) -> dict[int, list[int]]:
    return {index: list(each.entries) for index, each in memory.told.items()}


def steps(world: World, chance: random.Random) -> list[Callable[[], object]]:
    """What people do, some of it in vain."""
    person = chance.choice(["ana", "bo", "di"])
    requests = [entry for entry in world.entries() if isinstance(entry, RequestEntry)][-4:]
    request, asker = next(((one.index, one.actor) for one in chance.sample(requests, len(requests))), (1, "ana"))
    return [
        lambda: world.ask(person, role="db-admin"),
        lambda: world.ask(person, role="dev"),
        lambda: world.answer(chance.choice(["cy", "di"]), chance.choice(["approve", "approve", "deny"]), request),
        lambda: world.renew(asker, request),
        lambda: world.give_back(asker, chance.choice(["drop", "withdraw"]), request),
        lambda: world.act("eve", "revoke", "/v1/revocations", reason="test", person=person),
        lambda: world.act("eve", "revoke", "/v1/revocations", reason="test", request=request),
        lambda: world.act("eve", chance.choice(["lock", "unlock", "unlock"]), "/v1/locks", reason="test", person=person),
        lambda: failing(world, chance.choice([lambda: world.ask(person, role="dev"), lambda: world.renew(asker, request)])),
    ]


def failing(world: World, act: Callable[[], TestResponse]) -> None:
    """What somebody does just when the log key makes no signature: it is not committed."""
    sign, world.ca.log._sign = world.ca.log._sign, lambda _message: b""
    size = world.store.size()
    act()
    assert world.store.size() == size
    world.ca.log._sign = sign


@pytest.mark.parametrize("remembered", [6, 4096])
def test_what_is_remembered_is_what_the_store_says_whatever_happened(
    world: World, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(known, "REMEMBERED", remembered)
    doors = [world, world.open_beside()]
    for seed in range(2):
        chance = random.Random(seed)  # noqa: S311 - a history, not a secret
        for _ in range(STEPS):
            doors[0].now = doors[1].now = world.now + chance.choice([0, 1, 60, 700])
            door = chance.choice(doors)
            chance.choices(steps(door, chance), weights=[8, 4, 8, 6, 2, 1, 1, 2, 2])[0]()
            for each in doors:
                check(each)
    assert {"approve", "renew", "drop", "revoke", "lock", "deny", "withdraw"} <= set(world.kinds())


def check(world: World) -> None:
    """What this process remembers is what the store says."""
    memory = seen(world).known
    assert {index: world.store.request(index) for index in memory.told} == told(memory)
    newest = {key: next(iter(world.store.requests(*key, 0, most=1)), None) for key in memory.asked}
    assert newest == memory.asked
    assert {person for person, locked in memory.locked.items() if locked} == world.store.locked()
    assert all(next(world.store.entries(index, index + 1)) == one.encode() for index, one in memory.entries.items())


def test_a_request_is_not_overlooked_when_the_clock_was_ahead_and_somebody_looked_in_vain(world: World) -> None:
    assert world.ask("ana", role="db-admin").status_code == 202
    world.reopen()  # so that nothing is remembered
    now, world.now = world.now, world.now + LONGEST_CASE + 86_400
    looked = []

    def look(tail: Tail) -> Sequence[AnyEntry]:
        looked.append(Moment(tail, world.ca.rules, lambda _: {}).newest("ana", "db-admin"))
        raise NotTouched("what adds no entry, so that the clock may be set back")

    with pytest.raises(NotTouched):
        world.ca.log.append(look)
    assert looked == [None], "at that time it was surely over"
    world.now = now
    answer = world.ask("ana", role="db-admin")
    assert (answer.status_code, world.kinds().count("request")) == (403, 1), answer.text
    assert "waits already" in answer.text


def test_what_another_process_wrote_is_seen_by_the_next_append(world: World) -> None:
    world.ask("ana", role="dev")
    other = world.open_beside()
    other.ask("ana", role="dev")
    memory = seen(world).memory
    assert memory.checkpoint is not None
    assert memory.checkpoint.size == world.store.size()
    assert world.ask("ana", role="dev").status_code == 201
    assert {index: world.store.request(index) for index in memory.known.told} == told(memory.known)
