"""A host that was installed with `--verify-log`, and what a thief of the CA's key can make to enter it.

Needs root: sshd runs only a program that root owns, below directories that nobody else may write.
"""

import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ca.certificate import Certificate, SignedCertificate
from ca.checkpoint import Checkpoint, VerifierKey, sign_note
from ca.cosignature import WitnessKey, attach, cosign
from ca.merkle import leaf_hash
from ca.proof import Proof, carried
from ca.wire import Reader
from cli import host_verify
from tests import keys, sshd
from tests.keys import Key
from tests.sshd import Sshd, install_host
from tests.world import World, certificate

ACCOUNT: Final = "root"


@dataclass(frozen=True)
class Host:
    """A running sshd that verifies, the CA that it trusts, and a certificate that is in the log."""

    sshd: Sshd
    world: World
    fresh: Key
    genuine: SignedCertificate
    other: SignedCertificate  # of the same person, for another key
    other_log: Key  # of a log of the thief's own
    witnesses: tuple[WitnessKey, ...]
    sign_as: tuple[Key, ...]  # the witnesses' keys

    @property
    def directory(self) -> Path:
        return self.sshd.prefix / "jit-ssh"

    def signed(self, said: Certificate) -> SignedCertificate:
        """By the stolen key, whatever it says."""
        return SignedCertificate(said, self.world.signer.sign(said.to_be_signed))

    def with_proof(self, proof: Proof | str) -> SignedCertificate:
        """The genuine certificate with another proof."""
        return self.signed(replace(self.genuine.certificate, log_proof=proof if isinstance(proof, str) else proof.encode()))

    def by_log(self, name: str, key: Key, origin: str = "") -> SignedCertificate:
        """A log of one's own, with the entry in it at the right place; its checkpoint may be of another `origin`."""
        source, index = carried(self.genuine).entry, self.genuine.certificate.serial
        path = tuple(leaf_hash(b"%d" % step) for step in range(index.bit_count()))  # to the root from a log's last leaf
        root = host_verify.root_above(source, index, index + 1, list(path))
        note = sign_note(Checkpoint(origin or name, index + 1, root).body(), VerifierKey(name, raw_key(key)), raw_signer(key))
        return self.with_proof(Proof(source, index, path, note))

    def cosigned(self, *witnesses: int) -> SignedCertificate:
        """The genuine certificate under a checkpoint that these of the witnesses cosigned."""
        proof = carried(self.genuine)
        text = proof.note.partition("\n\n")[0] + "\n"
        lines = [cosign(text, self.witnesses[at], 1_800_000_000, raw_signer(self.sign_as[at])) for at in witnesses]
        return self.with_proof(replace(proof, note=attach(proof.note, lines)))


def raw_key(key: Key) -> bytes:
    return Reader(key.public_key.fields, "key").string()


def raw_signer(key: Key) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        reader = Reader(key.sign(message), "signature")
        reader.string()
        return reader.string()

    return sign


@contextmanager
def directory_of_root() -> Iterator[Path]:
    """A directory that every account may look into: not below /tmp, which everybody may write."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def verifying_host() -> Iterator[Host]:
    """A host of the group web with the account root, and two certificates of ana's that enter it."""
    with directory_of_root() as directory:
        world = World(directory, time.time())
        fresh, more, *others = (keys.make(directory, name=each) for each in ("fresh", "more", "other_log", "w1", "w2"))
        genuine, other = (certificate(world.ask("ana", key)) for key in (fresh, more))
        witnesses = tuple(WitnessKey(f"w{at}.example", raw_key(key)) for at, key in enumerate(others[1:]))
        prefix = sshd.make_prefix(directory / "etc", "MaxAuthTries 60")
        ran = install(prefix, world)
        assert ran.returncode == 0, ran.stderr
        with sshd.running(prefix) as running:
            yield Host(running, world, fresh, genuine, other, others[0], witnesses, tuple(others[1:]))
        world.store.close()


def install(prefix: Path, world: World, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs install-host there, which must verify."""
    usual = ["--ca", world.signer.public_key.line, "--group", "web", "--account", ACCOUNT]
    return install_host(prefix, *usual, "--verify-log", str(world.ca.log.key), *more)


def enters(host: Host, *blobs: bytes) -> bool:
    """Whether the real ssh gets in with one of these certificates."""
    options = []
    for at, blob in enumerate(blobs):
        path = host.world.directory / f"id-{at}-cert.pub"
        path.write_text(f"ssh-ed25519-cert-v01@openssh.com {b64encode(blob).decode()}\n")
        options += ["-o", f"CertificateFile={path}"]
    ran = sshd.ssh(host.sshd, ACCOUNT, *options, "echo inside", identity=host.world.directory / "fresh")
    assert ran.returncode == 0 or "Permission denied" in ran.stderr, ran.stderr
    return ran.stdout == "inside\n"
