"""`jit-ssh` as a program of its own, against a CA served by `jit-ssh-ca`, with the real ssh, ssh-agent, ssh-keygen and sshd."""

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from ca.certificate import SignedCertificate
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint, sign_note
from ca.signers.file import FileSigner
from ca.wire import Reader
from tests import keys, sshd
from tests.home import ROOT, Home, ServedCA, identities, make_home, served_ca, ssh_agent
from tests.sshd import Sshd, current_account

SK_PROVIDER: Final = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
REVIEW: Final = 'about = "A test"\nowner = "sre"\nreview_by = 2099-01-01\n'
FILES: Final = {
    "hosts.toml": """[groups.local]
about = "This machine"
hosts = ["127.0.0.1"]
[groups.db]
about = "Db"
hosts = ["db-*.example"]
""",
    "guardrails.toml": 'auditors = ["security"]\n',
    "roles/self.toml": f"""{REVIEW}principals = ["{current_account()}@local"]
default = true
default_duration = "10m"
max_duration = "1h"
[[allow]]
groups = ["sre"]
""",
    "roles/db.toml": f"""{REVIEW}principals = ["root@db"]
default_duration = "10m"
max_duration = "20m"
reason = {{ pattern = "^INC-[0-9]+", message = "Start with the incident number" }}
[[allow]]
groups = ["sre"]
""",
    "roles/touched.toml": f"""{REVIEW}principals = ["root@db"]
default_duration = "10m"
max_duration = "20m"
[[allow]]
groups = ["sre"]
hardware_key = true
""",
}


@dataclass(frozen=True)
class Town:
    """A served CA and the keys of its people: ana (sre, security), bo (sre)."""

    ca: ServedCA
    ana: Path
    bo: Path
    sk: Path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("people")
    public = {name: keys.make(directory, name=name).public_key.line for name in ("ana", "bo")}
    make_sk = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-w", SK_PROVIDER, "-N", "", "-f", str(directory / "sk")]
    subprocess.run(make_sk, check=True, capture_output=True)
    sk = " ".join((directory / "sk.pub").read_text().split()[:2])
    people = f"""[groups]
sre = "On call"
security = "Auditors"
[people.ana]
groups = ["sre", "security"]
keys = ["{public["ana"]}", "{sk}"]
[people.bo]
groups = ["sre"]
keys = ["{public["bo"]}"]
"""
    with served_ca(tmp_path_factory.mktemp("served") / "ca", people, FILES) as ca:
        yield Town(ca, directory / "ana", directory / "bo", directory / "sk")


@pytest.fixture
def ana(town: Town, tmp_path: Path) -> Home:
    """ana's machine, without an agent, after setup."""
    home = make_home(tmp_path / "home", town.ana)
    set_up(home, town)
    return home


@pytest.fixture
def ana_with_agent(ana: Home) -> Iterator[Home]:
    with ssh_agent() as agent:
        yield replace(ana, agent=agent)


def set_up(home: Home, town: Town) -> None:
    done = home.run("setup", town.ca.url, "--fingerprint", town.ca.fingerprint)
    assert done.returncode == 0, done.stderr


def trusting_sshd(home: Home, prefix: Path) -> AbstractContextManager[Sshd]:
    ca_key = json.loads((home.ours / "profile.json").read_text())["ca_keys"][0]
    path = prefix.with_suffix(".pub")
    path.write_text(ca_key + "\n")
    return sshd.trusting(prefix, path, ["local"])


def plain_ssh(home: Home, server: Sshd, command: str) -> subprocess.CompletedProcess[str]:
    """ssh with the person's configuration; ssh reads the account's own home, so the file is named."""
    known_hosts = home.path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line)
    options = [f"UserKnownHostsFile={known_hosts}", "BatchMode=yes"]
    flags = [part for option in options for part in ("-o", option)]
    destination = ["-p", str(server.port), f"{current_account()}@127.0.0.1"]
    return subprocess.run(
        ["ssh", "-F", str(home.path / ".ssh" / "config"), *flags, *destination, command],
        capture_output=True,
        text=True,
        check=False,
        env=home.environment,
        stdin=subprocess.DEVNULL,
    )


# -------------------------------------------------------------------- setup


def test_setup_asks_and_writes_a_private_profile_and_one_line(town: Town, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", town.ana)
    done = home.run("setup", town.ca.url, typed="y\n\n")
    assert done.returncode == 0, done.stderr
    assert town.ca.fingerprint in done.stderr
    assert "You are ana (sre, security), an auditor" in done.stderr
    assert (home.ours / "profile.json").stat().st_mode & 0o777 == 0o600
    assert home.ours.stat().st_mode & 0o777 == 0o700
    assert (home.path / ".ssh" / "config").read_text() == f'Include "{home.ours / "config"}"\n'


def test_setup_again_asks_nothing_about_the_ca_and_changes_nothing(ana: Home, town: Town) -> None:
    before = {path: path.read_bytes() for path in ana.path.rglob("*") if path.is_file()}
    done = ana.run("setup", town.ca.url, "--key", str(ana.key))
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in ana.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("typed", ["", "n\n", "\n"])
def test_setup_without_a_yes_changes_nothing(town: Town, tmp_path: Path, typed: str) -> None:
    home = make_home(tmp_path / "home", town.ana)
    assert home.run("setup", town.ca.url, typed=typed).returncode == 1
    assert not home.ours.exists()


def test_setup_with_a_key_that_the_ca_does_not_know_says_what_to_send_to_the_operator(town: Town, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    done = home.run("setup", town.ca.url, "--fingerprint", town.ca.fingerprint, "--key", str(home.key))
    assert done.returncode == 1
    assert " ".join(home.key.with_suffix(".pub").read_text().split()[:2]) in done.stderr
    assert not home.ours.exists()
    assert not (home.path / ".ssh" / "config").exists()


def test_setup_with_an_unknown_key_of_the_agent_leaves_the_one_that_signed_so_far(ana_with_agent: Home, town: Town) -> None:
    home = ana_with_agent
    subprocess.run(["ssh-add", "-q", str(home.key)], check=True, capture_output=True, env=home.environment)
    stranger = keys.make(home.path, name="stranger")
    subprocess.run(["ssh-add", "-q", str(home.path / "stranger")], check=True, capture_output=True, env=home.environment)
    for key in (home.key, home.key.with_suffix(".pub")):
        key.unlink()
    known = FileSigner(town.ana, lambda _path: b"").public_key
    assert home.run("setup", town.ca.url, "--key", known.fingerprint).returncode == 0
    assert home.run("setup", town.ca.url, "--key", stranger.public_key.fingerprint).returncode == 1
    assert home.json("roles")["person"] == "ana"


def test_a_key_that_only_the_agent_has_can_sign(town: Town, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", town.ana)
    with ssh_agent() as agent:
        home = replace(home, agent=agent)
        subprocess.run(["ssh-add", "-q", str(home.key)], check=True, capture_output=True, env=home.environment)
        home.key.unlink()
        home.key.with_suffix(".pub").unlink()
        set_up(home, town)
        assert home.json("roles")["person"] == "ana"


def test_a_key_that_needs_a_passphrase_nobody_can_type_is_an_error_with_a_hint(ana: Home) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(ana.key)], check=True, capture_output=True)
    done = ana.run("roles")
    assert done.returncode == 1
    assert "did not sign" in done.stderr
    assert "hint: " in done.stderr


# -------------------------------------------------------------------- login


def test_from_login_to_a_session_and_out_again_with_an_agent(ana_with_agent: Home, tmp_path: Path) -> None:
    home = ana_with_agent
    with trusting_sshd(home, tmp_path / "sshd") as server:
        assert plain_ssh(home, server, "true").returncode == 255
        done = home.run("login")
        assert done.returncode == 0, done.stderr
        assert "ana holds self until " in done.stdout
        assert "(in 9 m" in done.stdout or "(in 10 m" in done.stdout
        assert "in your ssh-agent" in done.stdout
        assert f"Next: ssh {current_account()}@127.0.0.1" in done.stderr
        ours = {"checkpoint", "config", "profile.json", "roles.json", "self-cert.pub", "self.json", "self.lock", "ssh-hook"}
        assert home.files() == ours
        assert plain_ssh(home, server, "echo in").stdout == "in\n"
        assert home.run("status").returncode == 0
        assert home.run("logout").returncode == 0
        assert plain_ssh(home, server, "true").returncode == 255
    assert identities(home.agent or Path()) == []
    assert home.files() == {"checkpoint", "config", "profile.json", "roles.json", "self.lock", "ssh-hook"}
    assert home.run("status").returncode == 1


def test_from_login_to_a_session_and_out_again_with_files(ana: Home, tmp_path: Path) -> None:
    with trusting_sshd(ana, tmp_path / "sshd") as server:
        done = ana.run("login", "self", "--for", "5m")
        assert done.returncode == 0, done.stderr
        assert {path.stat().st_mode & 0o777 for path in ana.ours.iterdir()} == {0o600}
        assert plain_ssh(ana, server, "echo in").stdout == "in\n"
        assert ana.run("logout", "self").returncode == 0
        assert plain_ssh(ana, server, "true").returncode == 255


def test_a_second_login_replaces_the_first(ana_with_agent: Home) -> None:
    serials = [ana_with_agent.json("login", "self")[0]["serial"] for _ in range(2)]
    held = identities(ana_with_agent.agent or Path())
    assert len(held) == 1
    shown = subprocess.run(["ssh-keygen", "-L", "-f", "-"], input=held[0], capture_output=True, text=True, check=True).stdout
    assert f"Serial: {serials[1]}" in shown
    assert serials[0] != serials[1]


def test_an_agent_that_went_away_is_told_by_status(ana_with_agent: Home) -> None:
    assert ana_with_agent.run("login", "self").returncode == 0
    gone = replace(ana_with_agent, agent=None).run("status")
    assert gone.returncode == 1
    assert "log in again" in gone.stdout


def test_an_agent_that_does_not_answer_is_as_good_as_none(ana: Home, tmp_path: Path) -> None:
    assert replace(ana, agent=tmp_path / "nothing").json("login", "self")[0]["where"] == str(ana.ours / "self-cert")


def test_a_denial_says_why_and_where_the_log_has_it(ana: Home) -> None:
    done = ana.run("login", "touched", "--json")
    assert done.returncode == 3
    [denial] = json.loads(done.stdout)
    assert denial["code"] == "denied"
    assert False in [found["holds"] for way in denial["ways"] for found in way["findings"]]
    assert "✗" in done.stderr
    assert "✓" in done.stderr
    number = re.search(r"entry (\d+) of the log", done.stderr)
    assert number is not None
    assert ana.json("log", "show", number[1])["kind"] == "refuse"
    assert "touched" not in ana.files()


def test_a_security_key_that_is_touched_opens_what_an_ordinary_key_does_not(town: Town, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", town.sk)
    home = replace(home, variables={"SSH_SK_PROVIDER": SK_PROVIDER})
    set_up(home, town)
    done = home.run("login", "touched")
    assert done.returncode == 0, done.stderr
    assert "Touch your security key" in done.stderr


def test_a_reason_that_is_not_as_asked_is_denied_and_one_that_is_goes_into_the_log(ana: Home) -> None:
    assert ana.run("login", "db", "--reason", "because").returncode == 3
    assert ana.run("login", "db", "--reason", "INC-12 disk full").returncode == 0
    assert "INC-12 disk full" in ana.run("log", "--kind", "request", "--role", "db").stdout


@pytest.mark.parametrize("arguments", [["db", "--reason", "INC-1", "--for", "5h"], ["no-such-role"]])
def test_a_duration_above_the_maximum_and_a_role_that_is_not_there_are_refused(ana: Home, arguments: list[str]) -> None:
    done = ana.run("login", *arguments)
    assert done.returncode == 3
    assert done.stderr.startswith("jit-ssh: error: ")
    assert json.loads(ana.run("status", "--json").stdout) == []


# ------------------------------------------------------------- exit codes


def test_a_ca_that_is_down_is_exit_code_5_and_status_needs_none(ana: Home) -> None:
    assert ana.run("login", "self").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    profile = ana.ours / "profile.json"
    profile.write_text(re.sub(r"http://127.0.0.1:\d+", f"http://127.0.0.1:{port}", profile.read_text()))
    done = ana.run("roles")
    assert done.returncode == 5
    assert "hint: " in done.stderr
    assert ana.run("status").returncode == 0


@pytest.mark.parametrize("arguments", [["login", "--for", "soon"], ["nonsense"], ["log", "show", "x"], ["setup"], []])
def test_wrong_usage_is_exit_code_2(ana: Home, arguments: list[str]) -> None:
    assert ana.run(*arguments).returncode == 2


@pytest.mark.parametrize("command", [["login"], ["roles"], ["log"], ["logout"], ["log", "verify"]])
def test_without_a_profile_every_command_says_to_run_setup(tmp_path: Path, command: list[str]) -> None:
    done = make_home(tmp_path / "home").run(*command)
    assert done.returncode == 1
    assert "hint: Run: jit-ssh setup URL" in done.stderr


def test_status_in_a_prompt_says_nothing_and_needs_no_setup(tmp_path: Path) -> None:
    done = make_home(tmp_path / "home").run("status", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# -------------------------------------------------------------------- reads


def test_roles_says_what_is_at_once_and_what_is_not_and_why(ana: Home) -> None:
    done = ana.run("roles")
    assert done.returncode == 0, done.stderr
    assert "self: yours at once, a default" in done.stdout
    assert "touched: not for you" in done.stdout
    assert "✗ the request is signed with a security key" in done.stdout
    assert {role["role"]: role["outcome"] for role in ana.json("roles")["roles"]}["self"] == "granted"


def test_the_log_is_filtered(ana: Home) -> None:
    serial = ana.json("login", "self")[0]["serial"]
    issued = ana.json("log", "--serial", str(serial))
    assert [entry["index"] for entry in issued] == [serial]
    assert {entry["kind"] for entry in ana.json("log", "--kind", "issue", "--person", "ana", "--role", "self")} == {"issue"}
    assert ana.json("log", "--until", "2020-01-01") == []
    assert len(ana.json("log", "--since", "1h", "--limit", "1")) == 1
    assert "There is no such entry" in ana.run("log", "--since", "0h1s", "--person", "bo").stderr


def test_the_log_is_searched_and_printed_for_a_spreadsheet(ana: Home) -> None:
    assert ana.run("login", "db", "--reason", "INC-77 =flood in the basement").returncode == 0
    [found] = ana.json("log", "--search", "basement flood*", "--limit", "1")
    assert found["kind"] == "request"
    assert ana.json("log", "--search", "nowhere") == []
    table = list(csv.DictReader(io.StringIO(ana.run("log", "--search", "basement", "--csv", "--limit", "1").stdout)))
    assert [(row["index"], row["reason"]) for row in table] == [(str(found["index"]), "INC-77 =flood in the basement")]
    assert ana.run("log", "--search", "nowhere", "--csv").stdout == f"{','.join(table[0])}\n"
    for wrong, because in (
        (["--csv", "--json"], "choose one"),
        (["--follow", "--csv", "--search", "x"], "--follow does not go with --search\n"),
        (["--follow", "--until", "1h", "--serial", "0"], "--follow does not go with --until and --serial\n"),
    ):
        refused = ana.run("log", *wrong)
        assert refused.returncode == 2
        assert because in refused.stderr
    assert "no word" in ana.run("log", "--search", "*").stderr


def test_the_log_is_followed(ana: Home) -> None:
    assert ana.run("login", "self").returncode == 0
    newest = ana.json("log", "--limit", "1")[0]["index"]
    with ana.started("log", "--follow", "--json", "--limit", "1") as following:
        following.expect(f'"index": {newest}')
        for more in (1, 3):
            assert ana.run("login", "self").returncode == 0
            following.expect(f'"index": {newest + more + 1}')
        following.program.send_signal(signal.SIGINT)
        assert following.end() == 0
    lines = [json.loads(line) for line in following.said.splitlines()]
    assert [line["index"] for line in lines] == list(range(newest, newest + 5))


def test_somebody_who_is_no_auditor_reads_their_own_entries_only(ana: Home, town: Town, tmp_path: Path) -> None:
    request = ana.json("login", "self")[0]["request"]
    bo = make_home(tmp_path / "bo", town.bo)
    set_up(bo, town)
    assert bo.run("login").returncode == 0
    assert {entry["actor"] for entry in bo.json("log")} <= {"bo", "@operator"}
    assert bo.run("log", "show", str(request)).returncode == 1
    assert bo.run("log", "--person", "ana").returncode == 1
    report = bo.json("log", "verify")
    assert report["entries"] < report["checkpoint"]["size"]


def test_an_exported_statement_is_verified_by_ssh_keygen(ana: Home, tmp_path: Path) -> None:
    request = str(ana.json("login", "self")[0]["request"])
    done = ana.run("log", "show", request, "--export", str(tmp_path / "export d"))
    assert done.returncode == 0, done.stderr
    judged = subprocess.run(["sh", "-c", done.stdout], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr
    assert 'Good "jit-ssh" signature for ana' in judged.stdout
    (tmp_path / "export d" / "statement").write_bytes(b"{}")
    assert subprocess.run(["sh", "-c", done.stdout], capture_output=True, check=False).returncode != 0


def test_an_entry_without_a_statement_cannot_be_exported(ana: Home, tmp_path: Path) -> None:
    serial = str(ana.json("login", "self")[0]["serial"])
    done = ana.run("log", "show", serial, "--export", str(tmp_path / "export"))
    assert done.returncode == 1
    assert "Its statement is in entry" in done.stderr


def test_show_judges_the_signature_and_reads_the_certificate(ana: Home) -> None:
    held = ana.json("login", "self")[0]
    shown = ana.run("log", "show", str(held["request"])).stdout
    assert re.search(r"signature +good, by ssh-ed25519 SHA256:", shown)
    assert f"{current_account()}@local" in ana.run("log", "show", str(held["serial"])).stdout
    assert ana.run("log", "show", "0").returncode == 0
    assert ana.run("log", "show", "1").returncode == 0


# ------------------------------------------------------------------- verify


def stolen(town: Town, name: str) -> FileSigner:
    """The CA's `ca` or `log` key."""
    path = next(path for path in (town.ca.directory / "keys").iterdir() if path.suffix != ".pub" and name in path.name)
    return FileSigner(path, lambda _path: b"")


def log_key(town: Town) -> tuple[VerifierKey, FileSigner]:
    signer = stolen(town, "log")
    reader = Reader(signer.public_key.blob, "the log key")
    reader.string()
    return VerifierKey("ca.example.com", reader.string()), signer


def test_the_log_is_verified_and_its_checkpoint_remembered(ana: Home, town: Town) -> None:
    first = ana.run("log", "verify")
    assert first.returncode == 0, first.stderr
    assert "seen here for the first time" in first.stdout
    assert ana.run("login", "self").returncode == 0
    size = open_checkpoint((ana.ours / "checkpoint").read_bytes(), log_key(town)[0]).size
    assert f"it only grew from the {size} entries" in ana.run("log", "verify").stdout


def test_an_auditor_verifies_whose_keys_signed_and_every_checkpoint(ana: Home, town: Town, tmp_path: Path) -> None:
    assert ana.run("login", "self").returncode == 0
    done = ana.run("log", "verify", "--full")
    assert done.returncode == 0, done.stderr
    assert re.search(r"history +\d+ checkpoints, all of this log; keys that were their person's by [1-9]\d* pol", done.stdout)
    bo = make_home(tmp_path / "bo", town.bo)
    set_up(bo, town)
    refused = bo.run("log", "verify", "--full")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "only auditors read this" in refused.stderr


@pytest.mark.parametrize(("more", "told"), [(-1, "rewritten"), (1000, "an old copy, or another history")])
def test_a_log_that_is_not_the_one_that_was_seen_is_an_alarm(ana: Home, town: Town, more: int, told: str) -> None:
    key, signer = log_key(town)
    assert ana.run("log", "verify").returncode == 0
    seen = open_checkpoint((ana.ours / "checkpoint").read_bytes(), key)
    other = Checkpoint(seen.origin, seen.size + more, bytes(32))
    note = sign_note(other.body(), key, lambda message: signer.sign(message)[-64:])
    (ana.ours / "checkpoint").write_text(note)
    done = ana.run("log", "verify")
    assert done.returncode == 1
    assert told in done.stderr
    if more > 0:
        assert f"does not continue the log of {other.size} entries and root {'0' * 16}… that this machine saw" in done.stderr
        evidence = json.loads(Path(re.findall(r"\S+evidence-\d+\.json", done.stderr)[0]).read_text())
        assert evidence["seen"] == note
        assert open_checkpoint(evidence["shown"], key).size < other.size
    assert (ana.ours / "checkpoint").read_text() == note


def test_a_certificate_that_the_ca_signed_without_logging_it_is_an_alarm(ana: Home, town: Town) -> None:
    assert ana.run("login", "self").returncode == 0
    assert "1 certificates on this machine" in ana.run("log", "verify").stdout
    path = ana.ours / "self-cert.pub"
    certificate = replace(SignedCertificate.parse_line(path.read_text()).certificate, principals=("root@db",))
    path.write_text(SignedCertificate(certificate, stolen(town, "ca").sign(certificate.to_be_signed)).line)
    before = (ana.ours / "checkpoint").read_bytes()
    done = ana.run("log", "verify")
    assert done.returncode == 1
    assert f"certificate {certificate.serial}, which is not among the log's" in done.stderr
    assert (ana.ours / "checkpoint").read_bytes() == before


def test_a_remembered_checkpoint_that_was_changed_is_not_believed(ana: Home) -> None:
    assert ana.run("log", "verify").returncode == 0
    path = ana.ours / "checkpoint"
    path.write_text(path.read_text().replace("ca.example.com\n", "ca.example.org\n", 1))
    assert ana.run("log", "verify").returncode == 1


def test_a_proof_convinces_another_machine_and_one_that_was_cut_does_not(ana: Home, town: Town, tmp_path: Path) -> None:
    serial = ana.json("login", "self")[0]["serial"]
    printed = ana.run("log", "proof", str(serial))
    assert printed.returncode == 0, printed.stderr
    bo = make_home(tmp_path / "bo", town.bo)
    set_up(bo, town)
    checked = bo.run("log", "proof", "--check", "-", typed=printed.stdout)
    assert (checked.returncode, checked.stdout.startswith(f"entry {serial} is in the log of ca.example.com")) == (0, True)
    assert bo.run("log", "proof", "--check", str(ana.ours / "self-cert.pub")).returncode == 0
    assert bo.run("log", "proof", "--check", "-", typed=printed.stdout[:-9]).returncode == 1
    refused = bo.run("log", "proof", str(serial))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "not yours to read" in refused.stderr


# --------------------------------------------------------------- start-up


def test_status_imports_nothing_that_a_prompt_would_wait_for(ana: Home) -> None:
    watched = {"flask", "cryptography", "pydantic", "sqlite_utils", "rich", "paramiko", "http.client", "ssl", "server"}
    program = f"import sys; from cli.main import run; run(['status', '--quiet']); print(sorted({watched!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ana.environment)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(ana: Home, shell: str) -> None:
    assert "_JIT_SSH_COMPLETE" in ana.run("completion", shell).stdout


def test_completion_knows_the_roles_without_the_ca(ana: Home) -> None:
    variables = {"_JIT_SSH_COMPLETE": "bash_complete", "COMP_WORDS": "jit-ssh login s", "COMP_CWORD": "2"}
    assert replace(ana, variables=variables).run().stdout == "plain,self\n"


def test_the_version_is_printed() -> None:
    program = [sys.executable, "-c", "from cli.main import main; main()", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert re.fullmatch(r"jit-ssh, version \d+\.\d+\.\d+\n", done.stdout)
