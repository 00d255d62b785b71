"""The last step of a drill: real ssh gets in with the certificate, on a private sshd of this machine or on a canary host."""

import getpass
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from breakglass.stop import Stop
from breakglass.terminal import say
from ca.names import BREAK_GLASS

_PATIENCE: Final = 60  # seconds, with a question about an unknown host key


@dataclass(frozen=True)
class Target:
    """Where a drill goes: `account@host port` for the journal, and what ssh is told."""

    name: str
    arguments: tuple[str, ...]


def make_key(private: Path) -> Path:
    """A key of the drill's own; its public half."""
    _keygen(private / "drill")
    return private / "drill.pub"


def canary(text: str) -> Target:
    """`ACCOUNT@HOST[:PORT]`, a host that trusts the emergency key, on the way that ssh_config knows. Raises `Stop`."""
    account, _, place = text.partition("@")
    host, _, port = place.partition(":")
    port = port or "22"
    if not account or not host or not port.isascii() or not port.isdigit() or text.startswith("-") or host.startswith("-"):
        raise Stop(f"{text[:60]!a} is not a place to practise on", "Write ACCOUNT@HOST or ACCOUNT@HOST:PORT")
    return Target(f"{account}@{host} {port}", ("-p", port, "-l", account, "--", host))


def own_sshd(private: Path, emergency: str, groups: tuple[str, ...]) -> Target:
    """An sshd for this account alone, without a port: ssh starts it as its connection. Trusts what a host would trust."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if sshd is None:
        raise Stop("there is no sshd on this machine to practise on", "Practise on a canary host: --at ACCOUNT@HOST")
    _keygen(private / "host_key")
    principals = ",".join(f"{BREAK_GLASS}@{group}" for group in groups)
    (private / "authorized_keys").write_text(f'cert-authority,principals="{principals}" {emergency}\n')
    config = private / "sshd_config"
    config.write_text(
        f"HostKey {private}/host_key\nAuthorizedKeysFile {private}/authorized_keys\nPidFile none\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (private / "known_hosts").write_text("drill " + (private / "host_key.pub").read_text())
    return Target(
        f"{getpass.getuser()}@this-machine 0",
        (
            "-F", "/dev/null", "-o", f"ProxyCommand={sshd} -i -f {config}", "-o", "HostKeyAlias=drill",
            "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={private}/known_hosts", "-o", "BatchMode=yes", "-l", getpass.getuser(), "--", "drill",
        ),
    )  # fmt: skip


def enters(target: Target, private_key: Path, certificate: Path) -> bool:
    """Whether ssh gets in and runs a command with this certificate, and with nothing else."""
    identity = (
        "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", f"CertificateFile={certificate}", "-i", str(private_key),
        "-o", "PreferredAuthentications=publickey", "-o", "ControlPath=none",
    )  # fmt: skip
    *options, separator, host = target.arguments
    command = ["ssh", *identity, *options, separator, host, "true"]
    try:
        # What the host says belongs to the talk: a nologin shell, for example, says so.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"ssh: {error}")
        return False
    return done.returncode == 0


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)
