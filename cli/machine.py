"""This machine: its directory, the CA that it believes, and who asks. What the CA lists is kept for ssh and for completion."""

from dataclasses import dataclass, replace
from functools import partial

from cli import known, profile, signing
from cli.answers import Roles
from cli.client import PATIENCE, Address, Client
from cli.directory import Directory
from cli.profile import Profile


@dataclass(frozen=True)
class Machine:
    """Where a command runs, and the CA to ask."""

    directory: Directory
    profile: Profile
    client: Client

    @classmethod
    def here(cls, patience: float = PATIENCE) -> "Machine":
        """This one; the CA may take `patience` seconds for each step. Raises `Misconfigured` before `setup`."""
        directory = Directory.of_home()
        found = profile.load(directory)
        sign = partial(signing.sign, found.key)
        return cls(directory, found, Client(Address.parse(found.url), found.origin, sign, patience))

    def read_roles(self) -> Roles:
        """The roles as they stand at this moment."""
        answer = Roles.parse(self.client.read("/v1/roles"))
        names = tuple(role.role for role in answer.roles)
        if names != self.profile.roles:
            replace(self.profile, roles=names).save(self.directory)
        known.keep(self.directory, answer.roles)
        return answer
