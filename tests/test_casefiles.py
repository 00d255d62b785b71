"""The case file on the CA's side: which entries are in it, whichever of them leads there, and who sees what."""

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca import entry
from ca.entry import AnyEntry, IssueEntry, RequestEntry
from server import casefiles, cases
from tests import emergencies
from tests.world import World


def file(world: World, person: str, index: int) -> dict[str, Any]:
    answer = world.read(person, f"/v1/cases/{index}")
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json, dict)
    return answer.json


def entries(world: World, person: str, index: int) -> list[AnyEntry]:
    return [entry.decode(text.encode()) for text in file(world, person, index)["entries"]]


def kinds(world: World, person: str, index: int) -> list[str]:
    return [f"{found.TAG[1]} {found.actor}" for found in entries(world, person, index)]


@pytest.fixture
def lived(world: World) -> World:
    """bo's db-admin: asked for in 2, vainly approved by himself in 3, approved in 4, certified in 5 and 6, renewed in 7 and 8,
    extended in 9, 10, 11 and 12, and one certificate revoked in 15; ana's web-admin in 13 and 14 is another case."""
    steps: list[Callable[[], TestResponse]] = [
        lambda: world.ask("bo", role="db-admin", reason="vacuum"),
        lambda: world.answer("bo", "approve", 2),
        lambda: world.answer("cy", "approve", 2, duration=1200, reason="the primary only"),
        lambda: world.renew("bo", 2),
        lambda: world.renew("bo", 2),
        lambda: world.ask("bo", role="db-admin", reason="still at it"),
        lambda: world.answer("di", "approve", 9),
        lambda: world.renew("bo", 9),
        lambda: world.ask("ana"),
        lambda: world.act("eve", "revoke", "/v1/revocations", serial=8, reason="copied"),
    ]
    for step in steps:
        assert step().status_code in (200, 201, 202, 403)
        world.now += 60
    return world


OTHERS = [  # what somebody else sees of it who could answer
    "request bo", "approve cy", "renew bo", "issue bo", "renew bo", "issue bo", "request bo", "approve di", "renew bo",
    "issue bo", "revoke eve",
]  # fmt: skip
STORY = ["request bo", "refuse bo", *OTHERS[1:]]


def test_any_entry_of_a_case_leads_to_all_of_it(lived: World) -> None:
    whole = file(lived, "bo", 2)
    assert whole["case"] == 2
    assert [request["request"] for request in whole["requests"]] == [2, 9]
    assert kinds(lived, "bo", 2) == STORY
    for index in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15):
        assert file(lived, "bo", index) == whole, index
    assert lived.kinds().count("read") == 0


def test_auditors_see_what_others_tried_and_who_read_it(lived: World) -> None:
    read = lived.store.size()
    assert kinds(lived, "eve", 8) == [*STORY, "read eve"]
    assert entries(lived, "eve", read)[-1].index == read, "their own reading leads there as well"
    assert kinds(lived, "bo", 2) == STORY


@pytest.mark.parametrize("index", [0, 1, 13, 14, 10_000, 2**62])
def test_what_is_of_no_case_of_ones_own_is_not_there(lived: World, index: int) -> None:
    size = lived.store.size()
    answer = lived.read("bo", f"/v1/cases/{index}")
    assert (answer.status_code, (answer.json or {})["code"]) == (404, "not-found")
    assert lived.store.size() == size


def test_who_could_answer_sees_it_and_nobody_else(lived: World) -> None:
    assert lived.read("ana", "/v1/cases/2").status_code == 404
    assert kinds(lived, "cy", 2) == [*OTHERS, "read cy"], "it waits for nobody any more, so cy looks at another's case"
    lived.now += 7200
    assert lived.ask("bo", role="db-admin", reason="again").status_code == 202
    waiting, size = lived.store.size() - 1, lived.store.size()
    assert kinds(lived, "cy", waiting) == ["request bo"]
    assert lived.store.size() == size, "this one waits for an answer of theirs"


def test_what_ended_a_person_ends_the_case_file(lived: World) -> None:
    assert lived.act("eve", "lock", "/v1/locks", person="bo", reason="laptop lost").status_code == 200
    assert kinds(lived, "bo", 2)[-1] == "lock eve"
    assert file(lived, "bo", 2)["requests"][-1]["status"] == "revoked"
    assert lived.act("eve", "revoke", "/v1/revocations", person="bo", reason="once more").status_code in (200, 403)
    assert kinds(lived, "bo", 2)[-1] == "lock eve", "what ended nothing of it is not in it"


def test_a_refusal_is_a_case_of_its_own(lived: World) -> None:
    assert lived.ask("bo").status_code == 403
    refused = lived.store.size() - 1
    assert kinds(lived, "bo", refused) == ["refuse bo"]
    assert lived.read("ana", f"/v1/cases/{refused}").status_code == 404
    assert kinds(lived, "eve", refused) == ["refuse bo", "read eve"]


def test_a_use_of_the_emergency_key_is_a_case(world: World) -> None:
    used = emergencies.hand_in(world, emergencies.sealed(world))
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    for index in (used, world.store.size() - 1):
        found = file(world, "eve", index)
        assert (found["case"], found["requests"]) == (used, [])
        assert found["use"] in found["entries"]
    assert [kind.split()[0] for kind in kinds(world, "eve", used)][-2:] == ["review", "read"]


def test_a_long_case_is_told_from_its_end(lived: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casefiles, "MOST_OF_CASE", 4)
    found = file(lived, "bo", 2)
    assert found["more"] is True
    assert [entry.decode(text.encode()).index for text in found["entries"]] == [9, 10, 11, 12]
    monkeypatch.setattr(casefiles, "MOST", 1)
    assert [request["request"] for request in file(lived, "bo", 2)["requests"]] == [9]
    assert cases.MOST == 100


def test_a_certificate_is_in_the_file_with_who_asked_for_it_right_before(lived: World) -> None:
    told = entries(lived, "bo", 2)
    for at, found in enumerate(told):
        if isinstance(found, IssueEntry):
            assert told[at - 1].index == found.index - 1
    assert sum(isinstance(found, RequestEntry) for found in told) == 2
