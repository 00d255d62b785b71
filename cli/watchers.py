"""The witnesses that this person knows: `~/.ssh/jit-ssh/witnesses`, which they write themselves. No other counts here."""

import re
from typing import Final

from ca.cosignature import Quorum, WitnessKey
from ca.errors import Malformed, Misconfigured
from cli.directory import Directory

_LARGEST: Final = 64 * 1024  # bytes
_NUMBER: Final = re.compile(r"[0-9]{1,3}", re.ASCII)
_FORM: Final = "A line is the key of a witness, `require NUMBER`, or begins with #"


def quorum(directory: Directory) -> Quorum:
    """Who is known, and how many of them must have seen a checkpoint; without such a file nobody. Raises `Misconfigured`."""
    try:
        with directory.witnesses.open("rb") as file:
            lines = file.read(_LARGEST).decode().splitlines()
    except FileNotFoundError:
        return Quorum()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{directory.witnesses} cannot be read: {error}", _FORM) from error
    witnesses, required = [], 0
    for number, line in enumerate(lines, start=1):
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word == "require" and _NUMBER.fullmatch(rest):
            required = int(rest)
            continue
        try:
            witnesses.append(WitnessKey.parse(line.strip()))
        except Malformed as error:
            raise Misconfigured(f"{directory.witnesses}, line {number}: {error.message}", _FORM) from error
    try:
        return Quorum(tuple(witnesses), required)
    except Misconfigured as error:
        raise Misconfigured(f"{directory.witnesses}: {error.message}", error.hint) from error
