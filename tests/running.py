"""A real `jit-ssh-ca`: its commands, and a server of it that a test asks, signals and kills."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ca.statement import RequestStatement
from tests import keys
from tests.keys import Key
from tests.world import spelled, uuid7

PROGRAM: Final = str(Path(sys.executable).with_name("jit-ssh-ca"))
ORIGIN: Final = "ca.example.com"


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path, **environment: str) -> Ran:
    """`jit-ssh-ca` with these arguments."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,  # a serve that should have refused
        env=os.environ | environment,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def body(signer: Key, fresh: Key, **changes: Any) -> bytes:
    """The body of a request for the starter policy's `dev`."""
    said = RequestStatement(audience=ORIGIN, id=uuid7(), time=int(time.time()), role="dev", reason="", key=fresh.public_key.line)
    text = spelled(said, changes)
    signature, possession = (b64encode(keys.sshsig(key, text)).decode() for key in (signer, fresh))
    return json.dumps({"statement": text.decode(), "signature": signature, "possession": possession}).encode()


class Running:
    """`jit-ssh-ca serve` on a free port. Its log goes to `DIR.log`."""

    def __init__(self, directory: Path, *options: str | Path, **environment: str) -> None:
        self.log = directory.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", str(directory), "--listen", "127.0.0.1:0", *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | environment,
            )
        assert self.process.stdout
        self.said = self.process.stdout.readline()
        self.process.stdout.close()
        assert self.said, self.log.read_text()
        self.url = self.said.split()[-1]

    def ask(self, request: bytes) -> tuple[int, dict[str, Any]]:
        """`POST /v1/requests`."""
        return self.fetch("/v1/requests", request)

    def fetch(self, path: str, request: bytes | None = None) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of an answer. Raises `OSError` when there is none."""
        try:
            with urllib.request.urlopen(self.url + path, request, timeout=20) as answer:  # noqa: S310 - our own http URL
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def lines(self) -> list[Mapping[str, Any]]:
        """The server's own log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def says(self, message: str, times: int = 1) -> None:
        """Waits until its log has this message so many times."""
        deadline = time.monotonic() + 20
        while sum(message in line["message"] for line in self.lines()) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)  # a file has no event to wait for

    def hangs_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """SIGKILL, as a power cut would be for the process."""
        self.process.kill()
        self.process.wait()

    def stops(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(20)
