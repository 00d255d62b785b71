"""A witness's HTTP door (C2SP tlog-witness): one address, to which logs post their checkpoints. It decides nothing itself."""

import logging
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, g, request

from ca.errors import JitSshError
from ca.witness import SIZE_TYPE, STATUS, Conflict
from server import problems, requestlog
from server.gateway import MAX_BODY
from server.witness_store import Witness

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_log = logging.getLogger("jit-ssh.witness")


def create_app(witness: Witness) -> Flask:
    """The application over an opened witness."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    problems.register(app)  # for what is not of the protocol: another path, another method
    requestlog.follow(app, lambda: _HEADERS)

    @app.post("/add-checkpoint")
    def add_checkpoint() -> Response:
        try:
            return Response(witness.add_checkpoint(request.get_data()), mimetype="text/plain")
        except JitSshError as error:
            return _refused(error)

    @app.get("/healthz")
    def healthy() -> Response:
        return Response("ok\n", mimetype="text/plain")

    return app


def _refused(error: JitSshError) -> Response:
    g.exchange.code, g.exchange.detail = error.code, error.message
    status = STATUS.get(type(error), HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, Conflict):
        return Response(f"{error.size}\n", status, content_type=SIZE_TYPE)
    if status in {HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE}:
        _log.error("not cosigned: %s", error.message)
    return Response(f"{error.message}\n", status, mimetype="text/plain")
