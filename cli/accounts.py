"""Accounts on hosts, as roles name them. Whatever builds one has checked every name in it."""

import re
from dataclasses import dataclass

from ca import names
from ca.names import require


@dataclass(frozen=True)
class Account:
    """An account on a group of hosts, and the patterns of the names under which ssh reaches them. Raises `Malformed`."""

    account: str
    group: str
    hosts: tuple[str, ...]

    def __post_init__(self) -> None:
        require(names.ACCOUNT, self.account, "account")
        require(names.GROUP, self.group, "host group")
        for pattern in self.hosts:
            require(names.HOST_PATTERN, pattern, "host pattern")

    @property
    def principal(self) -> str:
        """How a certificate names it."""
        return f"{self.account}@{self.group}"

    @property
    def example(self) -> str:
        """A destination for `ssh`, made from the first pattern."""
        host = re.sub(r"[*?]+", "1", self.hosts[0]) if self.hosts and self.hosts[0].strip("*?") else "HOST"
        return f"{self.account}@{host}"

    def __str__(self) -> str:
        return f"{self.account} on {self.group} ({', '.join(self.hosts) or 'no host names known'})"
