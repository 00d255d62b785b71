"""Reading a request until it changes: answered at once when it does, never for long, and never at the cost of others."""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from ca import entry
from server import api
from server.app import create_app
from tests.test_lifecycle import ask, held, lock, said
from tests.world import World

PATIENCE = 20.0  # seconds after which a test is taken for hanging
WAITERS = 2
Waiting = Callable[..., Future[TestResponse]]


@pytest.fixture
def waiting(world: World) -> Iterator[Waiting]:
    """Reads a request in a thread of its own; the CA lets two wait."""
    world.http = create_app(world.ca, world.store, clock=lambda: world.now, waiting=WAITERS).test_client()
    threads, log, began = ThreadPoolExecutor(8), world.ca.log, threading.Semaphore(0)
    wait = log.wait

    def seen_waiting(size: int, seconds: float) -> None:
        began.release()
        wait(size, seconds)

    log.wait = seen_waiting  # type: ignore[method-assign]

    def read(person: str, request: int, query: str = "wait=25&seen=pending", *, waits: bool = True) -> Future[TestResponse]:
        mine = copy.copy(world)
        mine.http = world.http.application.test_client()
        answer = threads.submit(mine.read, person, f"/v1/requests/{request}?{query}")
        if waits:
            assert began.acquire(timeout=PATIENCE), "it waits by now"
        return answer

    yield read
    threads.shutdown()


def status(answer: Future[TestResponse]) -> str:
    return str(said(answer.result(PATIENCE))["status"])


@pytest.mark.parametrize("end", ["approve", "deny", "withdraw", "lock"])
def test_whoever_waits_is_answered_when_it_is_decided(world: World, waiting: Waiting, end: str) -> None:
    request = ask(world)
    answer = waiting("bo", request)
    assert not answer.done()
    if end == "withdraw":
        world.give_back("bo", "withdraw", request)
    elif end == "lock":
        lock(world, "bo")
    else:
        world.answer("cy", end, request)
    decided = time.monotonic()
    assert status(answer) == {"approve": "granted", "deny": "denied", "withdraw": "withdrawn", "lock": "revoked"}[end]
    assert time.monotonic() - decided < 5


def test_whoever_waits_is_answered_when_it_lapses(world: World, waiting: Waiting) -> None:
    answer = waiting("bo", ask(world))
    world.now += 900  # nothing is logged then
    assert status(answer) == "lapsed"


def test_what_happens_to_others_ends_no_waiting(world: World, waiting: Waiting) -> None:
    answer = waiting("bo", request := ask(world))
    held(world, "ana")
    assert not answer.done()
    world.answer("cy", "approve", request)
    assert status(answer) == "granted"


def test_the_waiting_is_as_long_as_was_asked_and_bounded(world: World, waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    request, begun = ask(world), time.monotonic()
    assert status(waiting("bo", request, "wait=1&seen=pending")) == "pending"
    assert time.monotonic() - begun >= 1
    assert api.LONGEST_WAIT == 25
    monkeypatch.setattr(api, "LONGEST_WAIT", 1)
    assert status(waiting("bo", request, "wait=999999999&seen=pending")) == "pending"


@pytest.mark.parametrize("query", ["", "?wait=0", "?wait=25", "?wait=25&seen=granted", "?seen=pending", "?wait=25&seen="])
def test_what_is_not_as_it_was_seen_is_answered_at_once(world: World, query: str) -> None:
    request, begun = ask(world), time.monotonic()
    assert said(world.read("bo", f"/v1/requests/{request}{query}"))["status"] == "pending"
    assert time.monotonic() - begun < PATIENCE


@pytest.mark.parametrize("wait", ["-1", "1.5", "x", "", "9" * 19, "\u0661"])
def test_a_time_to_wait_is_a_whole_number(world: World, wait: str) -> None:
    request = ask(world)
    answer = world.read("bo", f"/v1/requests/{request}?wait={quote(wait)}&seen=pending")
    assert (answer.status_code, said(answer)["code"]) == (400, "malformed")


def test_who_may_not_see_a_request_does_not_wait_for_it(world: World) -> None:
    request = ask(world)
    assert world.read("ana", f"/v1/requests/{request}?wait=25&seen=pending").status_code == 404


def test_so_many_wait_and_those_who_come_after_are_answered_at_once(world: World, waiting: Waiting) -> None:
    request = ask(world)
    waiters = [waiting("bo", request) for _ in range(WAITERS)]
    for person in ("bo", "cy", "eve"):
        assert status(waiting(person, request, waits=False)) == "pending"
    assert not any(waiter.done() for waiter in waiters)
    assert world.ask("ana").status_code == 201, "others are served meanwhile"
    world.answer("cy", "approve", request)
    assert [status(waiter) for waiter in waiters] == ["granted"] * WAITERS
    again = ask(world, "ana")
    waiter = waiting("ana", again)
    world.answer("cy", "deny", again)
    assert status(waiter) == "denied", "a place is free again"


def test_a_server_that_stops_lets_go_whoever_waits(world: World, waiting: Waiting) -> None:
    request = ask(world)
    answers = [waiting("bo", request), waiting("eve", request)]
    world.ca.log.release()
    assert [status(answer) for answer in answers] == ["pending", "pending"]
    assert status(waiting("bo", request, waits=False)) == "pending"


def test_the_log_is_followed_without_asking_again_and_again(world: World) -> None:
    """The wait is in the log itself: it ends with the entry that was awaited, and not before."""
    before, began, wait = world.store.size() + 1, threading.Event(), world.ca.log.wait  # that eve looks is an entry, too

    def seen_waiting(size: int, seconds: float) -> None:
        began.set()
        wait(size, seconds)

    world.ca.log.wait = seen_waiting  # type: ignore[method-assign]
    mine = copy.copy(world)
    mine.http = world.http.application.test_client()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(mine.read, "eve", f"/v1/log/entries?start={before}&wait=25")
        assert began.wait(PATIENCE)
        assert not answer.done()
        request = ask(world)
        entries = said(answer.result(PATIENCE))["entries"]
    assert [entry.decode(text.encode()).index for text in entries] == [request]
    world.ca.log.release()
    assert said(world.read("eve", f"/v1/log/entries?start={request + 1}&wait=25"))["entries"] == []
