"""Warnings about policies that load: each doubt is told where there is cause, and nowhere else."""

from datetime import date, timedelta

import pytest

from ca.policy import Decision, Denied, Granted, Pending, evaluate
from ca.review import warnings
from tests.policies import ALLOW_SRE, FOR_SRE, GUARDRAILS, HEAD, PEOPLE, facts, policy

REVIEWED = date(2027, 3, 31)
PINNED = HEAD + "pin_source_address = true\n"
SOUND = PINNED + ALLOW_SRE + "hardware_key = true\n"
NEEDED = '[[allow]]\ngroups = ["security"]\nhardware_key = true\n'


NEEDLESS = "never decides anything: allow[{}] wants less of the same"


def told(role: str) -> tuple[str, ...]:
    """The warnings about one role, `web`, without its path."""
    return tuple(line.removeprefix("roles/web.toml: ") for line in warnings(policy(web=role), REVIEWED))


def test_a_role_that_says_what_is_meant_is_not_warned_of() -> None:
    assert told(SOUND) == ()


def test_a_role_past_its_review_is_told_from_the_day_after() -> None:
    loaded = policy(web=SOUND)
    assert warnings(loaded, REVIEWED) == ()
    assert warnings(loaded, REVIEWED + timedelta(days=1)) == (
        "roles/web.toml: review_by: 2027-03-31 has passed: sre should look at the role again",
    )


@pytest.mark.parametrize(
    "role",
    [
        PINNED + '[[allow]]\ngroups = ["empty"]\nhardware_key = true\n',
        FOR_SRE + 'approvals = [{ from = "empty", count = 1 }]\n',
        FOR_SRE + 'approvals = [{ from = "sre-leads", count = 2 }]\n',
        SOUND + '[[deny]]\ngroups = ["sre"]\nmessage = "No"\n',
    ],
)
def test_a_role_that_nobody_can_get_is_told(role: str) -> None:
    people = PEOPLE.replace("[groups]\n", '[groups]\nempty = "Nobody yet"\n')
    loaded = policy({"people.toml": people}, web=role)
    assert warnings(loaded, REVIEWED) == (
        "roles/web.toml: nobody can get it: nobody fits a rule, or too few people could approve",
    )
    assert warnings(loaded.of(()), REVIEWED) == (), "before there is anybody it is no news"


@pytest.mark.parametrize("safe", ["hardware_key = true\n", 'approvals = [{ from = "sre-leads", count = 1 }]\n'])
def test_root_for_the_asking_is_told(safe: str) -> None:
    assert told(FOR_SRE) == ("allow[1]: gives root without approvals, on_call or hardware_key",)
    assert told(PINNED + ALLOW_SRE + safe) == ()
    assert told(FOR_SRE.replace("root@", "logs@")) == ()
    assert told(FOR_SRE.replace('"root@web-prod"', '"logs@web-prod", "root@dev"'))


def test_root_for_a_touch_alone_is_told_unless_something_bounds_it() -> None:
    touched, doubt = "hardware_key = true\n", "allow[1]: gives root for a touch alone, anywhere and without end"
    assert [each.startswith(doubt) for each in told(FOR_SRE + touched)] == [True]
    for bound in ('networks = ["203.0.113.0/24"]\n', 'approvals = [{ from = "sre-leads", count = 1 }]\n'):
        assert told(FOR_SRE + touched + bound) == (), bound
    for bound in ("auto_per_day = 5\n", "pin_source_address = true\n"):
        assert told(HEAD + bound + ALLOW_SRE + touched) == (), bound
    assert told(FOR_SRE.replace("root@", "logs@") + touched) == ()
    assert told(PINNED + ALLOW_SRE) == ("allow[1]: gives root without approvals, on_call or hardware_key",)


def test_a_rule_that_another_makes_needless_is_told() -> None:
    leads = 'approvals = [{ from = "sre-leads", count = 1 }]\n'
    touched = ALLOW_SRE + "hardware_key = true\n"
    assert told(SOUND + NEEDED) == ()
    assert told(SOUND + touched + leads) == ("allow[2]: " + NEEDLESS.format(1),)
    assert told(PINNED + touched + leads + touched) == ("allow[1]: " + NEEDLESS.format(2),)
    assert told(PINNED + touched + ALLOW_SRE + leads) == (), "without a security key, a lead is asked"
    assert told(PINNED + touched + leads + ALLOW_SRE + leads) == ("allow[1]: " + NEEDLESS.format(2),)
    assert told(PINNED + "auto_per_day = 3\n" + touched + touched + leads) == (), "above the budget it decides"


def test_a_deny_after_a_wider_one_is_told() -> None:
    wide, narrow = '[[deny]]\ngroups = ["security"]\nmessage = "A"\n', '[[deny]]\ngroups = ["security"]\nhardware_key = false\n'
    doubt = "deny[2]: never decides anything: deny[1] matches whenever it does"
    assert told(SOUND + wide + narrow + 'message = "B"\n') == (doubt,)
    assert told(SOUND + narrow + 'message = "B"\n' + wide) == (), "the first says more to those whom it matches"


BLOCKS = [
    ALLOW_SRE,
    ALLOW_SRE + "hardware_key = true\n",
    ALLOW_SRE + 'networks = ["203.0.113.0/24"]\n',
    ALLOW_SRE + 'approvals = [{ from = "sre-leads", count = 1 }]\n',
    ALLOW_SRE + 'hardware_key = true\napprovals = [{ from = "sre-leads", count = 1 }]\n',
    ALLOW_SRE + 'hours = { from = "12:00", to = "12:10", zone = "UTC" }\n',
    '[[allow]]\npeople = ["ana"]\nhours = { from = "12:00", to = "12:10", zone = "UTC" }\n',
]


def decided(decision: Decision) -> tuple[object, ...]:
    """What a decision gives, without its reasons."""
    match decision:
        case Granted(privilege=privilege):
            return ("granted", privilege)
        case Pending(privilege=privilege, steps=steps):
            return ("pending", privilege, steps)
        case Denied():
            return ("denied",)


@pytest.mark.parametrize("first", BLOCKS)
@pytest.mark.parametrize("second", BLOCKS)
def test_a_rule_told_of_as_needless_can_go_without_any_decision_changing(first: str, second: str) -> None:
    if first == second:
        return  # a problem already
    doubts = told(HEAD + first + second)
    for at, other in ((1, second), (2, first)):
        if any(line.startswith(f"allow[{at}]: never decides") for line in doubts):
            both, alone = policy(web=HEAD + first + second), policy(web=HEAD + other)
            for person in both.people:
                for touched in (False, True):
                    for address in (None, "203.0.113.9"):
                        by = facts(person, address, touched)
                        assert decided(evaluate(both, "web", None, "", by)) == decided(evaluate(alone, "web", None, "", by))


def test_guardrails_count_for_who_can_get_a_role() -> None:
    frozen = {"guardrails.toml": GUARDRAILS + '[[deny]]\nmessage = "Frozen"\n'}
    assert len(warnings(policy(frozen, web=SOUND), REVIEWED)) == 1
