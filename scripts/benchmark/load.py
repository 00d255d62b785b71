"""Load: requests that were signed before, sent over many connections; every answer is verified after the clock stopped."""

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmark.figures import Times
from benchmark.served import ROLE, Served
from ca import canonical
from ca.certificate import SignedCertificate
from ca.keys import ed25519_key
from ca.proof import proven
from ca.sshsig import SshSig, signed_bytes
from ca.statement import FRESH, RequestStatement
from ca.wire import string


@dataclass(frozen=True)
class Load:
    """What came of one run: each request's time, the seconds of all, and the processor time of the server."""

    times: Times
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Issuances a second."""
        return len(self.times) / self.seconds

    @property
    def cpu(self) -> float:
        """Milliseconds of the server's processor time for one issuance."""
        return self.cpu_seconds * 1000 / len(self.times)


def prepared(ca: Served) -> bytes:
    """A whole HTTP request: a fresh key, a statement of its own, and both signatures."""
    key = Ed25519PrivateKey.generate()
    public = ed25519_key(key.public_key().public_bytes_raw())
    said = RequestStatement(
        audience=ca.trust.origin, id=uuid7(), time=int(time.time()), role=ROLE, reason="bench", key=public.line
    )
    text = canonical.encode(said)
    message = signed_bytes(text)
    signature = SshSig(ca.person.public_key, ca.person.sign(message))
    possession = SshSig(public, string("ssh-ed25519") + string(key.sign(message)))
    body = json.dumps(
        {
            "statement": text.decode(),
            "signature": base64.b64encode(signature.blob).decode(),
            "possession": base64.b64encode(possession.blob).decode(),
        }
    ).encode()
    head = f"POST /v1/requests HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def uuid7() -> str:
    """A statement id (RFC 9562 §5.7)."""
    digits = f"{time.time_ns() // 1_000_000:012x}7{secrets.token_hex(2)[:3]}a{secrets.token_hex(8)[:15]}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class Client(asyncio.Protocol):
    """One connection, kept alive: sends the next request as soon as the one before is answered."""

    def __init__(self, requests: Iterator[bytes], times: list[float], answers: list[bytes]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._times = times
        self._answers = answers
        self._received = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if (request := next(self._requests, None)) is None:
            self._transport.close()
        else:
            self._began = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is None or len(body) < int(length[1]):
            return
        self._times.append((time.perf_counter() - self._began) * 1000)
        self._answers.append(body)
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(exc)


async def ask(url: str, requests: Sequence[bytes], clients: int) -> tuple[Times, Sequence[bytes], float]:
    """Sends all `requests` over so many connections: the time of each answer, the answers, and the seconds in all."""
    where, left = urlsplit(url), iter(requests)
    host, port = where.hostname or "", where.port or 80
    times, answers = list[float](), list[bytes]()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    async with asyncio.timeout(FRESH):  # afterwards the statements would be stale
        opened = [await loop.create_connection(lambda: Client(left, times, answers), host, port) for _ in range(clients)]
        await asyncio.gather(*(client.done for _, client in opened))
    return times, answers, time.perf_counter() - began


def run(ca: Served, count: int, clients: int) -> Load:
    """Lets `count` certificates be issued to so many clients, and verifies each of them."""
    requests = [prepared(ca) for _ in range(count)]
    size, cpu = ca.log_size(), ca.cpu_seconds()
    times, answers, seconds = asyncio.run(ask(ca.url, requests, clients))
    cpu = ca.cpu_seconds() - cpu
    serials = {verified(ca, answer) for answer in answers}
    if len(serials) != count or ca.log_size() != size + 2 * count:
        raise click.ClickException(f"{count} requests gave {len(serials)} certificates and {ca.log_size() - size} entries")
    return Load(times, seconds, cpu)


def verified(ca: Served, answer: bytes) -> int:
    """The serial of the certificate in an answer, which must be one by this CA."""
    members = json.loads(answer)
    if "certificate" not in members:
        raise click.ClickException(f"the server answered {answer.decode()[:500]}")
    signed = SignedCertificate.parse_line(members["certificate"])
    signed.verify(ca.trust.public_keys[0])
    proven(signed, ca.trust)
    return signed.certificate.serial
