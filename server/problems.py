"""Problems: every error as an RFC 9457 document, its status from one table.

An error that nobody foresaw shows nothing but the request's id.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g, json
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ca import canonical, errors
from ca.entry import RefuseEntry
from ca.errors import JitSshError

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


def problem(status: HTTPStatus, code: str, detail: str, hint: str = "", **more: Any) -> Response:
    """An `application/problem+json` answer; `more` are members beside RFC 9457's own."""
    g.code, g.detail = code, detail
    members = {
        "type": f"urn:jit-ssh:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "hint": hint,
        "code": code,
        "instance": f"urn:uuid:{g.request_id}",
    }
    answer = Response(json.dumps(members | more), status, mimetype="application/problem+json")
    if status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "JIT-SSH"
    return answer


_REFUSED: Final = {"not-pending": HTTPStatus.CONFLICT, "not-granted": HTTPStatus.CONFLICT}  # all others: forbidden


def refusal(entry: RefuseEntry, steps: Sequence[Mapping[str, Any]] = ()) -> Response:
    """A refused request with the decision's own reasons, who could approve it, and the entry that records it."""
    hint = "jit-ssh roles shows what you can have"
    reasons = {"findings": canonical.plain(entry.findings), "ways": canonical.plain(entry.ways)}
    status = _REFUSED.get(entry.code, HTTPStatus.FORBIDDEN)
    return problem(status, entry.code, entry.message, hint, role=entry.role, entry=entry.index, steps=steps, **reasons)


def register(app: Flask) -> None:
    """Turns every error of a view into a problem."""
    app.register_error_handler(JitSshError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unknown)


def _ours(error: JitSshError) -> Response:
    answer = problem(STATUS[type(error)], error.code, error.message, error.hint)
    if isinstance(error, errors.TooMany):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or 500)
    code = HTTP_CODES.get(status, errors.Malformed.code if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal")
    answer = problem(status, code, status.description or status.phrase)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return answer


def _unknown(error: Exception) -> Response:
    _log.error("internal error", exc_info=error, extra={"members": {"request_id": g.request_id}})
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The CA failed inside; its log has the request's id")
