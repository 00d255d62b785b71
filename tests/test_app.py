"""`server.app`: what every answer carries, what the server's own log says and never says, and what a problem looks like."""

import inspect
import json
import logging
import re
import uuid
from typing import Any, Final

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from ca import errors
from ca.checkpoint import open_checkpoint
from ca.errors import JitSshError, SignerFailed
from ca.trust import Trust
from server import gateway, problems, requestlog
from server.app import create_app
from server.gateway import Request
from tests.policies import key
from tests.world import FILES, World

ALWAYS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OPEN: Final = {"/", "/healthz", "/readyz", "/v1/ca", "/v1/krl", "/log/checkpoint", "/log/<path:path>"}


def app(world: World) -> Flask:
    return world.http.application


def answers(world: World) -> list[TestResponse]:
    """One answer of each sort: granted, denied, malformed, read, not there, not allowed, too large."""
    return [
        world.ask("ana"),
        world.ask("bo"),
        world.post(b"{"),
        world.read("ana", "/v1/roles"),
        world.http.get("/v1/roles"),
        world.http.get("/nowhere"),
        world.http.delete("/v1/requests"),
        world.post(bytes(70_000)),
        world.http.get("/"),
        world.http.get("/log/checkpoint"),
        world.http.get("/log/tile/0/000.p/2"),
        world.http.options("/v1/requests"),
        world.http.head("/healthz"),
    ]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The server's own log as it would be written."""
    return [json.loads(requestlog.JsonLines().format(record)) for record in caplog.records if record.name.startswith("jit-ssh")]


# ------------------------------------------------------------------- every answer


def test_every_answer_has_the_security_headers_and_an_id_of_its_own(world: World) -> None:
    found = answers(world)
    for answer in found:
        assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS, answer.request.path
        assert uuid.UUID(answer.headers["X-Request-Id"]).version == 4
        assert "Strict-Transport-Security" not in answer.headers
    assert len({answer.headers["X-Request-Id"] for answer in found}) == len(found)


def test_a_clients_own_request_id_is_not_taken_over(world: World) -> None:
    assert world.http.get("/healthz", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] != "mine"


def test_over_tls_a_browser_is_told_to_stay_there(world: World) -> None:
    answer = world.http.get("/healthz", base_url="https://ca.example.com")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_only_what_is_meant_to_be_is_open_to_everybody(world: World) -> None:
    """A route that is added without a signed statement fails here."""
    rules = {rule.rule: rule.methods for rule in app(world).url_map.iter_rules() if rule.endpoint != "static"}
    assert rules.keys() >= OPEN
    for path, methods in rules.items():
        for method in (methods or set()) - {"OPTIONS", "HEAD"} if path not in OPEN else ():
            there = re.sub(r"<any\((\w+)[^>]*>", r"\1", path.replace("<int:index>", "1").replace("<path:path>", "000"))
            answer = world.http.open(there, method=method)
            assert answer.status_code in (400, 401), path
            assert (answer.json or {})["code"] in ("malformed", "unsigned")


def test_what_is_open_needs_no_person(world: World) -> None:
    key = world.ca.log.key
    checkpoint = open_checkpoint(world.http.get("/log/checkpoint").data, key)
    assert checkpoint == world.ca.log.check()
    assert world.http.get("/log/tile/0/000.p/2").data == b"".join(world.store.nodes(0))
    assert Trust.parse(world.http.get("/v1/ca").data) == world.ca.trust
    home = world.http.get("/")
    assert home.mimetype == "text/html"
    assert world.ca.trust.fingerprint in home.text


# --------------------------------------------------------------- healthy and ready


def test_a_server_is_ready_when_a_request_would_be_answered(world: World) -> None:
    size = world.store.size()
    assert world.http.get("/readyz").json == world.http.get("/healthz").json == {"status": "ok"}
    assert world.store.size() == size, "being asked adds nothing to the log"


def no_signer(world: World) -> None:
    def gone() -> None:
        raise SignerFailed("the agent is gone")

    world.signer.ready = gone  # type: ignore[method-assign]


def clock_back(world: World) -> None:
    world.now -= 1


def stopped(world: World) -> None:
    world.store._broken = "disk I/O error"


@pytest.mark.parametrize(
    ("spoil", "code"), [(no_signer, "signer-failed"), (clock_back, "clock-went-back"), (stopped, "log-unwritable")]
)
def test_a_server_that_could_not_answer_is_alive_but_not_ready(world: World, spoil: Any, code: str) -> None:
    spoil(world)
    answer = world.http.get("/readyz")
    assert (answer.status_code, (answer.json or {})["code"]) == (503, code)
    assert world.http.get("/healthz").status_code == 200


# ------------------------------------------------------------------------ problems


def test_every_error_has_its_status_and_a_code_of_its_own() -> None:
    known = {
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, JitSshError) and error is not JitSshError
    }
    assert problems.STATUS.keys() == known
    assert len({error.code for error in known}) == len(known)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code) for error in known)
    assert all(400 <= status < 600 for status in problems.STATUS.values())


@pytest.mark.parametrize("error", problems.STATUS, ids=lambda error: str(error.code))
def test_an_error_reaches_the_client_as_a_problem_with_its_own_words(world: World, error: type[JitSshError]) -> None:
    def failing() -> None:
        raise error("what is wrong", "what to do")

    world.ca.ready = failing  # type: ignore[method-assign]
    answer = world.http.get("/readyz")
    status = problems.STATUS[error]
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json == {
        "type": f"urn:jit-ssh:problem:{error.code}",
        "title": status.phrase,
        "status": status.value,
        "detail": "what is wrong",
        "hint": "what to do",
        "code": error.code,
        "instance": f"urn:uuid:{answer.headers['X-Request-Id']}",
    }
    assert (answer.headers.get("WWW-Authenticate") == "JIT-SSH") == (status == 401)


def test_what_http_itself_refuses_is_a_problem_too(world: World) -> None:
    for answer, status in (
        (world.http.get("/nowhere"), 404),
        (world.http.put("/v1/requests"), 405),
        (world.post(bytes(70_000)), 413),
    ):
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
        assert (answer.json or {}).keys() == {"type", "title", "status", "detail", "hint", "code", "instance"}


def test_a_denied_request_is_told_why_condition_by_condition(world: World) -> None:
    told = world.ask("bo").json or {}
    assert (told["status"], told["code"], told["role"], told["entry"]) == (403, "denied", "web-admin", 2)
    assert told["detail"]
    assert told["ways"][0]["findings"][0]["holds"] is False


def test_a_denial_names_who_could_approve_what_is_otherwise_the_persons(world: World) -> None:
    world.adopt(role_db_admin=FILES["roles/db-admin.toml"] + 'hours = { from = "09:00", to = "10:00", zone = "UTC" }\n')
    told = world.ask("di", role="db-admin").json or {}
    assert told["steps"] == [{"group": "leads", "count": 1, "approved_by": [], "could": ["cy"]}], "and not di, who asks"
    assert (world.ask("ana", role="db-admin").json or {})["steps"][0]["could"] == ["cy", "di"]


def test_a_denial_names_nobody_to_whom_the_rule_is_not_open_or_whom_nobody_could_approve(world: World) -> None:
    assert (world.ask("eve", role="db-admin").json or {})["steps"] == [], "eve is no engineer: who leads is not hers to find out"
    assert (world.ask("ana", reason="no number").json or {})["steps"] == [], "nobody approves what needs no approval"
    world.act("eve", "lock", "/v1/locks", person="cy", reason="lost")
    assert (world.ask("ana", role="db-admin", duration=7200).json or {})["steps"][0]["could"] == ["di"]
    world.act("eve", "lock", "/v1/locks", person="di", reason="lost")
    assert (world.ask("ana", role="db-admin", duration=7200).json or {})["steps"] == []


def test_a_denial_names_twenty_at_most(world: World) -> None:
    many = "".join(f'[people.p{n:02}]\ngroups = ["leads"]\nkeys = ["{key(n + 1).line}"]\n' for n in range(40))
    world.adopt(people=world.files["people.toml"].decode() + many)
    could = (world.ask("ana", role="db-admin", duration=7200).json or {})["steps"][0]["could"]
    assert (len(could), could[:3]) == (20, ["cy", "di", "p00"])


def test_an_error_that_nobody_foresaw_shows_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        raise RuntimeError("secret detail")

    world.ca.ready = failing  # type: ignore[method-assign]
    answer = world.http.get("/readyz")
    assert answer.status_code == 500
    assert (answer.json or {})["code"] == "internal"
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    error = next(line for line in lines(caplog) if line["level"] == "error")
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert "secret detail" in error["exception"], "the operator sees all of it"
    assert world.ask("ana").status_code == 201, "and the server lives on"


# ------------------------------------------------------------------ the proxy


def address(world: World, *, behind_proxy: bool, forwarded: str) -> str | None:
    headers = [(b"X-Forwarded-For", forwarded.encode()), (b"X-Forwarded-Proto", b"https")]
    body = bytearray(json.dumps(world.body("ana")).encode())
    asking = Request("http", ("ca", 80), "127.0.0.1", b"/v1/requests", "POST", "1.1", headers, body)
    if behind_proxy:
        asking.believe_proxy()
    answer = gateway.answer(create_app(world.ca, world.store, clock=lambda: world.now), asking)
    assert answer.status == "201 Created"
    assert ("Strict-Transport-Security" in dict(answer.headers)) == behind_proxy
    found = world.entries()[-2]
    return getattr(found, "address", None)


def test_a_forwarded_address_is_believed_only_behind_a_proxy(world: World) -> None:
    assert address(world, behind_proxy=False, forwarded="198.51.100.7") == "127.0.0.1"
    assert address(world, behind_proxy=True, forwarded="198.51.100.7") == "198.51.100.7"


def test_of_several_forwarded_addresses_the_proxys_own_is_believed(world: World) -> None:
    assert address(world, behind_proxy=True, forwarded="10.0.0.1, 198.51.100.7") == "198.51.100.7"


# --------------------------------------------------------------- the server's log


def test_every_request_is_one_line_with_its_answers_id(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = answers(world)
    said = [line for line in lines(caplog) if line["message"] == "request"]
    assert [line["request_id"] for line in said] == [answer.headers["X-Request-Id"] for answer in found]
    assert [line["status"] for line in said] == [answer.status_code for answer in found]
    assert said[0].keys() == {"time", "level", "message", "request_id", "method", "path", "status", "person", "address", "ms"}
    assert [line.get("person") for line in said[:4]] == ["ana", "bo", None, "ana"]
    assert said[1]["code"] == "denied"


def test_no_secret_and_no_persons_words_are_in_the_servers_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent = [
        world.body("ana", reason="INC-77 my private words"),
        world.body("bo", reason="INC-77 my private words"),
        world.body("ana", reason="INC-77 my private words", audience="other"),
        world.body("ana", reason="INC-77 my private words", time=1),
        world.body("ana", reason="INC-77 my private words") | {"signature": world.body("bo")["signature"]},
        world.body("ana", reason="INC-77 my private words\x07"),
    ]
    statuses = [world.post(body).status_code for body in sent]
    assert statuses == [201, 403, 401, 401, 401, 400]
    world.read("ana", "/v1/log/entries?role=my-private-query")
    world.http.get("/v1/roles", headers={"Authorization": "JIT-SSH my-private-header.c2ln"})
    written = "\n".join(json.dumps(line) for line in lines(caplog))
    assert written.count('"request"') == len(sent) + 2
    for secret in ["private", "INC-77", *(value[:40] for body in sent for value in body.values())]:
        assert secret not in written


def test_nothing_in_a_request_forges_a_line_or_drives_a_terminal(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.http.get("/v1/%0A%1B[2J%E2%80%AE" + "x" * 5_000)
    world.ask("ana", role="x\n\x1b[2J")
    records = [record for record in caplog.records if record.name.startswith("jit-ssh")]
    for record in records:
        line = requestlog.JsonLines().format(record)
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 2_000
    assert len(records) == 2


def test_a_method_that_an_address_does_not_have_is_told_which_it_has(world: World) -> None:
    answer = world.http.delete("/v1/requests")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
