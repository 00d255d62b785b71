"""What this machine holds: private files that are whole or not there, and nothing that has expired."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ca import canonical
from ca.certificate import BACKDATE
from ca.errors import Malformed
from cli import files, held
from cli.accounts import Account
from cli.directory import Directory
from cli.held import Held

NOW = 1_800_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    made = Directory(tmp_path / ".ssh" / "jit-ssh")
    files.make_private_directory(made.path)
    return made


def a_held(role: str, valid_before: int = NOW + 600) -> Held:
    return Held(
        role=role,
        person="ana",
        request=17,
        serial=18,
        valid_after=NOW - 60,
        valid_before=valid_before,
        until=valid_before,
        accounts=(Account("root", "web", (f"{role}.example.com",)),),
    )


def save(directory: Directory, one: Held) -> None:
    held.save(directory, one, "ssh-ed25519-cert-v01@openssh.com AAAA", b"key", NOW)


def test_a_certificate_for_a_part_of_the_grant_is_renewed_in_its_last_third() -> None:
    whole = replace(a_held("web", NOW + 900), valid_after=NOW - BACKDATE)
    assert whole.fresh_until == whole.valid_before, "there is nothing behind it"
    assert replace(whole, until=NOW + 3600).fresh_until == NOW + 600


def test_what_is_saved_is_found_and_private(directory: Directory) -> None:
    save(directory, a_held("web"))
    assert held.of_this_machine(directory) == [a_held("web")]
    assert {path.name for path in directory.path.iterdir()} == {"config", "ssh-hook", "web-cert", "web-cert.pub", "web.json"}
    assert {path.stat().st_mode & 0o777 for path in directory.path.iterdir()} == {0o600}


def test_the_key_of_a_role_that_an_agent_has_does_not_stay_on_disk(directory: Directory) -> None:
    save(directory, a_held("web"))
    held.save(directory, a_held("web"), "ssh-ed25519-cert-v01@openssh.com AAAA", None, NOW)
    assert not directory.of_role("web", "-cert").exists()


def test_what_has_expired_is_gone_with_the_next_change(directory: Directory) -> None:
    save(directory, a_held("old", valid_before=NOW + 1))
    held.save(directory, a_held("web"), "ssh-ed25519-cert-v01@openssh.com AAAA", b"key", NOW + 1)
    assert [one.role for one in held.of_this_machine(directory)] == ["web"]
    assert "old" not in directory.config.read_text()
    assert not directory.of_role("old", "-cert").exists()


@pytest.mark.parametrize("change", [b"", b"{}", b"[]", b"\xff", b'{"held":"jit-ssh"}'])
def test_a_file_that_was_damaged_is_passed_over(directory: Directory, change: bytes) -> None:
    save(directory, a_held("db"))
    save(directory, a_held("web"))
    directory.of_role("web", ".json").write_bytes(change)
    assert [one.role for one in held.of_this_machine(directory)] == ["db"]


def test_a_file_that_says_it_is_another_role_is_passed_over(directory: Directory) -> None:
    directory.of_role("web", ".json").write_bytes(canonical.encode(a_held("db")))
    assert held.of_this_machine(directory) == []


def test_a_file_with_a_hostile_host_is_passed_over(directory: Directory) -> None:
    encoded = canonical.encode(a_held("web")).replace(b"web.example.com", b"web\\nProxyCommand x")
    directory.of_role("web", ".json").write_bytes(encoded)
    assert held.of_this_machine(directory) == []


def test_a_certificate_whose_key_is_gone_is_not_usable(directory: Directory) -> None:
    save(directory, a_held("web"))
    assert a_held("web").usable(directory, NOW, frozenset())
    assert not a_held("web").usable(directory, NOW + 600, frozenset())
    directory.of_role("web", "-cert").unlink()
    assert not a_held("web").usable(directory, NOW, frozenset())


def test_a_grant_outlives_its_certificate_and_nothing_outlives_the_grant(directory: Directory) -> None:
    save(directory, replace(a_held("web"), until=NOW + 3600))
    held.write_ssh_config(directory, NOW + 700)
    found = held.grant(directory, "web", NOW + 700)
    assert found is not None
    assert not found.usable(directory, NOW + 700, frozenset())
    assert held.grant(directory, "db", NOW) is None
    assert held.grant(directory, "web", NOW + 3600) is None
    held.write_ssh_config(directory, NOW + 3600)
    assert held.of_this_machine(directory) == []


def test_logins_at_the_same_time_lose_nothing(directory: Directory) -> None:
    roles = [f"role-{number}" for number in range(8)]
    threads = [threading.Thread(target=save, args=(directory, a_held(role))) for role in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = directory.config.read_text()
    assert all(f"{role}.example.com" in text for role in roles)


OURS = ["config", "profile", "checkpoint", "signer", "roles", "ssh-hook"]


@pytest.mark.parametrize("role", [*OURS, "a.lock", "a.pub", "a.json", "a-cert", "../a", "A", ""])
def test_no_role_can_have_the_name_of_another_file(directory: Directory, role: str) -> None:
    with pytest.raises(Malformed):
        directory.of_role(role, "")


def test_a_write_that_fails_leaves_the_old_file_and_no_stray_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(f"no space for {descriptor}")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        files.write(path, b"new")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
