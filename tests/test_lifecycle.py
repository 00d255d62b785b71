"""The life of a request, rule by rule: who asks, who answers, what is held from when until when, and what ends it."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca import entry, verify
from ca.entry import ApproveEntry, IssueEntry, RequestEntry
from ca.errors import SignerFailed
from server.cases import Cases
from tests import keys
from tests.world import PEOPLE, START, World, certificate

MINUTE = 60
TWO_STEPS = """
about = "Root on the databases"
owner = "leads"
review_by = 2027-12-31
principals = ["root@web"]
default_duration = "30m"
max_duration = "1h"
[[allow]]
groups = ["engineers"]
approvals = [{ from = "leads", count = 1 }, { from = "security", count = 1 }]
"""


def ask(world: World, person: str = "bo", role: str = "db-admin", **more: Any) -> int:
    """A request that waits; its number."""
    answer = world.ask(person, role=role, **more)
    assert (answer.status_code, said(answer)["status"]) == (202, "pending"), answer.text
    return int(said(answer)["request"])


def held(world: World, person: str = "bo", **more: Any) -> int:
    """A request that Cy approved; its number."""
    request = ask(world, person, **more)
    approved = world.answer("cy", "approve", request)
    assert said(approved)["status"] == "granted", approved.text
    return request


def said(answer: TestResponse) -> dict[str, Any]:
    """What was answered."""
    assert isinstance(answer.json, dict), answer.text
    return answer.json


def refused(world: World, answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The problem that this is, beside a log that is sound."""
    assert (answer.status_code, said(answer)["code"]) == (status, code), answer.text
    world.check()
    return said(answer)


def shown(world: World, request: int) -> dict[str, Any]:
    """The request as an auditor sees it."""
    return said(world.read("eve", f"/v1/requests/{request}"))


# --------------------------------------------------------------------- granted


def test_the_clock_starts_when_the_last_approval_arrives(world: World) -> None:
    request = ask(world)
    world.now += 10 * MINUTE
    answer = said(world.answer("cy", "approve", request))
    assert (answer["asked_at"], answer["granted_at"], answer["until"]) == (START, START + 600, START + 600 + 1800)
    world.now += 30 * MINUTE - 1
    assert world.status(request) == "granted"
    world.now += 1
    assert world.status(request) == "unused"
    world.check()


def test_the_clock_starts_at_once_when_no_approval_is_needed(world: World) -> None:
    answer = said(world.ask("ana"))
    assert (answer["status"], answer["until"]) == ("granted", START + 1800)
    world.now += 1800
    assert world.status(answer["request"]) == "ended"


def test_nothing_is_signed_while_a_request_waits(world: World) -> None:
    request = ask(world)
    refused(world, world.renew("bo", request), 409, "not-granted")
    assert world.signer.calls == 0
    assert "issue" not in world.kinds()


def test_a_certificate_never_outlives_its_grant_and_renewals_do_not_extend_it(world: World) -> None:
    request = held(world)
    ends = []
    for _ in range(4):
        ends.append(certificate(world.renew("bo", request)).certificate.valid_before - START)
        world.now += 9 * MINUTE
    assert ends == [600, 1140, 1680, 1800], "ten minutes each, as the role has it, and never beyond the grant"
    assert shown(world, request)["until"] == START + 1800
    refused(world, world.renew("bo", request), 409, "not-granted")
    assert world.status(request) == "ended"


def test_a_certificate_is_made_for_whoever_holds_the_grant_only(world: World) -> None:
    request = held(world)
    for person in ("ana", "cy", "eve"):
        problem = refused(world, world.renew(person, request), 403, "forbidden")
        assert problem["role"] is None, "what bo holds is not theirs to know"
    assert world.signer.calls == 0
    assert certificate(world.renew("bo", request)).certificate.key_id == f"bo/db-admin/{request}"


def test_each_certificate_is_over_the_key_that_was_sent_for_it(world: World) -> None:
    request = held(world)
    fresh = keys.make(world.directory, name="fresh")
    assert certificate(world.renew("bo", request, fresh)).certificate.key == fresh.public_key
    refused(world, world.renew("bo", request, world.people["ana"]), 403, "refused")


def test_an_unused_grant_and_one_that_was_used_end_under_their_own_names(world: World) -> None:
    unused, used = held(world), held(world, "ana")
    world.renew("ana", used)
    world.now += 1800
    assert (world.status(unused), world.status(used)) == ("unused", "ended")


# ------------------------------------------------------------------- approvals


def test_nobody_approves_their_own_request(world: World) -> None:
    request = ask(world, "di")
    assert "di" not in shown(world, request)["steps"][0]["could"]
    for action in ("approve", "deny"):
        refused(world, world.answer("di", action, request), 403, "own-request")
    assert world.status(request) == "pending"
    assert said(world.answer("cy", "approve", request))["status"] == "granted"


def test_nobody_approves_their_own_request_with_another_of_their_keys(world: World) -> None:
    second = keys.make(world.directory, name="second")
    line = world.people["di"].public_key.line
    world.adopt(people=world.files["people.toml"].decode().replace(f'"{line}"', f'"{line}", "{second.public_key.line}"'))
    request = ask(world, "di")
    world.people["di"] = second
    refused(world, world.answer("di", "approve", request), 403, "own-request")


def test_only_somebody_of_the_named_group_answers(world: World) -> None:
    request = ask(world)
    for person in ("ana", "eve"):
        for action in ("approve", "deny"):
            problem = refused(world, world.answer(person, action, request), 403, "forbidden")
            assert problem["role"] is None, "what bo asked for is not theirs to know"
    assert said(world.answer("di", "approve", request))["status"] == "granted"


def test_whoever_left_the_group_approves_no_more(world: World) -> None:
    request = ask(world)
    world.adopt(people=world.files["people.toml"].decode().replace('cy]\ngroups = ["leads"]', 'cy]\ngroups = ["engineers"]'))
    refused(world, world.answer("cy", "approve", request), 403, "forbidden")
    assert said(world.answer("di", "approve", request))["status"] == "granted"


def test_several_steps_need_different_people(world: World) -> None:
    both = PEOPLE.format(**{name: key.public_key.line for name, key in world.people.items()})
    world.adopt(role_db_root=TWO_STEPS, people=both.replace('cy]\ngroups = ["leads"]', 'cy]\ngroups = ["leads", "security"]'))
    request = ask(world, role="db-root")
    assert said(world.answer("cy", "approve", request))["status"] == "pending"
    refused(world, world.answer("cy", "approve", request), 403, "refused")
    assert world.status(request) == "pending", "the same person twice is one person"
    assert said(world.answer("di", "approve", request))["status"] == "granted"
    assert [yes["person"] for yes in shown(world, request)["approvals"]] == ["cy", "di"]
    world.check()


def test_approvals_of_one_step_do_not_fill_another(world: World) -> None:
    world.adopt(role_db_root=TWO_STEPS)
    request = ask(world, role="db-root")
    for person in ("cy", "di"):
        assert said(world.answer(person, "approve", request))["status"] == "pending"
    refused(world, world.renew("bo", request), 409, "not-granted")
    assert said(world.answer("eve", "approve", request))["status"] == "granted"
    world.check()


@pytest.mark.parametrize("duration", [1, 600, 1800])
def test_an_approval_may_shorten_the_duration(world: World, duration: int) -> None:
    request = ask(world)
    answer = said(world.answer("cy", "approve", request, duration=duration))
    assert answer["until"] == START + duration
    assert answer["approvals"][0]["duration"] == duration
    assert certificate(world.renew("bo", request)).certificate.valid_before == START + min(duration, 600)
    world.check()


@pytest.mark.parametrize("duration", [0, -1, 1801, 3600, 2**62])
def test_an_approval_never_lengthens_it(world: World, duration: int) -> None:
    request = ask(world)
    refused(world, world.answer("cy", "approve", request, duration=duration), 403, "refused")
    assert world.status(request) == "pending"


def test_the_first_denial_ends_it(world: World) -> None:
    request = ask(world)
    answer = said(world.answer("cy", "deny", request, reason="Use the replica"))
    assert (answer["status"], answer["ended_by"], answer["end_reason"]) == ("denied", "cy", "Use the replica")
    refused(world, world.answer("di", "approve", request), 409, "not-pending")
    refused(world, world.renew("bo", request), 409, "not-granted")


def test_a_request_that_nobody_could_approve_is_refused_at_once(world: World) -> None:
    world.adopt(people=world.files["people.toml"].decode().replace('cy]\ngroups = ["leads"]', 'cy]\ngroups = ["engineers"]'))
    problem = refused(world, world.ask("di", role="db-admin"), 403, "denied")
    assert problem["detail"].endswith("but nobody else could")
    ask(world)


def test_a_request_lapses_when_nobody_answers_in_time(world: World) -> None:
    request = ask(world)
    world.now += 15 * MINUTE - 1
    assert world.status(request) == "pending"
    world.now += 1
    assert world.status(request) == "lapsed"
    for action in ("approve", "deny"):
        refused(world, world.answer("cy", action, request), 409, "not-pending")
    refused(world, world.give_back("bo", "withdraw", request), 409, "not-pending")
    ask(world)


def test_an_unanswered_step_goes_to_others_after_a_while(world: World) -> None:
    role = world.files["roles/db-admin.toml"].decode()
    role = role.replace("count = 1", 'count = 1, escalate_after = "5m", escalate_to = "security"')
    world.adopt(role_db_admin=role)
    request = ask(world)
    refused(world, world.answer("eve", "approve", request), 403, "forbidden")
    assert [each["request"] for each in said(world.read("eve", "/v1/requests?view=waiting"))["requests"]] == []
    world.now += 5 * MINUTE
    assert [each["request"] for each in said(world.read("eve", "/v1/requests?view=waiting"))["requests"]] == [request]
    assert said(world.answer("eve", "approve", request))["status"] == "granted"
    assert world.renew("bo", request).status_code == 201
    world.check()


def test_one_request_for_a_role_waits_at_a_time(world: World) -> None:
    request = ask(world)
    refused(world, world.ask("bo", role="db-admin"), 403, "refused")
    assert world.give_back("bo", "withdraw", request).status_code == 200
    ask(world)
    ask(world, "ana")


# --------------------------------------------------------- decided again and again


def test_what_the_role_gives_is_what_was_approved_or_nothing(world: World) -> None:
    request = ask(world)
    world.adopt(role_db_admin=world.files["roles/db-admin.toml"].decode().replace("postgres@web", "root@web"))
    refused(world, world.answer("cy", "approve", request), 403, "refused")
    assert world.status(request) == "pending"


def test_an_approval_does_not_survive_the_loss_of_eligibility(world: World) -> None:
    request = ask(world)
    world.adopt(people=world.files["people.toml"].decode().replace('bo]\ngroups = ["engineers"]', "bo]\ngroups = []"))
    refused(world, world.answer("cy", "approve", request), 403, "denied")
    assert world.status(request) == "pending"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('bo]\ngroups = ["engineers"]', "bo]\ngroups = []", "denied"),
        ('cy]\ngroups = ["leads"]', "cy]\ngroups = []", "denied"),
    ],
    ids=["the person left the group", "the approver did"],
)
def test_policy_decides_again_at_each_certificate(world: World, old: str, new: str, code: str) -> None:
    request = held(world)
    assert world.renew("bo", request).status_code == 201
    people = world.files["people.toml"].decode()
    world.adopt(people=people.replace(old, new))
    refused(world, world.renew("bo", request), 403, code)
    assert world.signer.calls == 1
    world.adopt(people=people)
    assert world.renew("bo", request).status_code == 201


def test_a_role_that_was_changed_or_removed_gives_no_certificate_of_before(world: World) -> None:
    request, role = held(world), world.files["roles/db-admin.toml"].decode()
    world.adopt(role_db_admin=role.replace("postgres@web", "root@web"))
    refused(world, world.renew("bo", request), 403, "refused")
    world.adopt(role_db_admin=role.replace('"1h"', '"20m"').replace('"30m"', '"10m"'))
    refused(world, world.renew("bo", request), 403, "denied")
    del world.files["roles/db-admin.toml"]
    world.ca.adopt(world.files)
    refused(world, world.renew("bo", request), 403, "denied")
    assert world.give_back("bo", "drop", request).status_code == 200, "what is held can be given back all the same"
    world.check()


def test_a_change_of_the_rules_never_lets_fewer_approve_than_were_named(world: World) -> None:
    """Else the log would hold a grant that its own request says is not complete."""
    world.adopt(role_db_root=TWO_STEPS)
    request = ask(world, role="db-root")
    world.adopt(role_db_root=TWO_STEPS.partition("approvals")[0])
    assert said(world.answer("cy", "approve", request))["status"] == "pending"
    world.check()
    assert said(world.answer("eve", "approve", request))["status"] == "granted"
    assert world.renew("bo", request).status_code == 201
    world.check()


def test_a_change_of_the_rules_may_ask_for_more(world: World) -> None:
    world.adopt(role_db_root=TWO_STEPS.replace(', { from = "security", count = 1 }', ""))
    request = ask(world, role="db-root")
    world.adopt(role_db_root=TWO_STEPS)
    assert said(world.answer("cy", "approve", request))["status"] == "pending"
    world.check()


def test_a_grant_for_a_security_key_is_not_renewed_with_an_ordinary_one(world: World) -> None:
    security = keys.SecurityKey()
    line = world.people["ana"].public_key.line
    people = world.files["people.toml"].decode().replace(f'"{line}"', f'"{line}", "{security.public_key.line}"')
    role = world.files["roles/web-admin.toml"].decode() + "hardware_key = true\n"
    world.adopt(people=people, role_web_admin=role)
    ordinary, fresh = world.people["ana"], keys.make(world.directory, name="fresh")
    world.people["ana"] = security
    request = said(world.ask("ana", fresh))["request"]
    assert world.renew("ana", request, fresh).status_code == 201
    world.people["ana"] = ordinary
    refused(world, world.renew("ana", request, fresh), 403, "denied")


# ------------------------------------------------------------------- extensions


def test_a_second_request_for_a_role_that_is_held_extends_the_grant(world: World) -> None:
    first = held(world)
    world.now += 20 * MINUTE
    second = ask(world)
    assert shown(world, second)["extends"] == first
    assert world.renew("bo", first).status_code == 201, "what is held stays held meanwhile"
    until = said(world.answer("cy", "approve", second))["until"]
    assert until == world.now + 1800
    world.now = until - MINUTE
    assert (world.status(first), world.status(second)) == ("ended", "granted")
    assert certificate(world.renew("bo", first)).certificate.valid_before == until, "the first number goes on naming it"
    assert shown(world, first)["extensions"] == 1
    world.check()


def test_a_role_without_a_limit_is_extended_as_well_and_given_back_as_one(world: World) -> None:
    first = said(world.ask("ana"))["request"]
    world.now += 20 * MINUTE
    second = said(world.ask("ana"))
    assert (second["extensions"], second["until"]) == (1, world.now + 1800)
    world.now += 20 * MINUTE
    renewed = said(world.renew("ana", first))
    assert (renewed["extensions"], renewed["valid_before"]) == (1, second["until"])
    third = said(world.ask("ana"))["request"]
    assert shown(world, third)["extensions"] == shown(world, second["request"])["extensions"] == 2
    serials = [each.index for each in world.entries() if isinstance(each, IssueEntry)]
    assert world.give_back("ana", "drop", second["request"]).status_code == 200
    assert [world.status(each) for each in (first, second["request"], third)] == ["ended", "dropped", "dropped"]
    assert revoked(world) == serials[1:], "the first one has expired"
    world.check()


def test_a_long_grant_is_held_through_short_extensions_of_it(world: World) -> None:
    long = said(world.ask("ana", duration=3600))["request"]
    for extension in range(1, 5):
        short = said(world.ask("ana", duration=60))["request"]
        asked = world.entries()[short]
        assert isinstance(asked, RequestEntry)
        assert (asked.request, asked.extends, asked.extension) == (long, long, extension)
        world.now += 120
        assert world.status(short) == "ended"
    assert certificate(world.renew("ana", long)).certificate.valid_before == START + 3600
    world.now = START + 3600
    anew = said(world.ask("ana"))["request"]
    asked = world.entries()[anew]
    assert isinstance(asked, RequestEntry)
    assert (asked.request, asked.extends, asked.extension) == (None, None, None)
    world.check()


def test_what_waited_or_was_withdrawn_does_not_hide_what_is_held(world: World) -> None:
    first = held(world)
    for _ in range(5):
        world.give_back("bo", "withdraw", ask(world))
    assert shown(world, ask(world))["extends"] == first
    world.check()


def test_the_last_of_many_requests_is_looked_up_as_cheaply_as_the_first(world: World) -> None:
    def effort(request: int) -> int:
        """How many steps SQLite takes, and how many entries have to be read."""
        steps: list[None] = []
        database = world.store._reader.db.conn
        database.set_progress_handler(lambda: steps.append(None), 1)
        read = len(world.store.request(request))
        database.set_progress_handler(None, 0)
        return len(steps) + 1000 * read

    efforts = [effort(said(world.ask("ana", role="dev", reason=""))["request"]) for _ in range(40)]
    assert max(efforts[2:]) <= efforts[1] + 10
    world.renew("ana", 2)
    assert effort(2) <= efforts[0] + 10, "nor do certificates and extensions matter to an old one"


def test_an_extension_needs_what_a_new_request_needs(world: World) -> None:
    first = held(world)
    second = ask(world)
    assert world.answer("cy", "deny", second).status_code == 200
    assert (world.status(first), world.status(second)) == ("granted", "denied")
    world.now += 1800
    refused(world, world.renew("bo", first), 409, "not-granted")


def test_a_grant_is_extended_at_most_so_often(world: World) -> None:
    held(world)
    for _ in range(2):
        held(world)
        world.now += MINUTE
    problem = refused(world, world.ask("bo", role="db-admin"), 403, "denied")
    assert "the grant was extended fewer than 2 times, but it was extended 2 times" in problem["detail"]
    world.now += 1800
    held(world)


def test_extensions_that_were_denied_or_withdrawn_do_not_count(world: World) -> None:
    held(world)
    for _ in range(3):
        world.answer("cy", "deny", ask(world))
        world.give_back("bo", "withdraw", ask(world))
    assert shown(world, held(world))["extensions"] == 1


def test_the_limit_of_extensions_counts_at_the_approval_as_well(world: World) -> None:
    held(world)
    second = ask(world)
    world.adopt(role_db_admin=world.files["roles/db-admin.toml"].decode().replace("max_extensions = 2", "max_extensions = 0"))
    refused(world, world.answer("cy", "approve", second), 403, "denied")


# -------------------------------------------------------------------- the budget


def test_grants_without_approval_have_a_daily_budget_for_each_person(world: World) -> None:
    role = "auto_per_day = 2\n" + world.files["roles/web-admin.toml"].decode()
    world.adopt(role_web_admin=role, people=world.files["people.toml"].decode().replace('["leads"]', '["sre"]'))
    for _ in range(2):
        assert world.ask("ana").status_code == 201
        world.now += MINUTE
    problem = refused(world, world.ask("ana"), 403, "denied")
    assert "fewer than 2 grants without approval in the last 24 hours, but it was granted 2 times" in problem["detail"]
    assert world.ask("cy").status_code == 201
    assert world.ask("ana", role="dev", reason="").status_code == 201
    world.now = START + 24 * 3600
    refused(world, world.ask("ana"), 403, "denied")
    world.now += 0.001
    assert world.ask("ana").status_code == 201


def test_beyond_the_budget_an_approval_is_needed(world: World) -> None:
    by_leads = '[[allow]]\ngroups = ["sre"]\napprovals = [{ from = "leads", count = 1 }]\n'
    world.adopt(role_web_admin="auto_per_day = 1\n" + world.files["roles/web-admin.toml"].decode() + by_leads)
    assert world.ask("ana").status_code == 201
    request = ask(world, "ana", role="web-admin")
    assert said(world.answer("cy", "approve", request))["status"] == "granted"
    ask(world, "ana", role="web-admin")
    world.check()


# ------------------------------------------------------------------------ ending


def test_a_request_is_taken_back_by_whoever_made_it(world: World) -> None:
    request = ask(world)
    for person in ("ana", "cy", "eve"):
        problem = refused(world, world.give_back(person, "withdraw", request), 403, "forbidden")
        assert problem["role"] is None
    assert said(world.give_back("bo", "withdraw", request))["status"] == "withdrawn"
    refused(world, world.answer("cy", "approve", request), 409, "not-pending")
    refused(world, world.give_back("bo", "withdraw", request), 409, "not-pending")


def test_what_is_granted_is_not_withdrawn_and_what_waits_is_not_dropped(world: World) -> None:
    request = ask(world)
    refused(world, world.give_back("bo", "drop", request), 409, "not-granted")
    world.answer("cy", "approve", request)
    refused(world, world.give_back("bo", "withdraw", request), 409, "not-pending")
    assert world.status(request) == "granted"


def test_a_grant_is_given_back_early(world: World) -> None:
    request = held(world)
    serial = certificate(world.renew("bo", request)).certificate.serial
    refused(world, world.give_back("ana", "drop", request), 403, "forbidden")
    world.now += MINUTE
    answer = said(world.give_back("bo", "drop", request))
    assert (answer["status"], answer["until"], answer["ended_by"]) == ("dropped", world.now, "bo")
    refused(world, world.renew("bo", request), 409, "not-granted")
    refused(world, world.give_back("bo", "drop", request), 409, "not-granted")
    assert revoked(world) == [serial]
    ask(world)


def test_giving_back_ends_the_extensions_too(world: World) -> None:
    first = held(world)
    second = held(world)
    third = ask(world)
    assert world.give_back("bo", "drop", first).status_code == 200
    assert [world.status(each) for each in (first, second, third)] == ["dropped"] * 3
    refused(world, world.answer("cy", "approve", third), 409, "not-pending")


def revoked(world: World) -> list[int]:
    """The serials that hosts must not take any more."""
    return Cases(world.ca, world.store).revoked(world.now)


def revoke(world: World, by: str = "eve", /, **what: Any) -> TestResponse:
    return world.act(by, "revoke", "/v1/revocations", reason="A stolen laptop", **what)


def lock(world: World, person: str, action: str = "lock", by: str = "eve") -> TestResponse:
    return world.act(by, action, "/v1/locks", person=person, reason="A stolen laptop")


def test_a_revoker_ends_one_grant(world: World) -> None:
    request, other = held(world), said(world.ask("bo", role="dev", reason=""))["request"]
    serial = certificate(world.renew("bo", request)).certificate.serial
    assert revoke(world, request=request).status_code == 200
    assert (world.status(request), world.status(other)) == ("revoked", "granted")
    refused(world, world.renew("bo", request), 409, "not-granted")
    refused(world, revoke(world, request=request), 409, "not-granted")
    assert revoked(world) == [serial]
    held(world)


def test_a_revoker_ends_a_request_that_waits(world: World) -> None:
    request = ask(world)
    assert revoke(world, request=request).status_code == 200
    refused(world, world.answer("cy", "approve", request), 409, "not-pending")


def test_a_revoker_ends_every_grant_of_a_person(world: World) -> None:
    requests = [held(world), said(world.ask("bo", role="dev", reason=""))["request"]]
    others = said(world.ask("ana"))["request"]
    assert revoke(world, person="bo").status_code == 200
    assert [world.status(each) for each in requests] == ["revoked"] * 2
    assert world.status(others) == "granted"
    assert world.ask("bo", role="dev", reason="").status_code == 201, "who is not locked out may ask again"
    world.check()


def test_a_revoker_ends_one_certificate(world: World) -> None:
    request = held(world)
    serials = [certificate(world.renew("bo", request)).certificate.serial for _ in range(2)]
    assert revoke(world, serial=serials[0]).status_code == 200
    assert world.status(request) == "granted"
    assert revoked(world) == serials[:1]
    world.now += 600
    assert revoked(world) == [], "it would have expired by now"
    world.check()


@pytest.mark.parametrize("person", ["ana", "bo", "cy", "di"])
def test_only_revokers_revoke_and_lock(world: World, person: str) -> None:
    request = held(world)
    refused(world, revoke(world, person, request=request), 403, "forbidden")
    refused(world, revoke(world, person, person="bo"), 403, "forbidden")
    refused(world, lock(world, "bo", by=person), 403, "forbidden")
    refused(world, lock(world, person, "unlock", by=person), 403, "forbidden")
    assert world.status(request) == "granted"


def test_without_revokers_nobody_revokes(world: World) -> None:
    world.adopt(guardrails='auditors = ["security"]\n')
    refused(world, revoke(world, person="bo"), 403, "forbidden")


def test_whoever_is_locked_out_gets_nothing_and_holds_nothing(world: World) -> None:
    request, waits = held(world), ask(world, "ana")
    serial = certificate(world.renew("bo", request)).certificate.serial
    assert said(lock(world, "bo"))["locked"] is True
    assert (world.status(request), revoked(world)) == ("revoked", [serial])
    calls = world.signer.calls
    refused(world, world.ask("bo", role="dev", reason=""), 403, "locked")
    refused(world, world.renew("bo", request), 403, "locked")
    refused(world, world.give_back("bo", "drop", request), 403, "locked")
    assert said(lock(world, "cy"))["locked"] is True
    for action in ("approve", "deny"):
        refused(world, world.answer("cy", action, waits), 403, "locked")
    assert (world.signer.calls, world.status(waits)) == (calls, "pending")


def test_whoever_is_let_in_again_has_to_ask_again(world: World) -> None:
    request = held(world)
    lock(world, "bo")
    assert said(lock(world, "bo", "unlock"))["locked"] is False
    assert world.status(request) == "revoked", "what was ended stays ended"
    refused(world, world.renew("bo", request), 409, "not-granted")
    assert world.renew("bo", held(world)).status_code == 201


def test_a_revoker_who_is_locked_out_lets_nobody_in(world: World) -> None:
    lock(world, "eve")
    refused(world, lock(world, "eve", "unlock"), 403, "locked")
    refused(world, revoke(world, person="bo"), 403, "locked")


def test_the_approval_of_somebody_who_is_locked_out_counts_no_more(world: World) -> None:
    world.adopt(role_db_root=TWO_STEPS)
    request = ask(world, role="db-root")
    world.answer("cy", "approve", request)
    lock(world, "cy")
    assert said(world.answer("eve", "approve", request))["status"] == "pending"
    assert said(world.answer("di", "approve", request))["status"] == "granted"
    world.check()
    lock(world, "di")
    refused(world, world.renew("bo", request), 403, "denied")


def test_what_somebody_allowed_before_they_were_locked_out_still_bounds_the_grant(world: World) -> None:
    world.adopt(role_db_root=TWO_STEPS)
    request = ask(world, role="db-root")
    world.answer("cy", "approve", request, duration=600)
    lock(world, "cy")
    world.answer("eve", "approve", request)
    assert said(world.answer("di", "approve", request))["until"] == START + 600
    world.check()


def test_a_request_that_only_somebody_locked_out_could_approve_is_refused_at_once(world: World) -> None:
    lock(world, "cy")
    problem = refused(world, world.ask("di", role="db-admin"), 403, "denied")
    assert problem["detail"].endswith("but nobody else could")
    request = ask(world)
    assert shown(world, request)["steps"][0]["could"] == ["di"]
    lock(world, "cy", "unlock")
    assert shown(world, request)["steps"][0]["could"] == ["cy", "di"]
    ask(world, "di")


@pytest.mark.parametrize("action", ["lock", "unlock", "revoke"])
def test_a_slip_in_a_name_ends_nothing_and_says_what_may_be_meant(world: World, action: str) -> None:
    size = world.store.size()
    answer = revoke(world, person="boo") if action == "revoke" else lock(world, "boo", action)
    problem = refused(world, answer, 404, "not-found")
    assert problem["detail"] == "nobody is or was called boo (did you mean 'bo'?)"
    assert world.store.size() == size
    only = refused(world, lock(world, "boo", by="ana"), 403, "forbidden")
    assert "boo" not in only["detail"], "who may not lock learns nothing of names"


@pytest.mark.parametrize("action", ["lock", "revoke"])
def test_whoever_left_people_toml_still_loses_what_they_hold(world: World, action: str) -> None:
    request = held(world)
    serial = certificate(world.renew("bo", request)).certificate.serial
    people = world.files["people.toml"].decode()
    world.adopt(people=people[: people.index("[people.bo]")] + people[people.index("[people.cy]") :])
    answer = revoke(world, person="bo") if action == "revoke" else lock(world, "bo")
    assert answer.status_code == 200
    assert (world.status(request), revoked(world)) == ("revoked", [serial])


@pytest.mark.parametrize("reason", ["", " "])
def test_whoever_revokes_or_locks_says_why(world: World, reason: str) -> None:
    size = world.store.size()
    for action, path in (("revoke", "/v1/revocations"), ("lock", "/v1/locks"), ("unlock", "/v1/locks")):
        assert said(world.act("eve", action, path, person="bo", reason=reason))["detail"] == "there is no reason"
    assert world.store.size() == size


def test_a_grant_for_one_address_is_not_renewed_from_another_and_says_so(world: World) -> None:
    world.adopt(role_dev=world.files["roles/dev.toml"].decode().replace("[[allow]]", "pin_source_address = true\n[[allow]]"))
    request = said(world.ask("bo", role="dev", reason=""))["request"]
    assert world.renew("bo", request).status_code == 201
    world.http.environ_base["REMOTE_ADDR"] = "198.51.100.7"
    problem = refused(world, world.renew("bo", request), 403, "refused")
    expected = "dev was granted for the address 127.0.0.1/32 only, and this is from 198.51.100.7/32: ask again"
    assert problem["detail"] == expected
    assert world.ask("bo", role="dev", reason="", duration=12 * 3600).status_code == 201
    assert world.renew("bo", request).status_code == 201


# ----------------------------------------------------- the same statement once more


@pytest.mark.parametrize("end", ["drop", "revoke", "revoke serial", "lock", "time"])
def test_a_statement_sent_again_gets_no_certificate_of_a_grant_that_is_over(world: World, end: str) -> None:
    """Also when the first answer was lost before the signature: the certificate was never made, and is not made now."""
    body, sign = world.body("ana", duration=60), world.signer.sign

    def fail(_message: bytes) -> bytes:
        raise SignerFailed("the key is out of reach")

    world.signer.sign = fail  # type: ignore[method-assign,assignment]
    assert world.post(body).status_code == 503
    world.signer.sign = sign  # type: ignore[method-assign]
    asked, issued = world.entries()[-2:]
    assert isinstance(asked, RequestEntry)
    assert isinstance(issued, IssueEntry)
    match end:
        case "drop":
            world.give_back("ana", "drop", asked.index)
        case "revoke":
            revoke(world, request=asked.index)
        case "revoke serial":
            revoke(world, serial=issued.index)
        case "lock":
            lock(world, "ana")
        case _:
            world.now += 60
    refused(world, world.post(body), 404, "not-found")
    assert world.signer.calls == 0


def test_an_answer_sent_again_is_the_same_answer_and_no_other_entry(world: World) -> None:
    request = held(world)
    (yes,) = [each for each in world.entries() if isinstance(each, ApproveEntry)]
    size = world.store.size()
    again = world.http.post(f"/v1/requests/{request}/approve", json={"statement": yes.statement, "signature": yes.signature})
    assert said(again)["status"] == "granted"
    assert world.store.size() == size


def test_a_request_sent_again_is_answered_as_before_though_the_grant_was_extended_since(world: World) -> None:
    world.ask("ana")
    body = world.body("ana")
    first = said(world.post(body))
    world.now += MINUTE
    world.ask("ana")
    assert said(world.post(body)) == first


# ---------------------------------------------------------------------- who sees what


def test_a_request_is_seen_by_whom_it_concerns(world: World) -> None:
    request, at_once = ask(world), said(world.ask("ana"))["request"]
    sees = {person: world.read(person, f"/v1/requests/{request}").status_code for person in world.people}
    assert sees == {"ana": 404, "bo": 200, "cy": 200, "di": 200, "eve": 200}
    sees = {person: world.read(person, f"/v1/requests/{at_once}").status_code for person in world.people}
    assert sees == {"ana": 200, "bo": 404, "cy": 404, "di": 404, "eve": 200}


def test_each_list_has_what_it_says(world: World) -> None:
    first, second = ask(world), ask(world, "di")

    def listed(person: str, view: str) -> list[int]:
        return [each["request"] for each in said(world.read(person, f"/v1/requests?view={view}"))["requests"]]

    assert (listed("bo", "mine"), listed("di", "mine"), listed("ana", "mine")) == ([first], [second], [])
    assert (listed("cy", "waiting"), listed("di", "waiting"), listed("bo", "waiting")) == ([second, first], [first], [])
    assert listed("eve", "all") == [second, first]
    for person in ("ana", "cy"):
        assert world.read(person, "/v1/requests?view=all").status_code == 403
    world.answer("di", "approve", first)
    assert listed("cy", "waiting") == [second]


def listed(world: World, person: str, view: str) -> list[int]:
    return [each["request"] for each in said(world.read(person, f"/v1/requests?view={view}"))["requests"]]


def test_revokers_who_are_no_auditors_see_what_they_may_end(world: World) -> None:
    world.adopt(guardrails='auditors = ["leads"]\nrevokers = ["security"]\n')
    waits, dropped, over = ask(world), said(world.ask("ana"))["request"], ask(world, "ana")
    first = said(world.ask("di", role="dev", reason=""))["request"]
    newest = said(world.ask("di", role="dev", reason="", duration=60))["request"]
    world.give_back("ana", "drop", dropped)
    world.give_back("ana", "withdraw", over)
    assert listed(world, "eve", "all") == [newest, first, waits]
    sees = {number: world.read("eve", f"/v1/requests/{number}").status_code for number in (waits, dropped, over, first)}
    assert sees == {waits: 200, dropped: 404, over: 404, first: 200}
    assert world.read("bo", "/v1/requests?view=all").status_code == 403
    assert revoke(world, request=waits).status_code == 200
    assert listed(world, "eve", "all") == [newest, first]


def test_what_waits_is_listed_for_whose_yes_is_missing(world: World) -> None:
    world.adopt(role_db_root=TWO_STEPS)
    request = ask(world, role="db-root")
    assert [listed(world, person, "waiting") for person in ("cy", "di", "eve", "ana")] == [[request]] * 3 + [[]]
    world.answer("cy", "approve", request)
    assert [listed(world, person, "waiting") for person in ("cy", "di", "eve")] == [[], [], [request]]
    lock(world, "cy")
    assert [listed(world, person, "waiting") for person in ("di", "eve")] == [[request]] * 2, "a yes of cy counts no more"


def test_what_waits_is_found_behind_any_number_of_newer_requests(world: World) -> None:
    request = ask(world)
    for _ in range(120):
        world.now += 1
        world.ask("ana", role="dev", reason="")
    assert listed(world, "cy", "waiting") == [request]
    assert len(world.store.newest_requests(0)) == 2


@pytest.mark.parametrize("number", ["0", "1", "3", "9999", str(2**62), str(2**63), "9" * 40])
def test_what_is_no_request_is_not_found(world: World, number: str) -> None:
    world.ask("ana")
    assert world.read("eve", f"/v1/requests/{number}").status_code == 404


@pytest.mark.parametrize("person", ["ana", "bo", "cy", "di", "eve"])
def test_what_anybody_can_read_of_the_log_verifies(world: World, person: str) -> None:
    for each in ("bo", "ana"):
        request = held(world, each)
        world.renew(each, request)
        world.answer("di", "deny", ask(world, each))
        revoke(world, request=request)
        lock(world, each)
        lock(world, each, "unlock")
        request = held(world, each)
        world.renew(each, request)
        world.give_back(each, "drop", request)
    texts = [text.encode() for text in said(world.read(person, "/v1/log/entries?start=0&limit=1000"))["entries"]]
    found = [(entry.decode(text).index, text) for text in texts]
    report = verify.verify(world.ca.trust, world.check().checkpoint, world.store.nodes(0), found)
    kinds = {entry.decode(text).TAG[1] for text in texts}
    if person in ("ana", "bo"):
        assert kinds == {"genesis", "request", "approve", "renew", "issue", "deny", "revoke", "lock", "unlock", "drop"}
        assert report.certificates == 2
        assert not [text for text in texts if (b'"bo"' if person == "ana" else b'"ana"') in text]
    elif person == "eve":
        assert report.entries == world.store.size()
    else:
        assert kinds == {"genesis", {"cy": "approve", "di": "deny"}[person]}
