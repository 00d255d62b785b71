"""Programs that are run to be measured, or to measure with."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

BIN = Path(sys.executable).parent


def command(arguments: Sequence[str], environment: dict[str, str] | None = None, seconds: float = 60) -> str:
    """Runs a program to its end, which has to come in so many `seconds`; what it printed."""
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments[:3])} … failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def serving(arguments: Sequence[str], log: Path) -> Iterator[tuple[str, int]]:
    """`jit-ssh-ca` with these arguments on a free port of loopback, until the block ends: its URL, and its process's number."""
    serve = [str(BIN / "jit-ssh-ca"), *arguments, "--listen", "127.0.0.1:0"]
    with log.open("wb") as errors, subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            found = re.search(r"http://\S+", said)
            if not found:
                raise click.ClickException(f"{' '.join(serve[:3])} … did not start:\n{log.read_text()}")
            yield found[0], server.pid
        finally:
            server.terminate()


@contextmanager
def agent(socket: Path) -> Iterator[str]:
    """A private ssh-agent, until the block ends."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as running:
        try:
            if running.stdout:
                running.stdout.readline()  # it prints its socket when it listens
            yield str(socket)
        finally:
            running.terminate()
