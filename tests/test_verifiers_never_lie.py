"""No way in which a verifier can fail ends with exit code 0, or prints that anything is well."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from ca.parallel import Processes
from cli import verify as client_verify
from cli.main import run as jit_ssh
from server import admin, copies, directory, exports, verifying
from tests import keys
from tests.home import JIT_SSH, Home, make_home
from tests.running import ORIGIN, PROGRAM
from tests.test_log import change
from tests.test_tampering import CHANGES, live
from tests.world import World

SEED: Final = random.SystemRandom().randrange(2**32)
Spoil = Callable[[Path], object]


def operator(*arguments: str | Path) -> tuple[int, str]:
    """`jit-ssh-ca log verify`: its exit code and what it printed as a result. It ends by itself, and not by an error of ours."""
    done = CliRunner().invoke(admin.main, ["log", "verify", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def sql(*statements: str) -> Spoil:
    return lambda path: change(path if path.is_file() else path / "jit-ssh.db", *statements)


def in_turn(*spoils: Spoil) -> Spoil:
    def spoil(path: Path) -> None:
        for each in spoils:
            each(path)

    return spoil


# ---------------------------------------------------------------- a directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that has opened once."""
    path = tmp_path_factory.mktemp("made") / "ca"
    ana = keys.make(path.parent, name="ana")
    directory.create(path, ORIGIN, ("ana", ana.public_key), b"secret")
    opened = directory.open_ca(path, lambda _path: b"secret")
    opened.store.close()
    opened.on_call.close()
    (path.parent / "passphrase").write_text("secret\n")
    return path


@pytest.fixture
def ca(made: Path, tmp_path: Path) -> Path:
    shutil.copy(made.parent / "passphrase", tmp_path)
    return shutil.copytree(made, tmp_path / "ca")


DIRECTORIES: Final[dict[str, Spoil]] = {
    "there is none": shutil.rmtree,
    "it is empty": in_turn(shutil.rmtree, Path.mkdir),
    "no configuration": lambda ca: (ca / "ca.toml").unlink(),
    "a configuration that is none": lambda ca: (ca / "ca.toml").write_text("origin ="),
    "another origin": lambda ca: (ca / "ca.toml").write_text((ca / "ca.toml").read_text().replace(ORIGIN, "other.example.com")),
    "a configuration that everybody can write": lambda ca: (ca / "ca.toml").chmod(0o666),
    "no keys": lambda ca: shutil.rmtree(ca / "keys"),
    "another log key": lambda ca: [shutil.copy(ca / "keys" / f"ca{end}", ca / "keys" / f"log{end}") for end in ("", ".pub")],
    "a key that is none": lambda ca: (ca / "keys" / "log").write_bytes(b"key"),
    "no database": lambda ca: (ca / "jit-ssh.db").unlink(),
    "a database that is a directory": in_turn(lambda ca: (ca / "jit-ssh.db").unlink(), lambda ca: (ca / "jit-ssh.db").mkdir()),
    "a database that is none": lambda ca: (ca / "jit-ssh.db").write_bytes(b"database" * 1000),
    "an empty database": lambda ca: (ca / "jit-ssh.db").write_bytes(b""),
    "an empty log": sql("DELETE FROM entries", "DELETE FROM nodes", "DELETE FROM checkpoints"),
    "no checkpoint": sql("DELETE FROM checkpoints"),
    "no entry": sql("DELETE FROM entries"),
    "a changed entry": sql("UPDATE entries SET entry = replace(entry, 'operator', 'Operator') WHERE idx = 1"),
    "a memory of more": lambda ca: (ca / "jit-ssh.db.checkpoint").write_bytes(_later(ca)),
    "a wrong passphrase": lambda ca: (ca.parent / "passphrase").write_text("Secret\n"),
    "no passphrase": lambda ca: (ca.parent / "passphrase").unlink(),
}


def _later(ca: Path) -> bytes:
    """The checkpoint of the same log after another change of policy."""
    other = shutil.copytree(ca, ca.parent / "later")
    with (other / "policies" / "people.toml").open("a") as file:
        file.write("#\n")
    opened = directory.open_ca(other, lambda _path: b"secret")
    opened.store.close()
    opened.on_call.close()
    return (other / "jit-ssh.db.checkpoint").read_bytes()


def test_the_directory_itself_is_whole(ca: Path) -> None:
    code, out = operator(ca, "--passphrase-file", ca.parent / "passphrase")
    assert code == 0
    assert out.startswith("2 entries, 0 signatures, 0 certificates: all verify")


@pytest.mark.parametrize("spoil", DIRECTORIES.values(), ids=DIRECTORIES.keys())
def test_no_spoiled_directory_verifies(ca: Path, spoil: Spoil) -> None:
    spoil(ca)
    code, out = operator(ca, "--passphrase-file", ca.parent / "passphrase")
    assert (code != 0, out) == (True, "")


# --------------------------------------------------------------------- a file


@pytest.fixture
def files(world: World) -> dict[str, Path]:
    """A backup's database and both exports that can be verified, of a log that lived."""
    live(world)
    made = {name: world.directory / name for name in ("copy.db", "export.db", "export.jsonl")}
    copies._copy_database(world.directory / "log.db", made["copy.db"])
    for name in ("export.db", "export.jsonl"):
        exports.export(world.store, world.ca.trust, made[name], None, None)
    return made


def test_the_files_themselves_verify_and_only_for_their_own_ca(files: dict[str, Path], world: World) -> None:
    for path in files.values():
        code, out = operator(path, "--fingerprint", world.ca.trust.fingerprint)
        assert (code, "10 entries" in out) == (0, True), path
        for other in ("", "x", world.ca.trust.fingerprint[:-1], world.ca.trust.fingerprint + "="):
            assert operator(path, "--fingerprint", other) == (1, ""), path


@pytest.mark.parametrize("name", ["copy.db", "export.db", "export.jsonl"])
def test_no_piece_of_a_file_verifies(files: dict[str, Path], name: str) -> None:
    path, whole = files[name], files[name].read_bytes()
    chance = random.Random(SEED)  # noqa: S311 - places, not secrets
    print(f"seed {SEED}")
    for length in (0, 1, 15, 16, 100, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(20))):
        path.write_bytes(whole[:length])
        code, out = operator(path)
        assert (code != 0, out) == (True, ""), length


@pytest.mark.parametrize(("statements", "_message"), CHANGES.values(), ids=CHANGES.keys())
def test_no_changed_copy_verifies(files: dict[str, Path], statements: list[str], _message: str) -> None:
    change(files["copy.db"], *statements)
    assert operator(files["copy.db"]) == (1, "")


def test_no_other_order_of_lines_verifies(files: dict[str, Path]) -> None:
    path = files["export.jsonl"]
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(len(lines)):
        for other in (
            lines[:at] + lines[at + 1 :],
            lines[: at + 1] + lines[at:],
            [*lines[:at], b"\n", *lines[at:]],
            [*lines[:at], lines[at][:-2] + b"\n", *lines[at + 1 :]],
            [*lines[:at], *lines[at + 1 : at + 2], lines[at], *lines[at + 2 :]],
        ):
            if other == lines:
                continue
            path.write_bytes(b"".join(other))
            code, out = operator(path)
            assert (code != 0, out) == (True, ""), at


def test_what_is_no_file_does_not_verify(tmp_path: Path, ca: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE entries (idx, entry)")
    for path in (loop, tmp_path / "other.db", Path("/dev/null"), ca / "keys" / "ca", tmp_path / "nothing"):
        code, out = operator(path)
        assert (code != 0, out) == (True, ""), path


# ------------------------------------------------------------------- over HTTP


class Between:
    """Stands between a client and the world's CA. It reads as the auditor, and changes what a test wants changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.change: dict[str, Callable[[bytes], bytes | int | None]] = {}  # by the beginning of the path; None hangs up

    def answer(self, path: str) -> tuple[int, bytes] | None:
        """The status and the body, or None for no answer."""
        there = self.world.read("eve", path) if path.startswith("/v1/log") else self.world.http.get(path)
        for begins, changing in self.change.items():
            if path.startswith(begins):
                changed = changing(there.data)
                if changed is None:
                    return None
                return (changed, b"{}") if isinstance(changed, int) else (200, changed)
        return there.status_code, there.data


@pytest.fixture
def between(world: World) -> Iterator[Between]:
    live(world)
    made, turn = Between(world), threading.Lock()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with turn:
                answer = made.answer(self.path)
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # a client that hangs up
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        made.world.directory.joinpath("url").write_text(f"http://127.0.0.1:{server.server_address[1]}")
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def home(between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Home:
    """Somebody who has set this CA up."""
    made = make_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(made.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    between.change["/v1/roles"] = lambda _body: b'{"person":"ana","groups":[],"auditor":true,"roles":[]}'
    url, fingerprint = (between.world.directory / "url").read_text(), between.world.ca.trust.fingerprint
    assert jit_ssh(["setup", url, "--fingerprint", fingerprint, "--key", str(made.key)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return made


def members(body: bytes, **changed: object) -> bytes:
    return json.dumps(json.loads(body) | changed).encode()


def entries(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    return lambda body: members(body, entries=change(json.loads(body)["entries"]))


def unsigned(body: bytes) -> bytes:
    notes = json.loads(body)["checkpoints"]
    return members(body, checkpoints=[note.replace("— ca", "— other") for note in notes])


def policies_gone(_body: bytes) -> int:
    return 404


ANSWERS: Final[dict[str, tuple[str, Callable[[bytes], bytes | int | None]]]] = {
    "no checkpoint": ("/log/checkpoint", lambda _: b""),
    "a checkpoint of nothing": ("/log/checkpoint", lambda note: note.replace(b"\n10\n", b"\n0\n")),
    "a smaller checkpoint": ("/log/checkpoint", lambda note: note.replace(b"\n10\n", b"\n9\n")),
    "half a checkpoint": ("/log/checkpoint", lambda note: note[: len(note) // 2]),
    "a checkpoint without its signature": ("/log/checkpoint", lambda note: note.partition("—".encode())[0]),
    "an error in place of the checkpoint": ("/log/checkpoint", lambda _: 500),
    "no checkpoint there": ("/log/checkpoint", lambda _: 404),
    "a checkpoint elsewhere": ("/log/checkpoint", lambda _: 302),
    "no answer about the checkpoint": ("/log/checkpoint", lambda _: None),
    "no hashes": ("/log/tile", lambda _: b""),
    "half the hashes": ("/log/tile", lambda hashes: hashes[: len(hashes) // 2]),
    "hashes too many": ("/log/tile", lambda hashes: hashes + bytes(32)),
    "other hashes": ("/log/tile", lambda hashes: bytes(32) + hashes[32:]),
    "an error in place of the hashes": ("/log/tile", lambda _: 503),
    "hashes that are not there": ("/log/tile", lambda _: 404),
    "no answer about the hashes": ("/log/tile", lambda _: None),
    "entries that are none": ("/v1/log/entries", entries(lambda found: ["{}" for _ in found])),
    "an entry changed": ("/v1/log/entries", entries(lambda found: [each.replace("INC-12", "INC-13") for each in found])),
    "entries in another order": ("/v1/log/entries", entries(lambda found: found[::-1])),
    "an entry twice": ("/v1/log/entries", entries(lambda found: [found[0], *found])),
    "no entry at all": ("/v1/log/entries", entries(lambda _: [])),
    "entries without an end": ("/v1/log/entries", lambda body: members(body, entries=[], more=True)),
    "no JSON": ("/v1/log/entries", lambda _: b"<html>"),
    "JSON of something else": ("/v1/log/entries", lambda _: b"[]"),
    "an error in place of entries": ("/v1/log/entries", lambda _: 500),
    "entries of others only": ("/v1/log/entries", lambda _: 403),
    "no answer about entries": ("/v1/log/entries", lambda _: None),
}
FULL: Final[dict[str, tuple[str, Callable[[bytes], bytes | int | None]]]] = {
    "no old checkpoints": ("/v1/log/checkpoints", lambda _: 404),
    "no list of checkpoints": ("/v1/log/checkpoints", lambda _: b"{}"),
    "one checkpoint changed": ("/v1/log/checkpoints", lambda body: body.replace(b"\\n4\\n", b"\\n5\\n")),
    "checkpoints without signatures": ("/v1/log/checkpoints", unsigned),
    "only for auditors": ("/v1/log/checkpoints", lambda _: 403),
    "no answer about checkpoints": ("/v1/log/checkpoints", lambda _: None),
    "no policy files": ("/v1/log/policies", policies_gone),
    "empty policy files": ("/v1/log/policies", lambda _: b""),
    "changed policy files": ("/v1/log/policies", lambda body: body.replace(b"a", b"b")),
    "an error in place of policy files": ("/v1/log/policies", lambda _: 500),
    "no answer about policy files": ("/v1/log/policies", lambda _: None),
    "an entry not shown to an auditor": ("/v1/log/entries", entries(lambda found: found[:5] + found[6:])),
}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("options", [[], ["--full"], ["--full", "--json"]])
def test_what_is_answered_honestly_verifies(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert jit_ssh(["log", "verify", *options]) == 0, capsys.readouterr().err
    assert "10" in capsys.readouterr().out


@pytest.mark.parametrize(("path", "change"), ANSWERS.values(), ids=ANSWERS.keys())
def test_no_dishonest_answer_verifies(
    path: str, change: Callable[[bytes], bytes | int | None], between: Between, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    between.change[path] = change
    for options in ([], ["--full", "--json"]):
        assert jit_ssh(["log", "verify", *options]) != 0
        assert capsys.readouterr().out == ""
    assert not (home.ours / "checkpoint").exists(), "nothing is remembered of what did not verify"


@pytest.mark.parametrize(("path", "change"), FULL.values(), ids=FULL.keys())
def test_no_dishonest_answer_to_an_auditor_verifies(
    path: str, change: Callable[[bytes], bytes | int | None], between: Between, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    between.change[path] = change
    assert jit_ssh(["log", "verify", "--full"]) != 0
    assert capsys.readouterr().out == ""
    assert not (home.ours / "checkpoint").exists()


MACHINES: Final[dict[str, Callable[[Home], object]]] = {
    "no profile": lambda home: (home.ours / "profile.json").unlink(),
    "a profile that is none": lambda home: (home.ours / "profile.json").write_text("{}"),
    "no key": lambda home: home.key.unlink(),
    "a key that is none": lambda home: home.key.write_text("key"),
    "a checkpoint that is none": lambda home: (home.ours / "checkpoint").write_text("checkpoint"),
    "a checkpoint that is a directory": lambda home: (home.ours / "checkpoint").mkdir(),
}


@pytest.mark.parametrize("spoil", MACHINES.values(), ids=MACHINES.keys())
def test_no_spoiled_machine_verifies(home: Home, spoil: Callable[[Home], object], capsys: pytest.CaptureFixture[str]) -> None:
    spoil(home)
    assert jit_ssh(["log", "verify"]) != 0
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------ the process itself


def test_a_result_that_cannot_be_written_is_no_success(made: Path, home: Home, tmp_path: Path) -> None:
    environment = home.environment
    file = tmp_path / "copy.db"
    copies._copy_database(made / "jit-ssh.db", file)
    for command in ([PROGRAM, "log", "verify", str(file)], [*JIT_SSH, "log", "verify"], [*JIT_SSH, "log", "verify", "--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False)
        assert done.returncode != 0, done.stderr
        assert "error: the output cannot be written: No space left on device\nhint: " in done.stderr
        assert "Traceback" not in done.stderr


def _ends(_chunk: object) -> list[Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_a_process_that_dies_while_it_verifies_is_no_success(
    files: dict[str, Path], home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both verifiers with processes to help them, which are killed at their first work."""
    for module in (verifying, client_verify):
        monkeypatch.setattr(module, "_FEW", 0)
    assert operator(files["copy.db"])[0] == 0
    assert jit_ssh(["log", "verify"]) == 0, capsys.readouterr().err
    (home.ours / "checkpoint").unlink()
    capsys.readouterr()
    honest = Processes.__call__
    monkeypatch.setattr(Processes, "__call__", lambda self, _function, values: honest(self, _ends, values))
    assert operator(files["copy.db"]) == (1, "")
    assert jit_ssh(["log", "verify"]) != 0
    assert capsys.readouterr().out == ""
    assert not (home.ours / "checkpoint").exists()
