"""What the kit says and asks. Answers come from the terminal alone: what is piped in was in a file or a history before."""

import getpass
import sys
import warnings

from breakglass.stop import Stop


def say(text: str) -> None:
    """One line for whoever sits there; stdout has nothing but the result."""
    print(text, file=sys.stderr, flush=True)


def need_terminal() -> None:
    """Raises `Stop` without one."""
    if not sys.stdin.isatty():
        raise Stop("the shares are typed on a terminal, and there is none", "Run it by hand, not from a script or a pipe")


def ask(question: str) -> str:
    """An answer that may be seen. Raises `EOFError` at the end of input, `KeyboardInterrupt` at Ctrl-C."""
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def ask_hidden(question: str) -> str:
    """An answer that is not shown. Raises like `ask`, and `Stop` where the terminal would show it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question)
        except getpass.GetPassWarning as error:
            raise Stop("this terminal cannot hide what is typed", "Use another terminal") from error
