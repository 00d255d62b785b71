"""What one person, a disk that fills, and a clock that leaps can do to the CA: little, and it is said in time."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from ca.entry import RenewEntry
from ca.errors import ClockJumped, TooMany
from ca.signers.file import FileSigner
from server.app import create_app
from server.clock import LEAP, Steady, since_boot
from server.directory import create, open_ca
from server.pace import Pace
from tests import keys
from tests.keys import Key
from tests.running import ORIGIN
from tests.test_renewal_by_certificate import SHORT, renew
from tests.world import World, uuid7


class Seconds:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------------- a person


def test_a_budget_comes_back_steadily_and_is_each_persons_own() -> None:
    clock = Seconds(1000.0)
    pace = Pace(6, clock)
    for _ in range(6):
        pace.count("ana")
    with pytest.raises(TooMany, match="ana signed more than 6 statements within a minute") as refused:
        pace.count("ana")
    assert refused.value.retry_after == 10
    pace.count("bo")
    clock.now += 9.9
    with pytest.raises(TooMany):
        pace.count("ana")
    clock.now += 0.2
    pace.count("ana")
    with pytest.raises(TooMany):
        pace.count("ana")
    clock.now += 3600
    for _ in range(6):
        pace.count("ana")
    with pytest.raises(TooMany):
        pace.count("ana")


def test_who_asks_too_often_adds_nothing_to_the_log_and_is_told_when_to_come_again(world: World) -> None:
    world.http = create_app(world.ca, world.store, clock=lambda: world.now, per_minute=3).test_client()
    assert [world.ask("bo").status_code for _ in range(3)] == [403, 403, 403]
    size = world.store.size()
    for refused in (world.ask("bo"), world.give_back("bo", "drop", 2), world.renew("bo", 2)):
        assert (refused.status_code, (refused.json or {})["code"]) == (429, "too-many")
        assert 0 < int(refused.headers["Retry-After"]) <= 20
    assert world.store.size() == size
    assert world.ask("ana").status_code == 201, "others are not kept waiting"
    world.check()


def test_nobody_spends_the_budget_of_another(world: World) -> None:
    world.http = create_app(world.ca, world.store, clock=lambda: world.now, per_minute=1).test_client()
    forged = world.body("ana") | {"signature": world.body("bo")["signature"]}
    assert [world.post(forged).status_code for _ in range(3)] == [401, 401, 401]
    assert world.ask("ana").status_code == 201


PER_MINUTE = 3


@pytest.fixture
def slow(world: World) -> World:
    """A CA that takes three statements a minute from each, and ana's certificate of 10 minutes: request 3, serial 4."""
    world.adopt(role_web_admin=SHORT)
    assert world.ask("ana", keys.make(world.directory, name="stolen")).get_json()["serial"] == 4
    world.http = create_app(world.ca, world.store, clock=lambda: world.now, per_minute=PER_MINUTE).test_client()
    return world


def stolen(world: World) -> Key:
    """The key of ana's certificate, which is all that the thief has."""
    return FileSigner(world.directory / "stolen", lambda _: b"")


def test_a_thief_of_a_certificates_key_leaves_an_entry_each_time_and_the_persons_own_budget_alone(slow: World) -> None:
    size, thief = slow.store.size(), stolen(slow)
    answers = [renew(slow, thief) for _ in range(PER_MINUTE + 2)]
    assert [answer.status_code for answer in answers] == [201] * PER_MINUTE + [429] * 2
    assert "the keys of ana's certificates signed more than 3 statements within a minute" in answers[-1].text
    assert slow.kinds()[size:] == ["renew", "issue"] * PER_MINUTE
    assert all(each.signed.key == thief.public_key for each in slow.entries()[size:] if isinstance(each, RenewEntry))
    assert [slow.give_back("ana", "drop", 3).status_code, slow.renew("ana", 3).status_code] == [200, 409], "ana's own"
    assert renew(slow, thief).status_code == 401, "she ended it"
    slow.check()


def refused_for_a_touch(world: World) -> TestResponse:
    """Which only a rule with hardware_key says, and no entry."""
    world.adopt(role_web_admin=SHORT + "hardware_key = true\n")
    answer = renew(world, stolen(world))
    world.adopt(role_web_admin=SHORT)
    return answer


ONE = "00000000-0000-7000-a000-000000000001"
SILENT: dict[str, tuple[int, Callable[[World], TestResponse]]] = {
    "a renewal that wants a touch": (401, refused_for_a_touch),
    "a certificate of a request that is none": (404, lambda world: world.renew("ana", 1)),
    "a withdrawal of a request that is none": (404, lambda world: world.give_back("ana", "withdraw", 1)),
    "another statement by an id that is there": (409, lambda world: world.ask("ana", role="dev", id=ONE, reason=uuid7())),
}


@pytest.mark.parametrize("what", SILENT)
def test_what_leaves_no_entry_uses_up_nobodys_budget(slow: World, what: str) -> None:
    if "an id that is there" in what:
        assert slow.ask("ana", role="dev", id=ONE).status_code == 201
    status, do = SILENT[what]
    size = slow.store.size()
    for _ in range(2 * PER_MINUTE):
        assert do(slow).status_code == status
    assert set(slow.kinds()[size:]) <= {"policy"}
    assert slow.ask("ana", role="dev").status_code == 201
    assert renew(slow, stolen(slow)).status_code == 201


def test_who_recorded_a_statement_uses_up_nothing_by_repeating_it(slow: World) -> None:
    """An approval and a request, on the network between person and CA."""
    request = slow.ask("bo", role="db-admin").get_json()["request"]
    recorded = slow.body("ana", role="dev")
    for _ in range(2 * PER_MINUTE):
        assert slow.post(recorded).status_code == 201
        assert slow.answer("cy", "approve", request, id=ONE).status_code == 200  # the very same bytes each time
    assert slow.kinds().count("approve") == 1
    assert slow.ask("ana", role="dev").status_code == 201
    assert slow.give_back("cy", "withdraw", request).status_code == 403


# ------------------------------------------------------------------------ a disk


def test_a_server_is_not_ready_when_the_disk_is_nearly_full(world: World) -> None:
    disk = os.statvfs(world.directory)
    free = disk.f_bavail * disk.f_frsize // 2**20
    for reserve, status in ((0, 200), (free // 2, 200), (free * 2 + 1, 503)):
        http = create_app(world.ca, world.store, clock=lambda: world.now, reserve=reserve).test_client()
        answer = http.get("/readyz")
        assert answer.status_code == status, reserve
    assert answer.json is not None
    assert answer.json["code"] == "log-unwritable"
    assert f"fewer than the {free * 2 + 1} that ca.toml keeps in reserve" in answer.json["detail"]
    assert world.ask("ana").status_code == 201, "it is said in time: what can be written is written"


# ----------------------------------------------------------------------- a clock


def test_a_clock_that_leaps_ahead_is_not_believed_until_it_is_right_again() -> None:
    wall, passed = Seconds(1_800_000_000.0), Seconds(50.0)
    steady = Steady(wall, passed)
    for seconds in (0.001, 10, 86_400):
        wall.now += seconds
        passed.now += seconds
        assert steady() == wall.now
    wall.now += 86_400
    for _ in range(2):
        with pytest.raises(ClockJumped, match="the clock leapt 86400 s ahead"):
            steady()
    wall.now -= 86_400
    assert steady() == wall.now


def test_small_steps_either_way_and_the_end_of_a_sleep_are_believed() -> None:
    wall, passed = Seconds(1_800_000_000.0), Seconds(50.0)
    steady = Steady(wall, passed)
    for step, elapsed in ((LEAP, 0), (-3600, 1), (LEAP, 5), (7200, 7200)):
        wall.now += step
        passed.now += elapsed
        assert steady() == wall.now


def test_a_clock_that_was_set_back_may_be_set_right_again() -> None:
    wall, passed = Seconds(1_800_000_000.0), Seconds(50.0)
    steady = Steady(wall, passed)
    for step in (-86_400, 86_400):
        wall.now += step
        assert steady() == wall.now
    wall.now += LEAP + 1
    with pytest.raises(ClockJumped):
        steady()


def test_a_machines_own_clock_is_believed() -> None:
    steady = Steady(time.time)
    assert abs(steady() - time.time()) < 5
    assert since_boot() > 0


def test_a_leap_leaves_no_entry_and_issuing_goes_on_when_the_clock_is_right(tmp_path: Path) -> None:
    create(tmp_path / "ca", ORIGIN, None, None)
    ahead = Seconds(0)
    opened = open_ca(tmp_path / "ca", lambda _path: b"", lambda: time.time() + ahead.now)
    try:
        size = opened.store.size()
        ahead.now = 1e6
        with (tmp_path / "ca" / "policies" / "hosts.toml").open("a") as hosts:
            hosts.write("# changed\n")
        for refused in (opened.ca.ready, opened.reload_policies):
            with pytest.raises(ClockJumped, match="leapt"):
                refused()
        assert opened.store.size() == size
        ahead.now = 0
        opened.reload_policies()
        opened.ca.ready()
        assert opened.store.size() == size + 1
    finally:
        opened.on_call.close()
        opened.store.close()
