"""`~/.ssh/jit-ssh`: which CA this machine believes and which key signs for its owner. Everything in it is private.

`Directory` owns the names of all files there. A role's name becomes a file name, so the names that the product needs for
itself, and those that another role's files could have, are no roles here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ca import canonical
from ca.errors import Malformed, Misconfigured
from ca.names import PERSON, ROLE, require
from ca.trust import Trust
from cli import files

_OURS: Final = ("profile", "signer", "config", "checkpoint")
_SUFFIXES: Final = (".pub", ".json", "-cert")


@dataclass(frozen=True)
class Directory:
    """`~/.ssh/jit-ssh` of the home directory that `HOME` names; ssh itself reads the account's, so paths are absolute."""

    path: Path

    @classmethod
    def of_home(cls) -> "Directory":
        """The directory, whether or not it is there."""
        return cls(Path.home() / ".ssh" / "jit-ssh")

    @property
    def ssh_config(self) -> Path:
        """The person's own configuration of ssh, in which one line is ours."""
        return self.path.parent / "config"

    @property
    def config(self) -> Path:
        """The generated configuration of ssh."""
        return self.path / "config"

    @property
    def profile(self) -> Path:
        """The profile."""
        return self.path / "profile.json"

    @property
    def signer(self) -> Path:
        """The public half of a signing key that only an agent has."""
        return self.path / "signer.pub"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint that was verified here."""
        return self.path / "checkpoint"

    def of_role(self, role: str, suffix: str) -> Path:
        """The file of a role: its key (no suffix), `-cert.pub` or `.json`. Raises `Malformed` for a name that cannot be one."""
        require(ROLE, role, "role")
        if role in _OURS or role.endswith(_SUFFIXES):
            raise Malformed(f"the role {role} has the name of a file of ours in {self.path}", "Ask its owner to rename it")
        return self.path / f"{role}{suffix}"


@dataclass(frozen=True, kw_only=True)
class Profile(canonical.Tagged):
    """One CA, as it was believed at `setup`, and this person. `key` is what `ssh-keygen -Y sign -f` gets.

    `roles` are the names seen last, for completion alone. Raises `Malformed`.
    """

    TAG: ClassVar = ("profile", "jit-ssh")

    url: str
    origin: str
    ca_keys: tuple[str, ...]
    log_key: str
    key: str
    person: str
    roles: tuple[str, ...]

    def __post_init__(self) -> None:
        require(PERSON, self.person, "person")

    @property
    def trust(self) -> Trust:
        """What is believed. Raises `Malformed`."""
        return Trust(origin=self.origin, ca_keys=self.ca_keys, log_key=self.log_key)

    def save(self, directory: Directory) -> None:
        """Writes it, for its owner alone."""
        files.write(directory.profile, canonical.encode(self) + b"\n")


def load(directory: Directory) -> Profile:
    """The profile that `setup` wrote. Raises `Misconfigured` when there is none or it cannot be read."""
    found = find(directory)
    if found is None:
        raise Misconfigured("this machine knows no CA yet", "Run: jit-ssh setup URL")
    return found


def find(directory: Directory) -> Profile | None:
    """The profile, if there is one. Raises `Misconfigured` when it cannot be read."""
    try:
        return canonical.decode(directory.profile.read_bytes().removesuffix(b"\n"), (Profile,), "the profile")
    except FileNotFoundError:
        return None
    except (OSError, Malformed) as error:
        raise Misconfigured(f"{directory.profile} cannot be used: {error}", "Remove it and run: jit-ssh setup URL") from error
