"""Whether there is room on the disk, before it is full: a log that cannot be written issues nothing."""

import os
from pathlib import Path

from ca.errors import LogUnwritable

_MIB = 2**20


def demand_room(database: Path, least: int) -> None:
    """Raises `LogUnwritable` when fewer than `least` MiB are free where the database is."""
    disk = os.statvfs(database.parent)
    free = disk.f_bavail * disk.f_frsize // _MIB
    if free < least:
        raise LogUnwritable(
            f"{free} MiB are free beside {database.name}, fewer than the {least} that ca.toml keeps in reserve",
            "Make room on the disk before it is full: then nothing is issued",
        )
