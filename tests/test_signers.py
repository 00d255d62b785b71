"""Signers: the same signature wherever the key lives, and a refusal in words when it cannot be used."""

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import pytest

from ca.errors import JitSshError, Malformed, Misconfigured, SignerFailed
from ca.keys import PublicKey
from ca.signers.agent import AgentSigner
from ca.signers.agent_socket import Agent
from ca.signers.file import FileSigner, create
from ca.signers.uri import open_signer
from ca.wire import string, u32
from tests import keys, policies
from tests.keys import EVERY_TYPE, TYPES, Kept
from tests.world import CountingSigner, World, certificate


def no_passphrase(path: Path) -> bytes:
    raise AssertionError(f"nobody should be asked for a passphrase of {path}")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A real ssh-agent of this test's own."""
    with keys.ssh_agent(tmp_path / "agent") as running:
        yield running


def add(agent: Agent, key: Path, *options: str) -> None:
    """`ssh-add`, with the software authenticator at hand."""
    environment = {**os.environ, **keys.PROVIDER, "SSH_AUTH_SOCK": str(agent.path)}
    subprocess.run(["ssh-add", "-q", *options, str(key)], check=True, capture_output=True, env=environment)


# ------------------------------------------------------------------------ file:


@pytest.mark.parametrize("kind", TYPES)
def test_a_key_file_of_every_type_signs(kind: str, every_key: Mapping[str, Kept]) -> None:
    path = every_key[kind].path
    signer = open_signer(f"file:{path.name}", path.parent, no_passphrase)
    signer.ready()
    assert signer.public_key == PublicKey.parse_line(path.with_suffix(".pub").read_text())
    signer.public_key.verify(signer.sign(b"a message"), b"a message")


def test_a_new_key_is_its_owners_alone_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ca"
    public_key = create(path, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileSigner(path, no_passphrase).public_key == public_key
    judged = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True).stdout
    assert PublicKey.parse_line(judged) == public_key
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create(path, None)
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create(tmp_path / "link", None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_with_a_passphrase_opens_with_that_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ca"
    public_key = create(path, b"correct horse")
    assert FileSigner(path, {path: b"correct horse"}.__getitem__).public_key == public_key
    for wrong in (b"", b"correct horse ", b"wrong"):
        with pytest.raises(Misconfigured, match="not a private key that this passphrase opens"):
            FileSigner(path, {path: wrong}.__getitem__)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601, 0o644])
def test_a_key_that_others_can_touch_is_not_used(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "ca"
    create(path, None)
    path.chmod(mode)
    with pytest.raises(Misconfigured) as caught:
        FileSigner(path, no_passphrase)
    assert f"mode {mode:04o}" in caught.value.message
    assert "chmod 600" in caught.value.hint
    path.chmod(0o600)
    FileSigner(path, no_passphrase)


@pytest.mark.root
def test_a_key_of_another_account_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "ca"
    create(path, None)
    os.chown(path, 65_534, 65_534)
    with pytest.raises(Misconfigured, match="can be read or written by others"):
        FileSigner(path, no_passphrase)


def test_what_is_no_private_key_is_not_used(tmp_path: Path, every_key: Mapping[str, Kept]) -> None:
    path = tmp_path / "ca"
    public = every_key["ed25519"].path.with_suffix(".pub").read_bytes()
    cut = every_key["ed25519"].path.read_bytes()[:-60]
    for content in (b"", b"\0" * 100, public, cut, b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(Misconfigured) as caught:
            FileSigner(path, lambda _path: b"")
        assert str(path) in caught.value.message
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(Misconfigured, match="cannot be read"):
            FileSigner(missing, no_passphrase)


@pytest.mark.filterwarnings("ignore:SSH DSA keys are deprecated")  # cryptography says so as it reads one; we refuse it
@pytest.mark.parametrize("options", [["-t", "rsa", "-b", "2048"], ["-t", "dsa"]])
def test_a_key_too_weak_to_certify_is_too_weak_to_sign(options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ca"
    subprocess.run(["ssh-keygen", "-q", "-N", "", *options, "-f", str(path)], check=True)
    with pytest.raises((Misconfigured, Malformed)):
        FileSigner(path, no_passphrase)


def test_a_security_keys_file_is_no_signer(every_key: Mapping[str, Kept]) -> None:
    """Its file holds no private key; only an agent signs with it."""
    with pytest.raises(Misconfigured, match="cannot be loaded"):
        FileSigner(every_key["sk-ed25519"].path, lambda _path: b"")


# ----------------------------------------------------------------------- agent:


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_an_agents_key_of_every_type_signs(kind: str, every_key: Mapping[str, Kept], agent: Agent) -> None:
    key = every_key[kind]
    add(agent, key.path)
    signer = open_signer(f"agent:{key.public_key.fingerprint}?socket={agent.path.name}", agent.path.parent, no_passphrase)
    signer.ready()
    assert signer.public_key == key.public_key
    assert signer.public_key.verify(signer.sign(b"a message"), b"a message") is kind.startswith("sk-")


def test_an_agent_signs_what_is_larger_than_a_packet_of_the_socket(every_key: Mapping[str, Kept], agent: Agent) -> None:
    key = every_key["ed25519"]
    add(agent, key.path)
    message = os.urandom(200_000)
    key.public_key.verify(AgentSigner(agent, key.public_key.fingerprint).sign(message), message)


def test_the_agent_is_found_by_its_environment_variable(
    every_key: Mapping[str, Kept], agent: Agent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = every_key["ed25519"]
    add(agent, key.path)
    uri = f"agent:{key.public_key.fingerprint}"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    assert open_signer(uri, tmp_path, no_passphrase).public_key == key.public_key
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(Misconfigured, match="SSH_AUTH_SOCK is not set"):
        open_signer(uri, tmp_path, no_passphrase)


def test_a_key_that_the_agent_does_not_hold_or_loses_does_not_sign(every_key: Mapping[str, Kept], agent: Agent) -> None:
    key, other = every_key["ed25519"], every_key["ecdsa-256"]
    add(agent, key.path)
    with pytest.raises(SignerFailed, match="does not hold"):
        AgentSigner(agent, other.public_key.fingerprint)
    signer = AgentSigner(agent, key.public_key.fingerprint)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent.path)})
    with pytest.raises(SignerFailed, match="does not hold"):
        signer.ready()
    with pytest.raises(SignerFailed, match="refused"):
        signer.sign(b"a message")


def test_a_certificate_in_the_agent_is_not_taken_for_its_key(every_key: Mapping[str, Kept], agent: Agent, tmp_path: Path) -> None:
    ca, key = every_key["ecdsa-256"], tmp_path / "id"
    shutil.copy(every_key["ed25519"].path, key)
    shutil.copy(every_key["ed25519"].path.with_suffix(".pub"), f"{key}.pub")
    subprocess.run(["ssh-keygen", "-q", "-s", str(ca.path), "-I", "x", "-n", "x", f"{key}.pub"], check=True)
    add(agent, key)
    assert len(agent.identities()) == 2
    held = [blob for blob, _comment in agent.identities()]
    assert AgentSigner(agent, every_key["ed25519"].public_key.fingerprint).public_key.blob in held


def test_an_agent_that_is_gone_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, tmp_path / ("x" * 200)):
        with pytest.raises(SignerFailed) as caught:
            AgentSigner(Agent(path), policies.key(1).fingerprint)
        assert str(path) in caught.value.message


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """An agent that says this to whatever it is asked, once, and hangs up."""
    with socket(AF_UNIX, SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            channel, _address = listener.accept()
            with channel:
                channel.recv(4096)
                channel.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


IDENTITY = string(policies.key(1).blob) + string("ana")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        u32(0),
        u32(100),
        u32(100) + b"\x0c",
        u32(2**32 - 1),
        u32(256 * 1024 + 1) + b"\x0c",
        u32(1) + b"\x05",
        u32(1) + b"\x0c",
        u32(5) + b"\x0c" + u32(2**32 - 1),
        u32(5 + 4) + b"\x0c" + u32(1) + u32(100),
        u32(5 + len(IDENTITY) - 1) + b"\x0c" + u32(1) + IDENTITY[:-1],
        u32(5) + b"\x0c" + u32(0),
        string(b"\x0c" + u32(1) + string(b"\xff" * 40) + string(b"\xff")),
    ],
    ids=repr,
)
def test_an_agent_that_talks_nonsense_is_no_signer(answer: bytes, tmp_path: Path) -> None:
    with answering(tmp_path / "agent", answer), pytest.raises(JitSshError) as caught:
        AgentSigner(Agent(tmp_path / "agent"), policies.key(1).fingerprint)
    assert isinstance(caught.value, SignerFailed | Malformed)


def test_an_agent_that_lists_the_key_among_nonsense_is_believed_only_by_its_signature(tmp_path: Path) -> None:
    listed = string(b"\x0c" + u32(2) + string(b"junk") + string(b"\xff\xfe") + IDENTITY)
    with answering(tmp_path / "agent", listed):
        signer = AgentSigner(Agent(tmp_path / "agent"), policies.key(1).fingerprint)
    assert signer.public_key == policies.key(1)


# ----------------------------------------------------------------------- the URI


@pytest.mark.parametrize(
    "uri", ["", "file", "file:", "agent:", "agent", "keys/ca", "pkcs11:token=x", "FILE:ca", "http://x", "env:CA_KEY", " file:ca"]
)
def test_a_signer_of_no_known_kind_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is not of a known kind"):
        open_signer(uri, tmp_path, no_passphrase)


# ------------------------------------------------ what the CA believes of a signer


class Lying:
    """A signer under a real public key whose every signature is `answer`."""

    at_once = True

    def __init__(self, public_key: PublicKey, answer: bytes) -> None:
        self.public_key = public_key
        self._answer = answer

    def sign(self, message: bytes) -> bytes:
        del message
        return self._answer

    def ready(self) -> None:
        """It says so."""


@pytest.mark.parametrize("answer", [b"", b"junk", string("ssh-ed25519") + string(bytes(64)), string("ssh-rsa") + string(b"x")])
def test_a_certificate_whose_signature_does_not_verify_never_leaves(answer: bytes, world: World) -> None:
    honest, body = world.signer, world.body("ana")
    world.signer = CountingSigner(Lying(honest.public_key, answer))
    world.open()
    refused = world.post(body)
    assert refused.status_code == 503
    assert refused.json is not None
    assert refused.json["code"] == "signer-failed"
    assert "certificate" not in refused.json
    world.check()
    world.signer = honest
    world.open()
    assert certificate(world.post(body)).certificate.serial == 3, "the lost answer, once the signer is well"


def test_a_ca_whose_key_is_in_an_agent_issues(world: World, agent: Agent) -> None:
    add(agent, world.directory / "ca")
    uri = f"agent:{world.signer.public_key.fingerprint}?socket={agent.path}"
    world.signer = CountingSigner(open_signer(uri, world.directory, no_passphrase))
    world.open()
    assert world.http.get("/readyz").status_code == 200
    certificate(world.ask("ana")).verify(world.signer.public_key)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent.path)})
    assert world.http.get("/readyz").status_code == 503
    assert world.ask("ana").status_code == 503
    world.check()
