"""Keeps what is typed out of core dumps, other processes and swap, as far as the system lets it; says where it does not."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CURRENT_AND_FUTURE: Final = 3  # MCL_CURRENT | MCL_FUTURE
_NOT_DUMPABLE: Final = 4  # PR_SET_DUMPABLE: no core dump, and no other process of this user may look in


def hide() -> Iterator[str]:
    """Does what can be done; a sentence for each thing that could not be."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.prctl(_NOT_DUMPABLE, 0, 0, 0, 0)
    if not _locked(libc) and _swaps():
        yield (
            "this system does not let the program lock its memory, so what is typed may reach the swap space; "
            "it is safe if swap is encrypted or off (swapoff -a)"
        )


def _locked(libc: ctypes.CDLL) -> bool:
    """Whether no page of this process goes to swap."""
    if sys.platform != "linux":
        return False
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    except (OSError, ValueError):
        return False
    # With a limit, memory that is asked for later could be refused in the middle of the work.
    return (hard == resource.RLIM_INFINITY or os.geteuid() == 0) and libc.mlockall(_CURRENT_AND_FUTURE) == 0


def _swaps() -> bool:
    """Whether this machine may write memory to a disk, as far as can be seen."""
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return True
