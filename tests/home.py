"""A person's machine for tests of `jit-ssh`: a private home directory, a private ssh-agent, a served CA, and a CA that lies.

Nothing of the machine's own is read or changed: HOME and SSH_AUTH_SOCK name directories of the test.
"""

import json
import os
import select
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ca.certificate import BACKDATE, NONCE_BYTES, Certificate, SignedCertificate
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.entry import IssueEntry
from ca.merkle import Frontier, consistency_proof, leaf_hash
from ca.proof import Proof, prove
from ca.signers.file import FileSigner
from ca.statement import RequestStatement, parse
from ca.trust import Trust
from ca.wire import Reader
from tests import keys

ROOT: Final = Path(__file__).parents[1]
PATIENCE: Final = 30.0  # seconds for anything here that is awaited
ORIGIN: Final = "ca.example.com"
JIT_SSH: Final = (sys.executable, "-c", "from cli.main import main; main()")


@dataclass(frozen=True)
class Home:
    """A home directory; `agent` is the socket of an ssh-agent, if there is one, `variables` are more of the environment."""

    path: Path
    agent: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> Path:
        return self.path / ".ssh" / "jit-ssh"

    @property
    def key(self) -> Path:
        return self.path / ".ssh" / "id_ed25519"

    def files(self) -> set[str]:
        """The names of all files of ours."""
        return {path.name for path in self.ours.glob("*")}

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in {"SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY"}}
        own = {"HOME": str(self.path), "PYTHONPATH": str(ROOT), "TZ": "UTC", "LANG": "C.UTF-8"}
        return kept | own | dict(self.variables) | ({"SSH_AUTH_SOCK": str(self.agent)} if self.agent else {})

    def run(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Runs `jit-ssh` as a program of its own; the caller judges its exit code."""
        program = [*JIT_SSH, *arguments]
        return subprocess.run(
            program, input=typed, capture_output=True, text=True, check=False, timeout=PATIENCE, env=self.environment
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator["Running"]:
        """`jit-ssh`, running beside the test without a terminal."""
        with running([*JIT_SSH, *arguments], self.environment) as program:
            yield program

    @contextmanager
    def on_terminal(self, *command: str) -> Iterator["Running"]:
        """A command with a terminal of its own, on which the test types."""
        spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
        with running([sys.executable, "-c", spawn, *command], self.environment) as program:
            yield program

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`; it must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@dataclass
class Running:
    """A program whose output is awaited, and that gets what is typed; `said` is what it has said so far."""

    program: subprocess.Popen[bytes]
    said: str = ""

    def expect(self, text: str) -> None:
        """Returns when it has said this, after what was expected before."""
        start, deadline = len(self.said), time.monotonic() + PATIENCE
        while text not in self.said[start:]:
            assert self._read(deadline), f"it did not say {text!r} but: {self.said}"

    def _read(self, deadline: float) -> bytes:
        assert self.program.stdout is not None
        ready, _, _ = select.select([self.program.stdout], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"it says nothing more than: {self.said}"
        read = os.read(self.program.stdout.fileno(), 65536)
        self.said += read.decode(errors="replace")
        return read

    def type(self, text: str) -> None:
        """Types; `\\x03` is Ctrl-C."""
        assert self.program.stdin is not None
        self.program.stdin.write(text.encode())
        self.program.stdin.flush()

    def end(self) -> int:
        """Its exit code, when it has ended; the rest of what it said is in `said`."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.program.wait(PATIENCE)


@contextmanager
def running(command: list[str], environment: Mapping[str, str]) -> Iterator[Running]:
    """The command, ended with the block at the latest."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment) as program:
        try:
            yield Running(program)
        finally:
            program.kill()


def make_home(path: Path, key: Path | None = None, agent: Path | None = None) -> Home:
    """A new home with a copy of `key` and its public half, or with a new one."""
    home = Home(path, agent)
    home.key.parent.mkdir(parents=True, mode=0o700)
    if key is None:
        keys.make(home.key.parent, name=home.key.name)
    else:
        for suffix in ("", ".pub"):
            shutil.copy(f"{key}{suffix}", f"{home.key}{suffix}")
    return home


@contextmanager
def ssh_agent() -> Iterator[Path]:
    """The socket of a private ssh-agent."""
    with tempfile.TemporaryDirectory(prefix="agent") as directory:  # a socket's path has at most 107 bytes
        path = Path(directory) / "socket"
        with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdout is not None
            agent.stdout.readline()  # it says its name when it listens
            try:
                yield path
            finally:
                agent.terminate()


def identities(agent: Path) -> list[str]:
    """What `ssh-add -L` prints of an agent, line by line."""
    environment = os.environ | {"SSH_AUTH_SOCK": str(agent)}
    done = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=False, env=environment)
    return [line for line in done.stdout.splitlines() if not line.startswith("The agent has no")]


# ------------------------------------------------------------ an honest CA


@dataclass(frozen=True)
class ServedCA:
    """A running `jit-ssh-ca serve`."""

    url: str
    fingerprint: str
    directory: Path


@contextmanager
def served_ca(directory: Path, people: str, files: Mapping[str, str], settings: str = "") -> Iterator[ServedCA]:
    """Makes a CA with jit-ssh-ca, gives it these policy files and lines of ca.toml, and serves it until the block ends."""
    admin = [sys.executable, "-c", "from server.admin import main; main()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [*admin, "init", str(directory), "--origin", ORIGIN], capture_output=True, text=True, check=True, env=environment
    )
    fingerprint = made.stdout.partition("--fingerprint ")[2].split()[0]
    for stale in [*(directory / "policies" / "roles").glob("*.toml"), directory / "policies" / "break-glass.toml"]:
        stale.unlink()
    for name, text in ({"people.toml": people} | dict(files)).items():
        (directory / "policies" / name).write_text(text)
    with (directory / "ca.toml").open("a") as file:
        file.write(settings)
    command = [*admin, "serve", str(directory), "--listen", "127.0.0.1:0"]
    with (
        (directory / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as server,
    ):
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert " on http" in line, (directory / "server.log").read_text()
            yield ServedCA(line.split()[-1], fingerprint, directory)
        finally:
            server.terminate()
            server.wait(PATIENCE)


# ------------------------------------------------------------ a CA that lies

Answer = tuple[int, Mapping[str, str], bytes]  # status, headers, body


@dataclass
class LyingCA:
    """A CA played by a test: it answers as an honest one would, but for what the test has changed."""

    signer: FileSigner
    log: FileSigner
    hosts: list[str] = field(default_factory=lambda: ["web-*.example.com"])
    account: str = "root"
    role: str = "web"
    change_certificate: Callable[[Certificate], Certificate] = lambda certificate: certificate
    change_blob: Callable[[SignedCertificate], str] = lambda signed: signed.line
    change_answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
    answers: dict[str, Callable[[], Answer]] = field(default_factory=dict)  # by path, instead of the honest answer
    change_proof: Callable[[Proof], Proof | None] = lambda proof: proof
    history: bytes = b"honest"  # what the log's other entries are made of
    size: int = 40  # of the log that is shown
    consistency: bool = True  # whether the answer has the proof that the log continues what was seen
    requests: list[bytes] = field(default_factory=list)
    cut_answers: int = 0  # so many answers to requests are cut in the middle
    url: str = ""
    shown: tuple[bytes, Callable[[int, int], bytes]] = field(default=(b"", lambda _level, _position: b""))

    @property
    def trust(self) -> Trust:
        reader = Reader(self.log.public_key.blob, "the log key")
        reader.string()
        return Trust(origin=ORIGIN, ca_keys=(self.signer.public_key.line,), log_key=str(VerifierKey(ORIGIN, reader.string())))

    def honest(self, path: str) -> bytes:
        """The answer to a read."""
        if path == "/v1/ca":
            return self.trust.encode()
        assert path == "/v1/roles", path
        role = {
            "role": self.role,
            "about": "Web\x1b[2J",
            "owner": "sre",
            "default": True,
            "accounts": self._accounts(),
            "default_duration": 600,
            "max_duration": 3600,
            "permit": [],
            "outcome": "granted",
            "ways": [],
        }
        return json.dumps({"person": "ana", "groups": ["sre"], "auditor": False, "roles": [role]}).encode()

    def _accounts(self) -> list[dict[str, Any]]:
        return [{"account": self.account, "group": "web", "hosts": self.hosts}]

    def tree(self, size: int, entry: bytes = b"") -> tuple[bytes, Callable[[int, int], bytes]]:
        """The root of a log of this size, whose 19th entry is this one, and its nodes."""
        frontier, nodes = Frontier(), {}
        for index in range(size):
            leaf = leaf_hash(entry if index == 18 and entry else self.history + bytes([index]))
            nodes.update({(level, position): hash_ for level, position, hash_ in frontier.append(leaf)})
        return frontier.root(), lambda level, position: nodes[level, position]

    def note(self, size: int, root: bytes) -> str:
        """A checkpoint, signed by the log's key."""
        return sign_note(Checkpoint(ORIGIN, size, root).body(), self.trust.verifier, lambda message: self.log.sign(message)[-64:])

    def prove(self, certificate: Certificate) -> Certificate:
        """The certificate with the proof of its entry, with what the test has changed."""
        tbs = b64encode(certificate.to_be_signed).decode()
        entry = IssueEntry(index=18, time=1, actor="ana", role="web", request=17, tbs=tbs).encode()
        root, read = self.tree(self.size, entry)
        proof = self.change_proof(prove(entry, 18, self.size, read, self.note(self.size, root)))
        self.shown = root, read
        return replace(certificate, log_proof=None if proof is None else proof.encode())

    def issue(self, body: bytes, seen: int | None = None) -> bytes:
        """The answer to a request: a certificate as asked for, with what the test has changed."""
        asked = parse(json.loads(body)["statement"].encode())
        assert isinstance(asked, RequestStatement)
        now = int(time.time())
        certificate = self.change_certificate(
            Certificate(
                key=asked.public_key,
                serial=18,
                key_id=f"ana/{asked.role}/17",
                principals=("root@web",),
                valid_after=now - BACKDATE,
                valid_before=now + (asked.duration or 600),
                ca_key=self.signer.public_key,
                nonce=bytes(NONCE_BYTES),
            )
        )
        certificate = self.prove(certificate)
        signed = SignedCertificate(certificate, self.signer.sign(certificate.to_be_signed))
        answer = {
            "request": 17,
            "serial": certificate.serial,
            "person": "ana",
            "role": asked.role,
            "certificate": self.change_blob(signed),
            "valid_after": certificate.valid_after,
            "valid_before": certificate.valid_before,
            "until": certificate.valid_before,
            "status": "granted",
            "accounts": self._accounts(),
            "ways": [],
        }
        if seen is not None and self.consistency:
            answer["consistency"] = [step.hex() for step in consistency_proof(min(seen, self.size), self.size, self.shown[1])]
        return json.dumps(self.change_answer(answer)).encode()


def rewritten(signer: FileSigner, signed: SignedCertificate, old: bytes, new: bytes) -> str:
    """The line of a certificate in which the CA itself has written `new` for `old`: signed, and not as our encoder would."""
    tbs = signed.certificate.to_be_signed
    assert old in tbs
    changed = tbs.replace(old, new, 1)
    signature = signer.sign(changed)
    blob = changed + len(signature).to_bytes(4, "big") + signature
    return f"{signed.line.split()[0]} {b64encode(blob).decode()}"


@contextmanager
def lying(ca: LyingCA, tls: Path | None = None) -> Iterator[LyingCA]:
    """Serves it on a free port of loopback; with `tls`, a file of a certificate and its key, over TLS as localhost."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answer = ca.answers.get(path, lambda: (200, {}, ca.honest(path)))
            self._send(*answer())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            ca.requests.append(body)
            if len(ca.requests) <= ca.cut_answers:
                self.close_connection = True
                self.wfile.write(b'HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{"request":')
                return
            seen = parse_qs(urlsplit(self.path).query).get("seen")
            self._send(*ca.answers.get("/v1/requests", lambda: (201, {}, ca.issue(body, int(seen[0]) if seen else None)))())

        def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # a client that hangs up
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            ca.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{server.server_address[1]}"
            yield ca
        finally:
            server.shutdown()
            thread.join()
