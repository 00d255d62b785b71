"""A host that verifies lets in only certificates that prove that they are in the log.

Judged by a real sshd, which a thief of the CA's key tries to enter: what is forged here is signed by that key.
"""

import ast
import json
import os
import stat
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shutil import copytree
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.certificate import LOG_PROOF
from ca.checkpoint import VerifierKey
from ca.cosignature import WitnessKey
from ca.errors import JitSshError
from ca.proof import carried, proven
from ca.wire import string
from cli import host_verify
from cli import main as cli
from cli.host_verify import Refused, Trusted
from tests.keys import EVERY_TYPE, Kept
from tests.thief import ACCOUNT, Host, enters, install, verifying_host
from tests.world import ORIGIN, certificate

pytestmark = pytest.mark.root
OWNERS: Final = frozenset({0})


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with verifying_host() as made:
        yield made


ZEROES: Final = b64encode(bytes(68)).decode()  # no key's signature, with an id of zeroes
NARROW: Final = f"""
about = "A command"
owner = "sre"
review_by = 2027-12-31
principals = ["{ACCOUNT}@web"]
default_duration = "30m"
max_duration = "1h"
force_command = "uptime"
pin_source_address = true
permit = ["pty", "port-forwarding"]
[[allow]]
groups = ["sre"]
"""


def why(host: Host, blob: bytes) -> str:
    """Why host-verify refuses."""
    with pytest.raises(Refused) as refused:
        answer(host, blob)
    return str(refused.value)


def answer(host: Host, blob: bytes) -> list[str]:
    return host_verify.principals_for(ACCOUNT, host_verify.Certificate(blob), Trusted(str(host.directory), OWNERS))


def permits(host: Host) -> bytes:
    """The extensions of the genuine certificate that are no proof."""
    return b"".join(string(f"permit-{name}") + string(b"") for name in host.genuine.certificate.permit)


def with_its_proof_twice(host: Host) -> bytes:
    tbs, proof = host.genuine.certificate.to_be_signed, host.genuine.certificate.log_proof or ""
    one = string(LOG_PROOF) + string(string(proof))
    assert tbs.count(string(one + permits(host))) == 1
    twice = tbs.replace(string(one + permits(host)), string(one + one + permits(host)))
    return twice + string(host.world.signer.sign(twice))


def flipped(host: Host, where: bytes) -> bytes:
    """The genuine certificate with a bit changed in the last byte of `where`, signed again."""
    tbs = bytearray(host.genuine.certificate.to_be_signed)
    assert tbs.count(where) == 1
    tbs[tbs.index(where) + len(where) - 1] ^= 1
    return bytes(tbs) + string(host.world.signer.sign(bytes(tbs)))


FORGED: Final[dict[str, tuple[Callable[[Host], bytes], str]]] = {
    "without a proof": (lambda host: host.signed(host.genuine.certificate.bare).blob, "does not prove that it is in the log"),
    "with words for a proof": (lambda host: host.with_proof("trust me").blob, "the proof is not one of an entry"),
    "with a proof by a key of the same name": (lambda host: host.by_log(ORIGIN, host.other_log).blob, "signed by no log"),
    "with a proof of another log": (lambda host: host.by_log("log.example", host.other_log).blob, "signed by no log"),
    "with a checkpoint of another log, signed by this one's key": (
        lambda host: host.by_log(ORIGIN, host.world.log_signer, "log.example").blob, "of another log than signed it"
    ),
    "with the proof of another entry": (lambda host: host.with_proof(carried(host.other)).blob, "of another entry than"),
    "with the entry of another, and its own hashes": (
        lambda host: host.with_proof(replace(carried(host.genuine), entry=carried(host.other).entry)).blob,
        "is not proven to be in the log",
    ),
    "with the proof of an entry that is no certificate": (
        lambda host: host.with_proof(host.world.ca.log.proof(host.genuine.certificate.serial - 1)).blob,
        "of another entry than",
    ),
    "with a path that leads elsewhere": (
        lambda host: host.with_proof(replace(carried(host.genuine), path=carried(host.genuine).path[:-1])).blob,
        "fewer hashes than the log has levels",
    ),
    "for another account": (
        lambda host: host.signed(replace(host.genuine.certificate, principals=("root@web", "deploy@web"))).blob,
        "is not the one that is in the log",
    ),
    "for longer": (
        lambda host: host.signed(
            replace(host.genuine.certificate, valid_before=host.genuine.certificate.valid_before + 3600)
        ).blob,
        "is not the one that is in the log",
    ),
    "for another key": (
        lambda host: host.signed(replace(host.genuine.certificate, key=host.other_log.public_key)).blob,
        "is not the one that is in the log",
    ),
    "with its proof twice": (with_its_proof_twice, "or one twice"),
    "with a bit of the entry flipped": (lambda host: flipped(host, b"\nextra eyJhY3Rvc"), "is not proven to be in the log"),
    "with a bit of the index flipped": (lambda host: flipped(host, b"\nindex %d" % host.genuine.certificate.serial), "proven"),
    "with a bit of the checkpoint's size flipped": (
        lambda host: flipped(host, f"\n\n{ORIGIN}\n{carried(host.genuine).size}".encode()), "no good signature"
    ),
    "with the checkpoint signed by another, as it says": (
        lambda host: host.with_proof(signed_by_others(host)).blob,
        "no log that this host trusts",
    ),
    "with a bit of a principal flipped": (lambda host: flipped(host, b"root@web"), "is not the one that is in the log"),
}  # fmt: skip


def test_the_genuine_certificate_enters(host: Host) -> None:
    assert enters(host, host.genuine.blob)
    assert not enters(host, host.other.blob), "it certifies another key than ssh has"


def signed_by_others(host: Host) -> str:
    """The genuine proof, whose checkpoint has a signature by another key of the log's name, and the log's under another name."""
    return carried(host.genuine).encode().replace(f"\n— {ORIGIN} ", f"\n— {ORIGIN} {ZEROES}\n— log.example ")


@pytest.mark.parametrize("forged", FORGED)
def test_what_the_stolen_ca_key_signs_is_refused(host: Host, forged: str) -> None:
    make, words = FORGED[forged]
    assert words in why(host, make(host))


def test_the_stolen_ca_key_opens_nothing(host: Host) -> None:
    """The real sshd is offered all of it, and at the end what is in the log."""
    forged = [make(host) for name, (make, _) in FORGED.items() if name != "for another key"]
    logged = len(host.sshd.log())
    assert not enters(host, *forged)
    assert host.sshd.log()[logged:].count("does not contain an authorized principal") == len(forged)
    assert enters(host, *forged, host.genuine.blob)


@given(st.data())
def test_no_bit_of_the_certificate_can_be_changed(host: Host, data: st.DataObject) -> None:
    """But for the CA's signature, which sshd judges, and the times and options, which are compared with the entry's."""
    tbs = bytearray(host.genuine.certificate.to_be_signed)
    tbs[data.draw(st.integers(0, len(tbs) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused):
        answer(host, bytes(tbs) + string(host.genuine.signature))


@given(st.data())
def test_no_piece_of_a_certificate_is_one(host: Host, data: st.DataObject) -> None:
    blob = host.genuine.blob
    with pytest.raises(Refused):
        answer(host, blob[: data.draw(st.integers(0, len(blob) - 1))])


def with_path(host: Host, *path: bytes) -> str:
    return replace(carried(host.genuine), path=path).encode()


def genuine_hash(host: Host) -> str:
    return b64encode(carried(host.genuine).path[0]).decode()


SPELLED: Final[dict[str, tuple[Callable[[Host], str], str]]] = {
    "a hash in another spelling": (
        lambda host: carried(host.genuine).encode().replace(
            genuine_hash(host), genuine_hash(host)[:-2] + chr(ord(genuine_hash(host)[-2]) + 1) + "="
        ),
        "is not canonical base64",
    ),
    "a hash that is none": (lambda host: with_path(host, bytes(31)), "not one for this log"),
    "hashes too many": (lambda host: with_path(host, *carried(host.genuine).path, bytes(32)), "more hashes"),
    "an index beyond the log": (lambda host: replace(carried(host.genuine), index=10**6).encode(), "not one for this log"),
    "an index in another spelling": (
        lambda host: carried(host.genuine).encode().replace("\nindex ", "\nindex 0"), "is no number"
    ),
    "no checkpoint": (lambda host: carried(host.genuine).encode().partition("\n\n")[0] + "\n", "not one of an entry"),
    "an unsigned checkpoint": (
        lambda host: carried(host.genuine).encode().replace("\n\n—", "\n—"), "no signed checkpoint"
    ),
    "a checkpoint without its last newline": (lambda host: carried(host.genuine).encode()[:-1], "no signed checkpoint"),
    "a signer that is two": (lambda host: carried(host.genuine).encode() + f"— a+b {ZEROES}\n", "a line that is no signature"),
    "a signer with a tab": (lambda host: carried(host.genuine).encode() + f"— a\tb {ZEROES}\n", "control characters"),
    "a signer with white space": (lambda host: carried(host.genuine).encode() + f"— a\u2003b {ZEROES}\n", "is no signature"),
    "a signer without a name": (lambda host: carried(host.genuine).encode() + f"—  {ZEROES}\n", "a line that is no signature"),
    "a signature of nothing": (lambda host: carried(host.genuine).encode() + "— a AAAAAA==\n", "an empty signature"),
    "words below the checkpoint": (lambda host: carried(host.genuine).encode() + "and more\n", "a line that is no signature"),
}  # fmt: skip


@pytest.mark.parametrize("spelled", SPELLED)
def test_a_proof_has_one_spelling(host: Host, spelled: str) -> None:
    make, says = SPELLED[spelled]
    assert make(host) != carried(host.genuine).encode()
    assert says in why(host, host.with_proof(make(host)).blob)


def test_a_certificate_ends_where_it_ends(host: Host) -> None:
    assert "too many" in why(host, host.genuine.blob + b"\0")
    assert "too large" in why(host, host.genuine.blob + bytes(host_verify.LARGEST))
    assert "ends early" in why(host, host.genuine.blob[:-1])
    proof = (host.genuine.certificate.log_proof or "").encode()
    extensions = string(string(LOG_PROOF) + string(string(proof)) + permits(host))
    longer = string(string(LOG_PROOF) + string(string(proof) + b"\0") + permits(host))
    assert host.genuine.blob.count(extensions) == 1
    assert "too many" in why(host, host.genuine.blob.replace(extensions, longer))


@given(st.data())
def test_a_proof_is_judged_as_the_client_does_who_shares_no_code_with_it(host: Host, data: st.DataObject) -> None:
    """Any text in the place of the proof: each of the two accepts what the other accepts."""
    proof = carried(host.cosigned(0)).encode()
    at, cut = data.draw(st.integers(0, len(proof))), data.draw(st.integers(0, 3))
    letters = st.sampled_from("\n 0129AZaz+/=—é\r\x00")
    text = proof[:at] + data.draw(st.text(letters, max_size=3)) + proof[at + cut :]
    signed = host.with_proof(text)
    try:
        proven(signed, host.world.ca.trust)
    except JitSshError:
        with pytest.raises(Refused):
            answer(host, signed.blob)
    else:
        assert answer(host, signed.blob) == [f"{ACCOUNT}@web"]


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_certificate_over_a_key_of_every_type_is_read_with_all_its_options(
    host: Host, every_key: Mapping[str, Kept], kind: str
) -> None:
    host.world.adopt(role_narrow=NARROW)
    issued = certificate(host.world.ask("ana", every_key[kind], role="narrow"))
    said = issued.certificate
    assert (said.force_command, said.source_address, len(said.permit)) == ("uptime", "127.0.0.1/32", 2)
    assert answer(host, issued.blob) == [f"{ACCOUNT}@web"]
    assert "not the one" in why(host, host.signed(replace(said, force_command=None)).blob)
    assert "not the one" in why(host, host.signed(replace(said, permit=(*said.permit, "user-rc"))).blob)


# ------------------------------------------------------------------- witnesses


@pytest.fixture
def witnessed(host: Host) -> Iterator[Host]:
    """The same host, which requires two witnesses."""
    ran = install(host.sshd.prefix, host.world, *(word for key in host.witnesses for word in ("--witness", str(key))))
    assert "as seen by 2 of 2 witnesses" in ran.stdout, ran.stderr
    yield host
    assert install(host.sshd.prefix, host.world).returncode == 0
    assert not (host.directory / "witnesses.pub").exists()


def test_as_many_witnesses_as_are_required_must_have_seen_the_log(witnessed: Host) -> None:
    assert enters(witnessed, witnessed.cosigned(0, 1).blob)
    for too_few in (witnessed.genuine, witnessed.cosigned(), witnessed.cosigned(0), witnessed.cosigned(1)):
        assert "cosignatures of" in why(witnessed, too_few.blob)
        assert not enters(witnessed, too_few.blob)
    assert "2 signatures by" in why(witnessed, witnessed.cosigned(0, 0).blob), "one witness counts once"
    proof = carried(witnessed.cosigned(0, 1))
    other = carried(witnessed.other)
    lines = proof.note.partition("\n\n")[2].splitlines(keepends=True)[1:]
    elsewhere = witnessed.with_proof(replace(carried(witnessed.genuine), note=other.note + "".join(lines)))
    assert "no good" in why(witnessed, elsewhere.blob), "a cosignature is of one checkpoint"


# ------------------------------------------------------------------- the program as sshd runs it


def ran(host: Host, *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    """The installed program."""
    command = [host.directory / "host-verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload, no-any-return]  # `how` is a test's


def refuses(host: Host, *arguments: str) -> str:
    done = ran(host, *arguments)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.isascii()
    assert done.stderr.count("\n") == 1
    return done.stderr


def words(host: Host, account: str = ACCOUNT) -> list[str]:
    kind, encoded, _ = host.genuine.line.split(" ")
    return [account, kind, encoded]


def test_it_prints_the_lines_of_the_accounts_file_and_nothing_else(host: Host) -> None:
    done = ran(host, *words(host), env={}, cwd="/", user="nobody", group="nogroup", extra_groups=[])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ACCOUNT}@web\n", "")


@pytest.mark.parametrize(
    ("account", "says"),
    [("deploy", "no principals: there is no file principals/deploy"), ("../root", "has no principals"), ("", "has no principals"),
     ("Root", "has no principals"), ("root\n", "has no principals"), ("r" * 33, "has no principals")],
)  # fmt: skip
def test_an_account_without_a_file_of_its_own_is_not_entered(host: Host, account: str, says: str) -> None:
    assert says in refuses(host, *words(host, account))


def test_arguments_that_are_no_certificate_are_refused_and_never_shown_raw(host: Host) -> None:
    account, kind, encoded = words(host)
    for arguments in (
        [], [account], [account, kind], [account, kind, encoded, encoded], [account, encoded, kind], [account, kind, "\x1b[2J"],
        [account, kind, encoded + "\n"], [account, kind, encoded + "===="], [account, "ssh-rsa-cert-v01@openssh.com", encoded],
        [account, kind, "A" * 100_000], [account, kind, ""], ["--check", "nobody", kind], ["--check"],
        ["--check", "nobody-at-all"],
    ):  # fmt: skip
        refuses(host, *arguments)


def test_it_is_written_for_the_oldest_python_that_hosts_may_have() -> None:
    ast.parse(Path(host_verify.__file__).read_text(), feature_version=(3, 9))


def test_an_answer_that_cannot_be_given_is_a_failure(host: Host) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([host.directory / "host-verify", *words(host)], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    shell = ["sh", "-c", '"$@" >&-', "sh", str(host.directory / "host-verify"), *words(host)]
    assert subprocess.run(shell, stderr=subprocess.PIPE, check=False).returncode == 1


WITNESS: Final = WitnessKey("w.example", bytes(31) + b"\x02")
SAME_WITNESS: Final = WitnessKey("v.example", WITNESS.public_key)


def its_own_witness(path: Path) -> WitnessKey:
    log = VerifierKey.parse(path.with_name("log.pub").read_text().strip())
    return WitnessKey(log.name, log.public_key)


def as_a_link(path: Path, to: str) -> None:
    path.unlink()
    path.symlink_to(to)


def as_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT: Final[dict[str, tuple[str, Callable[[Path], object], str]]] = {
    "others may write the log's key": ("log.pub", lambda path: path.chmod(0o664), "could be written by others"),
    "another owns the log's key": ("log.pub", lambda path: os.chown(path, 1, 0), "could be written by others"),
    "others may write the CA's key": ("ca.pub", lambda path: path.chmod(0o646), "could be written by others"),
    "others may write the principals": ("principals/root", lambda path: path.chmod(0o666), "could be written by others"),
    "others may write beside the principals": ("principals", lambda path: path.chmod(0o777), "could be written by others"),
    "the log's key is missing": ("log.pub", Path.unlink, "No such file"),
    "the log's key is empty": ("log.pub", lambda path: path.write_text("# none\n"), "log.pub has no key"),
    "the log's key is not text": ("log.pub", lambda path: path.write_bytes(b"\xff\xfe\n"), "is not UTF-8"),
    "the log's key is a directory": ("log.pub", as_a_directory, "Is a directory"),
    "the log's key is a device": ("log.pub", lambda path: as_a_link(path, "/dev/null"), "is no file"),
    "the log's key is endless": ("log.pub", lambda path: path.write_text("#\n" * 40_000), "is too large"),
    "the log's key is a witness's": ("log.pub", lambda path: path.write_text(f"{WITNESS}\n"), "not a key of the kind"),
    "the log's key has another id": ("log.pub", lambda path: path.write_text("a+00000000+AQ" + "A" * 42 + "\n"), "name or id"),
    "the CA's key is missing": ("ca.pub", Path.unlink, "No such file"),
    "the CA key is another": ("ca.pub", lambda path: path.write_text("ssh-ed25519 AAAA\n"), "a CA that this host does not trust"),
    "the principals are another account's": ("principals/root", lambda path: path.write_text("deploy@web\n"), "something else"),
    "the principals are of another group": ("principals/root", lambda path: path.write_text("root@db\n"), "no principal that"),
    "the witnesses are none": ("witnesses.pub", lambda path: path.write_text(""), "does not say once"),
    "a witness has two names": (
        "witnesses.pub", lambda path: path.write_text(f"require 2\n{WITNESS}\n{SAME_WITNESS}\n"), "has a witness twice"
    ),
    "the log is its own witness": (
        "witnesses.pub", lambda path: path.write_text(f"require 1\n{its_own_witness(path)}\n"), "its own witness"
    ),
    "the witnesses are required twice": (
        "witnesses.pub", lambda path: path.write_text("require 1\nrequire 2\n"), "does not say once"
    ),
    "no witness is required": ("witnesses.pub", lambda path: path.write_text("require 0\n"), "requires none"),
    "more witnesses are required than there are": ("witnesses.pub", lambda path: path.write_text("require 1\n"), "more"),
    "the witnesses are a dangling link": ("witnesses.pub", lambda path: path.symlink_to("/nowhere"), "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_host_that_cannot_be_believed_lets_nobody_in(host: Host, spoilt: str) -> None:
    name, spoil, says = SPOILT[spoilt]
    path = host.directory / name
    kept = (path.read_bytes(), path.stat()) if path.is_file() else None
    spoil(path)
    try:
        assert says in refuses(host, *words(host))
        if "key is another" not in spoilt and "another group" not in spoilt:  # of which a host alone cannot tell
            assert says in refuses(host, "--check", "nobody")
    finally:
        with suppress(FileNotFoundError, IsADirectoryError):
            path.unlink()
        if path.is_dir() and kept:
            path.rmdir()
        if kept:
            path.write_bytes(kept[0])
        if path.exists():
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.chown(path, 0, 0)
    assert ran(host, *words(host)).returncode == 0


@pytest.mark.parametrize("mode", [0o1777, 0o775])
def test_nobody_is_told_to_change_a_directory_that_is_not_jit_sshs_own(host: Host, tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    copytree(host.directory, shared / "copy")
    shared.chmod(mode)
    with pytest.raises(Refused, match=f"{shared} could be written by others than root: put the jit-ssh directory") as refused:
        Trusted(str(shared / "copy"), OWNERS)
    assert "chmod" not in str(refused.value)
    (shared / "copy").chmod(mode)
    with pytest.raises(Refused, match="put the jit" if mode & stat.S_ISVTX else f"chmod go-w {shared}/copy"):
        Trusted(str(shared / "copy"), OWNERS)


# ------------------------------------------------------------------- by hand


def by_hand(host: Host, *arguments: str) -> int:
    return cli.run(["host", "verify", *arguments, "--directory", str(host.directory)])


def test_a_person_can_ask_what_the_host_would_say(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "web-admin-cert.pub"
    path.write_text(f"{host.genuine.line}\n")
    assert by_hand(host, ACCOUNT, str(path)) == 0
    said = capsys.readouterr()
    assert said.out == f"{ACCOUNT}@web\n"
    assert f"Serial {host.genuine.certificate.serial} " in said.err
    assert by_hand(host, ACCOUNT, str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["principals"] == [f"{ACCOUNT}@web"]
    monkeypatch.setattr("sys.stdin", StringIO(path.read_text()))
    assert by_hand(host, ACCOUNT, "-") == 0
    assert capsys.readouterr().out == f"{ACCOUNT}@web\n"
    forged = host.signed(host.genuine.certificate.bare).line
    for account, content, because in (
        (ACCOUNT, forged.encode(), "does not prove that it is in the log"),
        (ACCOUNT, b"", "the certificate ends early"),
        (ACCOUNT, b"\0", "the certificate ends early"),
        (ACCOUNT, b"\xff", "it is not text"),
        ("deploy", f"{host.genuine.line}\n".encode(), "the account deploy has no principals"),
    ):
        path.write_bytes(content)
        assert by_hand(host, account, str(path)) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert because in said.err
        assert by_hand(host, account, str(path), "--json") == 1
        told = json.loads(capsys.readouterr().out)
        assert told["principals"] == []
        assert because in told["refused"]


def test_a_file_that_is_missing_is_named_with_what_to_give(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_hand(host, ACCOUNT, str(tmp_path / "nowhere")) == 1
    assert f"{tmp_path}/nowhere cannot be read: No such file or directory\nhint: Your certificates" in capsys.readouterr().err
    (path := tmp_path / "web-admin-cert.pub").write_text(f"{host.genuine.line}\n")
    assert cli.run(["host", "verify", ACCOUNT, str(path), "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/log.pub cannot be read: No such file or directory\n" in said
    assert "--directory DIR" in said
