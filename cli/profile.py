"""The profile: which CA this machine believes, and which key signs for its owner."""

from dataclasses import dataclass
from typing import ClassVar

from ca import canonical
from ca.errors import Malformed, Misconfigured
from ca.names import PERSON, require
from ca.trust import Trust
from cli import files
from cli.directory import Directory


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
