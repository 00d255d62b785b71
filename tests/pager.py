"""A PagerDuty in this process, that answers `GET /oncalls` as its API reference says, and a web server that misbehaves."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "y_NbAkKc66ryYTWUXYEu"  # the one of PagerDuty's own examples

Answer = Callable[[BaseHTTPRequestHandler], object]


def on_call(
    user: str,
    level: int,
    start: float | None = None,
    end: float | None = None,
    schedule: str = "PI7DH85",
    policy: str = "PT20YPA",
) -> dict[str, Any]:
    """One entry of its answer."""
    stamps = [None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (start, end)]
    return {
        "user": {"id": f"P{user.upper()}", "type": "user", "summary": user.title(), "email": f"{user}@example.com"},
        "schedule": {"id": schedule, "type": "schedule_reference", "summary": "Web"},
        "escalation_policy": {"id": policy, "type": "escalation_policy_reference", "summary": "Web"},
        "escalation_level": level, "start": stamps[0], "end": stamps[1],
    }  # fmt: skip


@dataclass
class Server:
    """What it was asked, and what it answers."""

    url: str
    released: threading.Event  # set at the end: what holds an answer back waits for this
    answer: Answer | None = None
    oncalls: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def reply(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        self.arrived.release()
        (self.answer or self._pagerduty)(request)

    def _pagerduty(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        if request.headers["Authorization"] != f"Token token={TOKEN}":
            return say(request, 401, {"error": {"message": "Authentication failed", "code": 2006}})
        if parts.path != "/oncalls" or "version=2" not in request.headers["Accept"]:
            return say(request, 404, {"error": {"message": "Not Found", "code": 2100}})
        schedules, policies = query.get("schedule_ids[]"), query.get("escalation_policy_ids[]")
        since, until = (query.get(name, [datetime.now(UTC).isoformat()])[0] for name in ("since", "until"))
        whole = "users" in query.get("include[]", [])
        found = [
            entry if whole else entry | {"user": {"id": entry["user"]["id"], "type": "user_reference"}}
            for entry in self.oncalls
            if (schedules is None or entry["schedule"]["id"] in schedules)
            and (policies is None or entry["escalation_policy"]["id"] in policies)
            and _overlaps(entry, since, until)
        ]
        limit, offset = min(int(query.get("limit", ["25"])[0]), 100), int(query.get("offset", ["0"])[0])
        page = {"oncalls": found[offset : offset + limit], "limit": limit, "offset": offset, "more": offset + limit < len(found)}
        return say(request, 200, page | {"total": None})


def _overlaps(entry: dict[str, Any], since: str, until: str) -> bool:
    start, end = (entry[name] and datetime.fromisoformat(entry[name]) for name in ("start", "end"))
    return (start is None or start <= datetime.fromisoformat(until)) and (end is None or end > datetime.fromisoformat(since))


def say(request: BaseHTTPRequestHandler, status: int, body: object, **headers: str) -> None:
    """A whole answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)


@contextmanager
def serving(tls: Sequence[str] = ()) -> Iterator[Server]:
    """A server until the end of the block; `tls` has the files of its certificate and key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # http.server's name for it
            self.close_connection = True
            with suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
                pager.reply(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name for it
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = False  # so that the end waits for them
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    pager = Server(f"http{'s' * bool(tls)}://127.0.0.1:{http.server_port}", threading.Event())
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield pager
    finally:
        pager.released.set()
        http.shutdown()
        http.server_close()
        thread.join()
