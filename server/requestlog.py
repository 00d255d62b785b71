"""The server's own log: one JSON object a line on stderr. No bodies, no headers, no queries: they hold what people said.

It is for running the service; what was asked, granted and refused is in the log that proves itself.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from flask import Flask, Response, g, request

_log = logging.getLogger("jit-ssh.requests")


class JsonLines(logging.Formatter):
    """A log record as one line of ASCII JSON, so that nothing in it can forge another line or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        members = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "members", {}),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members)


def configure() -> None:
    """Sends every log record of this process to stderr as JSON lines."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(JsonLines())
    logging.basicConfig(handlers=[to_stderr], level=logging.INFO, force=True)
    # What no line shows is not found out for each (the Logging HOWTO, "Optimization"): it cost more than writing it.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


@dataclass
class Exchange:
    """A request that is being answered, as far as the server's log tells of it."""

    method: str
    path: str
    address: str | None
    person: str | None = None
    code: str | None = None  # of the problem, if it is one
    detail: str | None = None
    id: str = field(default_factory=lambda: str(uuid4()))
    began: float = field(default_factory=time.monotonic)

    def record(self, status: int) -> None:
        """Writes its line, with the status of the answer."""
        members = {
            "request_id": self.id,
            "method": self.method,
            "path": self.path[:200],
            "status": status,
            "code": self.code,
            "detail": self.detail,
            "person": self.person,
            "address": self.address,
            "ms": round((time.monotonic() - self.began) * 1000, 1),
        }
        _log.info("request", extra={"members": {name: value for name, value in members.items() if value is not None}})


def follow(app: Flask, headers: Callable[[], Mapping[str, str]]) -> None:
    """Gives each request of the application its `g.exchange`, its answer these headers where it has none, and both a line."""

    def begin() -> None:
        g.exchange = Exchange(request.method, request.path, request.remote_addr)

    def finish(response: Response) -> Response:
        for name, value in headers().items():
            response.headers.setdefault(name, value)
        g.exchange.record(response.status_code)
        return response

    app.before_request(begin)
    app.after_request(finish)
