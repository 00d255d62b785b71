"""What a change of the policy means: nobody who gains or loses is left out, and each witness shows what is said."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from ca import roles
from ca.compare import Change, Witness, compare
from ca.conditions import Facts, told_shift
from ca.errors import Misconfigured
from ca.policy import Decision, Granted, Pending, evaluate
from ca.roles import Policy
from tests.policies import ALLOW_SRE, FOR_SRE, GUARDRAILS, HEAD, NOON, PEOPLE, files, key, policy
from tests.test_reach import ON_CALL

LEAD = 'approvals = [{ from = "sre-leads", count = 1 }]\n'
SECURITY = '[[allow]]\ngroups = ["security"]\n'


def told(old: Policy, new: Policy) -> list[tuple[str, str | None, str, tuple[str, ...]]]:
    """The changes without their witnesses."""
    return [(each.direction, each.role, each.what, each.people) for each in compare(old, new, NOON)]


def found(old: str, new: str, **written: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is told of the role `web`, when it is changed from one text to the other."""
    sides = (policy({"oncall.toml": ON_CALL} | written, web=text) for text in (old, new))
    return [(direction, what, people) for direction, _, what, people in told(*sides)]


def test_the_same_policy_changes_nothing() -> None:
    assert compare(policy(web=FOR_SRE), policy(web=FOR_SRE), NOON) == ()


def test_words_for_people_change_nothing() -> None:
    said = FOR_SRE.replace("A role", "The role").replace("2027-03-31", "2028-03-31").replace("sre", "security", 1)
    said += '[[example]]\nask = { person = "x", groups = ["sre"] }\nexpect = "granted"\n'
    assert found(FOR_SRE, said) == []


def test_whoever_can_have_a_role_that_is_new_gains_and_a_witness_shows_it() -> None:
    [change] = compare(policy(web=FOR_SRE), policy(web=FOR_SRE, db=FOR_SRE), NOON)
    witness = Witness("ana", NOON.isoformat(), "203.0.113.1", False, {}, 0, ())
    assert change == Change("gains", "db", "denied → granted", ("ana", "ben"), witness)


def test_whoever_had_a_role_that_is_gone_loses() -> None:
    assert told(policy(web=FOR_SRE, db=FOR_SRE), policy(web=FOR_SRE)) == [("loses", "db", "granted → denied", ("ana", "ben"))]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (FOR_SRE, FOR_SRE + LEAD, [
            ("gains", "may approve it", ("ben",)), ("loses", "granted → denied", ("ben",)),
            ("loses", "granted → needs 1 of sre-leads", ("ana",)),
        ]),
        (FOR_SRE, FOR_SRE + SECURITY, [("gains", "denied → granted", ("cleo",))]),
        (FOR_SRE + SECURITY + LEAD, FOR_SRE + SECURITY, [
            ("gains", "needs 1 of sre-leads → granted", ("cleo",)), ("loses", "may approve it", ("ben",)),
        ]),
        (FOR_SRE, FOR_SRE + "hardware_key = true\n", [("loses", "granted → denied", ("ana", "ben"))]),
        (FOR_SRE, HEAD + '[[allow]]\npeople = ["ana"]\n', [("loses", "granted → denied", ("ben",))]),
        (
            HEAD + SECURITY + LEAD, HEAD + SECURITY + LEAD.replace("sre-leads", "sre"),
            [("changes", "needs 1 of sre-leads → needs 1 of sre", ("cleo",)), ("gains", "may approve it", ("ana",))],
        ),
        (
            HEAD + SECURITY + LEAD, HEAD + SECURITY + LEAD.replace("sre-leads", "sre").replace("1 }", "2 }"),
            [("loses", "needs 1 of sre-leads → needs 2 of sre", ("cleo",)), ("gains", "may approve it", ("ana",))],
        ),
        (
            HEAD + SECURITY + LEAD, HEAD + SECURITY + LEAD.replace("1 }", '1, escalate_after = "5m", escalate_to = "sre" }'),
            [
                ("changes", "needs 1 of sre-leads → needs 1 of sre-leads or later of sre", ("cleo",)),
                ("gains", "may approve it", ("ana",)),
            ],
        ),
        (FOR_SRE, FOR_SRE + '[[deny]]\npeople = ["ana"]\nmessage = "No"\n', [("loses", "granted → denied", ("ana",))]),
        (FOR_SRE, HEAD + "pin_source_address = true\n" + ALLOW_SRE, [
            ("loses", "granted → denied", ("ana", "ben")), ("loses", "only from one address", ("ana", "ben")),
        ]),
        (HEAD + "auto_per_day = 2\n" + ALLOW_SRE, HEAD + "auto_per_day = 3\n" + ALLOW_SRE, [
            ("gains", "denied → granted", ("ana", "ben")),
        ]),
    ],
)  # fmt: skip
def test_whoever_gains_or_loses_by_a_rule_is_told(old: str, new: str, expected: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert sorted(found(old, new)) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "other", "expected"),
    [
        ('permit = ["pty"]', 'permit = ["port-forwarding"]', [("gains", "permit port-forwarding"), ("loses", "permit pty")]),
        ('principals = ["root@web-prod"]', 'principals = ["root@dev"]', [
            ("gains", "principal root@dev"), ("loses", "principal root@web-prod"),
        ]),
        ('max_duration = "1h"', 'max_duration = "2h"', [("gains", "for 1h → for 2h at most")]),
        ('max_duration = "2h"', 'max_duration = "1h"', [("loses", "for 2h → for 1h at most")]),
        ("", 'force_command = "w"', [("loses", "runs anything → runs w")]),
        ('force_command = "w"', "", [("gains", "runs w → runs anything")]),
        ('force_command = "w"', 'force_command = "id"', [("changes", "runs w → runs id")]),
        ("pin_source_address = true", "", [("gains", "denied → granted"), ("gains", "from any address")]),
        ("", 'reason = { pattern = "^INC", message = "Say INC" }', [("changes", "reason")]),
        ("max_extensions = 1", "max_extensions = 2", [("changes", "max_extensions")]),
        ("", 'certificate_duration = "5m"\npending_expiry = "1h"', [("changes", "certificate_duration, pending_expiry")]),
    ],
)  # fmt: skip
def test_what_a_role_gives_is_told_to_whoever_can_have_it(line: str, other: str, expected: list[tuple[str, str]]) -> None:
    head = "\n".join(each for each in HEAD.splitlines() if each.partition(" =")[0] not in (line + other))
    old, new = (f"{head}\n{each}\n{ALLOW_SRE}" for each in (line, other))
    assert [(direction, what) for direction, what, people in found(old, new) if people == ("ana", "ben")] == expected


def test_powers_over_others_and_keys_are_told() -> None:
    people = PEOPLE.replace("groups = []\n", 'groups = ["security"]\n').replace(f', "{key(2).line}"', "")
    people = people.replace(f'keys = ["{key(3).line}"]', f'keys = ["{key(3).line}", "{key(9).line}"]')
    rails = GUARDRAILS + 'revokers = ["sre-leads"]\n'
    assert told(policy(web=FOR_SRE), policy({"people.toml": people, "guardrails.toml": rails}, web=FOR_SRE)) == [
        ("gains", None, "reads the whole log", ("dora",)),
        ("gains", None, "revokes and locks", ("ben",)),
        ("gains", None, f"signs with {key(9).fingerprint}", ("ben",)),
        ("loses", None, f"signs with {key(2).fingerprint}", ("ana",)),
    ]


def test_other_sources_of_who_is_on_call_are_told() -> None:
    sides = (policy({"oncall.toml": ON_CALL.replace("days = 7", f"days = {days}")}, web=FOR_SRE) for days in (7, 14))
    assert told(*sides) == [("changes", None, "who is on call on schedule web is learnt otherwise", ())]


def test_somebody_who_comes_or_goes_gains_or_loses_what_they_may() -> None:
    more = PEOPLE + f'[people.eve]\ngroups = ["sre"]\nkeys = ["{key(9).line}"]\n'
    one, other = policy(web=FOR_SRE), policy({"people.toml": more}, web=FOR_SRE)
    assert told(one, other) == [("gains", "web", "denied → granted", ("eve",))]
    assert told(other, one) == [("loses", "web", "granted → denied", ("eve",))]


def test_who_cannot_be_approved_any_more_loses_though_the_role_is_as_it_was() -> None:
    """Ben was the only lead besides nobody: when he leaves the group, ana asks in vain."""
    less = PEOPLE.replace('["sre", "sre-leads"]', '["sre"]')
    text = HEAD + '[[allow]]\ngroups = ["sre", "security"]\n' + LEAD
    assert told(policy(web=text), policy({"people.toml": less}, web=text)) == [
        ("loses", "web", "may approve it", ("ben",)),
        ("loses", "web", "needs 1 of sre-leads → denied", ("ana", "cleo")),
    ]


def test_a_window_that_a_change_of_the_clock_opens_is_found() -> None:
    """In UTC the hours are the same all winter; they differ by the hour that summer time takes."""
    hours = ALLOW_SRE + 'hours = {{ from = "09:00", to = "10:00", zone = "{}" }}\n'
    # Both are an hour ahead of UTC, one of them all year.
    old, new = (policy(web=HEAD + hours.format(zone)) for zone in ("Europe/Berlin", "Africa/Lagos"))
    [gain, loss] = compare(old, new, NOON)
    assert (gain.what, loss.what) == ("denied → granted", "granted → denied")
    assert gain.witness is not None
    assert gain.witness.at == "2027-03-28T08:00:00+00:00", "the first day of summer time"
    assert gain.witness.observed == ("it is sun 10:00 in Europe/Berlin", "it is sun 09:00 in Africa/Lagos")


# ------------------------------------------------------------------------ nothing is left out

ALLOWS = [
    'groups = ["sre"]\n', 'people = ["cleo", "dora"]\n', 'groups = ["sre", "security"]\nhardware_key = true\n',
    'groups = ["sre-leads"]\nhours = { from = "09:00", to = "10:00", zone = "UTC" }\n',
    'groups = ["sre"]\nnetworks = ["192.0.2.0/24"]\n',
    'people = ["ana"]\nnetworks = ["192.0.2.7/32"]\n', 'on_call = { schedule = "web", levels = [1] }\n',
    'on_call = { schedule = "web", levels = [2, 3] }\nhours = { days = ["tue"], from = "11:00", to = "13:00", zone = "UTC" }\n',
    'groups = ["sre", "security"]\napprovals = [{ from = "sre-leads", count = 1 }]\n',
    'groups = ["security"]\napprovals = [{ from = "sre", count = 2 }]\n',
]  # fmt: skip
DENIALS = [
    "", '[[deny]]\npeople = ["ana"]\nmessage = "No"\n', '[[deny]]\nhardware_key = false\nmessage = "No"\n',
    '[[deny]]\nnetworks = ["192.0.2.0/28"]\nmessage = "No"\n',
    '[[deny]]\non_call = { schedule = "web", levels = [2] }\nmessage = "No"\n',
]  # fmt: skip
OTHER_PEOPLE = PEOPLE.replace("groups = []\n", 'groups = ["sre"]\n').replace('["sre", "sre-leads"]', '["sre"]')


def every_state() -> Iterator[Facts]:
    """Facts of all kinds, others than those that the comparison chooses."""
    moments = [NOON, NOON - timedelta(hours=2, minutes=30), NOON + timedelta(days=1)]
    addresses, levels = (None, "192.0.2.1", "192.0.2.7", "192.0.2.99", "198.51.100.1"), (None, 1, 2, 4, "unknown")
    people = ["ana", "ben", "cleo", "dora"]
    for person, now, address, touched, level in product(people, moments, addresses, (False, True), levels):
        shift = level if isinstance(level, str) else told_shift("web", "x", person, level)
        yield replace(Facts(person, address, touched, now), on_call={"web": shift})


def outcome(decision: Decision) -> str:
    match decision:
        case Granted():
            return "granted"
        case Pending(steps=steps):
            return "needs " + " and ".join(f"{step.count} of {step.group}" for step in steps)
        case _:
            return "denied"


@pytest.mark.parametrize("people", [PEOPLE, OTHER_PEOPLE], ids=["same people", "other people"])
@pytest.mark.parametrize("denial", range(len(DENIALS)))
@pytest.mark.parametrize("at", range(len(ALLOWS)))
def test_whatever_two_policies_decide_differently_is_told_of_that_person(at: int, denial: int, people: str) -> None:
    rules = (ALLOWS[at], ALLOWS[at - 1] + "[[allow]]\n" + ALLOWS[at - 3])
    denials = (DENIALS[denial], DENIALS[denial - 1])
    staff: tuple[Mapping[str, str], ...] = ({"oncall.toml": ON_CALL}, {"oncall.toml": ON_CALL, "people.toml": people})
    old, new = (
        policy(files, web=HEAD + "[[allow]]\n" + rule + denial) for files, rule, denial in zip(staff, rules, denials, strict=True)
    )
    changes = [each for each in compare(old, new, NOON) if each.witness is not None]
    said = {(person, change.what) for change in changes for person in change.people}
    for facts in every_state():
        before, after = (outcome(evaluate(side, "web", None, None, facts)) for side in (old, new))
        assert before == after or (facts.person, f"{before} → {after}") in said
    for change in changes:
        assert change.witness is not None
        facts = facts_of(change.witness)
        assert change.what == " → ".join(outcome(evaluate(side, "web", None, None, facts)) for side in (old, new))


def facts_of(witness: Witness) -> Facts:
    """The facts that a witness tells of."""
    shifts: dict[str, Any] = {
        schedule: told_shift(schedule, "x", witness.person, level or None) for schedule, level in witness.on_call.items()
    }
    now = datetime.fromisoformat(witness.at)
    return Facts(witness.person, witness.address, witness.hardware_key, now, shifts, auto_granted=witness.auto_granted)


# ----------------------------------------------------------------------------------- size


def test_a_role_with_too_many_states_is_an_error_and_not_a_wait() -> None:
    schedules = "".join(ON_CALL.replace("schedules.web", f"schedules.s{at}") for at in range(12))
    blocks = "".join(f'[[allow]]\non_call = {{ schedule = "s{at}", levels = [1] }}\n' for at in range(12))
    old, new = (policy({"oncall.toml": schedules}, web=HEAD + text) for text in (blocks, blocks + ALLOW_SRE))
    with pytest.raises(Misconfigured, match=r"role web asks \w+ about too much at once"):
        compare(old, new, NOON)


def test_ten_thousand_people_and_five_hundred_roles_that_all_change_take_seconds() -> None:
    groups = "".join(f'g{n} = "A group"\n' for n in range(100)) + 'leads = "Leads"\nsre = "SRE"\nsecurity = "S"\n'
    people = f'[groups]\n{groups}[people.ana]\ngroups = ["g0"]\nkeys = ["{key(1).line}"]\n'
    text = HEAD + '[[allow]]\ngroups = ["g{}"]\nhardware_key = true\n[[allow]]\ngroups = ["g{}"]\n{}'
    written = {f"r{n}": text.format(n % 100, (n + 7) % 100, LEAD.replace("sre-leads", "leads")) for n in range(500)}
    rails = GUARDRAILS + '[[deny]]\nnetworks = ["192.0.2.0/24"]\nmessage = "No"\n'
    old, new = (roles.load(files({"people.toml": people, **more}, **written)) for more in ({}, {"guardrails.toml": rails}))
    ana, names = old.people["ana"], [f"p{n}" for n in range(10_000)]
    persons = [replace(ana, name=name, groups=(f"g{n % 100}", f"g{n % 7}"), keys=()) for n, name in enumerate(names)]
    leads = [replace(ana, name=f"lead{n}", groups=("leads",), keys=()) for n in range(50)]
    begun = time.process_time()
    changes = compare(old.of([*persons, *leads]), new.of([*persons, *leads]), NOON)
    assert len(changes) == 1000
    assert time.process_time() - begun < 10
