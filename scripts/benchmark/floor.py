"""The least that an issuance could cost on this machine."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmark.figures import Times, timed
from benchmark.programs import command
from ca.ed25519 import verifies
from ca.sshsig import signed_bytes


def bare_cryptography(count: int) -> Times:
    """What no CA can leave out: the person's signature, the proof of possession, the CA's signature and the check of it."""
    key, message = Ed25519PrivateKey.generate(), signed_bytes(b"statement")
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)

    def once() -> None:
        verifies(public, signature, message)
        verifies(public, signature, message)
        verifies(public, key.sign(message), message)

    return timed(once, count)


def bare_cryptography_by_openssl(count: int) -> Times:
    """The same without libsodium: what it cost before that verified."""
    key, message = Ed25519PrivateKey.generate(), signed_bytes(b"statement")
    public, signature = key.public_key(), key.sign(message)

    def once() -> None:
        public.verify(signature, message)
        public.verify(signature, message)
        public.verify(key.sign(message), message)

    return timed(once, count)


def bare_verification(count: int) -> Times:
    """One signature, as ten of them take it."""
    key, message = Ed25519PrivateKey.generate(), signed_bytes(b"statement")
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    return [each / 10 for each in timed(lambda: [verifies(public, signature, message) for _ in range(10)], count)]


def bare_cryptography_everywhere(count: int) -> Times:
    """The same on every processor at once, as under load: neighbours often share one core and slow each other."""
    processors = os.cpu_count() or 1
    with ProcessPoolExecutor(processors, mp_context=get_context("fork")) as pool:
        return [time for times in pool.map(bare_cryptography, [count] * processors) for time in times]


def durable_write(directory: Path, count: int) -> Times:
    """Four KiB at the end of a file, on disk."""
    with (directory / "written").open("wb", buffering=0) as file:

        def once() -> None:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())

        return timed(once, count)


def one_by_one(directory: Path, count: int) -> Times:
    """`ssh-keygen -s`, a program for each certificate: no policy, no log, nothing durable."""
    for name in ("keygen-ca", "keygen-key"):
        command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)])
    sign = ["ssh-keygen", "-q", "-s", str(directory / "keygen-ca"), "-I", "ana/dev/1", "-n", "ana@dev"]
    return timed(lambda: command([*sign, "-V", "+8h", "-z", "1", str(directory / "keygen-key.pub")]), count)
