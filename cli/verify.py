"""`jit-ssh log verify`: every laptop is a witness. It keeps the last checkpoint it saw, and the log may only grow from there."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from functools import partial
from typing import Final

import click

from ca import entry
from ca.certificate import SignedCertificate
from ca.checkpoint import Checkpoint
from ca.cosignature import Quorum, Witnessed
from ca.entry import IssueEntry
from ca.errors import BadSignature, LogDamaged, Malformed
from ca.trust import Trust
from ca.verify import Report, Spread, Stored, in_turn
from ca.verify import verify as verify_log
from cli import audit, entries, output, seen, tiles, watchers
from cli.client import Address, Client, exchange
from cli.directory import Directory
from cli.held import blob, of_this_machine
from cli.machine import Machine
from cli.seen import Seen

_FEW: Final = 5_000  # entries that are verified sooner than other processes have started


@click.command(epilog="Examples:\n\n\b\n  jit-ssh log verify\n  jit-ssh log verify --full")
@click.option("--full", is_flag=True, help="For auditors: also whose key signed, and every checkpoint that the CA has kept.")
@click.option("--json", "as_json", is_flag=True, help="Print what was checked as JSON.")
def verify(full: bool, as_json: bool) -> None:
    """Check the log without trusting the CA.

    The checkpoint's signature, all hashes, that the log only grew since this machine last looked, and in each entry that you may
    read the person's signature and that the certificate is what was granted; and that each certificate on this machine is in the
    log. The checkpoint is kept for the next time.
    """
    machine = Machine.here()
    directory, address, trust = machine.directory, Address.parse(machine.profile.url), machine.profile.trust
    mine, quorum = _Mine(directory, trust), watchers.quorum(directory)
    remembered = seen.newest(directory, trust.verifier)
    note = exchange(address, "GET", "/log/checkpoint")
    try:
        witnessed = quorum.open(note, trust.verifier)
        checkpoint, shown = witnessed.checkpoint, Seen(witnessed.checkpoint, note.decode())
        if remembered is not None and remembered.size >= shown.size:  # these two tell it; one that grew, its leaves
            seen.demand_continued(directory, remembered, shown, b"{}")
        visible = mine.watched(entries.visible(machine.client, checkpoint.size))
        leaves, auditor = tiles.leaves(address, checkpoint.size), machine.client if full else None
        report = _verified(auditor, trust, checkpoint, leaves, visible, remembered.checkpoint if remembered else None)
    except (Malformed, BadSignature) as error:
        raise LogDamaged(f"the log cannot be read: {error.message}", error.hint) from error
    mine.demand_all(checkpoint.size)
    seen.remember(directory, address, trust.verifier, remembered, shown)
    if as_json:
        size_and_root = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
        by = [{"name": each.witness.name, "time": each.time} for each in witnessed.cosignatures]
        output.result_json(asdict(report) | {"checkpoint": size_and_root, "held": mine.count, "witnesses": by})
    else:
        _tell(report, mine.count, remembered, _witnesses(quorum, witnessed))


def _verified(
    auditor: Client | None,
    trust: Trust,
    checkpoint: Checkpoint,
    leaves: Iterable[bytes],
    visible: Iterable[tuple[int, bytes]],
    remembered: Checkpoint | None,
) -> Report:
    """What `ca.verify` says; with what an `auditor` may read, of everything."""
    size = checkpoint.size
    with ExitStack() as running:
        spread: Spread = running.enter_context(_processes()) if size > _FEW else in_turn
        leaves = running.enter_context(output.counted(leaves, size, "verifying"))
        kept = None if auditor is None else Stored(audit.checkpoints(auditor, size))
        files = None if auditor is None else partial(audit.policy_file, auditor)
        report = verify_log(trust, checkpoint, leaves, visible, remembered, stored=kept, policy_file=files, spread=spread)
    if report.entries == 0:
        raise LogDamaged("the CA showed no entry, not even the first, which everybody may read", "Ask it why")
    if auditor is not None and report.entries < size:
        raise LogDamaged(f"the CA showed {report.entries} of {size} entries, though an auditor asked", "Ask it for the others")
    return report


def _processes() -> AbstractContextManager[Spread]:
    from ca import parallel  # noqa: PLC0415 - multiprocessing takes longer to import than most commands to run

    return parallel.processes()


def _tell(report: Report, held: int, remembered: Seen | None, witnesses: str) -> None:
    size = report.checkpoint.size
    grown = f"it only grew from the {remembered.size} entries of the last time" if remembered else "seen here for the first time"
    output.result(f"{report.checkpoint.origin} is whole: {size} entries below a root that its key signed")
    output.fields(
        {
            "  read": f"{report.entries} of {size} entries" + ("" if report.entries == size else "; of the others, the hashes"),
            "  verified": f"{report.signatures} signatures by people and by their new keys, {report.certificates} certificates",
            "  history": _history(report),
            "  held": f"{held} certificates on this machine, each in the log",
            "  since": grown,
            "  witnesses": witnesses,
        }
    )


def _witnesses(quorum: Quorum, witnessed: Witnessed) -> str:
    if not quorum.witnesses:
        return ""
    cosigned = ", ".join(each.witness.name for each in witnessed.cosignatures) or "none"
    return f"cosigned by {cosigned}, of the {len(quorum.witnesses)} that you know"


def _history(report: Report) -> str:
    if report.policies == 0:
        return ""
    return f"{report.checkpoints} checkpoints, all of this log; keys that were their person's by {report.policies} policies"


class _Mine:
    """The certificates by this CA that this machine holds, each of which the log must have."""

    def __init__(self, directory: Directory, trust: Trust) -> None:
        self._missing: dict[int, bytes] = {}  # serial → bytes that were signed
        for held in of_this_machine(directory):
            try:
                certificate = SignedCertificate.parse(blob(directory, held.role) or b"").certificate
            except Malformed:
                continue  # no certificate that ssh could use
            if certificate.ca_key in trust.public_keys:
                self._missing[certificate.serial] = certificate.bare.to_be_signed
        self.count = len(self._missing)

    def watched(self, visible: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """The same entries, each compared with what is held."""
        for index, source in visible:
            if index in self._missing and _certified(source) == self._missing[index]:
                del self._missing[index]
            yield index, source

    def demand_all(self, size: int) -> None:
        """Raises `LogDamaged` for a certificate that is not among the log's first `size` entries."""
        if self._missing:
            serials = ", ".join(str(serial) for serial in sorted(self._missing))
            hint = "Tell the security team: a CA must not sign what it has not logged"
            raise LogDamaged(f"this machine holds certificate {serials}, which is not among the log's {size} entries", hint)


def _certified(source: bytes) -> bytes:
    found = entry.decode(source)
    return found.certificate.to_be_signed if isinstance(found, IssueEntry) else b""
