"""`~/.ssh/jit-ssh`: everything of ours on this machine, for its owner alone.

`Directory` owns the names of all files there. A role's name becomes a file name, so the names that the product needs for
itself, and those that another role's files could have, are no roles here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ca.errors import Malformed
from ca.names import ROLE, require

_OURS: Final = ("profile", "roles", "signer", "config", "ssh-hook", "checkpoint", "witnesses")
_SUFFIXES: Final = (".pub", ".json", ".lock", "-cert")


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
    def hook(self) -> Path:
        """The generated program that ssh runs before it uses a certificate."""
        return self.path / "ssh-hook"

    @property
    def roles(self) -> Path:
        """The roles that this person could have, as the CA listed them last."""
        return self.path / "roles.json"

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

    @property
    def witnesses(self) -> Path:
        """The witnesses that this person knows, if they wrote them down."""
        return self.path / "witnesses"

    def evidence(self, now: int) -> Path:
        """Where two checkpoints that contradict each other are kept; `now` is in Unix seconds."""
        return self.path / f"evidence-{now}.json"

    def of_role(self, role: str, suffix: str) -> Path:
        """The file of a role. Raises `Malformed` for a name that cannot be one.

        `-cert` is its key, named so that ssh finds the certificate `-cert.pub` to it and offers nothing else; `.json` is what
        is held, and `.lock` is for whoever asks.
        """
        require(ROLE, role, "role")
        if role in _OURS or role.startswith("evidence-") or role.endswith(_SUFFIXES):
            raise Malformed(f"the role {role} has the name of a file of ours in {self.path}", "Ask its owner to rename it")
        return self.path / f"{role}{suffix}"
