"""A witness says that it has seen more: what the operator sees and does, as OPERATING.md has it, with the real programs."""

import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

import pytest

from ca.checkpoint import VerifierKey
from ca.cosignature import cosign
from ca.witness import Submission
from server import admin
from tests import keys
from tests.running import ORIGIN, Running, body, run
from tests.test_lying_witnesses import answering, key_of, say
from tests.witnessing import Serving, made

SECTION: Final = (
    (Path(admin.__file__).parent / "OPERATING.md")
    .read_text()
    .partition("\n## When a witness says that it has seen more\n")[2]
    .partition("\n## ")[0]
)
LIAR, PRIVATE = key_of(1)


def told(sentence: str) -> str:
    """A sentence as the section has it, which names another witness and other sizes."""
    return re.sub(
        r"has cosigned \d+ entries of this log, which has \d+", "has cosigned 120 entries of this log, which has 100", sentence
    )


class Liar:
    """A witness that cosigns honestly until it claims to have seen twenty entries more than there are."""

    def __init__(self) -> None:
        self.lies = False

    def answer(self, to: BaseHTTPRequestHandler, sent: bytes) -> None:
        checkpoint = Submission.parse(sent).checkpoint
        if self.lies:
            say(to, 409, f"{checkpoint.size + 20}\n".encode())
        else:
            say(to, 200, cosign(checkpoint.body(), LIAR, int(time.time()), PRIVATE.sign).line.encode())


@pytest.fixture
def liar() -> Iterator[tuple[Liar, str]]:
    made = Liar()
    with answering(made.answer) as url:
        yield made, url


def command(beginning: str, **instead: str) -> list[str]:
    """A command of the section, with what is another here, and without where its output goes."""
    [line] = [line.strip() for line in SECTION.splitlines() if beginning in line and line.startswith("    ")]
    for old, new in instead.items():
        line = line.replace({"directory": "/etc/jit-ssh", "witness": "/var/lib/witness", "key": "LOGKEY"}[old], new)
    words = [word for word in shlex.split(line)[1:] if word[0] not in "<>"]
    return [sys.executable if word == "python3" else word for word in words]


def test_a_witness_that_lies_is_named_everywhere_and_taken_out(tmp_path: Path, liar: tuple[Liar, str]) -> None:
    directory, (witness, url) = tmp_path / "ca", liar
    ana, fresh = keys.make(tmp_path, name="ana"), keys.make(tmp_path, name="fresh")
    assert run("init", directory, "--origin", ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub").code == 0
    settings = directory / "ca.toml"
    plain = settings.read_text()
    settings.write_text(f'{plain}\n[log]\nrequire_witnesses = 1\n[[log.witnesses]]\nurl = "{url}"\nkey = "{LIAR}"\n')

    server = Running(directory)
    assert server.ask(body(ana, fresh))[0] == 201
    witness.lies = True
    server.ask(body(ana, fresh))
    server.says("nothing is issued any more")
    status, problem = server.ask(body(ana, fresh))
    assert (status, problem["code"]) == (503, "log-damaged")
    size = int(re.findall(r"which has (\d+)", problem["detail"])[0])
    sentence = (
        f"the witness liar1.example.org has cosigned {size + 20} entries of this log, which has {size}: "
        "this is an old copy, or there is a second history"
    )
    assert problem["detail"] == sentence
    status, ready = server.fetch("/readyz")
    assert (status, ready["detail"]) == (503, sentence)
    assert any(line["message"].startswith(f"nothing is issued any more: {sentence}") for line in server.lines())
    with urllib.request.urlopen(f"{server.url}/log/checkpoint", timeout=20) as answer:  # noqa: S310 - our own
        assert answer.status == 200, "reading goes on"
    assert server.stops() == 0

    for _ in range(2):
        refused = run("serve", directory, "--listen", "127.0.0.1:0")
        assert (refused.code, refused.out) == (1, "")
        *_, error, hint = refused.err.splitlines()
        assert sentence in error
        for line in (error, hint):
            assert told(line).replace("liar1", "w1") in SECTION, "the section shows what it says"
    shown = subprocess.run(command("db.witnessed", directory=str(directory)), capture_output=True, text=True, check=True).stdout
    assert set(shown.splitlines()) == {f"{size}|{sentence}"}

    settings.write_text(plain)
    server = Running(directory)
    assert server.ask(body(ana, fresh))[0] == 201
    assert server.stops() == 0
    assert run("log", "verify", directory).code == 0


def test_a_witness_that_tells_the_truth_has_the_note_that_shows_it(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    init = run("init", directory, "--origin", ORIGIN)
    log_key = next(line for line in init.out.splitlines() if "log key" in line).split()[-1]

    witness = made(tmp_path / "witness", VerifierKey.parse(log_key), "w1.example.org")
    serving = Serving(tmp_path / "witness")
    with (directory / "ca.toml").open("a") as file:
        file.write(f'\n[[log.witnesses]]\nurl = "{serving.url}"\nkey = "{witness}"\n')
    server = Running(directory)
    ask, deadline, sent = command("witness.db", witness=str(tmp_path / "witness")), time.monotonic() + 20, b""
    while not sent.startswith(f"{ORIGIN}\n2\n".encode()):  # genesis and policy
        assert time.monotonic() < deadline, sent
        sent = subprocess.run(ask, capture_output=True, check=True).stdout
    assert server.stops() == 0
    serving.stop()
    other = VerifierKey(ORIGIN, key_of(7)[0].public_key)
    for key, code, says in ((log_key, 0, "2\n"), (str(other), 1, "")):
        words = command("open_checkpoint", key=key)
        judged = subprocess.run(words, input=sent, capture_output=True, check=False)
        assert (judged.returncode, judged.stdout.decode()) == (code, says), judged.stderr
