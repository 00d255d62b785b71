"""What sshd's log says of logins by certificate: a real sshd writes it, and nobody's text in it can hide a login."""

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.journal import FIRST_SERIAL
from ca.keys import PublicKey
from ca.sshd_lines import Login, Unreadable, parse
from tests import sshd
from tests.sshd import Sshd

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ACCOUNT = sshd.current_account()
KEY, CA, OTHER = (f"SHA256:{letter * 43}" for letter in "kcx")
MESSAGE = (
    f"Accepted publickey for root from 192.0.2.7 port 40022 ssh2: ED25519-CERT {KEY}"
    f" ID break-glass/ana/00112233aabbccdd (serial {FIRST_SERIAL + 5}) CA ED25519 {CA}"
)
READ = Login(
    user="root", address="192.0.2.7", port=40022, key=KEY, ca=CA,
    key_id="break-glass/ana/00112233aabbccdd", serial=FIRST_SERIAL + 5,
)  # fmt: skip


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def read(line: str, now: datetime = NOW) -> Login | Unreadable | None:
    return parse(line, now)


# ------------------------------------------------------------------- the forms


@pytest.mark.parametrize("tag", ["sshd[12]:", "sshd-session[12]:", "sshd-auth[12]:", "sshd:"])
def test_each_of_sshds_names_in_syslog_is_read(tag: str) -> None:
    for header, moment in (
        ("Nov 25 11:59:58 web-1", at(2026, 11, 25, 11, 59, 58)),
        ("Nov  5 01:02:03 web-1", at(2026, 11, 5, 1, 2, 3)),
        ("2026-11-25T11:59:58.123456+01:00 web-1", at(2026, 11, 25, 10, 59, 58)),
        ("2026-11-25T11:59:58Z web-1", at(2026, 11, 25, 11, 59, 58)),
    ):
        found = read(f"{header} {tag} {MESSAGE}\n")
        assert found == Login(**vars(READ) | {"host": "web-1", "time": moment})
    assert read(f"Nov 25 11:59:58 web-1 cron[12]: {MESSAGE}") is None


@pytest.mark.parametrize("structured", ["-", '[origin ip="192.0.2.1"]'])
def test_syslogs_new_form_is_read(structured: str) -> None:
    header = f"<38>1 2026-11-25T11:59:58.5Z web-1 sshd-session 12 - {structured}"
    assert read(f"{header} {MESSAGE}") == Login(**vars(READ) | {"host": "web-1", "time": at(2026, 11, 25, 11, 59, 58)})
    assert read(f"<38>1 2026-11-25T11:59:58.5Z web-1 app 12 - - sshd 1 - - {MESSAGE}") is None


def test_syslogs_old_form_is_of_the_newest_year_that_fits_and_of_this_machines_zone() -> None:
    def moment(line: str, now: datetime) -> int | None:
        found = read(f"{line} web-1 sshd[1]: {MESSAGE}", now)
        return found.time if found else None

    assert moment("Dec 31 23:59:59", datetime(2027, 1, 1, tzinfo=UTC)) == at(2026, 12, 31, 23, 59, 59)
    assert moment("Jan  1 00:00:10", datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == at(2027, 1, 1, 0, 0, 10)
    assert moment("Feb 29 12:00:00", datetime(2027, 3, 1, tzinfo=UTC)) == at(2024, 2, 29, 12)
    assert moment("Nov 25 11:00:00", NOW.astimezone(timezone(timedelta(hours=1)))) == at(2026, 11, 25, 10)
    for nonsense in ("Feb 31 12:00:00", "Nov 25 25:00:00", "2026-13-45T11:59:58Z"):
        assert moment(nonsense, NOW) is None, "the login is told of all the same"
        assert isinstance(read(f"{nonsense} web-1 sshd[1]: {MESSAGE}"), Login)


def test_what_sshd_writes_to_its_standard_error_is_read() -> None:
    assert read(MESSAGE) == READ
    assert read(MESSAGE + "\r\n") == READ


def journald(**members: object) -> str:
    given = {"SYSLOG_IDENTIFIER": "sshd", "MESSAGE": MESSAGE, "_HOSTNAME": "web-1", "__REALTIME_TIMESTAMP": "1800000000999999"}
    return json.dumps(given | members)


def test_journalds_objects_are_read_also_when_the_message_is_a_list_of_bytes() -> None:
    expected = Login(**vars(READ) | {"host": "web-1", "time": 1_800_000_000})
    assert read(journald()) == expected
    assert read(journald(MESSAGE=list(MESSAGE.encode()))) == expected
    hostile = MESSAGE.replace("break-glass/ana", "\udcff").encode(errors="surrogateescape")
    found = read(journald(MESSAGE=list(hostile)))
    assert isinstance(found, Login)
    assert found.key_id == "\\xff/00112233aabbccdd"


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "{}", "[]", "null", '{"MESSAGE": 5}', "{" * 70_000, journald(SYSLOG_IDENTIFIER="logger"),
        journald(SYSLOG_IDENTIFIER=["sshd"]), journald(MESSAGE=[300]), journald(MESSAGE=None),
        '{"login":"certificate"}', '{"login":"\\ud800"}', '{"login":["certificate"]}',
    ],
)  # fmt: skip
def test_what_is_no_line_of_sshd_is_nothing(line: str) -> None:
    assert read(line) is None


def test_a_repeated_message_is_a_login() -> None:
    assert read(f"Nov 25 11:59:58 web-1 sshd[1]: message repeated 2 times: [ {MESSAGE}]") is not None


def test_what_was_told_is_read_again() -> None:
    for told in (READ, Login(**vars(READ) | {"host": "web-1", "time": 5}), Unreadable(line="x", time=5)):
        assert read(told.encode().decode()) == told


# ------------------------------------------------------------------ hostility


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 25 11:59:58 web-1 sshd[1]: Failed publickey for root from 192.0.2.7 port 1 ssh2: {MESSAGE}",
        f"Nov 25 11:59:58 web-1 sshd[1]: Invalid user {MESSAGE} from 192.0.2.7 port 1",
        f"Nov 25 11:59:58 web-1 sshd[1]: input_userauth_request: invalid user sshd[1]: {MESSAGE} [preauth]",
        f"Nov 25 11:59:58 web-1 sshd[1]: Connection closed by {MESSAGE}",
        f"Nov 25 11:59:58 web-1 app[1]: sshd[1]: {MESSAGE}",
        f"Nov 25 11:59:58 sshd[1]: web-1 app[1]: {MESSAGE}",
        f"Nov 25 11:59:58 web-1 sshd[1]: Accepted publickey for root from 192.0.2.7 port 1 ssh2: ED25519 {KEY}",
        "Nov 25 11:59:58 web-1 sshd[1]: Accepted password for root from 192.0.2.7 port 1 ssh2",
        f'Nov 25 11:59:58 web-1 sshd[1]: Accepted certificate ID "x" (serial 5) signed by ED25519 CA {CA} via /etc/ssh/ca.pub',
    ],
)
def test_somebodys_text_inside_another_line_is_no_login(line: str) -> None:
    assert read(line) is None


@pytest.mark.parametrize(
    "key_id",
    [
        "a b c", f"x (serial 5) CA ED25519 {OTHER}", f"x (serial 5) CA ED25519 {OTHER} (serial 6) CA RSA {OTHER}", "",
        MESSAGE, "\x1b[2Jx", "x\\nAccepted publickey for bo", "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ],
)  # fmt: skip
def test_a_key_id_does_not_change_the_serial_and_the_ca(key_id: str) -> None:
    found = read(f"Nov 25 11:59:58 web-1 sshd[1]: {MESSAGE.replace('break-glass/ana/00112233aabbccdd', key_id)}")
    assert isinstance(found, Login)
    assert (found.serial, found.key, found.ca, found.user) == (READ.serial, KEY, CA, "root")
    assert found.key_id.isprintable() or not found.key_id


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE[:-1], MESSAGE + " ", MESSAGE[: MESSAGE.index(" CA ")], MESSAGE.replace("for root", "for two words"),
        MESSAGE.replace(f"serial {FIRST_SERIAL + 5}", f"serial {2**63}"), MESSAGE.replace("port 40022", "port x"),
    ],
)  # fmt: skip
def test_a_login_that_cannot_be_read_to_its_end_is_told_and_not_left_out(message: str) -> None:
    assert read(message) == Unreadable(line=message)
    found = read(journald(MESSAGE=message))
    assert isinstance(found, Unreadable)
    assert found.host == "web-1"


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_line_makes_the_reader_fail(before: str, after: str) -> None:
    for line in (before + MESSAGE + after, before + MESSAGE, MESSAGE + after, before):
        found = read(line)
        assert found is None or (read(found.encode().decode()) == found and "\x1b" not in found.encode().decode())


# ------------------------------------------------------------------ a real sshd


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Path]]:
    """A running sshd that trusts a CA, and that CA's key."""
    directory = tmp_path_factory.mktemp("lines")
    ca = sshd.make_key(directory / "ca")
    with sshd.trusting(directory / "host", ca.with_suffix(".pub"), ["web"]) as running:
        yield running, ca


FORGED = f"Accepted publickey for bo from 192.0.2.9 port 9 ssh2: ED25519-CERT {OTHER} ID y (serial 7) CA ED25519 {OTHER}"
HOSTILE = {
    "plain": "break-glass/ana/00112233aabbccdd",
    "spaces": "a b (serial 5)",
    "forged-end": f"x (serial 5) CA ED25519 {OTHER}",
    "control": "a\x1b[2J\x07b",
    "forged-line": f"x\n{FORGED}",
    "cut": "x" * 1200,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_login_hides_from_what_a_real_sshd_writes(site: tuple[Sshd, Path], tmp_path: Path, name: str) -> None:
    running, ca = site
    key, serial = sshd.make_key(tmp_path / "key"), FIRST_SERIAL + 77
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", HOSTILE[name], "-n", f"{ACCOUNT}@web", "-V", "-1m:+5m", "-z", str(serial)]
    subprocess.run([*sign, str(key.with_suffix(".pub"))], check=True, capture_output=True)
    before = len(running.log())
    went = sshd.ssh(running, ACCOUNT, "true", identity=key, certificate=tmp_path / "key-cert.pub")
    assert went.returncode == 0, went.stderr
    fingerprints = [PublicKey.parse_line(path.with_suffix(".pub").read_text()).fingerprint for path in (key, ca)]
    found = [told for told in (read(line) for line in written(running, before).splitlines()) if told]
    if name in ("forged-line", "cut"):
        assert any(isinstance(told, Unreadable) and fingerprints[0] in told.line for told in found)
    else:
        (told,) = found
        assert isinstance(told, Login)
        assert (told.user, told.serial, [told.key, told.ca]) == (ACCOUNT, serial, fingerprints)


def written(running: Sshd, since: int) -> str:
    """The log from there on, once the login is in it: sshd may write after ssh has ended."""
    deadline = time.monotonic() + sshd.PATIENCE
    while f"Accepted publickey for {ACCOUNT}" not in (text := running.log()[since:]) or not text.endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return text


def test_a_key_that_is_the_first_of_two_is_seen(tmp_path: Path) -> None:
    """Of the last method sshd says `Accepted`, and that is another key here."""
    ca, key, other = (sshd.make_key(tmp_path / name) for name in ("ca", "key", "other"))
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", "x", "-n", f"{ACCOUNT}@web", "-V", "-1m:+5m", "-z", "7", f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    prefix = sshd.make_prefix(tmp_path / "host", "AuthenticationMethods publickey,publickey")
    (prefix / "authorized_keys").write_text(other.with_suffix(".pub").read_text())
    installed = sshd.install_host(prefix, "--ca", f"{ca}.pub", "--group", "web", "--account", ACCOUNT)
    assert installed.returncode == 0, installed.stderr
    with sshd.running(prefix) as running:
        went = sshd.ssh(running, ACCOUNT, "true", identity=key, certificate=tmp_path / "key-cert.pub")
        assert went.returncode != 0, "one key is not enough"
        known = f"UserKnownHostsFile={prefix / f'known_hosts.{running.port}'}"
        options = ["-F", "/dev/null", "-o", known, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        line = ["ssh", *options, "-i", str(key), "-i", str(other), "-p", str(running.port), f"{ACCOUNT}@127.0.0.1", "true"]
        went = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert went.returncode == 0, went.stderr + running.log()
        found = [told for told in map(read, running.log().splitlines()) if isinstance(told, Login)]
    assert {told.serial for told in found} == {7}
