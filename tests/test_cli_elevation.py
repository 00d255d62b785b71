"""A privilege that is not yours by day: asked for, approved by another person, used, renewed, given back; with the real programs.

Four people: ana asks, bo and eve lead, dee is security. Time is real, and the policy makes it short.
"""

import json
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from ca import canonical, merkle
from cli import case_text
from cli.accounts import Account
from cli.case import Case
from cli.problems import WrongCase
from tests import keys, sshd
from tests.home import JIT_SSH, PATIENCE, Home, ServedCA, make_home, served_ca, ssh_agent
from tests.sshd import Sshd, current_account

ACCOUNT: Final = current_account()
REVIEW: Final = 'owner = "leads"\nreview_by = 2099-01-01\n'
PEOPLE: Final = """[groups]
sre = "On call"
leads = "Approve"
security = "Revoke"
[people.ana]
groups = ["sre"]
keys = ["{ana}"]
[people.bo]
groups = ["sre", "leads"]
keys = ["{bo}"]
[people.eve]
groups = ["leads"]
keys = ["{eve}"]
[people.dee]
groups = ["security"]
keys = ["{dee}"]
"""
FILES: Final = {
    "hosts.toml": '[groups.local]\nabout = "Here"\nhosts = ["127.0.0.1"]\n[groups.db]\nabout = "Db"\nhosts = ["db-*.example"]\n',
    "guardrails.toml": 'auditors = ["security"]\nrevokers = ["security"]\n',
    "roles/admin.toml": f"""about = "Everything here"
{REVIEW}principals = ["{ACCOUNT}@local"]
default_duration = "1m"
max_duration = "10m"
certificate_duration = "5s"
max_extensions = 1
reason = {{ pattern = "^INC-[0-9]+", message = "Start with the incident number" }}
[[allow]]
groups = ["sre"]
approvals = [{{ from = "leads", count = 1 }}]
""",
    "roles/renewed.toml": f"""about = "In parts"
{REVIEW}principals = ["renewed@local"]
default_duration = "9m"
max_duration = "9m"
certificate_duration = "5m"
[[allow]]
groups = ["sre"]
""",
    "roles/db-admin.toml": f"""about = "Root on databases"
{REVIEW}principals = ["root@db"]
default_duration = "10m"
max_duration = "10m"
[[allow]]
groups = ["sre"]
approvals = [{{ from = "leads", count = 1 }}]
""",
    "roles/db-both.toml": f"""about = "Root and backup on databases"
{REVIEW}principals = ["root@db", "backup@db"]
default_duration = "10m"
max_duration = "10m"
[[allow]]
groups = ["sre"]
""",
    "roles/db-logs.toml": f"""about = "Logs of databases"
{REVIEW}principals = ["logs@db"]
default_duration = "10m"
max_duration = "10m"
[[allow]]
groups = ["sre"]
""",
    "roles/db-safe.toml": f"""about = "The safe"
{REVIEW}principals = ["safe@db"]
default_duration = "10m"
max_duration = "10m"
[[allow]]
groups = ["leads"]
""",
}


@dataclass(frozen=True)
class Town:
    """A served CA, and where the keys of its people are."""

    ca: ServedCA
    keys: Path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("people")
    public = {name: keys.make(directory, name=name).public_key.line for name in ("ana", "bo", "eve", "dee")}
    with served_ca(tmp_path_factory.mktemp("served") / "ca", PEOPLE.format(**public), FILES) as ca:
        yield Town(ca, directory)


def home_of(town: Town, person: str, directory: Path) -> Home:
    home = make_home(directory / person, town.keys / person)
    done = home.run("setup", town.ca.url, "--fingerprint", town.ca.fingerprint)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def security(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return home_of(town, "dee", tmp_path_factory.mktemp("security"))


@pytest.fixture(autouse=True)
def _nothing_is_left_open(security: Home) -> Iterator[None]:
    """Whatever a test leaves waiting or granted is ended before the next."""
    yield
    assert security.run("revoke", "--person", "ana", "--reason", "the test is over").returncode == 0


@pytest.fixture
def ana(town: Town, tmp_path: Path) -> Home:
    return home_of(town, "ana", tmp_path)


@pytest.fixture
def bo(town: Town, tmp_path: Path) -> Home:
    return home_of(town, "bo", tmp_path)


@pytest.fixture
def eve(town: Town, tmp_path: Path) -> Home:
    return home_of(town, "eve", tmp_path)


@pytest.fixture
def dee(security: Home) -> Home:
    return security


@pytest.fixture
def server(ana: Home, tmp_path: Path) -> Iterator[Sshd]:
    path = tmp_path / "ca.pub"
    path.write_text(json.loads((ana.ours / "profile.json").read_text())["ca_keys"][0] + "\n")
    with sshd.trusting(tmp_path / "sshd", path, ["local"]) as running:
        yield running


def ssh_command(home: Home, server: Sshd, command: str) -> list[str]:
    known_hosts = home.path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line)
    options = [f"UserKnownHostsFile={known_hosts}", "BatchMode=yes"]
    flags = [part for option in options for part in ("-o", option)]
    return ["ssh", "-F", str(home.path / ".ssh" / "config"), *flags, "-p", str(server.port), f"{ACCOUNT}@127.0.0.1", command]


def plain_ssh(home: Home, server: Sshd, command: str = "echo in") -> subprocess.CompletedProcess[str]:
    """ssh without a terminal."""
    line = ssh_command(home, server, command)
    environment = home.environment | {"SHELL": "/bin/sh"}
    new = True  # of a session, so that no terminal of whoever runs the tests is asked
    return subprocess.run(
        line, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, start_new_session=new
    )


def ask(home: Home, role: str = "db-admin", reason: str = "INC-1") -> str:
    """Asks without waiting; the request's number."""
    done = home.run("login", role, "--reason", reason, "--no-wait")
    assert done.returncode == 4, done.stderr
    return done.stdout.strip()


def rewrite(path: Path, **members: object) -> None:
    """Other values of some members of one of the client's own files."""
    path.write_bytes(canonical.encode(json.loads(path.read_text()) | members))


# ---------------------------------------------------------------- the story


def test_the_whole_story(ana: Home, bo: Home, eve: Home, dee: Home, server: Sshd) -> None:
    """Ask, wait, be approved by another person, ssh in, be renewed, extend, drop, and be refused afterwards."""
    with ssh_agent() as agent:
        ana = replace(ana, agent=agent)
        assert "jit-ssh login admin --reason …" in plain_ssh(ana, server).stderr
        with ana.started("login", "admin", "--reason", "INC-12 disk full") as waiting:
            waiting.expect("waiting for leads: bo, eve could approve")
            [asked] = eve.json("requests", "--waiting")
            assert (asked["person"], asked["role"], asked["reason"]) == ("ana", "admin", "INC-12 disk full")
            approved = bo.run("approve", str(asked["request"]), "--yes", "--reason", "go")
            assert approved.returncode == 0, approved.stderr
            assert "INC-12 disk full" in approved.stdout
            assert waiting.end() == 0, waiting.said
        assert "ana holds admin until " in waiting.said
        assert plain_ssh(ana, server).stdout == "in\n"

        [first] = ana.json("status")
        until_expired(first["valid_before"])
        renewed = plain_ssh(ana, server)
        assert (renewed.stdout, renewed.stderr) == ("in\n", "")
        [second] = ana.json("status")
        assert second["serial"] > first["serial"]
        assert second["until"] == first["until"]

        extension = ana.run("extend", "admin", "--reason", "INC-12 still", "--for", "5m", "--no-wait")
        assert extension.returncode == 4
        assert "this asks to extend it" in extension.stderr
        assert eve.run("approve", extension.stdout.strip(), "--yes").returncode == 0
        assert ana.run("login", "--request", extension.stdout.strip()).returncode == 0
        [extended] = ana.json("status")
        assert extended["until"] > first["until"] + 60

        assert ana.run("drop", "admin").stdout == "admin is given back\n"
        assert json.loads(ana.run("status", "--json").stdout) == []
        refused = plain_ssh(ana, server)
        assert refused.returncode == 255
        assert "jit-ssh login admin" in refused.stderr
    kinds = [entry["kind"] for entry in reversed(dee.json("log", "--role", "admin", "--limit", "100"))]
    assert kinds[:4] == ["request", "approve", "renew", "issue"]
    assert kinds[-1] == "drop"
    assert dee.run("log", "verify").returncode == 0


def until_expired(moment: int) -> None:
    """Nothing announces that a certificate has expired but the clock."""
    time.sleep(max(moment - time.time(), 0) + 0.1)


# ------------------------------------------------------------------ waiting


def test_on_a_terminal_one_line_lives_and_ctrl_c_may_withdraw(ana: Home) -> None:
    with ana.on_terminal(*JIT_SSH, "login", "db-admin", "--reason", "INC-1") as typed:
        typed.expect("\r\x1b[Kwaiting for leads: bo, eve could approve; asked 1 s ago")
        typed.type("\x03")
        typed.expect("Withdraw request ")
        typed.type("y\n")
        assert typed.end() == 130
    assert "is withdrawn" in typed.said
    assert ana.json("requests")[0]["status"] == "withdrawn"


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_ctrl_c_without_a_yes_leaves_the_request_and_says_how_to_go_on(ana: Home, answer: str) -> None:
    with ana.on_terminal(*JIT_SSH, "login", "db-admin", "--reason", "INC-1") as typed:
        typed.expect("waiting for leads")
        typed.type("\x03")
        typed.expect("[y/N]: ")
        typed.type(answer)
        assert typed.end() == 130
    newest = ana.json("requests")[0]
    assert newest["status"] == "pending"
    assert f"jit-ssh login --request {newest['request']}" in typed.said


def test_a_denial_ends_the_waiting_and_says_who_and_why(ana: Home, bo: Home) -> None:
    with ana.started("login", "db-admin", "--reason", "INC-1") as waiting:
        waiting.expect("waiting for leads")
        number = ana.json("requests")[0]["request"]
        assert bo.run("deny", str(number), "--reason", "use db-logs").returncode == 0
        assert waiting.end() == 3
    assert "was denied by bo: use db-logs" in waiting.said


def test_a_request_that_waits_can_be_waited_for_again_and_only_by_its_owner(ana: Home, bo: Home) -> None:
    number = ask(ana)
    assert ana.run("login", "--request", number, "--no-wait").returncode == 4
    assert bo.run("login", "--request", number).returncode == 1
    with ana.started("login", "--request", number) as waiting:
        waiting.expect("waiting for leads")
        assert bo.run("approve", number, "--yes").returncode == 0
        assert waiting.end() == 0, waiting.said


def test_a_request_that_was_withdrawn_is_not_picked_up(ana: Home) -> None:
    number = ask(ana)
    assert ana.run("withdraw", number).stdout == f"request {number} for db-admin is withdrawn\n"
    done = ana.run("login", "--request", number)
    assert done.returncode == 1
    assert "is withdrawn" in done.stderr
    assert ana.run("withdraw", number).returncode == 3


def test_a_request_number_stands_alone(ana: Home) -> None:
    assert ana.run("login", "db-admin", "--request", "3").returncode == 2


# ----------------------------------------------------------------- approving


def test_an_approver_sees_everything_and_is_asked(ana: Home, bo: Home) -> None:
    number = ask(ana, reason="INC-7 disk")
    with bo.on_terminal(*JIT_SSH, "approve", number) as typed:
        typed.expect(f"Approve request {number} by ana? [y/N]: ")
        typed.type("y\n")
        assert typed.end() == 0, typed.said
    for shown in ("ana", "db-admin: Root on databases", "root on db (db-*.example)", "10 m", "INC-7 disk", "by 1 of leads"):
        assert shown in typed.said, shown
    assert ana.json("show", number)["requests"][0]["approvals"][0]["person"] == "bo"


def test_without_a_yes_nothing_is_signed(ana: Home, bo: Home) -> None:
    number = ask(ana)
    done = bo.run("approve", number, typed="n\n")
    assert done.returncode == 1
    assert "nothing was signed" in done.stderr
    assert bo.run("approve", number).returncode == 1
    assert ana.json("show", number)["status"] == "pending"


def test_nobody_approves_their_own_request_and_nobody_whom_it_does_not_concern_sees_it(ana: Home, bo: Home) -> None:
    number = ask(bo)
    done = bo.run("approve", number, "--yes")
    assert done.returncode in {1, 3}
    assert "own" in done.stderr
    assert ana.run("show", number).returncode == 1
    assert bo.run("withdraw", number).returncode == 0


def test_an_approval_may_shorten_and_never_lengthen(ana: Home, bo: Home) -> None:
    number = ask(ana)
    assert bo.run("approve", number, "--yes", "--for", "11m").returncode == 1
    assert bo.run("approve", number, "--yes", "--for", "3m").returncode == 0
    assert ana.run("login", "--request", number).returncode == 0
    [held] = ana.json("status")
    assert held["until"] <= time.time() + 180
    assert "jit-ssh extend db-admin" in ana.run("status").stderr
    assert ana.run("drop").stdout == "db-admin is given back\n"
    assert ana.run("drop").returncode == 1


def test_only_one_of_two_answers_counts(ana: Home, bo: Home, eve: Home) -> None:
    number = ask(ana)
    assert eve.run("approve", number, "--yes").returncode == 0
    late = bo.run("deny", number, "--reason", "no")
    assert late.returncode == 1
    assert "does not wait any more: it is granted" in late.stderr


CHANGES: Final[dict[str, Callable[[Case], Case]]] = {
    "another reason": lambda case: replace(case, reason="INC-2 harmless"),
    "another person": lambda case: replace(case, person="eve"),
    "a narrower role": lambda case: replace(case, role="db-logs"),
    "fewer accounts": lambda case: replace(case, accounts=()),
    "other accounts": lambda case: replace(case, accounts=(Account("logs", "db", ()),)),
    "a shorter time": lambda case: replace(case, duration=60),
    "a command that it runs only": lambda case: replace(case, force_command="uptime"),
    "no terminal": lambda case: replace(case, permit=()),
    "an entry that is not the leaf's": lambda case: replace(case, entry=(case.entry or "").replace("db-admin", "db-logs")),
    "no entry": lambda case: replace(case, entry=None),
    "another leaf": lambda case: replace(case, leaf="0" * 64),
    "a signature that does not fit": lambda case: rehashed(case, "INC-1", "INC-2"),
}


def rehashed(case: Case, old: str, new: str) -> Case:
    """The case as a CA would show it that has changed its log, too."""
    entry = (case.entry or "").replace(old, new)
    return replace(case, entry=entry, reason=new, leaf=merkle.leaf_hash(entry.encode()).hex())


@pytest.fixture(scope="module")
def asked(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Case:
    home = home_of(town, "ana", tmp_path_factory.mktemp("asked"))
    return Case.parse(json.dumps(home.json("show", ask(home))["requests"][0]).encode())


def test_what_the_log_has_is_signed_for(asked: Case) -> None:
    assert asked.proven(asked.request).leaf == asked.leaf


def test_an_approver_sees_whether_the_person_is_on_call(asked: Case, capsys: pytest.CaptureFixture[str]) -> None:
    until = int(time.time()) + 3600
    known = {"schedule": "db", "source": "PagerDuty", "age": 12, "level": 2, "until": until}
    duties = [known, {"schedule": "ops", "source": "the rota", "age": 0}, {"schedule": "web", "unknown": "unknown: it is silent"}]
    entry = canonical.encode(json.loads(asked.entry or "") | {"on_call": duties}).decode()
    case_text.show(replace(asked, entry=entry))
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("on call")]
    assert re.fullmatch(
        r"on call +db: level 2 until (?:\d{4}-\d\d-\d\d )?\d\d:\d\d \(in .*\), by PagerDuty 12 s before; "
        r"ops: no, by the rota 0 s before; "
        "web: unknown: it is silent", line,
    )  # fmt: skip
    case_text.show(asked)
    assert "on call" not in capsys.readouterr().out, "no rule of the role asks"


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_shown_otherwise_than_the_log_has_it_is_not_signed_for(asked: Case, change: str) -> None:
    with pytest.raises(WrongCase):
        CHANGES[change](asked).proven(asked.request)


def test_another_request_than_the_one_named_is_not_signed_for(asked: Case) -> None:
    with pytest.raises(WrongCase):
        asked.proven(asked.request + 1)


# ------------------------------------------------------------- destinations


def test_a_destination_takes_the_narrowest_role_that_works_now(ana: Home) -> None:
    assert ana.json("login", "root@db-1.example")[0]["role"] == "db-both"  # granted at once; db-admin needs an approval
    assert ana.json("login", "logs@db-1.example")[0]["role"] == "db-logs"


def test_a_destination_that_nothing_reaches_is_said(ana: Home) -> None:
    done = ana.run("login", "root@web-1.example")
    assert done.returncode == 1
    assert "no role reaches root on web-1.example" in done.stderr


def test_a_denial_says_what_can_be_had_instead(ana: Home) -> None:
    done = ana.run("login", "db-safe")
    assert done.returncode == 3
    assert "✗" in done.stderr
    assert "hint: You can have db-logs right now (logs on db (db-*.example)): jit-ssh login db-logs" in done.stderr


def test_a_denial_says_who_could_approve_what_is_mended_in_words_and_as_json(ana: Home) -> None:
    done = ana.run("login", "admin", "--reason", "no number", "--json")
    assert done.returncode == 3
    assert "Start with the incident number" in done.stderr
    assert "  who could approve\n    1 of leads: bo, eve\n" in done.stderr
    [told] = json.loads(done.stdout)
    assert (told["code"], told["role"], told["entry"] > 0) == ("denied", "admin", True)
    assert told["steps"] == [{"group": "leads", "count": 1, "approved_by": [], "could": ["bo", "eve"]}]
    assert [finding["condition"] for finding in told["ways"][0]["findings"]] == ["groups", "approvals"]
    assert told["instead"] == ["renewed"]
    done = ana.run("login", "db-logs", "db-safe", "--json")
    got, told = json.loads(done.stdout)
    assert (done.returncode, got["role"], told["code"]) == (3, "db-logs", "denied")
    assert (told["steps"], told["instead"]) == ([], ["db-logs", "db-both"])


# ------------------------------------------------------------------- renewing


def test_ssh_renews_before_the_end_without_the_persons_own_key(ana: Home) -> None:
    """With the certificate's own, in an agent or in a file: nobody is asked for a touch or a passphrase."""
    with ssh_agent() as agent:
        for home in (ana, replace(ana, agent=agent)):
            [held] = home.json("login", "renewed")
            rewrite(home.ours / "renewed.json", valid_after=0)  # the last third of a long life
            own = json.loads((home.ours / "profile.json").read_text())["key"]
            rewrite(home.ours / "profile.json", key=str(home.path / "gone"))
            assert home.run("ssh-hook", "renewed").returncode == 0
            renewed = json.loads((home.ours / "renewed.json").read_text())
            assert (renewed["serial"] > held["serial"], renewed["until"]) == (True, held["until"])
            rewrite(home.ours / "profile.json", key=own)
            assert home.run("drop", "renewed").returncode == 0


def test_what_cannot_be_renewed_before_the_end_is_used_to_the_end(ana: Home) -> None:
    [held] = ana.json("login", "renewed")
    rewrite(ana.ours / "renewed.json", valid_after=0)
    rewrite(ana.ours / "profile.json", url="http://127.0.0.1:1")
    assert ana.run("ssh-hook", "renewed").returncode == 0
    assert json.loads((ana.ours / "renewed.json").read_text())["serial"] == held["serial"]


def test_a_budget_that_a_thief_has_used_up_makes_no_certificate_useless(town: Town, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", town.keys / "ana")
    public = {name: (town.keys / f"{name}.pub").read_text().strip() for name in ("ana", "bo", "eve", "dee")}
    with served_ca(tmp_path / "ca", PEOPLE.format(**public), FILES, "statements_per_minute = 2\n") as ca:
        assert home.run("setup", ca.url, "--fingerprint", ca.fingerprint).returncode == 0
        serials = [home.json("login", "renewed")[0]["serial"]]
        for _ in range(3):  # as would whoever has the key of the certificate
            rewrite(home.ours / "renewed.json", valid_after=0)
            done = home.run("ssh-hook", "renewed")
            assert done.returncode == 0, "ssh goes on with what is there"
            serials.append(json.loads((home.ours / "renewed.json").read_text())["serial"])
        assert serials[0] < serials[1] < serials[2] == serials[3]
        assert "renewed is not renewed: the keys of ana's certificates signed more than 2 statements" in done.stderr
        assert home.run("drop", "renewed").returncode == 0, "and with her own key she ends it"


def test_status_warns_of_a_grant_that_ends_within_ten_minutes(ana: Home) -> None:
    ana.json("login", "renewed")
    assert "Under 10 m left: jit-ssh extend renewed --reason …" in ana.run("status").stderr
    until = int(time.time()) + 3600
    rewrite(ana.ours / "renewed.json", until=until, valid_before=until)
    assert "left" not in ana.run("status").stderr


# ------------------------------------------------------------- the security team


def test_security_revokes_and_locks_and_nobody_else_does(ana: Home, dee: Home, bo: Home) -> None:
    [held] = ana.json("login", "db-logs")
    number = str(held["request"])
    assert bo.run("revoke", "--request", number, "--reason", "x").returncode == 3
    done = dee.run("revoke", "--request", number, "--reason", "over")
    assert done.returncode == 0, done.stderr
    assert str(held["serial"]) in done.stdout
    assert ana.json("show", number)["status"] == "revoked"
    assert dee.run("lock", "ana", "--reason", "laptop stolen").stdout == "ana is locked\n"
    try:
        assert ana.run("login", "db-logs").returncode == 3
    finally:
        assert dee.run("unlock", "ana", "--reason", "found").stdout == "ana is not locked\n"
    assert ana.run("login", "db-logs").returncode == 0


@pytest.mark.parametrize("named", [[], ["--request", "3", "--person", "ana"]])
def test_a_revocation_names_one_thing(dee: Home, named: list[str]) -> None:
    assert dee.run("revoke", *named, "--reason", "x").returncode == 2


def test_everybodys_requests_are_for_auditors(ana: Home, dee: Home) -> None:
    number = ask(ana)
    assert number in {str(each["request"]) for each in dee.json("requests", "--all")}
    assert ana.run("requests", "--all").returncode == 1


# ---------------------------------------------------------------- plain ssh


def test_ssh_offers_to_ask_on_the_terminal_and_goes_in_when_approved(ana: Home, bo: Home, server: Sshd) -> None:
    with ana.on_terminal(*ssh_command(ana, server, "echo in")) as typed:
        typed.expect("Reason, or nothing to go on without: ")
        typed.type("INC-3 disk\n")
        typed.expect("waiting for leads")
        assert bo.run("approve", str(ana.json("requests")[0]["request"]), "--yes").returncode == 0
        typed.expect("in\r\n")
        assert typed.end() == 0, typed.said


def test_ssh_picks_up_what_was_asked_for_before(ana: Home, bo: Home, server: Sshd) -> None:
    number = ask(ana, "admin")
    with ana.on_terminal(*ssh_command(ana, server, "echo in")) as typed:
        typed.expect("waiting for leads")
        assert bo.run("approve", number, "--yes").returncode == 0
        assert typed.end() == 0, typed.said
    assert "Reason" not in typed.said
    assert typed.said.endswith("in\r\n")


def test_a_request_that_waits_already_is_not_made_twice(ana: Home) -> None:
    number = ask(ana)
    done = ana.run("login", "db-admin", "--reason", "INC-2")
    assert done.returncode == 3
    assert f"hint: Go on with it: jit-ssh login --request {number}" in done.stderr


def test_ssh_goes_on_without_when_nothing_is_typed(ana: Home, server: Sshd) -> None:
    before = len(ana.json("requests"))
    with ana.on_terminal(*ssh_command(ana, server, "echo in")) as typed:
        typed.expect("Reason, or nothing to go on without: ")
        typed.type("\n")
        assert typed.end() == 255
    assert "Permission denied" in typed.said
    assert len(ana.json("requests")) == before


def test_two_ssh_at_the_same_moment_ask_once(ana: Home, bo: Home, server: Sshd) -> None:
    command = ssh_command(ana, server, "echo in")
    with ana.on_terminal(*command) as first, ana.on_terminal(*command) as second:
        outputs = [each.program.stdout for each in (first, second) if each.program.stdout]
        readable, _, _ = select.select(outputs, [], [], PATIENCE)
        asking, quiet = (first, second) if first.program.stdout in readable else (second, first)
        asking.expect("Reason, or nothing to go on without: ")
        asking.type("INC-4\n")
        asking.expect("waiting for leads")
        assert bo.run("approve", str(ana.json("requests")[0]["request"]), "--yes").returncode == 0
        assert asking.end() == 0, asking.said
        assert quiet.end() == 0, quiet.said
    assert quiet.said == "in\r\n"


def test_when_the_ca_is_down_ssh_says_so_and_goes_on_with_the_rest(ana: Home, bo: Home, server: Sshd) -> None:
    number = ask(ana, "admin")
    assert bo.run("approve", number, "--yes").returncode == 0
    [held] = ana.json("login", "--request", number)
    profile = ana.ours / "profile.json"
    running = profile.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    profile.write_text(re.sub(r"http://127.0.0.1:\d+", f"http://127.0.0.1:{port}", running))
    (server.prefix / "authorized_keys").write_text(ana.key.with_suffix(".pub").read_text())
    until_expired(held["valid_before"])
    done = plain_ssh_with_own_key(ana, server)
    assert done.stdout == "in\n"
    assert "the CA does not answer, so ssh goes on without admin" in done.stderr
    profile.write_text(running)


def plain_ssh_with_own_key(home: Home, server: Sshd) -> subprocess.CompletedProcess[str]:
    """The person's own configuration names their own key behind the Include line."""
    config = home.path / ".ssh" / "config"
    config.write_text(f"{config.read_text()}Host *\n    IdentityFile {home.key}\n")
    return plain_ssh(home, server)
