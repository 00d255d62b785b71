"""A client of ssh-agent (draft-ietf-sshm-ssh-agent). It imports no cryptography, so that a prompt can ask the agent quickly."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ca.errors import Malformed, SignerFailed
from ca.wire import Reader, string, u32

SUCCESS: Final = 6
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER, _SIGN_REQUEST, _SIGN_RESPONSE = 11, 12, 13, 14
_RSA_SHA2_512: Final = 4
_LARGEST_ANSWER: Final = 256 * 1024
_PATIENCE: Final = 60.0  # seconds: the agent may be waiting for a touch or a confirmation


class Agent:
    """A client of the agent that listens on `path`. Every method raises `SignerFailed` when the agent cannot be reached."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def from_environment(cls) -> "Agent | None":
        """The agent that SSH_AUTH_SOCK names."""
        path = os.environ.get("SSH_AUTH_SOCK")
        return cls(Path(path)) if path else None

    def identities(self) -> list[tuple[bytes, str]]:
        """The (public key or certificate blob, comment) of each identity it holds."""
        reader = self.ask(_REQUEST_IDENTITIES, b"", _IDENTITIES_ANSWER)
        return [(reader.string(), reader.string().decode(errors="replace")) for _ in range(reader.u32())]

    def sign(self, key: bytes, message: bytes) -> bytes:
        """An SSH signature blob over `message` by the key with this blob (rsa: rsa-sha2-512, as the others ignore the flag)."""
        body = string(key) + string(message) + u32(_RSA_SHA2_512)
        return self.ask(_SIGN_REQUEST, body, _SIGN_RESPONSE).string()

    def ask(self, request: int, body: bytes, answer: int) -> Reader:
        """Sends one request and reads one answer, which must be of type `answer`; a reader behind that type."""
        packet = bytes([request]) + body
        try:
            with self._connected() as channel:
                channel.sendall(u32(len(packet)) + packet)
                reader = Reader(_read_packet(channel), "the agent's answer")
            kind = reader.u8()
        except (OSError, Malformed) as error:
            raise SignerFailed(f"the ssh-agent at {self.path} did not answer: {error}", "Is it running?") from error
        if kind != answer:
            raise SignerFailed(f"the ssh-agent at {self.path} refused (request {request})")
        return reader

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_PATIENCE)
            channel.connect(str(self.path))
            yield channel


def _read_packet(channel: socket.socket) -> bytes:
    length = int.from_bytes(_read(channel, 4), "big")
    if length > _LARGEST_ANSWER:
        raise Malformed(f"the answer has {length} bytes, more than {_LARGEST_ANSWER}")
    return _read(channel, length)


def _read(channel: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        piece = channel.recv(length - len(received))
        if not piece:
            raise Malformed("the agent closed the connection")
        received += piece
    return received
