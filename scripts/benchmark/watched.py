"""Witnesses of the CA that is measured: processes of their own on free ports of loopback, as other people would run them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from benchmark.programs import BIN, command

_PROGRAM = str(BIN / "jit-ssh-ca")


@contextmanager
def witnesses(directory: Path, log_key: str, count: int) -> Iterator[list[str]]:
    """So many new witnesses of the log with this key, until the block ends: a table of `ca.toml` for each."""
    with ExitStack() as running:
        yield [running.enter_context(_witness(directory / f"witness-{number}", log_key)) for number in range(count)]


@contextmanager
def _witness(directory: Path, log_key: str) -> Iterator[str]:
    key = command([_PROGRAM, "witness", "init", str(directory), "--name", f"{directory.name}.bench"]).split()[-1]
    command([_PROGRAM, "witness", "add", str(directory), log_key])
    serve = [_PROGRAM, "witness", "serve", str(directory), "--listen", "127.0.0.1:0"]
    with (
        directory.with_suffix(".log").open("wb") as log,
        subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            said = server.stdout.readline() if server.stdout else ""
            found = re.search(r"http://\S+", said)
            if not found:
                raise click.ClickException(f"a witness did not start:\n{directory.with_suffix('.log').read_text()}")
            yield f'[[log.witnesses]]\nurl = "{found[0]}"\nkey = "{key}"\n'
        finally:
            server.terminate()
