"""The Flask application: wiring only."""

import time
import uuid
from collections.abc import Callable

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from ca.issue import CertificateAuthority
from ca.store.sqlite import SqliteStore
from server import api, problems, requestlog
from server.gateway import MAX_BODY
from server.pace import Pace

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    ca: CertificateAuthority,
    store: SqliteStore,
    *,
    behind_proxy: bool = False,
    waiting: int = 8,
    per_minute: int | None = None,
    reserve: int = 0,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """The application over an opened CA; so many of its threads may wait for requests to change.

    `per_minute` statements of one person are taken, None for all; with `reserve` MiB free on the disk it calls itself ready.

    `behind_proxy` believes the last X-Forwarded-For and -Proto: whoever can reach the application past that proxy could
    then choose the address it sees.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    if behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]  # Flask's documented way
    app.before_request(_begin)
    app.register_blueprint(api.Door(ca, store, clock, waiting, Pace(per_minute), reserve).routes())
    problems.register(app)
    app.after_request(_finish)
    return app


def _begin() -> None:
    g.request_id = str(uuid.uuid4())
    g.began = time.monotonic()


def _finish(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = g.request_id
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    requestlog.record(response.status_code)
    return response
