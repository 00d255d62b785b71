"""`jit-ssh-ca policy`: what it tells is what the server would decide, and OPERATING.md shows it as it is."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from ca.findings import Finding, Way
from server import admin
from tests import keys
from tests.running import Ran, run

MANUAL: Final = (Path(admin.__file__).parent / "OPERATING.md").read_text()
# A change within the vendors' window, from their network.
CHANGE: Final = ["--reason", "CHG-7", "--at", "2027-03-02T10:00+01:00", "--address", "198.51.100.7"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA as init makes it, with ana, and vic of a supplier."""
    directory = tmp_path_factory.mktemp("made")
    lines = {name: keys.make(directory, name=name).public_key.line for name in ("ana", "vic")}
    (directory / "ana.pub").write_text(lines["ana"])
    init = run("init", directory / "ca", "--origin", "ca.example.com", "--person", "ana", "--key", directory / "ana.pub")
    assert init.code == 0, init.err
    with (directory / "ca/policies/people.toml").open("a") as people:
        people.write(f'\n[people.vic]\ngroups = ["vendors"]\nkeys = ["{lines["vic"]}"]\n')
    return directory / "ca"


def explain(ca: Path, person: str, role: str, *options: str) -> Ran:
    """`policy explain`, which has to succeed."""
    ran = run("policy", "explain", ca, person, role, *options)
    assert ran.code == 0, ran.err
    return ran


def as_json(ca: Path, *arguments: str) -> dict[str, Any]:
    """What `policy explain --json` prints."""
    answer: dict[str, Any] = json.loads(explain(ca, *arguments, "--json").out)
    return answer


@pytest.mark.parametrize("command", ["explain", "test", "who-can"])
def test_the_manual_shows_what_the_command_prints(ca: Path, command: str) -> None:
    section = MANUAL.split(f"## jit-ssh-ca policy {command} DIR\n", 1)[1].split("\n## ", 1)[0].split("\n| option", 1)[0]
    transcript = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    ") or not line)
    typed, _, shown = transcript.strip().partition("\n")
    arguments = typed.removeprefix("$ jit-ssh-ca ").replace('"INC-12 disk full"', "INC-12_disk_full").split()
    ran = run(*(argument.replace("/etc/jit-ssh", str(ca)).replace("_", " ") for argument in arguments))
    assert (ran.code, ran.out + ran.err) == (0, shown.replace("/etc/jit-ssh", str(ca)) + "\n")


@pytest.mark.parametrize(
    ("arguments", "decision", "message"),
    [
        (["ana", "dev"], "granted", "ana@dev for 8h, by allow 1"),
        (["ana", "dev", "--for", "1h"], "granted", "ana@dev for 1h, by allow 1"),
        (["ana", "dev", "--for", "1d"], "denied", "the duration is between 1s and the role's maximum of 12h, but it is for 1d"),
        (["ana", "web-restart", "--reason", "INC-1", "--on-call", "web=1"], "granted", "restart@web-prod for 15m, by allow 1"),
        (["ana", "web-restart", "--reason", "INC-1", "--on-call", "web=0"], "denied", "ana is not on call"),
        (["ana", "web-restart", "--reason", "INC-1"], "denied", "web was not looked at"),
        (["ana", "web-restart", "--on-call", "web=1"], "denied", "no reason was given"),
        (["vic", "web-admin"], "denied", "Vendors use web-vendor"),
        (["vic", "web-vendor", *CHANGE], "granted", "cdn-agent@web-prod for 1h, by allow 1"),
        (["vic", "web-vendor", *CHANGE, "--address", "203.0.113.9"], "denied", "but it comes from 203.0.113.9"),
        (["vic", "web-vendor", *CHANGE, "--at", "2027-03-03T09:00Z"], "denied", "but it is wed 10:00 in Europe/Berlin"),
        (["nobody", "dev"], "denied", "the person is in people.toml"),
        (["ana", "dve"], "denied", "(did you mean 'dev'?)"),
    ],
)
def test_the_decision_is_that_of_the_facts_given(ca: Path, arguments: list[str], decision: str, message: str) -> None:
    answer = as_json(ca, *arguments)
    assert answer["decision"] == decision
    assert message in answer["message"]
    assert explain(ca, *arguments).out.splitlines()[0] == f"{decision}: {answer['message']}"


def test_a_request_that_others_can_approve_is_pending(ca: Path, tmp_path: Path) -> None:
    lead = keys.make(tmp_path, name="lea").public_key.line
    policies = tmp_path / "policies"
    for source in (ca / "policies").rglob("*.toml"):
        target = policies / source.relative_to(ca / "policies")
        target.parent.mkdir(parents=True, exist_ok=True)
        more = f'\n[people.lea]\ngroups = ["sre-leads"]\nkeys = ["{lead}"]\n' if source.name == "people.toml" else ""
        target.write_text(source.read_text() + more)
    answer = as_json(policies, "ana", "web-restart", "--reason", "INC-1")
    assert answer["decision"] == "pending"
    assert answer["message"] == "restart@web-prod for 15m, once approved by 1 of sre-leads"
    assert answer["steps"] == [{"group": "sre-leads", "count": 1, "could": ["lea"]}]
    assert "\nwho could approve\n  1 of sre-leads: lea\n" in explain(policies, "ana", "web-restart", "--reason", "INC-1").out
    ways = run("policy", "who-can", policies, "restart@web-prod").out
    assert "ana  web-restart, allow 2\n" in ways
    assert "  needs   the request is approved by 1 of sre-leads\n" in ways


def test_json_is_of_the_decisions_own_findings(ca: Path) -> None:
    answer = as_json(ca, "ana", "web-logs")
    assert answer.keys() == {"decision", "message", "findings", "ways"}
    findings = [Finding(**finding) for way in answer["ways"] for finding in Way(**way).findings]  # type: ignore[arg-type]
    assert [finding.condition for finding in findings] == ["groups"]
    ways = json.loads(run("policy", "who-can", ca, "logs@web-prod", "--json").out)
    assert ways == {
        "principal": "logs@web-prod",
        "ways": [{"person": "ana", "role": "web-logs", "rule": "allow 1", "needs": [], "unless": []}],
    }


def test_an_account_that_nobody_can_get_to_is_said_so(ca: Path) -> None:
    ran = run("policy", "who-can", ca, "root@dev")
    assert (ran.code, ran.out) == (0, "Nobody can get to root@dev.\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "ana", "dev", "--at", "yesterday"], "'yesterday' is not a moment"),
        (["explain", "ana", "dev", "--at", "2027-03-02T10:00"], "has no time zone"),
        (["explain", "ana", "dev", "--for", "ever"], "'ever' is not a duration"),
        (["explain", "ana", "dev", "--on-call", "web"], "is not a schedule and a level"),
        (["explain", "ana", "dev", "--on-call", "web=one"], "is not a schedule and a level"),
        (["explain", "ana", "dev", "--on-call", "web=²"], "is not a schedule and a level"),
        (["explain", "ana", "dev", "--on-call", "wbe=1"], "unknown schedule 'wbe'"),
        (["explain", "ana", "dev", "--address", "ana.example.com"], "'ana.example.com' is not an address"),
        (["who-can", "root"], "principal 'root' is not allowed"),
        (["who-can", "root@web-prod\x1b[2J"], "is not allowed"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_a_hint(ca: Path, arguments: list[str], says: str) -> None:
    command, *rest = arguments
    ran = run("policy", command, ca, *rest)
    assert ran.code == 1
    assert says in ran.err
    assert "\nhint: " in ran.err
    assert "\x1b" not in ran.err


def test_a_policy_with_problems_is_not_explained(tmp_path: Path) -> None:
    for command, *arguments in (["explain", "ana", "dev"], ["who-can", "root@dev"]):
        ran = run("policy", command, tmp_path, *arguments)
        assert ran.code == 1
        assert "people.toml: missing" in ran.err


def test_an_example_that_comes_out_otherwise_is_told_with_the_reasons(ca: Path, tmp_path: Path) -> None:
    policies = Path(shutil.copytree(ca / "policies", tmp_path / "policies"))
    role = policies / "roles" / "web-logs.toml"
    role.write_text(role.read_text().replace('["engineers"], duration = "4h"', '["vendors"], duration = "4h"'))
    ran = run("policy", "test", policies)
    assert (ran.code, ran.out) == (1, "")
    lines = ran.err.splitlines()
    assert lines[0] == "roles/web-logs.toml: example[1]: granted was expected, but it is"
    assert lines[1].startswith("  denied: web-logs is not granted: it needs that the person is in one of these groups: engineers")
    assert "    no      the person is in one of these groups: engineers: ana is in vendors" in lines
    assert lines[-2:] == [
        "jit-ssh-ca: error: 1 of 19 examples came out otherwise",
        "hint: Change the rules, or what the example expects; ca/POLICY.md describes both",
    ]


def test_a_program_gets_every_problem_warning_and_failed_example_as_json(ca: Path, tmp_path: Path) -> None:
    policies = Path(shutil.copytree(ca / "policies", tmp_path / "policies"))
    checked = json.loads(run("policy", "check", policies, "--json").out)
    assert (checked["problems"], checked["roles"], checked["people"], checked["host_groups"]) == ([], 6, 2, 3)
    assert "roles/db-root.toml: nobody can get it: nobody fits a rule, or too few people could approve" in checked["warnings"]
    assert json.loads(run("policy", "test", policies, "--json").out) == {"examples": 19, "failed": []}
    role = policies / "roles" / "web-logs.toml"
    role.write_text(role.read_text().replace('["engineers"], duration = "4h"', '["vendors"], duration = "4h"'))
    ran = run("policy", "test", policies, "--json")
    [failed] = json.loads(ran.out)["failed"]
    assert (ran.code, failed["role"], failed["example"], failed["expected"]) == (1, "web-logs", 1, "granted")
    assert failed["decision"] == "denied"
    assert failed["ways"][0]["findings"][0]["observed"] == "ana is in vendors"
    role.write_text(role.read_text().replace('groups = ["engineers"]', 'groups = ["enginers"]'))
    ran = run("policy", "check", policies, "--json")
    assert (ran.code, ran.err) == (1, "")
    assert json.loads(ran.out)["problems"][0].startswith("roles/web-logs.toml: allow[1].groups[1]: unknown group 'enginers'")


def test_what_a_reason_looks_like_and_what_was_granted_before_can_be_said(ca: Path, tmp_path: Path) -> None:
    restart = ["ana", "web-restart", "--on-call", "web=1"]
    assert as_json(ca, *restart, "--any-reason")["decision"] == "granted"
    policies = Path(shutil.copytree(ca / "policies", tmp_path / "policies"))
    role = policies / "roles" / "web-restart.toml"
    role.write_text(role.read_text().replace("[[allow]]", "auto_per_day = 2\n[[allow]]", 1))
    said = [as_json(policies, *restart, "--any-reason", "--granted", str(times))["decision"] for times in (1, 2)]
    assert said == ["granted", "denied"]


def test_warnings_go_beside_the_answer_and_change_no_exit_code(ca: Path, tmp_path: Path) -> None:
    policies = Path(shutil.copytree(ca / "policies", tmp_path / "policies"))
    role = policies / "roles" / "web-admin.toml"
    role.write_text(role.read_text().replace("hardware_key = true\n", "").replace("2027-03-31", "2026-01-31"))
    checked = run("policy", "check", policies)
    assert checked.code == 0
    assert checked.out.endswith("no problems\n")
    told = [line for line in checked.err.splitlines() if "web-admin" in line]
    assert told == [
        "warning: roles/web-admin.toml: review_by: 2026-01-31 has passed: sre-leads should look at the role again",
        "warning: roles/web-admin.toml: allow[1]: gives root without approvals, on_call or hardware_key",
        "warning: roles/web-admin.toml: allow[2]: never decides anything: allow[1] wants less of the same",
    ]
