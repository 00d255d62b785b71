"""A break-glass kit and the people who use it: a private home, a terminal, and no programs but Python's and OpenSSH's."""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ca.journal import NAMESPACE, AnyLine, read
from ca.keys import PublicKey
from ca.kit import Facts
from ca.sshsig import verifier
from server.kit import build
from server.sealing import Sealed, seal
from tests.home import Running, running
from tests.sshd import current_account, make_key

OFFICERS: Final = ("cy", "di", "eve")
PROGRAMS: Final = ("ssh", "ssh-agent", "ssh-keygen", "sshd")
SPAWN: Final = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def kit_facts(sealed: Sealed, **changes: Any) -> Facts:
    """What a kit of this seal knows."""
    given: dict[str, Any] = {
        "origin": "ca.example.com", "made": int(time.time()) - 60, "key": sealed.seal.key, "quorum": sealed.seal.quorum,
        "officers": tuple(sealed.shares), "shares_id": sealed.seal.shares_id, "people": ("ana", "bo"),
        "hosts": {"web-prod": (current_account(),)}, "longest": 3600, "certificates": 2, "ask": (),
    }  # fmt: skip
    return Facts(**given | changes)


@dataclass(frozen=True)
class Machine:
    """A machine with the kit and nothing of this project: an empty home, and PATH reduced to Python and OpenSSH."""

    home: Path
    kit: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": str(self.home / "bin"), "TMPDIR": str(self.home / "tmp")}

    @property
    def key(self) -> Path:
        """The engineer's public key."""
        return self.home / "id_ed25519.pub"

    @property
    def usual(self) -> tuple[str, ...]:
        """For ana on web-prod."""
        return ("--for", "ana", "--key", str(self.key), "--group", "web-prod", "--reason", "CA down, INC-77")

    @contextmanager
    def opened(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
        """The kit on a terminal; `--for` and what goes with it is added where it is not given."""
        given = arguments if any(each.partition("=")[0] == "--for" for each in arguments) else (*self.usual, *arguments)
        command = [sys.executable, "-c", SPAWN, str(self.kit), *given]
        with running(command, self.environment | dict(environment or {})) as program:
            yield program

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the home, by name."""
        for path in self.home.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(self.home)), path.read_bytes()


@dataclass(frozen=True)
class Laptop(Machine):
    """One whose kit and shares a test knows."""

    facts: Facts
    sealed: Sealed

    @property
    def journal(self) -> Path:
        return self.home / f"break-glass-{self.facts.digest[:8]}.jsonl"

    def lines(self, path: Path | None = None) -> tuple[AnyLine, ...]:
        """The journal, as the CA reads it."""
        check = verifier(PublicKey.parse_line(self.facts.key), NAMESPACE)
        return read((path or self.journal).read_bytes(), self.facts.digest, check)


def outfit(directory: Path, kit: Path) -> Machine:
    """A machine with this kit, and the key of an engineer."""
    home = directory / "home"
    (home / "bin").mkdir(parents=True)
    (home / "tmp").mkdir()
    for name in PROGRAMS:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        assert found
        (home / "bin" / name).symlink_to(found)
    (home / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    make_key(home / "id_ed25519")
    return Machine(home, kit)


def make_laptop(directory: Path, sealed: Sealed, **changes: Any) -> Laptop:
    """A laptop with a kit of this seal."""
    directory.mkdir(exist_ok=True)
    facts = kit_facts(sealed, **changes)
    build(directory / "break-glass", facts)
    machine = outfit(directory, directory / "break-glass")
    return Laptop(machine.home, machine.kit, facts, sealed)


# Ctrl-C, and a line feed: a signal in the instant before a read begins is noticed when the read ends.
CTRL_C: Final = "\x03\n"


def types_yes(program: Running) -> None:
    """Says that all is right."""
    program.expect("Type yes: ")
    program.type("yes\n")


def types_shares(program: Running, laptop: Laptop, *officers: str) -> None:
    """These officers type their shares."""
    for number, officer in enumerate(officers, start=1):
        program.expect(f"share {number} of {laptop.facts.quorum}, from word 1 of 33 on: ")
        program.type(laptop.sealed.shares[officer] + "\n")


def fresh_seal() -> Sealed:
    """Two of three."""
    return seal(OFFICERS, 2)


def command_lines(said: str) -> list[str]:
    """The ssh commands that the kit printed."""
    return re.findall(r"^ssh .*$", said.replace("\r", ""), re.MULTILINE)
