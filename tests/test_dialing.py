"""A witness's name, addresses and TLS take no more time than the witness may. The resolver is the one thing played here."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ca.errors import NotWitnessed
from server import witness_client
from server.dialing import Dialer
from tests.test_lying_witnesses import Honest, answering, key_of, watched
from tests.world import World

SECONDS = 0.5
SOON = 3.0  # seconds: more than SECONDS by all that a busy machine needs, and far less than somebody waits for cosignatures


class Resolver:
    """The system's, which hangs for names below `.slow.example` until it is let go, and knows the others that a test gives it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.known: dict[str, list[tuple[str, int]]] = {}
        self._system = socket.getaddrinfo

    def __call__(self, host: str, port: int, *how: Any, **more: Any) -> list[Any]:
        if host.endswith(".slow.example"):
            self.go_on.wait(60)
        addresses = self.known.get(host, [(host, port)])
        return [found for address in addresses for found in self._system(*address, *how, **more)]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go_on.set()


@contextmanager
def listening(backlog: int = 5) -> Iterator[tuple[socket.socket, int]]:
    """A socket on a free port of loopback, and that port."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(backlog)
        yield made, made.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose connections nobody takes: they hang."""
    with listening(0) as (_, port), socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port


@contextmanager
def without_threads() -> Iterator[None]:
    """No new thread has room for its stack meanwhile: it would be larger than all memory that there is."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)


def dial(host: str, port: int, *, secure: bool = False, seconds: float = SECONDS) -> float:
    """Connects, and how many seconds that took; raises what `connect` raises within SOON."""
    began = time.monotonic()
    try:
        Dialer(host, port, secure=secure).connect(began + seconds).close()
    finally:
        took = time.monotonic() - began
        assert took < SOON
    return took


def test_a_name_that_does_not_resolve_is_waited_for_no_longer_than_one_may_and_by_one_thread(resolver: Resolver) -> None:
    with listening() as (_, port):
        resolver.known["w1.slow.example"] = [("127.0.0.1", port)]
        dialer = Dialer("w1.slow.example", port, secure=False)
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                dialer.connect(began + 0.1)
            assert time.monotonic() - began < SOON
        assert sum(thread.name == "resolve w1.slow.example" for thread in threading.enumerate()) == 1
        resolver.go_on.set()
        dialer.connect(time.monotonic() + SOON).close()
        dialer.connect(time.monotonic() + SOON).close()


def test_a_thread_that_could_not_be_had_is_asked_for_again_at_the_next_connection() -> None:
    with listening() as (_, port):
        dialer = Dialer("127.0.0.1", port, secure=False)
        with without_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            dialer.connect(time.monotonic() + SOON)
        dialer.connect(time.monotonic() + SOON).close()


@pytest.mark.parametrize("name", ["nobody.invalid", "\udcff.example", "x" * 300])
def test_a_name_that_is_nobodys_says_so(name: str) -> None:
    with pytest.raises(OSError, match="its name has no address"):
        dial(name, 1, seconds=SOON)


def test_of_several_addresses_the_first_that_answers_is_taken_in_time(resolver: Resolver) -> None:
    with black_hole() as hole, listening() as (_, port):
        resolver.known["w1.example.org"] = [("127.0.0.1", hole), ("127.0.0.1", hole), ("127.0.0.1", port)]
        assert dial("w1.example.org", 1, seconds=1.5) > 0.9, "the others had their part"
        resolver.known["w1.example.org"] = [("127.0.0.1", hole)] * 20
        with pytest.raises(TimeoutError):
            dial("w1.example.org", 1)


@pytest.mark.parametrize("drips", [b"", b"\x16\x03\x03\x40\x00" + bytes(200)], ids=["silent", "a byte now and then"])
def test_tls_that_is_never_agreed_on_ends_in_time(drips: bytes) -> None:
    def serve(door: socket.socket) -> None:
        with door.accept()[0] as client:
            for byte in drips:
                try:
                    client.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.05)
            client.settimeout(20)
            while client.recv(4096):
                pass

    with listening() as (door, port):
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        with pytest.raises(OSError, match="timed out"):
            dial("127.0.0.1", port, secure=True)
        thread.join(20)


def test_the_ca_and_the_other_witnesses_do_not_wait_for_one_whose_name_does_not_resolve(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolver: Resolver
) -> None:
    monkeypatch.setattr(witness_client, "SECONDS", SECONDS)
    honest, slow = Honest(tmp_path / "honest", world), ("https://w2.slow.example:1", key_of(2)[0])
    for required in (0, 1, 2):
        with answering(honest.answer) as url:
            began = time.monotonic()
            with watched(world, required, (url, honest.witness.key), slow) as witnesses:
                assert time.monotonic() - began < SOON, "the start"
                began, before = time.monotonic(), honest.asked
                answer = world.ask("ana", role="dev")
                assert answer.status_code == (503 if required == 2 else 201), answer.text
                while honest.asked == before:  # also when nobody waits for it
                    time.sleep(0.01)
                assert time.monotonic() - began < SOON, "and who asks"
                if required == 2:
                    with pytest.raises(NotWitnessed, match=r"liar2\.example\.org did not answer in time"):
                        witnesses.cosigned(world.store.size())
