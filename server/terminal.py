"""What the operator's commands share: the DIR they work on, and how an error of ours is told."""

import getpass
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Final, NoReturn, ParamSpec, TypeVar

import click

from ca.errors import JitSshError, Misconfigured, of_system
from ca.keys import PublicKey

_P = ParamSpec("_P")
_R = TypeVar("_R")
DIR: Final = click.argument("dir_", metavar="DIR", type=click.Path(path_type=Path))
PASSPHRASE_FILE: Final = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the keys' passphrase from the first line of this file instead of asking.",
)


def reports_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Prints an error of ours, or of the system, as `error:` and `hint:` and exits with 1."""

    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except JitSshError as error:
            _fail(error)
        except BrokenPipeError:  # whoever reads has enough: click ends without a word
            raise
        except OSError as error:
            _fail(Misconfigured(*of_system(error)))

    return wrapped


def asker(file: Path | None) -> Callable[[Path], bytes]:
    """What gives the passphrase of a key: the first line of `file`, or whoever sits at the terminal."""
    if file is not None:
        return lambda _path: file.read_bytes().partition(b"\n")[0]
    return lambda path: getpass.getpass(f"Passphrase of {path}: ").encode()


@contextmanager
def counted(values: Iterable[_R], total: int, doing: str) -> Iterator[Iterator[_R]]:
    """The same values; on a terminal, a bar on stderr says how many of `total` were taken."""
    if not sys.stderr.isatty():
        yield iter(values)
        return
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than most commands to run
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield iter(bar.track(values, total, description=doing))


def public_key(path: Path) -> PublicKey:
    """The key in a .pub file. Raises `Misconfigured`."""
    try:
        return PublicKey.parse_line(path.read_text())
    except (JitSshError, OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is not a public key: {error}", "Give the .pub file") from error


def _fail(error: JitSshError) -> NoReturn:
    for problem in error.problems if isinstance(error, Misconfigured) else ():
        click.echo(problem, err=True)
    click.echo(f"jit-ssh-ca: error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(1)
