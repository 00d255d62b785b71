"""What only auditors read from the CA: every checkpoint that it has kept, and the policy files of every time."""

from collections.abc import Iterator
from typing import Final

from ca.errors import Malformed, NotFound
from cli.answers import Members
from cli.client import Client

_LARGEST: Final = 64 * 1024 * 1024  # bytes: a thousand notes, each with the signatures of many witnesses


def checkpoints(client: Client, size: int) -> Iterator[tuple[int, str]]:
    """Size and note of every checkpoint up to this size of the log. A note is the CA's word until its signature is verified."""
    start, more = 0, True
    while more and start <= size:
        answer = Members.parse(client.read(f"/v1/log/checkpoints?start={start}", _LARGEST))
        more = answer.flag("more")
        for note in answer.texts("checkpoints"):
            signed = _size(note)
            if signed < start:
                raise Malformed(f"a checkpoint of {signed} entries comes after one of {start - 1}")
            start = signed + 1
            if signed <= size:  # those after it came while this was running
                yield signed, note


def _size(note: str) -> int:
    lines = note.split("\n", 2)
    if len(lines) < 3 or not (lines[1].isascii() and lines[1].isdigit() and len(lines[1]) < 20):
        raise Malformed("one of the CA's checkpoints does not say its size")
    return int(lines[1])


def policy_file(client: Client, digest: str) -> bytes | None:
    """A policy file by its SHA-256 in hexadecimal, None if the CA has none."""
    try:
        return client.read(f"/v1/log/policies/{digest}")
    except NotFound:
        return None
