"""What the kit says and asks. Answers come from the terminal alone: what is piped in was in a file or a history before."""

import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from breakglass.stop import Stop

_LOCAL_FLAGS: Final = 3  # where termios keeps them


def say(text: str) -> None:
    """One line for whoever sits there; stdout has nothing but the result."""
    print(text, file=sys.stderr, flush=True)


def need_terminal() -> None:
    """Raises `Stop` without one."""
    if not sys.stdin.isatty():
        raise Stop("the shares are typed on a terminal, and there is none", "Run it by hand, not from a script or a pipe")


def ask(question: str) -> str:
    """An answer. Raises `EOFError` at the end of input, `KeyboardInterrupt` at Ctrl-C."""
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


@contextmanager
def hidden() -> Iterator[None]:
    """Nothing that is typed shows, also between two questions; and Ctrl-Z leaves no shares behind in a stopped process."""
    before = termios.tcgetattr(sys.stdin)
    silent = [*before]
    silent[_LOCAL_FLAGS] = before[_LOCAL_FLAGS] & ~termios.ECHO
    stopped = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGTSTP, stopped)


def ask_hidden(question: str) -> str:
    """An answer within `hidden`. Raises like `ask`."""
    try:
        return ask(question)
    finally:
        say("")  # the line feed that was typed did not show either
