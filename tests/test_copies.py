"""Backup and restore, as an operator does them: what is called a backup verifies, and no way back forgets what was signed."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ca.checkpoint import open_checkpoint
from ca.errors import JitSshError, LogDamaged, Misconfigured
from server import copies
from server.directory import OpenedCA, create, open_ca
from tests import keys
from tests.keys import Key
from tests.running import ORIGIN, Running, body, run


@pytest.fixture
def ana(tmp_path: Path) -> Key:
    return keys.make(tmp_path, name="ana")


@pytest.fixture
def ca(tmp_path: Path, ana: Key) -> Path:
    create(tmp_path / "ca", ORIGIN, ("ana", ana.public_key), None)
    return tmp_path / "ca"


def opened(directory: Path) -> OpenedCA:
    return open_ca(directory, lambda _path: b"")


def grow(directory: Path) -> int:
    """One more entry (a policy that changed); the log's size."""
    with (directory / "policies" / "people.toml").open("a") as file:
        file.write("#\n")
    made = opened(directory)
    try:
        return made.store.size()
    finally:
        made.store.close()
        made.on_call.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_backup_holds_all_but_the_keys(ca: Path, tmp_path: Path) -> None:
    size, to = grow(ca), tmp_path / "backup"
    report = copies.backup(ca, to)
    assert report.entries == size
    trust, again = copies.check_copy(to / "jit-ssh.db")
    assert (trust.origin, again) == (ORIGIN, report)
    names = {name.split("/")[0] for name in contents(to)}
    assert names == {"jit-ssh.db", "ca.toml", "policies"}
    assert all(not path.stat().st_mode & 0o077 for path in (to, to / "jit-ssh.db"))
    assert b"PRIVATE KEY" not in b"".join(contents(to).values())


def test_a_backup_of_a_serving_ca_is_whole_and_says_its_checkpoint(ca: Path, tmp_path: Path, ana: Key) -> None:
    running = Running(ca)
    try:
        made = [run("backup", ca, tmp_path / "one")]
        assert running.ask(body(ana, ana))[0] == 201
        made.append(run("backup", ca, tmp_path / "two"))
        again = run("backup", ca, tmp_path / "two")
        in_use = run("restore", ca, tmp_path / "two")
    finally:
        running.stops()
    assert [each.code for each in made] == [0, 0], made
    _, report = copies.check_copy(tmp_path / "two" / "jit-ssh.db")
    assert f"{report.checkpoint.size} entries below {report.checkpoint.root.hex()}" in made[1].out
    assert (report.entries, report.certificates) == (copies.check_copy(tmp_path / "one" / "jit-ssh.db")[1].entries + 2, 1)
    assert again.code == 1
    assert "is there already" in again.err
    assert in_use.code == 1
    assert "stop the server first" in in_use.err


def test_a_backup_that_does_not_verify_is_none(ca: Path, tmp_path: Path) -> None:
    grow(ca)
    with closing(sqlite3.connect(ca / "jit-ssh.db", isolation_level=None)) as database:
        database.execute("DROP TRIGGER nodes_update")
        database.execute("UPDATE nodes SET hash = zeroblob(32) WHERE level = 1")
    with pytest.raises(LogDamaged, match="node 0 of level 1"):
        copies.backup(ca, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".backup")] == []


@pytest.mark.parametrize("emptied", [False, True])
def test_a_ca_whose_database_is_empty_is_told_to_restore_it(ca: Path, tmp_path: Path, emptied: bool) -> None:
    if emptied:
        (ca / "jit-ssh.db").write_bytes(b"")
    else:
        with closing(sqlite3.connect(ca / "jit-ssh.db", isolation_level=None)) as database:
            database.executescript("DROP TRIGGER entries_delete; DELETE FROM entries")
    for command in (("backup", ca, tmp_path / "b"), ("log", "export", ca, tmp_path / "out.db"), ("log", "verify", ca)):
        assert "hint: Restore the newest copy of the database" in run(*command).err


def test_a_lost_machine_is_made_again_from_backup_and_keys(ca: Path, tmp_path: Path, ana: Key) -> None:
    size = grow(ca)
    copies.backup(ca, tmp_path / "backup")
    new = tmp_path / "new"
    new.mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match=r"ca\.toml is not there"):
        copies.restore(new, tmp_path / "backup")
    for name in ("ca.toml", "policies"):
        source = tmp_path / "backup" / name
        shutil.copytree(source, new / name) if source.is_dir() else shutil.copy(source, new / name)
    shutil.copytree(ca / "keys", new / "keys")
    report, kept = copies.restore(new, tmp_path / "backup")
    assert (report.entries, kept) == (size, None)
    running = Running(new)
    try:
        assert running.ask(body(ana, ana))[0] == 201
    finally:
        assert running.stops() == 0


def test_the_newest_backup_takes_the_place_of_a_damaged_database(ca: Path, tmp_path: Path) -> None:
    size = grow(ca)
    copies.backup(ca, tmp_path / "backup")
    damaged = b"garbage" * 1000
    (ca / "jit-ssh.db").write_bytes(damaged)
    report, kept = copies.restore(ca, tmp_path / "backup")
    assert report.entries == size
    assert kept is not None
    assert kept.read_bytes() == damaged
    made = opened(ca)
    assert made.store.size() == size
    made.store.close()


def test_no_way_back_forgets_what_was_signed(ca: Path, tmp_path: Path) -> None:
    size = grow(ca)
    copies.backup(ca, tmp_path / "old")
    assert grow(ca) == size + 1
    for content in (None, b"", b"x" * 9000):
        if content is not None:
            (ca / "jit-ssh.db").write_bytes(content)
        before = contents(ca)
        with pytest.raises(Misconfigured, match=f"has {size} entries, but {size + 1} were signed here: 1 would be forgotten"):
            copies.restore(ca, tmp_path / "old")
        assert contents(ca) == before


def test_the_database_itself_remembers_what_was_signed(ca: Path, tmp_path: Path) -> None:
    copies.backup(ca, tmp_path / "old")
    grow(ca)
    (ca / "jit-ssh.db.checkpoint").unlink()
    with pytest.raises(Misconfigured, match="would be forgotten"):
        copies.restore(ca, tmp_path / "old")


def test_another_history_is_not_restored(ca: Path, tmp_path: Path) -> None:
    """The log key was stolen: somebody made another log of the same name and offers it as a backup."""
    grow(ca)
    shutil.copytree(ca, tmp_path / "twin")
    for _ in range(2):
        grow(ca)
    for text in ("# other\n", "# more\n", "# still\n"):
        with (tmp_path / "twin" / "policies" / "people.toml").open("a") as file:
            file.write(text)
        grow(tmp_path / "twin")
    copies.backup(tmp_path / "twin", tmp_path / "backup")
    with pytest.raises(Misconfigured, match="are not those that were signed here"):
        copies.restore(ca, tmp_path / "backup")


def test_a_ca_is_not_its_own_backup(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ca)
    before = contents(ca)
    for source in (ca, tmp_path / "link"):
        with pytest.raises(Misconfigured, match="is the CA's own database"):
            copies.restore(ca, source)
    assert contents(ca) == before


def test_another_cas_backup_is_not_restored(ca: Path, tmp_path: Path) -> None:
    create(tmp_path / "other", "other.example.com", None, None)
    copies.backup(tmp_path / "other", tmp_path / "backup")
    with pytest.raises(Misconfigured, match=r"it is the log of other\.example\.com"):
        copies.restore(ca, tmp_path / "backup")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4096]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"genesis", b"genesit")),
        lambda path: sqlite3.connect(path).executescript("DROP TRIGGER checkpoints_delete; DELETE FROM checkpoints"),
    ],
)
def test_a_damaged_backup_is_not_restored(ca: Path, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    grow(ca)
    copies.backup(ca, tmp_path / "backup")
    spoil(tmp_path / "backup" / "jit-ssh.db")
    before = contents(ca)
    with pytest.raises(JitSshError):
        copies.restore(ca, tmp_path / "backup")
    assert contents(ca) == before


def test_a_restore_that_was_cut_off_is_done_again(ca: Path, tmp_path: Path) -> None:
    size = grow(ca)
    copies.backup(ca, tmp_path / "backup")
    (ca / "jit-ssh.db").rename(ca / "jit-ssh.db.aside")  # as a crash between the two renames leaves it
    (ca / ".jit-ssh.db.restoring").write_bytes(b"half")
    report, _ = copies.restore(ca, tmp_path / "backup")
    assert report.entries == size
    assert not (ca / ".jit-ssh.db.restoring").exists()


def test_a_file_is_verified_without_the_ca(ca: Path, tmp_path: Path) -> None:
    size = grow(ca)
    copies.backup(ca, tmp_path / "backup")
    fingerprint = run("fingerprint", ca).out.split()[-1]
    exported = [run("log", "export", ca, tmp_path / f"out{suffix}") for suffix in (".db", ".jsonl", ".csv")]
    assert [each.code for each in exported] == [0, 0, 0], exported
    for file in (tmp_path / "backup" / "jit-ssh.db", tmp_path / "out.db", tmp_path / "out.jsonl"):
        before = file.read_bytes()
        told = run("log", "verify", file)
        assert told.code == 0, told.err
        assert f"{size} entries" in told.out
        assert fingerprint in told.out
        assert run("log", "verify", file, "--fingerprint", fingerprint).code == 0
        other = run("log", "verify", file, "--fingerprint", fingerprint[:-1] + "x")
        assert (other.code, other.out) == (1, "")
        assert file.read_bytes() == before
        assert not [path for path in file.parent.iterdir() if path.name.endswith(("-wal", "-shm"))]
    for bad in (tmp_path / "out.csv", tmp_path / "nothing", ca / "keys" / "ca"):
        refused = run("log", "verify", bad)
        assert (refused.code, refused.out) == (1, "")
        assert "error:" in refused.err


def test_a_backup_that_is_verified_as_a_ca_is_told_by_its_database(ca: Path, tmp_path: Path) -> None:
    copies.backup(ca, tmp_path / "backup")
    before = contents(tmp_path / "backup")
    told = run("log", "verify", tmp_path / "backup")
    assert (told.code, told.out, contents(tmp_path / "backup")) == (1, "", before)
    assert f"hint: Give its database: {tmp_path / 'backup' / 'jit-ssh.db'}\n" in told.err


def test_times_of_an_export_are_checked(ca: Path, tmp_path: Path) -> None:
    grow(ca)
    assert run("log", "export", ca, tmp_path / "a.db", "--since", "1d", "--until", "2999-01-01").code == 0
    later = run("log", "export", ca, tmp_path / "b.jsonl", "--since", "2998-01-01T00:00:00+01:00")
    assert later.out.startswith("0 entries")
    for wrong in ("yesterday", "2026-13-01", "", "-1d", "1d1"):
        refused = run("log", "export", ca, tmp_path / "c.db", "--since", wrong)
        assert refused.code == 1, wrong
        assert "is not a time" in refused.err
    crossed = run("log", "export", ca, tmp_path / "c.db", "--since", "1d", "--until", "2d")
    assert (crossed.code, "--since 1d is later than --until 2d" in crossed.err) == (1, True)
    assert not (tmp_path / "c.db").exists()


def test_the_note_of_a_backup_is_the_checkpoint_it_holds(ca: Path, tmp_path: Path) -> None:
    grow(ca)
    report = copies.backup(ca, tmp_path / "backup")
    made = opened(ca)
    assert open_checkpoint(made.store.checkpoint() or "", made.ca.log.key) == report.checkpoint
    made.store.close()
