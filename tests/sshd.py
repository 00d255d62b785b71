"""A real, private sshd that trusts a CA through `scripts/install-host`, and the real ssh that goes to it.

Nothing of the machine is used or changed: configuration, host key, pid file and log live in one directory, the port is a
free one on loopback, and ssh reads no configuration, agent or known hosts but what it is given. Run by root the sshd can
admit any account; run by somebody else it admits only that account. Imports nothing of the product.
"""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INSTALL_HOST: Final = Path(__file__).parents[1] / "scripts" / "install-host"
HOST_VERIFY: Final = Path(__file__).parents[1] / "cli" / "host_verify.py"  # what it installs with --verify-log
SSHD: Final = "/usr/sbin/sshd"  # sshd insists on its absolute path, because it runs itself again
PATIENCE: Final = 20.0  # seconds for anything here that is awaited


def current_account() -> str:
    """The account this process runs as: the one that every sshd started here can admit."""
    return pwd.getpwuid(os.geteuid()).pw_name


@dataclass(frozen=True)
class Sshd:
    """A running sshd; `prefix` is its directory, as `install-host --prefix` takes it."""

    port: int
    prefix: Path
    host_key: str  # "ssh-ed25519 AAAA…"
    listener: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.prefix / "sshd_config"

    @property
    def log_path(self) -> Path:
        return self.prefix / "log"

    @property
    def known_hosts_line(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Ends the listener; a session ends with the ssh that opened it."""
        self.listener.terminate()
        self.listener.wait(PATIENCE)


def make_key(path: Path, *options: str) -> Path:
    """Makes an unencrypted key with ssh-keygen, Ed25519 unless `options` say `-t` something else; its public file is beside."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", *options, "-f", str(path)], check=True)
    return path


def make_prefix(prefix: Path, *lines: str) -> Path:
    """Makes `prefix` a configuration directory without any CA; `lines` come first in its sshd_config, so they win."""
    (prefix / "sshd_config.d").mkdir(parents=True)
    make_key(prefix / "host_key")
    own = [
        f"Include {prefix}/sshd_config.d/*.conf",
        "ListenAddress 127.0.0.1",
        f"HostKey {prefix}/host_key",
        f"PidFile {prefix}/pid",
        "StrictModes no",  # a temporary directory has a parent that everybody may write; one test here says yes
        "UsePAM no",
        "LogLevel VERBOSE",
        f"AuthorizedKeysFile {prefix}/authorized_keys",  # never the ones of the account that runs the tests
        "Subsystem sftp internal-sftp",
    ]
    (prefix / "sshd_config").write_text("\n".join([*lines, *own]) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd run by root does not even test without it
    return prefix


def install_host(prefix: Path, *arguments: str, shell: str = "sh", user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `scripts/install-host` on `prefix`, as `user` when root gives one; the caller judges its exit status."""
    # Another user may be unable to enter the directory of the checkout, so they get the text of the program.
    program = [str(INSTALL_HOST)] if user is None else ["-c", INSTALL_HOST.read_text(), "install-host"]
    # Where the tests themselves were told to ignore a signal, as under nohup, no shell below them could trap it.
    command = ["env", "--default-signal=HUP,INT,TERM", shell, *program, "--prefix", str(prefix), *arguments]
    groups: list[int] | None = None if user is None else []
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE * 2, user=user, group=user, extra_groups=groups
    )


@contextmanager
def running(prefix: Path, user: int | None = None) -> Iterator[Sshd]:
    """The sshd of `prefix`, answering until the end of the block. Raises RuntimeError with its log if it does not start."""
    host_key = " ".join((prefix / "host_key.pub").read_text().split()[:2])
    for _ in range(5):  # another program may take the port between our look and sshd's
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with (prefix / "log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(prefix / "sshd_config"), "-p", str(port)]
            listener = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, user=user)
        sshd = Sshd(port, prefix, host_key, listener)
        try:
            if _answers(sshd):
                yield sshd
                return
        finally:
            sshd.stop()
    raise RuntimeError(f"sshd did not start:\n{sshd.log()}")


def _answers(sshd: Sshd) -> bool:
    """True when sshd sends its banner, False when it has ended; refused connections return at once and are tried again."""
    deadline = time.monotonic() + PATIENCE
    while sshd.listener.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", sshd.port), timeout=PATIENCE) as connection:
                return connection.recv(8) == b"SSH-2.0-"
        except ConnectionRefusedError:
            time.sleep(0.01)  # nothing announces that a port is open but the attempt
    return False


@contextmanager
def trusting(prefix: Path, ca: str | Path, groups: Iterable[str], accounts: Iterable[str] = ()) -> Iterator[Sshd]:
    """A running sshd in a new `prefix` that trusts `ca` in these host groups; without accounts, for the current one."""
    make_prefix(prefix)
    arguments = ["--ca", str(ca)]
    for group in groups:
        arguments += ["--group", group]
    for account in accounts or [current_account()]:
        arguments += ["--account", account]
    installed = install_host(prefix, *arguments)
    if installed.returncode != 0:
        raise RuntimeError(f"install-host failed:\n{installed.stderr}")
    with running(prefix) as sshd:
        yield sshd


def ssh(
    sshd: Sshd, user: str, *command: str, identity: Path, certificate: Path | None = None, agent: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the real ssh with this key (or its public file, when `agent` holds it) and this certificate, and no others."""
    known_hosts = sshd.prefix / f"known_hosts.{sshd.port}"
    known_hosts.write_text(sshd.known_hosts_line)
    options: dict[str, object] = {
        "BatchMode": "yes",
        "ConnectTimeout": int(PATIENCE),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "IdentityAgent": agent or "none",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known_hosts,
    }
    if certificate is not None:
        options["CertificateFile"] = certificate
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    line = ["ssh", "-F", "/dev/null", *flags, "-i", str(identity), "-p", str(sshd.port), "-l", user, "127.0.0.1", *command]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE * 2)
