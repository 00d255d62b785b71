"""How `jit-ssh-ca serve` speaks HTTP: one process, one event loop that reads, and threads that run the application.

The rule here: a client that is slow or silent costs a socket for CLIENT_SECONDS and never a thread. uvicorn parses with
llhttp, so ambiguous framing is a 400; what uvicorn leaves open is bounded here: the time and the bytes that a client has
for one request, and the number of connections. One process, because the log has one writer and the policy is in memory.
"""

import asyncio
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from wsgiref.types import WSGIApplication

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from server.gateway import MAX_BODY, Gateway, Threads
from server.listening import Listen, open_socket, tls_context

CLIENT_SECONDS = 10  # for a TLS handshake, for a whole request, for silence between two, for taking the last of an answer
CLIENT_BYTES = 4 * MAX_BODY  # for a whole request: line, headers, body and trailers
MAX_CONNECTIONS = 1000
STOP_SECONDS = 15  # after a stop signal, for the requests that are being answered

_log = logging.getLogger(__name__)


def serve(
    app: WSGIApplication,
    listen: Listen,
    *,
    tls: tuple[Path, Path] | None,
    threads: int,
    on_hangup: Callable[[], None],
    on_ready: Callable[[str], None],
    on_stop: Callable[[], None],
) -> None:
    """Serve `app` until SIGTERM or SIGINT, from the main thread; `tls` names the PEM files of the chain and of its key.

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
                loop = server.servers[0].get_loop()
                loop.call_soon_threadsafe(context.load_cert_chain, *tls)

        def ready() -> None:
            on_ready(listen.url(listener, encrypted=context is not None))

        server = _Server(Gateway(app, threads), listener, context, renew, ready, on_stop)
        asyncio.run(server.serve())


def _allow_files() -> None:
    """Let connections that are still in their TLS handshake, which MAX_CONNECTIONS cannot count, not use up the files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16 * MAX_CONNECTIONS)), hard))


class _Server(uvicorn.Server):
    def __init__(
        self,
        gateway: Gateway,
        listener: socket.socket,
        context: ssl.SSLContext | None,
        on_hangup: Callable[[], None],
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        config = uvicorn.Config(
            gateway,
            interface="asgi3",
            http=_Connection,
            ws="none",
            lifespan="off",
            workers=1,
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,  # on by default for loopback peers: any local account could choose its address
            server_header=False,
            timeout_keep_alive=CLIENT_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        super().__init__(config)
        self._listener = listener
        self._context = context
        self._on_hangup = on_hangup
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._hangups = Threads(1, "hangup")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Instead of uvicorn's, which has no bound for a TLS handshake and none for a TLS goodbye."""
        loop = asyncio.get_running_loop()
        turns: _Turns = {}
        self.servers = [
            await loop.create_server(
                lambda: _Connection(self.config, self.server_state, turns),
                sock=self._listener,
                ssl=self._context,
                backlog=MAX_CONNECTIONS,
                ssl_handshake_timeout=CLIENT_SECONDS if self._context else None,
                ssl_shutdown_timeout=1 if self._context else None,
            )
        ]
        self.started = True
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Instead of uvicorn's, which kills the program by the same signal once the server has stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        yield

    def _stop(self, number: int) -> None:
        self._on_stop()
        self.handle_exit(number, None)

    def _hang_up(self) -> None:
        self._hangups.run(self._on_hangup).add_done_callback(_report)


def _report(hangup: asyncio.Future[None]) -> None:
    if not hangup.cancelled() and (error := hangup.exception()):
        _log.error("SIGHUP: what was in use stays in use: %s", error)


class _Connection(HttpToolsProtocol):
    """A connection alternates between turns: the client's, until its request is whole, and ours, until it is answered.

    `turns` holds the connections whose client has the turn, the longest first, each with the timer that ends it. When
    there are too many connections the longest turn ends at once: half-open ones make room for new ones.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState, turns: "_Turns") -> None:
        super().__init__(config, state, {})
        self._turns = turns
        self._received = 0  # bytes of the request that is arriving

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_turn()
        if len(self.connections) > MAX_CONNECTIONS:
            next(iter(self._turns)).cut_off()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > CLIENT_BYTES:
            self.cut_off()
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.headers = []  # trailers go here, or one named Authorization would join the request's headers

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received = 0
        self._end_turn()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete or self.cycle.more_body:  # else the next request is here already
            self._start_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_turn()
        super().connection_lost(exc)

    def cut_off(self) -> None:
        """Close at once, even with something still to be sent."""
        self._end_turn()
        self.transport.abort()

    def _start_turn(self) -> None:
        self._end_turn()
        self._turns[self] = self.loop.call_later(CLIENT_SECONDS, self.cut_off)

    def _end_turn(self) -> None:
        if timer := self._turns.pop(self, None):
            timer.cancel()


_Turns = dict[_Connection, asyncio.TimerHandle]
