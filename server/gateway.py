"""From uvicorn's ASGI to the WSGI application: a request is read whole on the event loop, then answered in a thread.

The rule here: nothing of a request that has not arrived completely reaches the application, and no header of it is guessed.
"""

import asyncio
import io
import json
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

MAX_BODY = 65_536  # bytes
READ_ANYWAY = 2 * MAX_BODY  # bytes of a body too large that are read, because closing on unread ones can destroy the answer

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
_Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """A fixed number of threads, which unlike an executor's are not waited for when the program ends.

    One that is cut off then is like a crash there: at worst it leaves an entry without a certificate.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call in the next free thread; belongs to the running event loop."""
        future = asyncio.get_running_loop().create_future()
        self._jobs.put((future, call, args))
        return future

    def _work(self) -> None:
        while True:
            future, call, args = self._jobs.get()
            result, error = None, None
            try:
                result = call(*args)
            except BaseException as caught:  # a SystemExit, too, goes to who asked, or it would cost a thread
                error = caught
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop is closed: the server stopped without this answer
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():  # by a stop that waited long enough
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Gateway:
    """An ASGI application that answers with a WSGI one, `threads` requests at a time; the rest wait in order."""

    def __init__(self, app: WSGIApplication, threads: int) -> None:
        self._app = app
        self._threads = Threads(threads, "request")

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        body = await _read_body(scope, receive)
        if body is None:
            return
        if len(body) > MAX_BODY:
            status, headers, content = _too_large()
        else:
            status, headers, content = await self._threads.run(_call, self._app, _environ(scope, body))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _read_body(scope: _Message, receive: _Receive) -> bytes | None:
    """The body, None if the client left; one that is too large is returned as more than MAX_BODY bytes of it."""
    if int(dict(scope["headers"]).get(b"content-length", 0)) > READ_ANYWAY:  # llhttp let only digits through
        return bytes(MAX_BODY + 1)
    body = bytearray()
    more = True
    while more and len(body) <= READ_ANYWAY:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
    return bytes(body)


def _too_large() -> _Answer:
    problem = {
        "type": "urn:jit-ssh:problem:too-large",
        "title": "Content Too Large",
        "status": 413,
        "detail": f"The body of a request has at most {MAX_BODY} bytes.",
        "hint": "",
        "code": "too-large",
    }
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    return 413, headers, json.dumps(problem).encode()


def _environ(scope: _Message, body: bytes) -> dict[str, Any]:
    """The request as PEP 3333 has it.

    A header name with an underscore is dropped: WSGI could not tell `X_Forwarded_For` from `X-Forwarded-For`.
    A header sent twice arrives joined by a comma, so that no one of the two is believed.
    """
    host, port = scope["server"] or (None, None)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host if port else "localhost",  # of a Unix socket, host is its path
        "SERVER_PORT": str(port or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if scope["client"]:  # who connects to a Unix socket has no address
        peer = ip_address(scope["client"][0])
        environ["REMOTE_ADDR"] = str(getattr(peer, "ipv4_mapped", None) or peer)
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name or raw_name in {b"content-length", b"transfer-encoding"}:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        key = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def _call(app: WSGIApplication, environ: dict[str, Any]) -> _Answer:
    status, headers, chunks = "", list[tuple[str, str]](), list[bytes]()

    def start_response(line: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = line, fields
        return chunks.append

    answer = app(environ, start_response)
    try:
        chunks.extend(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return int(status[:3]), encoded, b"".join(chunks)
