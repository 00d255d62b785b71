"""The break-glass kit as its users meet it: real terminals, ssh-agent, ssh-keygen, sshd, and nothing else of this project."""

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from breakglass import drill, options
from breakglass.main import VERSION
from breakglass.stop import Stop
from breakglass.wanted import check, read_key
from shamir_mnemonic import Share  # type: ignore[import-untyped]  # the library has no types

from ca.journal import FIRST_SERIAL, Close, Drill, Drilled, Open, Refused, Use
from ca.keys import PublicKey
from ca.kit import Facts
from ca.wire import string
from server.kit import build
from server.sealing import Sealed
from tests import keys
from tests.formats_example import FixedKey
from tests.glass import CTRL_C, Laptop, fresh_seal, make_laptop, types_shares, types_yes
from tests.home import Running
from tests.journals import Pen
from tests.sshd import current_account, install_host, make_key, make_prefix, running


@pytest.fixture(scope="module")
def sealed() -> Sealed:
    return fresh_seal()


@pytest.fixture
def laptop(tmp_path: Path, sealed: Sealed) -> Laptop:
    return make_laptop(tmp_path / "laptop", sealed)


def used(laptop: Laptop, *arguments: str, officers: tuple[str, str] = ("cy", "eve")) -> Running:
    """The whole way; it must end well."""
    with laptop.opened(*arguments) as program:
        types_yes(program)
        types_shares(program, laptop, *officers)
        assert program.end() == 0, program.said
    return program


def refused(laptop: Laptop, *arguments: str) -> str:
    """What it says when it refuses before anybody is asked for anything."""
    with laptop.opened(*arguments) as program:
        assert program.end() == 1, program.said
    assert "Type yes" not in program.said
    nothing_handed_out(laptop)
    return program.said


def nothing_handed_out(laptop: Laptop) -> None:
    assert not [name for name, _ in laptop.files() if "cert" in name]
    assert not any((laptop.home / "tmp").iterdir())


def told_by_ssh_keygen(path: Path) -> dict[str, str]:
    """What `ssh-keygen -L` says of a certificate, by its words; it shows none whose signature does not fit."""
    command, utc = ["ssh-keygen", "-L", "-f", str(path)], {"TZ": "UTC", "PATH": os.environ["PATH"]}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=utc).stdout
    members = re.findall(r"^ {8}([A-Z][A-Za-z ]+): ?(.*(?:\n {16}.*)*)", told, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in members}


def utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# ------------------------------------------------------------------ what it makes


def test_two_officers_make_the_certificate_that_the_journal_says(laptop: Laptop) -> None:
    program = used(laptop, "--duration", "45m")
    opened, line, closed = laptop.lines()
    assert isinstance(opened, Open)
    assert isinstance(line, Use)
    assert closed == replace(closed, certificates=1) if isinstance(closed, Close) else False
    fingerprints = {share.officer: share.fingerprint for share in laptop.sealed.seal.shares}
    assert opened.shares == (fingerprints["cy"], fingerprints["eve"])
    assert line.key == " ".join(laptop.key.read_text().split()[:2])
    assert told_by_ssh_keygen(laptop.home / "id_ed25519-break-glass-cert.pub") == {
        "Type": "ssh-ed25519-cert-v01@openssh.com user certificate",
        "Public key": f"ED25519-CERT {PublicKey.parse_line(line.key).fingerprint}",
        "Signing CA": f"ED25519 {PublicKey.parse_line(laptop.facts.key).fingerprint} (using ssh-ed25519)",
        "Key ID": f'"break-glass/ana/{line.digest[:16]}"',
        "Serial": str(line.serial),
        "Valid": f"from {utc(line.valid_after)} to {utc(line.valid_before)}",
        "Principals": "break-glass@web-prod",
        "Critical Options": "(none)",
        "Extensions": "permit-pty",
    }
    assert line.valid_before - line.time == 45 * 60
    assert FIRST_SERIAL <= line.serial < 2**63
    assert f"ssh -o IdentitiesOnly=yes -o CertificateFile={laptop.home}/id_ed25519-break-glass-cert.pub" in program.said
    assert f"{current_account()}@HOST" in program.said
    assert f"break-glass import DIR {laptop.journal}" in program.said


def test_two_engineers_get_in_with_one_opening(laptop: Laptop) -> None:
    bo = make_key(laptop.home / "bo")
    used(laptop, *laptop.usual, "--for", "bo", "--key", f"{bo}.pub", officers=("di", "cy"))
    _, ana_line, bo_line, closed = laptop.lines()
    assert isinstance(closed, Close)
    assert closed.certificates == 2
    assert isinstance(ana_line, Use)
    assert isinstance(bo_line, Use)
    for name, line in (("id_ed25519", ana_line), ("bo", bo_line)):
        told = told_by_ssh_keygen(laptop.home / f"{name}-break-glass-cert.pub")
        assert (told["Serial"], told["Key ID"]) == (str(line.serial), f'"{line.key_id}"')
    assert ana_line.serial != bo_line.serial


def test_a_second_use_goes_on_with_the_journal(laptop: Laptop) -> None:
    used(laptop)
    used(laptop, officers=("di", "eve"))
    assert [line.TAG[1] for line in laptop.lines()] == ["open", "use", "close"] * 2


def test_it_needs_no_site_packages(laptop: Laptop) -> None:
    told = subprocess.run([sys.executable, "-I", "-S", laptop.kit, "--help"], check=True, capture_output=True, text=True).stdout
    assert "web-prod" in told
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    names = {name for name, _ in laptop.files()}
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code, laptop.kit, *laptop.usual], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, env=laptop.environment) as program:  # fmt: skip
        _, said = program.communicate(timeout=30)
    assert program.returncode == 1
    assert "typed on a terminal, and there is none" in said
    assert {name for name, _ in laptop.files()} == names


def test_the_same_facts_make_the_same_kit_and_it_holds_no_secret(laptop: Laptop, tmp_path: Path) -> None:
    build(tmp_path / "again", laptop.facts)
    assert (tmp_path / "again").read_bytes() == laptop.kit.read_bytes()
    assert os.access(laptop.kit, os.X_OK)


# ------------------------------------------------------------------ drills


def test_a_drill_goes_the_whole_way_into_a_private_sshd(laptop: Laptop) -> None:
    with ca_that_answers() as url:
        practised = make_laptop(laptop.home.parent / "other", laptop.sealed, ask=(url,))
        used(practised, "--for", "ana", "--group", "web-prod", "--reason", "quarterly", "--drill")
    opened, line, drilled, closed = practised.lines()
    assert isinstance(opened, Open)
    assert opened.drill
    assert isinstance(line, Drill)
    assert isinstance(drilled, Drilled)
    assert drilled.entered
    assert isinstance(closed, Close)
    nothing_handed_out(practised)


def test_a_drill_that_does_not_get_in_says_so_and_is_recorded(laptop: Laptop) -> None:
    nowhere = ("--drill", "--at", "nobody@127.0.0.1:1")  # nothing listens there
    with laptop.opened("--for", "ana", "--group", "web-prod", "--reason", "x", *nowhere) as program:
        types_yes(program)
        types_shares(program, laptop, "cy", "di")
        assert program.end() == 1
    assert "ssh did not get into nobody@127.0.0.1 1" in program.said
    assert [line.TAG[1] for line in laptop.lines()] == ["open", "drill", "drilled", "refused"]
    drilled = laptop.lines()[2]
    assert isinstance(drilled, Drilled)
    assert not drilled.entered


def test_a_canary_host_is_entered_as_one_that_install_host_made(tmp_path: Path) -> None:
    """`--at`, but for the person's own known_hosts."""
    emergency, key, other = (make_key(tmp_path / name) for name in ("emergency", "key", "other"))
    prefix = make_prefix(tmp_path / "etc")
    me = current_account()
    words = ["--ca", f"{other}.pub", "--group", "web-prod", "--account", me]
    done = install_host(prefix, *words, "--emergency", f"{emergency}.pub", "--emergency-account", me)
    assert done.returncode == 0, done.stderr
    certify = ["ssh-keygen", "-q", "-s", str(emergency), "-I", "break-glass/ana/0", "-n", "break-glass@web-prod", "-V", "+5m"]
    subprocess.run([*certify, f"{key}.pub"], check=True)
    with running(prefix) as sshd:
        (tmp_path / "known_hosts").write_text(sshd.known_hosts_line)
        known = ("-F", "/dev/null", "-o", f"UserKnownHostsFile={tmp_path}/known_hosts", "-o", "StrictHostKeyChecking=yes")
        target = drill.canary(f"{me}@127.0.0.1:{sshd.port}")
        assert target.name == f"{me}@127.0.0.1 {sshd.port}"
        target = replace(target, arguments=(*known, *target.arguments))
        assert drill.enters(target, key, tmp_path / "key-cert.pub")
        assert not drill.enters(target, other, tmp_path / "key-cert.pub")


@pytest.mark.parametrize("place", ["canary", "root@", "@canary", "root@-oX=y", "-x@canary", "root@canary:ssh", "root@canary:²"])
def test_what_is_no_place_to_practise_on_is_refused(place: str) -> None:
    with pytest.raises(Stop):
        drill.canary(place)


# ------------------------------------------------------------------ the manual

MANUAL = (Path(__file__).parents[1] / "server" / "BREAK-GLASS.md").read_text()
SOURCES = "".join(path.read_text() for path in (Path(drill.__file__).parent).glob("*.py"))


def test_the_manual_has_every_option_of_the_kit(laptop: Laptop, tmp_path: Path, sealed: Sealed) -> None:
    without = {"quorum": 1, "officers": (), "shares_id": None}
    hardware = make_laptop(tmp_path / "other", sealed, key=keys.SecurityKey().public_key.line, **without)
    told = subprocess.run([hardware.kit, "--help"], check=True, capture_output=True, text=True, env=laptop.environment).stdout
    options = set(re.findall(r"^  (--[a-z-]+)", told, re.MULTILINE))
    assert {"--for", "--security-key"} < options
    assert set(re.findall(r"^\| `(--[a-z-]+)", MANUAL, re.MULTILINE)) == options


def test_the_manual_explains_refusals_in_the_kits_own_words() -> None:
    table = MANUAL.partition("## When it refuses")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)`.* \| .* \| .* \|$", table, re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        for piece in re.split("…|Word 7", row):
            assert piece.strip() in SOURCES, row


def test_the_kits_version_is_the_products() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


# ------------------------------------------------------------------ shares


def at_share(program: Running, laptop: Laptop, number: int = 1) -> None:
    types_yes(program)
    types_shares(program, laptop, *("cy", "di")[: number - 1])
    program.expect(f"share {number} of 2, from word 1 of 33 on: ")


def ends_at_terminal(program: Running, laptop: Laptop) -> None:
    """Ctrl-C: nothing was handed out, and the journal has a line."""
    program.type(CTRL_C)
    assert program.end() == 1
    assert "given up at the terminal" in program.said
    nothing_handed_out(laptop)
    last = laptop.lines()[-1]
    assert isinstance(last, Refused)
    assert last.signature is None


def test_words_come_in_any_pieces_and_short(laptop: Laptop) -> None:
    words = laptop.sealed.shares["cy"].split()
    with laptop.opened() as program:
        at_share(program, laptop)
        program.type(" ".join(words[:10]).upper() + "\n")
        program.expect("from word 11 of 33 on: ")
        program.type("   " + "  ".join(word[:4] for word in words[10:]) + " \n")
        program.expect("share 2 of 2, from word 1 of 33 on: ")
        program.type(laptop.sealed.shares["di"] + "\n")
        assert program.end() == 0, program.said


def test_a_wrong_word_is_named_by_its_position_and_the_rest_is_kept(laptop: Laptop) -> None:
    words = laptop.sealed.shares["cy"].split()
    with laptop.opened() as program:
        at_share(program, laptop)
        program.type(" ".join([*words[:6], "qwertz", *words[7:]]) + "\n")
        program.expect("from word 7 of 33 on: ")
        program.type(" ".join(words[6:]) + "\n")
        program.expect("share 2 of 2, from word 1 of 33 on: ")
        ends_at_terminal(program, laptop)
    assert "Word 7 is not in the list" in program.said
    assert "Its words fit together." in program.said
    assert "qwertz" not in program.said


def test_a_damaged_share_is_asked_for_again(laptop: Laptop) -> None:
    words = laptop.sealed.shares["cy"].split()
    with laptop.opened() as program:
        at_share(program, laptop)
        program.type(" ".join([words[1], words[0], *words[2:]]) + "\n")  # damaged: each word is one of the list
        program.expect("from word 1 of 33 on: ")
        assert "two are in the wrong order" in program.said
        program.type(" ".join(words) + " academic\n")
        program.expect("from word 1 of 33 on: ")
        assert "more than 33 words" in program.said
        program.type(" ".join(words[:5]) + "\n")
        program.expect("from word 6 of 33 on: ")
        program.type("\n")
        program.expect("from word 1 of 33 on: ")
        assert "share 1 of 2 starts again" in program.said
        program.type(" ".join(words) + "\n")
        program.expect("share 2 of 2, from word 1 of 33 on: ")
        program.type(" ".join(words) + "\n")
        program.expect("share 2 of 2, from word 1 of 33 on: ")
        assert "typed already" in program.said
        ends_at_terminal(program, laptop)


def test_a_share_of_another_kit_or_an_older_sealing_is_told_apart(laptop: Laptop) -> None:
    with laptop.opened() as program:
        at_share(program, laptop)
        program.type(fresh_seal().shares["cy"] + "\n")
        program.expect("from word 1 of 33 on: ")
        assert "share of another kit, or from before the last rotation" in program.said
        ends_at_terminal(program, laptop)


def test_shares_that_make_another_key_are_refused_without_saying_which(laptop: Laptop) -> None:
    """Forged ones, with the right number in them."""
    stranger = Share.from_mnemonic(fresh_seal().shares["di"])
    forged = replace(stranger, identifier=laptop.facts.shares_id).mnemonic()
    with laptop.opened() as program:
        at_share(program, laptop, 2)
        program.type(forged + "\n")
        assert program.end() == 1
    assert "these shares do not make this kit's key together" in program.said
    assert not re.search("cy|eve", program.said.partition("do not make")[2])
    nothing_handed_out(laptop)
    (line,) = laptop.lines()
    assert isinstance(line, Refused)


def test_a_whole_set_of_another_sealing_is_refused_by_its_key(tmp_path: Path, sealed: Sealed) -> None:
    """Its shares fit together, so only the key that they make tells."""
    stranger = fresh_seal()
    laptop = make_laptop(tmp_path / "laptop", stranger, key=sealed.seal.key)
    with laptop.opened() as program:
        types_yes(program)
        types_shares(program, laptop, "cy", "di")
        assert program.end() == 1
    assert "these shares do not make this kit's key together" in program.said
    assert "in no journal" not in program.said
    nothing_handed_out(laptop)
    (line,) = laptop.lines()
    assert isinstance(line, Refused)
    assert line.signature is None


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("key", [CTRL_C, "\x04"])
def test_giving_up_at_any_prompt_signs_nothing(laptop: Laptop, number: int, key: str) -> None:
    with laptop.opened() as program:
        if number:
            at_share(program, laptop, number)
        else:
            program.expect("Type yes: ")
        program.type(key)
        assert program.end() == 1
    assert "given up at the terminal" in program.said
    nothing_handed_out(laptop)
    (line,) = laptop.lines()
    assert isinstance(line, Refused)
    assert line.attempted == "ana on web-prod: CA down, INC-77"


def test_whoever_does_not_say_yes_gets_nothing(laptop: Laptop) -> None:
    with laptop.opened() as program:
        program.expect("Type yes: ")
        program.type("y\n")
        assert program.end() == 1
    assert "you did not say yes" in program.said


# ------------------------------------------------------------------ secrets


def test_no_secret_is_in_a_file_an_argument_the_environment_or_on_the_screen(laptop: Laptop) -> None:
    with laptop.opened() as program:
        at_share(program, laptop, 2)
        seen = list(_of_the_processes(str(laptop.kit), program.said))
        program.type(laptop.sealed.shares["di"] + "\n")
        assert program.end() == 0
    seen += [content for _, content in laptop.files()] + [program.said.encode()]
    assert len(seen) > 4
    for officer in ("cy", "di"):
        words = laptop.sealed.shares[officer].split()
        for at in range(len(words) - 2):
            assert not any(" ".join(words[at : at + 3]).encode() in content for content in seen)
    assert not [name for name, _ in laptop.files() if "history" in name]


def test_what_is_typed_ahead_does_not_show_either(laptop: Laptop) -> None:
    first, second = (laptop.sealed.shares[name] for name in ("cy", "di"))
    with laptop.opened() as program:
        at_share(program, laptop)
        program.type(f"{first}\n{second}\n")
        assert program.end() == 0, program.said
    assert not any(" ".join(words.split()[:3]) in program.said for words in (first, second))


def _of_the_processes(kit: str, said: str) -> Iterator[bytes]:
    """What the system tells of the running kit; it must forbid core dumps, and lock its memory or have said that it cannot."""
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if kit.encode() in arguments and b"import os, pty" not in arguments:
            found = True
            yield arguments
            yield (process / "environ").read_bytes() if os.access(process / "environ", os.R_OK) else b""
            assert re.search(r"^Max core file size +0 +0 ", (process / "limits").read_text(), re.MULTILINE)
            locked = re.search(r"^VmLck:\s+[1-9]", (process / "status").read_text(), re.MULTILINE)
            swaps = len(Path("/proc/swaps").read_text().splitlines()) > 1
            assert locked or not swaps or "does not let the program lock its memory" in said
    assert found


def test_a_terminated_kit_leaves_nothing_behind(laptop: Laptop) -> None:
    with laptop.opened() as program:
        at_share(program, laptop, 2)
        for process in Path("/proc").glob("[0-9]*"):
            arguments = b""
            with suppress(OSError):  # it may end meanwhile
                arguments = (process / "cmdline").read_bytes()
            if str(laptop.kit).encode() in arguments and b"import os, pty" not in arguments:
                os.kill(int(process.name), signal.SIGTERM)
        assert program.end() == 1
    nothing_handed_out(laptop)
    assert isinstance(laptop.lines()[-1], Refused)


# ------------------------------------------------------------------ when it refuses


@contextmanager
def ca_that_answers(status: int = 200, body: bytes = b'{"status":"ok"}') -> Iterator[str]:
    """Something that answers `/readyz`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_it_refuses_while_the_ca_answers_unless_forced_for_a_reason(tmp_path: Path, sealed: Sealed) -> None:
    with ca_that_answers() as url:
        laptop = make_laptop(tmp_path / "laptop", sealed, ask=("http://127.0.0.1:1", url))
        assert f"the CA at {url} answers: this is not the moment" in refused(laptop)
        assert "--force needs a reason" in refused(laptop, "--force", " ")
        used(laptop, "--force", "it answers, and denies everybody")
    *_, opened, _, _ = laptop.lines()
    assert isinstance(opened, Open)
    assert opened.forced == "it answers, and denies everybody"


@pytest.mark.parametrize(("status", "body"), [(503, b'{"code":"log-unwritable"}'), (200, b"<html>Log in to the hotel</html>")])
def test_what_is_no_ca_in_order_keeps_nobody_from_using_it(tmp_path: Path, sealed: Sealed, status: int, body: bytes) -> None:
    with ca_that_answers(status, body) as url:
        laptop = make_laptop(tmp_path / "laptop", sealed, ask=(url,))
        with laptop.opened() as program:
            program.expect("Type yes: ")
            ends_at_terminal(program, laptop)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--for": "eve"}, "'eve' is not among those that may be named"),
        ({"--for": "ana\x1b[2J"}, "'ana\\x1b[2J' is not among"),
        ({"--group": "db-prod"}, "'db-prod' is not among those that can be entered"),
        ({"--reason": "  "}, "the reason is not one line"),
        ({"--reason": "a\nb"}, "the reason is not one line"),
        ({"--reason": "x" * 501}, "the reason is not one line"),
        ({"--duration": "61m"}, "61m is more than the 60 minutes that were sealed"),
        ({"--duration": "2h"}, "more than the 60 minutes"),
        ({"--duration": "0m"}, "is not a duration"),
        ({"--duration": "-5m"}, "is not a duration"),
        ({"--duration": "1d"}, "is not a duration"),
    ],
)  # fmt: skip
def test_more_than_was_sealed_is_refused(laptop: Laptop, changes: dict[str, str], words: str) -> None:
    given = dict(zip(laptop.usual[::2], laptop.usual[1::2], strict=True)) | changes
    said = why_not(laptop.facts, *(f"{name}={value}" for name, value in given.items()))
    assert words in said
    assert "\x1b[2J" not in said


def why_not(facts: Facts, *arguments: str) -> str:
    """What the kit's own check says of a command line, in this process."""
    asked = options.parse(arguments, facts, datetime.now(UTC))
    with pytest.raises(Stop) as caught:
        check(asked, tuple(read_key(person, path) for person, path in zip(asked.person, asked.key, strict=True)), facts)
    return caught.value.message


def test_what_is_refused_is_a_line_of_the_journal(laptop: Laptop) -> None:
    assert "2h is more than the 60 minutes that were sealed" in refused(laptop, "--duration", "2h")
    (line,) = laptop.lines()
    assert isinstance(line, Refused)
    assert line.why == "2h is more than the 60 minutes that were sealed"


def test_more_people_than_a_session_makes_certificates_for_are_refused(laptop: Laptop) -> None:
    one, key = replace(laptop.facts, certificates=1), str(laptop.key)
    assert "2 certificates are more than the 1 of a session" in why_not(one, *laptop.usual, "--for", "bo", "--key", key)
    assert "named twice" in why_not(laptop.facts, *laptop.usual, "--for", "ana", "--key", key)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--for", "ana"), ("--for", "ana", "--group", "web-prod", "--reason", "x"), ("--for", "ana", "--grup", "x"),
     ("--for", "ana", "--group", "web-prod", "--reason", "x", "--key", "k", "--key", "l"),
     ("--for", "ana", "--group", "web-prod", "--reason", "x", "--key", "k", "--at", "a@b")],
)  # fmt: skip
def test_a_wrong_command_line_is_usage(laptop: Laptop, arguments: tuple[str, ...]) -> None:
    ran = subprocess.run([laptop.kit, *arguments], capture_output=True, text=True, check=False, env=laptop.environment)
    assert ran.returncode == 2
    assert "usage: break-glass" in ran.stderr


def bad_keys(directory: Path) -> Iterator[tuple[str, str]]:
    """What must not be certified, and words of the answer."""
    good = make_key(directory / "good")
    line = Path(f"{good}.pub").read_text()
    yield good.read_text(), "is a private key"
    command = ["ssh-keygen", "-q", "-s", str(good), "-I", "x", "-n", "root", f"{good}.pub"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    yield Path(f"{good}-cert.pub").read_text(), "is not one public key"
    yield line + line, "is not one public key"
    yield "", "is not one public key"
    yield "ssh-ed25519 AAAA", "is not a sound public key"
    yield line.replace("ssh-ed25519", "ssh-rsa"), "is not a sound public key"
    yield Path(f"{make_key(directory / 'rsa', '-t', 'rsa', '-b', '2048')}.pub").read_text(), "is not a sound public key"
    point = string("ssh-ed25519") + string(b"\x01" + bytes(31))
    yield f"ssh-ed25519 {base64.b64encode(point).decode()}", "is not a sound public key"


def test_a_key_that_lets_in_others_or_is_none_is_refused_and_never_shown(laptop: Laptop) -> None:
    path = laptop.home / "given"
    for content, words in bad_keys(laptop.home.parent):
        path.write_text(content)
        with pytest.raises(Stop) as caught:
            read_key("ana", path)
        assert words in caught.value.message
        assert not any(line in f"{caught.value.message}{caught.value.hint}" for line in content.splitlines()[1:-1])
    with pytest.raises(Stop, match="cannot be read"):
        read_key("ana", laptop.home / "nothing")


def test_a_clock_before_the_kit_was_made_is_refused(tmp_path: Path, sealed: Sealed) -> None:
    laptop = make_laptop(tmp_path / "laptop", sealed, made=int(time.time()) + 3600)
    assert "which is before the kit was made" in refused(laptop)


def test_an_old_kit_asks_whether_there_is_a_newer_one_and_always_shows_the_clock(tmp_path: Path, sealed: Sealed) -> None:
    laptop = make_laptop(tmp_path / "laptop", sealed, made=int(time.time()) - 401 * 86_400)
    with laptop.opened() as program:
        program.expect("Type yes: ")
        ends_at_terminal(program, laptop)
    assert "Is there a newer one? Is the clock right?" in program.said
    assert "This machine's clock says 20" in program.said


# ------------------------------------------------------------------ the journal


def write_journal(laptop: Laptop, *, lines: int, at: int | None = None) -> None:
    """A journal with lines that were refused."""
    pen = Pen(FixedKey(1), laptop.facts, time=(at or int(time.time()) - 7200) - 1)
    for _ in range(lines):
        pen.refused()
    laptop.journal.write_bytes(pen.journal)


def test_a_journal_from_the_future_stops_a_clock_that_went_back(laptop: Laptop) -> None:
    write_journal(laptop, lines=1, at=int(time.time()) + 7200)
    before = laptop.journal.read_bytes()
    with laptop.opened() as program:
        types_yes(program)
        types_shares(program, laptop, "cy", "di")
        assert program.end() == 1
    assert "s before the last line of" in program.said
    assert laptop.journal.read_bytes() == before
    nothing_handed_out(laptop)


@pytest.mark.parametrize("damage", ["cut", "edited", "another kit's", "a pipe"])
def test_a_damaged_journal_is_left_as_it_is_and_a_new_one_begun(laptop: Laptop, damage: str) -> None:
    write_journal(laptop, lines=2)
    whole = laptop.journal.read_bytes()
    content = {"cut": whole[:-5], "edited": whole.replace(b"web", b"wob", 1), "another kit's": whole.splitlines(keepends=True)[1]}
    if damage == "a pipe":
        laptop.journal.unlink()
        os.mkfifo(laptop.journal)
    else:
        laptop.journal.write_bytes(content[damage])
    program = used(laptop)
    assert "is not a journal to go on with" in program.said
    assert damage == "a pipe" or laptop.journal.read_bytes() == content[damage]
    second = laptop.journal.with_stem(laptop.journal.stem + "-2")
    assert [line.TAG[1] for line in laptop.lines(second)] == ["open", "use", "close"]
    assert str(second) in program.said


def test_two_sessions_at_once_write_two_journals(laptop: Laptop) -> None:
    with laptop.opened() as first:
        first.expect("Type yes: ")
        second = used(laptop)
        assert "Another break-glass is writing" in second.said
        first.type("no\n")
        assert first.end() == 1
    second_journal = laptop.journal.with_stem(laptop.journal.stem + "-2")
    assert [line.TAG[1] for line in laptop.lines(second_journal)] == ["open", "use", "close"]


def test_no_certificate_without_its_line_on_the_disk(laptop: Laptop) -> None:
    """The file may not grow by more than the `open` line: what a full disk does."""
    write_journal(laptop, lines=100)  # larger than any other file that the kit writes
    size = laptop.journal.stat().st_size
    limited = make_limited(laptop, size + 1100)
    with limited.opened() as program:
        types_yes(program)
        types_shares(program, limited, "cy", "di")
        assert program.end() == 1
    assert re.search("cannot be written: (File too large|the disk is full)", program.said)
    assert "this is in no journal" in program.said
    nothing_handed_out(laptop)
    assert laptop.lines()[-1].TAG[1] == "open"


def make_limited(laptop: Laptop, size: int) -> Laptop:
    """The same laptop, on which no file can be larger than `size` bytes."""
    real = (laptop.home / "bin" / "python3").readlink()
    (laptop.home / "bin" / "python3").unlink()
    script = f"""#!{real}
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
os.execv({str(real)!r}, [{str(real)!r}, *sys.argv[1:]])
"""
    (laptop.home / "bin" / "python3").write_text(script)
    (laptop.home / "bin" / "python3").chmod(0o755)
    return laptop


@pytest.mark.root
def test_a_full_disk_makes_no_certificate(laptop: Laptop) -> None:
    disk = laptop.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], check=True)
    try:
        (disk / "full").write_bytes(b"x" * 4096)
        with laptop.opened("--journal", str(disk / "journal.jsonl")) as program:
            types_yes(program)
            types_shares(program, laptop, "cy", "di")
            assert program.end() == 1
        assert (disk / "journal.jsonl").read_bytes() == b""
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "journal.jsonl cannot be written: No space left on device" in program.said
    nothing_handed_out(laptop)


# ------------------------------------------------------------------ a security key instead of shares


def test_a_security_key_signs_instead_of_officers(tmp_path: Path, sealed: Sealed) -> None:
    handle = tmp_path / "emergency"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519-sk", "-N", "", "-f", str(handle)], check=True, env=os.environ | keys.PROVIDER
    )
    line = " ".join(Path(f"{handle}.pub").read_text().split()[:2])
    laptop = make_laptop(tmp_path / "laptop", sealed, key=line, quorum=1, officers=(), shares_id=None)
    with laptop.opened(*laptop.usual, "--security-key", str(handle), environment=keys.PROVIDER) as program:
        types_yes(program)
        assert program.end() == 0, program.said
    assert [each.TAG[1] for each in laptop.lines()] == ["open", "use", "close"]
    told = told_by_ssh_keygen(laptop.home / "id_ed25519-break-glass-cert.pub")
    assert PublicKey.parse_line(line).fingerprint in told["Signing CA"]
    with laptop.opened(*laptop.usual, "--security-key", str(laptop.home / "id_ed25519")) as program:
        types_yes(program)
        assert program.end() == 1
    assert "is not of the security key that was sealed" in program.said
