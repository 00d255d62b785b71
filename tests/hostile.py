"""What a hostile request may leave behind: a typed problem in plain words and, if a known person signed it, a `refuse` entry."""

import hashlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from werkzeug.test import TestResponse

from ca.wire import string, u32
from tests.keys import Key
from tests.world import World

Send = Callable[[], TestResponse]


def refused(world: World, send: Send, status: int, code: str, words: str, *, logged: bool = False) -> dict[str, Any]:
    """Sends, and asserts this problem, no use of the CA key, no `issue`, a sound log, and a server that goes on; the problem."""
    kinds, calls = world.kinds(), world.signer.calls
    answer = send()
    problem: dict[str, Any] = answer.json or {}
    assert (answer.status_code, problem.get("code")) == (status, code), answer.text
    assert answer.mimetype == "application/problem+json"
    assert words in f"{problem['detail']} {problem['hint']}"
    assert len(problem["detail"]) < 400
    assert problem["detail"].isprintable()
    assert problem["status"] == status
    assert world.signer.calls == calls
    assert world.kinds()[len(kinds) :] == ["refuse"] * logged
    assert world.ask("ana").status_code == 201, "a good request is still answered"
    world.check()
    return problem


def forged_sshsig(
    key: Key,
    message: bytes,
    *,
    namespace: str = "jit-ssh",
    digest: str = "sha512",
    reserved: bytes = b"",
    version: int = 1,
    magic: bytes = b"SSHSIG",
    claimed: bytes | None = None,
) -> bytes:
    """An SSHSIG whose every field can be another; `claimed` is the public key it names. The signature fits what it says."""
    hashed = hashlib.new(digest, message).digest()
    fields = string(namespace) + string(reserved) + string(digest)
    signature = key.sign(magic + fields + string(hashed))
    return magic + u32(version) + string(key.public_key.blob if claimed is None else claimed) + fields + string(signature)


def body(text: bytes, signature: bytes, possession: bytes) -> dict[str, str]:
    """The body of a request with these very signatures."""
    return {
        "statement": text.decode(),
        "signature": b64encode(signature).decode(),
        "possession": b64encode(possession).decode(),
    }
