"""What ssh is told: judged by the real `ssh -G`, with the person's own lines untouched."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed, Misconfigured
from cli import sshconfig
from cli.accounts import Account
from cli.directory import Directory


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    made = Directory(tmp_path / ".ssh" / "jit-ssh")
    made.path.mkdir(parents=True)
    return made


def ssh_says(config: Path, destination: str) -> dict[str, list[str]]:
    """What ssh would use for a destination, option by option."""
    done = subprocess.run(["ssh", "-G", "-F", str(config), destination], capture_output=True, text=True, check=True)
    options: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


def written(directory: Directory, text: str) -> Path:
    directory.config.write_text(text)
    sshconfig.include(directory)
    return directory.ssh_config


WEB = Account("root", "web", ("web-*.example.com", "10.0.0.?"))


def test_ssh_uses_the_certificate_for_the_roles_hosts_and_account_only(directory: Directory) -> None:
    config = written(directory, sshconfig.render(directory, [("web", False, (WEB,))]))
    for destination in ("root@web-1.example.com", "root@10.0.0.7"):
        said = ssh_says(config, destination)
        assert said["certificatefile"] == [str(directory.path / "web-cert.pub")]
        assert said["identityfile"] == [str(directory.path / "web")]
    for destination in ("ana@web-1.example.com", "root@db-1.example.com", "root@web-1.example.com.evil.org"):
        assert "certificatefile" not in ssh_says(config, destination)


def test_a_key_in_the_agent_is_named_by_its_certificate(directory: Directory) -> None:
    said = ssh_says(written(directory, sshconfig.render(directory, [("web", True, (WEB,))])), "root@10.0.0.7")
    assert said["identityfile"] == [str(directory.path / "web-cert.pub")]
    assert "certificatefile" not in said


def test_the_persons_own_default_keys_are_still_tried_behind_it(directory: Directory) -> None:
    own = directory.path.parent / "id_ed25519"
    own.touch()
    said = ssh_says(written(directory, sshconfig.render(directory, [("web", True, (WEB,))])), "root@10.0.0.7")
    assert said["identityfile"] == [str(directory.path / "web-cert.pub"), str(own)]
    assert said["identitiesonly"] == ["no"]


def test_two_roles_on_the_same_hosts_are_both_tried(directory: Directory) -> None:
    held = [("web", False, (WEB,)), ("web-2", False, (WEB,))]
    said = ssh_says(written(directory, sshconfig.render(directory, held)), "root@10.0.0.7")
    assert len(said["certificatefile"]) == 2


def test_an_account_on_hosts_without_names_matches_nothing(directory: Directory) -> None:
    assert "Match" not in sshconfig.render(directory, [("web", False, (Account("root", "web", ()),))])


def test_holding_nothing_leaves_ssh_as_it_was(directory: Directory) -> None:
    assert "certificatefile" not in ssh_says(written(directory, sshconfig.render(directory, [])), "root@10.0.0.7")


@given(host=st.text(min_size=1, max_size=12), account=st.text(min_size=1, max_size=8))
def test_no_name_that_an_account_may_have_adds_an_option(host: str, account: str) -> None:
    directory = Directory(Path("/home/ana/.ssh/jit-ssh"))
    try:
        named = Account(account, "web", (host,))
    except Malformed:
        return
    lines = sshconfig.render(directory, [("web", True, (named,))]).splitlines()
    assert lines[2] == f'Match host "{host}" user {account}'
    assert len(lines) == 4


@pytest.mark.parametrize("path", ['/home/a"b', "/home/a\nb", "/home/a*b", "/home/%h", "/home/${X}", "/home/a\\b", "/home/[a]"])
def test_a_home_directory_that_ssh_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(Misconfigured):
        sshconfig.quoted(Path(path))


def test_a_home_directory_with_a_space_is_understood(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "a b" / ".ssh" / "jit-ssh")
    directory.path.mkdir(parents=True)
    said = ssh_says(written(directory, sshconfig.render(directory, [("web", False, (WEB,))])), "root@10.0.0.7")
    assert said["certificatefile"] == [str(directory.path / "web-cert.pub")]


# ------------------------------------------------------------ the Include line

OWN = b"# caf\xe9, not UTF-8\nHost *\n    User ana\nInclude other\n"


def test_the_include_line_is_written_once_and_the_persons_lines_stay(directory: Directory) -> None:
    directory.ssh_config.write_bytes(OWN)
    directory.ssh_config.chmod(0o640)
    assert sshconfig.include(directory)
    line, _, rest = directory.ssh_config.read_bytes().partition(b"\n")
    assert line == f'Include "{directory.config}"'.encode()
    assert rest == OWN
    assert directory.ssh_config.stat().st_mode & 0o777 == 0o640
    assert not sshconfig.include(directory)
    assert directory.ssh_config.read_bytes() == line + b"\n" + OWN


def test_an_include_line_that_the_person_moved_below_a_comment_is_left_there(directory: Directory) -> None:
    moved = f'# mine\n  Include "{directory.config}"\nHost *\n'.encode()
    directory.ssh_config.write_bytes(moved)
    assert not sshconfig.include(directory)
    assert directory.ssh_config.read_bytes() == moved


def test_an_include_line_within_a_host_section_does_not_count(directory: Directory) -> None:
    directory.ssh_config.write_bytes(f'Host *\n  Include "{directory.config}"\n'.encode())
    assert sshconfig.include(directory)


def test_a_new_configuration_is_private(directory: Directory) -> None:
    assert sshconfig.include(directory)
    assert directory.ssh_config.stat().st_mode & 0o777 == 0o600


def test_a_configuration_that_is_a_link_stays_one(directory: Directory, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles"
    target.write_bytes(OWN)
    directory.ssh_config.symlink_to(target)
    sshconfig.include(directory)
    assert directory.ssh_config.is_symlink()
    assert target.read_bytes().endswith(OWN)
