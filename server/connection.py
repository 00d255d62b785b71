"""One HTTP/1.1 connection: llhttp (httptools) parses, and whoever is slow or silent costs a socket and never a thread.

The rule here: nothing of a request that has not arrived completely reaches the application, and ambiguous framing is a 400. What
the parser leaves open is bounded here: the time and the bytes that a client has for one request.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools

from server.gateway import MAX_BODY, READ_ANYWAY, Answer, Request, address, problem
from server.threads import Done

CLIENT_BYTES: Final = 4 * MAX_BODY  # for a whole request: line, headers, body and trailers
MOST_AHEAD: Final = 100  # requests that a client may send before it is answered

_CLOSING: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0")]
_TOO_LARGE: Final = problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"The body of a request has at most {MAX_BODY} bytes."
)
_NOT_HTTP: Final = Answer("400 Bad Request", _CLOSING, b"")
_FAILED: Final = Answer("500 Internal Server Error", _CLOSING, b"")


class Turns:
    """The connections whose client has the turn, the longest first, each with the timer that ends it; and all there are."""

    def __init__(self, seconds: float, most: int) -> None:
        """`seconds` a client has for its turn; when there are more than `most` connections, the longest silent one makes room."""
        self.seconds = seconds
        self.most = most
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}
        self.all: set[Connection] = set()
        self.stopping = False
        self.none_left = asyncio.Event()

    async def stop(self, seconds: float) -> None:
        """Closes all connections, those that are being answered when they are, or after so many seconds not at all."""
        self.stopping = True
        self.none_left.clear()  # set since the last moment at which there were none
        for connection in list(self.all):
            connection.stop()
        if self.all:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.none_left.wait(), seconds)


class Connection(asyncio.Protocol):
    """A connection alternates between turns: the client's, until its request is whole, and ours, until it is answered.

    Requests that arrive while it is our turn wait here, and nothing more is read until they are answered; nor is another one
    answered before the client has taken the answers that it has.
    """

    def __init__(self, turns: Turns, ask: Callable[[Request, Done], None]) -> None:
        """`ask` has a request answered."""
        self._turns = turns
        self._ask = ask
        self._parser = httptools.HttpRequestParser(self)
        self._received = 0  # bytes of the request that is arriving
        self._arriving: Request | None = None
        self._headers_complete = False
        self._whole: deque[Request] = deque()
        self._answering = False
        self._untaken = False  # whether answers pile up that the client does not take
        self._ending: Answer | None = None  # to be sent behind all other answers, before it is closed

    # ------------------------------------------------------------------- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        has_address = isinstance(peer, tuple)  # who connects to a Unix socket has none
        self._client = address(peer[0]) if has_address else None
        self._server = (own[0], own[1]) if has_address else None
        self._scheme = "https" if transport.get_extra_info("ssl_object") else "http"
        self._turns.all.add(self)
        self._start_turn()
        if len(self._turns.all) > self._turns.most:
            next(iter(self._turns.waiting)).cut_off()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end_turn()
        self._turns.all.discard(self)
        if not self._turns.all:
            self._turns.none_left.set()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > CLIENT_BYTES:
            self.cut_off()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # no other protocol is spoken here: that request is the last one
            self.transport.pause_reading()
        except httptools.HttpParserError:
            self._end_with(_NOT_HTTP)

    def pause_writing(self) -> None:
        self._untaken = True

    def resume_writing(self) -> None:
        self._untaken = False
        if not self._answering:
            self._next()

    # ------------------------------------------------------------------- llhttp

    def on_message_begin(self) -> None:
        self._arriving, self._headers_complete = Request(self._scheme, self._server, self._client), False

    def on_url(self, url: bytes) -> None:
        if self._arriving:
            self._arriving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._arriving and not self._headers_complete:  # a trailer named Authorization is no header
            self._arriving.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._headers_complete = True
        if arriving := self._arriving:
            arriving.method = self._parser.get_method().decode("ascii")
            arriving.version = self._parser.get_http_version()
            if arriving.method == "CONNECT":
                self._end_with(_NOT_HTTP)
            elif arriving.length > READ_ANYWAY:
                self._end_with(_TOO_LARGE)
            elif any(name.lower() == b"expect" and value.lower() == b"100-continue" for name, value in arriving.headers):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._arriving:
            self._arriving.body += body
            if len(self._arriving.body) > READ_ANYWAY:
                self._end_with(_TOO_LARGE)

    def on_message_complete(self) -> None:
        self._received = 0
        if self._arriving:
            self._arriving.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
            self._whole.append(self._arriving)
            self._arriving = None
            if len(self._whole) > MOST_AHEAD:
                self.cut_off()
            else:
                self._next()

    # -------------------------------------------------------------------- turns

    def _next(self) -> None:
        """Answers the next request that is whole, or gives the turn to the client."""
        if self.transport.is_closing():
            return
        if self._answering:
            self.transport.pause_reading()
        elif self._untaken:
            self.transport.pause_reading()
            self._start_turn()
        elif self._whole:
            self._end_turn()
            request = self._whole.popleft()
            if len(request.body) > MAX_BODY:
                self._whole.clear()
                self._end_with(_TOO_LARGE)
            else:
                self._answering = True
                self._ask(request, lambda answered: self._answered(request, answered))
        elif self._ending:
            self._send(self._ending, head=False, keep_alive=False)
        else:
            self.transport.resume_reading()
            self._start_turn()

    def _answered(self, request: Request, answered: Answer | BaseException) -> None:
        self._answering = False
        if self.transport.is_closing():
            return
        keep_alive = request.keep_alive and not self._turns.stopping and not isinstance(answered, BaseException)
        said = _FAILED if isinstance(answered, BaseException) else answered
        try:
            self._send(said, head=request.method == "HEAD", keep_alive=keep_alive)
        except Exception:  # a header that no header can be; without this nothing would end the connection
            self.cut_off()
            raise
        if keep_alive:
            self._next()

    def _end_with(self, last: Answer) -> None:
        """Reads no further; this is the last answer."""
        self._arriving, self._ending = None, last
        self.transport.pause_reading()
        self._next()

    def _send(self, said: Answer, *, head: bool, keep_alive: bool) -> None:
        lines = [f"HTTP/1.1 {said.status}", f"date: {_date(int(time.time()))}"]
        lines += [f"{name.lower()}: {value}" for name, value in said.headers]
        if not keep_alive:
            lines.append("connection: close")
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head else said.content))
        if not keep_alive:
            self._start_turn()  # to take the last of it
            self.transport.close()

    def stop(self) -> None:
        """Closes unless a request is being answered, which is its last one then."""
        self._whole.clear()
        if not self._answering:
            self.transport.close()

    def cut_off(self) -> None:
        """Closes at once, even with something still to be sent."""
        self._end_turn()
        self.transport.abort()

    def _start_turn(self) -> None:
        self._end_turn()
        self._turns.waiting[self] = asyncio.get_running_loop().call_later(self._turns.seconds, self.cut_off)

    def _end_turn(self) -> None:
        if timer := self._turns.waiting.pop(self, None):
            timer.cancel()


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)
