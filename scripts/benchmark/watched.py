"""Witnesses of the CA that is measured: processes of their own on free ports of loopback, as other people would run them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmark.programs import BIN, command, serving

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
    with serving(["witness", "serve", str(directory)], directory.with_suffix(".log")) as (url, _):
        yield f'[[log.witnesses]]\nurl = "{url}"\nkey = "{key}"\n'
