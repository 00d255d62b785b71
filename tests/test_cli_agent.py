"""Keys in ssh-agent: judged by a real ssh-agent, by a real sshd, and by agents that do not do what they are told."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.certificate import BACKDATE, NONCE_BYTES, Certificate, SignedCertificate
from ca.keys import ed25519_key
from ca.signers.agent_socket import Agent
from ca.signers.file import FileSigner
from ca.wire import string, u32
from cli import agent as agents
from cli import sshconfig
from cli.accounts import Account
from cli.directory import Directory
from cli.sshconfig import Offer
from tests import keys, sshd
from tests.home import identities, ssh_agent


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FileSigner:
    return keys.make(tmp_path_factory.mktemp("ca"), name="ca")


@pytest.fixture
def agent() -> Iterator[Agent]:
    with ssh_agent() as path:
        yield Agent(path)


def issue(ca: FileSigner, role: str = "web", account: str = "root") -> tuple[Ed25519PrivateKey, SignedCertificate]:
    key, now = Ed25519PrivateKey.generate(), int(time.time())
    certificate = Certificate(
        key=ed25519_key(key.public_key().public_bytes_raw()),
        serial=18,
        key_id=f"ana/{role}/17",
        principals=(f"{account}@web",),
        valid_after=now - BACKDATE,
        valid_before=now + 600,
        ca_key=ca.public_key,
        nonce=os.urandom(NONCE_BYTES),
    )
    return key, SignedCertificate(certificate, ca.sign(certificate.to_be_signed))


def test_the_agent_holds_key_and_certificate_and_no_key_alone(ca: FileSigner, agent: Agent) -> None:
    key, signed = issue(ca)
    assert agents.add(agent, key, signed, "jit-ssh:web", 600)
    assert [line.split()[:2] for line in identities(agent.path)] == [signed.line.split()[:2]]


def test_the_agent_forgets_it_when_its_time_is_over(ca: FileSigner, agent: Agent) -> None:
    key, signed = issue(ca)
    assert agents.add(agent, key, signed, "jit-ssh:web", 1)
    deadline = time.monotonic() + 20
    while identities(agent.path) and time.monotonic() < deadline:
        time.sleep(0.05)  # an agent announces nothing
    assert identities(agent.path) == []


def test_removing_a_role_leaves_every_other_identity(ca: FileSigner, agent: Agent, tmp_path: Path) -> None:
    own = sshd.make_key(tmp_path / "own")
    environment = os.environ | {"SSH_AUTH_SOCK": str(agent.path)}
    subprocess.run(["ssh-add", "-q", str(own)], check=True, env=environment, capture_output=True)
    other_ca = keys.make(tmp_path, name="other-ca")
    web, db, foreign = issue(ca), issue(ca, "db"), issue(other_ca)
    for key, signed in (web, db, foreign):
        assert agents.add(agent, key, signed, "x", 600)
    found = agents.of_role(agent, "web", [ca.public_key])
    assert found == [web[1].blob]
    assert agents.remove(agent, found) == 1
    assert agents.remove(agent, found) == 0
    assert len(identities(agent.path)) == 3


def test_sshd_admits_with_the_certificate_even_when_the_agent_has_many_other_keys(
    ca: FileSigner, agent: Agent, tmp_path: Path
) -> None:
    """An sshd ends the conversation after six keys: ours has to come first."""
    environment = os.environ | {"SSH_AUTH_SOCK": str(agent.path)}
    for number in range(8):
        own = sshd.make_key(tmp_path / f"own-{number}")
        subprocess.run(["ssh-add", "-q", str(own)], check=True, env=environment, capture_output=True)
    account = sshd.current_account()
    key, signed = issue(ca, account=account)
    assert agents.add(agent, key, signed, "jit-ssh:web", 600)
    directory = Directory(tmp_path / "jit-ssh")
    directory.path.mkdir()
    directory.of_role("web", "-cert.pub").write_text(signed.line)
    directory.hook.write_text(sshconfig.hook())
    account_there = Account(account, "web", ("127.0.0.1",))
    text = sshconfig.render(directory, [Offer("web", (account_there,), 4_000_000_000, str(agent.path))])
    (tmp_path / "ca.pub").write_text(ca.public_key.line + "\n")
    with sshd.trusting(tmp_path / "sshd", tmp_path / "ca.pub", ["web"]) as server:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(server.known_hosts_line)
        config = tmp_path / "config"
        config.write_text(f'{text}\nHost *\nUserKnownHostsFile "{known_hosts}"\nBatchMode yes\nPort {server.port}\n')
        command = ["ssh", "-F", str(config), f"{account}@127.0.0.1", "echo in"]
        entered = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
        assert (entered.stdout, entered.returncode) == ("in\n", 0), entered.stderr
        agents.remove(agent, [signed.blob])
        kept_out = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
        assert kept_out.returncode == 255


# ------------------------------------------------- agents that play another part


class FakeAgent:
    """Says yes to every request and keeps what `keeps` makes of an added identity; gnome-keyring once kept the plain key."""

    def __init__(self, path: Path, keeps: bytes | None) -> None:
        self.path = path
        self.keeps = keeps
        self.held: list[bytes] = []

    def answer(self, packet: bytes) -> bytes:
        kind, body = packet[0], packet[1:]
        if kind == 25 and self.keeps is not None:
            self.held.append(self.keeps)
        if kind == 18:
            self.held = [blob for blob in self.held if string(blob) != body]
        if kind == 11:
            return b"\x0c" + u32(len(self.held)) + b"".join(string(blob) + string("x") for blob in self.held)
        return b"\x06"

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            with channel:
                length = int.from_bytes(channel.recv(4, socket.MSG_WAITALL), "big")
                if length:
                    channel.sendall(string(self.answer(channel.recv(length, socket.MSG_WAITALL))))


@contextmanager
def playing(fake: FakeAgent) -> Iterator[Agent]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(fake.path))
        listener.listen()
        thread = threading.Thread(target=fake.serve, args=(listener,))
        thread.start()
        try:
            yield Agent(fake.path)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("keeps", ["nothing", "the plain key"])
def test_an_agent_that_says_yes_and_does_not_hold_the_certificate_is_found_out(
    ca: FileSigner, keeps: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key, signed = issue(ca)
    fake = FakeAgent(tmp_path_factory.mktemp("a") / "s", signed.certificate.key.blob if keeps == "the plain key" else None)
    with playing(fake) as agent:
        assert not agents.add(agent, key, signed, "jit-ssh:web", 600)
    assert fake.held == []


def test_an_agent_that_is_gone_holds_nothing(ca: FileSigner, tmp_path: Path) -> None:
    key, signed = issue(ca)
    assert not agents.add(Agent(tmp_path / "gone"), key, signed, "jit-ssh:web", 600)


def test_an_agent_that_answers_nonsense_holds_nothing(ca: FileSigner, tmp_path_factory: pytest.TempPathFactory) -> None:
    class Nonsense(FakeAgent):
        def answer(self, packet: bytes) -> bytes:
            return super().answer(packet)[:1] + b"\xff\xff"

    key, signed = issue(ca)
    with playing(Nonsense(tmp_path_factory.mktemp("a") / "s", None)) as agent:
        assert not agents.add(agent, key, signed, "jit-ssh:web", 600)
