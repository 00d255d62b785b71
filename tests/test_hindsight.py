"""What another policy would have said: every recorded request, with the facts of its time."""

import pytest

from ca import roles
from ca.conditions import told_shift
from ca.hindsight import KINDS, Replayed, replay, summary
from ca.roles import Policy
from tests.test_oncall_entries import SCHEDULES, SILENT
from tests.world import FILES, START, World

WEB = FILES["roles/web-admin.toml"]
DB = FILES["roles/db-admin.toml"]
LEADS = 'approvals = [{ from = "leads", count = 1 }]\n'


def tried(world: World, since: int = 0, **roles_: str) -> list[Replayed]:
    """Every request of the log, by the policy with these roles."""
    return list(replay(changed(world, **roles_), [each for each in world.entries() if each.TAG[1] in KINDS], since))


def changed(world: World, **texts: str) -> Policy:
    """The policy with some files written anew, as `World.adopt` names them, and nothing of it logged."""
    before = dict(world.files)
    for name, text in texts.items():
        path = f"roles/{name.removeprefix('role_').replace('_', '-')}.toml" if name.startswith("role_") else f"{name}.toml"
        before[path] = text.encode()
    return roles.load(before)


def outcomes(replayed: list[Replayed]) -> list[tuple[str, str]]:
    return [(each.was, each.now) for each in replayed]


@pytest.fixture
def lived(world: World) -> World:
    """Granted at once; denied for the reason; denied for the person; approved; waiting."""
    world.ask("ana")
    world.ask("ana", reason="hello")
    world.ask("cy")
    request = world.ask("bo", role="db-admin").get_json()["request"]
    world.answer("di", "approve", request)
    world.ask("ana", role="db-admin")
    return world


def test_the_policy_of_the_time_says_what_it_said(lived: World) -> None:
    assert outcomes(tried(lived)) == [
        ("granted", "granted"), ("denied", "denied"), ("denied", "denied"), ("approved", "approved"), ("pending", "pending"),
    ]  # fmt: skip
    assert not any(each.differs for each in tried(lived))


@pytest.mark.parametrize(
    ("texts", "expected", "counts"),
    [
        ({"role_web_admin": WEB + LEADS}, "pending denied denied approved pending", (0, 0, 1)),
        ({"role_web_admin": WEB.replace("^INC-[0-9]+", "^CHG")}, "denied denied denied approved pending", (0, 1, 0)),
        ({"role_web_admin": WEB.replace("^INC-[0-9]+", "h")}, "denied granted denied approved pending", (1, 1, 0)),
        ({"role_web_admin": WEB + '[[allow]]\ngroups = ["leads"]\n'}, "granted denied granted approved pending", (1, 0, 0)),
        ({"role_db_admin": DB.replace("count = 1", "count = 2")}, "granted denied denied pending pending", (0, 0, 1)),
        ({"role_db_admin": DB.replace(LEADS, "")}, "granted denied denied granted granted", (2, 0, 0)),
        ({"role_db_admin": DB.replace('= "leads", c', '= "security", c')}, "granted denied denied pending pending", (0, 0, 1)),
        ({"guardrails": FILES["guardrails.toml"] + '[[deny]]\nmessage = "Frozen"\n'}, "denied " * 5, (0, 3, 0)),
    ],
)
def test_another_policy_is_asked_with_the_words_and_approvals_of_the_time(
    lived: World, texts: dict[str, str], expected: str, counts: tuple[int, int, int]
) -> None:
    replayed = tried(lived, 0, **texts)
    assert [each.now for each in replayed] == expected.split()
    assert tuple(summary(replayed).values()) == counts


def test_only_requests_since_then_are_decided(lived: World) -> None:
    lived.now += 60
    lived.ask("ana")
    assert len(tried(lived, since=int(START) + 60)) == 1


def test_an_address_a_key_and_a_moment_are_those_of_the_time(lived: World) -> None:
    hours = 'hours = { from = "09:00", to = "10:00", zone = "UTC" }'
    for condition in ('networks = ["192.0.2.0/24"]', "hardware_key = true", hours):
        assert tried(lived, role_web_admin=f"{WEB}{condition}\n")[0].now == "denied", condition
    for condition in ('networks = ["127.0.0.0/8"]', 'hours = { from = "08:00", to = "09:00", zone = "UTC" }'):
        assert tried(lived, role_web_admin=f"{WEB}{condition}\n")[0].now == "granted", condition


def test_who_was_on_call_is_what_the_log_kept_and_else_unknown(world: World) -> None:
    by_level = WEB.replace('groups = ["sre"]', 'on_call = { schedule = "web", levels = [%d] }')
    world.adopt(oncall=SCHEDULES, role_web_admin=by_level % 1)
    for shift in (told_shift("web", "PagerDuty", "ana", 1), told_shift("web", "PagerDuty", "ana", 2), SILENT):
        world.shifts["ana"] = {"web": shift, "db": told_shift("db", "PagerDuty", "ana", 2)}
        world.ask("ana")
    assert [each.now for each in tried(world)] == ["granted", "denied", "denied"]
    second = tried(world, role_web_admin=by_level % 2)
    assert outcomes(second) == [("granted", "denied"), ("denied", "granted"), ("denied", "denied")]
    assert second[2].why.endswith(f"but {SILENT}")
    db = tried(world, role_web_admin=(by_level % 2).replace('"web", levels', '"db", levels'))
    assert outcomes(db) == [("granted", "denied"), ("denied", "denied"), ("denied", "denied")]
    assert "schedule db was not looked at" in db[1].why


def test_the_budget_of_a_day_counts_what_was_granted_then(world: World) -> None:
    for _ in range(3):
        world.ask("ana")
        world.now += 8 * 3600
    world.ask("ana")
    limited = tried(world, role_web_admin=WEB.replace("[[allow]]", "auto_per_day = 2\n[[allow]]"))
    assert [each.now for each in limited] == ["granted", "granted", "denied", "denied"], "the first is a day old by then"


def test_extensions_are_counted_as_they_were(world: World) -> None:
    for _ in range(3):
        world.ask("ana")
    limited = tried(world, role_web_admin=WEB.replace("[[allow]]", "max_extensions = 1\n[[allow]]"))
    assert [each.now for each in limited] == ["granted", "granted", "denied"]


def test_whoever_was_locked_out_then_could_not_have_approved(world: World) -> None:
    for action in ("lock", "unlock"):
        assert world.act("eve", action, "/v1/locks", person="di", reason="lost").status_code == 200
        world.ask("ana")
    only_cy = FILES["roles/web-admin.toml"] + 'approvals = [{ from = "leads", count = 2 }]\n'
    assert [each.now for each in tried(world, role_web_admin=only_cy)] == ["denied", "pending"]


def test_an_escalated_approval_counts_at_its_own_moment(world: World) -> None:
    world.adopt(role_db_admin=DB.replace("count = 1", 'count = 1, escalate_after = "5m", escalate_to = "security"'))
    request = world.ask("bo", role="db-admin").get_json()["request"]
    world.now += 360
    assert world.answer("eve", "approve", request).status_code == 200
    assert outcomes(tried(world)) == [("approved", "approved")]
    later = DB.replace("count = 1", 'count = 1, escalate_after = "10m", escalate_to = "security"')
    assert outcomes(tried(world, role_db_admin=later)) == [("approved", "pending")]


def test_whoever_has_left_is_denied_and_what_the_policy_did_not_refuse_is_left_out(world: World) -> None:
    world.ask("bo", role="db-admin")
    world.ask("bo", role="db-admin")  # refused: one waits
    world.act("eve", "lock", "/v1/locks", person="ana", reason="lost")
    world.ask("ana")  # refused: locked out
    people = world.files["people.toml"].decode()
    without = people[: people.index("[people.bo]")] + people[people.index("[people.cy]") :]
    [only] = replay(changed(world, people=without), [each for each in world.entries() if each.TAG[1] in KINDS], 0)
    assert (only.person, only.was, only.now) == ("bo", "pending", "denied")
    assert only.why.endswith("it needs that the person is in people.toml, but bo is not")
