"""The decision: who gets what, for how long, and what a denial says."""

import copy
import dataclasses
import json
import time
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ca import canonical, certificate, policy
from ca.conditions import Condition, Conditions, Facts
from ca.entry import LARGEST
from ca.findings import Privilege, Step
from ca.policy import SENTENCES, Approved, Decision, Denied, Granted, Pending, eligible, evaluate, outlook, principals
from ca.roles import Permit, Policy, load
from tests.policies import ALLOW_SRE, FOR_SRE, GUARDRAILS, HEAD, NOON, PEOPLE, ask, denied, facts, granted, key, pending
from tests.policies import policy as written
from tests.test_roles import starter

# ---------------------------------------------------------------- who may


def test_a_member_of_the_group_is_granted_and_others_are_not() -> None:
    loaded = written(web=FOR_SRE)
    got = granted(ask(loaded))
    assert (got.person, got.role) == ("ana", "web")
    assert got.privilege == Privilege(principals=("root@web-prod",), duration=1800, permit=("pty",))
    for person in ("cleo", "dora"):
        denied(ask(loaded, by=facts(person)))


def test_somebody_who_is_not_in_the_policy_gets_nothing_and_learns_nothing() -> None:
    loaded = written(web=FOR_SRE)
    stranger = facts("eve")
    assert denied(ask(loaded, "web", by=stranger)).findings == denied(ask(loaded, "nothing", by=stranger)).findings
    assert denied(ask(loaded, by=stranger)).ways == ()
    assert outlook(loaded, stranger) == ()


def test_a_role_that_does_not_exist_is_denied_like_any_other() -> None:
    refused = denied(ask(written(web=FOR_SRE), "wbe"))
    assert (refused.role, refused.findings[0].condition, refused.ways) == ("wbe", "role", ())
    assert refused.message == (
        "wbe is not granted: it needs that the role exists, but there is none of this name (did you mean 'web'?)"
    )


def test_all_conditions_of_a_block_have_to_hold() -> None:
    loaded = written(web=HEAD + ALLOW_SRE + 'people = ["ana", "cleo"]\nhardware_key = true\nnetworks = ["203.0.113.0/24"]\n')
    for person, touched, address in product(("ana", "ben", "cleo"), (True, False), ("203.0.113.9", "198.51.100.1", None)):
        decision = ask(loaded, by=facts(person, address, touched))
        assert isinstance(decision, Granted) == ((person, touched, address) == ("ana", True, "203.0.113.9"))


def test_conditions_are_never_put_together_from_several_blocks() -> None:
    loaded = written(web=HEAD + ALLOW_SRE + "hardware_key = true\n" + '[[allow]]\ngroups = ["sre-leads"]\npeople = ["ana"]\n')
    denied(ask(loaded, by=facts(hardware_key=False)))
    assert granted(ask(loaded, by=facts(hardware_key=True))).ways[0].rule == "allow 1"


def test_one_group_of_the_list_is_enough() -> None:
    loaded = written(web=HEAD + '[[allow]]\ngroups = ["security", "sre-leads"]\n')
    granted(ask(loaded, by=facts("ben")))
    granted(ask(loaded, by=facts("cleo")))
    denied(ask(loaded, by=facts("ana")))


def test_a_persons_own_account_is_in_the_principals() -> None:
    loaded = written(dev=FOR_SRE.replace('"root@web-prod"', '"{person}@dev", "root@web-prod"'))
    assert granted(ask(loaded, "dev", by=facts("ben"))).privilege.principals == ("ben@dev", "root@web-prod")
    assert principals(loaded.roles["dev"], "ana") == ("ana@dev", "root@web-prod")


# --------------------------------------------------------------------- deny


DENY = '[[deny]]\ngroups = ["sre-leads"]\nmessage = "Leads use their own role"\n'


def test_a_matching_deny_wins_over_every_allow() -> None:
    loaded = written(web=FOR_SRE + DENY)
    refused = denied(ask(loaded, by=facts("ben")))
    assert [way.rule for way in refused.ways] == ["deny 1"]
    assert refused.message == "web is denied: Leads use their own role"
    granted(ask(loaded, by=facts("ana")))


def test_a_guardrail_holds_for_every_role_or_for_those_it_names() -> None:
    everywhere = written({"guardrails.toml": GUARDRAILS + DENY}, web=FOR_SRE, other=FOR_SRE)
    named = written({"guardrails.toml": GUARDRAILS + DENY + 'roles = ["other"]\n'}, web=FOR_SRE, other=FOR_SRE)
    ben = facts("ben")
    assert [isinstance(ask(everywhere, role, by=ben), Granted) for role in ("web", "other")] == [False, False]
    assert [isinstance(ask(named, role, by=ben), Granted) for role in ("web", "other")] == [True, False]
    assert denied(ask(everywhere, by=ben)).ways[0].rule == "guardrails deny 1"


def test_a_deny_without_conditions_freezes() -> None:
    loaded = written({"guardrails.toml": GUARDRAILS + '[[deny]]\nmessage = "Frozen"\n'}, web=FOR_SRE)
    assert denied(ask(loaded)).message == "web is denied: Frozen"


def test_a_deny_can_ask_for_a_security_key() -> None:
    loaded = written(web=FOR_SRE + '[[deny]]\nhardware_key = false\nmessage = "Use your security key"\n')
    denied(ask(loaded, by=facts(hardware_key=False)))
    granted(ask(loaded, by=facts(hardware_key=True)))


@pytest.mark.parametrize("address", [None, "", "unix:", "fe80::1%eth0", "203.0.113.9, 10.0.0.1", "203.0.113.9\n"])
def test_an_unknown_address_opens_no_door(address: str | None) -> None:
    unknown, networks = facts(address=address), 'networks = ["0.0.0.0/0", "::/0"]\n'
    for_known = written(web=FOR_SRE + networks)
    refused = denied(ask(for_known, by=unknown))
    assert [finding.holds for finding in refused.ways[0].findings] == [True, None]
    assert refused.message.endswith("but the address it comes from is not known")
    granted(ask(for_known))
    not_from = written(
        web=FOR_SRE
        + "[[deny]]\n"
        + networks.replace("0.0.0.0/0", "198.51.100.0/24").replace(', "::/0"', "")
        + 'message = "Not from there"\n'
    )
    assert denied(ask(not_from, by=unknown)).message == "web is denied: Not from there"
    granted(ask(not_from))


@given(st.sampled_from(["ana", "ben", "cleo", "dora"]), st.booleans(), st.sampled_from([None, "203.0.113.9", "2001:db8::1"]))
def test_a_deny_never_turns_a_denial_into_a_grant(person: str, touched: bool, address: str | None) -> None:
    asked = facts(person, address, touched)
    rules = HEAD + ALLOW_SRE + "hardware_key = true\n" + '[[allow]]\ngroups = ["security"]\nnetworks = ["203.0.113.0/24"]\n'
    if isinstance(ask(written(web=rules), by=asked), Denied):
        denied(ask(written(web=rules + DENY), by=asked))


# An oracle: the rules of POLICY.md once more, in the plainest words, over the same blocks.

BLOCK = st.fixed_dictionaries(
    {},
    optional={
        "groups": st.lists(st.sampled_from(["sre", "sre-leads", "security"]), min_size=1, unique=True),
        "people": st.lists(st.sampled_from(["ana", "ben", "cleo", "dora"]), min_size=1, unique=True),
        "hardware_key": st.booleans(),
        "networks": st.sampled_from([["203.0.113.0/24"], ["198.51.100.0/24"]]),
    },
)
MEMBERS = {"ana": {"sre"}, "ben": {"sre", "sre-leads"}, "cleo": {"security"}, "dora": set()}


def truth(block: dict[str, Any], asked: Facts) -> bool | None:
    known = [
        "groups" not in block or not MEMBERS[asked.person].isdisjoint(block["groups"]),
        asked.person in block.get("people", [asked.person]),
        asked.hardware_key == block.get("hardware_key", asked.hardware_key),
        asked.address is None or "networks" not in block or asked.address.startswith(block["networks"][0][:9]),
    ]
    if not all(known):
        return False
    return None if asked.address is None and "networks" in block else True


def block_text(kind: str, block: dict[str, Any]) -> str:
    stated = "".join(f"{name} = {json.dumps(value)}\n" for name, value in block.items())
    return f"[[{kind}]]\n{stated}" + ('message = "No"\n' if kind == "deny" else "")


@given(
    st.lists(BLOCK, max_size=3, unique_by=canonical.encode),
    st.lists(BLOCK, max_size=2, unique_by=canonical.encode),
    st.sampled_from(sorted(MEMBERS)),
    st.booleans(),
    st.sampled_from([None, "203.0.113.9", "198.51.100.9"]),
)
def test_exactly_what_the_rules_allow_is_granted(
    allows: list[dict[str, Any]], denies: list[dict[str, Any]], person: str, touched: bool, address: str | None
) -> None:
    allows = [block for block in allows if {"groups", "people"} & block.keys() and block.get("hardware_key", True)]
    text = HEAD + "".join(block_text("allow", block) for block in allows) + "".join(block_text("deny", block) for block in denies)
    assume(allows)
    loaded, asked = written(web=text), facts(person, address, touched)
    allowed = any(truth(block, asked) is True for block in allows) and all(truth(block, asked) is False for block in denies)
    assert isinstance(ask(loaded, by=asked), Granted) == allowed


# ------------------------------------------------------------------ duration


def test_the_duration_is_the_one_asked_for_or_the_default() -> None:
    loaded = written(web=FOR_SRE)
    assert granted(ask(loaded)).privilege.duration == 1800
    assert granted(ask(loaded, duration=1)).privilege.duration == 1
    assert granted(ask(loaded, duration=3600)).privilege.duration == 3600


@pytest.mark.parametrize("duration", [0, -1, 3601, 86400, 86401, 2**63, pytest.param(10**5000, id="giant")])
def test_a_duration_out_of_range_is_denied_and_not_cut(duration: int) -> None:
    refused = denied(ask(written(web=FOR_SRE), duration=duration))
    assert refused.findings[0].condition == "duration"
    assert "the duration is between 1s and the role's maximum of 1h" in refused.message


# -------------------------------------------------------------------- reason

WITH_REASON = 'reason = { pattern = "^INC-[0-9]+", message = "Start with INC-1234" }\n' + FOR_SRE


def test_a_reason_has_to_look_as_the_role_wants() -> None:
    loaded = written(web=WITH_REASON)
    granted(ask(loaded, reason="INC-12 disk full"))
    for reason in ("", "disk full", "see INC-12", "inc-12", "INC-", "INC-١٢"):
        refused = denied(ask(loaded, reason=reason))
        assert "Start with INC-1234" in refused.message
        assert refused.ways[0].unmet == 0


def test_a_pattern_is_matched_from_the_beginning_even_without_an_anchor() -> None:
    loaded = written(web=WITH_REASON.replace("^INC", "INC"))
    granted(ask(loaded, reason="INC-1"))
    denied(ask(loaded, reason="no INC-1"))


def test_a_role_without_a_pattern_takes_any_reason_or_none() -> None:
    loaded = written(web=FOR_SRE)
    granted(ask(loaded, reason=""))
    granted(ask(loaded, reason="just so – naïve ✓"))


@pytest.mark.parametrize("reason", ["a" * 501, "a\nb", "a\x00", "\x1b[2J", "a\u202eb", "a\u200bb", "\x9b31m", "\ud800"])
def test_a_reason_is_short_and_can_be_shown(reason: str) -> None:
    refused = denied(ask(written(web=FOR_SRE), reason=reason))
    assert reason not in repr(refused)
    granted(ask(written(web=FOR_SRE), reason="a" * 500))


# ------------------------------------------------------------ the privilege


def test_a_role_restricts_what_its_certificates_can_do() -> None:
    restricted = written(web='force_command = "uptime"\npermit = []\n' + FOR_SRE)
    assert granted(ask(restricted)).privilege == Privilege(
        principals=("root@web-prod",), duration=1800, force_command="uptime", permit=()
    )


def test_every_permit_is_one_that_a_certificate_has() -> None:
    every = ", ".join(f'"{name}"' for name in reversed(get_args(Permit)))
    assert granted(ask(written(web=f"permit = [{every}]\n" + FOR_SRE))).privilege.permit == certificate.PERMITS


@pytest.mark.parametrize(
    ("address", "source"),
    [("203.0.113.9", "203.0.113.9/32"), ("2001:DB8::1", "2001:db8::1/128"), ("::ffff:203.0.113.9", "203.0.113.9/32")],
)
def test_a_pinned_certificate_is_bound_to_the_one_address(address: str, source: str) -> None:
    pinned = written(web="pin_source_address = true\n" + FOR_SRE)
    assert granted(ask(pinned, by=facts(address=address))).privilege.source_address == source
    assert granted(ask(written(web=FOR_SRE), by=facts(address=address))).privilege.source_address is None


@pytest.mark.parametrize("address", [None, "fe80::1%eth0", "nonsense"])
def test_a_pinned_certificate_needs_an_address_to_be_bound_to(address: str | None) -> None:
    pinned = written(web="pin_source_address = true\n" + FOR_SRE)
    assert denied(ask(pinned, by=facts(address=address))).findings[0].condition == "pin_source_address"


def test_facts_have_a_time_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        facts(now=NOON.replace(tzinfo=None))


# ----------------------------------------------------------------- approvals

BY_APPROVAL = ALLOW_SRE + 'approvals = [{ from = "sre-leads", count = 1 }, { from = "security", count = 1 }]\n'


def test_a_rule_that_wants_approvals_grants_nothing_yet() -> None:
    waits = pending(ask(written(web=HEAD + BY_APPROVAL)))
    assert [(step.group, step.count) for step in waits.steps] == [("sre-leads", 1), ("security", 1)]
    assert waits.privilege.duration == 1800
    (finding,) = [each for each in waits.ways[0].findings if each.condition == "approvals"]
    assert finding.sentence == "the request is approved by 1 of sre-leads, 1 of security"
    assert (finding.observed, finding.holds) == ("nobody has approved, 2 missing", False)


def test_approval_is_found_behind_any_number_of_near_misses() -> None:
    networks = "".join(ALLOW_SRE + f'networks = ["10.0.{number}.0/24"]\n' for number in range(20))
    waits = pending(ask(written(web=HEAD + networks + BY_APPROVAL)))
    assert waits.ways[0].rule == "allow 21"
    assert len(waits.ways) == 12


def test_a_rule_without_approvals_decides_before_one_with() -> None:
    loaded = written(web=HEAD + BY_APPROVAL + ALLOW_SRE + "hardware_key = true\n")
    assert granted(ask(loaded, by=facts(hardware_key=True))).ways[0].rule == "allow 2"
    pending(ask(loaded))


def test_approvals_do_not_help_somebody_who_is_not_eligible() -> None:
    loaded = written(web=HEAD + BY_APPROVAL)
    assert "the person is in one of these groups: sre" in denied(ask(loaded, by=facts("dora"))).message
    denied(evaluate(loaded, "web", None, "", facts("dora"), (Approved("ben"), Approved("cleo"))))


def test_whoever_lacks_a_reason_as_well_as_approval_is_told_of_the_reason() -> None:
    loaded = written(web=WITH_REASON.replace(ALLOW_SRE, BY_APPROVAL))
    assert "Start with INC-1234" in denied(ask(loaded)).message
    pending(ask(loaded, reason="INC-1"))


# ------------------------------------------------------------------ who approves

MORE = (
    PEOPLE
    + f"""
[people.lea]
groups = ["sre-leads", "security"]
keys = ["{key(11).line}"]

[people.max]
groups = ["sre-leads"]
keys = ["{key(12).line}"]
"""
)


def by_approvals(approvals: str, more: str = "") -> Policy:
    """ana (sre), ben (sre, sre-leads), lea (sre-leads, security), max (sre-leads), cleo (security)."""
    return written({"people.toml": MORE}, web=more + HEAD + ALLOW_SRE + f"approvals = [{approvals}]\n")


def approved_by(loaded: Policy, *people: str, by: Facts | None = None, duration: int | None = None) -> Decision:
    """Ana's request as it is decided after these people's yes."""
    return evaluate(loaded, "web", duration, "", by or facts(), tuple(map(Approved, people)))


TWO_LEADS = '{ from = "sre-leads", count = 2 }'
LEAD_AND_SECURITY = '{ from = "sre-leads", count = 1 }, { from = "security", count = 1 }'


@pytest.mark.parametrize(
    ("approvals", "people", "enough"),
    [
        (TWO_LEADS, ("ben", "lea"), True),
        (TWO_LEADS, ("ben",), False),
        (TWO_LEADS, ("ben", "ben"), False),
        (TWO_LEADS, ("ben", "cleo"), False),
        (TWO_LEADS, ("ben", "ana"), False),
        (TWO_LEADS, ("ben", "nobody"), False),
        (LEAD_AND_SECURITY, ("lea",), False),
        (LEAD_AND_SECURITY, ("lea", "lea"), False),
        (LEAD_AND_SECURITY, ("lea", "ben"), True),
        (LEAD_AND_SECURITY, ("ben", "lea"), True),
        (LEAD_AND_SECURITY, ("lea", "cleo"), True),
        (LEAD_AND_SECURITY, ("ben", "max"), False),
        (TWO_LEADS + ", " + TWO_LEADS.replace("2", "1"), ("ben", "lea"), False),
        (TWO_LEADS + ", " + TWO_LEADS.replace("2", "1"), ("ben", "lea", "max"), True),
    ],
)
def test_approvals_count_different_people_of_the_named_groups(approvals: str, people: tuple[str, ...], enough: bool) -> None:
    decision = approved_by(by_approvals(approvals), *people)
    assert isinstance(decision, Granted if enough else Pending)


def test_nobody_approves_for_themselves_though_they_are_in_the_group() -> None:
    loaded = by_approvals('{ from = "sre-leads", count = 1 }')
    ben = facts("ben")
    pending(approved_by(loaded, "ben", by=ben))
    granted(approved_by(loaded, "lea", by=ben))
    assert "ben" not in eligible(loaded, Step("sre-leads", 1), ben)


@pytest.mark.parametrize(
    "approvals", [TWO_LEADS.replace("2", "4"), '{ from = "sre-leads", count = 3 }, { from = "security", count = 2 }']
)
def test_what_nobody_could_approve_is_denied_at_once(approvals: str) -> None:
    refused = denied(ask(by_approvals(approvals)))
    assert refused.message.endswith("but nobody else could")
    pending(ask(by_approvals(approvals.replace("4", "3").replace("count = 2", "count = 1"))))


def test_a_person_of_two_groups_is_one_of_the_people_who_could() -> None:
    """Cleo and Lea are security, Ben, Lea and Max are leads: four people, not five."""
    pending(ask(by_approvals('{ from = "sre-leads", count = 2 }, { from = "security", count = 2 }')))
    denied(ask(by_approvals('{ from = "sre-leads", count = 3 }, { from = "security", count = 2 }')))


def test_an_unanswered_step_goes_to_others_after_a_while() -> None:
    loaded = by_approvals('{ from = "sre-leads", count = 1, escalate_after = "10m", escalate_to = "security" }')
    (step,) = pending(ask(loaded)).steps
    for seconds, could in ((0, False), (599, False), (600, True), (3600, True)):
        later = dataclasses.replace(facts(now=NOON + timedelta(seconds=seconds)), asked_at=NOON)
        assert ("cleo" in eligible(loaded, step, later)) == could
        assert "max" in eligible(loaded, step, later), "whoever was asked first still may"
        assert isinstance(approved_by(loaded, "cleo", by=later), Granted if could else Pending)


def test_a_step_that_only_escalation_could_fill_waits() -> None:
    head, ben = HEAD + '[[allow]]\ngroups = ["sre-leads"]\n', facts("ben")
    lonely = 'approvals = [{ from = "sre-leads", count = 1, escalate_after = "10m", escalate_to = "security" }]\n'
    pending(ask(written(web=head + lonely), by=ben))
    denied(ask(written(web=head + lonely.partition(", esc")[0] + " }]\n"), by=ben))


def test_a_request_expires_when_its_role_says() -> None:
    noon = int(NOON.timestamp())
    assert pending(ask(by_approvals(TWO_LEADS))).expires == noon + 8 * 3600
    assert pending(ask(by_approvals(TWO_LEADS, 'pending_expiry = "20m"\n'))).expires == noon + 1200
    later = dataclasses.replace(facts(now=NOON + timedelta(minutes=5)), asked_at=NOON)
    assert pending(approved_by(by_approvals(TWO_LEADS), "ben", by=later)).expires == noon + 8 * 3600


@pytest.mark.parametrize(
    ("durations", "length"), [((None, None), 1800), ((600, None), 600), ((600, 900), 600), ((3600, 1801), 1800)]
)
def test_the_shortest_duration_that_anybody_approved_counts(durations: tuple[int | None, ...], length: int) -> None:
    approvals = tuple(map(Approved, ("ben", "lea"), durations))
    assert granted(evaluate(by_approvals(TWO_LEADS), "web", None, "", facts(), approvals)).privilege.duration == length


def test_a_grant_by_approval_ends_with_the_hours_of_its_rule() -> None:
    hours = 'hours = { from = "09:00", to = "12:10", zone = "UTC" }\n'
    loaded = written({"people.toml": MORE}, web=HEAD + ALLOW_SRE + hours + f"approvals = [{TWO_LEADS}]\n")
    assert granted(approved_by(loaded, "ben", "lea")).privilege.duration == 600
    denied(approved_by(loaded, "ben", "lea", by=facts(now=NOON + timedelta(minutes=10))))


# ------------------------------------------------------------------- budgets


def test_grants_without_approval_have_a_daily_budget() -> None:
    loaded = written(web="auto_per_day = 2\n" + FOR_SRE)
    granted(ask(loaded, by=dataclasses.replace(facts(), auto_granted=1)))
    refused = denied(ask(loaded, by=dataclasses.replace(facts(), auto_granted=2)))
    assert refused.message.endswith(
        "it needs that fewer than 2 grants without approval in the last 24 hours, but it was granted 2 times"
    )
    granted(ask(written(web=FOR_SRE), by=dataclasses.replace(facts(), auto_granted=1000)))


def test_beyond_the_budget_an_approval_is_needed() -> None:
    loaded = written(web="auto_per_day = 0\n" + FOR_SRE + BY_APPROVAL)
    waits = pending(ask(loaded))
    assert waits.ways[0].rule == "allow 2"
    granted(approved_by(loaded, "ben", "cleo", by=dataclasses.replace(facts(), auto_granted=9)))


def test_a_grant_is_extended_a_limited_number_of_times() -> None:
    loaded = written(web="max_extensions = 2\n" + FOR_SRE)
    for extensions, extends in ((None, True), (0, True), (1, True), (2, False), (3, False)):
        decision = ask(loaded, by=dataclasses.replace(facts(), extensions=extensions))
        assert isinstance(decision, Granted) == extends
    granted(ask(written(web=FOR_SRE), by=dataclasses.replace(facts(), extensions=99)))


# ---------------------------------------------------------- what is answered


def test_a_denial_shows_the_nearest_miss_first() -> None:
    far = '[[allow]]\ngroups = ["security"]\nhardware_key = true\nnetworks = ["198.51.100.0/24"]\n'
    near = ALLOW_SRE + "hardware_key = true\n"
    refused = denied(ask(written(web=HEAD + far + near)))
    assert [(way.rule, way.unmet) for way in refused.ways] == [("allow 2", 1), ("allow 1", 3)]
    assert refused.message == (
        "web is not granted: it needs that the request is signed with a security key, but it is signed with an ordinary key"
    )


def test_the_outlook_has_every_role_and_leaves_the_reason_aside() -> None:
    loaded = written(
        nobody=HEAD + '[[allow]]\ngroups = ["security"]\n', approve=HEAD + BY_APPROVAL, web=WITH_REASON, also=FOR_SRE
    )
    seen = outlook(loaded, facts())
    assert [role.name for role, _ in seen] == ["also", "web", "approve", "nobody"]
    assert [type(decision) for _, decision in seen] == [Granted, Granted, Pending, Denied]


def test_the_starter_policy_serves_an_engineer_at_once() -> None:
    files = starter()
    people = PEOPLE.partition("[people.ana]")[2].replace('["sre"]', '["engineers", "sre", "security"]', 1).partition("[people")
    files["people.toml"] += b"\n[people.ana]" + people[0].encode()
    loaded = load(files)
    assert granted(ask(loaded, "dev")).privilege.principals == ("ana@dev",)
    assert loaded.roles["dev"].default
    assert granted(ask(loaded, "web-logs")).privilege.force_command
    denied(ask(loaded, "web-admin", reason="INC-1 disk full"))  # nobody is in sre-leads yet
    assert granted(ask(loaded, "web-admin", reason="INC-1 disk full", by=facts(hardware_key=True))).privilege.source_address
    denied(ask(loaded, "web-vendor", reason="CHG-1"))


@pytest.mark.parametrize("seal", [None, object(), True])
def test_nobody_else_makes_a_granted(seal: object) -> None:
    privilege = Privilege(principals=("root@web-prod",), duration=60)
    with pytest.raises(TypeError, match="from nowhere else"):
        Granted("ana", "web", privilege, (), (), seal=seal)
    got = granted(ask(written(web=FOR_SRE)))
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(got, role="other")  # type: ignore[call-arg]  # that is the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.role = "other"  # type: ignore[misc]  # that is the point
    assert copy.copy(got) == got


def test_a_granted_has_no_other_kinds() -> None:
    with pytest.raises(TypeError, match="one kind"):
        type("Forged", (Granted,), {"__post_init__": lambda *_: None})


def wordy_blocks(kind: str) -> str:
    groups = json.dumps(LONG_GROUPS)
    networks = ", ".join(f'"2001:db8:1111:2222:3333:4444:5555:{number}/128"' for number in range(1000, 1050))
    block = f'[[{kind}]]\ngroups = {groups}\nnetworks = [{networks}]\npeople = ["ana", "ben", "cleo"]\n'
    ending = f'message = "{"🔥" * 300}"\n' if kind == "deny" else 'approvals = [{ from = "sre", count = 1 }]\n'
    window = 'hours = { from = "00:00", to = "23:MM", zone = "America/Argentina/ComodRivadavia" }\n'
    return "".join(block + window.replace("MM", str(minute)) + ending for minute in range(10, 60))


LONG_GROUPS = [f"{'g' * 60}{number}" for number in range(10, 60)]


@pytest.mark.parametrize("kind", ["allow", "deny"])
def test_the_wordiest_decision_fits_in_an_entry(kind: str) -> None:
    defined = "".join(f'{name} = "x"\n' for name in LONG_GROUPS)
    people = PEOPLE.replace('sre = "', f'{defined}sre = "').replace('groups = ["sre"]', f"groups = {json.dumps(LONG_GROUPS)}")
    loaded = written({"people.toml": people}, web=FOR_SRE + wordy_blocks(kind))
    refused = denied(ask(loaded, by=facts(address=None)))
    assert len(refused.ways) == 12
    assert len(canonical.encode(refused)) < LARGEST - 16_384  # the rest is for the statement and its signatures


def test_a_decision_takes_less_than_a_millisecond() -> None:
    window = 'hours = { from = "09:00", to = "17:00", zone = "Europe/Berlin" }\n'
    loaded = written(web=WITH_REASON.replace('"1h"', '"8h"') + window)

    def once() -> float:
        begun = time.perf_counter()
        granted(ask(loaded, reason="INC-1", duration=4 * 3600))
        return time.perf_counter() - begun

    assert min(once() for _ in range(50)) < 0.001


# -------------------------------------------------------------- documentation


def conditions() -> dict[str, type[Condition]]:
    return {name: get_args(field.annotation)[0] for name, field in Conditions.model_fields.items()}


def test_the_manual_has_every_condition_and_every_sentence() -> None:
    manual = (Path(policy.__file__).parent / "POLICY.md").read_text()
    for name, condition in conditions().items():
        assert f"### {name}\n" in manual
        assert f'"{condition.sentence}"' in manual
    for finding, sentence in SENTENCES.items():
        assert f"| `{finding}` | {sentence} |" in manual


ON_CALL = """
[schedules.web]
about = "The web tier"
max_age = "15m"
[[schedules.web.sources]]
kind = "static"
rotas = [["ana"]]
begins = 2027-01-04
handover = "09:00"
zone = "UTC"
days = 7
"""


def test_every_finding_speaks_a_sentence_of_the_vocabulary() -> None:
    sentences = [condition.sentence for condition in conditions().values()] + list(SENTENCES.values())
    beginnings = tuple(sentence.partition("{}")[0] for sentence in sentences)
    every = ALLOW_SRE + 'people = ["ana"]\nhardware_key = true\nnetworks = ["10.0.0.0/8"]\n'
    every += 'hours = { from = "09:00", to = "17:00", zone = "UTC" }\non_call = { schedule = "web", levels = [1] }\n'
    approvals, budgets = 'approvals = [{ from = "sre", count = 1 }]\n', "auto_per_day = 0\nmax_extensions = 0\n"
    loaded = written({"oncall.toml": ON_CALL}, web="pin_source_address = true\n" + budgets + HEAD + every + approvals + ALLOW_SRE)
    refused = denied(ask(loaded, by=dataclasses.replace(facts(), extensions=0)))
    findings = [*refused.findings, *(finding for way in refused.ways for finding in way.findings)]
    about = {"duration", "reason", "pin_source_address", "approvals", "auto_per_day", "max_extensions"}
    assert {finding.condition for finding in findings} == {*conditions(), *about}
    assert all(finding.sentence.startswith(beginnings) and finding.observed for finding in findings)
