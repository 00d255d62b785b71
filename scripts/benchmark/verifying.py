"""Verifying a log that clients with honest signatures filled: how fast, and beside the signatures that have to be verified."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmark.figures import Figure
from benchmark.floor import bare_verification
from benchmark.load import ask, prepared
from benchmark.programs import BIN, command
from benchmark.served import Served, served
from ca.errors import SignerFailed
from ca.log import Log
from ca.store.sqlite import SqliteCopy
from ca.verify import in_turn
from server.verifying import verify_all

_AT_ONCE = 2500  # requests, for which no statement is stale before it is sent


def verifying(directory: Path, entries: int, clients: int, floor: int) -> Iterator[Figure]:
    """The figures of a log with so many entries, most of them requests and the certificates that they were granted at once."""
    with served(directory, 0) as ca:
        _fill(ca, entries, clients)
    database = directory / "ca" / "jit-ssh.db"
    before = bare_verification(floor)
    began = time.perf_counter()
    said = json.loads(command([str(BIN / "jit-ssh-ca"), "log", "verify", str(database), "--json"]))
    rate = said["entries"] / (time.perf_counter() - began)
    cpu = _cpu(ca, database) * 1000 / said["entries"]
    bare = median([*before, *bare_verification(floor)]) * (said["signatures"] + said["checkpoints"]) / said["entries"]
    name = f"verify, {entries} entries"
    yield Figure(f"{name}: rate on {os.cpu_count()} processors", rate, "/s", more_is_better=True)
    yield Figure(f"{name}: CPU of one", cpu, "ms")
    yield Figure(f"{name}: CPU / bare verifications", cpu / bare, "×", goal=2.5)


def _fill(ca: Served, entries: int, clients: int) -> None:
    while (missing := entries - ca.log_size()) > 1:
        asyncio.run(ask(ca.url, [prepared(ca) for _ in range(min(_AT_ONCE, missing // 2))], clients))


def _cpu(ca: Served, database: Path) -> float:
    """Seconds of one processor for all of it, without starting programs."""
    with closing(SqliteCopy(database)) as copy:
        began = time.process_time()
        verify_all(Log(copy, ca.trust.verifier, _signs_nothing, lambda: 0), ca.trust, in_turn)
        return time.process_time() - began


def _signs_nothing(_message: bytes) -> NoReturn:
    raise SignerFailed("a copy of a log signs nothing")
