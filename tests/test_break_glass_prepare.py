"""`jit-ssh-ca break-glass init` and `kit`, install-host, and the kit without a CA: from a sealing to a host's prompt."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import pyrage  # type: ignore[import-untyped]  # the library has no types
import pytest
from click.testing import CliRunner

from ca import entry, roles
from ca.certificate import Certificate
from ca.entry import KitEntry, SealEntry
from ca.errors import Malformed, Misconfigured
from ca.keys import PublicKey
from ca.kit import share_fingerprint
from ca.store.sqlite import SqliteStore
from server.admin import main
from server.sealing import Sealed, seal
from tests import keys, policies
from tests.glass import CTRL_C, SPAWN, command_lines, make_laptop, outfit, types_yes
from tests.home import Running
from tests.home import running as typing_at
from tests.running import PROGRAM, Ran, run
from tests.running import Running as Serving
from tests.sshd import current_account, install_host, make_key, make_prefix, running, ssh

VECTORS: Final = Path(__file__).parent / "vectors" / "slip39.json"  # those of the SLIP-39 reference implementation
OFFICERS: Final = ("cy", "di", "eve")
ME: Final = current_account()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with an engineer and three officers, whose keys are beside it; eve has a security key alone."""
    directory = tmp_path_factory.mktemp("made")
    groups = ("engineers", "sre", "sre-leads", "dba", "security", "vendors")  # those of the starter policy's roles
    people = "[groups]\n" + "".join(f'{name} = "x"\n' for name in groups)
    for name in ("ana", "cy", "di"):
        people += _person(name, Path(f"{make_key(directory / name)}.pub").read_text())
    people += _person("eve", keys.SecurityKey().public_key.line)
    ca = directory / "ca"
    assert here("init", ca, "--origin", "ca.example.com").code == 0
    (ca / "policies" / "people.toml").write_text(people)
    return ca


def _person(name: str, line: str) -> str:
    return f'[people.{name}]\ngroups = ["engineers", "sre"]\nkeys = ["{line.strip()}"]\n'


@pytest.fixture
def ca(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ca"))


def here(*arguments: str | Path) -> Ran:
    """`jit-ssh-ca` in this process, where it need not be one of its own."""
    done = CliRunner().invoke(main, [*map(str, arguments)])
    return Ran(done.exit_code, done.stdout, done.stderr)


def init(ca: Path, *more: str | Path) -> Ran:
    return here("break-glass", "init", ca, *more)


def entries(ca: Path) -> list[entry.AnyEntry]:
    store = SqliteStore(ca / "jit-ssh.db")
    return [entry.decode(source) for source in store.entries(0, store.size())]


def sealed_in(ca: Path) -> SealEntry:
    (found,) = [each for each in entries(ca) if isinstance(each, SealEntry)]
    return found


def words_of(text: str) -> str:
    """The share on a sheet or a screen."""
    return " ".join(word for _, word in sorted((int(number), word) for number, word in re.findall(r"(\d+)\. ([a-z]+)", text)))


# ------------------------------------------------------------------ the whole way


def test_a_sealed_key_opens_a_host_when_the_ca_is_gone(ca: Path, tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    done = run("break-glass", "init", ca, "--officers", "cy,di,eve", "--quorum", "2", "--sheets", sheets)
    assert done.code == 0, done.err
    line = next(each for each in done.out.splitlines() if each.strip().startswith("ssh-ed25519 ")).strip()
    prefix = make_prefix(tmp_path / "etc")
    installed = install_host(
        prefix, "--ca", _ca_line(ca), "--group", "web-prod", "--account", ME, "--emergency", line, "--emergency-account", ME
    )
    assert installed.returncode == 0, installed.stderr

    server = Serving(ca)
    policy = ca / "policies" / "break-glass.toml"
    policy.write_text(f'groups = ["sre"]\nask = ["{server.url}"]\n[hosts]\nweb-prod = ["{ME}"]\n')
    made = run("break-glass", "kit", ca, tmp_path / "kit")
    assert made.code == 0, made.err
    laptop = outfit(tmp_path / "laptop", tmp_path / "kit")
    with laptop.opened() as program:
        assert program.end() == 1
    assert f"the CA at {server.url} answers" in program.said

    server.kill()
    shutil.rmtree(ca)
    shares = {name: words_of((sheets / f"share-{name}.txt").read_text()) for name in OFFICERS}
    with laptop.opened() as program:
        types_yes(program)
        for number, officer in enumerate(("eve", "cy"), start=1):
            program.expect(f"share {number} of 2, from word 1 of 33 on: ")
            program.type(shares[officer] + "\n")
        assert program.end() == 0, program.said
    (command,) = command_lines(program.said)
    assert f"{ME}@HOST" in command
    certificate = Path(re.findall(r"CertificateFile=(\S+)", command)[0])
    with running(prefix) as sshd:
        inside = ssh(sshd, ME, "echo", "inside", identity=laptop.home / "id_ed25519", certificate=certificate)
        assert inside.stdout == "inside\n", inside.stderr + sshd.log()
        assert re.search(rf"Accepted publickey for {ME} .* ID break-glass/ana/[0-9a-f]{{16}} \(serial \d{{19}}\)", sshd.log())


def _ca_line(ca: Path) -> str:
    first = entries(ca)[0]
    assert isinstance(first, entry.GenesisEntry)
    return first.ca_key


# ------------------------------------------------------------------ sealing


def test_what_is_recorded_is_the_public_key_the_quorum_and_whose_shares(ca: Path, tmp_path: Path) -> None:
    assert init(ca, "--officers", "cy,di,eve", "--quorum", "3", "--sheets", tmp_path / "sheets").code == 0
    found = sealed_in(ca).seal
    assert found.quorum == 3
    assert [share.officer for share in found.shares] == list(OFFICERS)
    for share in found.shares:
        sheet = (tmp_path / "sheets" / f"share-{share.officer}.txt").read_text()
        assert share.fingerprint == share_fingerprint(words_of(sheet))
        assert PublicKey.parse_line(found.key).fingerprint in sheet
        assert not any(words_of(sheet).encode() in path.read_bytes() for path in ca.rglob("*") if path.is_file())
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "sheets").iterdir()} == {0o600}
    assert here("log", "verify", ca).code == 0


@contextmanager
def on_screen(ca: Path) -> Iterator[Running]:
    command = [sys.executable, "-c", SPAWN, PROGRAM, "break-glass", "init", str(ca), "--officers", "cy,di", "--quorum", "2"]
    with typing_at(command, os.environ | {"COLUMNS": "100"}) as program:
        yield program


def test_each_officer_sees_their_share_once_and_types_two_words_back(ca: Path) -> None:
    with on_screen(ca) as screen:
        shown = {}
        for officer in ("cy", "di"):
            screen.expect(f"{officer} comes to the screen, and nobody else.")
            screen.type("\n")
            before = len(screen.said)
            screen.expect("then press Enter")
            shown[officer] = words_of(screen.said[before:])
            screen.type("\n")
            for _ in range(2):
                position = asked_for(screen)
                screen.type("wrong\n")
                assert asked_for(screen) == position
                screen.type(shown[officer].split()[position - 1] + "\n")
        assert screen.end() == 0, screen.said
    fingerprints = {share.officer: share.fingerprint for share in sealed_in(ca).seal.shares}
    assert fingerprints == {officer: share_fingerprint(words) for officer, words in shown.items()}
    assert screen.said.count("\x1b[?1049h") == screen.said.count("\x1b[3J\x1b[H\x1b[?1049l") == 2


def asked_for(screen: Running) -> int:
    """The position of the word that it asks for next."""
    screen.expect(": ")
    return int(re.findall(r"From the sheet, word (\d+): $", screen.said)[0])


def test_a_sealing_that_is_given_up_counts_for_nothing(ca: Path) -> None:
    size = len(entries(ca))
    with on_screen(ca) as screen:
        screen.expect("cy comes to the screen")
        screen.type("\n")
        screen.expect("then press Enter")
        screen.type(CTRL_C)
        assert screen.end() == 1
        assert screen.said.rstrip().endswith("Aborted!")
        assert "\x1b[?1049l" in screen.said
    assert len(entries(ca)) == size


def test_without_a_terminal_nothing_is_shown_or_sealed(ca: Path) -> None:
    size = len(entries(ca))
    done = init(ca, "--officers", "cy,di")
    assert done.code == 1
    assert "there is none" in done.err
    assert len(entries(ca)) == size


def test_age_opens_a_share_with_the_officers_own_key_and_no_other(ca: Path, made: Path, tmp_path: Path) -> None:
    done = init(ca, "--officers", "cy,di", "--encrypted", tmp_path / "out")
    assert done.code == 0, done.err
    for share in sealed_in(ca).seal.shares:
        source = (tmp_path / "out" / f"share-{share.officer}.age").read_bytes()
        assert source.startswith(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
        own, other = (
            pyrage.ssh.Identity.from_buffer((made.parent / name).read_bytes())
            for name in (share.officer, {"cy": "di", "di": "cy"}[share.officer])
        )
        assert share_fingerprint(words_of(pyrage.decrypt(source, [own]).decode())) == share.fingerprint
        with pytest.raises(pyrage.DecryptError):
            pyrage.decrypt(source, [other])


def test_a_security_key_is_sealed_without_shares(ca: Path, tmp_path: Path) -> None:
    line = keys.SecurityKey().public_key.line
    (tmp_path / "emergency.pub").write_text(f"{line} break-glass\n")
    done = init(ca, "--security-key", tmp_path / "emergency.pub")
    assert done.code == 0, done.err
    found = sealed_in(ca).seal
    assert (found.key, found.quorum, found.shares) == (line, 1, ())
    assert here("break-glass", "kit", ca, tmp_path / "kit").code == 0
    told = subprocess.run([tmp_path / "kit", "--help"], check=True, capture_output=True, text=True).stdout
    assert "--security-key FILE" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--officers", "cy,di", "--quorum", "1"], "a quorum of 1 of 2 officers is not sound"),
        (["--officers", "cy,di", "--quorum", "3"], "a quorum of 3 of 2 officers is not sound"),
        (["--officers", "cy,cy,di"], "Name each officer once"),
        (["--officers", "cy"], "a quorum of 2 of 1 officers"),
        (["--officers", ""], "'' is not in people.toml"),
        (["--officers", "cy,dee"], "'dee' is not in people.toml"),
        (["--officers", "cy,\x1b[2J"], "'\\x1b[2J' is not in people.toml"),
        (["--officers", "cy,eve", "--encrypted", "{out}"], "eve has no key that a share can be encrypted to"),
        (["--officers", "cy,di", "--sheets", "{ca}/sheets"], "is in the CA's directory"),
        (["--officers", "cy,di", "--sheets", "/nowhere/sheets"], "/nowhere/sheets cannot be made"),
        (["--security-key", "{ana}.pub"], "is not of a security key"),
        (["--security-key", "/nowhere"], "/nowhere is not a public key"),
    ],
)  # fmt: skip
def test_what_cannot_be_sealed_is_refused_and_leaves_nothing(ca: Path, made: Path, arguments: list[str], words: str) -> None:
    size = len(entries(ca))
    out = ca.parent / "out"
    done = init(ca, *(each.format(out=out, ca=ca, ana=made.parent / "ana") for each in arguments))
    assert done.code == 1
    assert words in done.err
    assert "\x1b" not in done.err
    assert len(entries(ca)) == size
    assert not out.exists()
    assert not (ca / "sheets").exists()


def test_a_persons_key_is_not_sealed_and_a_second_sealing_is_a_rotation(ca: Path, tmp_path: Path) -> None:
    people = (ca / "policies" / "people.toml").read_text()
    (tmp_path / "eve.pub").write_text(re.findall(r'keys = \["(sk-.*?)"', people)[0] + "\n")
    assert "is the CA's key or a person's" in init(ca, "--security-key", tmp_path / "eve.pub").err
    assert init(ca, "--officers", "cy,di", "--sheets", tmp_path / "sheets").code == 0
    again = init(ca, "--officers", "cy,di", "--sheets", tmp_path / "more")
    assert "there is a sealed emergency key already" in again.err
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("arguments", [[], ["--officers", "cy,di", "--security-key", "x"],
                                       ["--officers", "cy,di", "--sheets", "a", "--encrypted", "b"]])  # fmt: skip
def test_a_wrong_command_line_is_usage(ca: Path, arguments: list[str]) -> None:
    assert init(ca, *arguments).code == 2


# ------------------------------------------------------------------ the kit


def test_a_kit_knows_what_the_policy_says_when_it_is_made(ca: Path, tmp_path: Path) -> None:
    assert "no emergency key is sealed" in here("break-glass", "kit", ca, tmp_path / "kit").err
    assert init(ca, "--officers", "cy,di", "--sheets", tmp_path / "sheets").code == 0
    done = here("break-glass", "kit", ca, tmp_path / "kit")
    assert done.code == 0, done.err
    *_, found = entries(ca)
    assert isinstance(found, KitEntry)
    assert found.seal == sealed_in(ca).index
    assert found.facts.people == ("ana", "cy", "di", "eve")
    assert dict(found.facts.hosts) == {"web-prod": ("root",)}
    assert (found.facts.longest, found.facts.certificates, found.facts.ask) == (3600, 3, ("https://ca.example.com",))
    with zipfile.ZipFile(tmp_path / "kit") as kit:
        assert kit.read("breakglass/facts.json") == found.facts.encode()
    assert found.facts.digest[:16] in done.out
    assert sha256((tmp_path / "kit").read_bytes()).hexdigest() in done.out
    size = len(entries(ca))
    assert "is there already" in here("break-glass", "kit", ca, tmp_path / "kit").err
    (ca / "policies" / "break-glass.toml").unlink()
    assert "there is no policies/break-glass.toml" in here("break-glass", "kit", ca, tmp_path / "other").err
    assert len(entries(ca)) == size


def test_making_a_kit_takes_no_policy_into_force(ca: Path, tmp_path: Path) -> None:
    """A server that runs would have to be told first."""
    assert init(ca, "--officers", "cy,di", "--sheets", tmp_path / "sheets").code == 0
    assert here("break-glass", "kit", ca, tmp_path / "kit").code == 0
    assert not [each for each in entries(ca) if isinstance(each, entry.PolicyEntry)]


# ------------------------------------------------------------------ SLIP-39, judged by others


def test_the_library_in_the_kit_keeps_the_published_vectors(tmp_path: Path, sealed: Sealed) -> None:
    laptop = make_laptop(tmp_path / "laptop", sealed)
    with zipfile.ZipFile(laptop.kit) as kit:
        kit.extractall(tmp_path, [name for name in kit.namelist() if name.startswith("slip39/")])
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
import shamir_mnemonic as library
for what, mnemonics, secret, _ in json.load(open(sys.argv[2])):
    try:
        found = library.combine_mnemonics(mnemonics, b"TREZOR").hex()
    except library.MnemonicError:
        found = ""
    assert found == secret, what
    print(what)
"""
    command = [sys.executable, "-I", "-S", "-c", program, str(tmp_path / "slip39"), str(VECTORS)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(told.splitlines()) == len(json.loads(VECTORS.read_text())) == 45


@pytest.fixture(scope="module")
def sealed() -> Sealed:
    return seal(OFFICERS, 2)


def test_too_large_a_circle_of_officers_is_refused() -> None:
    with pytest.raises((Misconfigured, ValueError)):
        seal(tuple(f"p{number}" for number in range(17)), 2)
    assert len(seal(tuple(f"p{number}" for number in range(16)), 16).shares) == 16


# ------------------------------------------------------------------ the policy


GOOD: Final = 'groups = ["sre"]\nask = ["https://ca.example.com"]\n[hosts]\nweb-prod = ["root"]\n'


def test_what_an_emergency_brings_is_a_policy_file() -> None:
    loaded = policies.policy({"break-glass.toml": GOOD}, web=policies.FOR_SRE)
    assert loaded.emergency_people() == ("ana", "ben")
    assert policies.policy(web=policies.FOR_SRE).emergency_people() == ()
    both = policies.policy({"break-glass.toml": GOOD.replace("[hosts]", 'people = ["dora"]\n[hosts]')}, web=policies.FOR_SRE)
    assert both.emergency_people() == ("ana", "ben", "dora")
    assert roles.is_policy_file("break-glass.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('groups = ["sre"]', "", "names nobody"),
        ('"sre"', '"srs"', "unknown group 'srs' (did you mean 'sre'?)"),
        ('groups = ["sre"]', 'people = ["zoe"]', "unknown person 'zoe'"),
        ("web-prod =", "web-prd =", "unknown host group 'web-prd'"),
        ('["root"]', "[]", "must not be empty"),
        ('["root"]', '["root,x"]', "account 'root,x' is not allowed"),
        ('web-prod = ["root"]', "", "hosts"),
        ("[hosts]", 'max_duration = "2h"\n[hosts]', "2h is more than the 1h that an emergency may last"),
        ("[hosts]", "certificates = 0\n[hosts]", "certificates"),
        ("[hosts]", "certificates = 21\n[hosts]", "certificates"),
        ("https://ca.example.com", "ftp://ca", "URL 'ftp://ca' is not allowed"),
        ("https://ca.example.com", "https://ca\\u0007", "is not allowed"),
        ("[hosts]", "forever = true\n[hosts]", "unknown key"),
        ('ask = ["https://ca.example.com"]', "", "ask: missing"),
    ],
)  # fmt: skip
def test_a_wrong_emergency_policy_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        policies.policy({"break-glass.toml": GOOD.replace(old, new)}, web=policies.FOR_SRE)
    assert any(problem.startswith("break-glass.toml: ") and words in problem for problem in caught.value.problems)


def test_no_role_no_person_and_no_certificate_of_the_ca_has_a_principal_of_the_emergency_key() -> None:
    principal = policies.FOR_SRE.replace('"root@web-prod"', '"break-glass@web-prod"')
    with pytest.raises(Misconfigured) as caught:
        policies.policy(web=principal)
    assert "is the emergency key's alone" in caught.value.problems[0]
    with pytest.raises(Misconfigured) as caught:
        policies.policy({"people.toml": policies.PEOPLE.replace("[people.dora]", "[people.break-glass]")}, web=policies.FOR_SRE)
    assert "nobody can be called break-glass" in caught.value.problems[0]
    with pytest.raises(Malformed, match="is the emergency key's alone"):
        Certificate(
            key=policies.key(1), serial=1, key_id="ana/web/1", principals=("root@web-prod", "break-glass@web-prod"),
            valid_after=0, valid_before=60, ca_key=policies.key(2), nonce=bytes(32),
        )  # fmt: skip
