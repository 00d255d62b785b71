"""What ssh is told: one generated file that matches hosts and accounts to certificates, and one `Include` line for it.

Nothing reaches that file but names that `ca.names` allows and paths without a character that ssh_config or a shell reads
specially; no host or account that is typed reaches a shell. For each host and account at most one certificate of ours is
offered: `IdentityFile ROLE-cert` is the certificate `ROLE-cert.pub` with its key in the file `ROLE-cert` or in an agent, and the
blocks that follow exclude the hosts of those before.
"""

import re
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ca.errors import Malformed, Misconfigured
from cli import files
from cli.accounts import Account
from cli.directory import Directory

_HEADER: Final = "# Written by jit-ssh at each login and logout: changes made here are lost.\n"
_PLAIN_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f\"'\\*?\[\]{}$%]*")
_SECTION: Final = re.compile(rb"\s*(host|match)[\s=]", re.IGNORECASE)
# IdentitiesOnly and a configured IdentityFile keep ssh from trying these, so those that exist are named again behind it.
_DEFAULT_KEYS: Final = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")

# While the certificate is fresh no program is started but date(1).
_HOOK: Final = """#!/bin/sh
# Written by jit-ssh. ssh runs it before it uses a certificate: ssh-hook ROLE FRESH-UNTIL [AGENT-SOCKET]
[ "$(date +%s)" -lt "$2" ] && { [ -z "$3" ] || { [ "$SSH_AUTH_SOCK" = "$3" ] && [ -S "$3" ]; }; } && exit 0
"""


@dataclass(frozen=True)
class Offer:
    """A role that ssh may use; if it is held, `fresh_until` (Unix seconds), and in `agent` its agent's socket."""

    role: str
    accounts: tuple[Account, ...]
    fresh_until: int = 0
    agent: str | None = None


def quoted(path: Path) -> str:
    """The path as one word of ssh_config. Raises `Misconfigured` for one that ssh would read as something else."""
    return f'"{_plain(path)}"'


def _plain(path: Path) -> str:
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise Misconfigured(f"the path {str(path)!a} cannot stand in ssh_config", "Use a home directory with a plainer name")
    return str(path)


def hook() -> str:
    """The program that ssh runs: fresh certificates pass without this product's start-up time."""
    ours = [sys.executable, "-P", "-c", "from cli.main import main; main()", "ssh-hook"]
    return f'{_HOOK}exec {shlex.join(ours)} "$1"\n'


def render(directory: Directory, offers: Iterable[Offer]) -> str:
    """The generated file; of the offers for one account on one host the first is used."""
    own = [directory.path.parent / name for name in _DEFAULT_KEYS if (directory.path.parent / name).exists()]
    taken: dict[str, dict[str, None]] = {}  # account → host patterns of the blocks so far
    lines = [_HEADER]
    for offer in offers:
        for account in offer.accounts if _can_be_a_file(directory, offer.role) else ():  # login says of others what is wrong
            earlier = taken.setdefault(account.account, {})
            if any(pattern not in earlier for pattern in account.hosts):
                lines += _block(directory, offer, account, earlier, own)
                earlier |= dict.fromkeys(account.hosts)
    return "".join(lines)


def _can_be_a_file(directory: Directory, role: str) -> bool:
    try:
        directory.of_role(role, "-cert")
    except Malformed:
        return False
    return True


def _block(directory: Directory, offer: Offer, account: Account, earlier: Collection[str], own: Iterable[Path]) -> Iterator[str]:
    others = [f"!{taken}" for taken in earlier if any(overlap(taken, pattern) for pattern in account.hosts)]
    hosts = ",".join([*others, *(pattern for pattern in account.hosts if pattern not in earlier)])
    agent = f" '{offer.agent}'" if offer.agent and _PLAIN_PATH.fullmatch(offer.agent) else ""
    until = offer.fresh_until if agent or not offer.agent else 0  # an agent whose name cannot be compared here is asked
    test = f"/bin/sh '{_plain(directory.hook)}' {offer.role} {until}{agent}"
    yield f'\nMatch host "{hosts}" user {account.account} exec "{test}"\n'
    yield f"    IdentityFile {quoted(directory.of_role(offer.role, '-cert'))}\n"
    yield from (f"    IdentityFile {quoted(path)}\n" for path in own)
    yield "    IdentitiesOnly yes\n"


def overlap(one: str, other: str) -> bool:
    """Whether a name could match both patterns; it may say so where none could, which excludes nothing that is not taken."""
    (begin, end), (other_begin, other_end) = _ends(one), _ends(other)
    return (begin.startswith(other_begin) or other_begin.startswith(begin)) and (
        end.endswith(other_end) or other_end.endswith(end)
    )


@cache
def _ends(pattern: str) -> tuple[str, str]:
    """What every name that matches begins and ends with."""
    literal = re.split(r"[*?]", pattern.lower())
    return literal[0], literal[-1]


def include(directory: Directory) -> bool:
    """Puts our `Include` line first in the person's configuration unless it stands before any Host or Match; whether it wrote.

    Everything else in the file stays as it is, byte for byte; a symbolic link stays one.
    """
    line = f"Include {quoted(directory.config)}".encode()
    target = directory.ssh_config.resolve()
    found = target.read_bytes() if target.exists() else b""
    for present in found.splitlines():
        if present.strip() == line:
            return False
        if _SECTION.match(present):
            break
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    files.write(target, line + b"\n" + found, mode)
    return True
