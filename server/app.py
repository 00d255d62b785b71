"""The Flask application: wiring only."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from flask import Flask, g, request

from ca.issue import CertificateAuthority
from ca.store.sqlite import SqliteStore
from server import api, problems, requestlog
from server.gateway import MAX_BODY, Answer, Request
from server.issuing import CERTIFICATES, REQUESTS, Issuing, Post
from server.pace import Pace
from server.requestlog import Exchange
from server.threads import LastStep

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TARGETS: Final = {path.encode(): path for path in (REQUESTS, CERTIFICATES)}


class Application(Flask):
    """All routes as a WSGI application; and what asks for certificates also many at a time, without Flask's own share of it."""

    issuing: Issuing

    def takes(self, asking: Request) -> bool:
        """Whether it is one to `begin` with others."""
        return asking.method == "POST" and asking.target.partition(b"?")[0] in _TARGETS

    def begin(self, many: Sequence[Request]) -> list[LastStep]:
        """Takes all steps but the last for all of them; the last one of each."""
        posts = [_post(asking) for asking in many]
        steps = zip(many, posts, self.issuing.begin(posts), strict=True)
        return [replace(step, answer=partial(_finished, asking, post, step.answer)) for asking, post, step in steps]


def create_app(
    ca: CertificateAuthority,
    store: SqliteStore,
    *,
    waiting: int = 8,
    per_minute: int | None = None,
    reserve: int = 0,
    clock: Callable[[], float] = time.time,
) -> Application:
    """The application over an opened CA; so many of its threads may wait for requests to change.

    `per_minute` statements of one person are taken, None for all; with `reserve` MiB free on the disk it calls itself ready.
    """
    app = Application(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    door = api.Door(ca, store, clock, waiting, Pace(per_minute), reserve)
    app.issuing = door.issuing
    app.register_blueprint(door.routes())
    problems.register(app)
    requestlog.follow(app, lambda: _headers(g.exchange, secure=request.is_secure))
    return app


def _post(asking: Request) -> Post:
    target, _, query = asking.target.partition(b"?")
    return Post(Exchange(asking.method, _TARGETS[target], asking.client), query.decode("latin-1"), bytes(asking.body))


def _finished(asking: Request, post: Post, finish: Callable[[], Answer]) -> Answer:
    answer = finish()
    answer.headers.extend(_headers(post.exchange, secure=asking.scheme == "https").items())
    post.exchange.record(int(answer.status[:3]))
    return answer


def _headers(exchange: Exchange, *, secure: bool) -> Mapping[str, str]:
    """Of every answer."""
    transport = {"Strict-Transport-Security": "max-age=31536000"} if secure else {}
    return {**_HEADERS, "X-Request-Id": exchange.id, **transport}
