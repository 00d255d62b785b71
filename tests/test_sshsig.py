"""SSHSIG: what ssh-keygen -Y signs we accept, what we log ssh-keygen -Y verifies, and no byte can be another."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.entry import RequestEntry
from ca.errors import BadSignature, Malformed
from ca.sshsig import SshSig, signed_bytes
from ca.wire import string, u32
from tests import hostile, keys, policies
from tests.keys import EVERY_TYPE, PROVIDER, Kept, SecurityKey
from tests.world import World

MESSAGE = b'{"action":"request"}'


def keygen_sign(key: Path, message: bytes, *options: str, namespace: str = "jit-ssh") -> str:
    """The armored signature that ssh-keygen makes with the private key file."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, *options, "-f", str(key)]
    environment = {**os.environ, **PROVIDER, "SSH_AUTH_SOCK": ""}
    return subprocess.run(command, input=message, check=True, capture_output=True, env=environment).stdout.decode()


def keygen_verifies(armored: str, message: bytes, line: str, directory: Path, namespace: str = "jit-ssh") -> bool:
    """Whether ssh-keygen takes it for a signature over the message by the key with this line."""
    (directory / "allowed").write_text(f"ana {line}\n")
    (directory / "signature").write_text(armored)
    command = ["ssh-keygen", "-Y", "verify", "-n", namespace, "-I", "ana", "-f", "allowed", "-s", "signature"]
    return subprocess.run(command, cwd=directory, input=message, capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- public judges


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_what_ssh_keygen_signs_is_accepted(kind: str, every_key: Mapping[str, Kept]) -> None:
    key = every_key[kind]
    armored = keygen_sign(key.path, MESSAGE)
    signed = SshSig.parse_armored(armored)
    assert signed.key == key.public_key
    assert signed.verify(MESSAGE) is key.public_key.hardware, "the software authenticator always reports a touch"
    assert signed.armored == armored
    with pytest.raises(BadSignature):
        signed.verify(MESSAGE + b" ")


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_what_we_sign_ssh_keygen_verifies(kind: str, every_key: Mapping[str, Kept], tmp_path: Path) -> None:
    key = every_key[kind]
    armored = SshSig.parse(keys.sshsig(key, MESSAGE)).armored
    assert keygen_verifies(armored, MESSAGE, key.public_key.line, tmp_path)
    assert not keygen_verifies(armored, MESSAGE + b" ", key.public_key.line, tmp_path)
    assert not keygen_verifies(armored, MESSAGE, policies.key(1).line, tmp_path)
    assert not keygen_verifies(armored, MESSAGE, key.public_key.line, tmp_path, namespace="git")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_the_stand_in_for_a_security_key_signs_as_a_real_one(kind: str, tmp_path: Path) -> None:
    for flags in (1, 5):
        key = SecurityKey(kind, flags=flags)
        armored = SshSig.parse(keys.sshsig(key, MESSAGE)).armored
        assert keygen_verifies(armored, MESSAGE, key.public_key.line, tmp_path)


def test_a_statement_out_of_the_log_is_verified_by_ssh_keygen(world: World, tmp_path: Path) -> None:
    """All that is needed is the entry and the person's public key: no CA, no program of ours."""
    fresh = SecurityKey()
    assert world.ask("ana", fresh).status_code == 201
    asked = world.entries()[-2]
    assert isinstance(asked, RequestEntry)
    text, person = asked.statement.encode(), world.people["ana"].public_key.line
    assert keygen_verifies(asked.signed.armored, text, person, tmp_path)
    assert keygen_verifies(asked.possession_signed.armored, text, fresh.public_key.line, tmp_path)
    assert not keygen_verifies(asked.possession_signed.armored, text, person, tmp_path)
    assert not keygen_verifies(asked.signed.armored, text.replace(b"web-admin", b"db-admin"), person, tmp_path)


@pytest.mark.parametrize(
    ("options", "namespace", "words"),
    [
        ((), "git", "for namespace 'git'"),
        ((), "file", "for namespace 'file'"),
        ((), "jit-ssh ", "for namespace 'jit-ssh '"),
        (("-O", "hashalg=sha256"), "jit-ssh", "hash 'sha256'"),
    ],
)
def test_what_ssh_keygen_signs_for_something_else_is_malformed(
    options: tuple[str, ...], namespace: str, words: str, every_key: Mapping[str, Kept]
) -> None:
    armored = keygen_sign(every_key["ed25519"].path, MESSAGE, *options, namespace=namespace)
    with pytest.raises(Malformed, match=words):
        SshSig.parse_armored(armored)


# ------------------------------------------------------------ every field, byte


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_signature_changed_or_cut_at_any_byte_is_refused(kind: str, every_key: Mapping[str, Kept]) -> None:
    blob = keys.sshsig(every_key[kind], MESSAGE)
    assert SshSig.parse(blob).blob == blob
    for at in range(len(blob)):
        for changed in (blob[:at], blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :], blob[:at] + b"\0" + blob[at:]):
            with pytest.raises((BadSignature, Malformed)):
                SshSig.parse(changed).verify(MESSAGE)


def test_an_armored_signature_changed_at_any_character_is_refused(every_key: Mapping[str, Kept]) -> None:
    armored = SshSig.parse(keys.sshsig(every_key["ecdsa-256"], MESSAGE)).armored
    assert SshSig.parse_armored(armored).verify(MESSAGE) is False
    for at in (at for at in range(len(armored)) if not armored[at].isspace()):
        for other in "AB=-\u00e9\0":
            if armored[at] != other:
                with pytest.raises((BadSignature, Malformed)):
                    SshSig.parse_armored(armored[:at] + other + armored[at + 1 :]).verify(MESSAGE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": b"SSHSIh"}, "not an SSHSIG of version 1"),
        ({"version": 0}, "not an SSHSIG of version 1"),
        ({"version": 2}, "not an SSHSIG of version 1"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "jit-ssh\0"}, "namespace"),
        ({"namespace": "\x1b[2J"}, r"namespace '\x1b[2J'"),
        ({"digest": "sha256"}, "hash"),
        ({"digest": "sha1"}, "hash"),
        ({"digest": "md5"}, "hash"),
        ({"reserved": b"\0"}, "reserved"),
        ({"claimed": b""}, "the public key ends early"),
        ({"claimed": policies.key(2).blob + b"\0"}, "too many"),
    ],
    ids=str,
)
def test_a_field_that_says_something_else_is_malformed(changes: dict[str, object], words: str) -> None:
    forged = hostile.forged_sshsig(SecurityKey(), MESSAGE, **changes)  # type: ignore[arg-type]  # one of its keywords each
    with pytest.raises(Malformed) as caught:
        SshSig.parse(forged)
    assert words in caught.value.message


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_statement_is_not_read_where_another_namespace_is_wanted(kind: str, every_key: Mapping[str, Kept]) -> None:
    with pytest.raises(Malformed, match="for namespace 'jit-ssh', not 'jit-ssh-break-glass'"):
        SshSig.parse(keys.sshsig(every_key[kind], MESSAGE), "jit-ssh-break-glass")


def test_the_message_is_hashed_and_bound_to_the_namespace() -> None:
    assert signed_bytes(MESSAGE).startswith(b"SSHSIG" + string("jit-ssh") + u32(0) + string("sha512") + u32(64))
    assert len(signed_bytes(MESSAGE)) == 6 + 11 + 4 + 10 + 68


@given(st.binary(max_size=200))
def test_any_bytes_are_a_signature_or_malformed(source: bytes) -> None:
    for blob in (source, b"SSHSIG" + source, b"SSHSIG" + u32(1) + string(policies.key(1).blob) + source):
        with pytest.raises(Malformed):
            SshSig.parse(blob)


@given(st.text(max_size=80))
def test_any_text_is_an_armored_signature_or_malformed(text: str) -> None:
    for armored in (text, f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"):
        with pytest.raises(Malformed):
            SshSig.parse_armored(armored)


def test_a_signature_is_not_larger_than_four_kib() -> None:
    with pytest.raises(Malformed, match="more than 4096"):
        SshSig.parse(bytes(4097))
