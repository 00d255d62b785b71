"""A CA that is being served as an operator serves it, by a process of its own on a free port of loopback."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmark.growth import grow
from benchmark.programs import BIN, command, serving
from benchmark.watched import witnesses
from ca.signers.file import FileSigner
from ca.signers.file import create as create_key
from ca.store.sqlite import SqliteCopy
from ca.trust import Trust

ROLE = "dev"  # of the starter policy; granted at once to everybody in the group engineers
PERSON = "ana"


@dataclass(frozen=True)
class Served:
    """A CA that is being served, and the key of the one person it knows."""

    url: str
    pid: int
    database: Path
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
        """How many entries there are; the checkpoint that is served may wait for witnesses."""
        with closing(SqliteCopy(self.database)) as log:
            return log.size()


def fetch(url: str) -> bytes:
    """What the server answers to a GET."""
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - the URL of the server that was started here
        return bytes(answer.read())


@contextmanager
def served(directory: Path, entries: int, *, watching: int = 0, required: int = 0) -> Iterator[Served]:
    """A new CA in `directory` whose log has so many entries already, served until the block ends.

    So many witnesses watch it, of whom so many have to cosign before a certificate leaves it.
    """
    key_file, ca = directory / "person", directory / "ca"
    public = create_key(key_file, None)
    key_file.with_suffix(".pub").write_text(public.line + "\n")
    command([str(BIN / "jit-ssh-ca"), "init", str(ca), "--origin", "bench", "--person", PERSON, "--key", f"{key_file}.pub"])
    with (ca / "ca.toml").open("a") as settings:
        settings.write("statements_per_minute = 1000000000\n")  # one person asks for all of it here
    if entries:
        grow(ca, entries)
    with ExitStack() as others:
        if watching:
            shown = json.loads(command([str(BIN / "jit-ssh-ca"), "fingerprint", str(ca), "--json"]))
            tables = others.enter_context(witnesses(directory, shown["log_key"], watching))
            with (ca / "ca.toml").open("a") as settings:
                settings.write(f"[log]\nrequire_witnesses = {required}\n{''.join(tables)}")
        yield others.enter_context(_serving(directory, ca, key_file))


@contextmanager
def _serving(directory: Path, ca: Path, key_file: Path) -> Iterator[Served]:
    with serving(["serve", str(ca)], directory / "server.log") as (url, pid):
        trust = Trust.parse(fetch(url + "/v1/ca"))
        yield Served(url, pid, ca / "jit-ssh.db", trust, key_file, FileSigner(key_file, lambda _path: b""))
