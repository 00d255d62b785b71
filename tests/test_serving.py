"""`server.serving` and what it serves with, as a client meets them: real processes, real sockets."""

import contextlib
import datetime
import http.client
import ipaddress
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca.errors import Misconfigured
from server.connection import CLIENT_BYTES
from server.gateway import MAX_BODY
from server.listening import Listen, open_socket, tls_context
from server.threads import MOST_TOGETHER

POST = b"POST /length HTTP/1.1\r\nHost: ca\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    content: bytes


class Served:
    """A running server process and how to reach it."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.running = subprocess.Popen(
            [sys.executable, "-m", "tests.served", json.dumps(options)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.says("ready ").removeprefix("ready ")

    def says(self, expected: str) -> str:
        assert self.running.stdout
        line = self.running.stdout.readline().rstrip("\n")
        assert line.startswith(expected), line or self.running.communicate()
        return line

    def releases(self) -> None:
        assert self.running.stdin
        self.running.stdin.write("\n")
        self.running.stdin.flush()

    def connects(self) -> socket.socket:
        if self.url.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.url.removeprefix("unix:"))
        else:
            address = urlsplit(self.url)
            assert address.hostname
            assert address.port
            connection = socket.create_connection((address.hostname, address.port))
        connection.settimeout(20)
        return connection

    def sends(self, *parts: bytes) -> bytes:
        """All that the server answers to these bytes until it closes."""
        with self.connects() as connection:
            for part in parts:
                connection.sendall(part)
            return everything(connection)

    def answers(self, path: str = "/length", body: bytes | None = b"hello", headers: dict[str, str] | None = None) -> Answer:
        with self.connects() as connection:
            client = http.client.HTTPConnection("ca")
            client.sock = connection
            client.request("POST" if body is not None else "GET", path, body, headers or {})
            response = client.getresponse()
            return Answer(response.status, response.headers, response.read())

    def environ(self, headers: dict[str, str] | None = None) -> dict[str, str]:
        """What the application is given."""
        environ: dict[str, str] = json.loads(self.answers("/environ", headers=headers).content)
        return environ

    def memory(self) -> float:
        """MiB that are resident."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def still_lives(self) -> bool:
        return self.answers().content == b"5"

    def stops(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.running.send_signal(number)
        return self.running.wait(20)


def everything(connection: socket.socket) -> bytes:
    chunks = []
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while chunk := connection.recv(65_536):
            chunks.append(chunk)
    return b"".join(chunks)


Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Start servers, and reuse one that was asked for with the same options and still runs."""
    started: list[Served] = []

    def start(*, fresh: bool = False, **options: Any) -> Served:
        for served in started:
            if not fresh and served.options == options and served.running.poll() is None:
                return served
        started.append(Served(**options))
        return started[-1]

    yield start
    for served in started:
        served.running.kill()
        served.running.communicate()


def certificate(folder: Path, name: str, key_encryption: serialization.KeySerializationEncryption | None = None) -> list[str]:
    """A certificate and key file for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(signed.public_bytes(pem))
    encryption = key_encryption or serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    return [str(file) for file in files]


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize("text", ["127.0.0.1:8443", "[::1]:0", "0.0.0.0:80", "[2001:db8::1]:65535", "unix:/run/ca.sock"])
def test_an_address_reads_back_as_it_was_written(text: str) -> None:
    assert str(Listen.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "8443", ":8443", "localhost:80", "ca.example:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
     "127.0.0.1:8x", "127.1:80", "256.0.0.1:80", "127.0.0.01:80", "::1:80", "[::1]", "[::1%lo]:80", "[127.0.0.1]:80",
     "127.0.0.1:80\n", " 127.0.0.1:80", "127.0.0.1:８０", "unix:", "unix:ca.sock", "unix:/a\0b", "http://127.0.0.1:80"],
)  # fmt: skip
def test_anything_else_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Listen.parse(text)
    assert "127.0.0.1:8443" in refused.value.hint


@given(st.text())
def test_no_text_makes_the_address_parser_fail_otherwise(text: str) -> None:
    with contextlib.suppress(Misconfigured):
        assert Listen.parse(str(Listen.parse(text))) == Listen.parse(text)


def test_only_loopback_and_unix_sockets_are_private() -> None:
    assert all(Listen.parse(text).is_private for text in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/run/ca.sock"))
    assert not any(Listen.parse(text).is_private for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1"))


def test_an_address_in_use_is_refused_before_anything_is_served(serve: Serve, tmp_path: Path) -> None:
    for served in (serve(), serve(listen=f"unix:{tmp_path}/ca.sock")):
        with pytest.raises(Misconfigured, match="cannot listen on") as refused:
            open_socket(Listen.parse(served.url.removeprefix("http://")))
        assert "another program listens there" in refused.value.hint
        assert served.still_lives()


def test_an_address_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for text, hint in (
        ("192.0.2.1:0", "no such address"),
        (f"unix:{tmp_path}/missing/ca.sock", "create the directory"),
        (f"unix:{tmp_path}/{'x' * 108}", "unix:"),
        (f"unix:{tmp_path}/file", "another program"),
    ):
        with pytest.raises(Misconfigured) as refused:
            open_socket(Listen.parse(text))
        assert hint in refused.value.hint
    assert (tmp_path / "file").read_bytes() == b""


def test_a_unix_socket_is_for_owner_and_group_and_its_peer_has_no_address(serve: Serve, tmp_path: Path) -> None:
    served = serve(listen=f"unix:{tmp_path}/ca.sock")
    assert stat.S_IMODE((tmp_path / "ca.sock").stat().st_mode) == 0o660
    environ = served.environ()
    assert "REMOTE_ADDR" not in environ
    assert environ["SERVER_NAME"] == "localhost"


def test_a_unix_socket_left_by_a_killed_server_is_replaced(serve: Serve, tmp_path: Path) -> None:
    serve(listen=f"unix:{tmp_path}/ca.sock").stops(signal.SIGKILL)
    assert (tmp_path / "ca.sock").exists()
    assert serve(listen=f"unix:{tmp_path}/ca.sock").still_lives()


@pytest.mark.parametrize(("listen", "peer"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")])
def test_the_application_gets_the_peers_address(serve: Serve, listen: str, peer: str) -> None:
    served = serve(listen=listen)
    assert served.environ()["REMOTE_ADDR"] == peer


def test_an_ipv4_peer_of_a_socket_for_both_is_not_seen_as_an_ipv6_one(serve: Serve) -> None:
    served = serve(listen="[::]:0")
    served.url = served.url.replace("[::]", "127.0.0.1")
    assert served.environ()["REMOTE_ADDR"] == "127.0.0.1"


# ------------------------------------------------------------------- requests


def test_the_answer_does_not_name_the_server_software(serve: Serve) -> None:
    response = serve().answers()
    assert response.status == 200
    assert "Server" not in response.headers


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X_Forwarded_For", "Forwarded"])
def test_nobody_chooses_the_address_that_the_application_sees(serve: Serve, header: str) -> None:
    environ = serve().environ({header: "203.0.113.9"})
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_a_header_with_an_underscore_is_not_taken_for_one_with_a_hyphen(serve: Serve) -> None:
    environ = serve().environ({"X_Probe": "1", "Content_Length": "9"})
    assert "HTTP_X_PROBE" not in environ
    assert environ["CONTENT_LENGTH"] == "5"


def test_a_header_sent_twice_is_joined(serve: Serve) -> None:
    request = b"GET /environ HTTP/1.1\r\nHost: ca\r\nAuthorization: a\r\nAuthorization: b\r\nConnection: close\r\n\r\n"
    assert b'"HTTP_AUTHORIZATION":"a,b"' in serve().sends(request)


def test_a_trailer_does_not_become_a_header(serve: Serve) -> None:
    head = b"POST /environ HTTP/1.1\r\nHost: ca\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = serve().sends(head + b"2\r\nhi\r\n0\r\nAuthorization: forged\r\n\r\n")
    assert b" 200 " in answer
    assert b"forged" not in answer


def test_a_chunked_body_arrives_whole_with_its_length(serve: Serve) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert serve().sends(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n").endswith(b"\r\n\r\n5")


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    one = POST + b"Content-Length: %d\r\n\r\n%b"
    last = POST + b"Content-Length: 1\r\nConnection: close\r\n\r\nx"
    answer = serve().sends(one % (3, b"abc") + one % (2, b"ab") + last)
    assert [part[:1] for part in answer.split(b"\r\n\r\n")[1:]] == [b"3", b"2", b"1"]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_requests_on_one_connection_are_not_held_up_by_delayed_acknowledgements(serve: Serve, listen: str) -> None:
    with serve(listen=listen).connects() as connection:
        began = time.monotonic()
        for _ in range(50):
            connection.sendall(POST + b"Content-Length: 5\r\n\r\nhello")
            answer = b""
            while not answer.endswith(b"\r\n\r\n5"):
                chunk = connection.recv(4096)
                assert chunk
                answer += chunk
        assert time.monotonic() - began < 1  # 40 ms each without TCP_NODELAY


def test_an_application_that_breaks_costs_one_request(serve: Serve) -> None:
    served = serve(threads=1)
    assert served.answers("/fail", None).status == 500
    assert served.still_lives()


def test_a_body_of_64_kib_is_taken_and_one_byte_more_is_a_problem(serve: Serve) -> None:
    assert serve().answers(body=bytes(MAX_BODY)).content == b"65536"
    response = serve().answers(body=bytes(MAX_BODY + 1))
    assert (response.status, response.headers["Content-Type"]) == (413, "application/problem+json")
    problem = json.loads(response.content)
    assert problem["status"] == 413
    assert "65536 bytes" in problem["detail"]


@pytest.mark.parametrize("length", ["1000000000", "9" * 19])
def test_a_body_announced_too_large_is_refused_without_reading_it(serve: Serve, length: str) -> None:
    head = POST + f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
    assert serve().sends(head).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_too_large_is_refused(serve: Serve) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    assert serve().sends(head, chunk, chunk, b"1\r\nx\r\n0\r\n\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + bytes(0x8000) + b"\r\n"),
        (b"GET /", b"x" * 4096),
        (b"GET / HTTP/1.1\r\n", b"X-Filler: " + b"x" * 4096 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nX-Filler: ", b"x" * 4096),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-Filler: " + b"x" * 4096 + b"\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096),
    ],
    ids=["body", "target", "headers", "header", "trailers", "chunk extension"],
)
def test_a_request_without_end_is_cut_off(serve: Serve, start: bytes, more: bytes) -> None:
    served = serve()
    with served.connects() as connection:
        connection.sendall(start)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(more * (100 * CLIENT_BYTES // len(more)))
    assert served.still_lives()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0\1\2\3garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : ca\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"CONNECT ca:22 HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        POST + b"Content-Length: -5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
    ],
)
def test_garbage_and_ambiguous_framing_get_400_and_the_server_lives_on(serve: Serve, request_bytes: bytes) -> None:
    answer = serve().sends(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert serve().still_lives()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(min_size=1, max_size=60), at=st.integers(0, 60))
def test_no_bytes_make_the_server_fail(serve: Serve, junk: bytes, at: int) -> None:
    request = POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
    served = serve()
    with served.connects() as connection:
        connection.sendall(request[:at] + junk + request[at:])
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert not answer.startswith(b"HTTP/1.1 500")


# -------------------------------------------------------- slow and many clients


@pytest.mark.parametrize(
    "beginning",
    [b"", b"POST /len", POST, POST + b"Content-Length: 5\r\n\r\nhel", POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nh"],
    ids=["silent", "line", "headers", "body", "chunk"],
)
def test_200_half_open_requests_do_not_delay_a_whole_one(serve: Serve, beginning: bytes) -> None:
    served = serve(threads=2)
    with contextlib.ExitStack() as half_open:
        for _ in range(200):
            half_open.enter_context(served.connects()).sendall(beginning)
        began = time.monotonic()
        assert served.still_lives()
        assert time.monotonic() - began < 1


def test_200_idle_tls_handshakes_do_not_delay_a_whole_request(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "ca")
    served = serve(threads=2, tls=files)
    with contextlib.ExitStack() as half_open:
        for _ in range(200):
            half_open.enter_context(served.connects()).sendall(b"\x16\x03\x01")
        began = time.monotonic()
        assert tls_request(served, files[0]).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "beginning",
    [b"", b"POST /len", POST, POST + b"Content-Length: 5\r\n\r\nhel", POST + b"Content-Length: 5\r\n\r\nhello"],
    ids=["silent", "line", "headers", "body", "kept alive"],
)
def test_a_client_that_falls_silent_is_closed(serve: Serve, beginning: bytes) -> None:
    assert b"408" not in serve(client_seconds=0.3).sends(beginning)  # returns, because the server closes


def test_a_client_that_trickles_is_closed_all_the_same(serve: Serve) -> None:
    served = serve(client_seconds=0.3)
    with served.connects() as connection:
        connection.settimeout(0.05)
        connection.sendall(POST + b"X-Slow: ")
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < began + 5:
                connection.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(1) == b""
                    break
        assert time.monotonic() < began + 5


def test_a_silent_tls_client_is_closed_before_and_after_its_handshake(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "ca")
    served = serve(client_seconds=0.3, tls=files)
    assert served.sends() == b""
    with tls_client(files[0]).wrap_socket(served.connects(), server_hostname="127.0.0.1") as connection:
        assert everything(connection) == b""


def test_a_client_that_does_not_take_its_answer_is_closed(serve: Serve) -> None:
    served = serve(client_seconds=0.3)
    with served.connects() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
        connection.recv(1, socket.MSG_PEEK)
        time.sleep(0.6)  # not taking it is what is tested
        assert len(everything(connection)) < 32 << 20


def test_a_client_that_asks_ahead_and_takes_nothing_does_not_fill_the_memory(serve: Serve) -> None:
    served = serve(fresh=True)
    with served.connects() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: ca\r\n\r\n" * 50)  # 32 MiB each
        connection.recv(1, socket.MSG_PEEK)
        assert served.still_lives()
        assert served.memory() < 400, "MiB"
        first = connection.recv(100)
        assert first.startswith(b"HTTP/1.1 200 ")


def test_so_many_requests_ahead_of_their_answers_are_cut_off(serve: Serve) -> None:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        answer = serve().sends(b"GET /environ HTTP/1.1\r\nHost: ca\r\n\r\n" * 3000)
        assert answer.count(b"HTTP/1.1 200 ") < 3000
    assert serve().still_lives()


def test_what_was_asked_ahead_is_answered_when_the_client_takes_it(serve: Serve) -> None:
    ahead = b"GET /large HTTP/1.1\r\nHost: ca\r\n\r\n" * 3 + POST + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi"
    answer = serve().sends(ahead)
    assert (answer.count(b"HTTP/1.1 200 "), answer[-1:]) == (4, b"2")
    assert len(answer) > 3 * (32 << 20)


def test_an_answer_that_takes_longer_than_a_client_may_is_still_given(serve: Serve) -> None:
    served = serve(fresh=True, client_seconds=0.3)
    with served.connects() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\n\r\n")
        served.says("held")
        connection.settimeout(0.6)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        served.releases()
        connection.settimeout(20)
        assert everything(connection).endswith(b"finished")


def test_when_there_are_too_many_connections_the_longest_silent_one_makes_room(serve: Serve) -> None:
    served = serve(max_connections=20)
    with contextlib.ExitStack() as half_open:
        silent = [half_open.enter_context(served.connects()) for _ in range(20)]
        assert served.still_lives()
        assert everything(silent[0]) == b""
        silent[-1].sendall(POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
        assert everything(silent[-1]).endswith(b"5")


def test_requests_wait_for_a_thread_and_none_is_lost(serve: Serve) -> None:
    served = serve(fresh=True, threads=1)
    with contextlib.ExitStack() as held:
        waiting = [held.enter_context(served.connects()) for _ in range(5)]
        for connection in waiting:
            connection.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
        served.says("held")
        served.releases()
        assert all(everything(connection).endswith(b"finished") for connection in waiting)


def test_more_than_may_wait_are_told_to_come_back(serve: Serve) -> None:
    """A client that goes away leaves its request in the queue: without an end to that, coming again fills the memory."""
    served = serve(fresh=True, threads=1, most_waiting=3)
    with served.connects() as first:
        first.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
        served.says("held")
        for _ in range(4):
            with served.connects() as left:
                left.sendall(POST + b"Content-Length: 5\r\n\r\nhello")
        await_busy(served)
        busy = served.answers()
        assert (busy.status, json.loads(busy.content)["code"]) == (503, "busy")
        assert busy.headers["Retry-After"] == "1"
        assert served.answers("/together").status == 503
        served.releases()
        assert everything(first).endswith(b"finished")
    while (answer := served.answers()).status == 503:
        """Those who went away are answered first."""
    assert answer.content == b"5"


def await_busy(served: Served) -> None:
    """Those who went away may not all have been read."""
    while True:
        with served.connects() as connection:
            connection.sendall(POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
            connection.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                assert b" 503 " in everything(connection)
                return


# ----------------------------------------------------------------- many together


def together(served: Served, body: bytes) -> socket.socket:
    connection = served.connects()
    head = b"POST /together HTTP/1.1\r\nHost: ca\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)
    return connection


@pytest.mark.parametrize("at_once", [True, False])
def test_what_comes_while_others_are_begun_is_begun_together(serve: Serve, *, at_once: bool) -> None:
    served = serve(fresh=True, at_once=at_once)
    with contextlib.ExitStack() as open_:
        first = open_.enter_context(together(served, b"hold"))
        served.says("begun 1")
        bodies = [b"x" * length for length in range(9)]
        waiting = [open_.enter_context(together(served, body)) for body in bodies]
        assert served.still_lives()  # which was read after all of them
        served.releases()
        assert everything(first).endswith(b"4")
        served.says("begun 9")
        assert [everything(connection)[-1:] for connection in waiting] == [b"%d" % len(body) for body in bodies]


def test_no_more_are_begun_at_a_time_than_may_wait_for_each_other(serve: Serve) -> None:
    served = serve(fresh=True)
    with contextlib.ExitStack() as open_:
        first = open_.enter_context(together(served, b"hold"))
        served.says("begun 1")
        waiting = [open_.enter_context(together(served, b"x")) for _ in range(MOST_TOGETHER + 1)]
        assert served.still_lives()
        served.releases()
        served.says(f"begun {MOST_TOGETHER}")
        served.says("begun 1")
        assert everything(first).endswith(b"4")
        assert all(everything(connection).endswith(b"1") for connection in waiting)


def test_a_last_step_that_waits_for_others_holds_up_nobody_else(serve: Serve) -> None:
    served = serve(fresh=True, at_once=False)
    with together(served, b"late") as late:
        served.says("begun 1")
        with together(served, b"xx") as other:
            served.says("begun 1")
            assert everything(other).endswith(b"2")
        served.releases()
        assert everything(late).endswith(b"4")


@pytest.mark.parametrize("at_once", [True, False])
def test_one_that_breaks_breaks_alone_and_the_thread_lives_on(serve: Serve, *, at_once: bool) -> None:
    served = serve(fresh=True, at_once=at_once)
    for body, status in ((b"bad", b" 500 "), (b"fail", b" 500 "), (b"xx", b" 200 ")):
        with together(served, body) as connection:
            served.says("begun 1")
            assert status in everything(connection)


@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_that_cannot_be_sent_keeps_nobody_else_of_its_batch_waiting(serve: Serve, *, at_once: bool) -> None:
    served = serve(fresh=True, at_once=at_once)
    with contextlib.ExitStack() as open_:
        first = open_.enter_context(together(served, b"hold"))
        served.says("begun 1")
        bodies = [b"odd", b"x", b"odd", b"xx", b"odd"]
        waiting = [open_.enter_context(together(served, body)) for body in bodies]
        assert served.still_lives()  # which was read after all of them
        served.releases()
        assert everything(first).endswith(b"4")
        served.says("begun 5")
        assert [everything(connection)[-1:] for connection in waiting] == [b"", b"1", b"", b"2", b""]


def test_an_answer_that_http_cannot_carry_closes_the_connection(serve: Serve) -> None:
    served = serve(fresh=True)
    with together(served, b"odd") as connection:
        served.says("begun 1")
        assert everything(connection) == b""
    assert served.still_lives()


def test_behind_a_proxy_its_word_for_the_address_is_taken_and_nobody_elses(serve: Serve) -> None:
    served = serve(behind_proxy=True)
    for headers, address, scheme in (
        ({"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}, "198.51.100.7", "https"),
        ({"X-Forwarded-For": "10.0.0.1, 198.51.100.7", "X-Forwarded-Proto": "https, http"}, "198.51.100.7", "http"),
        ({"X-Forwarded-For": "10.0.0.1,"}, "127.0.0.1", "http"),
        ({"X_Forwarded_For": "198.51.100.7"}, "127.0.0.1", "http"),
        ({"Forwarded": "for=198.51.100.7"}, "127.0.0.1", "http"),
    ):
        found = served.environ(headers)
        assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == (address, scheme), headers


# ------------------------------------------------------------------------ TLS


def tls_client(trusted: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=trusted)


def tls_request(served: Served, trusted: str) -> bytes:
    with tls_client(trusted).wrap_socket(served.connects(), server_hostname="127.0.0.1") as connection:
        connection.sendall(POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
        return everything(connection)


def test_tls_works_and_plain_http_to_it_does_not(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "ca")
    served = serve(tls=files)
    assert served.url.startswith("https://127.0.0.1:")
    assert tls_request(served, files[0]).startswith(b"HTTP/1.1 200 ")
    assert not served.sends(POST + b"Content-Length: 5\r\n\r\nhello").startswith(b"HTTP")
    assert tls_request(served, files[0]).startswith(b"HTTP/1.1 200 ")


def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path, "ca")
    assert tls_context(Path(certificate_file), Path(key_file)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = certificate(tmp_path, "good")
    other = certificate(tmp_path, "other")
    locked = certificate(tmp_path, "locked", serialization.BestAvailableEncryption(b"secret"))
    (tmp_path / "junk").write_text("junk")
    for certificate_file, key_file, sentence in (
        (good[0], f"{tmp_path}/missing", "cannot read the TLS file .*missing: No such file"),
        (f"{tmp_path}", good[1], "cannot read the TLS file .*: Is a directory"),
        (good[0], other[1], "other.key is not the key of .*good.pem"),
        (good[0], f"{tmp_path}/junk", "cannot use the TLS files"),
        (good[1], good[0], "cannot use the TLS files"),
        (locked[0], locked[1], "cannot use the TLS files"),
    ):
        with pytest.raises(Misconfigured, match=sentence) as refused:
            tls_context(Path(certificate_file), Path(key_file))
        assert refused.value.hint


# --------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_the_request_in_flight_finish_and_refuses_new_ones(serve: Serve, number: signal.Signals) -> None:
    served = serve(fresh=True)
    assert served.still_lives(), "and then there is no connection for a moment"
    with served.connects() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\n\r\n")
        served.says("held")
        served.running.send_signal(number)
        served.says("stopping")
        await_refusal(served)
        served.releases()
        answer = everything(connection)
    assert answer.endswith(b"finished")
    assert b"connection: close" in answer
    served.says("stopped")
    assert served.running.wait(20) == 0


def await_refusal(served: Served) -> None:
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            served.connects().close()


def test_a_stop_closes_idle_and_half_open_connections_at_once(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "ca")
    for options in ({}, {"tls": files}):
        served = serve(fresh=True, stop_seconds=60, **options)
        context = tls_client(files[0])
        with contextlib.ExitStack() as kept:
            for beginning in (b"", b"POST /len", POST + b"Content-Length: 5\r\n\r\nhello"):
                connection = kept.enter_context(served.connects())
                if options:
                    connection = kept.enter_context(context.wrap_socket(connection, server_hostname="127.0.0.1"))
                connection.sendall(beginning)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            began = time.monotonic()
            assert served.stops() == 0
            assert time.monotonic() - began < 5


def test_a_stop_does_not_wait_for_ever(serve: Serve) -> None:
    served = serve(fresh=True, stop_seconds=1)
    with served.connects() as stuck, served.connects() as slow:
        stuck.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\n\r\n")
        served.says("held")
        slow.sendall(POST + b"Content-Length: 5\r\n\r\nhel")
        assert served.stops() == 0


def test_sighup_calls_back_while_requests_go_on(serve: Serve) -> None:
    served = serve(fresh=True, threads=1)
    with served.connects() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
        served.says("held")
        for _ in range(2):
            served.running.send_signal(signal.SIGHUP)
            served.says("hangup")  # although the only thread is busy
        served.releases()
        assert everything(connection).endswith(b"finished")
    assert served.still_lives()


def test_a_reload_that_fails_is_reported_and_the_server_lives_on(serve: Serve) -> None:
    served = serve(fresh=True, bad_policy=True)
    served.running.send_signal(signal.SIGHUP)
    served.says("hangup")
    assert served.still_lives()
    served.stops()
    assert "the policy is bad" in served.running.communicate()[1]


def test_sighup_takes_up_a_renewed_certificate_but_not_half_of_one(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "ca")
    old, new = files[0], tmp_path / "new"
    new.mkdir()
    renewed = certificate(new, "ca")
    served = serve(fresh=True, tls=files)
    trusted_before = tmp_path / "before.pem"
    trusted_before.write_bytes(Path(old).read_bytes())

    Path(renewed[0]).replace(files[0])  # its key is not there yet
    served.running.send_signal(signal.SIGHUP)
    served.says("hangup")
    assert tls_request(served, str(trusted_before)).startswith(b"HTTP/1.1 200 ")

    Path(renewed[1]).replace(files[1])
    served.running.send_signal(signal.SIGHUP)
    served.says("hangup")
    deadline = time.monotonic() + 10
    while True:
        try:
            assert tls_request(served, files[0]).startswith(b"HTTP/1.1 200 ")
            break
        except ssl.SSLCertVerificationError:
            assert time.monotonic() < deadline
