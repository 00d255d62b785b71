"""The roles that this person could have, as the CA listed them last: for ssh, which must not wait for the network."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from ca import canonical
from ca.errors import JitSshError
from cli import files
from cli.answers import OUTCOMES, Role
from cli.directory import Directory


@dataclass(frozen=True, kw_only=True)
class Known(canonical.Tagged):
    """Those that were granted or needed an approval."""

    TAG: ClassVar = ("known", "jit-ssh")

    roles: tuple[Role, ...]


def keep(directory: Directory, roles: Iterable[Role]) -> None:
    """Writes down what the CA listed, without the reasons, which change with the hour."""
    mine = tuple(role.without_ways() for role in roles if role.outcome != "denied")
    written = canonical.encode(Known(roles=mine))
    if not directory.roles.exists() or directory.roles.read_bytes() != written:
        files.write(directory.roles, written)


def last_listed(directory: Directory) -> tuple[Role, ...]:
    """What was written down; nothing when the file is not there or cannot be read."""
    try:
        return canonical.decode(directory.roles.read_bytes(), (Known,), "the roles").roles
    except (OSError, JitSshError):
        return ()


def narrowest_first(roles: Iterable[Role]) -> list[Role]:
    """Granted before those that need approval before denied; then those with fewer accounts first."""
    return sorted(roles, key=lambda role: (OUTCOMES.index(role.outcome), len(role.accounts), role.role))


def reaching(roles: Iterable[Role], account: str, host: str) -> list[Role]:
    """The roles that reach the account on the host, as ssh matches its name, the narrowest that works first."""
    return narrowest_first(
        role
        for role in roles
        for each in role.accounts
        if each.account == account and any(fnmatchcase(host.lower(), pattern.lower()) for pattern in each.hosts)
    )


def instead_of(roles: Iterable[Role], denied: str) -> list[Role]:
    """The roles that are granted at once and reach a host group that the denied one reaches, the narrowest first."""
    listed = tuple(roles)
    groups = {account.group for role in listed if role.role == denied for account in role.accounts}
    return narrowest_first(
        role for role in listed if role.outcome == "granted" and groups & {account.group for account in role.accounts}
    )
