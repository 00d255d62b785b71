"""Talking to the CA over HTTP: signed reads, requests, and its problems as this product's errors.

Nothing it says is believed here; whoever asked checks the answer. Redirects are not followed: a statement is for one CA.
"""

import http.client
import ipaddress
import json
import secrets
import ssl
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ca import canonical
from ca.errors import JitSshError, Malformed, Misconfigured
from ca.sshsig import SshSig
from ca.statement import FRESH, ReadStatement, Statement
from cli.answers import Members, read_steps, read_ways, steps_lines, ways_lines
from cli.output import plain
from cli.problems import AnswerLost, Denied, Unreachable

PATIENCE: Final = 15.0  # seconds for each step of an exchange
_LARGEST: Final = 4 * 1024 * 1024
_LONGEST_TEXT: Final = 2000  # characters of a problem that are worth showing
_PAUSES: Final = (0.2, 0.5, 1.0)  # seconds before a lost answer is asked for again

Sign = Callable[[bytes], SshSig]
"""Gives the person's signature over a statement; raises `SignerFailed`."""

Words = Callable[..., Statement]
"""A statement that lacks only audience, id and time."""

_KINDS: Final[dict[str, type[JitSshError]]] = {
    kind.code: kind for kind in JitSshError.__subclasses__() if kind.__module__ == JitSshError.__module__
}


@dataclass(frozen=True)
class Address:
    """Where the CA listens. Over plain HTTP only on this machine: an answer could be read and changed on its way."""

    url: str
    host: str
    port: int | None
    tls: bool

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Reads `https://HOST[:PORT]`. Raises `Misconfigured`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Misconfigured(f"{url[:200]!a} is not an address: {error}") from error
        if parts.scheme not in {"http", "https"} or not host or not url.isascii() or not url.isprintable():
            raise Misconfigured(f"{url[:200]!a} is not the address of a CA", "It looks like https://ca.example.org")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
            raise Misconfigured(f"{url[:200]!a} has more than a host and a port", "Give the address alone: https://HOST[:PORT]")
        if parts.scheme == "http" and not _is_loopback(host):
            hint = f"Use https://{parts.netloc}; http:// is for this machine only"
            raise Misconfigured(f"{host} would be reached over plain HTTP", hint)
        return cls(f"{parts.scheme}://{parts.netloc}", host, port, parts.scheme == "https")

    def connect(self, patience: float) -> http.client.HTTPConnection:
        """A connection that opens when it is used; certificates are checked against the system's, or SSL_CERT_FILE."""
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=patience, context=ssl.create_default_context())
        return http.client.HTTPConnection(self.host, self.port, timeout=patience)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """One CA, and the person who asks it. Every method raises `Unreachable`, `Denied`, or the error that the CA named."""

    def __init__(self, address: Address, origin: str, sign: Sign, patience: float = PATIENCE) -> None:
        self._address = address
        self._origin = origin
        self._sign = sign
        self._patience = patience  # seconds

    def read(self, path: str, largest: int = _LARGEST, wait: int = 0) -> bytes:
        """The answer to a signed read of `path` with its query: at most `largest` bytes, `wait` seconds later than usual."""
        headers = self._authorized(path)
        return exchange(self._address, "GET", path, headers, largest=largest, patience=self._patience + wait)

    def follow(self, path: str, wait: int) -> Iterator[bytes]:
        """The answers to the same read, one after the other; the CA takes up to `wait` seconds for each.

        One signature serves for as long as the CA takes it, so that a security key is not to be touched for each.
        """
        while True:
            headers, signed_at = self._authorized(path), time.monotonic()
            while time.monotonic() < signed_at + FRESH - wait:
                yield exchange(self._address, "GET", path, headers, patience=self._patience + wait)

    def _authorized(self, path: str) -> dict[str, str]:
        statement = self._said(partial(ReadStatement, path=path))
        return {"Authorization": f"JIT-SSH {_base64url(statement)}.{_base64url(self._sign(statement).blob)}"}

    def send(self, path: str, words: Words, prove: Sign | None = None, sign: Sign | None = None) -> bytes:
        """Posts a signed statement; `prove` signs it too, by the key to be certified. The CA's answer.

        `sign` stands in for the person's key, where a certificate's key may.
        When the answer is lost the same statement is sent again: the log accepts it once and repeats its answer.
        """
        statement = self._said(words)
        signatures = {"signature": (sign or self._sign)(statement)} | ({"possession": prove(statement)} if prove else {})
        body = {name: b64encode(signed.blob).decode() for name, signed in signatures.items()} | {"statement": statement.decode()}
        post = partial(
            exchange,
            self._address,
            "POST",
            path,
            {"Content-Type": "application/json"},
            json.dumps(body).encode(),
            patience=self._patience,
        )
        for pause in _PAUSES:
            try:
                return post()
            except AnswerLost:
                time.sleep(pause)
        return post()

    def _said(self, words: Words) -> bytes:
        return canonical.encode(words(audience=self._origin, id=new_id(), time=int(time.time())))


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7) of this moment."""
    random = secrets.randbits(80)
    number = (time.time_ns() // 1_000_000) << 80 | random
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def exchange(
    address: Address,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    largest: int = _LARGEST,
    patience: float = PATIENCE,
) -> bytes:
    """One request and the body of its answer, if that is a success of at most `largest` bytes.

    Raises `AnswerLost` when the connection broke, `Unreachable` when there was none or it was not the CA, and the CA's problem.
    """
    connection = address.connect(patience)
    try:
        _connect(address, connection)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read(largest + 1)
            if answer.length and len(content) <= largest:
                raise http.client.IncompleteRead(content, answer.length)
        except (OSError, http.client.HTTPException) as error:
            raise AnswerLost(f"the answer of {address.url} did not arrive: {error!r}", "Is the CA running? Try again") from error
    finally:
        connection.close()
    if len(content) > largest:
        raise Malformed(f"{address.url} answered with more than {largest} bytes")
    if answer.status not in {200, 201, 202}:
        raise _problem(address, answer.status, content, answer.headers.get("Location"))
    return content


def _connect(address: Address, connection: http.client.HTTPConnection) -> None:
    try:
        connection.connect()
    except ssl.SSLError as error:
        raise Unreachable(f"{address.url} is not who it should be: {error}", "Is its TLS certificate for this name?") from error
    except OSError as error:
        raise Unreachable(f"{address.url} cannot be reached: {error}", "Is the address right, and the CA running?") from error


def _problem(address: Address, status: int, content: bytes, location: str | None) -> JitSshError:
    if location is not None:
        hint = "If that is the CA's new address, give it to jit-ssh setup"
        return Unreachable(f"{address.url} redirects to {plain(location)[:200]}", hint)
    try:
        problem = Members.parse(content)
        code, message = problem.text("code"), problem.text("detail")[:_LONGEST_TEXT]
        hint = problem.text("hint")[:_LONGEST_TEXT] if "hint" in problem else ""
        considered = ways_lines(read_ways(problem)) if "ways" in problem else []
        considered += steps_lines(read_steps(problem)) if "steps" in problem else []
        entry = problem.integer("entry") if "entry" in problem else None
    except Malformed:
        return Unreachable(f"{address.url} answered {status}, and not as a CA does", "Is this the address of the CA?")
    if code == Denied.code or entry is not None:
        return Denied(message, hint, considered, entry, canonical.parse_object(content, "the CA's answer"))
    return _KINDS.get(code, Unreachable)(message, hint)
