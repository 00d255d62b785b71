"""The certificates that this machine holds, one role each: `ROLE.json`, `ROLE-cert.pub`, and the key in an agent or `ROLE-cert`.

`ROLE.json` is written last and removed first, so a role whose file is there is whole; what a crash leaves beside it is
overwritten by the next login. Whoever changes these files holds `files.locked`.
"""

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import ClassVar, Final

from ca import canonical
from ca.errors import JitSshError
from ca.names import PERSON, require
from ca.signers.agent_socket import Agent
from cli import files, sshconfig
from cli.accounts import Account
from cli.directory import Directory
from cli.sshconfig import Offer

_BACKDATE: Final = 60  # seconds, as in ca.certificate, whose import a prompt would wait for


@dataclass(frozen=True, kw_only=True)
class Held(canonical.Tagged):
    """A certificate of a role within a grant that lasts `until`; times are Unix seconds. Raises `Malformed`.

    `agent` is the socket of the agent that got the key, absent when it is in a file.
    """

    TAG: ClassVar = ("held", "jit-ssh")

    role: str
    person: str
    request: int
    serial: int
    valid_after: int
    valid_before: int
    until: int
    accounts: tuple[Account, ...]
    agent: str | None = None

    def __post_init__(self) -> None:
        require(PERSON, self.person, "person")

    @property
    def fresh_until(self) -> int:
        """From when on ssh gets the next certificate of the grant first, while this one can still ask for it."""
        if self.valid_before >= self.until:
            return self.valid_before
        return self.valid_before - (self.valid_before - self.valid_after - _BACKDATE) // 3

    def usable(self, directory: Directory, now: int, in_agent: frozenset[bytes]) -> bool:
        """Whether ssh can use it at `now`: it is valid, and its key is where it should be."""
        if now >= self.valid_before:
            return False
        return blob(directory, self.role) in in_agent if self.agent else directory.of_role(self.role, "-cert").exists()


def of_this_machine(directory: Directory) -> list[Held]:
    """What was written here, by role, expired ones included; a file that cannot be read is passed over."""
    found = []
    for path in sorted(directory.path.glob("*.json")):
        try:
            held = canonical.decode(path.read_bytes(), (Held,), str(path))
            if path == directory.of_role(held.role, ".json"):
                found.append(held)
        except (JitSshError, OSError):
            continue
    return found


def grant(directory: Directory, role: str, now: int) -> Held | None:
    """What is held of a role whose grant has not ended at `now`; its certificate may have."""
    return next((held for held in of_this_machine(directory) if held.role == role and now < held.until), None)


def identities() -> frozenset[bytes]:
    """The identities in the agent that SSH_AUTH_SOCK names; none when it does not answer."""
    agent = Agent.from_environment()
    try:
        return frozenset(held for held, _ in agent.identities()) if agent else frozenset()
    except JitSshError:
        return frozenset()


def blob(directory: Directory, role: str) -> bytes | None:
    """The role's certificate as an agent names it, or None when its file is gone."""
    try:
        return base64.b64decode(directory.of_role(role, "-cert.pub").read_text().split()[1])
    except (OSError, IndexError, binascii.Error, UnicodeDecodeError):
        return None


def shown(directory: Directory, held: Held) -> dict[str, object]:
    """What `--json` says of a held certificate."""
    where = "agent" if held.agent else str(directory.of_role(held.role, "-cert"))
    return {name: value for name, value in asdict(held).items() if name != "agent"} | {"where": where}


def save(directory: Directory, held: Held, certificate: str, private_key: bytes | None, now: int) -> None:
    """Replaces the role's files and the generated ssh_config; `private_key` when no agent has it.

    A crash in between leaves a key and a certificate that do not fit, which sshd refuses: log in again.
    """
    with files.locked(directory.path):
        if private_key is not None:
            files.write(directory.of_role(held.role, "-cert"), private_key)
        else:
            directory.of_role(held.role, "-cert").unlink(missing_ok=True)
        files.write(directory.of_role(held.role, "-cert.pub"), f"{certificate}\n".encode())
        files.write(directory.of_role(held.role, ".json"), canonical.encode(held))
        _tidy(directory, now)


def remove(directory: Directory, roles: tuple[str, ...], now: int) -> None:
    """Removes the roles' files and writes the generated ssh_config without them."""
    with files.locked(directory.path):
        for role in roles:
            _unlink(directory, role)
        _tidy(directory, now)


def _unlink(directory: Directory, role: str) -> None:
    for suffix in (".json", "-cert.pub", "-cert"):
        directory.of_role(role, suffix).unlink(missing_ok=True)


def write_ssh_config(directory: Directory, now: int) -> None:
    """Writes what ssh is told, from what is held and what the CA listed last."""
    with files.locked(directory.path):
        _tidy(directory, now)


def _tidy(directory: Directory, now: int) -> None:
    """Removes what is left of grants that have ended, then writes ssh_config."""
    from cli import known  # noqa: PLC0415 - a prompt waits for `status`, which never comes here

    current = []
    for held in of_this_machine(directory):
        if now < held.until:
            current.append(held)
        else:
            _unlink(directory, held.role)
    offers = [Offer(held.role, held.accounts, held.fresh_until, held.agent) for held in current]
    mine = {held.role for held in current}
    offers += [
        Offer(role.role, role.accounts) for role in known.narrowest_first(known.last_listed(directory)) if role.role not in mine
    ]
    files.write(directory.hook, sshconfig.hook().encode())
    files.write(directory.config, sshconfig.render(directory, offers).encode())
