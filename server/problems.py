"""Problems: every error as an RFC 9457 document, its status from one table.

An error that nobody foresaw shows nothing but the request's id.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ca import canonical, errors
from ca.entry import RefuseEntry
from ca.errors import JitSshError
from server.requestlog import Exchange

TYPE: Final = "application/problem+json"
_log = logging.getLogger("jit-ssh")

STATUS: Final[dict[type[JitSshError], HTTPStatus]] = {
    errors.Malformed: HTTPStatus.BAD_REQUEST,
    errors.Unsigned: HTTPStatus.UNAUTHORIZED,
    errors.BadSignature: HTTPStatus.UNAUTHORIZED,
    errors.UnknownSigner: HTTPStatus.UNAUTHORIZED,
    errors.RevokedKey: HTTPStatus.UNAUTHORIZED,
    errors.NotTouched: HTTPStatus.UNAUTHORIZED,
    errors.WrongAudience: HTTPStatus.UNAUTHORIZED,
    errors.Stale: HTTPStatus.UNAUTHORIZED,
    errors.Replayed: HTTPStatus.CONFLICT,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ClockJumped: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ClockWentBack: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LogUnwritable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LogDamaged: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotWitnessed: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SignerFailed: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Misconfigured: HTTPStatus.SERVICE_UNAVAILABLE,
}
# What werkzeug refuses before a view is reached; by name, because the standard library renames its phrases.
HTTP_CODES: Final = {
    HTTPStatus.NOT_FOUND: errors.NotFound.code,
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
}


@dataclass(frozen=True)
class Problem:
    """What went wrong: an RFC 9457 document but for its instance. `more` are members beside the RFC's own."""

    status: HTTPStatus
    code: str
    detail: str
    hint: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self, exchange: Exchange) -> str:
        """The JSON that answers this request; the server's log is told as well."""
        exchange.code, exchange.detail = self.code, self.detail
        members = {
            "type": f"urn:jit-ssh:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "hint": self.hint,
            "code": self.code,
            "instance": f"urn:uuid:{exchange.id}",
        }
        return json.dumps({**members, **self.more})


_REFUSED: Final = {"not-pending": HTTPStatus.CONFLICT, "not-granted": HTTPStatus.CONFLICT}  # all others: forbidden


def refused(entry: RefuseEntry, steps: Sequence[Mapping[str, Any]] = ()) -> Problem:
    """A refused request with the decision's own reasons, who could approve it, and the entry that records it."""
    hint = "jit-ssh roles shows what you can have"
    reasons = {"findings": canonical.plain(entry.findings), "ways": canonical.plain(entry.ways)}
    status = _REFUSED.get(entry.code, HTTPStatus.FORBIDDEN)
    return Problem(status, entry.code, entry.message, hint, {"role": entry.role, "entry": entry.index, "steps": steps, **reasons})


def raised(error: Exception, exchange: Exchange) -> Problem:
    """What is said of an error. One that nobody foresaw is shown to the server's log alone."""
    match error:
        case JitSshError():
            return Problem(STATUS[type(error)], error.code, error.message, error.hint, headers=_headers(error))
        case HTTPException():
            return _http(error)
        case _:
            _log.error("internal error", exc_info=error, extra={"members": {"request_id": exchange.id}})
            said = "The CA failed inside; its log has the request's id"
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", said)


def _headers(error: JitSshError) -> Mapping[str, str]:
    if STATUS[type(error)] is HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "JIT-SSH"}
    return {"Retry-After": str(error.retry_after)} if isinstance(error, errors.TooMany) else {}


def _http(error: HTTPException) -> Problem:
    status = HTTPStatus(error.code or 500)
    code = HTTP_CODES.get(status, errors.Malformed.code if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal")
    allowed = error.valid_methods if isinstance(error, MethodNotAllowed) else None
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    return Problem(status, code, status.description or status.phrase, headers=headers)


def respond(problem: Problem) -> Response:
    """A problem as a view answers it."""
    return Response(problem.document(g.exchange), problem.status, problem.headers, mimetype=TYPE)


def refusal(entry: RefuseEntry) -> Response:
    """A refused act as a view answers it."""
    return respond(refused(entry))


def register(app: Flask) -> None:
    """Turns every error of a view into a problem."""
    app.register_error_handler(Exception, lambda error: respond(raised(error, g.exchange)))
