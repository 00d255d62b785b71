"""Certificates: byte for byte what ssh-keygen makes of the same fields, shown by it as meant, and nothing else is one."""

import base64
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.certificate import LONGEST, PERMITS, Certificate, SignedCertificate, certificate_algorithm
from ca.errors import BadSignature, JitSshError, Malformed
from ca.keys import ALGORITHMS, PublicKey
from ca.wire import Reader, string, u32, u64
from tests import policies
from tests.keys import EVERY_TYPE, TYPES, Kept

AFTER = 1_800_000_000  # 2027-01-15 08:00 UTC
SAMPLE = Certificate(
    key=policies.key(1),
    serial=7,
    key_id="ana/web-admin/6",
    principals=("root@web-prod", "deploy@web-prod"),
    valid_after=AFTER,
    valid_before=AFTER + 1860,
    force_command="journalctl -f",
    source_address="192.0.2.1/32,2001:db8::/32",
    permit=("agent-forwarding", "pty"),
    ca_key=policies.key(2),
    nonce=bytes(range(32)),
)

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "force-command": {"force_command": "/usr/bin/journalctl -u nginx --since 'now'"},
    "force-command-beyond-ascii": {"force_command": "echo café"},
    "source-address": {"source_address": "192.0.2.7/32"},
    "source-addresses": {"source_address": "10.0.0.0/8,192.0.2.0/24,2001:db8::/32"},
    "both": {"force_command": "id", "source_address": "2001:db8::1/128"},
    **{permit: {"permit": (permit,)} for permit in PERMITS},
    "every-permit": {"permit": PERMITS},
    "everything": {"force_command": "id", "source_address": "0.0.0.0/0", "permit": PERMITS},
    "one-principal": {"principals": ("root@web",)},
    "256-principals": {"principals": tuple(f"account{number}@web" for number in range(256))},
    "largest-serial": {"serial": 2**63 - 1},
    "longest-key-id": {"key_id": "x" * 120},
    "one-second": {"valid_before": AFTER + 1},
    "longest": {"valid_before": AFTER + LONGEST},
}


def by_ssh_keygen(wanted: Certificate, key: Path, ca: Path) -> bytes:
    """The blob of the certificate that `ssh-keygen -s` makes of the same fields; its nonce is its own."""

    def moment(seconds: int) -> str:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d%H%M%S}"

    options = ["clear", *(f"permit-{name}" for name in wanted.permit)]
    options += [f"force-command={wanted.force_command}"] if wanted.force_command else []
    options += [f"source-address={wanted.source_address}"] if wanted.source_address else []
    command = ["ssh-keygen", "-q", "-s", str(ca), "-I", wanted.key_id, "-n", ",".join(wanted.principals)]
    command += ["-V", f"{moment(wanted.valid_after)}:{moment(wanted.valid_before)}", "-z", str(wanted.serial)]
    command += [part for option in options for part in ("-O", option)]
    # ssh-keygen reads these times in the local zone
    subprocess.run([*command, f"{key}.pub"], check=True, capture_output=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"})
    return base64.b64decode(Path(f"{key}-cert.pub").read_text().split()[1])


def nonce_of(blob: bytes) -> bytes:
    """The nonce in a certificate's blob."""
    reader = Reader(blob, "the certificate")
    reader.string()
    return reader.string()


def assert_equal_bytes(wanted: Certificate, key: Path, ca: Path) -> None:
    judged = by_ssh_keygen(wanted, key, ca)
    ours = replace(wanted, nonce=nonce_of(judged))
    assert judged.startswith(ours.to_be_signed)
    signed = SignedCertificate.parse(judged)
    assert signed.certificate == ours
    assert signed.blob == judged
    signed.verify(wanted.ca_key)


# ---------------------------------------------------------------- public judges


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_the_bytes_to_sign_are_those_of_ssh_keygen_for_every_type(kind: str, every_key: Mapping[str, Kept]) -> None:
    key, ca = every_key[kind], every_key["ecdsa-256" if kind == "ed25519" else "ed25519"]
    assert_equal_bytes(replace(SAMPLE, key=key.public_key, ca_key=ca.public_key), key.path, ca.path)


@pytest.mark.parametrize("kind", TYPES)
def test_the_bytes_to_sign_are_those_of_ssh_keygen_for_every_type_of_ca(kind: str, every_key: Mapping[str, Kept]) -> None:
    key, ca = every_key["sk-ed25519"], every_key[kind]
    assert_equal_bytes(replace(SAMPLE, key=key.public_key, ca_key=ca.public_key), key.path, ca.path)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_bytes_to_sign_are_those_of_ssh_keygen_for_every_option(option: str, every_key: Mapping[str, Kept]) -> None:
    key, ca = every_key["ecdsa-256"], every_key["ed25519"]
    plain = replace(SAMPLE, key=key.public_key, ca_key=ca.public_key, force_command=None, source_address=None, permit=())
    assert_equal_bytes(replace(plain, **OPTIONS[option]), key.path, ca.path)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_ssh_keygen_shows_what_was_meant(kind: str, every_key: Mapping[str, Kept], tmp_path: Path) -> None:
    key, ca = every_key[kind], every_key["rsa-3072" if kind == "ed25519" else "ed25519"]
    certificate = replace(SAMPLE, key=key.public_key, ca_key=ca.public_key)
    signed = SignedCertificate(certificate, ca.sign(certificate.to_be_signed))
    path = tmp_path / "id-cert.pub"
    path.write_text(signed.line + "\n")
    command = ["ssh-keygen", "-L", "-f", str(path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"}).stdout
    assert f"Type: {certificate_algorithm(key.public_key.algorithm)} user certificate" in shown
    assert key.public_key.fingerprint in shown
    assert f"{ca.public_key.fingerprint} (using {'rsa-sha2-512' if kind == 'ed25519' else 'ssh-ed25519'})" in shown
    words = " ".join(shown.split("Key ID:")[1].split())
    assert words == (
        '"ana/web-admin/6" Serial: 7 Valid: from 2027-01-15T08:00:00 to 2027-01-15T08:31:00 '
        "Principals: root@web-prod deploy@web-prod "
        "Critical Options: force-command journalctl -f source-address 192.0.2.1/32,2001:db8::/32 "
        "Extensions: permit-agent-forwarding permit-pty"
    )
    assert SignedCertificate.parse_line(path.read_text()) == signed
    signed.verify(ca.public_key)


def test_ssh_keygen_shows_no_certificate_that_another_key_signed(every_key: Mapping[str, Kept], tmp_path: Path) -> None:
    ca, other = every_key["ed25519"], every_key["ecdsa-256"]
    certificate = replace(SAMPLE, ca_key=ca.public_key)
    forged = SignedCertificate(certificate, other.sign(certificate.to_be_signed))
    with pytest.raises((BadSignature, Malformed)):
        forged.verify(ca.public_key)
    with pytest.raises(Malformed, match="the certificate is by CA"):
        forged.verify(other.public_key)
    path = tmp_path / "id-cert.pub"
    path.write_text(forged.line + "\n")
    judged = subprocess.run(["ssh-keygen", "-L", "-f", str(path)], check=False, capture_output=True, text=True)
    assert judged.returncode != 0, "ssh-keygen checks the signature as it reads"


# ------------------------------------------------------------------ round trips

ACCOUNTS = st.from_regex(r"[a-z_][a-z0-9_.-]{0,31}@[a-z0-9_][a-z0-9_.-]{0,20}", fullmatch=True)
PRINTABLE = st.characters(codec="utf-8").filter(str.isprintable)
CERTIFICATES = st.builds(
    Certificate,
    key=st.integers(3, 20).map(policies.key),
    serial=st.integers(1, 2**63 - 1),
    key_id=st.from_regex(r"[A-Za-z0-9._@/+-]{1,120}", fullmatch=True),
    principals=st.lists(ACCOUNTS, min_size=1, max_size=4, unique=True).map(tuple),
    valid_after=st.just(AFTER),
    valid_before=st.integers(AFTER + 1, AFTER + LONGEST),
    force_command=st.none() | st.text(PRINTABLE, min_size=1, max_size=40),
    source_address=st.none() | st.lists(st.ip_addresses().map(lambda a: f"{a}/{a.max_prefixlen}"), min_size=1).map(",".join),
    permit=st.sets(st.sampled_from(PERMITS)).map(lambda chosen: tuple(name for name in PERMITS if name in chosen)),
    ca_key=st.integers(21, 23).map(policies.key),
    nonce=st.binary(min_size=32, max_size=32),
)


@given(CERTIFICATES, st.binary(max_size=80))
def test_what_is_encoded_is_parsed(certificate: Certificate, signature: bytes) -> None:
    assert Certificate.parse_to_be_signed(certificate.to_be_signed) == certificate
    signed = SignedCertificate(certificate, signature)
    assert SignedCertificate.parse(signed.blob) == signed
    assert SignedCertificate.parse_line(signed.line) == signed
    assert SignedCertificate.parse_line(signed.line + "\n") == signed


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_certificate_cut_or_changed_at_any_byte_is_refused(kind: str, every_key: Mapping[str, Kept]) -> None:
    ca = every_key["ed25519" if kind != "ed25519" else "ecdsa-256"]
    certificate = replace(SAMPLE, key=every_key[kind].public_key, ca_key=ca.public_key)
    blob = SignedCertificate(certificate, ca.sign(certificate.to_be_signed)).blob
    tbs = certificate.to_be_signed
    for at in range(len(blob)):
        for hostile in (blob[:at], blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :], blob[:at] + b"\0" + blob[at:]):
            with pytest.raises((BadSignature, Malformed)):
                SignedCertificate.parse(hostile).verify(ca.public_key)
        with pytest.raises(Malformed):
            Certificate.parse_to_be_signed(tbs[: min(at, len(tbs) - 1)])
    for longer in (blob + b"\0", blob + blob):
        with pytest.raises(Malformed):
            SignedCertificate.parse(longer)


@given(st.binary(max_size=200), st.sampled_from(ALGORITHMS))
def test_any_bytes_are_a_certificate_or_malformed(rest: bytes, algorithm: str) -> None:
    for source in (rest, string(certificate_algorithm(algorithm)) + rest, string(algorithm) + rest):
        with pytest.raises(Malformed):
            SignedCertificate.parse(source)
        with pytest.raises(Malformed):
            Certificate.parse_to_be_signed(source)


@given(st.text(max_size=60))
def test_any_text_is_a_certificates_line_or_malformed(text: str) -> None:
    for line in (text, f"ssh-ed25519-cert-v01@openssh.com {text}"):
        with pytest.raises(Malformed):
            SignedCertificate.parse_line(line)


# ----------------------------------------- what a certificate cannot be built as


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"serial": 0}, "serial 0"),  # cannot be revoked
        ({"serial": -1}, "serial -1"),
        ({"serial": 2**63}, "serial"),
        ({"key_id": ""}, "key id"),
        ({"key_id": "x" * 121}, "key id"),
        ({"key_id": "ana\nAccepted publickey for root"}, "key id"),
        ({"key_id": "ana\x1b[2J"}, "key id"),
        ({"key_id": "ana b"}, "key id"),
        ({"key_id": "\u0430na"}, "key id"),
        ({"principals": ()}, "principals, not 0"),  # anybody
        ({"principals": tuple(f"a{n}@web" for n in range(257))}, "principals, not 257"),
        ({"principals": ("root@web", "root@web")}, "stands twice"),
        *(
            ({"principals": ("dev@web", hostile)}, "principal ")
            for hostile in (
                "",
                "root",
                "@web",
                "root@",
                "*",
                "*@web",
                "root@*",
                "root@web,dev@web",
                "root@web\0",
                "root@web\n",
                "root@web ",
                " root@web",
                "#root@web",
                "Root@web",
                "r\u043eot@web",
                "root@web@web",
                "!root@web",
                "-root@web",
                "root@../web",
                "x" * 33 + "@web",
                "root@" + "x" * 64,
            )
        ),
        ({"valid_before": AFTER}, "empty or longer"),
        ({"valid_before": AFTER - 1}, "empty or longer"),
        ({"valid_before": AFTER + LONGEST + 1}, "empty or longer"),
        ({"valid_before": 2**64 - 1}, "empty or longer"),  # for ever
        ({"valid_after": -1}, "empty or longer"),
        ({"valid_after": 0}, "empty or longer"),
        ({"permit": ("pty", "agent-forwarding")}, "not a sorted choice"),
        ({"permit": ("pty", "pty")}, "not a sorted choice"),
        ({"permit": ("permit-pty",)}, "not a sorted choice"),
        ({"permit": ("force-command",)}, "not a sorted choice"),
        ({"permit": ("PTY",)}, "not a sorted choice"),
        ({"ca_key": policies.key(1)}, "the CA's own"),
        ({"nonce": b""}, "nonce"),
        ({"nonce": bytes(31)}, "nonce"),
        ({"force_command": ""}, "force-command"),  # sshd would run the user's shell
        ({"force_command": "id\nroot"}, "force-command"),
        ({"force_command": "id\0"}, "force-command"),
        ({"force_command": "x" * 1025}, "force-command"),
        *(
            ({"source_address": hostile}, "source-address")
            for hostile in (
                "",
                ",",
                "192.0.2.1",
                "192.0.2.1/24",
                "192.0.2.0/24,",
                "192.0.2.0/24, 10.0.0.0/8",
                "192.0.2.0/33",
                "*",
                "any",
                "192.0.2.0/255.255.255.0",
                "192.000.2.0/24",
                "2001:DB8::/32",
                "2001:db8:0::/32",
                "!10.0.0.0/8",
                "10.0.0.0/8\0",
                "fe80::1%eth0/128",
                "fe80::1%\x1b[2J/128",
                "host.example.com",
            )
        ),
    ],
    ids=str,
)
def test_a_certificate_that_sshd_would_read_otherwise_cannot_be_built(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed) as caught:
        replace(SAMPLE, **changes)
    assert words in caught.value.message
    assert caught.value.message.isprintable()


# ------------------------------------- what a certificate of others may not bring


def packed(
    *,
    algorithm: str = "ssh-ed25519-cert-v01@openssh.com",
    fields: bytes = policies.key(1).fields,
    kind: int = 1,
    principals: bytes = string("root@web"),
    critical: bytes = b"",
    extensions: bytes = b"",
    reserved: bytes = b"",
    key_id: bytes = b"ana/dev/6",
) -> bytes:
    """The bytes to sign of a certificate with any of these parts as it should never be."""
    return (
        string(algorithm)
        + string(bytes(32))
        + fields
        + u64(7)
        + u32(kind)
        + string(key_id)
        + string(principals)
        + u64(AFTER)
        + u64(AFTER + 60)
        + string(critical)
        + string(extensions)
        + string(reserved)
        + string(policies.key(2).blob)
    )


def option(name: str, value: str | None = None) -> bytes:
    return string(name) + string(b"" if value is None else string(value))


def test_the_sound_one_is_parsed() -> None:
    critical = option("force-command", "id") + option("source-address", "10.0.0.0/8")
    parsed = Certificate.parse_to_be_signed(packed(critical=critical, extensions=option("permit-pty")))
    assert (parsed.force_command, parsed.source_address, parsed.permit) == ("id", "10.0.0.0/8", ("pty",))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"kind": 0}, "of type 0"),
        ({"kind": 2}, "of type 2"),  # a host certificate
        ({"principals": b""}, "principals, not 0"),
        ({"principals": string("root@web\0")}, "principal "),
        ({"principals": string("root@web") + b"\0"}, "ends early"),
        ({"principals": b"root@web"}, "ends early"),
        ({"principals": string(b"\xff@web")}, "not UTF-8"),
        ({"key_id": b"\xff"}, "not UTF-8"),
        ({"critical": option("verify-required")}, "unknown critical option 'verify-required'"),
        ({"critical": option("permit-pty")}, "unknown critical option"),
        ({"critical": string("force-command") + string("id")}, "a critical option"),
        ({"critical": option("force-command")}, "a critical option ends early"),
        ({"critical": option("force-command", "")}, "force-command"),
        ({"critical": string("force-command") + string(string("id") + b"\0")}, "a critical option has 1 bytes too many"),
        ({"critical": option("force-command", "id") * 2}, "out of order or stands twice"),
        ({"critical": option("force-command", "a") + option("force-command", "b")}, "out of order or stands twice"),
        ({"critical": option("source-address", "10.0.0.0/8") + option("force-command", "id")}, "out of order"),
        ({"extensions": option("force-command", "id")}, "unknown extension 'force-command'"),  # sshd ignores it there
        ({"extensions": option("source-address", "10.0.0.0/8")}, "unknown extension 'source-address'"),
        ({"extensions": option("no-touch-required")}, "unknown extension 'no-touch-required'"),
        ({"extensions": option("permit-everything")}, "unknown extension"),
        ({"extensions": option("pty")}, "not in its canonical form"),
        ({"extensions": option("permit-pty", "yes")}, "unknown extension"),
        ({"extensions": option("permit-user-rc") + option("permit-pty")}, "out of order"),
        ({"extensions": option("permit-pty") * 2}, "stands twice"),
        ({"extensions": b"permit-pty"}, "ends early"),
        ({"reserved": b"\0"}, "reserved"),
        ({"algorithm": "ssh-ed25519"}, "'ssh-ed25519' is not supported"),
        ({"algorithm": "ssh-ed25519-cert-v00@openssh.com"}, "is not supported"),
        ({"algorithm": "ssh-dss-cert-v01@openssh.com"}, "is not supported"),
        ({"fields": string(bytes(32))}, "degenerate"),
        ({"fields": string(b"\1" + bytes(31))}, "degenerate"),
        ({"fields": string(bytes(31))}, "32 bytes"),
        ({"algorithm": "sk-ssh-ed25519-cert-v01@openssh.com"}, ""),  # then the application is missing
    ],
    ids=str,
)
def test_a_certificate_that_others_would_accept_is_malformed(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed) as caught:
        Certificate.parse_to_be_signed(packed(**parts))
    assert words in caught.value.message


def test_a_certificate_is_not_larger_than_64_kib() -> None:
    with pytest.raises(Malformed, match="more than 65536"):
        SignedCertificate.parse(bytes(65_537))


def test_a_line_that_names_another_type_is_malformed() -> None:
    line = SignedCertificate(SAMPLE, b"").line
    for other in ("ecdsa-sha2-nistp256-cert-v01@openssh.com", "ssh-ed25519", ""):
        with pytest.raises(Malformed, match="holds another type"):
            SignedCertificate.parse_line(line.replace("ssh-ed25519-cert-v01@openssh.com", other, 1))


def test_a_certificate_is_never_taken_for_a_key(every_key: Mapping[str, Kept]) -> None:
    for key in every_key.values():
        if key.public_key != SAMPLE.ca_key:
            blob = SignedCertificate(replace(SAMPLE, key=key.public_key), b"").blob
            with pytest.raises(JitSshError, match="this is a certificate, not a public key"):
                PublicKey.parse(blob)
