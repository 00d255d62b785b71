"""However a statement is signed and sent: by the wrong key, for another purpose, without a touch, again, or as something else."""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from ca.entry import RequestEntry
from ca.statement import FRESH, ReadStatement
from tests import hostile, keys
from tests.keys import SecurityKey
from tests.world import ORIGIN, World, certificate, spelled, uuid7

VAULT = """
about = "What needs a touch"
owner = "sre"
review_by = 2027-12-31
principals = ["root@web"]
default_duration = "5m"
max_duration = "5m"
[[allow]]
groups = ["engineers"]
hardware_key = true
"""


# ---------------------------------------------------------------- the signature


def test_a_signature_made_for_anything_else_is_refused(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    text = lasting_world.statement(ana.public_key)
    good = keys.sshsig(ana, text)
    for forged, words in (
        (hostile.forged_sshsig(ana, text, namespace="git"), "namespace"),
        (hostile.forged_sshsig(ana, text, namespace="jit-ssh\0"), "namespace"),
        (hostile.forged_sshsig(ana, text, namespace=""), "namespace"),
        (hostile.forged_sshsig(ana, text, namespace="JIT-SSH"), "namespace"),
        (hostile.forged_sshsig(ana, text, digest="sha256"), "hash"),
        (hostile.forged_sshsig(ana, text, digest="sha1"), "hash"),
        (hostile.forged_sshsig(ana, text, reserved=b"x"), "reserved"),
        (hostile.forged_sshsig(ana, text, version=2), "version"),
        (hostile.forged_sshsig(ana, text, magic=b"SSHSIH"), "version"),
        (ana.sign(text), "SSHSIG"),
        (good + b"\0", "too many"),
        (good[:-1], "ends early"),
        (b"", "ends early"),
        (good * 30, "bytes, more than 4096"),
    ):
        body = hostile.body(text, forged, good)
        hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", words)
    assert lasting_world.post(hostile.body(text, good, good)).status_code == 201


def test_a_signature_of_another_key_or_over_another_text_is_refused(lasting_world: World) -> None:
    ana, bo = lasting_world.people["ana"], lasting_world.people["bo"]
    text, another = (lasting_world.statement(ana.public_key) for _ in range(2))
    proof = keys.sshsig(ana, text)
    as_ana = hostile.forged_sshsig(bo, text, claimed=ana.public_key.blob)
    for signature in (as_ana, keys.sshsig(ana, another), keys.sshsig(ana, text + b"\n"), keys.sshsig(ana, b"")):
        body = hostile.body(text, signature, proof)
        hostile.refused(lasting_world, partial(lasting_world.post, body), 401, "bad-signature", "not one by")


def test_a_text_changed_after_it_was_signed_is_refused(lasting_world: World) -> None:
    body = lasting_world.body("ana", duration=60)
    for old, new in (("web-admin", "dev"), ('"duration":60', '"duration":61'), ("disk full", "disk fulL")):
        changed = body | {"statement": body["statement"].replace(old, new)}
        hostile.refused(lasting_world, partial(lasting_world.post, changed), 401, "bad-signature", "not one by")


def test_a_stranger_gets_nothing_and_leaves_nothing(lasting_world: World) -> None:
    stranger = SecurityKey()
    text = lasting_world.statement(stranger.public_key)
    send = partial(lasting_world.post, lasting_world.signed(text, stranger, stranger))
    hostile.refused(lasting_world, send, 401, "unknown-signer", stranger.public_key.line)


def test_a_certificate_does_not_sign_a_statement(lasting_world: World) -> None:
    ana, fresh = lasting_world.people["ana"], SecurityKey()
    issued = certificate(lasting_world.ask("ana", fresh))
    text = lasting_world.statement(fresh.public_key)
    body = hostile.body(text, hostile.forged_sshsig(fresh, text, claimed=issued.blob), keys.sshsig(fresh, text))
    hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", "certificate, not a public key")
    as_fresh = lasting_world.signed(text, fresh, fresh)
    hostile.refused(lasting_world, partial(lasting_world.post, as_fresh), 401, "unknown-signer", "is nobody's here")
    assert lasting_world.post(lasting_world.signed(text, ana, fresh)).status_code == 201


def test_a_revoked_key_signs_nothing_from_then_on(world: World) -> None:
    people, bo = world.files["people.toml"].decode(), world.people["bo"]
    assert world.ask("bo", role="dev").status_code == 201
    spare = keys.make(world.directory, name="spare")
    world.adopt(
        people=f'revoked_keys = ["{bo.public_key.fingerprint}"]\n' + people.replace(bo.public_key.line, spare.public_key.line)
    )
    hostile.refused(world, partial(world.ask, "bo", role="dev"), 401, "revoked-key", "is revoked")
    hostile.refused(world, partial(world.read, "bo", "/v1/roles"), 401, "revoked-key", "is revoked")


def test_somebody_who_left_gets_nothing_more(world: World) -> None:
    body = world.body("bo", role="dev")
    assert world.post(body).status_code == 201
    people = world.files["people.toml"].decode()
    world.adopt(people=people[: people.index("[people.bo]")] + people[people.index("[people.eve]") :])
    hostile.refused(world, partial(world.post, body), 401, "unknown-signer", "is nobody's here")


# ---------------------------------------------------------------- security keys


@pytest.fixture
def touchy(world: World) -> World:
    """A world where ana has three security keys, and the role vault demands one."""
    for name, key in (("touched", SecurityKey()), ("asleep", SecurityKey(flags=0)), ("verified", SecurityKey("ecdsa", flags=5))):
        world.people[name] = key
    lines = ", ".join(f'"{world.people[name].public_key.line}"' for name in ("ana", "touched", "asleep", "verified"))
    ana = f'"{world.people["ana"].public_key.line}"'
    world.adopt(people=world.files["people.toml"].decode().replace(ana, lines), role_vault=VAULT)
    return world


@pytest.mark.parametrize("flags", [0, 4, 0xFE])
def test_a_security_key_that_nobody_touched_signs_nothing(flags: int, touchy: World) -> None:
    asleep = touchy.people["asleep"]
    assert isinstance(asleep, SecurityKey)
    asleep.flags = flags
    fresh = touchy.people["ana"]
    for role in ("dev", "web-admin", "vault"):
        hostile.refused(touchy, partial(touchy.ask, "asleep", fresh, role=role), 401, "not-touched", "Touch the key")
    hostile.refused(touchy, partial(touchy.read, "asleep", "/v1/roles"), 401, "not-touched", "Touch the key")


@pytest.mark.parametrize("name", ["touched", "verified"])
def test_a_touched_security_key_opens_what_needs_one(name: str, touchy: World) -> None:
    answer = touchy.ask(name, role="vault")
    assert answer.status_code == 201
    request = touchy.entries()[-2]
    assert isinstance(request, RequestEntry)
    assert request.hardware_key
    assert request.actor == "ana"
    touchy.check()


def test_the_touch_that_counts_is_the_signers_not_that_of_the_key_to_certify(touchy: World) -> None:
    ask = partial(touchy.ask, "ana", SecurityKey(), role="vault")
    hostile.refused(touchy, ask, 403, "denied", "signed with a security key", logged=True)


def test_a_flag_set_after_signing_is_no_touch(touchy: World) -> None:
    ana, asleep = touchy.people["ana"], touchy.people["asleep"]
    text = touchy.statement(ana.public_key, role="vault")
    signature = bytearray(keys.sshsig(asleep, text))
    signature[-5] |= 1
    body = hostile.body(text, bytes(signature), keys.sshsig(ana, text))
    hostile.refused(touchy, partial(touchy.post, body), 401, "bad-signature", "not one by")


# ---------------------------------------------------------------------- replays


def test_a_lost_answer_is_given_again_and_nothing_is_added(world: World) -> None:
    body = world.body("ana")
    first = world.post(body)
    kinds = world.kinds()
    world.now += 1
    assert world.post(body).json == first.json
    world.reopen()
    world.now += FRESH - 1
    assert world.post(body).json == first.json
    assert world.kinds() == kinds
    world.now += 1
    hostile.refused(world, partial(world.post, body), 401, "stale", "121 s old")


def test_a_refusal_is_given_again_too(world: World) -> None:
    body = world.body("bo")
    first, again = world.post(body), world.post(body)
    assert first.status_code == again.status_code == 403
    assert isinstance(first.json, dict)
    assert isinstance(again.json, dict)
    assert first.json | {"instance": ""} == again.json | {"instance": ""}
    assert world.kinds().count("refuse") == 1
    world.adopt(role_web_admin=world.files["roles/web-admin.toml"].decode().replace('["sre"]', '["engineers"]'))
    assert world.post(body).status_code == 403, "what was refused stays so; a new statement is a new request"
    assert world.ask("bo").status_code == 201


def test_fifty_copies_at_once_are_one_request(world: World) -> None:
    body, start = world.body("ana"), Barrier(50)
    app = world.http.application

    def send(_number: int) -> object:
        client = app.test_client()
        start.wait(timeout=30)
        answer = client.post("/v1/requests", json=body)
        return answer.status_code, answer.json

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(send, range(50)))
    assert answers == [answers[0]] * 50
    assert answers[0] == (201, world.post(body).json)
    assert world.kinds() == ["genesis", "policy", "request", "issue"]
    world.check()


@pytest.mark.parametrize("change", [{"role": "dev"}, {"duration": 60}, {"reason": "INC-13"}, {"time": -1}, {"key": "another"}])
def test_another_statement_with_the_same_id_is_a_replay(change: dict[str, Any], world: World) -> None:
    again = uuid7()
    assert world.ask("ana", id=again).status_code == 201
    fresh = SecurityKey() if "key" in change else None
    changes = {"time": int(world.now) - 1} if "time" in change else {} if fresh else change
    hostile.refused(world, partial(world.ask, "ana", fresh, id=again, **changes), 409, "replayed", "id of its own")


def test_nobody_takes_over_another_persons_statement(world: World) -> None:
    ana, bo, fresh = world.people["ana"], world.people["bo"], SecurityKey()
    text = world.statement(fresh.public_key, role="dev", reason="")
    first = world.post(world.signed(text, ana, fresh))
    assert certificate(first).certificate.principals == ("ana@dev",)
    hostile.refused(world, partial(world.post, world.signed(text, bo, fresh)), 409, "replayed", "id of its own")
    assert world.post(world.signed(text, ana, fresh)).json == first.json


def test_an_id_that_was_refused_is_used_up_as_well(world: World) -> None:
    again = uuid7()
    assert world.ask("ana", id=again, role="nothing").status_code == 403
    hostile.refused(world, partial(world.ask, "ana", id=again), 409, "replayed", "id of its own")


# ------------------------------------------------------------ reads and requests


def test_a_statement_to_read_asks_for_nothing(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    said = ReadStatement(audience=ORIGIN, id=uuid7(), time=int(lasting_world.now), path="/v1/requests")
    body = lasting_world.signed(spelled(said, {}), ana, ana)
    hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", "does not ask for a certificate")


def test_a_statement_that_asks_reads_nothing(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    text = lasting_world.statement(ana.public_key)
    parts = (b64encode(part, altchars=b"-_").decode().rstrip("=") for part in (text, keys.sshsig(ana, text)))
    send = partial(lasting_world.http.get, "/v1/roles", headers={"Authorization": "JIT-SSH " + ".".join(parts)})
    hostile.refused(lasting_world, send, 401, "bad-signature", "reading something else")
