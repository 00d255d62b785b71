"""Witnesses that lie, hang or shout change nothing; honest ones serve many at once. Real HTTP, in one process."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.test import TestResponse

from ca.checkpoint import Checkpoint, VerifierKey
from ca.cosignature import WitnessKey, cosign, cosignatures
from ca.errors import JitSshError, LogDamaged, Misconfigured, NotWitnessed
from ca.witness import STATUS, Conflict, Submission
from server import witness_client, witness_store
from server.config import LogSettings, WitnessSettings
from server.cosigned import Cosigned
from server.witness_store import Witness
from server.witnesses import Witnesses
from tests.world import World

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Quiet(ThreadingHTTPServer):
    """Says nothing of a client that has left."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The URL of a web server that answers each submission like this."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def say(to: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    to.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    to.wfile.write(body)


class Honest:
    """A witness's own code behind a plain web server; it counts what it is asked."""

    def __init__(self, directory: Path, world: World) -> None:
        witness_store.create(directory, f"{directory.name}.example.org")
        self.witness = Witness(directory, time.time)
        self.witness.add(world.ca.log.key)
        self.asked = 0

    def answer(self, to: BaseHTTPRequestHandler, body: bytes) -> None:
        self.asked += 1
        try:
            say(to, 200, self.witness.add_checkpoint(body).encode())
        except Conflict as error:
            say(to, 409, f"{error.size}\n".encode())
        except JitSshError as error:
            say(to, STATUS[type(error)], error.message.encode())


@contextmanager
def watched(world: World, required: int, *those: tuple[str, WitnessKey]) -> Iterator[Witnesses]:
    """The world's log with these witnesses, who are asked from now on."""
    settings = LogSettings(
        witnesses=tuple(WitnessSettings(url=url, key=str(key)) for url, key in those), require_witnesses=required
    )
    memory = Cosigned(world.directory / f"witnessed{time.monotonic_ns()}", world.ca.log.key)
    made = Witnesses(world.store, world.ca.log.key, settings, memory)
    try:
        made.start()
        world.ca.log.witnesses = made
        yield made
    finally:
        world.ca.log.witnesses = None
        made.close()


def key_of(seed: int) -> tuple[WitnessKey, Ed25519PrivateKey]:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return WitnessKey(f"liar{seed}.example.org", private.public_key().public_bytes_raw()), private


# ------------------------------------------------------------------------ lies


def changed_signature(to: BaseHTTPRequestHandler, body: bytes) -> None:
    key, private = key_of(1)
    text = Submission.parse(body).checkpoint.body()
    say(to, 200, cosign(text, key, int(time.time()), private.sign).line.replace("A", "B").encode())


def another_key(to: BaseHTTPRequestHandler, body: bytes) -> None:
    key, private = key_of(99)
    say(to, 200, cosign(Submission.parse(body).checkpoint.body(), key, int(time.time()), private.sign).line.encode())


def hangs(_to: BaseHTTPRequestHandler, _body: bytes) -> None:
    time.sleep(2)


def drips(to: BaseHTTPRequestHandler, _body: bytes) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(20):
        to.wfile.write(b"x")
        to.wfile.flush()
        time.sleep(0.1)


def shouts(to: BaseHTTPRequestHandler, _body: bytes) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(50):
        to.wfile.write(bytes(10_000))


def changes_its_mind(to: BaseHTTPRequestHandler, body: bytes) -> None:
    say(to, 409, f"{(Submission.parse(body).old + 1) % 2}\n".encode())


def speaks_no_http(to: BaseHTTPRequestHandler, _body: bytes) -> None:
    to.wfile.write(b"\x00\xff hello\r\n\r\n")
    to.close_connection = True


def leaves(to: BaseHTTPRequestHandler, _body: bytes) -> None:
    to.close_connection = True


def breaks_off(to: BaseHTTPRequestHandler, _body: bytes) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    to.close_connection = True


LIES: tuple[Answer, ...] = (
    changed_signature, another_key, hangs, drips, shouts, changes_its_mind, speaks_no_http, leaves, breaks_off,
    lambda to, _body: say(to, 500, b"broken"),
    lambda to, _body: say(to, 200, b"<html>\x1b[2J</html>"),
)  # fmt: skip


def test_witnesses_that_lie_change_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(witness_client, "SECONDS", 0.5)
    honest = Honest(tmp_path / "honest", world)
    with ExitStack() as running:
        those = [(running.enter_context(answering(honest.answer)), honest.witness.key)]
        redirect: Answer = lambda to, _body: say(to, 307, b"", Location=f"{those[0][0]}/add-checkpoint")  # noqa: E731 - a value
        for seed, answer in enumerate((*LIES, redirect), start=1):
            those.append((running.enter_context(answering(answer)), key_of(seed)[0]))
        witnesses = running.enter_context(watched(world, 1, *those))
        for _ in range(3):
            assert world.ask("ana", role="dev").status_code == 201
        note = witnesses.cosigned(world.store.size()) or ""
        assert [each.witness for each in cosignatures(note, [key for _, key in those])] == [honest.witness.key]
        assert honest.asked <= 1 + 3, "nobody else sent a submission on"
    complaints = dict(record.args for record in caplog.records if isinstance(record.args, tuple) and len(record.args) == 2)
    assert set(complaints) == {key.name for _, key in those[1:]}, "each was asked, and what it did is in the server's log"


def test_each_who_did_not_cosign_is_named_with_the_reason(world: World, tmp_path: Path) -> None:
    honest = Honest(tmp_path / "honest", world)
    with ExitStack() as running:
        url, lying = running.enter_context(answering(honest.answer)), running.enter_context(answering(another_key))
        witnesses = running.enter_context(watched(world, 2, (url, honest.witness.key), (lying, key_of(7)[0])))
        size, issued = world.store.size(), world.signer.calls
        answer = world.ask("ana", role="dev")
        assert (answer.status_code, answer.json and answer.json["code"]) == (503, "not-witnessed")
        assert "liar7.example.org answered without its cosignature: the answer has no cosignature by" in answer.text
        assert "honest.example.org" not in answer.text
        assert (world.store.size(), world.signer.calls) == (size + 2, issued), "it is in the log; nothing was signed"
        with pytest.raises(NotWitnessed):
            witnesses.cosigned(1)
    world.check()


@pytest.mark.parametrize("more", [1, 10**9])
def test_a_witness_that_says_it_has_seen_more_stops_the_ca_and_nothing_else_does(world: World, more: int) -> None:
    claim: list[int] = []

    def answer(to: BaseHTTPRequestHandler, body: bytes) -> None:
        sent = Submission.parse(body)
        key, private = key_of(1)
        if claim and sent.checkpoint.size >= claim[0]:
            say(to, 409, f"{sent.checkpoint.size + more}\n".encode())
        else:
            say(to, 200, cosign(sent.checkpoint.body(), key, int(time.time()), private.sign).line.encode())

    with answering(answer) as url, watched(world, 1, (url, key_of(1)[0])):
        assert not world.ca.at_once, "a certificate waits for it"
        assert world.ask("ana", role="dev").status_code == 201
        claim.append(world.store.size())
        refused = world.ask("ana", role="dev")
        have = world.store.size()
        assert (refused.status_code, refused.json and refused.json["code"]) == (503, "log-damaged")
        assert f"liar1.example.org has cosigned {have + more} entries of this log, which has {have}" in refused.text
        claim[0] = 10**12
        assert world.ask("ana", role="dev").status_code == 503, "also when it says nothing of the kind any more"
        assert world.store.size() == have, "nothing is appended to what may be an old copy"


# ------------------------------------------------------------------ many at once


def posted(world: World, body: dict[str, str]) -> TestResponse:
    """The answer to a request by a client of its own."""
    return world.http.application.test_client().post("/v1/requests", data=json.dumps(body))


def test_many_who_ask_at_once_share_a_round(world: World, tmp_path: Path) -> None:
    pairs = [Honest(tmp_path / name, world) for name in ("one", "two", "three")]
    bodies = [world.body("ana", role="dev") for _ in range(24)]
    with ExitStack() as running:
        those = [(running.enter_context(answering(each.answer)), each.witness.key) for each in pairs]
        running.enter_context(watched(world, 2, *those))
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda body: posted(world, body), bodies))
    assert {answer.status_code for answer in answers} == {201}
    assert max(each.asked for each in pairs) < len(bodies), "not one submission for each"
    world.check()


def test_a_cosignature_that_comes_late_is_shown_all_the_same(world: World, tmp_path: Path) -> None:
    pairs = [Honest(tmp_path / name, world) for name in ("quick", "slow")]
    go_on = threading.Event()

    def slow(to: BaseHTTPRequestHandler, body: bytes) -> None:
        if pairs[1].asked:  # not at the start, which waits for everybody
            go_on.wait(20)
        pairs[1].answer(to, body)

    with ExitStack() as running:
        urls = [running.enter_context(answering(answer)) for answer in (pairs[0].answer, slow)]
        keys = [each.witness.key for each in pairs]
        witnesses = running.enter_context(watched(world, 1, *zip(urls, keys, strict=True)))
        assert world.ask("ana", role="dev").status_code == 201
        assert [each.witness for each in cosignatures(witnesses.published() or "", keys)] == keys[:1]
        go_on.set()
        deadline = time.monotonic() + 20
        while len(cosignatures(witnesses.published() or "", keys)) < 2:
            assert time.monotonic() < deadline


def test_two_servers_on_one_log_are_no_second_history(world: World, tmp_path: Path) -> None:
    """Each submits what it sees; the witness may know a newer checkpoint than one of them just read."""
    honest, beside = Honest(tmp_path / "honest", world), world.open_beside()
    with ExitStack() as running:
        those = running.enter_context(answering(honest.answer)), honest.witness.key
        for each in (world, beside):
            running.enter_context(watched(each, 1, those))
        threads = running.enter_context(ThreadPoolExecutor(2))
        for _ in range(25):
            bodies = [world.body("ana", role="dev") for _ in range(2)]
            answers = list(threads.map(posted, (world, beside), bodies))
            assert [answer.status_code for answer in answers] == [201, 201], [answer.text for answer in answers]
    world.check()


def test_an_alarm_that_is_remembered_ends_when_the_witness_cosigns_at_a_start(world: World, tmp_path: Path) -> None:
    honest = Honest(tmp_path / "honest", world)
    memory = Cosigned(tmp_path / "witnessed", world.ca.log.key)
    memory.alarm(1, honest.witness.key, "the witness has seen another history")
    settings = LogSettings(witnesses=(WitnessSettings(url="http://127.0.0.1:9", key=str(honest.witness.key)),))
    silent = Witnesses(world.store, world.ca.log.key, settings, memory)
    with pytest.raises(LogDamaged, match="has seen another history"):
        silent.start()
    with answering(honest.answer) as url:
        settings = LogSettings(witnesses=(WitnessSettings(url=url, key=str(honest.witness.key)),))
        again = Witnesses(world.store, world.ca.log.key, settings, memory)
        again.start()
        again.close()
    assert memory.alarmed(honest.witness.key) is None
    assert memory.largest(honest.witness.key) == world.store.size()
    another_log = Cosigned(tmp_path / "witnessed", key_as("another.example.com", world))
    assert another_log.largest(honest.witness.key) == 0, "what was cosigned of a log that was begun anew is not of this one"


def key_as(origin: str, world: World) -> VerifierKey:
    return VerifierKey(origin, world.ca.log.key.public_key)


def test_a_log_that_is_its_own_witness_is_refused(world: World) -> None:
    itself = WitnessKey("w1.example.org", world.ca.log.key.public_key)
    with pytest.raises(Misconfigured, match="the log's own key"), watched(world, 1, ("http://127.0.0.1:9", itself)):
        pass


def test_under_load_the_newest_cosignature_of_a_second_is_remembered(world: World, tmp_path: Path) -> None:
    key, private = key_of(1)
    memory = Cosigned(tmp_path / "witnessed", world.ca.log.key)
    for size in range(1, 1001):
        memory.keep(size, cosign(Checkpoint("log", size, bytes(32)).body(), key, 5, private.sign))
    memory.flush()
    assert memory.largest(key) == 1000
    with closing(sqlite3.connect(tmp_path / "witnessed")) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone()[0] < 20
        for change in ("UPDATE answers SET size = 1", "DELETE FROM answers"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(change)
