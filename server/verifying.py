"""Verifying a log that lies on this machine: on all processors, with a bar for whoever watches."""

from contextlib import ExitStack
from itertools import islice
from typing import Final

from ca import parallel
from ca.errors import Misconfigured
from ca.log import Log
from ca.trust import Trust
from ca.verify import Report, Spread, Stored, in_turn, verify
from server.terminal import counted

_FEW: Final = 5_000  # entries that are verified sooner than other processes have started


def verify_all(log: Log, trust: Trust, spread: Spread | None = None) -> Report:
    """Checks every entry, node and checkpoint in the store of `log`, its policy files, and what entries are found by.

    Without `spread`, long logs are checked on all processors. Others may append meanwhile. Raises `Misconfigured` for an empty
    log, `LogDamaged` naming the first thing that is wrong.
    """
    checkpoint = log.check(tree=False)
    if checkpoint is None:
        raise Misconfigured("the log is empty")
    store = log.store
    leaves = islice(store.nodes(0), checkpoint.size)
    stored = Stored(store.checkpoints(0, checkpoint.size + 1), store.nodes)
    sound = store.demand_sound
    with ExitStack() as running:
        if spread is None and checkpoint.size > _FEW:
            spread = running.enter_context(parallel.processes())
            sound = parallel.beside(sound)  # SQLite alone, for long: what it finds is told in its turn
        spread = spread or in_turn
        entries = running.enter_context(counted(store.numbered(0, checkpoint.size), checkpoint.size, "verifying"))
        report = verify(trust, checkpoint, leaves, entries, stored=stored, policy_file=store.policy_file, spread=spread)
    sound()
    return report
