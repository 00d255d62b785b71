"""Fixtures that more than one module uses."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from tests import keys
from tests.keys import Kept
from tests.world import World

# Whoever runs this in the background may have it ignored, and every program that is started here would inherit that.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    signal.signal(_number, _handler)

# The same examples in every run: a failure belongs to the change that is tested, not to chance or to a slow machine.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A CA with three people: ana (engineers, sre), bo (engineers), eve (security: the auditor)."""
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(scope="session")
def _worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.store.close()


@pytest.fixture
def lasting_world(_worlds: list[World], tmp_path_factory: pytest.TempPathFactory) -> World:
    """A CA that many tests share, so that a hostile request meets the log others left; a new one when it is long to check."""
    if not _worlds or _worlds[-1].store.size() > 60:
        _worlds.append(World(tmp_path_factory.mktemp("world")))
    return _worlds[-1]


@pytest.fixture(scope="session")
def every_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Kept]]:
    """One real key of each of `keys.EVERY_TYPE`."""
    directory = tmp_path_factory.mktemp("keys")
    with keys.ssh_agent(directory / "agent") as agent:
        yield {kind: keys.keep(directory, kind, agent) for kind in keys.EVERY_TYPE}
