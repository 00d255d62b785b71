"""A server killed at random moments under load, again and again: whatever a client holds is in the log, and the log is whole."""

import random
import shutil
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Final

from ca import entry
from ca.certificate import SignedCertificate
from ca.entry import IssueEntry
from ca.log import Log
from server.directory import open_log
from tests import keys
from tests.keys import Key
from tests.running import ORIGIN, Running, body, run

KILLS: Final = 50
CLIENTS: Final = 4
LONGEST: Final = 0.3  # seconds of load before a kill
SEED: Final = random.SystemRandom().randrange(2**32)


class Client:
    """Asks for certificates until the server is gone, and keeps what it got."""

    def __init__(self, signer: Key, fresh: Key) -> None:
        self._keys = signer, fresh
        self.received: list[str] = []
        self.unanswered: list[bytes] = []

    def asks(self, server: Running) -> None:
        while True:
            request = body(*self._keys)
            try:
                status, answer = server.ask(request)
            except (OSError, HTTPException):  # refused, reset, or an answer that broke off
                self.unanswered.append(request)
                return
            assert status == 201, answer
            self.received.append(answer["certificate"])


def crash(server: Running, clients: list[Client], moment: float) -> None:
    """Load, and SIGKILL after so many seconds of it."""
    threads = [threading.Thread(target=client.asks, args=(server,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(moment)
    server.kill()
    for thread in threads:
        thread.join()


def is_logged(log: Log, line: str) -> bool:
    """Whether the entry that the certificate's serial names holds exactly the bytes that were signed."""
    certificate = SignedCertificate.parse_line(line).certificate
    found = entry.decode(next(log.store.entries(certificate.serial, certificate.serial + 1)))
    return isinstance(found, IssueEntry) and found.certificate.to_be_signed == certificate.bare.to_be_signed


def test_what_a_client_received_survives_fifty_kills(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    moments = random.Random(SEED)  # noqa: S311 - moments, not secrets
    ana, fresh = keys.make(tmp_path, name="ana"), keys.make(tmp_path, name="fresh")
    made = run("init", tmp_path / "ca", "--origin", ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub")
    assert made.code == 0, made.err
    clients = [Client(ana, fresh) for _ in range(CLIENTS)]

    for _ in range(KILLS):
        server = Running(tmp_path / "ca")  # it starts, so it found the log whole
        crash(server, clients, moments.uniform(0, LONGEST))

    received = [line for client in clients for line in client.received]
    log = open_log(tmp_path / "ca", lambda _path: b"")
    checkpoint = log.check()
    assert checkpoint is not None
    assert len(received) > KILLS, "there was load"
    assert len({SignedCertificate.parse_line(line).certificate.serial for line in received}) == len(received)
    assert [line for line in received if not is_logged(log, line)] == []
    verified = run("log", "verify", tmp_path / "ca")
    assert verified.code == 0, verified.err

    repeated_requests_are_answered_as_before(tmp_path / "ca", clients, log)


def repeated_requests_are_answered_as_before(directory: Path, clients: list[Client], log: Log) -> None:
    """Who was cut off asks again with the same statement: one entry, whether or not it was logged before."""
    server = Running(directory)
    requests = [client.unanswered[-1] for client in clients]
    answers = [server.ask(request) for request in requests]
    size = log.store.size()
    assert [server.ask(request) for request in requests] == answers
    assert log.store.size() == size
    assert all(status == 201 and is_logged(log, answer["certificate"]) for status, answer in answers)
    assert server.stops() == 0


def test_a_log_that_lost_its_last_commit_is_noticed(tmp_path: Path) -> None:
    """What this module's other test would find if a commit were answered before it is durable."""
    ana = keys.make(tmp_path, name="ana")
    assert run("init", tmp_path / "ca", "--origin", ORIGIN, "--person", "ana", "--key", tmp_path / "ana.pub").code == 0
    server = Running(tmp_path / "ca")
    shutil.copytree(tmp_path / "ca", tmp_path / "before")
    assert server.ask(body(ana, ana))[0] == 201
    server.kill()
    for name in ("jit-ssh.db", "jit-ssh.db-wal", "jit-ssh.db-shm"):
        shutil.copy(tmp_path / "before" / name, tmp_path / "ca" / name)
    refused = run("serve", tmp_path / "ca", "--listen", "127.0.0.1:0")
    assert refused.code == 1
    assert "this is an old copy" in refused.err
