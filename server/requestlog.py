"""The server's own log: one JSON object a line on stderr. No bodies, no headers, no queries: they hold what people said.

It is for running the service; what was asked, granted and refused is in the log that proves itself.
"""

import json
import logging
import sys
import time
from datetime import UTC, datetime

from flask import g, request

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


def record(status: int) -> None:
    """Writes the line of the request that was just answered."""
    members = {
        "request_id": g.request_id,
        "method": request.method,
        "path": request.path[:200],
        "status": status,
        "code": g.get("code"),
        "detail": g.get("detail"),
        "person": g.get("person"),
        "address": request.remote_addr,
        "ms": round((time.monotonic() - g.began) * 1000, 1),
    }
    _log.info("request", extra={"members": {name: value for name, value in members.items() if value is not None}})
