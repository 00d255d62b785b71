"""The person's own SSH key: which ones there are, and their signatures, made by `ssh-keygen -Y sign`.

ssh-keygen knows every key type, agents, passphrases, security keys and their PINs; the private key never enters this process.
"""

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ca.errors import JitSshError, Malformed, SignerFailed
from ca.keys import PublicKey
from ca.signers.agent_socket import Agent
from ca.sshsig import NAMESPACE, SshSig
from cli import files
from cli.output import talk

_PATIENCE: Final = 110.0  # seconds for a passphrase or a touch; afterwards the statement would be stale anyway


def sign(key: str, message: bytes) -> SshSig:
    """The signature over `message` by the key that `ssh-keygen -f` finds at `key`. Raises `SignerFailed`."""
    hint = f"Is {key} there, or loaded in your agent (ssh-add -l)? Choose another key with: jit-ssh setup URL --key KEY"
    if _is_hardware(key):
        talk("Touch your security key to sign")
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", key]
    try:
        done = subprocess.run(command, input=message, capture_output=True, check=True, timeout=_PATIENCE)
        signed = SshSig.parse_armored(done.stdout.decode())
        signed.verify(message)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise SignerFailed(f"your key {key} did not sign: {said[-1] if said else 'ssh-keygen failed'}", hint) from error
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError, JitSshError) as error:
        raise SignerFailed(f"your key {key} did not sign: {error}", hint) from error
    return signed


def _is_hardware(key: str) -> bool:
    try:
        return read_public(Path(key)).hardware
    except (JitSshError, OSError):
        return False


@dataclass(frozen=True)
class Candidate:
    """A key that could sign for the person; `path` is None when only an agent has it."""

    key: PublicKey
    path: Path | None
    comment: str

    def __str__(self) -> str:
        return f"{self.key.algorithm} {self.key.fingerprint} {self.path or f'{self.comment} (agent)'}"

    def usable(self, public_half: Path) -> str:
        """What `ssh-keygen -f` gets; for a key that only an agent has, its public half is written to `public_half`."""
        if self.path is not None:
            return str(self.path)
        files.write(public_half, f"{self.key.line}\n".encode())
        return str(public_half)


def candidates(ssh_directory: Path) -> list[Candidate]:
    """The keys of `~/.ssh/id_*.pub` and of the agent, each once."""
    found: dict[PublicKey, Candidate] = {}
    for candidate in (*_from_files(sorted(ssh_directory.glob("id_*.pub"))), *_from_agent()):
        found.setdefault(candidate.key, candidate)
    return list(found.values())


def _from_files(paths: Iterable[Path]) -> Iterator[Candidate]:
    for path in paths:
        try:
            yield Candidate(read_public(path), path.with_suffix("") if path.with_suffix("").exists() else path, path.name)
        except (JitSshError, OSError):
            continue  # a certificate, or a type that no CA of ours would accept


def _from_agent() -> Iterator[Candidate]:
    agent = Agent.from_environment()
    try:
        identities = agent.identities() if agent else []
    except JitSshError:
        return
    for blob, comment in identities:
        try:
            yield Candidate(PublicKey.parse(blob), None, comment)
        except Malformed:
            continue


def choose(wanted: str, ssh_directory: Path) -> Candidate:
    """The key that a path or a `SHA256:` fingerprint names. Raises `SignerFailed`."""
    if wanted.startswith("SHA256:"):
        for candidate in candidates(ssh_directory):
            if candidate.key.fingerprint == wanted:
                return candidate
        raise SignerFailed(f"neither the agent nor {ssh_directory} has a key {wanted}", "List them with: ssh-add -l")
    path = Path(wanted).expanduser().absolute()
    try:
        return Candidate(read_public(path), path, path.name)
    except (JitSshError, OSError) as error:
        hint = "Give a private key, or the .pub file of one in the agent"
        raise SignerFailed(f"{path} cannot be read as an SSH key: {error}", hint) from error


def read_public(path: Path) -> PublicKey:
    """The public key of a `.pub` file, or of a private one: from the `.pub` beside it, else through ssh-keygen.

    Raises `OSError`, `Malformed`, `SignerFailed`.
    """
    beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    if beside.exists():
        return PublicKey.parse_line(beside.read_text(errors="replace"))
    path.stat()
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=False, timeout=_PATIENCE)
    if done.returncode:
        raise SignerFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "ssh-keygen failed")
    return PublicKey.parse_line(done.stdout.splitlines()[0])
