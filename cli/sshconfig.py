"""What ssh is told: one generated file that matches hosts and accounts to certificates, and one `Include` line for it.

Nothing reaches that file but names that `ca.names` allows and paths without a character that ssh_config reads specially.
In an agent, `IdentityFile ROLE-cert.pub` names the one identity to try first; `CertificateFile` would make ssh offer the same
certificate twice, and stop at the server's limit of attempts when the agent has many keys.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured
from cli import files
from cli.accounts import Account
from cli.directory import Directory

_HEADER: Final = "# Written by jit-ssh at each login and logout: changes made here are lost.\n"
_PLAIN_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f\"'\\*?\[\]{}$%]*")
_SECTION: Final = re.compile(rb"\s*(host|match)[\s=]", re.IGNORECASE)
# A configured IdentityFile keeps ssh from trying these, so those that exist are named again behind it.
_DEFAULT_KEYS: Final = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")


def quoted(path: Path) -> str:
    """The path as one word of ssh_config. Raises `Misconfigured` for one that ssh would read as something else."""
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise Misconfigured(f"the path {str(path)!a} cannot stand in ssh_config", "Use a home directory with a plainer name")
    return f'"{path}"'


def render(directory: Directory, held: Iterable[tuple[str, bool, tuple[Account, ...]]]) -> str:
    """The generated file for each held (role, whether its key is in an agent, accounts)."""
    own = [directory.path.parent / name for name in _DEFAULT_KEYS if (directory.path.parent / name).exists()]
    blocks = (_block(directory, role, in_agent, account, own) for role, in_agent, accounts in held for account in accounts)
    return _HEADER + "".join(line for block in blocks for line in block)


def _block(directory: Directory, role: str, in_agent: bool, account: Account, own: Iterable[Path]) -> Iterator[str]:
    if not account.hosts:
        return
    certificate = quoted(directory.of_role(role, "-cert.pub"))
    yield f'\nMatch host "{",".join(account.hosts)}" user {account.account}\n'
    if in_agent:
        yield f"    IdentityFile {certificate}\n"
    else:
        yield f"    IdentityFile {quoted(directory.of_role(role, ''))}\n    CertificateFile {certificate}\n"
    for path in own:
        yield f"    IdentityFile {quoted(path)}\n"


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
