"""Where the server listens: an address, its socket and its TLS files, each opened or refused before anything is served."""

import errno
import os
import re
import socket
import ssl
import stat
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path

from ca.errors import Misconfigured

_SPELLINGS = "write 127.0.0.1:8443, [::1]:8443 or unix:/run/jit-ssh/ca.sock; port 0 takes a free one"
_REFUSALS = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another address",
    errno.EACCES: "choose a port above 1023, or a directory that this account may write to",
    errno.EPERM: "choose a port above 1023, or a directory that this account may write to",
    errno.EADDRNOTAVAIL: "this machine has no such address: `ip address` shows those it has",
    errno.ENOENT: "create the directory that the socket shall be in",
}


@dataclass(frozen=True)
class Listen:
    """An IP address and port, or the absolute path of a Unix socket (which has port 0)."""

    at: IPv4Address | IPv6Address | Path
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """Read `127.0.0.1:8443`, `[::1]:0` or `unix:/run/jit-ssh/ca.sock`; names are refused, they can mean any address.

        Raises Misconfigured.
        """
        try:
            if text.startswith("unix:/") and "\0" not in text:
                return cls(Path(text.removeprefix("unix:")))
            found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
            if found and int(found[3]) <= 65_535:
                return cls(IPv6Address(found[1]) if found[1] else IPv4Address(found[2]), int(found[3]))
        except AddressValueError:
            pass
        raise Misconfigured(f"{text!r} is not an address to listen on", _SPELLINGS)

    @property
    def is_private(self) -> bool:
        """Whether only this machine can connect."""
        return isinstance(self.at, Path) or self.at.is_loopback

    def url(self, listener: socket.socket, *, encrypted: bool) -> str:
        """Where to connect, with the port that the kernel chose if it was asked to."""
        if isinstance(self.at, Path):
            return str(self)
        return f"{'https' if encrypted else 'http'}://{Listen(self.at, listener.getsockname()[1])}"

    def __str__(self) -> str:
        match self.at:
            case Path():
                return f"unix:{self.at}"
            case IPv6Address():
                return f"[{self.at}]:{self.port}"
            case IPv4Address():
                return f"{self.at}:{self.port}"


def open_socket(listen: Listen) -> socket.socket:
    """Bind the socket, mode 0660 if it is a Unix one; a file that an earlier server left there is replaced.

    Nobody deletes the file at the end: by then it can be the next server's.

    Raises Misconfigured.
    """
    try:
        match listen.at:
            case Path():
                return _open_unix(listen.at)
            case IPv6Address():
                both = listen.at == IPv6Address("::")  # "everywhere" then includes IPv4
                where = (str(listen.at), listen.port)
                return _undelayed(socket.create_server(where, family=socket.AF_INET6, dualstack_ipv6=both))
            case IPv4Address():
                return _undelayed(socket.create_server((str(listen.at), listen.port)))
    except OSError as error:
        reason = error.strerror or str(error)  # "AF_UNIX path too long" has no errno
        raise Misconfigured(f"cannot listen on {listen}: {reason}", _REFUSALS.get(error.errno or 0, _SPELLINGS)) from None


def _undelayed(listener: socket.socket) -> socket.socket:
    """Connections inherit this; asyncio sets it only on sockets it opened, and without it an answer takes 40 ms."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _open_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o117)  # rather than a chmod afterwards, which would leave a moment for everybody
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()
        listener.bind(str(path))
        listener.listen()  # from here on another server sees that this one lives
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with this chain and its unencrypted key, both PEM.

    Raises Misconfigured.
    """
    for path in (certificate, key):
        try:
            path.open("rb").close()  # OpenSSL does not say which of the two it could not read
        except OSError as error:
            raise Misconfigured(f"cannot read the TLS file {path}: {error.strerror}", "check its name and owner") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # hosts that fetch revocations can be old
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password="")  # without one OpenSSL would ask the terminal
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise Misconfigured(f"{key} is not the key of {certificate}", "give the two files of one pair") from None
        hint = "give a PEM certificate chain, the server's own first, and its PEM key without a passphrase"
        raise Misconfigured(f"cannot use the TLS files {certificate} and {key}", hint) from None
    return context
