"""The log as this machine saw it last: every laptop is a witness. The log may only grow from there.

What does not continue it is kept as evidence, and nothing that comes with it is believed.
"""

import json
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from ca import merkle
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from ca.errors import JitSshError, LogDamaged, Malformed, Misconfigured, NotFound
from ca.merkle import HASH_LENGTH
from cli import files
from cli.answers import Members
from cli.client import Address
from cli.directory import Directory
from cli.problems import SplitView
from cli.tiles import Nodes

MOST_EVIDENCE: Final = 16  # files; the first ones say when it began
LONGEST_ANSWER: Final = 64 * 1024  # bytes of the CA's answer in each; a note has at most 128 KiB
_UNPROVEN: Final = (LogDamaged, Malformed, NotFound)  # what a CA that cannot prove it says, or shows


@dataclass(frozen=True)
class Seen:
    """A checkpoint whose signature was verified, and its note: witnesses may add to the note, which makes it no other one."""

    checkpoint: Checkpoint
    note: str = field(compare=False)

    @property
    def size(self) -> int:
        """How many entries there were."""
        return self.checkpoint.size

    def __str__(self) -> str:
        return f"log of {self.size} entries and root {self.checkpoint.root.hex()[:16]}…"


def newest(directory: Directory, key: VerifierKey) -> Seen | None:
    """The newest checkpoint that was verified here. Raises `Misconfigured` for a file that is none of this log."""
    try:
        note = directory.checkpoint.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Seen(open_checkpoint(note, key), note.decode())
    except JitSshError as error:
        raise Misconfigured(f"{directory.checkpoint} is no checkpoint of this log: {error.message}", "Who changed it?") from error


def remember(directory: Directory, address: Address, key: VerifierKey, before: Seen | None, now: Seen) -> None:
    """Keeps `now`, which is proven to continue the log seen `before`, unless a larger one is kept.

    Another process may have kept another one since: then the CA's tree has to prove that both are of one log, whichever is the
    larger. Nobody holds the lock while the CA is asked. Raises `SplitView`, `Misconfigured` and what `exchange` raises.
    """
    proven = before
    while (kept := _keep(directory, key, proven, now)) != proven:
        if kept is not None:
            _demand_one_log(directory, address, kept, now)
        proven = kept


def _keep(directory: Directory, key: VerifierKey, proven: Seen | None, now: Seen) -> Seen | None:
    """Puts `now` in place of a smaller one, if what is kept is what it was `proven` against; what was kept."""
    with files.locked(directory.path):
        kept = newest(directory, key)
        if kept == proven and (kept is None or kept.size <= now.size):
            files.write(directory.checkpoint, now.note.encode())
        return kept


def _demand_one_log(directory: Directory, address: Address, kept: Seen, now: Seen) -> None:
    small, large = sorted((kept.checkpoint, now.checkpoint), key=lambda each: each.size)
    steps: list[bytes] = []
    try:
        if small.size < large.size:  # nothing can prove that two roots of one size are one
            steps = merkle.consistency_proof(small.size, large.size, Nodes(address, large.size).read)
        merkle.verify_consistency(small.size, small.root, large.size, large.root, steps)
    except _UNPROVEN as error:
        answer = json.dumps({"consistency": [step.hex() for step in steps]})
        raise _split(directory, kept, now, answer.encode(), "that another jit-ssh on this machine saw meanwhile") from error


def demand_continued(directory: Directory, before: Seen | None, now: Seen, answer: bytes) -> None:
    """Raises `SplitView`, and keeps the evidence, unless the log of `now` is proven to continue the one seen `before`.

    `answer` is the CA's, which has the proof.
    """
    if before is None:
        return
    old, new = before.checkpoint, now.checkpoint
    try:
        merkle.verify_consistency(old.size, old.root, new.size, new.root, _consistency(answer))
    except _UNPROVEN as error:
        raise _split(directory, before, now, answer, "that this machine saw") from error


def _split(directory: Directory, saw: Seen, shown: Seen, answer: bytes, which: str) -> SplitView:
    """Keeps the evidence. `which` says when the log was seen that `shown` contradicts."""
    evidence = {"seen": saw.note, "shown": shown.note, "answer": answer[:LONGEST_ANSWER].decode(errors="replace")}
    path = _keep_evidence(directory, json.dumps(evidence, indent=2).encode())
    kept = (
        f"Both checkpoints, and of the answer at most {LONGEST_ANSWER} bytes, are kept in {path}: show it to the security team"
        if path
        else f"These two are not kept: there are {MOST_EVIDENCE} files {directory.path}/evidence-*.json, the first of all. Show "
        "them to the security team, and move them away"
    )
    return SplitView(
        f"the CA shows a {shown}, which does not continue the {saw} {which}: an old copy, or another history",
        f"Nothing of it was installed. {kept}",
    )


def _keep_evidence(directory: Directory, content: bytes) -> Path | None:
    """The file that has it, unless there are so many that a CA which goes on like this would fill the disk."""
    with files.locked(directory.path):
        if len(list(directory.path.glob("evidence-*.json"))) >= MOST_EVIDENCE:
            return None
        now = int(time.time())
        path = next(path for path in map(directory.evidence, count(now)) if not path.exists())
        files.write(path, content)
        return path


def _consistency(answer: bytes) -> list[bytes]:
    members = Members.parse(answer)
    steps = members.texts("consistency") if "consistency" in members else ()
    if any(len(step) != 2 * HASH_LENGTH or step.strip("0123456789abcdef") for step in steps):
        raise Malformed("a hash of the CA's answer is not one")
    return [bytes.fromhex(step) for step in steps]
