"""Whatever is signed about a request or a person: each field out of its bounds, another address, the wrong person, twice."""

import json
from base64 import b64encode
from functools import partial
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from ca import canonical
from tests import hostile, keys
from tests.test_lifecycle import ask, held, lock, revoke, said
from tests.world import ORIGIN, World, certificate, uuid7

LEAF: Final = "0" * 64
PATHS: Final = {
    "approve": "/v1/requests/{}/approve",
    "deny": "/v1/requests/{}/deny",
    "withdraw": "/v1/requests/{}/withdraw",
    "drop": "/v1/requests/{}/drop",
    "revoke": "/v1/revocations",
    "lock": "/v1/locks",
    "unlock": "/v1/locks",
}
WHO: Final = {"approve": "cy", "deny": "cy", "withdraw": "bo", "drop": "bo", "revoke": "eve", "lock": "eve", "unlock": "eve"}
NUMBERS: Final = [0, -1, 2**62, 2**63 - 1, -(2**63), "2", 2.0, True, None, [2], {"request": 2}]


@pytest.fixture
def waits(world: World) -> int:
    """A request of Bo's that waits for Cy or Di."""
    return ask(world)


def members(world: World, action: str, request: int) -> dict[str, Any]:
    """A good statement of this action, but for what every statement has."""
    leaf = json.loads(world.read("eve", f"/v1/requests/{request}").text)["leaf"]
    match action:
        case "approve" | "deny":
            return {"request": request, "leaf": leaf}
        case "withdraw" | "drop":
            return {"request": request}
        case "revoke":
            return {"request": request, "reason": "Stolen"}
        case _:
            return {"person": "bo", "reason": "Stolen"}


def refused(
    world: World, request: int, send: hostile.Send, status: int, code: str, words: str = "", *, logged: bool = False
) -> None:
    """As `hostile.refused`; and the request waits as before."""
    hostile.refused(world, send, status, code, words, logged=logged)
    assert world.status(request) == "pending"


# ------------------------------------------------------------------ every member


@pytest.mark.parametrize("action", PATHS)
def test_no_member_is_missing_and_none_is_added(action: str, world: World, waits: int) -> None:
    good, path = members(world, action, waits), PATHS[action].format(waits)
    for name in good:
        send = partial(world.act, WHO[action], action, path, **(good | {name: None}))
        assert send().status_code in (400, 401), name
    for name, value in {"key": "x", "persons": "bo", "Request": 2, "path": path, "privilege": {"duration": 9}}.items():
        send = partial(world.act, WHO[action], action, path, **(good | {name: value}))
        refused(world, waits, send, 400, "malformed", "unknown")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("action", ["approve", "deny", "withdraw", "drop"])
def test_a_request_is_a_number_that_an_entry_can_have(action: str, number: object, world: World, waits: int) -> None:
    changed = members(world, action, waits) | {"request": number}
    answer = world.act(WHO[action], action, PATHS[action].format(waits), **changed)
    assert (answer.status_code, said(answer)["code"]) in ((400, "malformed"), (401, "bad-signature")), answer.text
    assert world.status(waits) == "pending"
    world.check()


@pytest.mark.parametrize("what", ["request", "serial"])
@pytest.mark.parametrize("number", [number for number in NUMBERS if number is not None])
def test_what_is_revoked_is_a_number_that_is_there(number: object, what: str, world: World, waits: int) -> None:
    answer = revoke(world, **{what: number})
    assert (answer.status_code, said(answer)["code"]) in ((400, "malformed"), (404, "not-found")), answer.text
    assert world.status(waits) == "pending"
    assert "revoke" not in world.kinds()
    world.check()


def test_no_certificate_is_revoked_that_is_none(world: World, waits: int) -> None:
    for serial in (1, waits, world.store.size(), 10**6):
        refused(world, waits, partial(revoke, world, serial=serial), 404, "not-found", "no certificate with serial")
    for request in (1, world.store.size() - 1, 10**6):
        refused(world, waits, partial(revoke, world, request=request), 404, "not-found", "is not a request")


def test_a_revocation_names_one_thing(world: World, waits: int) -> None:
    every: dict[str, Any] = {"person": "bo", "request": waits, "serial": 3}
    for names in ((), ("person", "request"), ("request", "serial"), ("person", "serial"), tuple(every)):
        what = {name: every[name] for name in names}
        refused(world, waits, partial(revoke, world, **what), 400, "malformed", "name one of")


@pytest.mark.parametrize("leaf", [LEAF, "", "0" * 63, "0" * 65, "G" * 64, LEAF + "\n", 0, True, ["0" * 64]])
@pytest.mark.parametrize("action", ["approve", "deny"])
def test_an_answer_is_to_exactly_the_words_that_were_shown(action: str, leaf: object, world: World, waits: int) -> None:
    send = partial(world.answer, "cy", action, waits, leaf=leaf)
    if leaf == LEAF:
        refused(world, waits, send, 403, "refused", "another request than", logged=True)
    else:
        refused(world, waits, send, 400, "malformed", "leaf")


def test_a_leaf_of_another_request_or_in_capitals_is_not_its_leaf(world: World, waits: int) -> None:
    good = members(world, "approve", waits)["leaf"]
    other = members(world, "approve", ask(world, "ana"))["leaf"]
    refused(world, waits, partial(world.answer, "cy", "approve", waits, leaf=other), 403, "refused", "another", logged=True)
    refused(world, waits, partial(world.answer, "cy", "approve", waits, leaf=good.upper()), 400, "malformed", "leaf")


@pytest.mark.parametrize("duration", [0, -1, 1801, 2**63 - 1, -(2**63)])
def test_nobody_approves_for_longer_or_for_no_time(duration: int, world: World, waits: int) -> None:
    send = partial(world.answer, "cy", "approve", waits, duration=duration)
    refused(world, waits, send, 403, "refused", "keeps or shortens", logged=True)


@pytest.mark.parametrize("duration", ["600", 600.0, True, [600], {"seconds": 600}])
def test_a_duration_is_an_integer(duration: object, world: World, waits: int) -> None:
    refused(world, waits, partial(world.answer, "cy", "approve", waits, duration=duration), 400, "malformed", "integer")


def test_a_denial_has_no_duration(world: World, waits: int) -> None:
    refused(world, waits, partial(world.answer, "cy", "deny", waits, duration=600), 400, "malformed", "unknown")


@pytest.mark.parametrize("reason", ["a\nb", "\x1b[2J", "a\u202eb", "\u200b", "x" * 501, 1, ["x"]])
@pytest.mark.parametrize("action", ["approve", "deny", "revoke", "lock", "unlock"])
def test_a_reason_cannot_drive_a_terminal(action: str, reason: object, world: World, waits: int) -> None:
    changed = members(world, action, waits) | {"reason": reason}
    send = partial(world.act, WHO[action], action, PATHS[action].format(waits), **changed)
    refused(world, waits, send, 400, "malformed", "reason")


@pytest.mark.parametrize("person", ["", "Bo", "bo ", "b\u043e", "../bo", "@operator", "bo\n", "x" * 65, "*", 1, ["bo"], True])
@pytest.mark.parametrize("action", ["revoke", "lock", "unlock"])
def test_a_person_has_a_name(action: str, person: object, world: World, waits: int) -> None:
    changed = {"person": person, "reason": "Stolen"}
    refused(world, waits, partial(world.act, "eve", action, PATHS[action], **changed), 400, "malformed", "person")


# ------------------------------------------------------------------- who, and where


@pytest.mark.parametrize("action", PATHS)
def test_a_statement_is_for_one_address(action: str, world: World, waits: int) -> None:
    other, good = ask(world, "ana"), members(world, action, waits)
    elsewhere = {PATHS[action].format(other), "/v1/requests", "/v1/certificates"}
    for path in {path.format(waits) for path in PATHS.values()} | elsewhere:
        if path != PATHS[action].format(waits):
            answer = world.act(WHO[action], action, path, **good)
            assert (answer.status_code, said(answer)["code"]) in ((400, "malformed"), (401, "bad-signature")), path
    assert (world.status(waits), world.status(other)) == ("pending", "pending")
    assert not {"revoke", "lock", "unlock"} & set(world.kinds())
    world.check()


@pytest.mark.parametrize("action", PATHS)
def test_nobody_acts_with_a_signature_that_is_not_theirs(action: str, world: World, waits: int) -> None:
    common = {"action": action, "audience": ORIGIN, "id": uuid7(), "time": int(world.now)}
    text = canonical.encode(common | members(world, action, waits))
    stranger, signer = keys.make(world.directory, name="stranger"), world.people[WHO[action]]

    def send(signature: bytes) -> TestResponse:
        body = {"statement": text.decode(), "signature": b64encode(signature).decode()}
        return world.http.post(PATHS[action].format(waits), json=body)

    refused(world, waits, partial(send, keys.sshsig(stranger, text)), 401, "unknown-signer")
    forged = hostile.forged_sshsig(stranger, text, claimed=signer.public_key.blob)
    refused(world, waits, partial(send, forged), 401, "bad-signature")
    refused(world, waits, partial(send, keys.sshsig(signer, text + b" ")), 401, "bad-signature")
    refused(world, waits, partial(send, hostile.forged_sshsig(signer, text, namespace="file")), 400, "malformed", "namespace")
    refused(world, waits, partial(send, b""), 400, "malformed")


@pytest.mark.parametrize("action", PATHS)
def test_no_statement_is_stale_or_for_another_log(action: str, world: World, waits: int) -> None:
    good, path = members(world, action, waits), PATHS[action].format(waits)
    for seconds in (-121, 121):
        changed = good | {"time": int(world.now) + seconds}
        refused(world, waits, partial(world.act, WHO[action], action, path, **changed), 401, "stale")
    changed = good | {"audience": "other.example.com"}
    refused(world, waits, partial(world.act, WHO[action], action, path, **changed), 401, "wrong-audience")


def test_an_id_is_used_once_whoever_uses_it(world: World, waits: int) -> None:
    """Also by another person, for another act, or with other words."""
    other, number = ask(world, "ana"), uuid7()
    assert world.answer("cy", "approve", other, id=number).status_code == 200
    refused(world, waits, partial(world.answer, "cy", "approve", waits, id=number), 409, "replayed")
    refused(world, waits, partial(world.answer, "di", "approve", waits, id=number), 409, "replayed")
    refused(world, waits, partial(world.answer, "cy", "deny", other, id=number), 409, "replayed")
    refused(world, waits, partial(lock, world, "bo", "lock", "cy"), 403, "forbidden", logged=True)


def test_an_approval_sent_again_does_not_approve_what_was_asked_anew(world: World, waits: int) -> None:
    approve = canonical.encode(
        {"action": "approve", "audience": ORIGIN, "id": uuid7(), "time": int(world.now)} | members(world, "approve", waits)
    )
    body = {"statement": approve.decode(), "signature": b64encode(keys.sshsig(world.people["cy"], approve)).decode()}
    assert said(world.http.post(f"/v1/requests/{waits}/approve", json=body))["status"] == "granted"
    assert world.give_back("bo", "drop", waits).status_code == 200
    anew = ask(world)
    assert said(world.http.post(f"/v1/requests/{waits}/approve", json=body))["status"] == "dropped"
    refused(world, anew, lambda: world.http.post(f"/v1/requests/{anew}/approve", json=body), 401, "bad-signature")


@pytest.mark.parametrize("number", ["0", "-1", "x", "2.0", str(2**63), "9" * 50, "%32", "2/..", ""])
def test_an_address_is_that_of_the_request(number: str, world: World, waits: int) -> None:
    answer = world.act("cy", "approve", f"/v1/requests/{number}/approve", **members(world, "approve", waits))
    assert answer.status_code in (401, 404, 405) or (number == "%32" and answer.status_code == 200)


# -------------------------------------------------------------------- certificates


def test_a_certificate_is_asked_for_with_both_keys_and_for_a_request(world: World) -> None:
    request, bo, fresh = held(world), world.people["bo"], keys.make(world.directory, name="fresh")
    common = {"action": "certificate", "audience": ORIGIN, "time": int(world.now), "key": fresh.public_key.line}

    def send(signer: keys.Key = bo, proof: keys.Key = fresh, **changed: object) -> TestResponse:
        text = canonical.encode(common | {"id": uuid7(), "request": request} | changed)
        return world.http.post("/v1/certificates", data=json.dumps(world.signed(text, signer, proof)))

    hostile.refused(world, partial(send, proof=bo), 401, "bad-signature", "not by the key to certify")
    hostile.refused(world, partial(send, world.people["ana"]), 403, "forbidden", "somebody else's", logged=True)
    hostile.refused(world, partial(send, request=1), 404, "not-found", "is not a request")
    for number in (0, -1, 2**62, "2"):
        hostile.refused(world, partial(send, request=number), 400, "malformed", "")
    hostile.refused(world, partial(send, key=fresh.public_key.line + " comment"), 400, "malformed", "comment")
    hostile.refused(world, partial(send, duration=9), 400, "malformed", "unknown")
    own = world.log_signer
    hostile.refused(world, partial(send, key=own.public_key.line, proof=own), 403, "refused", "the log's own", logged=True)
    assert certificate(send()).certificate.key == fresh.public_key


def test_a_statement_that_asks_for_a_role_is_no_statement_for_a_certificate(world: World) -> None:
    request = held(world)
    body = world.body("bo", role="db-admin")
    send = partial(world.http.post, "/v1/certificates", data=json.dumps(body))
    hostile.refused(world, send, 400, "malformed", 'must be "certificate"')
    assert world.status(request) == "granted"


# ------------------------------------------------------------- whoever is locked out


def test_whoever_is_locked_out_answers_nothing(world: World, waits: int) -> None:
    lock(world, "cy")
    for action in ("approve", "deny"):
        refused(world, waits, partial(world.answer, "cy", action, waits), 403, "locked", "security team", logged=True)


@pytest.mark.parametrize("person", ["ana", "bo", "cy", "di"])
def test_nobody_but_a_revoker_ends_what_others_hold(person: str, world: World, waits: int) -> None:
    for action in ("lock", "unlock"):
        refused(world, waits, partial(lock, world, "bo", action, person), 403, "forbidden", "revokers", logged=True)
    for what in ({"request": waits}, {"person": "bo"}, {"serial": 3}):
        refused(world, waits, partial(revoke, world, person, **what), 403, "forbidden", "revokers", logged=True)
