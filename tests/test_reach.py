"""Who can get to an account: every person and way, none that never opens, and fast in a large company."""

import time
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from ca import roles
from ca.conditions import Facts
from ca.oncall import Shift
from ca.policy import Granted, Pending, evaluate
from ca.reach import Reach, who_can
from tests.policies import ALLOW_SRE, FOR_SRE, GUARDRAILS, HEAD, NOON, files, key, policy

ON_CALL = """
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


def ways(found: tuple[Reach, ...]) -> list[tuple[str, str, str]]:
    """The ways without what they need."""
    return [(reach.person, reach.role, reach.rule) for reach in found]


def test_the_members_of_an_allowed_group_can_and_nobody_else() -> None:
    found = who_can(policy(web=FOR_SRE), "root@web-prod")
    assert found == (Reach("ana", "web", "allow 1", (), ()), Reach("ben", "web", "allow 1", (), ()))


@pytest.mark.parametrize("principal", ["root@dev", "admin@web-prod", "root@nowhere", "{person}@web-prod"])
def test_another_account_or_host_group_is_not_reached(principal: str) -> None:
    assert who_can(policy(web=FOR_SRE), principal) == ()


def test_a_personal_account_is_reached_by_its_person_only() -> None:
    loaded = policy(own=FOR_SRE.replace("root@web-prod", "{person}@dev"))
    assert ways(who_can(loaded, "ana@dev")) == [("ana", "own", "allow 1")]
    assert who_can(loaded, "cleo@dev") == ()
    assert who_can(loaded, "root@dev") == ()


def test_what_depends_on_the_moment_is_told_as_needed() -> None:
    text = HEAD + 'reason = { pattern = "^INC", message = "Say INC" }\nauto_per_day = 2\n' + ALLOW_SRE
    text += 'hardware_key = true\nnetworks = ["192.0.2.0/24"]\n[[allow]]\non_call = { schedule = "web", levels = [1] }\n'
    found = who_can(policy({"oncall.toml": ON_CALL}, web=text), "root@web-prod")
    common = ("the reason is as the role wants it (Say INC)", "fewer than 2 grants without approval in the last 24 hours")
    ana = [reach for reach in found if reach.person == "ana"]
    assert ana[0].needs[2:] == common
    assert ana[0].needs[:2] == (
        "the request comes from one of these networks: 192.0.2.0/24",
        "the request is signed with a security key",
    )
    assert ana[1].needs == ("the person is level 1 on call on schedule web", *common)
    assert {reach.person for reach in found if reach.rule == "allow 2"} == {"ana", "ben", "cleo", "dora"}


def test_approvals_are_told_and_a_way_that_nobody_could_approve_is_none() -> None:
    text = FOR_SRE + 'approvals = [{ from = "sre-leads", count = 1 }]\n'
    found = who_can(policy(web=text), "root@web-prod")  # ben is the only lead, and does not approve his own
    assert found == (Reach("ana", "web", "allow 1", ("the request is approved by 1 of sre-leads",), ()),)


def test_a_role_without_grants_of_its_own_accord_is_no_way() -> None:
    assert who_can(policy(web=HEAD + "auto_per_day = 0\n" + ALLOW_SRE), "root@web-prod") == ()


def test_a_denial_of_the_person_closes_the_way_and_one_of_the_moment_is_told() -> None:
    denials = '[[deny]]\npeople = ["ben"]\nmessage = "No"\n[[deny]]\ngroups = ["sre"]\nhardware_key = false\nmessage = "No"\n'
    found = who_can(policy(web=FOR_SRE + denials), "root@web-prod")
    assert found == (Reach("ana", "web", "allow 1", (), ("the request is not signed with a security key",)),)
    other = {"guardrails.toml": GUARDRAILS + '[[deny]]\nroles = ["web"]\nmessage = "Frozen"\n'}
    frozen = policy(other, web=FOR_SRE, also=FOR_SRE)
    assert {reach.role for reach in who_can(frozen, "root@web-prod")} == {"also"}


BLOCKS = [
    'groups = ["sre"]\n', 'people = ["cleo", "dora"]\n', 'groups = ["sre"]\nhardware_key = true\n',
    'groups = ["sre-leads"]\nhours = { from = "09:00", to = "10:00", zone = "UTC" }\n',
    'people = ["ana"]\nnetworks = ["192.0.2.0/24"]\n', 'on_call = { schedule = "web", levels = [1] }\n',
    'groups = ["sre", "security"]\napprovals = [{ from = "sre-leads", count = 1 }]\n',
]  # fmt: skip
DENIALS = ["", '[[deny]]\npeople = ["ana"]\nmessage = "No"\n', '[[deny]]\nhardware_key = false\nmessage = "No"\n']


@pytest.mark.parametrize("denial", DENIALS)
@pytest.mark.parametrize("block", BLOCKS)
def test_those_told_of_are_exactly_those_whom_the_decision_lets_in_at_some_moment(block: str, denial: str) -> None:
    loaded = policy({"oncall.toml": ON_CALL}, web=HEAD + "[[allow]]\n" + block + denial)
    moments = [NOON, NOON - timedelta(hours=2, minutes=30)]
    addresses, hardware, levels = (None, "192.0.2.1", "203.0.113.9"), (False, True), (None, 1)
    let_in = set()
    for person, now, address, touched, level in product(loaded.people, moments, addresses, hardware, levels):
        shift = Shift("web", "the rota", level, None, 0, ())
        facts = replace(Facts(person, address, touched, now), on_call={"web": shift})
        if isinstance(evaluate(loaded, "web", None, "", facts), Granted | Pending):
            let_in.add(person)
    assert {reach.person for reach in who_can(loaded, "root@web-prod")} == let_in


def test_two_thousand_roles_and_ten_thousand_people_take_less_than_a_second() -> None:
    line = key(1).line
    groups = "".join(f'g{n} = "A group"\n' for n in range(100)) + 'all = "All"\nleads = "Leads"\nsre = "SRE"\nsecurity = "S"\n'
    # One key is nobody's twice, and making ten thousand takes long: the people are put in after loading.
    people = f'[groups]\n{groups}[people.ana]\ngroups = ["all"]\nkeys = ["{line}"]\n'
    text = HEAD + '[[allow]]\ngroups = ["g{}", "g1{}"]\napprovals = [{{ from = "leads", count = 2 }}]\n'
    other = HEAD.replace("root@web-prod", "app{}@web-prod") + '[[allow]]\ngroups = ["all"]\n'
    written = {f"r{n}": (text if n < 10 else other).format(n, n) for n in range(2000)}
    loaded = roles.load(files({"people.toml": people}, **written))
    ana, names = loaded.people["ana"], [f"p{n}" for n in range(10_000)]
    persons = {name: replace(ana, name=name, groups=("all", f"g{n % 100}")) for n, name in enumerate(names)}
    large = replace(loaded, people=persons, _members={"all": frozenset(names), "leads": frozenset(names[:50])})
    for principal, ways_to_it in (("root@web-prod", 2_000), ("app17@web-prod", 10_000)):
        begun = time.process_time()
        assert len(who_can(large, principal)) == ways_to_it
        assert time.process_time() - begun < 1, principal
