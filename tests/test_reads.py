"""Who looks at what others did leaves an entry, signed, before they see it: one a sitting, whoever it is and however they do."""

from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca import entry
from ca.entry import ReadEntry, RefuseEntry
from ca.errors import JitSshError
from ca.judge import Judge
from ca.statement import ReadStatement
from server.app import create_app
from server.sittings import SITTING
from tests.world import ORIGIN, World, authorization, spelled, uuid7


@pytest.fixture
def asked(world: World) -> World:
    """ana got web-admin in entries 2 and 3, bo waits for db-admin in 4."""
    assert world.ask("ana").status_code == 201
    assert world.ask("bo", role="db-admin", reason="vacuum").status_code == 202
    return world


def reads(world: World) -> list[ReadEntry]:
    return [found for found in world.entries() if isinstance(found, ReadEntry)]


def listed(answer: TestResponse) -> list[int]:
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    return [entry.decode(text.encode()).index for text in answer.json["entries"]]


# ------------------------------------------------------------------- what is one


@pytest.mark.parametrize(
    ("path", "case"),
    [
        ("/v1/requests/2", 2),
        ("/v1/requests/002", 2),
        ("/v1/requests/2?wait=0", 2),
        ("/v1/requests?view=all", None),
        ("/v1/log/entries", None),
        ("/v1/log/entries?start=2&limit=1", None),
        ("/v1/log/entries?text=disk", None),
        ("/v1/log/entries?actor=ana", None),
    ],
)
def test_an_auditor_who_looks_at_what_others_did_leaves_their_signed_words(asked: World, path: str, case: int | None) -> None:
    assert asked.read("eve", path).status_code == 200
    [read] = reads(asked)
    assert (read.actor, read.request, read.index) == ("eve", case, asked.store.size() - 1)
    assert f'"path":"{path}"' in read.statement
    assert read.signed.key == asked.people["eve"].public_key
    assert asked.check().signatures == 5, "two of each request, one of the read"


@pytest.mark.parametrize(
    ("person", "path"),
    [
        ("ana", "/v1/requests/2"),
        ("ana", "/v1/requests"),
        ("ana", "/v1/log/entries"),
        ("ana", "/v1/log/entries?text=disk"),
        ("cy", "/v1/requests/4"),
        ("cy", "/v1/requests?view=waiting"),
        ("eve", "/v1/log/entries?actor=eve"),
        ("eve", "/v1/requests"),
        ("eve", "/v1/roles"),
    ],
)
def test_who_looks_at_their_own_or_at_what_waits_for_them_leaves_none(asked: World, person: str, path: str) -> None:
    assert asked.read(person, path).status_code == 200
    assert reads(asked) == []


def test_an_approver_who_comes_back_to_what_is_decided_looks_at_anothers_case(asked: World) -> None:
    assert asked.answer("cy", "approve", 4).status_code == 200
    assert reads(asked) == [], "the answer is an entry itself"
    assert asked.read("cy", "/v1/requests/4").status_code == 200
    [read] = reads(asked)
    assert (read.actor, read.request) == ("cy", 4)


def test_what_nobody_may_read_or_is_no_read_leaves_none(asked: World) -> None:
    for person, path, status in (
        ("bo", "/v1/requests/2", 404),
        ("bo", "/v1/log/entries?actor=ana", 403),
        ("bo", "/v1/requests?view=all", 403),
        ("eve", "/v1/requests/3", 404),
        ("eve", "/v1/requests?view=some", 404),
        ("eve", "/v1/log/entries?text=*", 400),
        ("eve", "/v1/log/entries?limit=many", 400),
        ("eve", "/v1/log/entries?wait=many&start=1", 400),
    ):
        assert asked.read(person, path).status_code == status, path
    assert reads(asked) == []


# -------------------------------------------------------------------- a sitting


def test_somebody_who_follows_the_log_leaves_one_entry_an_hour_and_sees_it_once(asked: World) -> None:
    shown, start = listed(asked.read("eve", "/v1/log/entries?limit=2")), asked.store.size() - 1
    assert shown == [5, 4]
    for _ in range(20):
        news = listed(asked.read("eve", f"/v1/log/entries?start={start}&limit=1000"))
        shown += news
        start = max([start, *(index + 1 for index in news)])
        asked.now += 25
    assert (len(reads(asked)), shown) == (1, [5, 4, 5])
    asked.now += SITTING
    for _ in range(5):
        listed(asked.read("eve", f"/v1/log/entries?start={start}&limit=1000"))
    assert len(reads(asked)) == 2


def test_two_who_follow_do_not_keep_each_other_awake(asked: World) -> None:
    asked.adopt(guardrails='auditors = ["security", "leads"]\nrevokers = ["security"]\n')
    for _ in range(10):
        for person in ("eve", "cy"):
            asked.read(person, "/v1/log/entries")
    assert [read.actor for read in reads(asked)] == ["eve", "cy"]


def test_the_pages_of_one_reading_are_one_entry(asked: World) -> None:
    pages = [listed(asked.read("eve", "/v1/log/entries?start=0&limit=2"))]
    while pages[-1]:
        pages.append(listed(asked.read("eve", f"/v1/log/entries?start={pages[-1][-1] + 1}&limit=2")))
    assert pages == [[0, 1], [2, 3], [4, 5], []]
    backwards = listed(asked.read("eve", "/v1/log/entries?limit=2&kind=issue"))
    while backwards[-1] > 0 and (page := listed(asked.read("eve", f"/v1/log/entries?before={backwards[-1]}&limit=2&kind=issue"))):
        backwards += page
    assert backwards == [3]
    assert len(reads(asked)) == 2


def test_another_place_filter_or_case_is_another_entry(asked: World) -> None:
    paths = [
        "/v1/log/entries?start=2&limit=1",
        "/v1/log/entries?start=4&limit=1",
        "/v1/log/entries?before=2&limit=1",
        "/v1/log/entries",
        "/v1/log/entries?role=web-admin",
        "/v1/log/entries?text=disk",
        "/v1/log/entries?text=vacuum",
        "/v1/requests/2",
        "/v1/requests/4",
        "/v1/requests?view=all",
    ]
    for path in paths:
        assert asked.read("eve", path).status_code == 200
    assert [read.statement.partition('"path":"')[2].partition('"')[0] for read in reads(asked)] == paths


def test_after_a_restart_the_same_statement_is_not_taken_note_of_twice(asked: World) -> None:
    said = ReadStatement(audience=ORIGIN, id=uuid7(), time=int(asked.now), path="/v1/requests/2")
    header = {"Authorization": authorization(spelled(said, {}), asked.people["eve"])}
    assert asked.http.get(said.path, headers=header).status_code == 200
    asked.reopen()
    assert asked.http.get(said.path, headers=header).status_code == 200
    assert len(reads(asked)) == 1


# ------------------------------------------------------- written before it is read


def test_what_cannot_be_written_is_not_read(asked: World) -> None:
    db = asked.store._writer.db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count={pages}")
    answers = [asked.read("eve", path) for path in [f"/v1/log/entries?role=r{number}" for number in range(40)]]
    full = [answer for answer in answers if answer.status_code != 200]
    assert full, "the disk is full"
    assert {(answer.status_code, (answer.json or {})["code"]) for answer in full} == {(503, "log-unwritable")}
    assert not any("entries" in (answer.json or {}) for answer in full)
    assert asked.read("ana", "/v1/requests/2").status_code == 200, "their own they can read"
    db.execute(f"PRAGMA max_page_count={pages + 1000}")
    assert asked.read("eve", "/v1/requests/2").status_code == 200
    asked.check()


def test_an_auditor_who_is_locked_out_reads_nothing_of_others_also_not_on(asked: World) -> None:
    asked.adopt(guardrails='auditors = ["security", "leads"]\nrevokers = ["security"]\n')
    assert asked.read("cy", "/v1/log/entries").status_code == 200
    assert asked.act("eve", "lock", "/v1/locks", person="cy", reason="laptop lost").status_code == 200
    for path in ("/v1/log/entries", "/v1/requests/2", "/v1/requests?view=all"):
        answer = asked.read("cy", path)
        assert (answer.status_code, (answer.json or {})["code"]) == (403, "locked"), path
    assert isinstance(asked.entries()[-1], RefuseEntry)
    asked.check()


def test_who_looks_at_very_many_things_is_slowed_down_and_who_reads_on_is_not(asked: World) -> None:
    asked.http = create_app(asked.ca, asked.store, clock=lambda: asked.now, per_minute=3).test_client()
    answers = [asked.read("eve", f"/v1/requests/{index}").status_code for index in (2, 4, 2, 4, 2, 4)]
    assert answers == [200] * 6
    assert asked.read("eve", "/v1/log/entries").status_code == 200
    assert asked.read("eve", "/v1/log/entries?role=dev").status_code == 429
    assert asked.read("eve", "/v1/log/entries").status_code == 200


# --------------------------------------------------------------- who sees and judges


def test_only_auditors_and_the_reader_see_who_looked(asked: World) -> None:
    asked.read("eve", "/v1/requests/2")
    index = reads(asked)[0].index
    assert index in listed(asked.read("eve", "/v1/log/entries"))
    assert index in listed(asked.read("eve", "/v1/log/entries?actor=eve"))
    for person in ("ana", "bo", "cy"):
        assert index not in listed(asked.read(person, "/v1/log/entries"))


@pytest.mark.parametrize("changes", [{"request": 4}, {"request": None}, {"hardware_key": True}])
def test_a_read_that_says_something_else_than_was_signed_does_not_verify(asked: World, changes: dict[str, Any]) -> None:
    asked.read("eve", "/v1/requests/2")
    [read] = reads(asked)
    judge = Judge.of(asked.ca.trust)
    judge.entry(read.index, read.encode())
    with pytest.raises(JitSshError):
        judge.entry(read.index, replace(read, **changes).encode())


def test_a_read_is_not_posted(asked: World) -> None:
    for path in ("/v1/requests/2/approve", "/v1/locks", "/v1/requests"):
        assert asked.act("eve", "read", path, path="/v1/requests/2").status_code == 400
    assert reads(asked) == []
