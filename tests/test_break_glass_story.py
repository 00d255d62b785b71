"""The whole emergency, with the real programs: sealed, used without a CA, seen by the host, reconciled, reviewed, rotated."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from shamir_mnemonic import combine_mnemonics  # type: ignore[import-untyped]  # the library has no types

from ca.journal import FIRST_SERIAL
from server.admin import main
from tests import sshd
from tests.glass import Machine, command_lines, outfit, types_yes
from tests.home import Home, make_home
from tests.running import Ran, Running
from tests.sshd import Sshd, current_account, install_host, make_key, make_prefix

ME: Final = current_account()
PEOPLE: Final = ("ana", "cy", "di", "eve")
GROUPS: Final = {"ana": '"sre"', "cy": "", "di": "", "eve": '"security"'}


def run(*arguments: str | Path) -> Ran:
    """`jit-ssh-ca` in this process: what starts anew here is what an emergency starts anew."""
    done = CliRunner().invoke(main, [*map(str, arguments)])
    return Ran(done.exit_code, done.stdout, done.stderr)


def break_glass(*arguments: str | Path) -> Ran:
    return run("break-glass", *arguments)


@dataclass(frozen=True)
class Sealing:
    """A sealed key: its public line, and the officers' words as they are on paper."""

    line: str
    shares: Mapping[str, str]

    def private(self, path: Path) -> Path:
        """The key that a thief with two shares makes of them, as a file."""
        secret = combine_mnemonics([self.shares["cy"], self.shares["di"]])
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        path.write_bytes(Ed25519PrivateKey.from_private_bytes(secret).private_bytes(*form))
        path.chmod(0o600)
        return path


def seal(ca: Path, command: str, *more: str) -> Sealing:
    """`init` or `rotate`, on sheets."""
    sheets = ca.parent / command
    done = break_glass(command, ca, "--officers", "cy,di,eve", "--sheets", sheets, *more)
    assert done.code == 0, done.err
    line = next(each.strip() for each in done.out.splitlines() if each.strip().endswith(" break-glass"))
    words = {path.stem.removeprefix("share-"): re.findall(r"\d+\. ([a-z]+)", path.read_text()) for path in sheets.iterdir()}
    return Sealing(" ".join(line.split()[:2]), {officer: " ".join(each) for officer, each in words.items()})


def make_ca(directory: Path) -> Path:
    """A CA with ana on call, three officers, and eve who reviews; their keys are beside it."""
    ca = directory / "ca"
    assert run("init", ca, "--origin", "ca.example.com").code == 0
    people = '[groups]\nsre = "x"\nsecurity = "x"\n'
    for name in PEOPLE:
        line = Path(f"{make_key(directory / name)}.pub").read_text().strip()
        people += f'[people.{name}]\ngroups = [{GROUPS[name]}]\nkeys = ["{line}"]\n'
    (ca / "policies" / "people.toml").write_text(people)
    (ca / "policies" / "guardrails.toml").write_text('auditors = ["security"]\n')
    (ca / "policies" / "hosts.toml").write_text('[groups.web]\nabout = "Web"\nhosts = ["web-*"]\n')
    for name in ("oncall.toml", "break-glass.toml"):
        (ca / "policies" / name).unlink()
    shutil.rmtree(ca / "policies" / "roles")
    (ca / "policies" / "roles").mkdir()
    return ca


def public_line(private: Path) -> str:
    return subprocess.run(["ssh-keygen", "-y", "-f", private], check=True, capture_output=True, text=True).stdout.strip()


def install(prefix: Path, ca_line: str, *emergency: str) -> None:
    usual = ("--ca", ca_line, "--group", "web", "--account", ME, "--emergency-account", ME)
    done = install_host(prefix, *usual, *emergency)
    assert done.returncode == 0, done.stderr


def stolen(directory: Path, name: str, sealing: Sealing) -> tuple[Path, Path]:
    """A key and a certificate that no kit made."""
    key, ca = make_key(directory / name), sealing.private(directory / f"{name}-ca")
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", "break-glass/ana/0011223344556677", "-n", "break-glass@web", "-V", "+1h"]
    subprocess.run([*sign, "-z", str(FIRST_SERIAL + 5), f"{key}.pub"], check=True, capture_output=True)
    return key, Path(f"{key}-cert.pub")


def gets_in(host: Sshd, key: Path, certificate: Path) -> bool:
    return sshd.ssh(host, ME, "echo", "in", identity=key, certificate=certificate).stdout == "in\n"


def reviewer(directory: Path, server: Running, ca: Path) -> Home:
    """The machine of eve, who believes the CA."""
    home = make_home(directory / "eve-home", directory / "eve")
    fingerprint = run("fingerprint", ca).out.split("fingerprint  ")[1].strip()
    done = home.run("setup", server.url, "--fingerprint", fingerprint)
    assert done.returncode == 0, done.stderr
    return home


def opened_by(laptop: Machine, sealed: Sealing, *officers: str) -> Path:
    """The certificate that the kit makes for ana, once these officers typed their shares."""
    wanted = ("--for", "ana", "--key", str(laptop.key), "--group", "web", "--reason", "CA down, INC-77")
    with laptop.opened(*wanted) as program:
        types_yes(program)
        for number, officer in enumerate(officers, start=1):
            program.expect(f"share {number} of 2, from word 1 of 33 on: ")
            program.type(sealed.shares[officer] + "\n")
        assert program.end() == 0, program.said
    (command,) = command_lines(program.said)
    return Path(re.findall(r"CertificateFile=(\S+)", command)[0])


def the_old_key_ends(prefix: Path, ca_line: str, seals: tuple[Sealing, Sealing], held: tuple[tuple[Path, Path], ...]) -> None:
    """A host trusts both keys, then the old one no longer, because its day has come or it was taken away."""
    before, after = seals
    *old, new = held
    both = ("--emergency", after.line, "--emergency", before.line, "--emergency-until")
    for options, trusted in (((*both, "20991231"), True), ((*both, "20200101"), False), (both[:2], False)):
        install(prefix, ca_line, *options)
        with sshd.running(prefix) as host:
            assert [gets_in(host, *each) for each in old] == [trusted, trusted], options
            assert gets_in(host, *new)


def test_from_the_seal_to_the_rotation(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    sealed = seal(ca, "init")
    ca_line = public_line(ca / "keys" / "ca")
    prefix = make_prefix(tmp_path / "etc")
    install(prefix, ca_line, "--emergency", sealed.line)
    server = Running(ca)
    policy = f'groups = ["sre"]\nask = ["{server.url}"]\n[hosts]\nweb = ["{ME}"]\n'
    (ca / "policies" / "break-glass.toml").write_text(policy)
    assert break_glass("kit", ca, tmp_path / "kit").code == 0
    assert break_glass("status", ca).code == 3, "no drill yet"

    server.kill()
    ca.rename(tmp_path / "away")  # the CA, its database and its keys are gone
    laptop = outfit(tmp_path / "laptop", tmp_path / "kit")
    certificate = opened_by(laptop, sealed, "di", "cy")
    (tmp_path / "emergency.pub").write_text(sealed.line + "\n")
    with sshd.running(prefix) as host:
        assert gets_in(host, laptop.home / "id_ed25519", certificate), host.log()
    seen = break_glass("watch", "--log", prefix / "log", "--key", tmp_path / "emergency.pub", "--json")
    assert seen.code == 3
    assert json.loads(seen.out)["user"] == ME

    (tmp_path / "away").rename(ca)
    server = Running(ca)
    journal = next(laptop.home.glob("break-glass-*.jsonl"))
    handed = break_glass("import", ca, journal, "--logins", prefix / "log")
    assert handed.code == 0, handed.out
    assert "opened by di, cy" in handed.out
    assert "# an auditor or revoker, none of ana, cy, di\n" in handed.out
    assert f"login at an unknown time: {ME} from 127.0.0.1" in handed.out
    use = handed.out.partition("jit-ssh review ")[2].split()[0]
    thief = stolen(tmp_path, "stolen", sealed)
    with sshd.running(prefix) as host:
        assert gets_in(host, *thief)
    theft = break_glass("import", ca, journal, "--logins", prefix / "log")
    assert theft.code == 3
    assert "ALARM: a login that no line speaks of" in theft.out

    eve = reviewer(tmp_path, server, ca)
    done = eve.run("review", use, "--as", "real", "--note", "INC-77: ana mended web-1")
    assert done.returncode == 0, done.stderr
    assert "its key was rebuilt for an emergency" in break_glass("status", ca).out

    after = seal(ca, "rotate", "--overlap", "7d")
    used = (laptop.home / "id_ed25519", certificate)
    the_old_key_ends(prefix, ca_line, (sealed, after), (used, thief, stolen(tmp_path, "fresh", after)))
    assert "its kit (entry 3) is older than the rotation" in break_glass("import", ca, journal).out
    assert eve.run("log", "verify").returncode == 0
    server.kill()
