"""Policy files as values: what loads, what does not, and how each problem is told."""

import re
import subprocess
import time
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import roles
from ca.break_glass import BreakGlass
from ca.errors import Malformed, Misconfigured
from ca.fields import MAX_DURATION, Table, duration_text, seconds
from tests.policies import FOR_SRE, GUARDRAILS, HEAD, HOSTS, PEOPLE, files, key, policy, problems, problems_of

STARTER = Path(__file__).parent.parent / "policies"


def starter() -> dict[str, bytes]:
    return {str(path.relative_to(STARTER)): path.read_bytes() for path in STARTER.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- what loads


def test_a_policy_is_its_files_as_values() -> None:
    loaded = policy(web=FOR_SRE)
    role = loaded.roles["web"]
    assert (role.name, role.default_duration, role.max_duration) == ("web", 1800, 3600)
    assert (role.permit, role.default, role.pin_source_address, role.force_command) == (("pty",), False, False, None)
    assert loaded.people["ben"].groups == ("sre", "sre-leads")
    assert loaded.hosts["dev"].hosts == ("*.dev.example.com",)


def test_a_key_leads_to_its_one_person_and_to_nobody_else() -> None:
    loaded = policy()
    assert loaded.owner_of(key(2)) == loaded.people["ana"]
    assert loaded.owner_of(key(3)) == loaded.people["ben"]
    assert loaded.owner_of(key(77)) is None


def test_a_revoked_key_is_known_as_such_and_others_are_not() -> None:
    assert policy().is_revoked(key(99))
    assert not policy().is_revoked(key(1))


def test_auditors_are_the_members_of_the_auditing_groups() -> None:
    loaded = policy()
    assert [person for person in (*loaded.people, "stranger") if loaded.is_auditor(person)] == ["cleo"]


def test_a_principal_is_an_account_on_the_hosts_of_a_group() -> None:
    root, ana = policy().accounts(("root@web-prod", "ana@dev"))
    assert (root.account, root.host_group, root.hosts) == ("root", "web-prod", ("web-*.prod.example.com", "www.example.com"))
    assert (ana.account, ana.hosts) == ("ana", ("*.dev.example.com",))


def test_nothing_in_a_loaded_policy_can_be_changed() -> None:
    loaded = policy(web=FOR_SRE)
    for change in (
        lambda: loaded.people.update(eve=loaded.people["ana"]),  # type: ignore[attr-defined]  # that is the point
        lambda: setattr(loaded, "roles", {}),
        lambda: setattr(loaded.roles["web"], "max_duration", 10**6),
        lambda: setattr(loaded.roles["web"].allow[0], "groups", None),
        lambda: setattr(loaded.people["ana"], "groups", ("security",)),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            change()


def test_documents_and_hidden_files_are_left_alone() -> None:
    beside = {"README": "x", "roles/README.txt": "x", "roles/why.md": "x", ".git/config": "x", "roles/.web.toml.swp": "x"}
    assert policy(beside, web=FOR_SRE).roles.keys() == {"web"}


def test_a_policy_without_roles_or_people_loads_and_gives_nothing() -> None:
    loaded = policy({"people.toml": '[groups]\nsecurity = "Reads the log"\n'})
    assert not loaded.people
    assert not loaded.roles


@given(st.integers(1, MAX_DURATION))
def test_a_duration_is_read_as_it_is_written(length: int) -> None:
    assert seconds(duration_text(length)) == length


@pytest.mark.parametrize(("text", "length"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("1d", 86400)])
def test_durations_have_four_units(text: str, length: int) -> None:
    assert seconds(text) == length


@given(st.text(max_size=12))
def test_text_is_a_duration_or_malformed(text: str) -> None:
    try:
        assert seconds(text) > 0
    except Malformed:
        assert not re.fullmatch(r"[1-9][0-9]{0,5}[smhd]", text, re.ASCII)


# ----------------------------------------------------------- starter policies


def test_the_starter_policy_loads() -> None:
    assert roles.load(starter()).roles.keys() == {"db-root", "dev", "web-logs", "web-admin", "web-restart", "web-vendor"}


def test_a_person_appended_to_the_starter_people_is_in_it() -> None:
    written = starter()
    written["people.toml"] += f'\n[people.ana]\ngroups = ["engineers", "sre", "security"]\nkeys = ["{key(1).line}"]\n'.encode()
    loaded = roles.load(written)
    assert loaded.owner_of(key(1)) == loaded.people["ana"]
    assert loaded.is_auditor("ana")


# ------------------------------------------------------------------- problems


def test_every_problem_of_every_file_is_told_at_once() -> None:
    assert problems(
        {"hosts.toml": HOSTS + "[groups.db]\nabout = 3\n", "guardrails.toml": 'auditors = ["securty"]\n'},
        one=FOR_SRE.replace('owner = "sre"', 'owner = "srs"').replace("about", "abot"),
        two=FOR_SRE.replace('"1h"', '"25h"') + 'people = ["anna"]\n',
    ) == (
        "hosts.toml: groups.db.about: must be text in quotes",
        "hosts.toml: groups.db.hosts: missing",
        "guardrails.toml: auditors[1]: unknown group 'securty' (did you mean 'security'?)",
        "roles/one.toml: about: missing",
        "roles/one.toml: owner: unknown group 'srs' (did you mean 'sre'?)",
        "roles/one.toml: abot: unknown key (did you mean 'about'?)",
        "roles/two.toml: max_duration: 25h is more than the 1d that any grant may last",
        "roles/two.toml: allow[1].people[1]: unknown person 'anna' (did you mean 'ana'?)",
    )


def test_one_bad_file_among_many_leaves_no_policy() -> None:
    good = {f"role{number}": FOR_SRE for number in range(50)}
    assert len(policy(**good).roles) == 50
    with pytest.raises(Misconfigured, match=r"^the policy has 1 problem$"):
        policy(bad="about = ", **good)


def test_a_syntax_error_is_told_with_its_line() -> None:
    assert problems(web='about = "x"\nowner = \n') == ("roles/web.toml: not TOML: Invalid value (at line 2, column 9)",)


def test_a_missing_file_is_a_problem() -> None:
    for name in ("people.toml", "hosts.toml", "guardrails.toml"):
        assert f"{name}: missing" in problems_of({kept: text for kept, text in files().items() if kept != name})


def test_an_unreadable_file_does_not_make_the_names_it_defines_unknown() -> None:
    assert problems({"people.toml": "sre\n"}, web=FOR_SRE) == (
        "people.toml: not TOML: Expected '=' after a key in a key/value pair (at line 1, column 4)",
    )


ALLOW = '[[allow]]\ngroups = ["sre"]\n'


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (HEAD, "allow: missing"),
        (HEAD + "allow = []\n", "allow: must not be empty"),
        (HEAD + "[[allow]]\n", "allow[1]: says not who may have the role: add groups, people or on_call"),
        (HEAD + "[[allow]]\nhardware_key = true\n", "allow[1]: says not who may have the role: add groups, people or on_call"),
        (HEAD + "[[allow]]\ngroups = []\n", "allow[1].groups: must not be empty"),
        (HEAD + '[[allow]]\npeople = ["*"]\n', "allow[1].people[1]: unknown person '*'"),
        (HEAD + '[[allow]]\ngroups = "sre"\n', "allow[1].groups: must be a list in [ ]"),
        (HEAD + '[[allow]]\ngroups = ["sre", "sre"]\n', "allow[1].groups: entry 2 is the same as an earlier one"),
        (HEAD + ALLOW + ALLOW, "allow: entry 2 is the same as an earlier one"),
        (HEAD + ALLOW + 'gruops = ["sre"]\n', "allow[1].gruops: unknown key (did you mean 'groups'?)"),
        (HEAD + ALLOW + "session = true\n", "allow[1].session: unknown key"),
        (HEAD + ALLOW + "hardware_key = 1\n", "allow[1].hardware_key: must be true or false"),
        (
            HEAD + ALLOW + "hardware_key = false\n",
            "allow[1]: hardware_key = false would shut out those with a security key: leave it out",
        ),
        (HEAD + ALLOW + "approvals = []\n", "allow[1].approvals: must not be empty"),
        (
            HEAD + ALLOW + 'approvals = [{ from = "sre-lead", count = 1 }]\n',
            "allow[1].approvals[1].from: unknown group 'sre-lead' (did you mean 'sre-leads'?)",
        ),
        (
            HEAD + ALLOW + 'approvals = [{ from = "sre", count = 0 }]\n',
            "allow[1].approvals[1].count: must be greater than or equal to 1",
        ),
        (HEAD + ALLOW + 'approvals = [{ from = "sre" }]\n', "allow[1].approvals[1].count: missing"),
        (FOR_SRE + '[[deny]]\ngroups = ["sre"]\n', "deny[1].message: missing"),
        (FOR_SRE.replace('"30m"', '"2h"'), "default_duration: 2h is more than max_duration, 1h"),
        (FOR_SRE.replace("2027-03-31", '"2027-03-31"'), "review_by: must be a date without quotes, such as 2027-03-31"),
        (FOR_SRE.replace("root@web-prod", "root@web-pro"), "unknown host group 'web-pro' (did you mean 'web-prod'?)"),
        ('permit = ["shell"]\n' + FOR_SRE, "permit[1]: must be 'pty', 'port-forwarding',"),
        ('name = "other"\n' + FOR_SRE, "name: unknown key; a role is named by its file"),
        (FOR_SRE.replace('"A role"', '" "'), "about: must be one line of printable text without spaces around it"),
    ],
)
def test_a_role_that_says_too_little_too_much_or_nonsense_is_not_loaded(written: str, problem: str) -> None:
    assert any(f"roles/web.toml: {problem}" in line or problem in line for line in problems(web=written))
    assert policy(web=FOR_SRE).roles


HOURS = '[[allow]]\ngroups = ["sre"]\nhours = { days = ["mon"], from = "09:00", to = "17:00", zone = "Europe/Berlin" }\n'


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"mon"', '"mo"', "hours.days[1]: must be 'mon', 'tue',"),
        ('["mon"]', "[]", "hours.days: must not be empty"),
        ('"09:00"', '"9:00"', "hours.from: '9:00' is not a time of day"),
        ('"17:00"', '"24:01"', "hours.to: '24:01' is not a time of day"),
        ('"17:00"', '"09:00"', "hours: the window is empty"),
        ('"09:00"', '"24:00"', "hours: the window is empty"),
        ("Europe/Berlin", "Europe/Berln", "unknown time zone 'Europe/Berln' (did you mean 'Europe/Berlin'?)"),
        ("Europe/Berlin", "Europe", "unknown time zone 'Europe'"),
        ("Europe/Berlin", "localtime", "unknown time zone 'localtime'"),
        ("Europe/Berlin", "../../../etc/localtime", "unknown time zone"),
        ("Europe/Berlin", "/etc/localtime", "unknown time zone"),
        (', zone = "Europe/Berlin"', "", "hours.zone: missing"),
    ],
)
def test_hours_are_a_window_of_real_minutes_in_a_real_zone(old: str, new: str, problem: str) -> None:
    assert policy(web=HEAD + HOURS).roles
    assert problem in "\n".join(problems(web=HEAD + HOURS.replace(old, new)))


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("203.0.113.9", "write 203.0.113.9/32"),
        ("2001:DB8::/32", "write 2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "write the IPv4 network"),
        ("10.0.0.0/33", "is not a network"),
        ("010.0.0.0/8", "is not a network"),
        ("example.com", "is not a network"),
    ],
)
def test_networks_are_written_canonically(network: str, problem: str) -> None:
    written = HEAD + ALLOW + 'networks = ["NETWORK"]\n'
    assert policy(web=written.replace("NETWORK", "10.0.0.0/8")).roles
    assert problem in problems(web=written.replace("NETWORK", network))[0]


def test_a_key_of_two_people_is_a_problem() -> None:
    line = problems({"people.toml": PEOPLE.replace(key(3).line, key(1).line)})[0]
    assert line == "people.toml: people.ben.keys[1]: ana has the same key; a key says who signs, so it is one person's"


def test_a_key_that_one_person_lists_twice_is_a_problem() -> None:
    assert "people.ana.keys: entry 2 is the same" in problems({"people.toml": PEOPLE.replace(key(2).line, key(1).line)})[0]


def test_a_key_cannot_be_listed_and_revoked() -> None:
    line = problems({"people.toml": PEOPLE.replace(key(99).fingerprint, key(2).fingerprint)})[0]
    assert line == f"people.toml: people.ana.keys[2]: {key(2).fingerprint} is in revoked_keys as well; remove it here"


def test_ssh_keygen_prints_the_fingerprints_that_revoke(tmp_path: Path) -> None:
    public = tmp_path / "key.pub"
    public.write_text(key(7).line + "\n")
    printed = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout.split()[1]
    assert policy({"people.toml": PEOPLE.replace(key(99).fingerprint, printed)}).is_revoked(key(7))


def test_a_personal_account_has_no_second_meaning() -> None:
    personal = FOR_SRE.replace('"root@web-prod"', '"{person}@dev"')
    assert policy(mine=personal, web=FOR_SRE).roles
    assert problems(mine=personal.replace('"{person}@dev"', '"{person}@dev", "ana@dev"')) == (
        "roles/mine.toml: principals[2]: ana@dev is ana's own account by {person}@dev",
    )
    assert problems(mine=personal, other=FOR_SRE.replace("root@web-prod", "ben@dev")) == (
        "roles/other.toml: principals[1]: ben@dev is ben's own account by {person}@dev",
    )
    assert policy(mine=personal, other=FOR_SRE.replace("root@web-prod", "ben@web-prod")).roles


def test_a_guardrail_names_roles_that_exist() -> None:
    written = GUARDRAILS + '[[deny]]\ngroups = ["sre"]\nroles = ["wbe"]\nmessage = "No"\n'
    assert problems({"guardrails.toml": written}, web=FOR_SRE) == (
        "guardrails.toml: deny[1].roles[1]: unknown role 'wbe' (did you mean 'web'?)",
    )


def test_two_thousand_roles_load_in_seconds() -> None:
    many = {f"role-{number}": FOR_SRE for number in range(2000)}
    begun = time.perf_counter()
    policy(**many)
    assert time.perf_counter() - begun < 10  # 0.6 on a laptop; what this catches is quadratic


# -------------------------------------------------------------- documentation

MANUAL = (Path(roles.__file__).parent / "POLICY.md").read_text()


def tables(shape: type[Table]) -> set[type[Table]]:
    found = {shape}
    for field in shape.model_fields.values():
        queue = [field.annotation]
        while queue:
            mentioned = queue.pop()
            queue += typing.get_args(mentioned)
            if isinstance(mentioned, type) and issubclass(mentioned, Table) and mentioned not in found:
                found |= tables(mentioned)
    return found


@pytest.mark.parametrize("shape", [roles.PeopleFile, roles.HostsFile, roles.Guardrails, BreakGlass, roles.Role])
def test_the_manual_names_every_key(shape: type[Table]) -> None:
    for table in tables(shape):
        for name, field in table.model_fields.items():
            if (table, name) == (roles.Role, "name"):
                continue
            key_name = re.escape(field.alias or name)
            mention = rf"`(?:[\w.]+\.)?{key_name}`|^### {key_name}$|[{{,] {key_name} = "
            assert re.search(mention, MANUAL, re.MULTILINE), f"{table.__name__}.{name} is not in POLICY.md"
