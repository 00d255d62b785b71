"""`scripts/install-host --verify-log`: sshd asks host-verify, or every file is as it was; and no failure opens a door.

Judged by a real sshd: what it says of its settings, and who enters.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from ca.checkpoint import VerifierKey
from ca.cosignature import WitnessKey
from tests.sshd import HOST_VERIFY, INSTALL_HOST, SSHD, install_host, make_key, running
from tests.test_install_host import DROP_IN, FAILURES, Place, certify, everything, make_place, public, sshd_that
from tests.test_install_host import enters as enters_with
from tests.thief import directory_of_root

pytestmark = pytest.mark.root
LOG: Final = VerifierKey("ca.example.com", bytes(31) + b"\x02")
OTHER_LOG: Final = VerifierKey("log.example.com", bytes(31) + b"\x03")
WITNESS: Final = WitnessKey("witness.example.com", bytes(31) + b"\x04")
OTHER_WITNESS: Final = WitnessKey("w2.example.com", bytes(31) + b"\x05")
ME: Final = "root"


@pytest.fixture
def place() -> Iterator[Place]:
    with directory_of_root() as directory:
        yield make_place(directory)


def arguments(place: Place, *more: str) -> list[str]:
    """Of a run without and, with `more`, of one with the log."""
    return ["--ca", str(public(place.ca)), "--group", "web-prod", "--account", ME, *more]


def verifying(place: Place, *more: str) -> list[str]:
    return arguments(place, "--verify-log", str(LOG), *more)


def installed(place: Place, *arguments: str) -> str:
    ran = install_host(place.prefix, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(place: Place, *arguments: str) -> str:
    """What the refusal said; nothing has changed by it."""
    before = everything(place.prefix)
    ran = install_host(place.prefix, *arguments)
    assert ran.returncode in {1, 2}, ran.stdout
    assert everything(place.prefix) == before
    assert re.fullmatch(r"[\n\x20-\x7e]*", ran.stderr)
    return ran.stderr


def settings(place: Place) -> dict[str, str]:
    """What sshd says that it does for root."""
    command = [SSHD, "-T", "-C", "user=root,host=x,addr=192.0.2.1", "-f", str(place.prefix / "sshd_config")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_sshd_asks_the_program_and_no_file(place: Place) -> None:
    told = installed(place, *verifying(place, "--witness", str(WITNESS)))
    assert "only what proves to be in the log of ca.example.com" in told
    assert "as seen by 1 of 1 witnesses" in told
    found, ours = settings(place), place.prefix / "jit-ssh"
    assert found["authorizedprincipalscommand"] == f"{ours}/host-verify %u %t %k"
    assert found["authorizedprincipalscommanduser"] == "nobody"
    assert found["authorizedprincipalsfile"] == f"{ours}/no-principals"
    assert (ours / "log.pub").read_text() == f"{LOG}\n"
    assert (ours / "witnesses.pub").read_text() == f"require 1\n{WITNESS}\n"
    assert (ours / "host-verify").read_text().startswith("#!/usr/bin/python3 -ISB\n")
    assert "nothing to change" in installed(place, *verifying(place, "--witness", str(WITNESS)))
    assert (ours / "host-verify").read_text().splitlines()[1:] == HOST_VERIFY.read_text().splitlines()[1:]


def test_a_file_of_keys_is_taken_as_well(place: Place) -> None:
    file = place.prefix.parent / "logs"
    file.write_text(f"# ours\n{LOG}\n\n{OTHER_LOG}\n")
    installed(place, *arguments(place, "--verify-log", str(file)))
    assert (place.prefix / "jit-ssh/log.pub").read_text() == f"{LOG}\n{OTHER_LOG}\n"
    file.write_text(f"{WITNESS}\n{OTHER_WITNESS}\nrequire 1\n")  # as a person's own machine has it, too
    assert "as seen by 1 of 2 witnesses" in installed(place, *verifying(place, "--witness", str(file)))


def test_both_files_in_one_directory_are_all_that_a_host_needs(place: Place) -> None:
    directory = place.prefix.parent / "copied"
    directory.mkdir()
    for file in (INSTALL_HOST, HOST_VERIFY):
        shutil.copy(file, directory)
    command = [str(directory / "install-host"), "--prefix", str(place.prefix), *verifying(place)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert ran.returncode == 0, ran.stderr
    (directory / "host_verify.py").unlink()
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert "host_verify.py is not beside install-host" in alone.stderr


def test_a_certificate_without_a_proof_enters_before_and_after_but_not_while_it_is_verified(place: Place) -> None:
    old, emergency = certify(place.ca, place.key, f"{ME}@web-prod"), make_key(place.prefix.parent / "emergency")
    installed(place, *arguments(place))
    with running(place.prefix) as running_sshd:
        assert enters_with(running_sshd, place.key, old)
        more = ["--emergency", str(public(emergency)), "--emergency-account", ME]
        installed(place, *verifying(place, "--reload", *more))
        assert not enters_with(running_sshd, place.key, old)
        assert not enters_with(running_sshd, place.key, certify(place.ca, place.key, ME)), "nor with the account's own name"
        assert enters_with(running_sshd, place.key, certify(emergency, place.key, "break-glass@web-prod")), "it is in no log"
        told = install_host(place.prefix, *arguments(place))
        assert "host-verify, which the running sshd still asks" in told.stdout
        installed(place, *arguments(place, "--reload"))
        assert not (place.prefix / "jit-ssh/host-verify").exists()
        assert enters_with(running_sshd, place.key, old)


def test_where_sshd_forgets_the_program_nobody_enters(place: Place) -> None:
    """Before 9.4 it does so behind an AuthorizedKeysCommand; then the name of the account would do, were there no file."""
    other = place.prefix / "sshd_config.d/10-keys.conf"
    other.write_text("AuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody\n")
    ran = install_host(place.prefix, *verifying(place))
    newer = ran.returncode == 0
    if not newer:
        assert "sshd before 9.4 forgets it behind an AuthorizedKeysCommand" in ran.stderr
        assert f"{other} line 1" in ran.stderr
        assert not (place.prefix / "jit-ssh").exists()
    other.unlink()
    installed(place, *verifying(place))
    other.write_text("AuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody\n")
    assert (settings(place)["authorizedprincipalscommand"] == "none") is not newer
    with running(place.prefix) as running_sshd:
        for principal in (ME, f"{ME}@web-prod"):
            assert not enters_with(running_sshd, place.key, certify(place.ca, place.key, principal))


def test_uninstalling_takes_all_of_it_back(place: Place) -> None:
    before = everything(place.prefix)
    installed(place, *verifying(place, "--witness", str(WITNESS)))
    installed(place, "--uninstall")
    assert everything(place.prefix) == before
    installed(place, *verifying(place))
    installed(place, *arguments(place))
    assert set(os.listdir(place.prefix / "jit-ssh")) == {"ca.pub", "principals", "revoked"}  # noqa: PTH208 - names are compared


@pytest.mark.parametrize("how", ["refuses", "dies of TERM"])
def test_a_failed_run_leaves_every_file_as_it_was(place: Place, how: str) -> None:
    installed(place, *arguments(place))
    before = everything(place.prefix)
    program = sshd_that(place, FAILURES[how], when=f"grep -q host-verify {place.prefix}/{DROP_IN}")
    assert install_host(place.prefix, *verifying(place, "--sshd", program)).returncode == 1
    assert everything(place.prefix) == before
    told = installed(place, *verifying(place, "--dry-run"))
    assert re.search(r"would be written .*/jit-ssh/host-verify$", told, re.MULTILINE)
    assert everything(place.prefix) == before


def test_what_sshd_would_not_run_or_the_program_not_believe_is_refused(place: Place) -> None:
    wrong = str(LOG).replace(LOG.key_id.hex(), "00000000")
    assert "has another name or id than it says" in refused(place, *arguments(place, "--verify-log", wrong))
    place.prefix.chmod(0o777)
    assert "could be written by others than root" in refused(place, *verifying(place))
    place.prefix.chmod(0o755)
    installed(place, *verifying(place))
    (place.prefix / "jit-ssh/principals").chmod(0o775)
    assert "it must be drwxr-xr-x" in refused(place, *verifying(place))


def test_another_program_in_its_place_is_left_alone(place: Place) -> None:
    other = place.prefix / "sshd_config.d/90-other.conf"
    other.write_text("AuthorizedPrincipalsCommand /bin/true\nAuthorizedPrincipalsCommandUser nobody\n")
    assert "sshd already has AuthorizedPrincipalsCommand /bin/true" in refused(place, *verifying(place))
    installed(place, *arguments(place))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--verify-log", "/nowhere"], "neither a key such as"),
        (["--verify-log", f"{LOG}\n{OTHER_LOG}"], "has a line break in it"),
        (["--verify-log", str(WITNESS)], "not of the kind that --verify-log takes"),
        (["--verify-log", str(LOG), "--witness", str(OTHER_LOG)], "not of the kind that --witness takes"),
        (["--verify-log", "a b+00000000+AQ"], "not the key of a log"),
        (["--verify-log", "a+0000000g+AQ"], "not the key of a log"),
        (["--verify-log", "a+00000000+AQ\x1b"], "not the key of a log"),
        (["--witness", str(WITNESS)], "go with --verify-log"),
        (["--verify-user", "nobody"], "go with --verify-log"),
        (["--verify-log", str(LOG), "--require-witnesses", "1"], "is more than the 0"),
        (["--verify-log", str(LOG), "--witness", str(WITNESS), "--require-witnesses", "2"], "is more than the 1"),
        (["--verify-log", str(LOG), "--witness", str(WITNESS), "--require-witnesses", "0"], "would count for nothing"),
        (["--verify-log", str(LOG), "--require-witnesses", "-1"], "is not a number"),
        (["--verify-log", str(LOG), "--verify-user", "no-such-account"], "no account no-such-account"),
        (["--verify-log", str(LOG), "--verify-user", "../x"], "is not allowed"),
        (["--verify-log", str(LOG), "--python", "python3"], "absolute path"),
        (["--verify-log", str(LOG), "--python", "/bin/true x"], "is not allowed"),
        (["--verify-log", str(LOG), "--python", "/bin/false"], "no Python 3.9 or later"),
        (["--verify-log", str(LOG), "--verify-program", "/nowhere"], "cannot be read"),
        (["--uninstall", "--verify-log", str(LOG)], "--uninstall takes no"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(wrong: Place, more: list[str], words: str) -> None:
    assert words in refused(wrong, *([] if "--uninstall" in more else arguments(wrong)), *more)


@pytest.fixture(scope="module")
def wrong() -> Iterator[Place]:
    with directory_of_root() as directory:
        yield make_place(directory)
