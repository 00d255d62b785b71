"""How the shares of an emergency key reach their officers: on the screen, on sheets to print, or encrypted to their SSH keys.

No share is kept: each goes out once. What is written to a file is the caller's to print, send and destroy.
"""

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click

from ca.errors import Misconfigured
from ca.keys import PublicKey
from server.sealing import Sealed, sheet

_ENTER_SCREEN: Final = "\x1b[?1049h\x1b[2J\x1b[H"  # the other screen, which has no way to scroll back
_LEAVE_SCREEN: Final = "\x1b[2J\x1b[3J\x1b[H\x1b[?1049l"
_ASKED_BACK: Final = 2  # words of each share, to see that it was written down
_AGE: Final = frozenset({"ssh-ed25519", "ssh-rsa"})  # what age encrypts to


def on_screen(sealed: Sealed, origin: str) -> None:
    """Shows each officer their sheet, alone, and asks for some of its words. Raises `Misconfigured` without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misconfigured("the shares are shown on a terminal, and there is none", "See --sheets and --encrypted")
    for officer in sealed.shares:
        click.prompt(f"{officer} comes to the screen, and nobody else. Press Enter", default="", show_default=False)
        click.echo(_ENTER_SCREEN, nl=False)
        try:
            click.echo("\n".join(sheet(sealed, officer, origin)))
            click.prompt("\nCopy it by hand, then press Enter", default="", show_default=False)
        finally:
            click.echo(_LEAVE_SCREEN, nl=False)
        _ask_back(sealed.shares[officer].split())
        click.echo(f"{officer} has a share.")


def _ask_back(words: list[str]) -> None:
    for position in sorted(secrets.SystemRandom().sample(range(len(words)), _ASKED_BACK)):
        while click.prompt(f"From the sheet, word {position + 1}", hide_input=True).strip().lower() != words[position]:
            click.echo("That is another word. Look at the sheet again.")


def on_sheets(sealed: Sealed, origin: str, out: Path) -> None:
    """One file for each officer in the new directory `out`, to be printed. Raises `Misconfigured`."""
    _write(out, {f"share-{officer}.txt": "\n".join([*sheet(sealed, officer, origin), ""]).encode() for officer in sealed.shares})


def encrypted(sealed: Sealed, origin: str, out: Path, keys: Mapping[str, tuple[PublicKey, ...]]) -> None:
    """One file for each officer in the new directory `out`, which age opens with an SSH key of theirs. Raises `Misconfigured`."""
    files = {}
    for officer in sealed.shares:
        lines = [key.line for key in keys[officer] if key.algorithm in _AGE]
        if not lines:
            hint = f"Nothing was sealed. age takes {' and '.join(sorted(_AGE))}, no security keys: see --sheets"
            raise Misconfigured(f"{officer} has no key that a share can be encrypted to", hint)
        text = "\n".join([*sheet(sealed, officer, origin), ""]).encode()
        files[f"share-{officer}.age"] = _age()(text, lines)
    _write(out, files)


def _age() -> Callable[[bytes, list[str]], bytes]:
    import pyrage  # type: ignore[import-untyped]  # noqa: PLC0415 - 5 MB that nothing else needs; the library has no types

    def encrypt(text: bytes, lines: list[str]) -> bytes:
        return bytes(pyrage.encrypt(text, [pyrage.ssh.Recipient.from_str(line) for line in lines], armored=True))

    return encrypt


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    try:
        out.mkdir(mode=0o700)
        for name, content in files.items():
            with open(os.open(out / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a mode
                file.write(content)
    except OSError as error:
        raise Misconfigured(f"{out} cannot be made: {error.strerror}", "Name a directory that is not there yet") from error
