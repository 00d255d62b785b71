"""A server process for test_serving: a small application behind `server.serving`, told what to do by its arguments.

It prints one line for each thing that happens (`ready URL`, `held`, `hangup`), and a line on its standard input lets
every held request go on.
"""

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flask import Flask, Response, jsonify, request

from ca.errors import Misconfigured
from server import serving
from server.gateway import Answer, Request
from server.listening import Listen
from server.threads import LastStep

app = Flask(__name__)
released = threading.Event()


def say(line: str) -> None:
    print(line, flush=True)


@app.post("/length")
def length() -> str:
    return str(len(request.get_data()))


@app.route("/environ", methods=["GET", "POST"])
def environ() -> Response:
    request.get_data()
    return jsonify({name: value for name, value in request.environ.items() if isinstance(value, str)})


@app.get("/hold")
def hold() -> str:
    say("held")
    released.wait()
    return "finished"


@app.get("/large")
def large() -> bytes:
    return bytes(32 << 20)


@app.get("/fail")
def fail() -> str:
    raise KeyboardInterrupt  # what Flask does not turn into an answer


@dataclass(frozen=True)
class Lengths:
    """Says how long the bodies of `POST /together` are, and how many it was given at a time."""

    at_once: bool

    def takes(self, asking: Request) -> bool:
        return asking.target == b"/together"

    def begin(self, many: Sequence[Request]) -> list[LastStep]:
        say(f"begun {len(many)}")
        if any(asking.body == b"hold" for asking in many):
            released.wait()
        if any(asking.body == b"fail" for asking in many):
            raise KeyboardInterrupt
        return [LastStep(partial(self.finish, bytes(asking.body)), self.at_once) for asking in many]

    def finish(self, body: bytes) -> Answer:
        if body == b"late":
            released.wait()
        if body == b"bad":
            raise KeyboardInterrupt
        return Answer("200 OK", [("Content-Length", "1"), ("X-Odd", "\u2028" if body == b"odd" else "")], b"%d" % len(body))


def main() -> None:
    options = json.loads(sys.argv[1])
    serving.CLIENT_SECONDS = options.get("client_seconds", serving.CLIENT_SECONDS)
    serving.STOP_SECONDS = options.get("stop_seconds", serving.STOP_SECONDS)
    serving.MOST_WAITING = options.get("most_waiting", serving.MOST_WAITING)
    serving.MAX_CONNECTIONS = options.get("max_connections", serving.MAX_CONNECTIONS)

    def on_hangup() -> None:
        say("hangup")
        if options.get("bad_policy"):
            raise Misconfigured("the policy is bad")

    def release() -> None:
        for _ in sys.stdin:
            released.set()

    threading.Thread(target=release, daemon=True).start()
    tls = options.get("tls")
    serving.serve(
        app,
        Listen.parse(options.get("listen", "127.0.0.1:0")),
        tls=(Path(tls[0]), Path(tls[1])) if tls else None,
        threads=options.get("threads", 2),
        together=Lengths(options.get("at_once", True)),
        behind_proxy=options.get("behind_proxy", False),
        on_hangup=on_hangup,
        on_ready=lambda url: say(f"ready {url}"),
        on_stop=lambda: say("stopping"),
    )
    say("stopped")


if __name__ == "__main__":
    main()
