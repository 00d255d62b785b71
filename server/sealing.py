"""Makes an emergency key and takes it apart at once: its shares are the only copies, and none of them is written here.

The key is in this process for a moment. Shares are SLIP-39 (one group, no passphrase, extendable).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from shamir_mnemonic import Share as Slip39Share  # type: ignore[import-untyped]  # the library has no types
from shamir_mnemonic import combine_mnemonics, generate_mnemonics

from ca.errors import Malformed, Misconfigured
from ca.keys import PublicKey, ed25519_key
from ca.kit import Seal, Share, share_fingerprint

_LEAST: Final = 2  # one alone must not be able to use it, and one may be on holiday


@dataclass(frozen=True)
class Sealed:
    """The seal, and the words of each share by officer, which leave this process on paper or screens."""

    seal: Seal
    shares: dict[str, str] = field(repr=False)


def seal(officers: tuple[str, ...], quorum: int) -> Sealed:
    """A fresh key in as many shares as officers, `quorum` of which make it again; they were tried before this returns.

    Raises `Misconfigured` for a quorum that one alone meets, or that cannot be met.
    """
    if len(set(officers)) != len(officers) or not _LEAST <= quorum <= len(officers):
        raise Misconfigured(
            f"a quorum of {quorum} of {len(set(officers))} officers is not sound",
            f"Name each officer once, and a quorum from {_LEAST} to their number",
        )
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes_raw()
    mnemonics = generate_mnemonics(1, [(quorum, len(officers))], secret)[0]
    shares = dict(zip(officers, mnemonics, strict=True))
    for some in (mnemonics[:quorum], mnemonics[-quorum:]):
        if combine_mnemonics(some) != secret:
            raise Misconfigured("the shares do not make the key again", "Nothing was sealed; try again")
    try:
        sealed = Seal(
            key=ed25519_key(key.public_key().public_bytes_raw()).line,
            quorum=quorum,
            shares=tuple(Share(officer=name, fingerprint=share_fingerprint(words)) for name, words in shares.items()),
            shares_id=Slip39Share.from_mnemonic(mnemonics[0]).identifier,
        )
    except Malformed as error:
        raise Misconfigured(f"this cannot be sealed: {error.message}", error.hint) from error
    return Sealed(sealed, shares)


def seal_hardware(path: Path) -> Seal:
    """The seal of a security key whose public half is in a file. Raises `Misconfigured` for another kind of key."""
    try:
        key = PublicKey.parse_line(path.read_text())
    except (OSError, UnicodeDecodeError, Malformed) as error:
        raise Misconfigured(f"{path} is not a public key", "Give the .pub file of: ssh-keygen -t ed25519-sk") from error
    if not key.hardware:
        raise Misconfigured(f"{path} is not of a security key", "Without --security-key a key is made and split into shares")
    return Seal(key=key.line, quorum=1, shares=())


def sheet(sealed: Sealed, officer: str, origin: str) -> Iterator[str]:
    """The lines of one officer's sheet, to be printed or copied by hand."""
    words = sealed.shares[officer].split()
    yield f"BREAK-GLASS SHARE of {officer} for {origin}"
    yield ""
    for at in range(0, len(words), 3):
        yield "   ".join(f"{number:2}. {word:<10}" for number, word in enumerate(words[at : at + 3], start=at + 1)).rstrip()
    yield ""
    yield f"Any {sealed.seal.quorum} of {', '.join(sealed.shares)} open the emergency key together."
    yield f"Emergency key: {PublicKey.parse_line(sealed.seal.key).fingerprint}"
    yield f"This share:    {share_fingerprint(sealed.shares[officer])[:16]}"
    yield "Keep it where only you find it, not in a photo, a mail or a password manager of the company."
    yield "Destroy it when a new sealing replaces it. Type it into nothing but the break-glass kit."
