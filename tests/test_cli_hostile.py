"""What a CA that lies gets: a refusal in plain words, nothing installed, no file outside the directory, no terminal driven."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from ca.certificate import Certificate
from ca.signers.file import FileSigner
from ca.wire import string
from cli.main import run
from tests import keys
from tests.home import Answer, Home, LyingCA, lying, make_home, rewritten


@pytest.fixture(scope="module")
def ca_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileSigner, FileSigner]:
    directory = tmp_path_factory.mktemp("ca")
    return keys.make(directory, name="ca"), keys.make(directory, name="log")


@pytest.fixture
def ca(ca_keys: tuple[FileSigner, FileSigner]) -> Iterator[LyingCA]:
    with lying(LyingCA(*ca_keys)) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = make_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(made.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return made


def set_up(home: Home, ca: LyingCA) -> int:
    return run(["setup", ca.url, "--fingerprint", ca.trust.fingerprint, "--key", str(home.key)])


@pytest.fixture
def believer(home: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]) -> Home:
    """Somebody who believed this CA while it was honest."""
    assert set_up(home, ca) == 0
    capsys.readouterr()
    return home


def everything_below(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_nothing_changed(home: Home, before: dict[str, bytes]) -> None:
    assert everything_below(home.path.parent / "home") == before


def test_an_honest_answer_is_installed(believer: Home, ca: LyingCA) -> None:
    assert run(["login", "web", "--for", "10m"]) == 0
    assert {"web-cert", "web-cert.pub", "web.json"} <= believer.files()
    assert "web-*.example.com" in (believer.ours / "config").read_text()


def _other_key(certificate: Certificate, directory: Path) -> Certificate:
    return replace(certificate, key=keys.make(directory, name="other").public_key)


CHANGES: dict[str, tuple[str, Callable[[Certificate], Certificate]]] = {
    "more principals": ("principals", lambda c: replace(c, principals=("root@web", "root@db"))),
    "other principals": ("principals", lambda c: replace(c, principals=("root@db",))),
    "a longer life": ("lasts longer", lambda c: replace(c, valid_before=c.valid_before + 61)),
    "a later life": ("not asked for", lambda c: replace(c, valid_after=c.valid_after + 600, valid_before=c.valid_before + 600)),
    "a life that is over": ("expired", lambda c: replace(c, valid_after=c.valid_after - 999, valid_before=c.valid_before - 999)),
    "a life to come": ("not valid yet", lambda c: replace(c, valid_after=c.valid_before - 1)),
    "another person": ("key id", lambda c: replace(c, key_id="bo/web/17")),
    "another role": ("key id", lambda c: replace(c, key_id="ana/db/17")),
    "another request": ("key id", lambda c: replace(c, key_id="ana/web/16")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_certificate_with_something_else_than_was_asked_for_is_not_installed(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    expected, ca.change_certificate = CHANGES[change]
    before = everything_below(believer.path)
    assert run(["login", "web", "--for", "10m"]) == 1
    assert expected in capsys.readouterr().err
    assert_nothing_changed(believer, before)


def test_a_certificate_over_another_key_is_not_installed(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca.change_certificate = lambda certificate: _other_key(certificate, tmp_path)
    before = everything_below(believer.path)
    assert run(["login", "web"]) == 1
    assert "certifies another key" in capsys.readouterr().err
    assert_nothing_changed(believer, before)


def test_a_certificate_by_another_ca_is_not_installed(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca.signer = keys.make(tmp_path, name="stolen")
    before = everything_below(believer.path)
    assert run(["login", "web"]) == 1
    assert "which this machine does not believe" in capsys.readouterr().err
    assert_nothing_changed(believer, before)


def test_a_signature_that_does_not_fit_is_not_installed(believer: Home, ca: LyingCA) -> None:
    ca.change_blob = lambda signed: replace(signed, signature=signed.signature[:-1] + bytes([signed.signature[-1] ^ 1])).line
    before = everything_below(believer.path)
    assert run(["login", "web"]) == 1
    assert_nothing_changed(believer, before)


REWRITES: dict[str, tuple[bytes, bytes]] = {
    "a host certificate": (b"\0\0\0\x01" + string("ana/web/17"), b"\0\0\0\x02" + string("ana/web/17")),
    "no principals": (string(string("root@web")), string(b"")),
    "a principal with a wildcard": (string(string("root@web")), string(string("root@*"))),
    "a key id that drives a terminal": (string("ana/web/17"), string("ana/\x1b[2J")),
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_certificate_that_could_not_be_built_here_is_not_installed(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], rewrite: str
) -> None:
    old, new = REWRITES[rewrite]
    ca.change_blob = lambda signed: rewritten(ca.signer, signed, old, new)
    before = everything_below(believer.path)
    assert run(["login", "web"]) == 1
    assert "\x1b" not in capsys.readouterr().err
    assert_nothing_changed(believer, before)


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a role that leaves the directory": lambda a: a | {"role": "../../x"},
    "another role": lambda a: a | {"role": "db"},
    "another person": lambda a: a | {"person": "bo"},
    "another serial": lambda a: a | {"serial": 19},
    "a later start": lambda a: a | {"valid_after": a["valid_after"] + 1},
    "an earlier end": lambda a: a | {"valid_before": a["valid_before"] - 1},
    "an account more": lambda a: a | {"accounts": [*a["accounts"], {"account": "root", "group": "db", "hosts": []}]},
    "no accounts": lambda a: a | {"accounts": []},
    "a host with a newline": lambda a: a | {"accounts": [a["accounts"][0] | {"hosts": ["web-1\nProxyCommand touch /tmp/x"]}]},
    "a host with a quote": lambda a: a | {"accounts": [a["accounts"][0] | {"hosts": ['web-1" exec "touch /tmp/x']}]},
    "a host that is negated": lambda a: a | {"accounts": [a["accounts"][0] | {"hosts": ["!web-1"]}]},
    "a host with a comma": lambda a: a | {"accounts": [a["accounts"][0] | {"hosts": ["web-1,*"]}]},
    "an account with a space": lambda a: a | {"accounts": [a["accounts"][0] | {"account": "root exec"}]},
    "a certificate of two lines": lambda a: a | {"certificate": a["certificate"] + "\nssh-ed25519 AAAA"},
    "no certificate": lambda a: {name: value for name, value in a.items() if name != "certificate"},
    "times in words": lambda a: a | {"valid_before": "tomorrow"},
    "a list for an account": lambda a: a | {"accounts": [[]]},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_does_not_fit_its_certificate_is_not_installed(believer: Home, ca: LyingCA, name: str) -> None:
    ca.change_answer = ANSWERS[name]
    before = everything_below(believer.path.parent)
    assert run(["login", "web"]) == 1
    assert everything_below(believer.path.parent) == before


NO_FILES = ["../../x", "config", "profile", "signer", "checkpoint", "web.pub", "web-cert", "profile.json", "-oX", "", "WEB", "."]


@pytest.mark.parametrize("role", NO_FILES)
def test_a_role_never_becomes_another_file_than_its_own(believer: Home, ca: LyingCA, role: str) -> None:
    before = everything_below(believer.path.parent)
    assert run(["login", "--", role]) == 1
    assert ca.requests == []
    assert everything_below(believer.path.parent) == before


def test_a_listed_role_with_a_hostile_name_is_refused(believer: Home, ca: LyingCA) -> None:
    ca.role = "../../x"
    assert run(["roles"]) == 1
    assert run(["login"]) == 1


def test_a_default_that_lasts_longer_than_was_listed_is_not_installed(believer: Home, ca: LyingCA) -> None:
    ca.change_certificate = lambda certificate: replace(certificate, valid_before=certificate.valid_before + 3600)
    assert run(["login"]) == 1
    assert run(["login", "web"]) == 0


def test_a_role_that_lists_other_accounts_than_it_gives_is_not_installed(believer: Home, ca: LyingCA) -> None:
    ca.account = "deploy"
    ca.change_answer = lambda a: a | {"accounts": [{"account": "root", "group": "web", "hosts": []}]}
    assert run(["login"]) == 1
    assert "web" not in believer.files()


def test_texts_for_people_never_drive_the_terminal(believer: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["roles"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert run(["roles", "--json"]) == 0
    assert "\x1b" not in capsys.readouterr().out


HOSTILE_CASE: dict[str, object] = {
    "request": 17,
    "leaf": "0" * 64,
    "person": "eve",
    "role": "web",
    "about": "Web\x1b[2J",
    "reason": "disk\u202efull\x07",
    "duration": 600,
    "asked_at": 1_800_000_000,
    "status": "denied",
    "accounts": [],
    "force_command": "\x1b]0;title\x07",
    "permit": ["pty\x1b"],
    "steps": [],
    "approvals": [{"person": "bo", "time": 1_800_000_000, "reason": "go\x1b"}],
    "ended_by": "bo\x1b",
    "end_reason": "no\x1b",
    "findings": [{"condition": "x", "sentence": "s\x1b", "observed": "o\x07", "holds": True}],
    "ways": [],
}


HOSTILE_ENTRY: Final = (
    json.dumps(
        {
            "actor": "ana\x1b[2J",
            "address": "\u202e",
            "hardware_key": False,
            "index": 18,
            "kind": "withdraw",
            "policy": 1,
            "request": 17,
            "role": "web\x07",
            "signature": "AAAA",
            "statement": '{"reason":"\\u001b[2J"}',
            "time": 1,
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    .replace("\x1b", "\\u001b")
    .replace("\x07", "\\u0007")
)


def case_file(case: Mapping[str, object], *entries: str) -> dict[str, object]:
    return {"case": 17, "requests": [case], "entries": list(entries), "more": False}


@pytest.mark.parametrize("command", [["show", "17"], ["show", "17", "--json"], ["requests"], ["approve", "17", "--yes"]])
def test_what_others_wrote_in_a_request_never_drives_the_terminal(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    ca.answers["/v1/requests/17"] = lambda: (200, {}, json.dumps(HOSTILE_CASE).encode())
    ca.answers["/v1/cases/17"] = lambda: (200, {}, json.dumps(case_file(HOSTILE_CASE, HOSTILE_ENTRY, "\x1b[2J")).encode())
    ca.answers["/v1/requests"] = lambda: (200, {}, json.dumps({"requests": [HOSTILE_CASE]}).encode())
    run(command)
    shown = capsys.readouterr()
    assert shown.out + shown.err
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out + shown.err)


@pytest.mark.parametrize("change", [{"person": "../eve"}, {"role": "x\n"}, {"leaf": "x"}, {"status": "OK\x1b"}, {"steps": 1}])
def test_a_case_with_a_name_that_is_none_is_refused(believer: Home, ca: LyingCA, change: dict[str, object]) -> None:
    ca.answers["/v1/cases/17"] = lambda: (200, {}, json.dumps(case_file(HOSTILE_CASE | change)).encode())
    assert run(["show", "17"]) == 1


def test_a_signature_in_a_case_file_that_does_not_verify_is_said(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]
) -> None:
    ca.answers["/v1/cases/17"] = lambda: (200, {}, json.dumps(case_file(HOSTILE_CASE, HOSTILE_ENTRY)).encode())
    assert run(["show", "17"]) == 0
    assert "BAD: the signatures of these entries do not verify: 18" in capsys.readouterr().err


def test_an_approval_signs_nothing_that_the_log_does_not_prove(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]
) -> None:
    pending = HOSTILE_CASE | {"status": "pending", "entry": "{}"}
    ca.answers["/v1/requests/17"] = lambda: (200, {}, json.dumps(pending).encode())
    assert run(["approve", "17", "--yes"]) == 1
    assert "Nothing was signed" in capsys.readouterr().err
    assert ca.requests == []


def test_a_certificate_that_outlives_its_grant_is_not_installed(believer: Home, ca: LyingCA) -> None:
    ca.change_answer = lambda a: a | {"until": a["until"] - 1}
    assert run(["login", "web", "--for", "10m"]) == 1
    ca.change_answer = lambda a: a | {"until": a["until"] + 3600}
    assert run(["login", "web", "--for", "10m"]) == 1
    assert "web-cert" not in believer.files()


def _problem(status: int, code: str, **members: object) -> Callable[[], Answer]:
    body = {"code": code, "detail": "no\x1b[2J", "hint": "ask\u202e\nhint: twice", "status": status} | members
    return lambda: (status, {"Content-Type": "application/problem+json"}, json.dumps(body).encode())


def test_a_problem_is_told_with_its_exit_code_and_without_control_characters(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = {"condition": "groups", "sentence": "is in sre\x07", "observed": "is not", "holds": False}
    near, far = {"rule": "allow 2", "findings": [finding | {"holds": True}]}, {"rule": "allow 1", "findings": [finding]}
    ca.answers["/v1/requests"] = _problem(403, "denied", ways=[far, near], entry=7)
    assert run(["login", "web"]) == 3
    told = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\u202e"} & set(told)
    assert told.index("allow 2") < told.index("✗ is in sre")
    assert "entry 7" in told


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [("stale", 401, 1), ("forbidden", 403, 1), ("log-unwritable", 503, 1), ("internal", 500, 5), ("unheard-of", 500, 5)],
)
def test_every_problem_has_its_exit_code(believer: Home, ca: LyingCA, code: str, status: int, expected: int) -> None:
    ca.answers["/v1/requests"] = _problem(status, code)
    assert run(["login", "web"]) == expected


BAD_ANSWERS: dict[str, tuple[int, Callable[[], Answer]]] = {
    "a redirect": (5, lambda: (302, {"Location": "https://evil.example/\x07"}, b"")),
    "an error page": (5, lambda: (502, {}, b"<html>Bad Gateway</html>")),
    "nothing": (5, lambda: (404, {}, b"")),
    "something that is not JSON": (1, lambda: (200, {}, b"<html>")),
    "deeply nested JSON": (1, lambda: (200, {}, b"[" * 100_000)),
    "a number without end": (1, lambda: (200, {}, b'{"person":' + b"9" * 5000 + b"}")),
    "a huge answer": (1, lambda: (200, {}, b" " * (5 << 20))),
    "a truncated answer": (5, lambda: (200, {"Content-Length": "100"}, b"{")),
    "a key twice": (1, lambda: (200, {}, b'{"person":"ana","person":"eve"}')),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_none_is_an_error_in_plain_words(
    believer: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    expected, ca.answers["/v1/roles"] = BAD_ANSWERS[name]
    assert run(["roles"]) == expected
    told = capsys.readouterr().err
    assert told.startswith("jit-ssh: error: ")
    assert "Traceback" not in told


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_statement(believer: Home, ca: LyingCA) -> None:
    ca.cut_answers = 2
    assert run(["login", "web"]) == 0
    assert len(ca.requests) == 3
    assert len(set(ca.requests)) == 1


def test_a_ca_that_never_answers_is_unreachable_and_nothing_is_installed(believer: Home, ca: LyingCA) -> None:
    ca.cut_answers = 100
    assert run(["login", "web"]) == 5
    assert "web" not in believer.files()


def test_a_fingerprint_that_does_not_fit_writes_nothing(home: Home, ca: LyingCA, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_below(home.path)
    assert run(["setup", ca.url, "--fingerprint", "SHA256:" + "A" * 43, "--key", str(home.key)]) == 1
    assert ca.trust.fingerprint in capsys.readouterr().err
    assert everything_below(home.path) == before


NO_ADDRESSES = ["http://ca.example.com", "ftp://127.0.0.1", "https://ca/x", "https://u@ca", "https://", "x", "https://ca:x"]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_an_address_that_could_be_listened_to_or_is_none_is_refused(home: Home, url: str) -> None:
    assert run(["setup", url]) == 1
    assert not home.ours.exists()


def tls_certificate(directory: Path, name: str) -> Path:
    """A file of a new self-signed certificate for `name` and its key."""
    path = directory / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(path), "-out", str(path) + ".crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.mark.parametrize(
    ("name", "known", "expected"), [("localhost", True, 0), ("localhost", False, 5), ("other.example", True, 5)]
)
def test_a_ca_over_tls_has_to_be_who_its_address_says(
    home: Home,
    ca_keys: tuple[FileSigner, FileSigner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    known: bool,
    expected: int,
) -> None:
    pem = tls_certificate(tmp_path, name)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", f"{pem}.crt")
    with lying(LyingCA(*ca_keys), tls=pem) as ca:
        assert set_up(home, ca) == expected
    assert (home.ours / "profile.json").exists() == (expected == 0)


def test_another_ca_at_the_same_address_needs_its_fingerprint(believer: Home, ca: LyingCA, tmp_path: Path) -> None:
    before = everything_below(believer.path)
    ca.signer = keys.make(tmp_path, name="other")
    done = Home(believer.path).run("setup", ca.url, "--key", str(believer.key))
    assert done.returncode == 1
    assert "believed another CA so far" in done.stderr
    assert everything_below(believer.path) == before
    assert set_up(believer, ca) == 0
