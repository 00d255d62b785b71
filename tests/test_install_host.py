"""`scripts/install-host` makes a real sshd trust a CA, asks sshd whether it does, and otherwise leaves no trace.

Judged by sshd itself (who enters), by `ssh-keygen -Q` (the list of revoked keys) and by comparing every file, with its
mode, owner, inode and time, before and after.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ca.names import ACCOUNT, GROUP
from tests.sshd import (
    INSTALL_HOST,
    SSHD,
    Sshd,
    current_account,
    install_host,
    make_key,
    make_prefix,
    running,
    ssh,
    trusting,
)

ME = current_account()
DROP_IN = "sshd_config.d/50-jit-ssh.conf"
VALID = "-1m:+10m"


class Place(NamedTuple):
    """A directory with a CA's key, another CA's, a person's, and a prefix that knows of none of them."""

    ca: Path
    other_ca: Path
    key: Path
    prefix: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def make_place(directory: Path, *lines: str) -> Place:
    ca, other_ca, key = (make_key(directory / name, "-C", f"{name} of tests") for name in ("ca", "other_ca", "key"))
    return Place(ca, other_ca, key, make_prefix(directory / "etc", *lines))


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def certify(ca: Path, key: Path, principal: str, *options: str, validity: str = VALID, serial: int = 1) -> Path:
    """A certificate made by ssh-keygen, in a file of its own."""
    name = key.with_name(f"{key.name}-{len(list(key.parent.iterdir()))}")
    shutil.copy(public(key), public(name))
    line = ["ssh-keygen", "-q", "-s", str(ca), "-I", f"ana/web/{serial}", "-z", str(serial), "-V", validity]
    subprocess.run([*line, "-n", principal, *options, str(public(name))], check=True)
    return name.with_name(name.name + "-cert.pub")


def enters(sshd: Sshd, key: Path, certificate: Path | None) -> bool:
    ran = ssh(sshd, ME, "echo", "inside", identity=key, certificate=certificate)
    assert ran.returncode == 0 or "Permission denied (publickey" in ran.stderr
    return ran.stdout == "inside\n"


def everything(prefix: Path) -> dict[str, tuple[object, ...]]:
    """All that a run could change: of files the content, mode, owner, inode and time; of directories mode and owner."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(prefix.rglob("*")):
        facts = path.lstat()
        name = str(path.relative_to(prefix))
        if stat.S_ISDIR(facts.st_mode):
            found[name] = (facts.st_mode, facts.st_uid)
        elif stat.S_ISLNK(facts.st_mode):
            found[name] = (facts.st_mode, facts.st_ino, path.readlink())
        elif name not in {"log", "pid"} and not name.startswith("known_hosts"):
            found[name] = (facts.st_mode, facts.st_uid, facts.st_ino, facts.st_mtime_ns, path.read_bytes())
    return found


def install(place: Place, *more: str) -> None:
    """An install that must succeed: this account, in the host group web-prod."""
    ran = install_host(place.prefix, "--ca", str(public(place.ca)), "--group", "web-prod", "--account", ME, *more)
    assert ran.returncode == 0, ran.stderr


def refused(place: Place, *arguments: str) -> str:
    """What the refusal said; nothing has changed by it."""
    before = everything(place.prefix)
    ran = install_host(place.prefix, *arguments)
    assert ran.returncode in {1, 2}
    assert everything(place.prefix) == before
    assert "install-host: error: " in ran.stderr
    assert re.fullmatch(r"[\n\x20-\x7e]*", ran.stderr), "a terminal shows no control character of somebody else"
    return ran.stderr


def usual(place: Place, **instead: str) -> list[str]:
    values = {"ca": str(public(place.ca)), "group": "web-prod", "account": ME} | instead
    return [part for name, value in values.items() for part in (f"--{name}", value)]


# ------------------------------------------------------------------------------------------------ who enters


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Sshd]]:
    """An sshd in the host groups web-prod and eu that trusts `place.ca`."""
    directory = tmp_path_factory.mktemp("web")
    ca, other_ca, key = (make_key(directory / name) for name in ("ca", "other_ca", "key"))
    with trusting(directory / "etc", public(ca), ["web-prod", "eu"]) as sshd:
        yield Place(ca, other_ca, key, directory / "etc"), sshd


@pytest.mark.parametrize("group", ["web-prod", "eu"])
def test_the_account_at_each_host_group_enters(web: tuple[Place, Sshd], group: str) -> None:
    place, sshd = web
    assert enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@{group}", serial=77))
    assert "ID ana/web/77 (serial 77)" in sshd.log()


@pytest.mark.parametrize(
    "principal",
    [
        f"{ME}@db-prod",
        ME,
        f"{ME}@",
        f"{ME}@web",
        f"{ME}@web-prod2",
        f"{ME.upper()}@WEB-PROD",
        f"@{ME}@web-prod",
        "nobody@web-prod",
        "web-prod",
        "*",
        f"{ME}@*",
        f" {ME}@web-prod",
        f"{ME}@web-prod #",
        "#",
    ],
)
def test_no_other_principal_enters(web: tuple[Place, Sshd], principal: str) -> None:
    place, sshd = web
    assert not enters(sshd, place.key, certify(place.ca, place.key, principal))
    assert "Certificate does not contain an authorized principal" in sshd.log()


@pytest.mark.parametrize(("validity", "words"), [("-2h:-1h", "expired"), ("+1h:+2h", "not yet valid")])
def test_nobody_enters_outside_of_the_certificates_time(web: tuple[Place, Sshd], validity: str, words: str) -> None:
    place, sshd = web
    assert not enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod", validity=validity))
    assert f"Certificate invalid: {words}" in sshd.log()


def test_nobody_enters_without_a_certificate_of_this_ca_for_users(web: tuple[Place, Sshd]) -> None:
    place, sshd = web
    assert not enters(sshd, place.key, None)
    assert not enters(sshd, place.key, certify(place.other_ca, place.key, f"{ME}@web-prod"))
    assert not enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod", "-h"))
    assert not enters(sshd, place.ca, None), "the CA's key itself is no key for logins"


def test_an_account_that_is_not_listed_cannot_be_entered(place: Place) -> None:
    install_host(place.prefix, *usual(place, account="somebody-else"))
    with running(place.prefix) as sshd:
        assert not enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod"))


def test_two_cas_are_trusted_and_dropping_one_counts_at_the_next_login(place: Place) -> None:
    install(place, "--ca", public(place.other_ca).read_text().strip())
    old, new = (certify(ca, place.key, f"{ME}@web-prod") for ca in (place.ca, place.other_ca))
    with running(place.prefix) as sshd:
        assert enters(sshd, place.key, old)
        assert enters(sshd, place.key, new)
        ran = install_host(place.prefix, *usual(place, ca=str(public(place.other_ca))), "--account", "games")
        assert ran.returncode == 0
        assert "reload" not in ran.stdout
        assert not enters(sshd, place.key, old)
        assert enters(sshd, place.key, new)
        install_host(place.prefix, *usual(place, ca=f"{place.prefix}/jit-ssh/ca.pub", account="games"))
        assert not enters(sshd, place.key, new)


def test_certificates_leave_ordinary_keys_alone(place: Place) -> None:
    shutil.copy(public(place.key), place.prefix / "authorized_keys")
    install(place)
    with running(place.prefix) as sshd:
        assert enters(sshd, place.key, None)


# ------------------------------------------------------------------------------------------------ revoked keys


def test_the_first_list_of_revoked_keys_is_empty_and_valid(place: Place) -> None:
    install(place)
    listed = subprocess.run(["ssh-keygen", "-Q", "-l", "-f", place.prefix / "jit-ssh/revoked"], check=True, capture_output=True)
    assert [line for line in listed.stdout.splitlines() if line and not line.startswith(b"#")] == []


def test_a_list_that_is_there_is_kept_and_honoured(place: Place) -> None:
    install(place)
    spec = place.prefix.parent / "spec"
    spec.write_text("serial: 41\n")
    revoked = place.prefix / "jit-ssh/revoked"
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, "-s", public(place.ca), spec], check=True)
    before = everything(place.prefix)
    install(place)
    assert everything(place.prefix) == before
    with running(place.prefix) as sshd:
        assert not enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod", serial=41))
        assert enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod", serial=42))


@pytest.mark.parametrize("content", [b"", b"<html>502 Bad Gateway</html>", b"SSHKRL\n\0"])
def test_something_that_is_no_list_of_revoked_keys_is_not_taken_for_an_empty_one(place: Place, content: bytes) -> None:
    install(place)
    (place.prefix / "jit-ssh/revoked").write_bytes(content)
    assert "not a key revocation list" in refused(place, *usual(place))


# ------------------------------------------------------------------------------------------------ changes


@pytest.mark.parametrize("shell", ["dash", "bash", "sh"])
def test_what_is_written_is_complete_and_a_second_run_touches_nothing(place: Place, shell: str) -> None:
    ran = install_host(place.prefix, *usual(place), "--group", "eu", "--account", "games", shell=shell)
    assert ran.returncode == 0
    root = place.prefix
    assert (root / "jit-ssh/ca.pub").read_text() == public(place.ca).read_text()
    assert (root / f"jit-ssh/principals/{ME}").read_text() == f"{ME}@web-prod\n{ME}@eu\n"
    assert (root / "jit-ssh/principals/games").read_text() == "games@web-prod\ngames@eu\n"
    assert (root / DROP_IN).read_text().splitlines()[1:] == [
        f"TrustedUserCAKeys {root}/jit-ssh/ca.pub",
        f"AuthorizedPrincipalsFile {root}/jit-ssh/principals/%u",
        f"RevokedKeys {root}/jit-ssh/revoked",
    ]
    before = everything(root)
    again = install_host(root, *usual(place), "--group", "eu", "--account", "games", shell=shell)
    assert "nothing to change" in again.stdout
    assert everything(root) == before


def test_a_file_whose_mode_was_changed_is_written_again(place: Place) -> None:
    install(place)
    principals = place.prefix / f"jit-ssh/principals/{ME}"
    principals.chmod(0o666)
    install(place)
    assert stat.S_IMODE(principals.stat().st_mode) == 0o644


def test_a_strict_umask_does_not_hide_the_files_from_the_accounts(place: Place) -> None:
    before = os.umask(0o077)
    try:
        install(place)
    finally:
        os.umask(before)
    modes = {stat.filemode(path.stat().st_mode) for path in (place.prefix / "jit-ssh").rglob("*")}
    assert modes == {"drwxr-xr-x", "-rw-r--r--"}
    assert stat.filemode((place.prefix / "jit-ssh").stat().st_mode) == "drwxr-xr-x"


def test_a_dry_run_says_what_would_change_and_changes_nothing(place: Place) -> None:
    before = everything(place.prefix)
    ran = install_host(place.prefix, *usual(place), "--dry-run")
    assert f"would be written  {place.prefix}/{DROP_IN}\n" in ran.stdout
    assert everything(place.prefix) == before
    install(place)
    before = everything(place.prefix)
    ran = install_host(place.prefix, "--uninstall", "--dry-run")
    assert f"would be removed  {place.prefix}/jit-ssh/revoked\n" in ran.stdout
    assert everything(place.prefix) == before


def test_uninstall_removes_what_was_made_and_nothing_else(place: Place) -> None:
    (place.prefix / "sshd_config.d/10-other.conf").write_text("LoginGraceTime 30\n")
    before = everything(place.prefix)
    install(place)
    ran = install_host(place.prefix, "--uninstall")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert everything(place.prefix) == before
    assert "nothing to change" in install_host(place.prefix, "--uninstall").stdout


def test_uninstall_leaves_the_files_of_others_where_they_are(place: Place) -> None:
    install(place)
    (place.prefix / "jit-ssh/NOTES").write_text("ours\n")
    assert "holds files of others" in install_host(place.prefix, "--uninstall").stdout
    assert [path.name for path in (place.prefix / "jit-ssh").iterdir()] == ["NOTES"]


def test_nobody_is_locked_out_between_uninstall_and_reload(place: Place) -> None:
    shutil.copy(public(place.key), place.prefix / "authorized_keys")
    install(place)
    revoked = place.prefix / "jit-ssh/revoked"
    with running(place.prefix) as sshd:
        ran = install_host(place.prefix, "--uninstall")
        assert "after the reload, run this again" in ran.stdout
        assert not (place.prefix / DROP_IN).exists()
        assert revoked.exists()
        assert enters(sshd, place.key, None)
        ran = install_host(place.prefix, "--uninstall", "--reload")
        assert "sshd has read its configuration" in ran.stdout
        assert not revoked.parent.exists()
        assert enters(sshd, place.key, None)


def test_a_running_sshd_trusts_the_ca_after_a_reload(place: Place) -> None:
    certificate = certify(place.ca, place.key, f"{ME}@web-prod")
    with running(place.prefix) as sshd:
        assert "next: reload sshd" in install_host(place.prefix, *usual(place)).stdout
        assert not enters(sshd, place.key, certificate)
        install(place, "--reload")
        assert enters(sshd, place.key, certificate)


def test_uninstall_refuses_while_a_line_elsewhere_uses_the_files(place: Place) -> None:
    install(place)
    with (place.prefix / "sshd_config").open("a") as config:
        config.write(f"RevokedKeys {place.prefix}/jit-ssh/revoked\n")
    assert "sshd would still use revokedkeys" in refused(place, "--uninstall")


# ------------------------------------------------------------------------------------------------ rolling back


def sshd_that(place: Place, does: str, when: str) -> str:
    """The path of an sshd that does `does` instead of testing the configuration, once the shell condition `when` holds."""
    program = place.prefix.parent / "sshd"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" -t "*) if {when}; then {does}; fi ;; esac\nexec {SSHD} "$@"\n')
    program.chmod(0o755)
    return str(program)


FAILURES = {"refuses": "echo 'Bad configuration option' >&2; exit 255"} | {
    f"dies of {name}": f"kill -{name} $PPID; exit 0" for name in ("HUP", "INT", "TERM", "PIPE")
}


@pytest.mark.parametrize("does", FAILURES.values(), ids=FAILURES)
def test_a_first_run_that_fails_leaves_no_trace(place: Place, does: str) -> None:
    sshd = sshd_that(place, does, when=f"[ -e {place.prefix}/{DROP_IN} ]")
    before = everything(place.prefix)
    ran = install_host(place.prefix, *usual(place), "--sshd", sshd)
    assert ran.returncode == 1
    assert "every file is back as it was" in ran.stderr
    assert everything(place.prefix) == before
    install(place)


@pytest.mark.parametrize("does", FAILURES.values(), ids=FAILURES)
def test_a_later_run_that_fails_leaves_every_file_as_it_was(place: Place, does: str) -> None:
    install(place, "--account", "games")
    sshd = sshd_that(place, does, when=f"grep -q db-prod {place.prefix}/jit-ssh/principals/{ME}")
    (place.prefix / DROP_IN).chmod(0o600)
    before = everything(place.prefix)
    ran = install_host(place.prefix, *usual(place, ca=str(public(place.other_ca)), group="db-prod"), "--sshd", sshd)
    assert ran.returncode == 1
    assert everything(place.prefix) == before
    sshd = sshd_that(place, does, when=f"[ ! -e {place.prefix}/{DROP_IN} ]")
    assert install_host(place.prefix, "--uninstall", "--sshd", sshd).returncode == 1
    assert everything(place.prefix) == before


def test_a_killed_run_keeps_its_backups_and_is_noticed(place: Place) -> None:
    install(place)
    principals = place.prefix / f"jit-ssh/principals/{ME}"
    before = principals.read_bytes()
    sshd = sshd_that(place, "kill -KILL $PPID; exit 0", when=f"grep -q db-prod {principals}")
    assert install_host(place.prefix, *usual(place, group="db-prod"), "--sshd", sshd).returncode == -9
    work = place.prefix / ".jit-ssh-install"
    assert (work / "old/jit-ssh/principals" / ME).read_bytes() == before
    assert f"{work} could not be made" in refused(place, *usual(place))
    shutil.rmtree(work)
    install(place)
    assert principals.read_bytes() == before


def test_a_configuration_that_is_already_bad_is_not_made_ours(place: Place) -> None:
    (place.prefix / "sshd_config.d/10-bad.conf").write_text("NoSuchOption yes\n")
    assert "as it is now, before any change" in refused(place, *usual(place))


def test_two_runs_at_once_do_not_mix(place: Place) -> None:
    (place.prefix / ".jit-ssh-install").mkdir()
    assert "another run is at work or was killed" in refused(place, *usual(place))


# ------------------------------------------------------------------------------------------------ who else decides


@pytest.mark.parametrize("keyword", ["TrustedUserCAKeys", "AuthorizedPrincipalsFile", "RevokedKeys"])
def test_what_others_rely_on_is_not_taken_over(place: Place, keyword: str) -> None:
    with (place.prefix / "sshd_config").open("a") as config:
        config.write(f"{keyword} /etc/ssh/theirs\n")
    said = refused(place, *usual(place))
    assert f"sshd already has {keyword} /etc/ssh/theirs for account {ME}" in said
    assert f"{place.prefix}/sshd_config line" in said


def test_a_match_block_for_one_account_is_seen(place: Place) -> None:
    with (place.prefix / "sshd_config").open("a") as config:
        config.write(f"Match User {ME}\n  TrustedUserCAKeys /etc/ssh/theirs\n")
    assert "sshd already has TrustedUserCAKeys" in refused(place, *usual(place, account="games"), "--account", ME)
    ran = install_host(place.prefix, *usual(place, account="games"))
    assert ran.returncode == 0
    assert "warning: TrustedUserCAKeys is also set in" in ran.stderr


@pytest.mark.parametrize("where", ["sshd_config", "sshd_config.d/10-other.conf"])
def test_an_earlier_line_that_shadows_ours_is_found_by_its_outcome(tmp_path: Path, where: str) -> None:
    place = make_place(tmp_path)
    path = place.prefix / where
    path.write_text("RevokedKeys none\n" + (path.read_text() if path.exists() else ""))
    said = refused(place, *usual(place))
    assert f"account {ME} would not get our RevokedKeys but 'none'" in said
    assert f"{path} line 1" in said


def test_a_missing_include_is_refused_with_the_line_to_add(place: Place) -> None:
    config = place.prefix / "sshd_config"
    include, rest = config.read_text().split("\n", 1)
    config.write_text(rest)
    assert f"put this line first in {config}: {include}" in refused(place, *usual(place))
    config.write_text(f"{rest}Match User nobody-at-all\n{include}\n")
    assert "would not get our" in refused(place, *usual(place))
    shutil.rmtree(place.prefix / "sshd_config.d")
    config.write_text(rest)
    assert f"put this line first in {config}: {include}" in refused(place, *usual(place))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ForceCommand /bin/true", "ForceCommand is set"),
        ("PubkeyAuthentication no", "no certificate enters"),
        ("AuthenticationMethods publickey,password", "asks for more than a certificate"),
        ("AllowUsers ana", "sshd has allowusers"),
        ("DenyGroups staff", "sshd has denygroups"),
        ("PubkeyAcceptedAlgorithms ssh-ed25519", "has no certificates"),
        ("CASignatureAlgorithms rsa-sha2-512", "lacks ssh-ed25519"),
        ("AuthorizedPrincipalsCommand /bin/true\nAuthorizedPrincipalsCommandUser nobody", "may let in other principals"),
    ],
)
def test_settings_that_decide_beside_ours_are_reported_once(tmp_path: Path, line: str, words: str) -> None:
    place = make_place(tmp_path, line)
    ran = install_host(place.prefix, *usual(place))
    assert ran.returncode == 0
    assert ran.stderr.count(words) == 1


@pytest.mark.parametrize("setting", ["no", "forced-commands-only"])
def test_permit_root_login_is_reported_for_root_only(tmp_path: Path, setting: str) -> None:
    place = make_place(tmp_path, f"PermitRootLogin {setting}")
    assert f"warning: PermitRootLogin {setting}" in install_host(place.prefix, *usual(place, account="root")).stderr
    assert "PermitRootLogin" not in install_host(place.prefix, *usual(place, account="games")).stderr


def test_an_account_that_is_not_here_is_mapped_and_reported(place: Place) -> None:
    ran = install_host(place.prefix, *usual(place, account="no-such-account"))
    assert ran.returncode == 0
    assert "there is no account no-such-account here yet" in ran.stderr


# ------------------------------------------------------------------------------------------------ hostile arguments

BAD_NAMES = [
    "", ".", "..", "../x", "a/b", "-x", "--account", "a b", " a", "a\n", "a\nb", "a\tb", "#", "#a", "a#b", "*", "?", "[a]",
    "a,b", "a@b", "%u", "~", "$(id)", "`id`", "a;b", "a'b", 'a"b', "A", "Root", "\u0430na", "é", "a\x1b[31m", "!a", ".a", "\\",
]  # fmt: skip


@pytest.mark.parametrize("name", [*BAD_NAMES, "a" * 64])
def test_a_hostile_group_is_refused(place: Place, name: str) -> None:
    assert not GROUP.fullmatch(name)
    assert "group" in refused(place, *usual(place, group=name))


@pytest.mark.parametrize("name", [*BAD_NAMES, "1a", "a" * 33])
def test_a_hostile_account_is_refused(place: Place, name: str) -> None:
    assert not ACCOUNT.fullmatch(name)
    assert "account" in refused(place, *usual(place, account=name))


def test_the_longest_and_oddest_names_of_the_policy_are_taken(place: Place) -> None:
    account, group = "_" + "a.-_9"[:5] * 6 + "z", "0" + "._-z" * 15 + "ab"
    assert ACCOUNT.fullmatch(account)
    assert GROUP.fullmatch(group)
    ran = install_host(place.prefix, *usual(place, account=account, group=group))
    assert ran.returncode == 0
    assert (place.prefix / "jit-ssh/principals" / account).read_text() == f"{account}@{group}\n"


@pytest.mark.parametrize(
    "arguments",
    [["--ca"], ["--grup", "x"], ["--ca=x"], ["stray"], ["--"], ["-h\x1b[2J"], ["--uninstall", "--group", "x"],
     ["--group", "x", "--account", "y"], ["--prefix", ""], ["--prefix", "/nowhere"], ["--prefix", "a b"], ["--prefix", "%u"],
     ["--prefix", "-x"], ["--sshd", "sshd"], ["--sshd", "/nowhere"]],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(place: Place, arguments: list[str]) -> None:
    complete = usual(place) if arguments[0] in {"--prefix", "--sshd"} else []
    refused(place, *complete, *arguments)


def ca_lines(directory: Path) -> dict[str, str]:
    """What is no CA's public key, by what is wrong with it."""
    good = public(make_key(directory / "good")).read_text().strip()
    kind, blob = good.split()[:2]
    certificate = certify(make_key(directory / "signer"), directory / "good", "root@web")
    dsa, rsa = make_key(directory / "dsa", "-t", "dsa"), make_key(directory / "rsa", "-t", "rsa", "-b", "2048")
    return {
        "a private key": (directory / "good").read_text(),
        "a certificate": certificate.read_text().strip(),
        "a certificate under a key's name": f"{kind} {certificate.read_text().split()[1]}",
        "DSA": public(dsa).read_text().strip(),
        "a short RSA key": public(rsa).read_text().strip(),
        "an option": f'command="/bin/sh" {good}',
        "cert-authority": f"cert-authority {good}",
        "two keys on a line": f"{kind} {blob} {kind} {blob}",
        "a key and another's blob": f"{kind} {blob} {blob}",
        "another type than the blob's": f"ssh-rsa {blob}",
        "a cut blob": f"{kind} {blob[:-8]}",
        "junk in the blob": f"{kind} {blob[:30]}!{blob[30:]}",
        "junk after the blob": f"{kind} {blob}AAAA",
        "no blob": kind,
        "an empty blob": f"{kind}  {blob}",
        "a tab": f"{kind}\t{blob}",
        "an escape in the comment": f"{kind} {blob} \x1b[31mred",
        "a carriage return": f"{good}\r",
        "a small-print file": "# only a comment",
        "nothing": "",
        "an error page": "<html>502</html>",
    }


@pytest.mark.parametrize("as_file", [True, False])
def test_what_is_no_public_key_of_a_ca_is_refused_and_never_shown(place: Place, as_file: bool) -> None:
    for wrong, line in ca_lines(place.prefix.parent).items():
        path = place.prefix.parent / "given"
        path.write_text(f"{line}\n")
        said = refused(place, *usual(place, ca=str(path) if as_file else line))
        assert "--ca" in said or str(path) in said, wrong
        if wrong == "a private key":
            assert not any(secret in said for secret in line.splitlines()[1:-1])


def test_a_good_key_followed_by_a_bad_one_is_refused_as_a_whole(place: Place) -> None:
    path = place.prefix.parent / "given"
    path.write_text(public(place.ca).read_text() + "ssh-ed25519 AAAA\n")
    assert "line 2 is not a public key" in refused(place, *usual(place, ca=str(path)))
    twice = f"{public(place.ca).read_text().strip()}\n{public(place.other_ca).read_text().strip()}"
    assert "line break" in refused(place, *usual(place, ca=twice))


@pytest.mark.parametrize("options", [("-t", "rsa", "-b", "3072"), ("-t", "ecdsa", "-b", "384")])
def test_a_ca_of_another_good_type_is_trusted(place: Place, options: tuple[str, ...]) -> None:
    ca = make_key(place.prefix.parent / "third", *options)
    assert install_host(place.prefix, *usual(place, ca=str(public(ca)))).returncode == 0
    with running(place.prefix) as sshd:
        assert enters(sshd, place.key, certify(ca, place.key, f"{ME}@web-prod"))


@pytest.mark.parametrize("name", ["jit-ssh", "jit-ssh/principals", "jit-ssh/ca.pub", f"jit-ssh/principals/{ME}", DROP_IN])
def test_nothing_is_written_through_a_symbolic_link(place: Place, name: str) -> None:
    install(place)
    target = place.prefix.parent / "elsewhere"
    (place.prefix / name).rename(target)
    (place.prefix / name).symlink_to(target)
    refused(place, *usual(place, group="db-prod"))


@pytest.mark.parametrize("name", ["Root", "a b", "~", ".hidden", "-x"])
def test_a_stranger_among_the_principals_is_reported_not_removed(place: Place, name: str) -> None:
    install(place)
    (place.prefix / "jit-ssh/principals" / name).write_text("root@anything\n")
    assert "only this program writes there" in refused(place, *usual(place))


# ------------------------------------------------------------------------------------------------ rights


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[tuple[Place, pwd.struct_passwd]]:
    """A place that belongs to an ordinary user: daemon when the tests run as root, otherwise whoever runs them.

    Not nobody: systemd's name service says that nobody is locked, to those who cannot read the shadow file.
    """
    user = pwd.getpwnam("daemon") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    directory = Path(tempfile.mkdtemp())  # root's tmp_path cannot be entered by others
    try:
        directory.chmod(0o755)
        place = make_place(directory)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user.pw_uid, -1)
        yield place, user
    finally:
        shutil.rmtree(directory)


def switch(user: pwd.struct_passwd) -> int | None:
    return user.pw_uid if os.geteuid() == 0 else None


def test_an_ordinary_user_makes_their_own_sshd_trust_the_ca(ordinary: tuple[Place, pwd.struct_passwd]) -> None:
    place, user = ordinary
    ran = install_host(place.prefix, *usual(place, account=user.pw_name), user=switch(user))
    assert (ran.returncode, ran.stderr) == (0, "")
    good, bad = (certify(place.ca, place.key, principal) for principal in (f"{user.pw_name}@web-prod", user.pw_name))
    with running(place.prefix, user=switch(user)) as sshd:
        ssh(sshd, user.pw_name, "true", identity=place.key, certificate=bad)
        assert "Accepted" not in sshd.log()
        ssh(sshd, user.pw_name, "true", identity=place.key, certificate=good)
        assert f"Accepted publickey for {user.pw_name}" in sshd.log()


def test_without_the_right_to_write_nothing_happens(ordinary: tuple[Place, pwd.struct_passwd]) -> None:
    place, user = ordinary
    place.prefix.chmod(0o555)
    before = everything(place.prefix)
    ran = install_host(place.prefix, *usual(place), user=switch(user))
    assert ran.returncode == 1
    assert f"cannot be written by {user.pw_name}" in ran.stderr
    assert "run this as root" in ran.stderr
    assert everything(place.prefix) == before
    place.prefix.chmod(0o755)


def test_strict_modes_accept_what_is_written_and_lax_directories_are_refused() -> None:
    with tempfile.TemporaryDirectory(dir=pwd.getpwuid(os.geteuid()).pw_dir) as directory:
        place = make_place(Path(directory), "StrictModes yes")
        place.prefix.chmod(0o775)
        assert "sshd would refuse every principals file below it" in refused(place, *usual(place))
        place.prefix.chmod(0o755)
        install(place)
        with running(place.prefix) as sshd:
            assert enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod"))
            (place.prefix / "jit-ssh/principals").chmod(0o777)
            assert not enters(sshd, place.key, certify(place.ca, place.key, f"{ME}@web-prod"))
            assert "it must be drwxr-xr-x" in refused(place, *usual(place))


def test_the_manual_has_every_option_and_every_file() -> None:
    manual = (INSTALL_HOST.parents[1] / "server/HOSTS.md").read_text()
    told = subprocess.run([INSTALL_HOST, "--help"], check=True, capture_output=True, text=True).stdout
    names = set(re.findall(r"--[a-z-]+", told))
    assert {"--ca", "--uninstall"} < names
    assert sorted(set(re.findall(r"^\| `(--[a-z-]+)", manual, re.MULTILINE))) == sorted(names)
    assert all(f"| `/etc/ssh/{name}` |" in manual for name in (DROP_IN, "jit-ssh/ca.pub", "jit-ssh/revoked"))
