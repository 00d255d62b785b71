"""Connecting to a server within a deadline: its name, each of its addresses, and TLS together.

The system's resolver takes as long as its name servers do and cannot be told to stop, so it is asked by a thread that nobody
waits for longer than they may. Deadlines are of the monotonic clock, in seconds.
"""

import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPSConnection
from threading import Thread
from typing import Any

_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class Dialer:
    """One server at `host` and `port`, over TLS or not. Owned by one thread."""

    def __init__(self, host: str, port: int | None, *, secure: bool) -> None:
        """Without a port, it is the scheme's."""
        self._host = host
        self._port = port
        self._secure = secure
        self._resolving: Future[Sequence[_Address]] | None = None

    def connect(self, deadline: float) -> HTTPConnection:
        """A new connection. Raises `OSError`: a `TimeoutError` when the deadline has passed."""
        tls = ssl.create_default_context() if self._secure else None
        made = HTTPSConnection(self._host, self._port, context=tls) if tls else HTTPConnection(self._host, self._port)
        plain = _reached(self._addresses(made.port, deadline), deadline)
        try:
            plain.settimeout(_left(deadline))
            made.sock = tls.wrap_socket(plain, server_hostname=self._host) if tls else plain
        except BaseException:
            plain.close()
            raise
        return made

    def _addresses(self, port: int, deadline: float) -> Sequence[_Address]:
        """What the name means. There is one thread at most: an answer that was too late for one connection is the next one's."""
        if self._resolving is None:
            found = Future[Sequence[_Address]]()
            Thread(target=_resolve, args=(self._host, port, found), name=f"resolve {self._host}", daemon=True).start()
            self._resolving = found  # only now: without a thread it would be waited for at every connection
        addresses = self._resolving.result(_left(deadline))
        self._resolving = None
        return addresses


def _resolve(host: str, port: int, found: Future[Sequence[_Address]]) -> None:
    try:
        addresses: Sequence[_Address] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for what is no name
        addresses = []
    found.set_result(addresses)


def _reached(addresses: Sequence[_Address], deadline: float) -> socket.socket:
    """The first address that answers; each may take its part of the time that is left."""
    refused = OSError(0, "its name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            tried = socket.socket(family, kind, protocol)
        except OSError as error:  # such as IPv6, where there is none
            refused = error
            continue
        try:
            tried.settimeout(_left(deadline) / (len(addresses) - number))
            tried.connect(address)
            tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            tried.close()
            refused = error
        else:
            return tried
    raise refused


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
