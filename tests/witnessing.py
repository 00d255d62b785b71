"""A real `jit-ssh-ca witness`: made, served, asked and killed."""

import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from click.testing import CliRunner

from ca.checkpoint import VerifierKey
from ca.cosignature import WitnessKey
from ca.witness import Submission
from server.witness_commands import witness
from tests.histories import log_key
from tests.running import PROGRAM

NAME: Final = "witness.example.org/w1"


class Serving:
    """`jit-ssh-ca witness serve` on a free port."""

    def __init__(self, directory: Path, listen: str = "127.0.0.1:0") -> None:
        self.log = directory.with_suffix(".log")
        with self.log.open("ab") as log:
            command = [PROGRAM, "witness", "serve", str(directory), "--listen", listen]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout
        said = self.process.stdout.readline()
        self.process.stdout.close()
        assert said, self.log.read_text()
        self.url = said.split()[-1]

    def submit(self, sent: Submission | bytes) -> tuple[int, str]:
        """The status and the body of the answer."""
        body = sent if isinstance(sent, bytes) else sent.encode()
        try:
            with urllib.request.urlopen(f"{self.url}/add-checkpoint", body, timeout=20) as answer:  # noqa: S310 - our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def made(directory: Path, log: VerifierKey = log_key("log.example.com"), name: str = NAME) -> WitnessKey:  # noqa: B008 - a value
    """A new witness of this log, made in this process: most of the time of a command is its start."""
    init = CliRunner().invoke(witness, ["init", str(directory), "--name", name])
    assert init.exit_code == 0, init.output
    assert CliRunner().invoke(witness, ["add", str(directory), str(log)]).exit_code == 0
    return WitnessKey.parse(init.output.split()[-1])
