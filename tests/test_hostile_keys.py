"""Whatever key a person wants certified: nobody gets a certificate over one that is unsound, or that is not theirs alone."""

from collections.abc import Mapping
from functools import partial

import pytest

from ca.entry import IssueEntry, RefuseEntry
from ca.errors import Misconfigured
from ca.signers.file import FileSigner
from ca.wire import string
from tests import hostile, keys
from tests.keys import EVERY_TYPE, Kept, Key, SecurityKey
from tests.test_keys import BAD_KEYS, bad_key
from tests.world import World, certificate


@pytest.mark.parametrize("name", BAD_KEYS)
def test_nobody_gets_a_certificate_over_an_unsound_key(name: str, lasting_world: World) -> None:
    text = bad_key(name).removesuffix("\n")
    hostile.refused(lasting_world, partial(lasting_world.ask, "ana", key=text), 400, "malformed", BAD_KEYS[name])


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_sound_key_of_every_type_is_certified(kind: str, every_key: Mapping[str, Kept], lasting_world: World) -> None:
    key = every_key[kind]
    issued = certificate(lasting_world.ask("ana", key))
    assert issued.certificate.key == key.public_key
    issued.verify(lasting_world.signer.public_key)
    lasting_world.check()


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_a_key_that_was_cut_is_refused(kind: str, every_key: Mapping[str, Kept], lasting_world: World) -> None:
    line = every_key[kind].public_key.line
    for at in range(0, len(line), 97):
        hostile.refused(lasting_world, partial(lasting_world.ask, "ana", key=line[:at]), 400, "malformed", "")


@pytest.mark.parametrize(
    ("before", "behind", "words"),
    [
        ("", " ana@laptop", "Leave out the comment"),
        ("", "\n", "Leave out the comment"),
        ("", " ", "Leave out the comment"),
        ("", "\r\n", "one line of printable text"),
        ("", "\0", "one line of printable text"),
        ("", "=", "not canonical base64"),
        (" ", "", "not base64"),
        ('from="*" ', "", "not base64"),
        ("cert-authority ", "", "not base64"),
        ("# ", "", "not base64"),
        ("\ufeff", "", "one line of printable text"),
    ],
)
def test_a_key_is_its_type_and_its_base64_alone(before: str, behind: str, words: str, lasting_world: World) -> None:
    line = before + lasting_world.people["ana"].public_key.line + behind
    hostile.refused(lasting_world, partial(lasting_world.ask, "ana", key=line), 400, "malformed", words)


# ------------------------------------------------------------ keys with owners


def refused_and_logged(world: World, key: Key, words: str) -> None:
    """Ana asks for a certificate over this key, of which she proves possession."""
    hostile.refused(world, partial(world.ask, "ana", key), 403, "refused", words, logged=True)
    refusal = [one for one in world.entries() if isinstance(one, RefuseEntry)][-1]
    assert (refusal.actor, refusal.code) == ("ana", "refused")
    assert words in refusal.message


def test_the_ca_does_not_certify_its_own_key(world: World) -> None:
    refused_and_logged(world, FileSigner(world.directory / "ca", lambda _path: b""), "the CA's own")


def test_the_ca_does_not_certify_the_logs_key(world: World) -> None:
    refused_and_logged(world, world.log_signer, "the log's own")


def test_nobody_certifies_another_persons_key(world: World) -> None:
    refused_and_logged(world, world.people["bo"], "belongs to another person")
    assert world.ask("bo", role="dev", reason="").status_code == 201, "for bo it is their own"


def test_nobody_certifies_a_revoked_key(world: World) -> None:
    lost = keys.make(world.directory, name="lost")
    assert world.ask("ana", lost).status_code == 201, "before it is revoked"
    world.adopt(people=f'revoked_keys = ["{lost.public_key.fingerprint}"]\n' + world.files["people.toml"].decode())
    refused_and_logged(world, lost, "is revoked")


def test_neither_the_ca_key_nor_the_log_key_can_be_a_persons(world: World) -> None:
    people = world.files["people.toml"].decode()
    for own, whose in ((world.signer.public_key, "the CA's own"), (world.log_signer.public_key, "the log's own")):
        with pytest.raises(Misconfigured, match=f"gives {whose} key to ana"):
            world.adopt(people=people.replace(world.people["ana"].public_key.line, own.line))
    assert world.ask("ana").status_code == 201, "the policy before it still decides"


# --------------------------------------------------------- proof of possession


def test_a_certificate_needs_the_key_it_is_for(lasting_world: World) -> None:
    ana, fresh, other = (lasting_world.people["ana"], SecurityKey(), SecurityKey())
    text = lasting_world.statement(fresh.public_key)
    signed = lasting_world.signed(text, ana, fresh)
    another_text = lasting_world.statement(fresh.public_key)

    def send(**changes: str) -> hostile.Send:
        return partial(lasting_world.post, signed | changes)

    def proof(of: Key, over: bytes) -> dict[str, str]:
        return {"possession": lasting_world.signed(over, ana, of)["possession"]}

    for changes, status, code, words in (
        (proof(other, text), 401, "bad-signature", "not by the key to certify"),
        ({"possession": signed["signature"]}, 401, "bad-signature", "not by the key to certify"),
        (proof(fresh, another_text), 401, "bad-signature", "not one by"),
        (proof(fresh, b""), 401, "bad-signature", "not one by"),
        ({"possession": ""}, 400, "malformed", "ends early"),
        ({"possession": "!"}, 400, "malformed", "the proof of possession is not base64"),
        ({"possession": signed["possession"][:-4]}, 400, "malformed", "ends early"),
    ):
        hostile.refused(lasting_world, send(**changes), status, code, words)
    assert lasting_world.post(signed).status_code == 201


def test_possession_is_not_proven_by_a_signature_for_something_else(lasting_world: World) -> None:
    ana, fresh = lasting_world.people["ana"], SecurityKey()
    text = lasting_world.statement(fresh.public_key)
    for forged in (
        hostile.forged_sshsig(fresh, text, namespace="git"),
        hostile.forged_sshsig(fresh, text, digest="sha256"),
        hostile.forged_sshsig(ana, text, claimed=fresh.blob),
        string("SSHSIG") + fresh.sign(text),
    ):
        body = hostile.body(text, keys.sshsig(ana, text), forged)
        answer = hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", "")
        assert "signature" in answer["detail"]


def test_a_certificate_is_over_the_key_in_the_statement_and_no_other(lasting_world: World) -> None:
    fresh = SecurityKey("ecdsa")
    answer = lasting_world.ask("ana", fresh)
    assert certificate(answer).certificate.key == fresh.public_key
    issued = lasting_world.entries()[-1]
    assert isinstance(issued, IssueEntry)
    assert issued.certificate.key == fresh.public_key
