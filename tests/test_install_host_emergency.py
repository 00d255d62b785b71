"""`scripts/install-host --emergency`: the break-glass key enters the accounts that are named, by its own principal, and no more.

Judged by a real sshd: who enters, and which keys it still takes.
"""

import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sshd import INSTALL_HOST, Sshd, install_host, make_key, running
from tests.test_install_host import (
    DROP_IN,
    FAILURES,
    ME,
    Place,
    certify,
    enters,
    everything,
    make_place,
    public,
    sshd_that,
    usual,
)


class Emergency(NamedTuple):
    """A host's directory, its CA and its break-glass key."""

    place: Place
    key: Path

    def arguments(self, *more: str, account: str = ME) -> list[str]:
        return [*usual(self.place), "--emergency", str(public(self.key)), *more, "--emergency-account", account]

    def install(self, *more: str, account: str = ME) -> str:
        ran = install_host(self.place.prefix, *self.arguments(*more, account=account))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def refused(self, *arguments: str) -> str:
        """What the refusal said; nothing has changed by it."""
        before = everything(self.place.prefix)
        ran = install_host(self.place.prefix, *arguments)
        assert ran.returncode in {1, 2}
        assert everything(self.place.prefix) == before
        return ran.stderr


@pytest.fixture
def host(tmp_path: Path) -> Emergency:
    return make_host(tmp_path)


def make_host(directory: Path, *lines: str) -> Emergency:
    place = make_place(directory, *lines)
    return Emergency(place, make_key(directory / "emergency", "-C", "break-glass"))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emergency, Sshd]]:
    """A running sshd in web-prod that takes the break-glass key for this account."""
    host = make_host(tmp_path_factory.mktemp("web"))
    host.install()
    with running(host.place.prefix) as sshd:
        yield host, sshd


def test_an_emergency_certificate_enters_the_mapped_account(web: tuple[Emergency, Sshd]) -> None:
    host, sshd = web
    assert enters(sshd, host.place.key, certify(host.key, host.place.key, "break-glass@web-prod", serial=2**62))
    assert f"serial {2**62}" in sshd.log()


@pytest.mark.parametrize(
    "principal",
    [f"{ME}@web-prod", ME, "break-glass", "break-glass@db-prod", "break-glass@*", "Break-glass@web-prod"],
)
def test_the_emergency_key_signs_no_other_principal(web: tuple[Emergency, Sshd], principal: str) -> None:
    host, sshd = web
    assert not enters(sshd, host.place.key, certify(host.key, host.place.key, principal))


def test_the_ordinary_ca_signs_no_emergency_principal(web: tuple[Emergency, Sshd]) -> None:
    host, sshd = web
    assert not enters(sshd, host.place.key, certify(host.place.ca, host.place.key, "break-glass@web-prod"))
    assert enters(sshd, host.place.key, certify(host.place.ca, host.place.key, f"{ME}@web-prod"))


def test_the_emergency_key_itself_enters_nowhere_and_nothing_outlives_its_end(web: tuple[Emergency, Sshd]) -> None:
    host, sshd = web
    assert not enters(sshd, host.key, None)
    assert not enters(sshd, host.place.key, certify(host.key, host.place.key, "break-glass@web-prod", validity="-10m:-1m"))


def test_accounts_that_are_not_named_are_not_entered(host: Emergency) -> None:
    host.install(account="games")
    with running(host.place.prefix) as sshd:
        assert not enters(sshd, host.place.key, certify(host.key, host.place.key, "break-glass@web-prod"))


@pytest.mark.parametrize("day", ["20271301", "20270031", "20270139", "20270100", "20270229", "20280230", "20271131", "202701011"])
def test_a_day_that_no_calendar_has_ends_nothing(host: Emergency, day: str) -> None:
    assert f"'{day}' is not a day" in host.refused(*host.arguments("--emergency-until", day))


def test_the_calendar_of_an_end_is_that_of_everybody(tmp_path: Path) -> None:
    function = re.search(r"^is_day\(\) \{.*?^\}", INSTALL_HOST.read_text(), re.MULTILINE | re.DOTALL)
    assert function
    days = [f"{year}{month:02}{day:02}" for year in (2000, 2027, 2028, 2099) for month in range(20) for day in range(40)]
    asked = f"{function[0]}\nfor each in {' '.join(days)}; do ! is_day $each || echo $each; done"
    ran = subprocess.run(["sh", "-euc", asked], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [day for day in days if is_day(day)]


def is_day(digits: str) -> bool:
    try:
        datetime.strptime(digits, "%Y%m%d").astimezone()
    except ValueError:
        return False
    return True


def test_every_other_key_still_enters(host: Emergency) -> None:
    (host.place.prefix / "authorized_keys").write_text(public(host.place.key).read_text())
    host.install()
    with running(host.place.prefix) as sshd:
        assert enters(sshd, host.place.key, None)


def test_the_old_key_is_trusted_until_the_day_that_was_said(host: Emergency) -> None:
    newer = make_key(host.place.prefix.parent / "newer")
    for day, opens in (("20990101", True), ("20200101", False)):
        host.install("--emergency-until", day, "--emergency", str(public(newer)))
        with running(host.place.prefix) as sshd:
            assert enters(sshd, host.place.key, certify(host.key, host.place.key, "break-glass@web-prod")) == opens
            assert enters(sshd, host.place.key, certify(newer, host.place.key, "break-glass@web-prod"))


def test_a_run_without_the_key_ends_its_trust_and_restores_the_setting(host: Emergency) -> None:
    host.install()
    assert "nothing to change" in host.install()
    assert "AuthorizedKeysFile" in (host.place.prefix / DROP_IN).read_text()
    assert install_host(host.place.prefix, *usual(host.place)).returncode == 0
    assert "AuthorizedKeysFile" not in (host.place.prefix / DROP_IN).read_text()
    with running(host.place.prefix) as sshd:
        assert not enters(sshd, host.place.key, certify(host.key, host.place.key, "break-glass@web-prod"))
        assert enters(sshd, host.place.key, certify(host.place.ca, host.place.key, f"{ME}@web-prod"))


def test_uninstalling_takes_all_of_it_back(host: Emergency) -> None:
    before = everything(host.place.prefix)
    host.install()
    assert install_host(host.place.prefix, "--uninstall").returncode == 0
    assert everything(host.place.prefix) == before


@pytest.mark.parametrize("how", ["refuses", "dies of TERM"])
def test_a_failed_run_leaves_every_file_as_it_was(host: Emergency, how: str) -> None:
    before = everything(host.place.prefix)
    sshd = sshd_that(host.place, FAILURES[how], when=f"[ -e {host.place.prefix}/{DROP_IN} ]")
    assert install_host(host.place.prefix, *host.arguments("--sshd", sshd)).returncode == 1
    assert everything(host.place.prefix) == before


def test_it_says_what_it_would_do_and_does_not(host: Emergency) -> None:
    before = everything(host.place.prefix)
    said = host.install("--dry-run")
    assert re.search(rf"would be written .*/jit-ssh/emergency/{ME}$", said, re.MULTILINE)
    assert f"break-glass@web-prod  enters {ME}" in said
    assert "for break-glass alone" in said
    assert everything(host.place.prefix) == before


def test_a_setting_that_would_hide_ours_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    host = make_host(tmp_path, "AuthorizedKeysFile /etc/ssh/theirs/%u")
    said = host.refused(*host.arguments())
    assert "would not get our AuthorizedKeysFile but '/etc/ssh/theirs/%u'" in said
    assert f"add {host.place.prefix}/jit-ssh/emergency/%u to that line" in said
    path = host.place.prefix / "sshd_config"
    path.write_text(path.read_text().replace("/theirs/%u", f"/theirs/%u {host.place.prefix}/jit-ssh/emergency/%u", 1))
    host.install()


def test_a_match_block_of_the_account_is_seen_and_others_keep_theirs(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    path = host.place.prefix / "sshd_config"
    path.write_text(path.read_text() + f"Match User {ME}\n  AuthorizedKeysFile /etc/ssh/theirs/%u\n")
    assert f"account {ME} would not get our AuthorizedKeysFile" in host.refused(*host.arguments())
    host.install(account="games")


def test_a_place_of_keys_that_is_none_becomes_ours_alone(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    path = host.place.prefix / "sshd_config"
    path.write_text(re.sub("AuthorizedKeysFile .*", "AuthorizedKeysFile none", path.read_text()))
    host.install()
    assert f"\nAuthorizedKeysFile {host.place.prefix}/jit-ssh/emergency/%u\n" in (host.place.prefix / DROP_IN).read_text()
    assert "nothing to change" in host.install()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--emergency", "{key}"], "--emergency and --emergency-account go together"),
        (["--emergency-account", "root"], "--emergency and --emergency-account go together"),
        (["--emergency", "{ca}", "--emergency-account", "root"], "is of a CA given with --ca as well"),
        (["--emergency", "{key}", "--emergency", "{key}", "--emergency-account", "root"], "was given with --emergency already"),
        (["--emergency", "{key}", "--ca", "{key}", "--emergency-account", "root"], "was given with --emergency already"),
        (["--emergency-until", "20270101", "--emergency", "{key}", "--emergency-account", "root"], "before any --emergency"),
        (["--emergency", "{key}", "--emergency-until", "tomorrow", "--emergency-account", "root"], "is not a day"),
        (["--emergency", "{key}", "--emergency-until", '20270101",x="', "--emergency-account", "root"], "is not a day"),
        (["--emergency", "{private}", "--emergency-account", "root"], "is a private key"),
        (["--emergency", "/nowhere", "--emergency-account", "root"], "--emergency '/nowhere' is neither"),
        (["--emergency", "{key}", "--emergency-account", "../root"], "account '../root' is not allowed"),
        (["--emergency", "{key}", "--emergency-account", "*"], "there is no pattern for all"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(host: Emergency, more: list[str], words: str) -> None:
    files = {"key": public(host.key), "ca": public(host.place.ca), "private": host.key}
    said = host.refused(*usual(host.place), *(word.format(**files) if word.startswith("{") else word for word in more))
    assert words in said
    assert words == "is not a day" or not any(line in said for line in host.key.read_text().splitlines()[1:-1])


def test_a_link_or_a_stranger_in_the_way_is_refused(host: Emergency) -> None:
    host.install()
    emergency = host.place.prefix / "jit-ssh/emergency"
    (emergency / "Root").write_text("x")
    assert "is not one account's emergency file" in host.refused(*host.arguments())
    (emergency / "Root").unlink()
    emergency.rename(host.place.prefix.parent / "elsewhere")
    emergency.symlink_to(host.place.prefix.parent / "elsewhere")
    assert "is a symbolic link" in host.refused(*host.arguments())
