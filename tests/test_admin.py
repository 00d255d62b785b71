"""`jit-ssh-ca` as its operator meets it: real commands, a real server, a real ssh-agent, and a manual that says the same."""

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import click
import pytest

from ca.certificate import SignedCertificate
from server import admin
from tests import keys
from tests.keys import Key
from tests.running import ORIGIN, Ran, Running, body, run

MANUAL: Final = (Path(admin.__file__).parent / "OPERATING.md").read_text()


@pytest.fixture(scope="module")
def ana(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return keys.make(tmp_path_factory.mktemp("people"), name="ana")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ana: Key) -> Path:
    """A CA as init makes it. Copy it to change it."""
    directory = tmp_path_factory.mktemp("made")
    (directory / "ana.pub").write_text(ana.public_key.line)
    init = run("init", directory / "ca", "--origin", ORIGIN, "--person", "ana", "--key", directory / "ana.pub")
    assert init.code == 0, init.err
    (directory / "said").write_text(init.out)
    return directory / "ca"


@pytest.fixture
def ca(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ca"))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_log(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "jit-ssh.db", isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)


def size(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "jit-ssh.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


# ------------------------------------------------------------------------- init


def test_init_makes_a_ca_that_only_its_owner_reads(made: Path) -> None:
    found = {str(path.relative_to(made)): stat.S_IMODE(path.stat().st_mode) for path in [made, *made.rglob("*")]}
    assert {name: mode for name, mode in found.items() if not name.startswith("policies")} == {
        ".": 0o700,
        "ca.toml": 0o644,
        "keys": 0o700,
        "keys/ca": 0o600,
        "keys/ca.pub": 0o644,
        "keys/log": 0o600,
        "keys/log.pub": 0o644,
        "jit-ssh.db": 0o600,
        "jit-ssh.db.checkpoint": 0o600,
    }
    assert all(not mode & stat.S_IWOTH for mode in found.values())
    assert "policies/roles/dev.toml" in found


def test_init_shows_what_people_have_to_compare(made: Path) -> None:
    said = (made.parent / "said").read_text()
    shown = run("fingerprint", made)
    assert shown.code == 0
    assert shown.out in said
    public = subprocess.run(["ssh-keygen", "-lf", made / "keys" / "ca"], check=True, capture_output=True, text=True).stdout
    assert public.split()[1] in shown.out


def test_init_overwrites_nothing(ca: Path) -> None:
    before = contents(ca.parent)
    again = run("init", ca)
    assert (again.code, again.out) == (1, "")
    assert "is there already and is not empty" in again.err
    assert contents(ca.parent) == before


def test_init_takes_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    assert run("init", tmp_path / "ca").code == 0
    assert run("policy", "check", tmp_path / "ca").code == 0


def test_init_under_a_loose_umask_makes_what_serve_takes(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert run("init", tmp_path / "ca").code == 0
    finally:
        os.umask(before)
    assert run("fingerprint", tmp_path / "ca").code == 0
    assert run("policy", "check", tmp_path / "ca").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--person", "ana"], 2, "--person and --key go together"),
        (["--person", "Ana", "--key", "ana.pub"], 1, "person 'Ana' is not allowed"),
        (["--person", "ana", "--key", "ana"], 1, "is not a public key"),
        (["--origin", "Not An Origin"], 1, "origin 'Not An Origin' is not allowed"),
        (["--passphrase-file", "empty"], 1, "holds no passphrase in its first line"),
    ],
)
def test_an_init_that_fails_leaves_nothing(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    key = keys.make(tmp_path, name="ana").public_key
    (tmp_path / "empty").write_bytes(b"\n")
    before = contents(tmp_path)
    paths = [str(tmp_path / option) if (tmp_path / option).is_file() and option != "ana" else option for option in options]
    if "--key" in options:
        paths[-1] = str(tmp_path / options[-1])
    refused = run("init", tmp_path / "ca", *paths)
    assert (refused.code, refused.out) == (code, "")
    assert said in refused.err
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob("*ca")), key
    assert "PRIVATE" not in refused.err


def test_what_cannot_be_made_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run("init", tmp_path / "file" / "ca")
    assert (refused.code, refused.out) == (1, "")
    assert "cannot be made" in refused.err
    assert "Traceback" not in refused.err


def test_a_passphrase_encrypts_both_keys(tmp_path: Path, ana: Key) -> None:
    (tmp_path / "passphrase").write_bytes(b"correct horse\n")
    (tmp_path / "wrong").write_bytes(b"battery staple\n")
    (tmp_path / "ana.pub").write_text(ana.public_key.line)
    first = ("--origin", ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub")
    assert run("init", tmp_path / "ca", *first, "--passphrase-file", tmp_path / "passphrase").code == 0
    for name in ("ca", "log"):
        command = ["ssh-keygen", "-y", "-f", str(tmp_path / "ca" / "keys" / name), "-P"]
        assert subprocess.run([*command, "correct horse"], check=False, capture_output=True).returncode == 0
        assert subprocess.run([*command, ""], check=False, capture_output=True).returncode != 0
    refused = run("serve", tmp_path / "ca", "--listen", "127.0.0.1:0", "--passphrase-file", tmp_path / "wrong")
    assert refused.code == 1
    assert "is not a private key that this passphrase opens" in refused.err
    running = Running(tmp_path / "ca", "--passphrase-file", tmp_path / "passphrase")
    assert running.ask(body(ana, ana))[0] == 201
    assert running.stops() == 0
    assert run("log", "verify", tmp_path / "ca", "--passphrase-file", tmp_path / "passphrase").code == 0


# ---------------------------------------------------------------- policy check


def test_policy_check_counts_what_is_there(ca: Path) -> None:
    checked = run("policy", "check", ca)
    assert checked.code == 0
    assert checked.out == f"{ca}/policies: 6 roles, 1 people, 3 host groups: no problems\n"
    shown = MANUAL.split("host groups: no problems\n", 1)[1].split("\n\n", 1)[0]
    assert set(checked.err.splitlines()) >= {line.strip() for line in shown.splitlines()}  # past review_by, there will be more
    assert run("policy", "check", ca / "policies").out == checked.out


def test_policy_check_prints_every_problem_at_once(ca: Path) -> None:
    replace(ca / "policies" / "roles" / "dev.toml", '[[allow]]\ngroups = ["engineers"]', '[[allow]]\ngroups = ["enginers"]')
    replace(ca / "policies" / "guardrails.toml", 'auditors = ["security"]', "auditors = []")
    (ca / "policies" / "roles" / "web-logs.toml").write_text("= 1")
    before = contents(ca)
    checked = run("policy", "check", ca)
    assert (checked.code, checked.out) == (1, "")
    problems = checked.err.splitlines()
    assert sum(line.startswith("roles/dev.toml: allow[1].groups[1]: unknown group 'enginers'") for line in problems) == 1
    assert "(did you mean 'engineers'?)" in checked.err
    for file in ("guardrails.toml: auditors", "roles/web-logs.toml: not TOML"):
        assert any(line.startswith(file) for line in problems), checked.err
    assert problems[-2].startswith("jit-ssh-ca: error: the policy has 3 problems")
    assert problems[-1].startswith("hint: ")
    assert contents(ca) == before


# -------------------------------------------------------------- serve refuses


def refused(ca: Path) -> Ran:
    """A serve that did not start, as the manual describes it."""
    done = run("serve", ca, "--listen", "127.0.0.1:0")
    assert (done.code, done.out) == (1, ""), "nothing was served"
    for line, prefix in zip(done.err.splitlines()[-2:], ("jit-ssh-ca: error: ", "hint: "), strict=True):
        assert line.startswith(prefix)
        assert f"`{as_in_the_manual(ca, line.removeprefix(prefix))}`" in MANUAL, "every sentence stands in OPERATING.md"
    return done


def as_in_the_manual(ca: Path, sentence: str) -> str:
    """With names instead of what differs from one CA to the next."""
    sentence = re.sub(rf"{ca.parent}[\w./-]*", "FILE", sentence)
    sentence = re.sub(r"SHA256:[\w+/]{43}", "SHA256:…", sentence)
    return re.sub(r"mode \d+", "mode 0640", sentence).replace(f"chown {os.getuid()} ", "chown 0 ")


def old_copy(ca: Path) -> None:
    """A database from before the newest checkpoint, beside the memory of it."""
    shutil.copy(ca / "jit-ssh.db", ca / "backup.db")
    before = (ca / "policies" / "people.toml").read_text()
    (ca / "policies" / "people.toml").write_text(before + "# changed\n")
    running = Running(ca)
    running.fetch("/readyz")  # so that a thread of the server reads as well
    assert running.stops() == 0
    left = ca / "jit-ssh.db-wal"
    assert not left.exists() or left.stat().st_size == 0, "after a stop the file alone is the database"
    shutil.move(ca / "backup.db", ca / "jit-ssh.db")


def another_key(ca: Path) -> None:
    keys.make(ca.parent, name="other")
    shutil.copy(ca.parent / "other", ca / "keys" / "ca")


REFUSALS: Final[dict[str, Callable[[Path], object]]] = {
    "a key that others read": lambda ca: (ca / "keys" / "ca").chmod(0o640),
    "a log key that others read": lambda ca: (ca / "keys" / "log").chmod(0o604),
    "no key": lambda ca: (ca / "keys" / "ca").unlink(),
    "a configuration for everybody to write": lambda ca: (ca / "ca.toml").chmod(0o666),
    "a policy for everybody to write": lambda ca: (ca / "policies" / "people.toml").chmod(0o666),
    "a database for everybody to write": lambda ca: (ca / "jit-ssh.db").chmod(0o666),
    "a directory for everybody to write": lambda ca: ca.chmod(0o777),
    "a bad configuration": lambda ca: replace(ca / "ca.toml", "listen", "lisen"),
    "a bad policy": lambda ca: replace(ca / "policies" / "guardrails.toml", "auditors", "auditor"),
    "another origin": lambda ca: replace(ca / "ca.toml", ORIGIN, "other.example.com"),
    "another CA key": another_key,
    "a changed entry": lambda ca: change_log(ca, "UPDATE entries SET entry = replace(entry, 'genesis', 'Genesis')"),
    "a removed entry": lambda ca: change_log(ca, "DELETE FROM entries"),
    "an old copy": old_copy,
    "no database": lambda ca: (ca / "jit-ssh.db").unlink(),
    "another kind of signer": lambda ca: replace(ca / "ca.toml", '"file:keys/ca"', '"kms:keys/ca"'),
}


@pytest.mark.parametrize("spoil", REFUSALS.values(), ids=REFUSALS.keys())
def test_serve_refuses_to_start_wrong_and_says_what_mends_it(ca: Path, spoil: Callable[[Path], object]) -> None:
    spoil(ca)
    refused(ca)


def test_serve_speaks_plain_http_to_this_machine_only(ca: Path) -> None:
    done = run("serve", ca, "--listen", "0.0.0.0:0")
    assert (done.code, done.out) == (1, "")
    assert "can be reached from other machines without encryption: set tls_certificate and tls_key" in done.err


def test_a_link_is_as_safe_as_what_it_points_to(ca: Path) -> None:
    people = ca / "policies" / "people.toml"
    people.rename(ca.parent / "people.toml")
    people.symlink_to(ca.parent / "people.toml")
    assert run("policy", "check", ca).code == 0
    (ca.parent / "people.toml").chmod(0o666)
    checked = run("policy", "check", ca)
    assert checked.code == 1
    assert "can be written by everybody on this machine" in checked.err


# ----------------------------------------------------------------- serve serves


@pytest.fixture
def running(ca: Path) -> Iterator[Running]:
    started = Running(ca)
    yield started
    started.kill()


def test_serve_issues_reloads_and_stops(ca: Path, running: Running, ana: Key) -> None:
    assert running.said == f"jit-ssh-ca: serving {ORIGIN} on {running.url}\n"
    status, answer = running.ask(body(ana, ana))
    assert status == 201
    assert SignedCertificate.parse_line(answer["certificate"]).certificate.principals == ("ana@dev",)
    assert running.fetch("/readyz") == (200, {"status": "ok"})

    verified = run("log", "verify", ca)
    assert verified.code == 0, verified.err
    assert verified.out.startswith("4 entries, 2 signatures, 1 certificates: all verify\n")

    guardrails = ca / "policies" / "guardrails.toml"
    good = guardrails.read_text()
    guardrails.write_text(good + '[[deny]]\nmessage = "All is frozen"\n')
    assert run("fingerprint", ca).code == run("log", "verify", ca).code == 0
    assert size(ca) == 4, "commands that read append nothing, even when the policy files are newer than the server's"
    running.hangs_up()
    running.says("policies reloaded: entry 4 decides from here on")
    status, answer = running.ask(body(ana, ana))
    assert (status, answer["code"]) == (403, "denied")

    guardrails.write_text("auditors = 7")
    running.hangs_up()
    running.says("policies not reloaded, those in use stay: the policy has")
    assert running.ask(body(ana, ana))[1]["code"] == "denied"

    guardrails.write_text(good)
    running.hangs_up()
    running.says("policies reloaded", times=2)
    assert running.ask(body(ana, ana))[0] == 201

    began = time.monotonic()
    assert running.stops() == 0
    assert time.monotonic() - began < 5
    assert run("log", "verify", ca).code == 0


def test_verify_takes_a_log_that_grows_meanwhile_for_what_it_is(ca: Path, ana: Key) -> None:
    with (ca / "ca.toml").open("a") as settings:
        settings.write("statements_per_minute = 1000000\n")
    running = Running(ca)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            assert running.ask(body(ana, ana))[0] == 201

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        verified = [run("log", "verify", ca) for _ in range(3)]
    finally:
        stop.set()
        thread.join()
        running.stops()
    assert [each.code for each in verified] == [0, 0, 0], verified
    sizes = [int(each.out.split()[0]) for each in verified]
    assert sizes[0] < sizes[1] < sizes[2] < size(ca)


def test_verify_finds_a_damaged_log(ca: Path) -> None:
    change_log(ca, "UPDATE entries SET entry = replace(entry, 'genesis', 'Genesis')")
    found = run("log", "verify", ca)
    assert (found.code, found.out) == (1, "")
    assert "entry 0 is not the one that was logged" in found.err


def test_with_an_agent_the_server_holds_no_key(ca: Path, ana: Key) -> None:
    key = ca / "keys" / "ca"
    fingerprint = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout.split()[1]
    away = ca.parent / "away"
    key.rename(away)
    socket = ca.parent / "agent.sock"
    replace(ca / "ca.toml", '"file:keys/ca"', f'"agent:{fingerprint}?socket={socket}"')

    def add() -> None:
        environment = os.environ | {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", away], check=True, capture_output=True, env=environment)

    assert "did not answer" in refused(ca).err
    with keys.ssh_agent(socket):
        assert "does not hold" in run("serve", ca, "--listen", "127.0.0.1:0").err
        add()
        running = Running(ca)
        assert running.ask(body(ana, ana))[0] == 201
    lost = body(ana, ana)
    status, answer = running.ask(lost)
    assert (status, answer["code"]) == (503, "signer-failed")
    assert running.fetch("/readyz")[0] == 503
    assert running.fetch("/healthz")[0] == 200
    socket.unlink(missing_ok=True)
    with keys.ssh_agent(socket):
        add()
        assert running.fetch("/readyz")[0] == 200
        status, answer = running.ask(lost)
        assert status == 201, "the same statement gets the certificate that was logged"
        assert running.stops() == 0
    assert run("log", "verify", ca).out.startswith("6 entries, 4 signatures, 2 certificates: all verify\n")


# ------------------------------------------------------------------- the manual


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


def heading(path: str, command: click.Command) -> str:
    """The command's name, and DIR if it works on one."""
    on_a_directory = any(isinstance(each, click.Argument) and each.metavar == "DIR" for each in command.params)
    return f"## {path} DIR" if on_a_directory else f"## {path}"


def test_the_manual_has_every_command_and_every_option() -> None:
    tree = {heading(path, command): command for path, command in commands(admin.main, "jit-ssh-ca")}
    first = "## jit-ssh-ca init DIR"
    assert [line for line in MANUAL.splitlines() if line.startswith("## jit-ssh-ca ")] == [first, *sorted(tree.keys() - {first})]
    for title, command in tree.items():
        section = MANUAL.split(f"{title}\n", 1)[1].split("\n## ", 1)[0]
        options = {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
        written = {line.split("`")[1].split()[0] for line in section.splitlines() if line.startswith("| `--")}
        assert written == options - {"--help", "-h"}, title


def test_every_command_teaches_by_an_example() -> None:
    for path, command in commands(admin.main, "jit-ssh-ca"):
        assert f"Example: {path}" in (command.help or "") or f'Example: eval "$({path}' in (command.help or ""), path


def test_what_is_read_can_be_read_by_programs(made: Path) -> None:
    shown = json.loads(run("fingerprint", made, "--json").out)
    assert shown["ca_keys"] == [(made / "keys" / "ca.pub").read_text().strip()]
    assert shown["fingerprint"] in run("fingerprint", made).out
    checked = json.loads(run("log", "verify", made, "--json").out)
    assert (checked["origin"], checked["fingerprint"], checked["size"]) == (ORIGIN, shown["fingerprint"], checked["entries"])
    assert (checked["start"], checked["whose_keys"]) == (0, checked["policies"] > 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_its_words(made: Path, shell: str) -> None:
    assert "_JIT_SSH_CA_COMPLETE" in run("completion", shell).out
    words = {"_JIT_SSH_CA_COMPLETE": "bash_complete", "COMP_WORDS": "jit-ssh-ca log ver", "COMP_CWORD": "2"}
    assert run(**words).out == "plain,verify\n", made


def test_the_manuals_units_are_those_of_the_program() -> None:
    for unit in ("ExecReload=/bin/kill -HUP $MAINPID", "UMask=0077", "TimeoutStopSec="):
        assert unit in MANUAL
