"""The examples of role files: decided as requests are, about the rules alone, and read as strictly as the rest."""

import pytest

from ca import roles
from ca.policy import Denied
from ca.trial import Trial, trials
from tests.policies import FOR_SRE, GUARDRAILS, HEAD, PEOPLE, policy, problems
from tests.test_roles import starter

ROTA = """
[schedules.web]
about = "Web"
[[schedules.web.sources]]
kind = "static"
rotas = [[]]
begins = 2027-01-04
handover = "09:00"
zone = "UTC"
days = 7
"""
TWO_STEPS = FOR_SRE + 'approvals = [{ from = "sre-leads", count = 2 }, { from = "security", count = 1 }]\n'


def example(ask: str, expect: str, more: str = "") -> str:
    """One `[[example]]` by ana."""
    return f'[[example]]\nask = {{ person = "ana", {ask} }}\nexpect = "{expect}"\n{more}'


def tried(role: str, *written: str) -> list[bool]:
    """Which of the examples of a role pass."""
    loaded = policy({"oncall.toml": ROTA}, web=role + "".join(written))
    return [trial.passed for trial in trials(loaded)]


def test_an_example_passes_when_the_decision_is_the_one_expected_and_fails_otherwise() -> None:
    for expect in ("granted", "pending", "denied"):
        assert tried(FOR_SRE, example('groups = ["sre"]', expect)) == [expect == "granted"]
        assert tried(TWO_STEPS, example('groups = ["sre"]', expect)) == [expect == "pending"]
        assert tried(FOR_SRE, example('groups = ["security"]', expect)) == [expect == "denied"]


def test_a_failed_example_has_the_decision_with_its_reasons() -> None:
    [trial] = trials(policy(web=FOR_SRE + example("groups = []", "granted")))
    assert (trial.role, trial.at, trial.passed) == ("web", 1, False)
    assert isinstance(trial.decision, Denied)
    assert trial.decision.ways[0].findings[0].observed == "ana is in no group"


def test_the_person_is_in_the_groups_of_the_example_whatever_people_toml_says() -> None:
    assert policy().people["ana"].groups == ("sre",)
    assert tried(FOR_SRE, example("groups = []", "denied"), example('groups = ["sre"]', "granted")) == [True, True]
    stranger = example('groups = ["sre"]', "granted").replace("ana", "nobody-yet")
    assert tried(FOR_SRE, stranger) == [True]


def test_approvals_are_of_different_people_of_those_groups() -> None:
    asked = 'groups = ["sre", "sre-leads", "security"]'
    for approvals, expect in (
        ('["sre-leads", "sre-leads", "security"]', "granted"),
        ('["sre-leads", "security"]', "pending"),
        ('["sre-leads", "sre-leads", "sre-leads"]', "pending"),
        ('["sre", "sre", "sre"]', "pending"),
        ("[]", "pending"),
    ):
        assert tried(TWO_STEPS, example(asked, expect, f"approvals = {approvals}\n")) == [True], approvals


def test_an_example_does_not_fail_because_a_group_is_empty() -> None:
    groups_only = {"people.toml": PEOPLE.partition("[people.ana]")[0]}
    loaded = policy(groups_only, web=TWO_STEPS + example('groups = ["sre"]', "pending"))
    assert not loaded.people
    assert [trial.passed for trial in trials(loaded)] == [True]


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ("hardware_key = true", "hardware_key = true", "hardware_key = false"),
        ('networks = ["192.0.2.0/24"]', 'address = "192.0.2.7"', 'address = "2001:db8::1"'),
        ('networks = ["192.0.2.0/24"]', 'address = "192.0.2.7"', 'reason = "no address"'),
        (
            'hours = { from = "09:00", to = "10:00", zone = "Europe/Berlin" }',
            'at = "2027-01-15T09:00+01:00"',
            'at = "2027-01-15T09:00Z"',
        ),
        ('on_call = { schedule = "web", levels = [1] }', "on_call = { web = 1 }", "on_call = { web = 2 }"),
        ('on_call = { schedule = "web", levels = [1] }', "on_call = { web = 1 }", 'reason = "not on call"'),
    ],
)
def test_every_fact_of_an_example_is_one_of_the_request(condition: str, holds: str, fails: str) -> None:
    text = FOR_SRE + condition + "\n"
    group = 'groups = ["sre"], '
    assert tried(text, example(group + holds, "granted"), example(group + fails, "denied")) == [True, True]


def test_who_is_not_on_call_by_an_example_is_known_not_to_be() -> None:
    text = FOR_SRE + '[[deny]]\non_call = { schedule = "web", levels = [1] }\nmessage = "Rest"\n'
    group = 'groups = ["sre"]'
    assert tried(text, example(group, "granted"), example(group + ", on_call = { web = 1 }", "denied")) == [True, True]


def test_duration_and_reason_are_judged() -> None:
    text = HEAD + 'reason = { pattern = "^INC", message = "Say INC" }\n' + FOR_SRE.removeprefix(HEAD)
    group = 'groups = ["sre"], '
    assert tried(
        text,
        example(group + 'reason = "INC-1", duration = "1h"', "granted"),
        example(group + 'reason = "INC-1", duration = "2h"', "denied"),
        example(group + 'duration = "1h"', "denied"),
    ) == [True, True, True]


def test_the_guardrails_hold_in_examples() -> None:
    written = {"guardrails.toml": GUARDRAILS + '[[deny]]\ngroups = ["security"]\nmessage = "No"\n'}
    loaded = policy(written, web=FOR_SRE + example('groups = ["sre", "security"]', "denied"))
    assert [trial.passed for trial in trials(loaded)] == [True]


def test_examples_change_no_decision_and_no_policy() -> None:
    loaded = policy(web=FOR_SRE + example('groups = ["sre"]', "granted"))
    before = dict(loaded.people)
    trials(loaded)
    assert dict(loaded.people) == before
    assert loaded.members("sre") == {"ana", "ben"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('person = "ana"', 'persn = "ana"', "example[1].ask.persn: unknown key (did you mean 'person'?)"),
        ('person = "ana", ', "", "example[1].ask.person: missing"),
        ('person = "ana"', 'person = "@ana"', "example[1].ask.person: person '@ana' is not allowed"),
        ('["sre"]', '["srs"]', "example[1].ask.groups[1]: unknown group 'srs' (did you mean 'sre'?)"),
        ("web = 1", "wbe = 1", "unknown schedule 'wbe' (did you mean 'web'?)"),
        ("web = 1", "web = 0", "example[1].ask.on_call.web: must be greater than or equal to 1"),
        ("192.0.2.1", "192.0.2.1/24", "example[1].ask.address: '192.0.2.1/24' is not an address"),
        ("T09:00+01:00", "T09:00", "example[1].ask.at: '2027-01-15T09:00' has no time zone"),
        ("2027-01-15T09:00+01:00", "0001-01-01T00:00+01:00", "has no time zone, or no usual year"),
        ("2027-01-15T", "Friday ", "example[1].ask.at: 'Friday 09:00+01:00' is not a moment"),
        ('"30m"', '"25h"', "example[1].ask.duration: 25h is more than the 1d that any grant may last"),
        ('["sre-leads"]', '["ana"]', "example[1].approvals[1]: unknown group 'ana'"),
        ('"granted"', '"grantd"', "example[1].expect: must be 'granted', 'pending' or 'denied'"),
        ('expect = "granted"\n', "", "example[1].expect: missing"),
        ('expect = "granted"\n', 'expect = "granted"\nwhy = "so"\n', "example[1].why: unknown key"),
    ],
)
def test_an_example_is_read_strictly(old: str, new: str, problem: str) -> None:
    asked = (
        'groups = ["sre"], on_call = { web = 1 }, hardware_key = true, address = "192.0.2.1", reason = "INC-12", '
        'at = "2027-01-15T09:00+01:00", duration = "30m"'
    )
    sound = example(asked, "granted", 'approvals = ["sre-leads"]\n')
    assert tried(FOR_SRE, sound) == [True]
    assert old in sound
    assert problem in "\n".join(problems({"oncall.toml": ROTA}, web=FOR_SRE + sound.replace(old, new)))


def test_every_starter_role_has_examples_that_pass_of_each_outcome() -> None:
    found: tuple[Trial, ...] = trials(roles.load(starter()))
    assert [(trial.role, trial.at) for trial in found if not trial.passed] == []
    assert {trial.role for trial in found} == roles.load(starter()).roles.keys()
    assert {trial.example.expect for trial in found} == {"granted", "pending", "denied"}
    for role in ("db-root", "web-admin", "web-restart"):
        assert {trial.example.expect for trial in found if trial.role == role} == {"granted", "pending", "denied"}
