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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ca import canonical
from ca.errors import JitSshError, Malformed, Misconfigured
from ca.keys import PublicKey
from ca.sshsig import SshSig
from ca.statement import ReadStatement, RequestStatement
from cli.answers import Members, read_ways, ways_lines
from cli.output import plain
from cli.problems import AnswerLost, Denied, Unreachable

_PATIENCE: Final = 15.0  # seconds for each step of an exchange
_LARGEST: Final = 4 * 1024 * 1024
_LONGEST_TEXT: Final = 2000  # characters of a problem that are worth showing
_PAUSES: Final = (0.2, 0.5, 1.0)  # seconds before a lost answer is asked for again

Sign = Callable[[bytes], SshSig]
"""Gives the person's signature over a statement; raises `SignerFailed`."""


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

    def connect(self) -> http.client.HTTPConnection:
        """A connection that opens when it is used; certificates are checked against the system's, or SSL_CERT_FILE."""
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=_PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """One CA, and the person who asks it. Every method raises `Unreachable`, `Denied`, or the error that the CA named."""

    def __init__(self, address: Address, origin: str, sign: Sign) -> None:
        self._address = address
        self._origin = origin
        self._sign = sign

    def read(self, path: str, largest: int = _LARGEST) -> bytes:
        """The answer to a signed read of at most `largest` bytes; `path` with its query."""
        statement = canonical.encode(ReadStatement(audience=self._origin, id=new_id(), time=int(time.time()), path=path))
        authorization = f"JIT-SSH {_base64url(statement)}.{_base64url(self._sign(statement).blob)}"
        return exchange(self._address, "GET", path, {"Authorization": authorization}, largest=largest)

    def request(self, role: str, duration: int | None, reason: str, key: PublicKey, prove: Sign) -> bytes:
        """Asks for a role with a certificate over `key`, whose possession `prove` proves; the CA's answer.

        When the answer is lost the same statement is sent again: the log accepts it once and repeats its answer.
        """
        asked = RequestStatement(
            audience=self._origin, id=new_id(), time=int(time.time()), role=role, duration=duration, reason=reason, key=key.line
        )
        statement = canonical.encode(asked)
        signatures = {"signature": self._sign(statement), "possession": prove(statement)}
        body = {name: b64encode(signed.blob).decode() for name, signed in signatures.items()} | {"statement": statement.decode()}
        encoded = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        for pause in _PAUSES:
            try:
                return exchange(self._address, "POST", "/v1/requests", headers, encoded)
            except AnswerLost:
                time.sleep(pause)
        return exchange(self._address, "POST", "/v1/requests", headers, encoded)


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
) -> bytes:
    """One request and the body of its answer, if that is a success of at most `largest` bytes.

    Raises `AnswerLost` when the connection broke, `Unreachable` when there was none or it was not the CA, and the CA's problem.
    """
    connection = address.connect()
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
    if answer.status not in {200, 201}:
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
        considered = ways_lines(read_ways(problem)) if "ways" in problem else ()
        entry = problem.integer("entry") if "entry" in problem else None
    except Malformed:
        return Unreachable(f"{address.url} answered {status}, and not as a CA does", "Is this the address of the CA?")
    if code == Denied.code or entry is not None:
        return Denied(message, hint, considered, entry)
    return _KINDS.get(code, Unreachable)(message, hint)
