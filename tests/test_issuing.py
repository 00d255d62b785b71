"""`server.issuing`: many who ask at a time get what each would have got alone."""

import json
import logging
from collections.abc import Mapping

import pytest

from ca.errors import LogUnwritable
from server.app import Application, create_app
from server.gateway import Answer, Request
from tests.world import World

BAD = b"{"


@pytest.fixture
def app(world: World) -> Application:
    return create_app(world.ca, world.store, clock=lambda: world.now, per_minute=20)


def asking(body: Mapping[str, str] | bytes, target: bytes = b"/v1/requests") -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("http", ("ca", 80), "127.0.0.1", target, "POST", "1.1", body=bytearray(content))


def answers(app: Application, *many: Request) -> list[Answer]:
    return [step.answer() for step in app.begin(many)]


def said(answer: Answer) -> dict[str, object]:
    members: dict[str, object] = json.loads(answer.content)
    return members


def test_each_of_many_gets_its_own_answer_and_all_are_one_commit(world: World, app: Application) -> None:
    bodies = [world.body("ana"), world.body("bo"), world.body("ana", role="db-admin"), world.body("cy", role="nothing")]
    found = answers(app, *map(asking, bodies), asking(BAD), asking(world.body("ana", role="dev")))
    assert [answer.status[:3] for answer in found] == ["201", "403", "202", "403", "400", "201"]
    assert world.kinds()[2:] == ["request", "issue", "refuse", "request", "refuse", "request", "issue"]
    with world.store.writing() as writing:
        assert writing._one("SELECT group_concat(size) FROM checkpoints") == "1,2,9"
    assert [said(answer).get("request") for answer in found] == [2, None, 5, None, None, 7]
    world.check()


def test_none_of_many_is_answered_as_another(world: World, app: Application) -> None:
    people = ["ana", "bo", "di", "ana", "di", "bo"] * 3
    found = answers(app, *(asking(world.body(person, role="dev")) for person in people))
    assert [said(answer)["person"] for answer in found] == people
    assert len({answer.content for answer in found}) == len(people)


def test_the_same_statement_twice_at_once_is_one_request(world: World, app: Application) -> None:
    body = world.body("ana")
    first, second = answers(app, asking(body), asking(body))
    assert (first.status, first.content) == (second.status, second.content)
    assert world.kinds()[2:] == ["request", "issue"]


def test_a_statement_and_another_with_its_id_at_once_are_not_both_taken(world: World, app: Application) -> None:
    one = world.body("ana")
    found = answers(app, asking(one), asking(world.body("ana", id=json.loads(one["statement"])["id"], reason="INC-13 other")))
    assert [answer.status[:3] for answer in found] == ["201", "409"]
    assert world.kinds()[2:] == ["request", "issue"]


def test_a_limit_counts_those_who_come_at_once(world: World, app: Application) -> None:
    found = answers(app, *(asking(world.body("ana", role="dev")) for _ in range(25)))
    assert [answer.status[:3] for answer in found] == ["201"] * 20 + ["429"] * 5
    assert ("Retry-After", "3") in found[-1].headers


def test_a_statement_that_comes_many_times_at_once_counts_once(world: World, app: Application) -> None:
    one = asking(world.body("ana", role="dev"))
    assert {answer.status[:3] for answer in answers(app, *[one] * 20)} == {"201"}
    found = answers(app, *(asking(world.body("ana", role="dev")) for _ in range(20)))
    assert [answer.status[:3] for answer in found] == ["201"] * 19 + ["429"]


def test_what_nobody_signed_does_not_touch_the_log(world: World, app: Application) -> None:
    def touched() -> None:
        raise AssertionError

    world.store.writing = touched  # type: ignore[method-assign,assignment]
    assert [said(answer)["code"] for answer in answers(app, asking(BAD), asking(BAD))] == ["malformed"] * 2


def test_a_store_that_cannot_be_read_is_told_like_one_by_one_and_counts_for_nobody(world: World, app: Application) -> None:
    world.store.settle()
    file = world.directory / "log.db"
    file.write_bytes(b"x" * file.stat().st_size)
    for _ in range(3):  # times twenty, which is more than the limit
        found = answers(app, *(asking(world.body("ana", role="dev")) for _ in range(20)), asking(BAD))
        assert {said(answer)["code"] for answer in found[:-1]} == {"log-damaged"}
        assert said(found[-1])["code"] == "malformed"


def test_a_log_that_cannot_be_written_is_everybodys_problem_and_nobody_gets_a_certificate(world: World, app: Application) -> None:
    def full() -> None:
        raise LogUnwritable("the disk is full")

    world.store.writing = full  # type: ignore[method-assign,assignment]
    found = answers(app, asking(world.body("ana")), asking(BAD), asking(world.body("di", role="dev")))
    assert [said(answer)["code"] for answer in found] == ["log-unwritable", "malformed", "log-unwritable"]
    assert world.signer.calls == 0


def test_what_nobody_foresaw_in_one_is_that_ones_alone(world: World, app: Application, caplog: pytest.LogCaptureFixture) -> None:
    sign, broken = world.signer.sign, iter([True, False])

    def breaks(message: bytes) -> bytes:
        if next(broken):
            raise RuntimeError("secret detail")
        return sign(message)

    world.signer.sign = breaks  # type: ignore[method-assign]
    first, second = answers(app, asking(world.body("ana")), asking(world.body("di", role="dev")))
    assert (first.status[:3], second.status[:3]) == ("500", "201")
    assert b"secret" not in first.content
    assert "secret detail" in caplog.text
    world.check()


def test_a_statement_sent_where_another_belongs_is_refused_and_not_counted(world: World, app: Application) -> None:
    [wrong] = answers(app, asking(world.body("ana"), b"/v1/certificates"))
    assert (wrong.status[:3], said(wrong)["code"]) == ("400", "malformed")
    assert world.kinds()[2:] == []


def test_what_the_client_has_seen_is_read_before_anything_is_decided(world: World, app: Application) -> None:
    [wrong] = answers(app, asking(world.body("ana"), b"/v1/requests?seen=x"))
    assert said(wrong)["detail"] == "seen is not a whole number: 'x'"
    assert world.kinds()[2:] == []
    [right] = answers(app, asking(world.body("ana"), b"/v1/requests?seen=2"))
    assert len(said(right)["consistency"]) == 1  # type: ignore[arg-type]


def test_every_answer_has_the_headers_of_the_door_and_a_line_in_the_servers_log(
    world: World, app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    many = [asking(world.body("ana")), asking(BAD), asking(world.body("bo"))]
    many[2].scheme = "https"
    found = answers(app, *many)
    through_flask = app.test_client().post("/v1/requests", data=json.dumps(world.body("di", role="dev")))
    for answer in found:
        names = {name for name, _ in answer.headers} - {"Strict-Transport-Security"}
        assert names == {name for name, _ in through_flask.headers}
    assert [("Strict-Transport-Security" in dict(answer.headers)) for answer in found] == [False, False, True]
    lines = [record.__dict__["members"] for record in caplog.records if record.message == "request"]
    assert [line["request_id"] for line in lines[:3]] == [dict(answer.headers)["X-Request-Id"] for answer in found]
    assert [(line["status"], line.get("person"), line.get("code")) for line in lines] == [
        (201, "ana", None),
        (400, None, "malformed"),
        (403, "bo", "denied"),
        (201, "di", None),
    ]


def test_whoever_gets_a_certificate_does_not_wait_for_what_others_are_told(world: World, app: Application) -> None:
    """To tell a refused person who could approve goes through everybody's rights; a key in an agent may be slow."""
    many = [asking(world.body("ana")), asking(BAD), asking(world.body("bo")), asking(world.body("ana", role="db-admin"))]
    assert [step.at_once for step in app.begin(many)] == [True, True, False, False]
    world.signer.at_once = False
    assert [step.at_once for step in app.begin([asking(world.body("di", role="dev"))])] == [False]


def test_only_what_asks_for_certificates_is_taken(app: Application) -> None:
    assert app.takes(asking(BAD))
    assert app.takes(asking(BAD, b"/v1/certificates?seen=3"))
    for target in (b"/v1/requests/", b"/v1/requests/3/approve", b"/v1/locks", b"/V1/requests", b"/v1/req%75ests"):
        assert not app.takes(asking(BAD, target)), target
    reading = asking(BAD)
    reading.method = "GET"
    assert not app.takes(reading)
