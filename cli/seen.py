"""The log as this machine saw it last: every laptop is a witness. The log may only grow from there.

What does not continue it is kept as evidence, and nothing that comes with it is believed.
"""

import json
import time

from ca import merkle
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from ca.errors import JitSshError, LogDamaged, Malformed, Misconfigured
from ca.merkle import HASH_LENGTH
from cli import files
from cli.answers import Members
from cli.directory import Directory
from cli.problems import SplitView


def checkpoint(directory: Directory, key: VerifierKey) -> Checkpoint | None:
    """The newest checkpoint that was verified here. Raises `Misconfigured` for a file that is none of this log."""
    try:
        note = directory.checkpoint.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return open_checkpoint(note, key)
    except JitSshError as error:
        raise Misconfigured(f"{directory.checkpoint} is no checkpoint of this log: {error.message}", "Who changed it?") from error


def remember(directory: Directory, key: VerifierKey, verified: Checkpoint, note: bytes) -> None:
    """Keeps the checkpoint, unless another process has verified a larger one meanwhile."""
    with files.locked(directory.path):
        newest = checkpoint(directory, key)
        if newest is None or newest.size <= verified.size:
            files.write(directory.checkpoint, note)


def demand_continued(directory: Directory, before: Checkpoint | None, now: Checkpoint, note: str, answer: bytes) -> None:
    """Raises `SplitView`, and keeps the evidence, unless the log of `now` is proven to continue the one seen `before`.

    `note` is that of `now`, `answer` the CA's, which has the proof.
    """
    if before is None:
        return
    try:
        merkle.verify_consistency(before.size, before.root, now.size, now.root, _consistency(answer))
    except (LogDamaged, Malformed) as error:
        evidence = directory.evidence(int(time.time()))
        kept = {"seen": directory.checkpoint.read_text(), "shown": note, "answer": answer.decode(errors="replace")}
        files.write(evidence, json.dumps(kept, indent=2).encode())
        raise SplitView(
            f"the CA shows a log of {now.size} entries and root {now.root.hex()[:16]}…, which does not continue the log of "
            f"{before.size} entries and root {before.root.hex()[:16]}… that this machine saw: an old copy, or another history",
            f"Nothing of it was installed. Both checkpoints are kept in {evidence}: show it to the security team",
        ) from error


def _consistency(answer: bytes) -> list[bytes]:
    members = Members.parse(answer)
    steps = members.texts("consistency") if "consistency" in members else ()
    if any(len(step) != 2 * HASH_LENGTH or step.strip("0123456789abcdef") for step in steps):
        raise Malformed("a hash of the CA's answer is not one")
    return [bytes.fromhex(step) for step in steps]
