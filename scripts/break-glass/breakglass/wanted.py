"""What is asked of the kit, checked against what was sealed before anybody types a share."""

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from breakglass.stop import Stop
from ca.errors import Malformed
from ca.kit import Facts
from ca.names import BREAK_GLASS, LINE
from ca.point import ed25519_point
from ca.wire import Reader, decode_base64

_TYPES: Final = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
_LEAST_RSA: Final = 3072
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_USUAL: Final = 1800  # seconds


@dataclass(frozen=True)
class Named:
    """A person and the key to certify, `type base64`; `path` is the file that it came from."""

    person: str
    key: str
    path: Path
    fingerprint: str


@dataclass(frozen=True)
class Wanted:
    """Who shall get onto which host groups, why, and for how many seconds."""

    named: tuple[Named, ...]
    groups: tuple[str, ...]
    reason: str
    duration: int

    @property
    def principals(self) -> tuple[str, ...]:
        """What the certificates say."""
        return tuple(f"{BREAK_GLASS}@{group}" for group in self.groups)


def check(options: argparse.Namespace, named: tuple[Named, ...], facts: Facts) -> Wanted:
    """What the options ask for. Raises `Stop` for more than was sealed."""
    for person in options.person:
        _demand_known(person, facts.people, "may be named in an emergency")
    for group in options.group:
        _demand_known(group, tuple(facts.hosts), "can be entered in an emergency")
    if len(set(options.person)) != len(options.person) or len(set(options.group)) != len(options.group):
        raise Stop("somebody or something is named twice", "Name each person and each group once")
    if len(named) > facts.certificates:
        raise Stop(f"{len(named)} certificates are more than the {facts.certificates} of a session", "Name fewer people")
    reason = options.reason.strip()
    if not reason or len(reason) > 500 or not LINE.fullmatch(reason):
        raise Stop("the reason is not one line of 1 to 500 characters", "Say what burns, with the incident's number")
    return Wanted(named, tuple(options.group), reason, _duration(options.duration, facts))


def _demand_known(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise Stop(f"{name[:60]!a} is not among those that {what}", f"This kit knows {', '.join(sorted(known))}")


def _duration(text: str | None, facts: Facts) -> int:
    if text is None:
        return min(_USUAL, facts.longest)
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smh])", text, re.ASCII)
    if match is None:
        raise Stop(f"{text[:40]!a} is not a duration", "Write 30m, 1h or 90s")
    length = int(match[1]) * _UNITS[match[2]]
    if length > facts.longest:
        raise Stop(f"{text} is more than the {facts.longest // 60} minutes that were sealed", "Ask for less, and again if needed")
    return length


def read_key(person: str, path: Path) -> Named:
    """The public key in a file. Raises `Stop` for anything else, and never shows what is in it."""
    try:
        text = path.read_text()[:20_000]
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"the key {path} cannot be read", "Give the .pub file of the key that the engineer has") from error
    if "PRIVATE KEY" in text:
        raise Stop(f"{path} is a private key", f"Give its public half, perhaps {path}.pub")
    fields = text.split()
    if len(text.strip().splitlines()) != 1 or len(fields) < 2 or fields[0] not in _TYPES:
        raise Stop(f"{path} is not one public key of a type that hosts take", f"One of {', '.join(_TYPES)}")
    line = f"{fields[0]} {fields[1]}"
    listed = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line + "\n", capture_output=True, text=True, check=False)
    try:
        _check_blob(fields[0], decode_base64(fields[1], "the key"))
        sound = listed.returncode == 0
    except Malformed:
        sound = False
    if not sound or (fields[0] == "ssh-rsa" and int(listed.stdout.split()[0]) < _LEAST_RSA):
        raise Stop(f"{path} is not a sound public key", f"Make one with: ssh-keygen -t ed25519 (RSA needs {_LEAST_RSA} bits)")
    return Named(person, line, path, listed.stdout.split()[1])


def _check_blob(algorithm: str, blob: bytes) -> None:
    reader = Reader(blob, "the key")
    if reader.text() != algorithm:
        raise Malformed("the line says another type than the key")
    if "ed25519" in algorithm:
        ed25519_point(reader.string())
