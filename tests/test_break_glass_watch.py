"""`jit-ssh-ca break-glass watch`: a login under the emergency key is told at once, whatever the log goes through."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ca.journal import FIRST_SERIAL
from server import admin
from tests import sshd
from tests.running import PROGRAM

KEY, CA, OTHER = (f"SHA256:{letter * 43}" for letter in "kcx")


def line(serial: int = FIRST_SERIAL, ca: str = CA, user: str = "root") -> str:
    """What rsyslog writes."""
    message = f"Accepted publickey for {user} from 192.0.2.7 port 9 ssh2: ED25519-CERT {KEY} ID break-glass/ana/0011"
    return f"Nov 25 11:59:58 web-1 sshd[12]: {message} (serial {serial}) CA ED25519 {ca}\n"


def watch(*arguments: str | Path, given: str | None = None) -> Result:
    return CliRunner().invoke(admin.main, ["break-glass", "watch", *map(str, arguments)], input=given)


def told(text: str) -> list[int | None]:
    """The serials in lines of JSON; None for an unreadable one."""
    return [json.loads(each).get("serial") for each in text.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "auth.log"
    path.write_text(line(ca=OTHER) + "Nov 25 11:59:58 web-1 cron[1]: ran\n")
    return path


def test_nothing_is_found_where_only_others_came(log: Path) -> None:
    ran = watch("--log", log, "--ca", CA)
    assert (ran.exit_code, ran.stdout) == (0, "")


def test_each_login_is_a_line_and_the_exit_code_says_so(log: Path) -> None:
    with log.open("a") as file:
        file.write(line(5) + line(6) + line(7)[:-1])
    ran = watch("--log", log, "--ca", CA, "--json")
    assert (ran.exit_code, told(ran.stdout)) == (3, [5, 6, 7])
    assert json.loads(ran.stdout.splitlines()[0])["ca"] == CA
    ran = watch("--log", log, "--ca", CA)
    assert ran.stdout.startswith("BREAK-GLASS LOGIN on web-1 ")
    assert "root from 192.0.2.7 port 9, break-glass/ana/0011 (serial 5)" in ran.stdout


def test_both_keys_of_an_overlap_can_be_watched(log: Path, tmp_path: Path) -> None:
    key = sshd.make_key(tmp_path / "emergency").with_suffix(".pub")
    fingerprint = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True).stdout.split()[1]
    log.write_text(line(5) + line(6, fingerprint) + line(7, OTHER))
    assert told(watch("--log", log, "--ca", CA, "--key", key, "--json").stdout) == [5, 6]


def test_a_line_that_may_hide_a_login_is_told(log: Path) -> None:
    with log.open("a") as file:
        file.write(line()[:-30] + "\n")
    ran = watch("--log", log, "--ca", CA, "--json")
    assert (ran.exit_code, told(ran.stdout)) == (3, [None])
    assert "UNREADABLE LOGIN on web-1" in watch("--log", log, "--ca", CA).stdout


def test_standard_input_can_be_watched() -> None:
    ran = watch("--log", "-", "--ca", CA, "--json", given=line(5))
    assert (ran.exit_code, told(ran.stdout)) == (3, [5])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "--log FILE or --journald"),
        (("--log", "x", "--journald", "--ca", CA), 2, "--log FILE or --journald"),
        (("--log", "x"), 2, "Give the emergency key"),
        (("--log", "x", "--ca", CA, "--new"), 2, "--new goes with --follow"),
        (("--log", "missing", "--ca", CA), 1, "missing cannot be read"),
        (("--log", "missing", "--ca", CA[:-1]), 1, "is not a key's fingerprint"),
        (("--log", "missing", "--key", "missing"), 1, "missing is not a public key"),
    ],
)
def test_what_cannot_be_watched_is_said(arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = watch(*arguments)
    assert ran.exit_code == code
    assert words in ran.stderr


def test_a_machine_without_journald_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = watch("--journald", "--ca", CA)
    assert ran.exit_code == 1
    assert "journalctl cannot be run" in ran.stderr


def test_journald_is_read_through_journalctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real journalctl reads no journal of a test's, so its place is taken by a program that prints what it would."""
    message = line().partition(": ")[2].strip()
    printed = json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": "sshd-session", "_HOSTNAME": "web-1"})
    (tmp_path / "journalctl").write_text(f"#!/bin/sh\necho '{printed}'\nexit $CODE\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CODE", "0")
    ran = watch("--journald", "--ca", CA, "--json")
    assert (ran.exit_code, told(ran.stdout)) == (3, [FIRST_SERIAL])
    monkeypatch.setenv("CODE", "1")
    ran = watch("--journald", "--ca", CA, "--json")
    assert (ran.exit_code, told(ran.stdout)) == (1, [FIRST_SERIAL])
    assert "journalctl ended with 1" in ran.stderr


# ----------------------------------------------------------------- the command


def test_the_command_gets_the_login_on_its_standard_input_and_nowhere_else(log: Path, tmp_path: Path) -> None:
    program = tmp_path / "page it"
    program.write_text('#!/bin/sh\ncat >> "$1"; printf "%s\\n" "$#" >> "$1"; env | grep -c serial >> "$1"\n')
    program.chmod(0o755)
    log.write_text(line(5, user="root;touch${IFS}/x") + line(6))
    ran = watch("--log", log, "--ca", CA, "--exec", f"'{program}' {tmp_path / 'got'}")
    assert (ran.exit_code, ran.stderr) == (3, f"jit-ssh-ca: {program} ended with 1\n" * 2)  # grep counts none
    first, arguments, found, *_ = (tmp_path / "got").read_text().splitlines()
    assert (json.loads(first)["user"], arguments, found) == ("root;touch${IFS}/x", "1", "0")


def test_a_command_that_is_not_there_does_not_stop_the_watch(log: Path) -> None:
    log.write_text(line(5) + line(6))
    ran = watch("--log", log, "--ca", CA, "--json", "--exec", "/nonexistent/page")
    assert (ran.exit_code, told(ran.stdout)) == (3, [5, 6])
    assert ran.stderr.count("/nonexistent/page cannot be run") == 2


# ------------------------------------------------------------------- following


@contextmanager
def following(log: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [PROGRAM, "break-glass", "watch", "--log", str(log), "--follow", "--ca", CA, "--json", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def next_serial(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    return int(json.loads(process.stdout.readline())["serial"])


def test_a_log_is_followed_through_rotation_and_truncation(log: Path) -> None:
    with log.open("a") as file:
        file.write(line(1))
    with following(log) as process:
        assert next_serial(process) == 1
        written = log.open("a")
        written.write(line(2)[:40])  # a line that comes in two pieces
        written.flush()
        log.rename(log.with_suffix(".1"))
        written.write(line(2)[40:] + line(3))  # rsyslog still has the old file
        written.close()
        log.write_text(line(4))
        assert [next_serial(process) for _ in range(3)] == [2, 3, 4]
        log.write_text(line(5, user="a"))  # cut to nothing in place and written anew, as copytruncate does
        assert next_serial(process) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(sshd.PATIENCE) == 3


def test_what_is_there_already_can_be_left_out(log: Path) -> None:
    with log.open("a") as file:
        file.write(line(1))
    with following(log, "--new") as process:
        assert process.stderr
        process.stderr.readline()
        log.rename(log.with_suffix(".1"))  # whatever it has read by now, the next file is read from its beginning
        log.write_text(line(2))
        assert next_serial(process) == 2


def test_a_watch_that_saw_nothing_ends_with_0_also_before_there_is_a_log(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with following(tmp_path / "auth.log") as process:
            assert process.stderr
            assert process.stderr.readline() == f"Watching {tmp_path / 'auth.log'} for logins under {CA}\n"
            process.send_signal(number)
            assert process.wait(sshd.PATIENCE) == 0
