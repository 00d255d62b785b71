"""What an entry keeps of who was on call: values, of the schedules that the rules ask for, and what a verifier makes of them."""

import dataclasses
from typing import Any

import pytest

from ca.entry import AnyEntry, ApproveEntry, DecidedEntry, RefuseEntry, RenewEntry, RequestEntry
from ca.errors import LogDamaged
from ca.findings import Duty
from ca.oncall import Shift
from tests.test_oncall import ROTA
from tests.test_request_verify import check
from tests.world import World

ON_CALL = """
about = "Everything on the databases"
owner = "leads"
review_by = 2027-12-31
principals = ["postgres@web"]
default_duration = "30m"
max_duration = "1h"
[[allow]]
on_call = { schedule = "web", levels = [1] }
[[allow]]
groups = ["engineers"]
approvals = [{ from = "leads", count = 1 }]
"""
WEB = ROTA.replace('"ben"], ["cleo"]', '"bo"]')
SCHEDULES = WEB + WEB.replace("schedules.web", "schedules.db")
SILENT = "unknown: PagerDuty did not answer (cached 26 min ago, limit 15)"


@pytest.fixture
def on_call(world: World) -> World:
    """db-admin is the on-call engineer's, and with a lead's approval any engineer's; it does not ask for the schedule db."""
    world.adopt(oncall=SCHEDULES, role_db_admin=ON_CALL)
    return world


def says(world: World, person: str, level: int | None, until: int | None = None, **more: Shift | str) -> None:
    """What the schedule web says from now on."""
    on = ((person, level),) if level else ()
    world.shifts[person] = {"web": Shift("web", "PagerDuty", level, until, 12, on)} | more


def newest(world: World, kind: type[DecidedEntry]) -> tuple[Duty, ...] | None:
    found = [each for each in world.entries() if isinstance(each, kind)]
    return found[-1].on_call


def test_every_decision_keeps_the_source_the_age_the_level_and_the_end_of_the_shift(on_call: World) -> None:
    end = int(on_call.now) + 3600
    says(on_call, "ana", 1, end, db=Shift("db", "the rota", 1, end, 0, ()))
    request = on_call.ask("ana", role="db-admin").get_json()["request"]
    known = (Duty(schedule="web", source="PagerDuty", age=12, level=1, until=end),)
    assert newest(on_call, RequestEntry) == known, "and not the schedule that no rule of the role asks for"
    says(on_call, "ana", 1)
    assert on_call.renew("ana", request).status_code == 201
    assert newest(on_call, RenewEntry) == (Duty(schedule="web", source="PagerDuty", age=12, level=1),)
    says(on_call, "bo", None)
    waiting = on_call.ask("bo", role="db-admin").get_json()["request"]
    assert newest(on_call, RequestEntry) == (Duty(schedule="web", source="PagerDuty", age=12),)
    on_call.shifts["bo"] = {"web": SILENT}
    assert on_call.answer("cy", "approve", waiting).status_code == 200
    assert newest(on_call, ApproveEntry) == (Duty(schedule="web", unknown=SILENT),)
    says(on_call, "eve", None)
    assert on_call.ask("eve", role="db-admin").status_code == 403
    assert newest(on_call, RefuseEntry) == (Duty(schedule="web", source="PagerDuty", age=12),)
    on_call.check()


def test_a_shift_that_has_ended_is_kept_as_the_decision_saw_it(on_call: World) -> None:
    says(on_call, "ana", 1, int(on_call.now))
    assert on_call.ask("ana", role="db-admin").status_code == 202
    assert newest(on_call, RequestEntry) == (Duty(schedule="web", unknown="unknown: the shift that PagerDuty told of has ended"),)
    on_call.check()


def test_what_no_rule_asks_for_is_not_kept(on_call: World) -> None:
    says(on_call, "ana", 1)
    on_call.ask("ana")
    assert newest(on_call, RequestEntry) is None
    on_call.ask("ana", reason="nothing")
    assert newest(on_call, RefuseEntry) is None


def test_a_guard_rail_that_asks_who_is_on_call_has_it_kept(on_call: World) -> None:
    on_call.adopt(guardrails='auditors = ["security"]\n[[deny]]\non_call = { schedule = "db", levels = [2] }\nmessage = "Rest"\n')
    on_call.shifts["ana"] = {"db": Shift("db", "the rota", 2, None, 0, ())}
    assert on_call.ask("ana").status_code == 403
    assert newest(on_call, RefuseEntry) == (Duty(schedule="db", source="the rota", age=0, level=2),)
    on_call.check()


def test_many_schedules_do_not_make_an_entry_too_large(on_call: World) -> None:
    names = [f"s{at:03}" for at in range(200)]
    rotas = "".join(WEB.replace("schedules.web", f"schedules.{name}") for name in names)
    blocks = "".join(f'[[allow]]\non_call = {{ schedule = "{name}", levels = [1] }}\n' for name in names)
    on_call.adopt(oncall=rotas, role_db_admin=ON_CALL.partition("[[allow]]")[0] + blocks)
    on_call.shifts["ana"] = dict.fromkeys(names, SILENT * 20)
    assert on_call.ask("ana", role="db-admin").status_code == 403
    on_call.check()


@pytest.mark.parametrize(
    ("members", "because"),
    [
        ({"on_call": None}, "what was known of that is not in it"),
        ({"on_call": (Duty(schedule="web", source="PagerDuty", age=12),)}, "nobody said that the person is on call"),
        ({"on_call": (Duty(schedule="web", unknown=SILENT),)}, "nobody said that the person is on call"),
        ({"on_call": (Duty(schedule="web", source="PagerDuty", age=1, level=1, until=1_800_000_000),)}, "web'] had ended"),
    ],
)
def test_a_verifier_finds_a_decision_that_does_not_follow_from_what_was_known(
    on_call: World, members: dict[str, Any], because: str
) -> None:
    says(on_call, "ana", 1)
    on_call.ask("ana", role="db-admin")
    entries: list[AnyEntry] = on_call.entries()
    check(on_call, entries)
    asked = entries[-2]
    assert isinstance(asked, RequestEntry)
    entries[-2] = dataclasses.replace(asked, **members)
    with pytest.raises(LogDamaged, match=because):
        check(on_call, entries)
