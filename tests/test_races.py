"""What happens at the same moment has one outcome: a hundred tries each, and every reading of the log says the same."""

import copy
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from werkzeug.test import TestResponse

from tests.test_lifecycle import TWO_STEPS, ask, held, revoke, revoked
from tests.test_lifecycle_machine import standing
from tests.world import World, certificate

TRIES = 100
Act = Callable[[World], TestResponse]


def answer(person: str, action: str, request: int) -> Act:
    """Somebody approves or denies."""
    return lambda world: world.answer(person, action, request)


def give_back(action: str, request: int) -> Act:
    """Bo withdraws or drops."""
    return lambda world: world.give_back("bo", action, request)


def renew(request: int) -> Act:
    """Bo asks for a certificate."""
    return lambda world: world.renew("bo", request)


class Race:
    """Two threads that start their acts at the same moment, each through a client of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._barrier = threading.Barrier(2)
        self._threads = ThreadPoolExecutor(2)

    def __enter__(self) -> "Race":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def run(self, one: Act, other: Act) -> tuple[int, int]:
        """The status codes of both answers."""
        first, second = self._threads.map(self._act, (one, other))
        return first.status_code, second.status_code

    def answers(self, one: Act, other: Act) -> list[TestResponse]:
        """Both answers."""
        return list(self._threads.map(self._act, (one, other)))

    def _act(self, act: Act) -> TestResponse:
        mine = copy.copy(self.world)
        mine.http = self.world.http.application.test_client()
        self._barrier.wait(20)
        return act(mine)


@pytest.fixture
def race(world: World) -> Iterator[Race]:
    """Two threads; afterwards the log is verified, and read again from the beginning by two programs."""
    with Race(world) as made:
        yield made
    log = [json.loads(source) for source in world.store.entries(0, world.store.size())]
    numbers = [each["index"] for each in log if each["kind"] == "request"]
    before = {number: world.status(number) for number in numbers}
    world.reopen()
    assert {number: world.status(number) for number in numbers} == before
    assert {number: standing(log, number, int(world.now)) for number in numbers} == before
    world.check()


def clear(world: World, request: int) -> None:
    """So that the next try begins with nothing held."""
    if world.status(request) == "granted":
        assert world.give_back("bo", "drop", request).status_code == 200


def test_an_approval_and_a_withdrawal_at_once(race: Race) -> None:
    seen = set()
    for _ in range(TRIES):
        request = ask(race.world)
        outcome = race.run(answer("cy", "approve", request), give_back("withdraw", request))
        seen.add((outcome, race.world.status(request)))
        clear(race.world, request)
    assert seen <= {((200, 409), "granted"), ((409, 200), "withdrawn")}


def test_an_approval_and_a_denial_at_once(race: Race) -> None:
    seen = set()
    for _ in range(TRIES):
        request = ask(race.world)
        outcome = race.run(answer("cy", "approve", request), answer("di", "deny", request))
        seen.add((outcome, race.world.status(request)))
        clear(race.world, request)
    assert seen <= {((200, 409), "granted"), ((409, 200), "denied")}


def test_an_approval_at_the_moment_at_which_the_request_lapses(race: Race) -> None:
    seen = set()

    def pass_by(world: World) -> TestResponse:
        race.world.now += 0.5
        return world.http.get("/healthz")

    for _ in range(TRIES):
        request = ask(race.world)
        race.world.now = int(race.world.now) + 900 - 0.5
        outcome, _ = race.run(answer("cy", "approve", request), pass_by)
        seen.add((outcome, race.world.status(request)))
        clear(race.world, request)
    assert seen <= {(200, "granted"), (409, "lapsed")}


def test_an_approval_and_a_revocation_at_once(race: Race) -> None:
    seen = set()
    for _ in range(TRIES):
        request = ask(race.world)
        outcome = race.run(answer("cy", "approve", request), partial(revoke, request=request))
        seen.add((outcome, race.world.status(request)))
    assert seen <= {((200, 200), "revoked"), ((409, 200), "revoked")}


def test_two_approvals_at_once_where_one_is_enough(race: Race) -> None:
    seen = set()
    for _ in range(TRIES):
        request = ask(race.world)
        outcome = race.run(answer("cy", "approve", request), answer("di", "approve", request))
        seen.add(outcome)
        assert race.world.status(request) == "granted"
        clear(race.world, request)
    assert seen <= {(200, 409), (409, 200)}
    assert race.world.kinds().count("approve") == TRIES


def test_two_approvals_at_once_where_both_are_needed(race: Race) -> None:
    race.world.adopt(role_db_root=TWO_STEPS)
    for _ in range(TRIES):
        request = ask(race.world, role="db-root")
        outcome = race.run(answer("cy", "approve", request), answer("eve", "approve", request))
        assert (outcome, race.world.status(request)) == ((200, 200), "granted")
        clear(race.world, request)


def test_the_same_approval_twice_at_once_is_one(race: Race) -> None:
    race.world.adopt(role_db_root=TWO_STEPS)
    for _ in range(TRIES):
        request = ask(race.world, role="db-root")
        outcome = race.run(answer("cy", "approve", request), answer("cy", "approve", request))
        assert sorted(outcome) == [200, 403]
        assert race.world.status(request) == "pending"
        race.world.give_back("bo", "withdraw", request)


def test_two_certificates_at_once_are_two_within_the_grant(race: Race) -> None:
    request = held(race.world)
    serials = set()
    for _ in range(TRIES):
        answers = race.answers(renew(request), renew(request))
        serials |= {certificate(answer).certificate.serial for answer in answers}
    assert len(serials) == 2 * TRIES == race.world.signer.calls


def test_the_same_statement_twice_at_once_is_one_certificate(race: Race) -> None:
    for number in range(TRIES):
        body = race.world.body("ana")
        answers = race.answers(partial(World.post, body=body), partial(World.post, body=body))
        assert len({certificate(answer).blob for answer in answers}) == 1
        assert race.world.kinds().count("issue") == number + 1


def test_a_certificate_and_the_end_of_its_grant_at_once(race: Race) -> None:
    for _ in range(TRIES):
        request = held(race.world)
        issued, dropped = race.answers(renew(request), give_back("drop", request))
        assert (dropped.status_code, race.world.status(request)) == (200, "dropped")
        if issued.status_code == 201:
            assert certificate(issued).certificate.serial in revoked(race.world)
        else:
            assert issued.status_code == 409
