"""Measures what a person waits for and what an issuance costs, as a table and as JSON.

It makes a CA in a private temporary directory, serves it with `jit-ssh-ca serve` on a free loopback port, and asks from this
process, so that the two share the machine and nothing else. Machines differ and are noisy: compare the ratios of one run, not
the times of two.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click

from benchmark.figures import Figure, figure, line, percentile, timed
from benchmark.floor import (
    bare_cryptography,
    bare_cryptography_by_openssl,
    bare_cryptography_everywhere,
    durable_write,
    one_by_one,
)
from benchmark.load import Load, run
from benchmark.policy import deciding
from benchmark.programs import BIN, agent, command
from benchmark.served import Served, served
from benchmark.verifying import verifying

CLIENTS = (1, 8, 64)
WITNESSES = 2


@dataclass(frozen=True)
class Counts:
    """How much is measured."""

    seconds: float  # of load, for each number of clients
    entries: int  # that the log has before
    verified: int  # entries of a log that is made to be verified
    floor: int = 500
    programs: int = 10


def measure(directory: Path, counts: Counts) -> Iterator[Figure]:
    """All figures, in the order in which they are measured."""
    keygen, openssl = one_by_one(directory, counts.programs), bare_cryptography_by_openssl(counts.floor)
    yield figure("bare cryptography: three verifications, one signature", bare_cryptography(counts.floor))
    yield figure("bare cryptography, by OpenSSL alone", openssl)
    yield figure("bare cryptography, on every processor at once", bare_cryptography_everywhere(counts.floor))
    yield figure("durable write of 4 KiB on this file system", durable_write(directory, counts.floor))
    yield figure("ssh-keygen -s, one certificate", keygen)
    yield from deciding(counts.floor)
    with served(directory, counts.entries) as ca:
        yield from command_line(directory, ca, counts.programs)
        yield Figure("server memory before the load", ca.memory(), "MiB")
        for clients in CLIENTS:
            bare = bare_cryptography if clients == 1 else bare_cryptography_everywhere
            before = bare(counts.floor)  # measured again beside each load: the machine's speed changes
            load = loaded(ca, clients, counts.seconds)
            yield from issuing(clients, load, median([*before, *bare(counts.floor)]), median(openssl), median(keygen))
        yield Figure("server memory after it", ca.memory(), "MiB")
    for required in (0, WITNESSES):
        private = directory / f"witnessed-{required}"
        private.mkdir()
        with served(private, 0, watching=WITNESSES, required=required) as ca:
            yield from witnessed(required, loaded(ca, max(CLIENTS), counts.seconds))
    yield from verifying(directory / "verified", counts.verified, counts.floor)


def command_line(directory: Path, ca: Served, count: int) -> Iterator[Figure]:
    """What an engineer waits for, as whole programs, with an agent that holds the keys."""
    with agent(directory / "agent") as socket:
        environment = {"HOME": str(directory), "PATH": os.environ["PATH"], "SSH_AUTH_SOCK": socket}
        program = str(BIN / "jit-ssh")
        command([program, "setup", ca.url, "--fingerprint", ca.trust.fingerprint, "--key", str(ca.key_file)], environment)
        for arguments, goal in (("--help", None), ("login", 500), ("status", 150)):
            times = timed(lambda given=arguments: command([program, given], environment), count)  # type: ignore[misc]
            yield figure(f"jit-ssh {arguments}", times, goal)
        hook = ["/bin/sh", str(directory / ".ssh" / "jit-ssh" / "ssh-hook"), "dev", str(int(time.time()) + 3600), socket]
        yield figure("what ssh runs while the certificate is fresh", timed(lambda: command(hook, environment), count), 15)


def loaded(ca: Served, clients: int, seconds: float) -> Load:
    """About so many seconds of load, after a little of it."""
    first = run(ca, 4 * clients, clients)
    return run(ca, max(2 * clients, int(first.rate * seconds)), clients)


def witnessed(required: int, load: Load) -> Iterator[Figure]:
    """The figures of one run with witnesses on this machine, which has their work to do as well."""
    name = f"issuing, {max(CLIENTS)} clients, {WITNESSES} witnesses{' required' if required else ''}"
    yield Figure(f"{name}: rate", load.rate, "/s", more_is_better=True)
    yield figure(f"{name}: answer", load.times)
    yield Figure(f"{name}: answer, p99", percentile(load.times, 99), "ms")
    yield Figure(f"{name}: server CPU of one", load.cpu, "ms")


def issuing(clients: int, load: Load, crypto: float, openssl: float, keygen: float) -> Iterator[Figure]:
    """The figures of one run, and their ratios to the floor."""
    many = clients == max(CLIENTS)
    name = f"issuing, {clients} client{'s'[: clients > 1]}"
    yield Figure(f"{name}: rate", load.rate, "/s", goal=1000 if many else None, more_is_better=True)
    yield figure(f"{name}: answer", load.times, 4 if clients == 1 else None)
    yield Figure(f"{name}: answer, p99", percentile(load.times, 99), "ms", goal=150 if many else None)
    yield Figure(f"{name}: server CPU of one", load.cpu, "ms")
    yield Figure(f"{name}: server CPU / bare cryptography", load.cpu / crypto, "×", goal=3 if many else None)
    yield Figure(f"{name}: server CPU / the same by OpenSSL alone", load.cpu / openssl, "×")
    yield Figure(f"{name}: rate / ssh-keygen -s one by one", load.rate * keygen / 1000, "×")


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=5, show_default=True, help="Load for each number of clients.")
@click.option("--entries", type=click.IntRange(0), default=0, help="Entries that the log has already: 10,000,000 take 10 GB.")
@click.option("--verify", type=click.IntRange(2), default=20_000, show_default=True, help="Entries of the log to verify.")
@click.option("--quick", is_flag=True, help="Only to see that it works: counts too small to mean anything.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here as well.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Measure in a private directory below this one, so on its file system; default: the one for temporary files.",
)
def main(seconds: float, entries: int, verify: int, quick: bool, json_file: Path | None, directory: Path | None) -> None:
    """Measure what a person waits for and what an issuance costs, beside the least it could cost on this machine."""
    counts = (
        Counts(seconds=0.1, entries=entries, verified=200, floor=10, programs=1) if quick else Counts(seconds, entries, verify)
    )
    figures, load = [], os.getloadavg()[0]  # of the last minute: what others did is in the figures too
    with tempfile.TemporaryDirectory(prefix="jit-ssh-bench.", dir=directory) as private:
        click.echo(f"{os.cpu_count()} processors, load average {load:.1f} before this run")
        click.echo(f"{'':<62}{'least':>10}{'median':>10}{'p99':>10}      goal")
        for one in measure(Path(private), counts):
            figures.append(one)
            click.echo(line(one))
    if json_file is not None:
        described = {"processors": os.cpu_count(), "load": load, "figures": [asdict(one) | {"met": one.met} for one in figures]}
        json_file.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
