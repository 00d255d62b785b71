"""Between a connection and the WSGI application: a request that arrived whole, and its answer.

The rule here: no header of a request is guessed.
"""

import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
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
