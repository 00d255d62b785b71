"""Between the event loop and the WSGI application: a request that arrived whole, and the threads that answer it.

The rule here: no header of a request is guessed.
"""

import asyncio
import io
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

MAX_BODY: Final = 65_536  # bytes
READ_ANYWAY: Final = 2 * MAX_BODY  # bytes of a body too large that are read: closing on unread ones can destroy the answer


@dataclass
class Request:
    """A request as far as it has arrived. `scheme`, `server` and `client` are those of its connection."""

    scheme: str
    server: tuple[str, int] | None  # None on a Unix socket
    client: str | None
    target: bytes = b""
    method: str = ""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    keep_alive: bool = False

    @cached_property
    def length(self) -> int:
        """The bytes of the body as announced; 0 if they were not."""
        return next((int(value) for name, value in self.headers if name.lower() == b"content-length"), 0)  # llhttp wants digits


@dataclass(frozen=True)
class Answer:
    """What the application answers."""

    status: str  # with its reason
    headers: list[tuple[str, str]]
    content: bytes


class Threads:
    """A fixed number of threads, which unlike an executor's are not waited for when the program ends.

    One that is cut off then is like a crash there: at worst it leaves an entry without a certificate. Belongs to one event loop.
    """

    def __init__(self, count: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs = queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]]]()
        self._results = deque[tuple[Callable[[Any], None], Any]]()
        self._told = False  # whether the loop knows that there are results: it is woken once for many
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def run(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Calls in the next free thread, and `done` with what it returned or raised in the event loop."""
        self._jobs.put((call, done))

    def _work(self) -> None:
        while True:
            call, done = self._jobs.get()
            try:
                result = call()
            except BaseException as caught:  # a SystemExit, too, goes to who asked, or it would cost a thread
                result = caught
            self._results.append((done, result))
            if not self._told:
                self._told = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: the server stopped without this answer
                    return

    def _deliver(self) -> None:
        self._told = False  # first: what is added from here on wakes the loop again
        while self._results:
            done, result = self._results.popleft()
            done(result)


def answer(app: WSGIApplication, request: Request) -> Answer:
    """What the application says to a request. Raises what it raises."""
    status, headers, chunks = "", list[tuple[str, str]](), list[bytes]()

    def start_response(line: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = line, fields
        return chunks.append

    answered = app(_environ(request), start_response)
    try:
        chunks.extend(answered)
    finally:
        if hasattr(answered, "close"):
            answered.close()
    return Answer(status, headers, b"".join(chunks))


def _environ(request: Request) -> dict[str, Any]:
    """The request as PEP 3333 has it.

    A header name with an underscore is dropped: WSGI could not tell `X_Forwarded_For` from `X-Forwarded-For`.
    A header sent twice arrives joined by a comma, so that no one of the two is believed.
    """
    path, _, query = request.target.partition(b"?")
    host, port = request.server or ("localhost", 80)
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.client is not None:
        environ["REMOTE_ADDR"] = request.client
    for raw_name, raw_value in request.headers:
        if b"_" in raw_name or raw_name.lower() in {b"content-length", b"transfer-encoding"}:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        key = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def address(peer: str) -> str:
    """The IP address of a peer, an IPv4 one in IPv6 unwrapped."""
    found = ip_address(peer)
    return str(getattr(found, "ipv4_mapped", None) or found)
