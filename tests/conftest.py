"""Fixtures that more than one module uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A CA with three people: ana (engineers, sre), bo (engineers), eve (security: the auditor)."""
    made = World(tmp_path)
    yield made
    made.store.close()
