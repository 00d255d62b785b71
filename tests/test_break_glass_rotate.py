"""`jit-ssh-ca break-glass rotate`: another key takes the place of the one before, which hosts may trust for a stated time."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ca.entry import SealEntry
from ca.store.sqlite import SqliteStore
from server import admin, directory, emergency
from tests.formats_example import FixedKey

OFFICERS = ("cy", "di", "eve")
DAY = 24 * 3600


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(admin.main, ["break-glass", *map(str, arguments)])


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A CA with three officers besides ana."""
    directory.create(tmp_path / "ca", "ca.example.com", ("ana", FixedKey(3).public_key), None)
    with (tmp_path / "ca" / "policies" / "people.toml").open("a") as people:
        for number, name in enumerate(OFFICERS, start=20):
            people.write(f'\n[people.{name}]\ngroups = []\nkeys = ["{FixedKey(number).public_key.line}"]\n')
    return tmp_path / "ca"


def seal(ca: Path, command: str, *more: str) -> Result:
    """`init` or `rotate` with two of three, each time into another directory of sheets."""
    sheets = ca.parent / f"sheets{len(list(ca.parent.iterdir()))}"
    return run(command, ca, "--officers", ",".join(OFFICERS), "--sheets", sheets, *more)


def newest(ca: Path) -> SealEntry:
    found = emergency.read(SqliteStore(ca / "jit-ssh.db")).seal
    assert found is not None
    return found


def test_a_new_seal_replaces_the_one_before_for_a_stated_time(ca: Path) -> None:
    assert seal(ca, "init").exit_code == 0
    first, now = newest(ca), time.time()
    told = seal(ca, "rotate", "--overlap", "7d")
    assert told.exit_code == 0, told.output
    found = newest(ca)
    assert found.replaces == first.index
    assert found.overlap is not None
    assert now + 7 * DAY <= found.overlap < time.time() + 8 * DAY
    assert found.overlap % DAY == 0, "hosts end a key at the beginning of a day"
    day = time.strftime("%Y%m%d", time.gmtime(found.overlap))
    assert f"--emergency 'THAT LINE' --emergency 'THE OLD LINE' --emergency-until {day}" in told.stdout
    assert first.seal.key in told.stdout
    assert found.seal.key in told.stdout
    assert CliRunner().invoke(admin.main, ["log", "verify", str(ca)]).exit_code == 0


def test_a_stolen_key_has_no_overlap(ca: Path) -> None:
    seal(ca, "init")
    told = seal(ca, "rotate", "--overlap", "0")
    assert told.exit_code == 0, told.output
    assert (newest(ca).overlap or 0) <= time.time()
    assert "--emergency-until" not in told.stdout


def test_the_kit_of_the_old_key_is_not_current_any_more(ca: Path, tmp_path: Path) -> None:
    seal(ca, "init")
    assert run("kit", ca, tmp_path / "kit").exit_code == 0
    assert "kit            " in run("status", ca).stdout
    seal(ca, "rotate")
    told = run("status", ca)
    assert "TO DO          there is no kit for the key sealed in entry 3" in told.stdout
    assert "replaced       the key of entry 1: hosts may trust it until" in told.stdout
    assert run("kit", ca, tmp_path / "another").exit_code == 0
    assert run("status", ca).stdout.count("TO DO") == 1, "the drill"


def test_a_kit_that_is_behind_the_policy_is_noticed(ca: Path, tmp_path: Path) -> None:
    seal(ca, "init")
    run("kit", ca, tmp_path / "kit")
    policy = ca / "policies" / "break-glass.toml"
    policy.write_text(policy.read_text().replace("certificates = 3", "certificates = 2"))
    assert "TO DO          the kit in entry 2 is not what break-glass.toml says now" in run("status", ca).stdout
    policy.write_text("groups = 5\n")
    told = run("status", ca)
    assert told.exit_code == 3
    assert "TO DO          no kit could be made now" in told.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "91d"), "an overlap of 91d is more than 90 days"),
        (("--overlap", "soon"), "'soon' is not a duration"),
        (("--overlap", "-1d"), "'-1d' is not a duration"),
        (("--quorum", "1"), "a quorum of 1 of 3 officers is not sound"),
        (("--encrypted", "x"), "give --sheets or --encrypted, not both"),
        (("--security-key", "x"), "give either --officers or --security-key"),
    ],
)
def test_what_cannot_be_sealed_changes_nothing(ca: Path, options: tuple[str, ...], words: str) -> None:
    seal(ca, "init")
    before = newest(ca)
    told = seal(ca, "rotate", *options)
    assert told.exit_code in (1, 2)
    assert words in told.stderr
    assert newest(ca) == before


def test_there_is_nothing_to_rotate_before_a_key_is_sealed(ca: Path) -> None:
    told = seal(ca, "rotate")
    assert told.exit_code == 1
    assert "no emergency key is sealed" in told.stderr
    assert seal(ca, "init").exit_code == 0
    assert "there is a sealed emergency key already" in seal(ca, "init").stderr
