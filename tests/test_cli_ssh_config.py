"""What ssh is told: judged by the real `ssh -G`, with the person's own lines untouched."""

import os
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed, Misconfigured
from cli import sshconfig
from cli.accounts import Account
from cli.directory import Directory
from cli.sshconfig import Offer
from tests.home import ROOT, ssh_agent


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    made = Directory(tmp_path / ".ssh" / "jit-ssh")
    made.path.mkdir(parents=True)
    return made


def ssh_says(config: Path, destination: str, shell: str = "/bin/sh") -> dict[str, list[str]]:
    """What ssh would use for a destination, option by option."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), destination],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "SHELL": shell, "HOME": str(config.parent.parent), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )
    options: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


def written(directory: Directory, *offers: Offer) -> Path:
    """The person's configuration, with these offers in the included one."""
    directory.config.write_text(sshconfig.render(directory, offers))
    directory.hook.write_text(sshconfig.hook())
    sshconfig.include(directory)
    return directory.ssh_config


WEB = Account("root", "web", ("web-*.example.com", "10.0.0.?"))
SOON = 4_000_000_000  # Unix seconds


def offer(role: str, *accounts: Account, fresh_until: int = SOON) -> Offer:
    return Offer(role, accounts or (WEB,), fresh_until)


def offered(directory: Directory, destination: str, *offers: Offer) -> list[str]:
    """The names of our identities that ssh would offer."""
    named = map(Path, ssh_says(written(directory, *offers), destination)["identityfile"])
    return [path.name for path in named if path.parent == directory.path]


def test_ssh_uses_the_certificate_for_the_roles_hosts_and_account_only(directory: Directory) -> None:
    for destination in ("root@web-1.example.com", "root@10.0.0.7"):
        assert offered(directory, destination, offer("web")) == ["web-cert"]
    for destination in ("ana@web-1.example.com", "root@db-1.example.com", "root@web-1.example.com.evil.org"):
        assert offered(directory, destination, offer("web")) == []


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash"])
def test_a_certificate_that_is_not_fresh_is_not_offered_whatever_the_persons_shell(directory: Directory, shell: str) -> None:
    assert ssh_says(written(directory, offer("web")), "root@10.0.0.7", shell)["identitiesonly"] == ["yes"]
    stale = ssh_says(written(directory, offer("web", fresh_until=1)), "root@10.0.0.7", shell)
    assert stale["identitiesonly"] == ["no"]


def test_a_fresh_certificate_starts_no_program_of_ours(directory: Directory) -> None:
    config = written(directory, offer("web"))
    directory.hook.write_text(directory.hook.read_text().replace("exec ", f"touch {directory.path}/started; exec "))
    ssh_says(config, "root@10.0.0.7")
    assert not (directory.path / "started").exists()
    ssh_says(written(directory, offer("web")), "root@10.0.0.7")


def test_a_key_in_another_agent_is_not_fresh(directory: Directory) -> None:
    with ssh_agent() as agent:
        config = written(directory, Offer("web", (WEB,), SOON, str(agent)))
        for socket, fresh in ((str(agent), 0), (f"{agent}.other", 1), ("", 1)):
            script = directory.hook.read_text().replace("exec ", "exit 1 # ")
            command = ["/bin/sh", "-c", script, "ssh-hook", "web", str(SOON), str(agent)]
            environment = {"SSH_AUTH_SOCK": socket, "PATH": os.environ["PATH"]}
            assert subprocess.run(command, check=False, env=environment).returncode == fresh
        assert f"'{agent}'" in config.with_name("jit-ssh").joinpath("config").read_text()


def test_an_agent_whose_name_a_shell_would_read_otherwise_is_asked_by_ourselves(directory: Directory) -> None:
    text = sshconfig.render(directory, [Offer("web", (WEB,), SOON, "/run/a'$(touch x)")])
    assert "touch" not in text
    assert "ssh-hook' web 0\"" in text


def test_the_persons_own_default_keys_are_still_tried_behind_it(directory: Directory) -> None:
    own = directory.path.parent / "id_ed25519"
    own.touch()
    said = ssh_says(written(directory, offer("web")), "root@10.0.0.7")
    assert said["identityfile"] == [str(directory.path / "web-cert"), str(own)]


NARROW = Account("root", "db", ("web-db.example.com", "db-*.example.com"))
EVERYWHERE = Account("root", "all", ("*.example.com",))


def test_of_two_roles_for_a_host_only_the_first_is_offered(directory: Directory) -> None:
    both = [offer("web"), offer("web-2")]
    assert offered(directory, "root@10.0.0.7", *both) == ["web-cert"]
    assert offered(directory, "root@10.0.0.7", *reversed(both)) == ["web-2-cert"]


def test_a_host_in_two_groups_is_offered_one_certificate(directory: Directory) -> None:
    three = [offer("web"), offer("db", NARROW), offer("all", EVERYWHERE)]
    assert offered(directory, "root@web-db.example.com", *three) == ["web-cert"]
    assert offered(directory, "root@db-1.example.com", *three) == ["db-cert"]
    assert offered(directory, "root@mail.example.com", *three) == ["all-cert"]


def test_another_account_on_the_same_host_has_its_own_certificate(directory: Directory) -> None:
    logs = offer("logs", Account("logs", "web", WEB.hosts))
    assert offered(directory, "logs@10.0.0.7", offer("web"), logs) == ["logs-cert"]


PATTERN = st.text("ab*?", min_size=1, max_size=6)


@given(one=PATTERN, other=PATTERN, name=st.text("ab", min_size=1, max_size=6))
def test_patterns_that_a_name_matches_both_of_are_known_to_overlap(one: str, other: str, name: str) -> None:
    if fnmatchcase(name, one) and fnmatchcase(name, other):
        assert sshconfig.overlap(one, other)


def test_patterns_that_no_name_matches_both_of_are_known_not_to() -> None:
    assert not sshconfig.overlap("web-*", "db-*")
    assert not sshconfig.overlap("*.example.com", "*.example.org")
    assert not sshconfig.overlap("web-1", "web-10")


def test_an_account_on_hosts_without_names_matches_nothing(directory: Directory) -> None:
    assert "Match" not in sshconfig.render(directory, [offer("web", Account("root", "web", ()))])


def test_holding_nothing_leaves_ssh_as_it_was(directory: Directory) -> None:
    assert ssh_says(written(directory), "root@10.0.0.7")["identitiesonly"] == ["no"]


def test_a_role_whose_name_cannot_be_a_files_is_left_out(directory: Directory) -> None:
    assert "Match" not in sshconfig.render(directory, [offer("config"), offer("../x"), offer("web-cert")])


@given(host=st.text(min_size=1, max_size=12), account=st.text(min_size=1, max_size=8))
def test_no_name_that_an_account_may_have_adds_an_option(host: str, account: str) -> None:
    directory = Directory(Path("/home/ana/.ssh/jit-ssh"))
    try:
        named = Account(account, "web", (host,))
    except Malformed:
        return
    lines = sshconfig.render(directory, [offer("web", named)]).splitlines()
    exec_ = f"\"/bin/sh '/home/ana/.ssh/jit-ssh/ssh-hook' web {SOON}\""
    assert lines[2] == f'Match host "{host}" user {account} exec {exec_}'
    assert len(lines) == 5


@pytest.mark.parametrize("path", ['/home/a"b', "/home/a\nb", "/home/a*b", "/home/%h", "/home/${X}", "/home/a\\b", "/home/[a]"])
def test_a_home_directory_that_ssh_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(Misconfigured):
        sshconfig.quoted(Path(path))


def test_a_home_directory_with_a_space_is_understood(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "a b" / ".ssh" / "jit-ssh")
    directory.path.mkdir(parents=True)
    assert offered(directory, "root@10.0.0.7", offer("web")) == ["web-cert"]


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
