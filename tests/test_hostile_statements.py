"""Whatever a statement says and however it is signed: each field out of its bounds, each signature that means something else."""

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from ca.entry import RefuseEntry, RequestEntry
from ca.errors import Stale
from ca.statement import FRESH, LONGEST_REASON, ReadStatement
from server import identity
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


def malformed(world: World, words: str, **changes: Any) -> None:
    """Ana's request with this change is no statement at all."""
    hostile.refused(world, partial(world.ask, "ana", **changes), 400, "malformed", words)


def denied(world: World, words: str, **changes: Any) -> RefuseEntry:
    """Ana's request with this change is a statement that policy refuses; the entry that says so."""
    problem = hostile.refused(world, partial(world.ask, "ana", **changes), 403, "denied", words, logged=True)
    refusal = world.entries()[problem["entry"]]
    assert isinstance(refusal, RefuseEntry)
    assert refusal.actor == "ana"
    return refusal


def rewritten(world: World, old: str, new: str) -> hostile.Send:
    """Ana's own request with its text rewritten before she signs it, so that only the text can be what is wrong."""
    text = world.statement(world.people["ana"].public_key).decode()
    assert text.count(old) == 1
    changed = text.replace(old, new).encode()
    return partial(world.post, world.signed(changed, world.people["ana"], world.people["ana"]))


# -------------------------------------------------------------------- durations


@pytest.mark.parametrize("duration", [0, -1, -(2**63), 3601, 86_401, 2**31, 2**63 - 1])
def test_a_duration_that_the_role_does_not_give_is_denied_and_never_cut(duration: int, lasting_world: World) -> None:
    refusal = denied(lasting_world, "the duration is between 1s and the role's maximum of 1h", duration=duration)
    assert f'"duration":{duration},' in refusal.statement


@pytest.mark.parametrize("duration", [1, 1800, 3600])
def test_a_duration_within_the_roles_maximum_is_given_to_the_second(duration: int, lasting_world: World) -> None:
    issued = certificate(lasting_world.ask("ana", duration=duration)).certificate
    assert issued.valid_before == int(lasting_world.now) + duration


@pytest.mark.parametrize("duration", ["30m", "1800", "", "\u0661", True, False, [1800], {"seconds": 1800}])
def test_a_duration_is_an_integer(duration: object, lasting_world: World) -> None:
    malformed(lasting_world, "duration is not an integer", duration=duration)


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("0.5", "not an integer"),
        ("1800.0", "not an integer"),
        ("1e3", "not an integer"),
        ("NaN", "not an integer"),
        ("Infinity", "not an integer"),
        ("-Infinity", "not an integer"),
        ("1" + "0" * 400, "out of range"),
        ("1" + "0" * 6000, "out of range"),  # Python refuses to read more than 4,300 digits by another error
        (str(2**63), "out of range"),
        (str(-(2**63) - 1), "out of range"),
        ("-0", "not canonical"),
        ("null", "not canonical"),
        ("0x10", "not JSON"),
        ("+5", "not JSON"),
        ("05", "not JSON"),
    ],
)
def test_a_number_has_one_spelling(spelling: str, words: str, lasting_world: World) -> None:
    send = rewritten(lasting_world, '"id":', f'"duration":{spelling},"id":')
    hostile.refused(lasting_world, send, 400, "malformed", words)


# ---------------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    "reason",
    [
        "INC-1\nGRANTED to root",
        "INC-1\r",
        "INC-1\t",
        "INC-1\0",
        "INC-1 \x1b[2J\x1b]0;title\x07",
        "INC-1 \x9b31m",  # the C1 form of the same
        "INC-1 \x7f",
        "INC-1 \u202egpj.exe",  # right-to-left override
        "INC-1 \u2066x\u2069",
        "INC-1 \u2028next",
        "INC-1 \u200bx",
        "INC-1 \ufeff",
        "INC-1 \U000e0041",  # a tag character, invisible
        "INC-1 \ue000",  # private use
        "INC-1 " + "x" * LONGEST_REASON,
    ],
)
def test_a_reason_cannot_drive_a_terminal_or_forge_a_line(reason: str, lasting_world: World) -> None:
    malformed(lasting_world, "control or direction characters", reason=reason)


@pytest.mark.parametrize(
    "reason",
    [
        "INC-1 caf\u00e9 \u65e5\u672c",
        'INC-1 "quoted" \\ </script>',
        "INC-1 " + "\u00e9" * (LONGEST_REASON - 6),
        "INC-1 '; DROP TABLE entries; --",
    ],
)
def test_a_reason_in_anybodys_words_is_kept_verbatim(reason: str, lasting_world: World) -> None:
    assert lasting_world.ask("ana", reason=reason).status_code == 201
    request = lasting_world.entries()[-2]
    assert isinstance(request, RequestEntry)
    assert json.loads(request.statement)["reason"] == reason
    lasting_world.check()


def test_a_reason_with_half_a_character_is_malformed(lasting_world: World) -> None:
    hostile.refused(lasting_world, rewritten(lasting_world, "disk full", r"\ud800"), 400, "malformed", "not JSON")
    hostile.refused(lasting_world, rewritten(lasting_world, "disk full", r"\udc00\ud800"), 400, "malformed", "not JSON")
    hostile.refused(lasting_world, rewritten(lasting_world, "disk full", r"\ud83d\ude00"), 400, "malformed", "not canonical")


@pytest.mark.parametrize("reason", ["", "please", "inc-12", " INC-12", "INC-", "X INC-12", "INC-\u0661"])
def test_a_reason_that_does_not_match_is_denied_with_the_roles_own_words(reason: str, lasting_world: World) -> None:
    denied(lasting_world, "Start with the incident, e.g. INC-12", reason=reason)


def test_a_reason_of_a_megabyte_is_not_even_read(lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.ask, "ana", reason="INC-1" + "x" * 2**20), 413, "too-large", "too large")
    malformed(lasting_world, "bytes, more than 8192", reason="INC-1" + "x" * 9000)


# ------------------------------------------------------------------------ roles


@pytest.mark.parametrize("role", ["nothing", "web-admi", "genesis", "_", "0", "x" * 63])
def test_a_role_that_is_not_there_is_denied(role: str, lasting_world: World) -> None:
    denied(lasting_world, "the role exists", role=role)


@pytest.mark.parametrize(
    "role",
    [
        "",
        "../web-admin",
        "roles/web-admin",
        "web-admin.toml/..",
        "web-admin\0",
        "web-admin\n",
        "web-admin ",
        " web-admin",
        "Web-admin",
        "WEB-ADMIN",
        "web-\u0430dmin",  # a Cyrillic letter
        "web\u2010admin",  # another hyphen
        "web-admin\u200b",
        "web-admin,dev",
        "web-admin#",
        "*",
        "{person}",
        "-web-admin",
        ".web-admin",
        "x" * 64,
        "'; DROP TABLE entries; --",
    ],
)
def test_a_role_that_could_be_no_name_is_malformed(role: str, lasting_world: World) -> None:
    malformed(lasting_world, "role ", role=role)


def test_what_bo_may_not_have_bo_does_not_get(lasting_world: World) -> None:
    problem = hostile.refused(lasting_world, partial(lasting_world.ask, "bo"), 403, "denied", "web-admin", logged=True)
    assert problem["ways"][0]["findings"][0]["holds"] is False
    assert lasting_world.ask("bo", role="dev").status_code == 201


# ---------------------------------------------------------------- every member


@pytest.mark.parametrize("member", ["action", "audience", "id", "time", "role", "reason", "key"])
def test_no_member_is_missing(member: str, lasting_world: World) -> None:
    malformed(lasting_world, "of no known kind" if member == "action" else f"lacks the member '{member}'", **{member: None})


@pytest.mark.parametrize("member", ["principals", "groups", "duration_", "Role", "path", "", "\u0440ole", "__class__"])
def test_no_member_is_added(member: str, lasting_world: World) -> None:
    malformed(lasting_world, "unknown member", **{member: "root@web"})


@pytest.mark.parametrize("value", [1, True, ["x"], {"x": 1}])
@pytest.mark.parametrize("member", ["audience", "id", "role", "reason", "key"])
def test_text_is_text(member: str, value: object, lasting_world: World) -> None:
    malformed(lasting_world, f"{member} is not text", **{member: value})


@pytest.mark.parametrize("time", ["1800000000", True, [], "", "now"])
def test_a_time_is_an_integer(time: object, lasting_world: World) -> None:
    malformed(lasting_world, "time is not an integer", time=time)


@pytest.mark.parametrize("action", ["approve", "Request", "request ", "", 1, True, ["request"], {"request": 1}])
def test_an_action_is_one_of_those_there_are(action: object, lasting_world: World) -> None:
    malformed(lasting_world, "of no known kind", action=action)


@pytest.mark.parametrize(
    "statement_id",
    [
        "",
        "1",
        "01890a5d-ac96-474b-bcce-b302099a8057",  # version 4
        "01890a5d-ac96-774b-ccce-b302099a8057",  # another variant
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5dac96774bbcceb302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a8057\n",
        "01890a5d-ac96-774b-bcce-b302099a805\u0667",
        "01890a5d-ac96-774b-bcce-b302099a8057' OR '1'='1",
    ],
)
def test_an_id_is_a_uuid_of_version_7_in_its_one_spelling(statement_id: str, lasting_world: World) -> None:
    malformed(lasting_world, "statement id", id=statement_id)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{"action"', '{ "action"', "not canonical"),
        ('"time":', '"time": ', "not canonical"),
        ('{"action":"request",', '{"zzz":1,"action":"request",', "unknown member"),
        ('"role":"web-admin"', r'"role":"web\u002dadmin"', "not canonical"),
        ('"reason":"INC-12 disk full"', r'"reason":"INC-12\/7"', "not canonical"),
        ('"role":"web-admin"', '"role":"web-admin","role":"dev"', "a key stands twice"),
        ('"role":"web-admin"', '"role":"dev","role":"web-admin"', "a key stands twice"),
        ('"action":"request",', "", "of no known kind"),
        ('{"action"', '[{"action"', "not JSON"),
        ('{"action"', '\ufeff{"action"', "not JSON"),
        ('{"action"', "'{\"action\"", "not JSON"),
        ('"role":"web-admin"', '"role":null', "not text"),
    ],
)
def test_a_statement_has_one_spelling(old: str, new: str, words: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, rewritten(lasting_world, old, new), 400, "malformed", words)


@pytest.mark.parametrize("nested", ["[" * 7000, '{"a":' * 1500, "[" * 2000 + "]" * 2000, '{"a":' * 900 + "1" + "}" * 900])
def test_a_statement_is_not_nested(nested: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, rewritten(lasting_world, '"INC-12 disk full"', nested), 400, "malformed", "")


def test_members_in_another_order_are_not_a_statement(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    members = json.loads(lasting_world.statement(ana.public_key))
    text = json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode()
    send = partial(lasting_world.post, lasting_world.signed(text, ana, ana))
    hostile.refused(lasting_world, send, 400, "malformed", "not canonical")


# ----------------------------------------------------------------- the audience


@pytest.mark.parametrize("audience", ["other.example.com", f"{ORIGIN}x", ORIGIN[:-1]])
def test_a_statement_for_another_log_means_nothing_here(audience: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.ask, "ana", audience=audience), 401, "wrong-audience", ORIGIN)


@pytest.mark.parametrize("audience", ["", f"{ORIGIN}/", f"{ORIGIN}\n", f" {ORIGIN}", ORIGIN.upper(), "*"])
def test_an_audience_that_no_log_has_is_malformed(audience: str, lasting_world: World) -> None:
    malformed(lasting_world, "audience ", audience=audience)


# --------------------------------------------------------------------- the time


@pytest.mark.parametrize("seconds", [-121, 121, -86_400, 86_400, 2**62])
def test_a_statement_too_far_from_the_clock_is_stale(seconds: int, lasting_world: World) -> None:
    time = int(lasting_world.now) + seconds
    hostile.refused(lasting_world, partial(lasting_world.ask, "ana", time=time), 401, "stale", "clock")


@pytest.mark.parametrize("time", [-1, -(2**63)])
def test_a_time_before_the_epoch_is_malformed(time: int, lasting_world: World) -> None:
    malformed(lasting_world, "negative", time=time)


@pytest.mark.parametrize("seconds", [-120, 120])
def test_a_statement_within_two_minutes_of_the_clock_is_accepted(seconds: int, lasting_world: World) -> None:
    assert lasting_world.ask("ana", time=int(lasting_world.now) + seconds).status_code == 201
    lasting_world.check()


def test_a_statement_that_grew_stale_while_the_log_was_busy_leaves_no_entry(world: World) -> None:
    """Else anybody could write an entry that is accepted and then fails every verification of the log."""
    body = json.dumps(world.body("ana", time=int(world.now) - FRESH)).encode()
    asked = identity.asked(body, "127.0.0.1", world.ca.rules.policy, ORIGIN, int(world.now))
    kinds = world.kinds()
    world.now += 1
    with pytest.raises(Stale, match="while the log was busy"):
        world.ca.request(asked)
    assert (world.kinds(), world.signer.calls) == (kinds, 0)
    world.now -= 0.001  # as late as can be accepted
    world.ca.request(asked)
    world.check()


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
    hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", "does not ask for a role")


def test_a_statement_that_asks_reads_nothing(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    text = lasting_world.statement(ana.public_key)
    parts = (b64encode(part, altchars=b"-_").decode().rstrip("=") for part in (text, keys.sshsig(ana, text)))
    send = partial(lasting_world.http.get, "/v1/roles", headers={"Authorization": "JIT-SSH " + ".".join(parts)})
    hostile.refused(lasting_world, send, 401, "bad-signature", "reading something else")
