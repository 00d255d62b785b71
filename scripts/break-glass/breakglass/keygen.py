"""The emergency key at work: rebuilt into a private ssh-agent, or in a security key; `ssh-keygen` signs with either.

The private key is in this process for a moment, in the agent for `_LIFETIME` at most, and in no file.
"""

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from breakglass.slip39 import wrong_set
from breakglass.stop import Stop
from ca.errors import JitSshError, Malformed
from ca.journal import NAMESPACE, Certified
from ca.signers.agent_socket import SUCCESS, Agent
from ca.wire import Reader, decode_base64, string, u32, u64

_ADD_CONSTRAINED, _LIFETIME_FOLLOWS = 25, b"\x01"
_LIFETIME: Final = 180  # seconds: if this program is killed, the key goes all the same
_PERMIT: Final = "permit-pty"
_IDENTITY: Final = "break-glass"
_KEPT: Final = ("PATH", "HOME", "TERM", "SSH_SK_PROVIDER", "DISPLAY")  # of the environment, for ssh-keygen


class EmergencyKey:
    """Signs lines and certificates."""

    def __init__(self, line: str, private: Path, signs_with: Path, agent: Path | None, wrong: Stop) -> None:
        """`line` is the public key that was sealed, `signs_with` the file that ssh-keygen is given.

        `wrong` is what to say when its signatures are not by that key.
        """
        self._wrong = wrong
        self._blob = base64.b64decode(line.split()[1])
        self._private, self._signs_with, self._agent = private, signs_with, agent
        (private / "allowed").write_text(f"{_IDENTITY} {line}\n")

    def sign(self, message: bytes) -> bytes:
        """An SSHSIG's blob over a line of the journal, checked. Raises `Stop`."""
        armored = self._run("-Y", "sign", "-n", NAMESPACE, "-f", str(self._signs_with), message=message)
        (self._private / "signature").write_bytes(armored)
        files = ["-f", str(self._private / "allowed"), "-s", str(self._private / "signature")]
        try:
            self._run("-Y", "verify", "-n", NAMESPACE, "-I", _IDENTITY, *files, message=message)
        except Stop as error:
            raise self._wrong from error
        return decode_base64("".join(armored.decode().split("\n")[1:-2]), "the signature")

    def certify(self, said: Certified) -> str:
        """The certificate that the line says, as in a -cert.pub file; believed only when it is exactly that. Raises `Stop`."""
        with tempfile.TemporaryDirectory(dir=self._private) as directory:
            subject = Path(directory) / "key.pub"
            subject.write_text(said.key + "\n")
            how = ["-U"] if self._agent else []
            validity = f"{_keygen_time(said.valid_after)}:{_keygen_time(said.valid_before)}"
            self._run(
                *how, "-s", str(self._signs_with), "-I", said.key_id, "-n", ",".join(said.principals), "-V", validity,
                "-z", str(said.serial), "-O", "clear", "-O", _PERMIT, str(subject),
            )  # fmt: skip
            line = (Path(directory) / "key-cert.pub").read_text()
            self._run("-L", "-f", str(Path(directory) / "key-cert.pub"))  # it reads no certificate whose signature does not fit
        try:
            algorithm, encoded = line.split()[:2]
            _check_certificate(decode_base64(encoded, "the certificate"), said, self._blob)
        except (JitSshError, ValueError) as error:
            raise Stop(f"ssh-keygen made another certificate than was asked for: {error}", "Nothing is handed out") from error
        return f"{algorithm} {encoded} {said.key_id}\n"

    def _run(self, *arguments: str, message: bytes = b"") -> bytes:
        # Times are UTC for ssh-keygen; it gets no agent but ours, and speaks of touches and PINs on the terminal itself.
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment = kept | {"TZ": "UTC", "LC_ALL": "C"} | ({"SSH_AUTH_SOCK": str(self._agent)} if self._agent else {})
        errors = subprocess.PIPE if self._agent else None
        try:
            done = subprocess.run(
                ["ssh-keygen", *arguments], input=message, stdout=subprocess.PIPE, stderr=errors, check=True, env=environment
            )
        except OSError as error:
            raise Stop(f"ssh-keygen cannot be run: {error.strerror}", "Install OpenSSH's client programs") from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
            raise Stop(f"ssh-keygen did not do its part: {said[-1] if said else 'see above'}", "Nothing is handed out") from error
        return done.stdout


@contextmanager
def rebuilt(seed: bytearray, line: str, private: Path) -> Iterator[EmergencyKey]:
    """The key of this seed in an agent of its own, which ends with the block. Raises `Stop`."""
    public = private / "emergency.pub"
    public.write_text(line + "\n")
    path = private / "agent"
    command = ["ssh-agent", "-D", "-a", str(path)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise Stop(f"ssh-agent cannot be run: {error.strerror}", "Install OpenSSH's client programs") from error
    try:
        with process:
            try:
                if process.stdout is not None:
                    process.stdout.readline()  # it says where it listens, when it does
                _add(Agent(path), seed, line)
                yield EmergencyKey(line, private, public, path, wrong_set())
            finally:
                process.kill()
    except JitSshError as error:
        raise error if isinstance(error, Stop) else Stop(error.message, error.hint) from error


def in_hardware(path: Path, line: str, private: Path) -> EmergencyKey:
    """The security key whose private key file, which is of no use without it, is at `path`."""
    if not path.is_file():
        raise Stop(f"{path} is not there", "Name the file that was made with the security key: --security-key FILE")
    wrong = Stop(f"{path} is not of the security key that was sealed", "Use the file that was made when it was")
    return EmergencyKey(line, private, path.absolute(), None, wrong)


def _add(agent: Agent, seed: bytearray, line: str) -> None:
    public = Reader(base64.b64decode(line.split()[1]), "the emergency key")
    algorithm, point = public.text(), public.string()
    fields = string(algorithm) + string(point) + string(bytes(seed) + point) + string(_IDENTITY)
    agent.ask(_ADD_CONSTRAINED, fields + _LIFETIME_FOLLOWS + u32(_LIFETIME), SUCCESS)


def _keygen_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d%H%M%S")


def _check_certificate(blob: bytes, said: Certified, emergency: bytes) -> None:
    """Raises `Malformed` unless every byte but the nonce and the signature is as it has to be (PROTOCOL.certkeys)."""
    key = Reader(base64.b64decode(said.key.split()[1]), "the key")
    algorithm = key.text()
    reader = Reader(blob, "the certificate")
    expected_type = f"{algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com"
    if reader.text() != expected_type or len(nonce := reader.string()) < 16:
        raise Malformed("it is of another type")
    fields = base64.b64decode(said.key.split()[1])[4 + len(algorithm) :]
    principals = b"".join(string(principal) for principal in said.principals)
    expected = (
        string(expected_type) + string(nonce) + fields + u64(said.serial) + u32(1) + string(said.key_id) + string(principals)
        + u64(said.valid_after) + u64(said.valid_before) + string(b"") + string(string(_PERMIT) + string(b"")) + string(b"")
        + string(emergency)
    )  # fmt: skip
    reader.take(len(expected) - len(string(expected_type) + string(nonce)))
    if reader.so_far != expected:
        raise Malformed("a field differs")
    reader.string()
    reader.end()
