"""Whatever a statement says, signed by a person as it should be: each field out of its bounds, each spelling but the one."""

import json
from functools import partial
from typing import Any

import pytest

from ca.entry import RefuseEntry, RequestEntry
from ca.errors import Stale
from ca.statement import FRESH, LONGEST_REASON
from server import identity
from tests import hostile
from tests.world import ORIGIN, World, certificate


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
        ("null", "is not an integer"),
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


@pytest.mark.parametrize("action", ["grant", "Request", "request ", "", 1, True, ["request"], {"request": 1}])
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
        ('{"action"', '\'{"action"', "not JSON"),
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
    [late] = world.ca.decide([asked])
    assert isinstance(late, Stale)
    assert "while the log was busy" in late.message
    assert (world.kinds(), world.signer.calls) == (kinds, 0)
    world.now -= 0.001  # as late as can be accepted
    [made] = world.ca.decide([asked])
    assert not isinstance(made, BaseException)
    world.check()
