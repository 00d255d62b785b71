"""A CA that is being served as an operator serves it, by a process of its own on a free port of loopback."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import click

from benchmark.growth import grow
from benchmark.programs import BIN, command
from ca.signers.file import FileSigner
from ca.signers.file import create as create_key
from ca.trust import Trust

ROLE = "dev"  # of the starter policy; granted at once to everybody in the group engineers
PERSON = "ana"


@dataclass(frozen=True)
class Served:
    """A CA that is being served, and the key of the one person it knows."""

    url: str
    pid: int
    trust: Trust
    key_file: Path
    person: FileSigner

    def cpu_seconds(self) -> float:
        """The processor time that the server has used (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """The server's resident memory in MiB (proc(5): VmRSS)."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def log_size(self) -> int:
        """How many entries are under the newest checkpoint."""
        return int(fetch(self.url + "/log/checkpoint").splitlines()[1])


def fetch(url: str) -> bytes:
    """What the server answers to a GET."""
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - the URL of the server that was started here
        return bytes(answer.read())


@contextmanager
def served(directory: Path, entries: int) -> Iterator[Served]:
    """A new CA in `directory` whose log has so many entries already, served until the block ends."""
    key_file, ca = directory / "person", directory / "ca"
    public = create_key(key_file, None)
    key_file.with_suffix(".pub").write_text(public.line + "\n")
    command([str(BIN / "jit-ssh-ca"), "init", str(ca), "--origin", "bench", "--person", PERSON, "--key", f"{key_file}.pub"])
    with (ca / "ca.toml").open("a") as settings:
        settings.write("statements_per_minute = 1000000000\n")  # one person asks for all of it here
    if entries:
        grow(ca, entries)
    serve = [str(BIN / "jit-ssh-ca"), "serve", str(ca), "--listen", "127.0.0.1:0"]
    with (
        (directory / "server.log").open("wb") as log,
        subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            said = server.stdout.readline() if server.stdout else ""
            found = re.search(r"http://\S+", said)
            if not found:
                raise click.ClickException(f"the server did not start:\n{(directory / 'server.log').read_text()}")
            trust = Trust.parse(fetch(found[0] + "/v1/ca"))
            yield Served(found[0], server.pid, trust, key_file, FileSigner(key_file, lambda _path: b""))
        finally:
            server.terminate()
