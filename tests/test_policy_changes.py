"""`jit-ssh-ca policy diff` and `replay` as a pipeline runs them: what they print, and the codes they end with."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests import keys
from tests.running import Ran, Running, body, run
from tests.test_policy_commands import MANUAL

WEB_LOGS = 'groups = ["engineers"]\n'


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with ana, who asked for two roles and holds one."""
    directory = tmp_path_factory.mktemp("made")
    ana = keys.make(directory, name="ana")
    init = run("init", directory / "ca", "--origin", "ca.example.com", "--person", "ana", "--key", directory / "ana.pub")
    assert init.code == 0, init.err
    server = Running(directory / "ca")
    assert server.ask(body(ana, ana, role="web-logs"))[0] == 201
    assert server.ask(body(ana, ana, role="web-restart", reason="INC-1"))[0] == 403
    assert server.stops() == 0
    return directory / "ca"


@pytest.fixture
def proposed(ca: Path, tmp_path: Path) -> Path:
    """A copy of the policies, to be changed."""
    return Path(shutil.copytree(ca / "policies", tmp_path / "proposed"))


def write(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def contents(directory: Path) -> dict[Path, bytes]:
    """All files but the one in which SQLite's readers note that they read."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and not path.name.endswith("-shm")}


def hire(proposed: Path, groups: str) -> None:
    """Bo, in these groups."""
    line = keys.make(proposed.parent, name="bo").public_key.line
    with (proposed / "people.toml").open("a") as people:
        people.write(f'\n[people.bo]\ngroups = [{groups}]\nkeys = ["{line}"]\n')


def in_the_manual(command: str) -> str:
    """What the manual shows of it."""
    section = MANUAL.split(f"## jit-ssh-ca policy {command}\n", 1)[1].split("\n## ", 1)[0]
    return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    ")).partition("\n")[2]


def like_the_manual(ran: Ran, proposed: Path) -> str:
    """The output with the manual's directory and moments."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "2027-01-15T08:00:00", ran.out.replace(str(proposed), "proposed"))
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d ", "2027-01-15 08:00 ", text)


def test_nobody_gains_or_loses_by_the_same_policy(ca: Path, proposed: Path) -> None:
    assert run("policy", "diff", ca, proposed) == Ran(0, "Everything is decided as before.\n", "")
    assert json.loads(run("policy", "diff", ca, proposed, "--json").out) == {"changes": []}


def test_who_gains_is_told_with_a_moment_that_explain_shows(ca: Path, proposed: Path) -> None:
    hire(proposed, "")
    before = Path(shutil.copytree(proposed, proposed.parent / "before"))
    write(proposed / "roles/web-admin.toml", 'groups = ["sre"]\n', 'people = ["bo"]\n')
    write(proposed / "roles/web-admin.toml", 'people = ["bo"]\n', 'people = ["bo", "ana"]\n')
    ran = run("policy", "diff", before, proposed)
    assert (ran.code, ran.err) == (7, "")
    assert like_the_manual(ran, proposed).rstrip() == in_the_manual("diff")
    shown = ran.out.splitlines()[-1].strip().removeprefix("jit-ssh-ca ").split()
    assert run(*shown).out.startswith("granted: ")
    old = [each.replace(str(proposed), str(before)) for each in shown]
    assert run(*old).out.startswith("denied: ")
    [change] = json.loads(run("policy", "diff", before, proposed, "--json").out)["changes"]
    assert {name: change[name] for name in ("direction", "role", "what", "people")} == {
        "direction": "gains", "role": "web-admin", "what": "denied → granted", "people": ["bo"],
    }  # fmt: skip
    assert change["witness"]["hardware_key"] is True


def test_a_change_by_which_nobody_gains_has_a_code_of_its_own(ca: Path, proposed: Path) -> None:
    (proposed / "roles/web-logs.toml").unlink()
    ran = run("policy", "diff", ca, proposed)
    assert (ran.code, ran.out.splitlines()[:2]) == (6, ["loses", "  web-logs: granted → denied: ana"])


def test_a_policy_with_problems_is_compared_with_nothing(ca: Path, proposed: Path) -> None:
    write(proposed / "roles/web-logs.toml", "engineers", "enginers")
    for command in ("diff", "replay"):
        ran = run("policy", command, ca, proposed)
        assert (ran.code, ran.out) == (1, "")
        assert "unknown group 'enginers'" in ran.err


def test_the_requests_of_the_past_are_decided_again_as_the_manual_shows(ca: Path, proposed: Path) -> None:
    hire(proposed, '"sre-leads"')
    write(proposed / "roles/web-logs.toml", WEB_LOGS, WEB_LOGS + 'approvals = [{ from = "sre-leads", count = 1 }]\n')
    write(proposed / "roles/web-restart.toml", '{ from = "sre-leads"', '{ from = "security"')
    ran = run("policy", "replay", ca, proposed)
    assert (ran.code, ran.err) == (6, "")
    assert like_the_manual(ran, proposed).rstrip() == in_the_manual("replay DIR")
    told = json.loads(run("policy", "replay", ca, proposed, "--json").out)
    assert (told["requests"], told["now"]) == (2, {"granted": 0, "denied": 0, "need_approval": 1})
    [only] = told["otherwise"]
    assert (only["entry"], only["was"], only["now"]) == (2, "granted", "pending")


def test_a_replay_in_which_more_is_granted_ends_with_its_code_and_one_of_nothing_with_none(ca: Path, proposed: Path) -> None:
    assert run("policy", "replay", ca, proposed) == Ran(0, "2 requests: all would come out as they did\n", "")
    write(proposed / "roles/web-restart.toml", "[[allow]]", '[[allow]]\npeople = ["ana"]\n[[allow]]')
    ran = run("policy", "replay", ca, proposed)
    assert (ran.code, ran.out.splitlines()[0]) == (
        7, "2 requests: 1 would now be granted, 0 denied, 0 would need approval",
    )  # fmt: skip
    assert run("policy", "replay", ca, proposed, "--since", "2040-01-01").out == "0 requests: all would come out as they did\n"
    assert "'soon' is not a time" in run("policy", "replay", ca, proposed, "--since", "soon").err


def test_a_replay_changes_nothing_and_needs_a_ca(ca: Path, proposed: Path) -> None:
    before = contents(ca)
    assert run("policy", "replay", ca, proposed).code == 0
    assert contents(ca) == before
    refused = run("policy", "replay", proposed, proposed)
    assert refused.code == 1
    assert "\nhint: " in refused.err
