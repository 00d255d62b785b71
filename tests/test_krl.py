"""Revocation lists: byte for byte what ssh-keygen makes, believed by ssh-keygen and by a real sshd, and nothing else is one."""

import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import krl
from ca.certificate import Certificate, SignedCertificate
from ca.errors import JitSshError, Malformed
from ca.keys import PublicKey
from ca.signers.file import FileSigner
from ca.wire import string, u32, u64
from tests import keys, policies, sshd
from tests.keys import TYPES, Kept

CA = policies.key(2)
SPARSE = (3, 900, 70_000, 5_000_000)  # too far from each other for ssh-keygen to write ranges
SAMPLE = krl.encode(12, 1_800_000_000, CA, SPARSE, "ca.example.com/jit-ssh")
HEADER = u64(0x5353484B524C0A00) + u32(1) + u64(12) + u64(34) + u64(0) + string("") + string("")
SERIALS = st.sets(st.integers(1, 2**63 - 1), max_size=20)


def section(*parts: bytes, ca: bytes = CA.blob) -> bytes:
    """A section of certificates of this CA with these parts behind its header."""
    return b"\x01" + string(string(ca) + string("") + b"".join(parts))


def listed(*serials: int) -> bytes:
    """A list of serials."""
    return b"\x20" + string(b"".join(map(u64, serials)))


def by_ssh_keygen(directory: Path, ca: Path, version: int, serials: Iterable[int]) -> bytes:
    """The list that `ssh-keygen -k` makes of these serials."""
    wanted, made = directory / "wanted", directory / "made"
    wanted.write_text("".join(f"serial: {serial}\n" for serial in serials))
    command = ["ssh-keygen", "-q", "-k", "-f", str(made), "-s", f"{ca}.pub", "-z", str(version), str(wanted)]
    subprocess.run(command, check=True, capture_output=True)
    return made.read_bytes()


def shown(path: Path, blob: bytes) -> str:
    """What `ssh-keygen -Q -l` shows of the list; it fails when that refuses to read it."""
    path.write_bytes(blob)
    return subprocess.run(["ssh-keygen", "-Q", "-l", "-f", str(path)], check=True, capture_output=True, text=True).stdout


def certificate(ca: FileSigner, key: PublicKey, serial: int) -> SignedCertificate:
    """A certificate for the account that runs the tests, valid for ten minutes."""
    now = int(time.time())
    unsigned = Certificate(
        key=key,
        serial=serial,
        key_id=f"ana/web/{serial}",
        principals=(f"{sshd.current_account()}@web",),
        valid_after=now - 60,
        valid_before=now + 600,
        ca_key=ca.public_key,
        nonce=bytes(32),
    )
    return SignedCertificate(unsigned, ca.sign(unsigned.to_be_signed))


def written(path: Path, signed: SignedCertificate) -> Path:
    """The certificate as a file."""
    path.write_text(signed.line + "\n")
    return path


# -------------------------------------------------------------- public judges


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("serials", [(1,), SPARSE], ids=["one", "sparse"])
def test_the_list_is_what_ssh_keygen_makes_byte_for_byte(
    kind: str, serials: tuple[int, ...], every_key: Mapping[str, Kept], tmp_path: Path
) -> None:
    ca = every_key[kind]
    made = by_ssh_keygen(tmp_path, ca.path, 7, serials)
    read = krl.parse(made, ca.public_key)
    assert (read.version, read.serials) == (7, serials)
    assert krl.encode(7, read.date, ca.public_key, reversed(serials)) == made


def test_ssh_keygen_shows_what_was_meant(tmp_path: Path) -> None:
    text = shown(tmp_path / "krl", SAMPLE)
    assert "# KRL version 12\n" in text
    assert "ca.example.com/jit-ssh" in text
    assert CA.fingerprint in text
    assert [int(line.split()[1]) for line in text.splitlines() if line.startswith("serial:")] == list(SPARSE)


def test_ten_thousand_serials_are_eighty_kilobytes_that_ssh_keygen_reads(tmp_path: Path) -> None:
    blob = krl.encode(1, 0, CA, range(5, 20_005, 2))
    assert len(blob) < 81_000
    assert len(krl.parse(blob, CA).serials) == 10_000
    assert "serial: 20003" in shown(tmp_path / "krl", blob)


def test_an_empty_list_is_valid_and_revokes_nothing(tmp_path: Path) -> None:
    ca, person = (keys.make(tmp_path, name=name) for name in ("ca", "person"))
    blob = krl.encode(1, 0, ca.public_key, ())
    assert "# KRL version 1\n" in shown(tmp_path / "krl", blob)
    assert krl.parse(blob, ca.public_key).serials == ()
    assert not revoked(tmp_path / "krl", written(tmp_path / "c-cert.pub", certificate(ca, person.public_key, 1)))


def revoked(path: Path, certificate_file: Path) -> bool:
    """What `ssh-keygen -Q` says of the certificate: its exit code is 1 for a revoked one."""
    command = ["ssh-keygen", "-Q", "-f", str(path), str(certificate_file)]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert asked.returncode in {0, 1}, asked
    assert ("REVOKED" in asked.stdout) == bool(asked.returncode), asked
    return bool(asked.returncode)


def test_ssh_keygen_finds_the_revoked_certificate_and_no_other(tmp_path: Path) -> None:
    ca, other, person = (keys.make(tmp_path, name=name) for name in ("ca", "other", "person"))
    path = tmp_path / "krl"
    path.write_bytes(krl.encode(1, 0, ca.public_key, (17, 19)))
    files = {
        (whose, serial): written(tmp_path / f"{whose}-{serial}-cert.pub", certificate(signer, person.public_key, serial))
        for whose, signer in (("ca", ca), ("other", other))
        for serial in (17, 18, 19)
    }
    assert {each for each, file in files.items() if revoked(path, file)} == {("ca", 17), ("ca", 19)}


def test_a_real_sshd_refuses_the_revoked_certificate_and_admits_the_next(tmp_path: Path) -> None:
    ca, person = (keys.make(tmp_path, name=name) for name in ("ca", "person"))
    first, second = (written(tmp_path / f"{n}-cert.pub", certificate(ca, person.public_key, n)) for n in (17, 18))
    with sshd.trusting(tmp_path / "host", tmp_path / "ca.pub", ["web"]) as host:

        def admits(certificate_file: Path) -> bool:
            command = (host, sshd.current_account(), "true")
            return sshd.ssh(*command, identity=tmp_path / "person", certificate=certificate_file).returncode == 0

        assert admits(first)
        (host.prefix / "jit-ssh" / "revoked").write_bytes(krl.encode(20, 0, ca.public_key, (17,)))
        assert not admits(first)
        assert "revoked by file" in host.log()
        assert admits(second)
        (host.prefix / "jit-ssh" / "revoked").write_bytes(krl.encode(21, 0, ca.public_key, ()))
        assert admits(first)


# -------------------------------------------------------------- the parser


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), SERIALS, st.text("ab .-/é", max_size=40))
def test_what_is_encoded_is_read_again(version: int, date: int, serials: set[int], comment: str) -> None:
    blob = krl.encode(version, date, CA, serials, comment)
    assert krl.parse(blob, CA) == krl.Krl(version, date, CA, tuple(sorted(serials)), comment)


@given(st.data())
def test_a_mutated_list_is_malformed_or_exactly_another_list(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SAMPLE) - 1))
    instead = data.draw(st.binary(max_size=3))
    mutated = SAMPLE[:at] + instead + SAMPLE[at + data.draw(st.integers(0, 3)) :]
    assert_read_exactly_or_malformed(mutated)


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_malformed_or_exactly_a_list(blob: bytes, behind_a_header: bool) -> None:
    assert_read_exactly_or_malformed(HEADER + blob if behind_a_header else blob)


def assert_read_exactly_or_malformed(blob: bytes) -> None:
    """Nothing but `Malformed` is raised, and what is read has one spelling."""
    try:
        read = krl.parse(blob, CA)
    except Malformed:
        return
    assert read.blob == blob


@pytest.mark.parametrize("serials", [(), SPARSE], ids=["nothing", "sparse"])
def test_a_list_cut_anywhere_is_malformed(serials: tuple[int, ...]) -> None:
    whole = krl.encode(1, 0, CA, serials)
    for length in range(len(whole)):
        with pytest.raises(Malformed):
            krl.parse(whole[:length], CA)


@pytest.mark.parametrize(
    ("defect", "blob"),
    {
        "nothing": b"",
        "an-error-page": b"<html><body>502 Bad Gateway</body></html>",
        "a-key-file": CA.line.encode(),
        "another-format": HEADER[:8] + u32(2) + HEADER[12:],
        "flags": HEADER[:28] + u64(1) + HEADER[36:],
        "reserved": HEADER[:36] + string("x") + string(""),
        "comment-drives-a-terminal": HEADER[:-4] + string("\x1b[2J"),
        "comment-is-not-utf8": HEADER[:-4] + string(b"\xff"),
        "of-every-ca": HEADER + section(listed(1), ca=b""),
        "of-another-ca": HEADER + section(listed(1), ca=policies.key(3).blob),
        "ca-is-no-key": HEADER + section(listed(1), ca=b"\x00\x00\x00\x01x"),
        "section-reserved": HEADER + b"\x01" + string(string(CA.blob) + string("x") + listed(1)),
        "empty-section": HEADER + section(),
        "no-section": HEADER,
        "serial-0": HEADER + section(listed(0, 1)),
        "serial-beyond-63-bits": HEADER + section(listed(2**63)),
        "descending": HEADER + section(listed(2, 1)),
        "twice": HEADER + section(listed(2, 2)),
        "half-a-serial": HEADER + section(b"\x20" + string(u64(1) + b"\0\0")),
        "range": HEADER + section(b"\x21" + string(u64(1) + u64(2))),
        "bitmap": HEADER + section(b"\x22" + string(u64(1) + string(b"\x07"))),
        "key-ids": HEADER + section(b"\x23" + string(string("ana"))),
        "two-lists": HEADER + section(listed(1), listed(2)),
        "two-sections": HEADER + section(listed(1)) + section(listed(2)),
        "a-plain-key": HEADER + b"\x02" + string(string(CA.blob)),
        "signed": HEADER + section(listed(1)) + b"\x04" + string(CA.blob) + string("x"),
        "a-byte-too-many": HEADER + section(listed(1)) + b"\0",
    }.items(),
)
def test_what_is_not_exactly_such_a_list_is_malformed(defect: str, blob: bytes) -> None:
    with pytest.raises(Malformed):
        krl.parse(blob, CA)


def test_a_huge_list_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="more than"):
        krl.parse(HEADER + bytes(krl.LARGEST), CA)


@pytest.mark.parametrize("serial", [0, -1, 2**63, 2**64])
def test_a_serial_that_no_certificate_has_cannot_be_listed(serial: int) -> None:
    with pytest.raises(JitSshError, match="serial"):
        krl.encode(1, 0, CA, (1, serial))


@pytest.mark.parametrize("comment", ["a\nb", "\x1b]0;x\x07", "\u202ex", "\0"])
def test_a_comment_is_text_that_a_terminal_can_show(comment: str) -> None:
    with pytest.raises(Malformed, match="comment"):
        krl.encode(1, 0, CA, (1,), comment)


@pytest.mark.parametrize(("version", "date"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_version_and_date_are_64_bit_numbers(version: int, date: int) -> None:
    with pytest.raises(Malformed, match="64-bit"):
        krl.encode(version, date, CA, (1,))
