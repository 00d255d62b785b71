"""Writing files in a person's home directory: a reader sees the whole old content or the whole new one, never a part."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces the file, durably. A crash leaves the old file, and perhaps a stray one whose name begins with a dot."""
    descriptor, stray = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(stray).replace(path)
    except BaseException:
        Path(stray).unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """The directory, for its owner alone, and the one above it, if that is new."""
    for directory in (path.parent, path):
        directory.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other jit-ssh processes out until the block ends, or this process does.

    `path` is a directory, or a file that is there for this alone and is made if it is missing.
    """
    descriptor = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
