"""Between the event loop and the WSGI application: a request that arrived whole, and the threads that answer it.

The rule here: no header of a request is guessed.
"""

import asyncio
import io
import json
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

MAX_BODY: Final = 65_536  # bytes
READ_ANYWAY: Final = 2 * MAX_BODY  # bytes of a body too large that are read: closing on unread ones can destroy the answer
MOST_TOGETHER: Final = 64  # requests that are answered at a time: so long the first of them waits for the last


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

    def believe_proxy(self) -> None:
        """Takes the client and the scheme that the proxy in front says, who adds to what others said before."""
        said = {name: _last(self.headers, name) for name in (b"x-forwarded-for", b"x-forwarded-proto")}
        self.client = said[b"x-forwarded-for"] or self.client
        self.scheme = said[b"x-forwarded-proto"] or self.scheme

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


def problem(status: HTTPStatus, code: str, detail: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """What the server itself refuses, as the RFC 9457 document that an application would make of it."""
    members = {"type": f"urn:jit-ssh:problem:{code}", "title": status.phrase, "status": status, "detail": detail, "hint": ""}
    content = json.dumps(members | {"code": code}).encode()
    kind = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(content)))]
    return Answer(f"{status.value} {status.phrase}", [*kind, *headers], content)


Call = Callable[[], Any]
Done = Callable[[Any], None]  # called in the event loop, with what was returned or raised


class _Results:
    """What threads found out, on its way to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._results = deque[tuple[Done, Any]]()
        self._told = False  # whether the loop knows that there are some: it is woken once for many

    def add(self, results: Iterable[tuple[Done, Any]]) -> None:
        """Has each `Done` called. Raises `RuntimeError` when the loop is closed: the server stopped without these answers."""
        self._results.extend(results)
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._told = False  # first: what is added from here on wakes the loop again
        while self._results:
            done, result = self._results.popleft()
            done(result)


class Threads:
    """A fixed number of threads, which unlike an executor's are not waited for when the program ends.

    One that is cut off then is like a crash there: at worst it leaves an entry without a certificate. Belongs to one event loop.
    """

    def __init__(self, count: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._jobs = queue.SimpleQueue[tuple[Call, Done]]()
        self._results = _Results(loop)
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return self._jobs.qsize()

    def run(self, call: Call, done: Done) -> None:
        """Calls in the next free thread, and `done` with what it returned or raised in the event loop."""
        self._jobs.put((call, done))

    def _work(self) -> None:
        with suppress(RuntimeError):  # of the results, when the loop is closed
            while True:
                call, done = self._jobs.get()
                self._results.add([(done, _outcome(call))])


class Together(Protocol):
    """An application that answers some requests many at a time."""

    def takes(self, asking: Request) -> bool:
        """Whether it is one of those."""

    @property
    def at_once(self) -> bool:
        """Whether the last steps wait for nobody outside this process, so that none holds up the next."""

    def begin(self, many: Sequence[Request]) -> list[Callable[[], Answer]]:
        """Takes all steps but the last for all of them; the last one of each, which gives its answer."""


class Gathering:
    """One thread, which begins all that has come while it was busy at once. Belongs to one event loop."""

    def __init__(self, together: Together, threads: Threads, loop: asyncio.AbstractEventLoop) -> None:
        """`threads` take the last steps that may wait for others."""
        self._together = together
        self._threads = threads
        self._loop = loop
        self._jobs = queue.SimpleQueue[tuple[Request, Done]]()
        self._results = _Results(loop)
        self._coming: list[tuple[Request, Done]] = []
        threading.Thread(target=self._work, name="gathering", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many requests wait to be begun."""
        return self._jobs.qsize()

    def takes(self, asking: Request) -> bool:
        """Whether a request is one to `add`."""
        return self._together.takes(asking)

    def add(self, asking: Request, done: Done) -> None:
        """Has a request answered together with those that the event loop reads in the same turn."""
        if not self._coming:
            self._loop.call_soon(self._hand_over)
        self._coming.append((asking, done))

    def _hand_over(self) -> None:
        for job in self._coming:
            self._jobs.put(job)
        self._coming.clear()

    def _work(self) -> None:
        with suppress(RuntimeError):  # of the results, when the loop is closed
            while True:
                some = [self._jobs.get()]
                with suppress(queue.Empty):
                    while len(some) < MOST_TOGETHER:
                        some.append(self._jobs.get_nowait())
                self._answer(some)

    def _answer(self, some: Sequence[tuple[Request, Done]]) -> None:
        finishing = _outcome(lambda: self._together.begin([asking for asking, _ in some]))
        if isinstance(finishing, BaseException):
            self._results.add([(done, finishing) for _, done in some])
        elif self._together.at_once:
            self._results.add([(done, _outcome(finish)) for (_, done), finish in zip(some, finishing, strict=True)])
        else:
            for (_, done), finish in zip(some, finishing, strict=True):
                self._threads.run(finish, done)


def _outcome(call: Call) -> Any:
    try:
        return call()
    except BaseException as caught:  # a SystemExit, too, goes to who asked, or it would cost a thread
        return caught


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


def _last(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """The last value of a list that may stand in several headers, the one that the nearest proxy added."""
    values = [value for each, value in headers if each.lower() == name]
    return values[-1].rpartition(b",")[2].strip().decode("latin-1") if values else ""


def address(peer: str) -> str:
    """The IP address of a peer, an IPv4 one in IPv6 unwrapped."""
    found = ip_address(peer)
    return str(getattr(found, "ipv4_mapped", None) or found)
