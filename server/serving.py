"""How `jit-ssh-ca serve` speaks HTTP: one process, one event loop that reads, and threads that run the application.

One process, because the log has one writer and the policy is in memory. The rule here: a client that is slow or silent costs a
socket for CLIENT_SECONDS and never a thread.
"""

import asyncio
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from wsgiref.types import WSGIApplication

from server.connection import Connection, Turns
from server.gateway import Request, answer, problem
from server.listening import Listen, open_socket, tls_context
from server.threads import Done, Gathering, Threads, Together

CLIENT_SECONDS = 10  # for a TLS handshake, for a whole request, for silence between two, for taking the last of an answer
MAX_CONNECTIONS = 1000
MOST_WAITING = MAX_CONNECTIONS  # requests; more are those of clients that went away and came again
STOP_SECONDS = 15  # after a stop signal, for the requests that are being answered

_TOO_MANY: Final = "Too many requests wait to be answered: try again in a moment."
_BUSY: Final = problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", _TOO_MANY, [("Retry-After", "1")])
_log = logging.getLogger(__name__)


def serve(
    app: WSGIApplication,
    listen: Listen,
    *,
    tls: tuple[Path, Path] | None,
    threads: int,
    together: Together | None = None,
    behind_proxy: bool = False,
    on_hangup: Callable[[], None],
    on_ready: Callable[[str], None],
    on_stop: Callable[[], None],
) -> None:
    """Serve `app` until SIGTERM or SIGINT, from the main thread; `tls` names the PEM files of the chain and of its key.

    What `together` takes is answered by it and not by `app`. `behind_proxy` believes the last X-Forwarded-For and -Proto: whoever
    can reach this server past that proxy could then choose the address it sees.

    `on_ready` gets the URL, with the real port, when connections are accepted. `on_stop` is called, on the event loop, when
    the stop begins: it lets go requests that wait for something. SIGHUP calls `on_hangup` in a thread of
    its own, one call at a time, and then reads the TLS files again. A stop refuses new connections and gives the
    requests in flight STOP_SECONDS; a thread that is stuck for longer does not keep the program alive.

    Raises Misconfigured, before anything is served, if the address or the TLS files cannot be used.
    """
    context = tls_context(*tls) if tls else None
    with open_socket(listen) as listener:
        _allow_files()

        def renew() -> None:
            on_hangup()
            if tls and context:
                tls_context(*tls)  # raises for a half-renewed pair, before it can spoil the one in use
                server.loop.call_soon_threadsafe(context.load_cert_chain, *tls)

        with asyncio.Runner() as runner:
            server = _Server(app, threads, runner.get_loop(), renew, on_stop, together, behind_proxy=behind_proxy)
            runner.run(server.listen(listener, context))
            on_ready(listen.url(listener, encrypted=context is not None))
            runner.run(server.stopped())


def _allow_files() -> None:
    """Let connections that are still in their TLS handshake, which MAX_CONNECTIONS cannot count, not use up the files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16 * MAX_CONNECTIONS)), hard))


class _Server:
    def __init__(
        self,
        app: WSGIApplication,
        threads: int,
        loop: asyncio.AbstractEventLoop,
        on_hangup: Callable[[], None],
        on_stop: Callable[[], None],
        together: Together | None,
        *,
        behind_proxy: bool,
    ) -> None:
        self.loop = loop
        self._behind_proxy = behind_proxy
        self._app = app
        self._turns = Turns(CLIENT_SECONDS, MAX_CONNECTIONS)
        self._on_hangup = on_hangup
        self._on_stop = on_stop
        self._threads = Threads(threads, "request", loop)
        self._gathering = Gathering(together, self._threads, loop) if together else None
        self._hangups = Threads(1, "hangup", loop)
        self._stop = asyncio.Event()

    async def listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self._listening = await self.loop.create_server(
            lambda: Connection(self._turns, self._ask),
            sock=listener,
            ssl=context,
            backlog=MAX_CONNECTIONS,
            ssl_handshake_timeout=CLIENT_SECONDS if context else None,
            ssl_shutdown_timeout=1 if context else None,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop.set)
        self.loop.add_signal_handler(signal.SIGHUP, lambda: self._hangups.run(self._on_hangup, _report))

    def _ask(self, request: Request, done: Done) -> None:
        if self._behind_proxy:
            request.believe_proxy()
        if self._threads.waiting + (self._gathering.waiting if self._gathering else 0) > MOST_WAITING:
            self.loop.call_soon(done, _BUSY)
        elif self._gathering and self._gathering.takes(request):
            self._gathering.add(request, done)
        else:
            self._threads.run(lambda: answer(self._app, request), done)

    async def stopped(self) -> None:
        """Returns when a signal has stopped the server and the requests in flight are answered, or their time is over."""
        await self._stop.wait()
        self._on_stop()
        self._listening.close()
        await self._turns.stop(STOP_SECONDS)


def _report(result: Any) -> None:
    if isinstance(result, BaseException):
        _log.error("SIGHUP: what was in use stays in use: %s", result)
