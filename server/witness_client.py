"""Asking one witness (C2SP tlog-witness). Nothing it says is believed but a cosignature that verifies, and that it has seen more.

It is asked within SECONDS in all. No redirect is followed, and no answer is read that is longer than anybody needs.
"""

import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from socket import SHUT_RDWR
from typing import Final
from urllib.parse import urlsplit

from ca.checkpoint import Checkpoint
from ca.cosignature import Cosignature, WitnessKey
from ca.merkle import Read
from ca.witness import LARGEST_ANSWER, AnotherHistory, NoCosignature, Submission, read_answer
from server.deadlines import stopped_at
from server.dialing import Dialer

SECONDS: Final = 3.0  # for one checkpoint: name, connection, TLS and answers, however often it says that it begins elsewhere
_MOST_TRIES: Final = 4  # a first one, one for the size that it has, and some for other processes that submit meanwhile
_HEADERS: Final = {"Content-Type": "text/plain; charset=utf-8"}


class Outrun(Exception):
    """The witness has cosigned a newer checkpoint of this very log meanwhile: another process submitted it."""


class RemoteWitness:
    """A witness at an address. Owned by one thread."""

    def __init__(self, url: str, key: WitnessKey, seen: int) -> None:
        """`seen` is the size that it cosigned last, as far as is known."""
        parts = urlsplit(f"{url.rstrip('/')}/add-checkpoint")
        self.key = key
        self._seen = seen
        self._path = parts.path
        self._dialer = Dialer(parts.hostname or "", parts.port, secure=parts.scheme == "https")
        self._connection: HTTPConnection | None = None

    def cosign(self, note: str, checkpoint: Checkpoint, read: Read, size: Callable[[], int]) -> Cosignature:
        """The witness's cosignature of the checkpoint; `read` gives the log's nodes, `size` how many entries it has by now.

        Raises `AnotherHistory`, `NoCosignature`, and `Outrun`.
        """
        deadline = time.monotonic() + SECONDS
        old = min(self._seen, checkpoint.size)
        for _ in range(_MOST_TRIES):
            sent = Submission.of(note, checkpoint, old, read)
            answer = read_answer(sent, self.key, *self._post(sent.encode(), deadline))
            if isinstance(answer, Cosignature):
                self._seen = checkpoint.size
                return answer
            old = self._seen = answer
            if old > checkpoint.size:
                if (have := size()) >= old:
                    raise Outrun
                raise AnotherHistory(f"has cosigned {old} entries of this log, which has {have}")
        raise NoCosignature("did not stay with one size")

    def _post(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        kept = self._connection is not None
        try:
            try:
                return self._exchange(body, deadline)
            except (OSError, HTTPException):
                self.close()
                if not kept:
                    raise
                return self._exchange(body, deadline)  # it may have closed a connection on which nothing was said for long
        except (OSError, HTTPException) as error:
            self.close()
            raise NoCosignature(_silence(error, deadline)) from error

    def _exchange(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        connection = self._connection = self._connection or self._dialer.connect(deadline)
        socket = connection.sock
        socket.settimeout(max(0.001, deadline - time.monotonic()))
        with stopped_at(deadline, lambda: socket.shutdown(SHUT_RDWR)):
            connection.request("POST", self._path, body, _HEADERS)
            answer = connection.getresponse()
            content = answer.read(LARGEST_ANSWER + 1)
        if len(content) > LARGEST_ANSWER:
            self.close()
            raise NoCosignature(f"answered more than {LARGEST_ANSWER} bytes")
        if answer.length or time.monotonic() >= deadline:
            self.close()
            raise NoCosignature("did not answer in full")
        if answer.will_close:
            self.close()
        return answer.status, content

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _silence(error: Exception, deadline: float) -> str:
    """Nothing that the other side may have said is repeated."""
    if time.monotonic() >= deadline:
        return "did not answer in time"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"did not answer: {reason}" if reason else "did not answer in HTTP"
