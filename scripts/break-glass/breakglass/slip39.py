"""The officers' shares (SLIP-39): typed word by word, checked at once, and put together in memory.

The library is no secret, but opens its word list by path, which fails inside a zip file: it is unpacked first.
"""

import sys
import zipfile
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from breakglass.stop import Stop
from breakglass.terminal import ask_hidden, hidden, say
from ca.kit import Facts, share_fingerprint

WORDS: Final = 33  # of a share of 256 bits
_SHORTEST: Final = 4  # letters that tell any word of the list from any other
_SLOWEST: Final = 4  # 160,000 rounds; a hostile share could ask for a day's work
_LIBRARY: Final = "slip39/"  # in the kit, out of the way of `import`


@dataclass(frozen=True)
class Shares:
    """What was typed, and the key that it makes. Never shown: a traceback prints no field."""

    mnemonics: list[str] = field(repr=False)
    seed: bytearray = field(repr=False)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Whose shares they were."""
        return tuple(share_fingerprint(each) for each in self.mnemonics)

    def forget(self) -> None:
        """Python keeps copies that cannot be reached; the process ends soon after, and its memory with it."""
        self.mnemonics.clear()
        for at in range(len(self.seed)):
            self.seed[at] = 0


def unpack(archive: Path, private: Path) -> ModuleType:
    """The library, out of the kit into the private directory."""
    with zipfile.ZipFile(archive) as kit:
        kit.extractall(private, [name for name in kit.namelist() if name.startswith(_LIBRARY)])
    sys.path.insert(0, str(private / _LIBRARY))
    return import_module("shamir_mnemonic")


def gather(facts: Facts, library: ModuleType) -> Shares:
    """Asks one officer after another. Raises `Stop` for shares that do not belong together."""
    say(f"Now {facts.quorum} of {', '.join(facts.officers)} type the {WORDS} words of their share, in any order of officers.")
    say("Nothing is shown. The first four letters of a word are enough, Enter may come after any word, an empty line starts")
    say("the share again, and Ctrl-C ends everything.")
    mnemonics: list[str] = []
    indices: set[int] = set()
    with hidden():
        while len(mnemonics) < facts.quorum:
            mnemonic = _typed(f"share {len(mnemonics) + 1} of {facts.quorum}", library)
            share = _share(mnemonic, facts, library)
            if isinstance(share, str):
                say(f"  {share}")
            elif share.index in indices:
                say("  This share was typed already: it is the next officer's turn.")
            else:
                mnemonics.append(mnemonic)
                indices.add(share.index)
                say("  Its words fit together.")
    try:
        return Shares(mnemonics, bytearray(library.combine_mnemonics(mnemonics)))
    except library.MnemonicError:
        raise wrong_set() from None  # the library's words may quote the share


def wrong_set() -> Stop:
    """Each share is sound by itself, and they are not of one key. Which one is wrong cannot be told, and is not guessed."""
    return Stop("these shares do not make this kit's key together", "Bring the shares of the newest sealing, and start again")


def _typed(what: str, library: ModuleType) -> str:
    """The words of one share, each of them of the list."""
    known: list[str] = library.share.wordlist.WORDLIST
    words: list[str] = []
    while len(words) < WORDS:
        typed = ask_hidden(f"{what}, from word {len(words) + 1} of {WORDS} on: ").lower().split()
        if not typed:
            words.clear()
            say(f"  {what} starts again.")
        for word in typed:
            if (found := _completed(word, known)) is None:
                say(f"  Word {len(words) + 1} is not in the list; those before it are. Go on with word {len(words) + 1}.")
                break
            words.append(found)
        if len(words) > WORDS:
            words.clear()
            say(f"  That is more than {WORDS} words: {what} starts again.")
    return " ".join(words)


def _completed(word: str, known: list[str]) -> str | None:
    begun = [each for each in known if each == word or (len(word) >= _SHORTEST and each.startswith(word))]
    return begun[0] if len(begun) == 1 else None


def _share(mnemonic: str, facts: Facts, library: ModuleType) -> Any:
    """The share, or the sentence that says what is wrong with it; the library is untyped, hence `Any`."""
    try:
        share = library.Share.from_mnemonic(mnemonic)
    except library.MnemonicError:  # its words would quote the share
        return "The words are of the list, but one is another than on the sheet, or two are in the wrong order: type it again."
    if share.identifier != facts.shares_id:
        return "This is a share of another kit, or from before the last rotation: look for the newest sheet."
    ours = (1, 1, facts.quorum, 32)
    if (share.group_threshold, share.group_count, share.member_threshold, len(share.value)) != ours:
        return "This share was made for something else: look for the newest sheet."
    return share if share.iteration_exponent <= _SLOWEST else "This share was not made by jit-ssh-ca: look for the newest sheet."
