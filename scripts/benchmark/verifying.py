"""Verifying a log: how fast, and beside the bare verifications of the signatures in it."""

import gc
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
from benchmark.programs import BIN, command
from benchmark.signed import signed_log
from ca.errors import SignerFailed
from ca.log import Log
from ca.store.sqlite import SqliteCopy
from ca.trust import Trust
from ca.verify import in_turn
from server.verifying import verify_all


def verifying(directory: Path, entries: int, floor: int) -> Iterator[Figure]:
    """The figures of a log with so many entries: requests, and the certificates that they were granted at once."""
    trust, database = signed_log(directory, entries), directory / "jit-ssh.db"
    before = bare_verification(floor)
    began = time.perf_counter()
    said = json.loads(command([str(BIN / "jit-ssh-ca"), "log", "verify", str(database), "--json"], seconds=60 + entries / 1000))
    rate = said["entries"] / (time.perf_counter() - began)
    cpu = _cpu(trust, database) * 1000 / said["entries"]
    bare = median([*before, *bare_verification(floor)]) * (said["signatures"] + said["checkpoints"]) / said["entries"]
    name = f"verify, {entries} entries"
    yield Figure(f"{name}: rate on {os.cpu_count()} processors", rate, "/s", more_is_better=True)
    yield Figure(f"{name}: CPU of one", cpu, "ms")
    yield Figure(f"{name}: CPU / bare verifications", cpu / bare, "×", goal=2.5)


def _cpu(trust: Trust, database: Path) -> float:
    """Seconds of one processor for all of it, without starting programs; as with many processes, no garbage is collected."""
    with closing(SqliteCopy(database)) as copy:
        gc.disable()
        began = time.process_time()
        verify_all(Log(copy, trust.verifier, _signs_nothing, lambda: 0), trust, in_turn)
        taken = time.process_time() - began
        gc.enable()
        return taken


def _signs_nothing(_message: bytes) -> NoReturn:
    raise SignerFailed("a copy of a log signs nothing")
