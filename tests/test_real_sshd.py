"""Certificates issued through the HTTP door, judged by a real sshd with the real ssh: who gets in, who does not, and with what.

The sshd trusts three CAs that differ in what time it is for them: half an hour ago, now, and in half an hour.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ca.certificate import SignedCertificate
from tests import keys, sshd
from tests.keys import EVERY_TYPE, Kept
from tests.sshd import Sshd
from tests.world import World, certificate

ACCOUNT = sshd.current_account()
HALF_AN_HOUR = 1800


def role(principal: str, *lines: str) -> str:
    """The text of a role for this principal."""
    head = ['about = "For a test"', 'owner = "sre"', "review_by = 2027-12-31", f'principals = ["{principal}"]']
    durations = ['default_duration = "5m"', 'max_duration = "1h"']
    return "\n".join([*head, *durations, *lines, "[[allow]]", 'groups = ["sre"]', ""])


ROLES = {
    "role_shell": role(f"{ACCOUNT}@web", 'permit = ["pty", "port-forwarding"]'),
    "role_bare": role(f"{ACCOUNT}@web", "permit = []"),
    "role_forced": role(f"{ACCOUNT}@web", 'force_command = "echo forced, asked for $SSH_ORIGINAL_COMMAND"'),
    "role_pinned": role(f"{ACCOUNT}@web", "pin_source_address = true"),
    "role_other_group": role(f"{ACCOUNT}@dev"),
    "role_other_account": role("somebody@web"),
}


@dataclass(frozen=True)
class Site:
    """The running sshd, the CAs that it trusts by what time it is for them, and one that it does not."""

    sshd: Sshd
    past: World
    present: World
    future: World
    stranger: World


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory, now = tmp_path_factory.mktemp("site"), time.time()
    worlds = {}
    for name, offset in (("past", -HALF_AN_HOUR), ("present", 0), ("future", HALF_AN_HOUR), ("stranger", 0)):
        (directory / name).mkdir()
        worlds[name] = World(directory / name, now + offset)
        worlds[name].adopt(**ROLES)
    trusted = directory / "trusted"
    trusted.write_text("".join(f"{worlds[name].signer.public_key.line}\n" for name in ("past", "present", "future")))
    with sshd.trusting(directory / "sshd", trusted, ["web"]) as running:
        yield Site(running, **worlds)
    for world in worlds.values():
        world.store.close()


@dataclass(frozen=True)
class Attempt:
    """How an ssh to the sshd ended, and what sshd logged meanwhile."""

    status: int
    stdout: str
    stderr: str
    log: str

    def refused(self, why: str) -> None:
        """ssh was not let in, and sshd said why."""
        assert self.status == 255
        assert "Permission denied" in self.stderr
        assert why in self.log


Enter = Callable[..., Attempt]


@pytest.fixture
def enter(site: Site, every_key: Mapping[str, Kept], tmp_path: Path) -> Enter:
    """Goes to the sshd as `account` with this certificate, or none, and the key of this type, and runs a command there."""
    provider = ("-o", f"SecurityKeyProvider={keys.PROVIDER['SSH_SK_PROVIDER']}")

    def run(issued: SignedCertificate | None, *command: str, kind: str = "ed25519", account: str = ACCOUNT) -> Attempt:
        path = tmp_path / "id-cert.pub"
        path.write_text(f"{issued.line}\n" if issued else "")
        logged = len(site.sshd.log())
        identity = every_key[kind].path
        done = sshd.ssh(site.sshd, account, *provider, *command, identity=identity, certificate=path if issued else None)
        return Attempt(done.returncode, done.stdout, done.stderr, site.sshd.log()[logged:])

    return run


@pytest.fixture
def key(every_key: Mapping[str, Kept]) -> Kept:
    """The key that is certified unless a test says otherwise."""
    return every_key["ed25519"]


# ------------------------------------------------------------------- who gets in


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_certificate_over_a_key_of_every_type_lets_its_person_in(
    kind: str, site: Site, every_key: Mapping[str, Kept], enter: Enter
) -> None:
    issued = certificate(site.present.ask("ana", every_key[kind], role="shell"))
    attempt = enter(issued, "echo $USER is in", kind=kind)
    assert (attempt.status, attempt.stdout) == (0, f"{ACCOUNT} is in\n"), attempt.stderr
    said = issued.certificate
    line = f"ID {said.key_id} (serial {said.serial}) CA ED25519 {site.present.signer.public_key.fingerprint}"
    assert f"{said.key.fingerprint} {line}" in attempt.log, "what sshd logs leads to the entry"


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_key_without_a_certificate_lets_nobody_in(kind: str, enter: Enter) -> None:
    enter(None, "true", kind=kind).refused("Failed publickey")


def test_a_certificate_without_its_key_lets_nobody_in(site: Site, every_key: Mapping[str, Kept], enter: Enter) -> None:
    issued = certificate(site.present.ask("ana", every_key["ecdsa-256"], role="shell"))
    enter(issued, "true", kind="ed25519").refused("Failed publickey")
    assert enter(issued, "true", kind="ecdsa-256").status == 0


# ---------------------------------------------------------------- who does not


def test_the_account_of_another_host_group_is_not_this_one(site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.present.ask("ana", key, role="other-group"))
    assert issued.certificate.principals == (f"{ACCOUNT}@dev",)
    enter(issued, "true").refused("does not contain an authorized principal")


def test_a_principal_opens_its_own_account_and_no_other(site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.present.ask("ana", key, role="other-account"))
    enter(issued, "true").refused("does not contain an authorized principal")
    shell = certificate(site.present.ask("ana", key, role="shell"))
    enter(shell, "true", account="nobody").refused("Failed publickey")


def test_a_certificate_ends_with_its_grant(site: Site, key: Kept, enter: Enter) -> None:
    enter(certificate(site.past.ask("ana", key, role="shell", duration=300)), "true").refused("Certificate invalid: expired")
    assert enter(certificate(site.past.ask("ana", key, role="shell", duration=3600)), "true").status == 0


def test_a_certificate_of_a_ca_whose_clock_runs_ahead_is_not_valid_yet(site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.future.ask("ana", key, role="shell"))
    assert issued.certificate.valid_after > time.time()
    enter(issued, "true").refused("Certificate invalid: not yet valid")


def test_a_ca_whose_clock_runs_ahead_by_less_than_a_minute_does_no_harm(site: Site, key: Kept, enter: Enter) -> None:
    site.present.now = max(site.present.now, time.time()) + 30
    assert enter(certificate(site.present.ask("ana", key, role="shell")), "true").status == 0


def test_a_ca_that_the_host_does_not_trust_lets_nobody_in(site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.stranger.ask("ana", key, role="shell"))
    assert issued.certificate.principals == (f"{ACCOUNT}@web",)
    attempt = enter(issued, "true")
    attempt.refused("Failed publickey")
    assert "Accepted certificate" not in attempt.log


def test_a_signature_of_another_ca_under_a_trusted_name_lets_nobody_in(site: Site, key: Kept, enter: Enter) -> None:
    honest = certificate(site.present.ask("ana", key, role="shell"))
    tbs = honest.certificate.to_be_signed
    enter(SignedCertificate(honest.certificate, site.stranger.signer.sign(tbs)), "true").refused("Failed publickey")
    assert enter(honest, "true").status == 0


# ------------------------------------------------------------------ with what


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9", "2001:db8::1", "::1"])
def test_a_pinned_certificate_is_good_from_the_address_that_asked(address: str, site: Site, key: Kept, enter: Enter) -> None:
    body = json.dumps(site.present.body("ana", key, role="pinned"))
    issued = certificate(site.present.http.post("/v1/requests", data=body, environ_overrides={"REMOTE_ADDR": address}))
    assert issued.certificate.source_address == f"{address}/{128 if ':' in address else 32}"
    attempt = enter(issued, "true")
    if address == "127.0.0.1":
        assert attempt.status == 0, attempt.stderr
    else:
        attempt.refused("not from a permitted source address (127.0.0.1)")


@pytest.mark.parametrize("asked", ["id -u", "cat /etc/passwd; sh", ""])
def test_a_forced_command_runs_instead_of_what_was_asked(asked: str, site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.present.ask("ana", key, role="forced"))
    assert enter(issued, *filter(None, [asked])).stdout == f"forced, asked for {asked}".strip() + "\n"


def test_a_forced_command_runs_instead_of_a_subsystem(site: Site, key: Kept, enter: Enter) -> None:
    issued = certificate(site.present.ask("ana", key, role="forced"))
    assert enter(issued, "-s", "sftp").stdout == "forced, asked for internal-sftp\n"


def test_a_role_that_permits_nothing_gives_neither_terminal_nor_tunnel(site: Site, key: Kept, enter: Enter) -> None:
    tunnel = ("-W", f"127.0.0.1:{site.sshd.port}")
    bare = certificate(site.present.ask("ana", key, role="bare"))
    assert bare.certificate.permit == ()
    assert enter(bare, "echo in").stdout == "in\n"
    terminal = enter(bare, "-tt", "test -t 0 && echo a terminal")
    assert "PTY allocation request failed" in terminal.stderr
    assert "a terminal" not in terminal.stdout
    forwarded = enter(bare, *tunnel)
    assert forwarded.status == 255
    assert "administratively prohibited" in forwarded.stderr

    shell = certificate(site.present.ask("ana", key, role="shell"))
    assert "a terminal" in enter(shell, "-tt", "test -t 0 && echo a terminal").stdout
    assert enter(shell, *tunnel).stdout.startswith("SSH-2.0-")


@pytest.fixture(autouse=True)
def _sound(site: Site) -> Iterator[None]:
    """Whatever sshd did with a certificate, the log that it came from is sound."""
    site.present.now = max(site.present.now, time.time())
    yield
    site.present.check()
