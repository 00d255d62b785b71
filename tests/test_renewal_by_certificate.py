"""A certificate's own key asks for the next one: within its grant and while it lives, and for nothing else.

The attacker of these tests has a live certificate with its key, and no other key of the person.
"""

import dataclasses
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca import canonical, krl
from ca.entry import AnyEntry, IssueEntry, RefuseEntry, RenewEntry, RequestEntry, RevokeEntry, UnlockEntry
from ca.errors import LogDamaged
from ca.request import LONGEST_CHAIN, Request, fold
from ca.store.filter import Filter
from cli.casefile import CaseFile
from tests import keys
from tests.keys import Key
from tests.test_request_verify import check
from tests.world import FILES, ORIGIN, START, World, certificate, uuid7

MINUTE = 60
SHORT = FILES["roles/web-admin.toml"].replace("[[allow]]", 'certificate_duration = "10m"\n[[allow]]')


@pytest.fixture
def stolen(world: World) -> Key:
    """The key of ana's certificate: request 3, serial 4, of 10 minutes in a grant of 30."""
    world.adopt(role_web_admin=SHORT)
    key = keys.make(world.directory, name="stolen")
    assert world.ask("ana", key).get_json()["serial"] == 4
    return key


def renew(world: World, signer: Key, fresh: Key | None = None, **changes: Any) -> TestResponse:
    """The next certificate of request 3, asked for with the key of certificate 4."""
    fresh = fresh or keys.make(world.directory, name=f"fresh-{uuid7()}")
    said = {"action": "certificate", "audience": ORIGIN, "id": uuid7(), "time": int(world.now), "request": 3, "serial": 4}
    text = canonical.encode({name: value for name, value in (said | {"key": fresh.public_key.line} | changes).items() if value})
    return world.http.post("/v1/certificates", data=json.dumps(world.signed(text, signer, fresh)))


def code(answer: TestResponse) -> str:
    problem: Mapping[str, Any] = answer.get_json()
    return str(problem["code"])


def test_the_key_of_a_living_certificate_gets_the_next_one_of_the_same_grant(world: World, stolen: Key) -> None:
    world.now += 9 * MINUTE
    fresh = keys.make(world.directory, name="fresh")
    got = certificate(renew(world, stolen, fresh)).certificate
    assert (got.key, got.principals, got.valid_before) == (fresh.public_key, ("root@web",), int(world.now) + 10 * MINUTE)
    renewal = world.entries()[-2]
    assert isinstance(renewal, RenewEntry)
    assert (renewal.actor, renewal.hardware_key, renewal.signed.key) == ("ana", False, stolen.public_key)
    world.now += 9 * MINUTE
    assert renew(world, fresh, serial=got.serial).status_code == 201, "and that one the next"
    world.now += 9 * MINUTE
    last = certificate(world.renew("ana", 3, fresh))
    assert last.certificate.valid_before == START + 30 * MINUTE, "but none is for longer than the grant"
    last = certificate(renew(world, fresh, serial=last.certificate.serial))
    assert last.certificate.valid_before == START + 30 * MINUTE
    world.check()


def test_nothing_but_the_next_certificate_is_had_with_it(world: World, stolen: Key) -> None:
    text = world.statement(stolen.public_key)
    assert code(world.post(world.signed(text, stolen, stolen))) == "unknown-signer"
    world.people["mallory"] = stolen
    assert code(world.read("mallory", "/v1/requests")) == "unknown-signer"
    assert code(world.give_back("mallory", "drop", 3)) == "unknown-signer"
    assert code(world.act("mallory", "revoke", "/v1/revocations", person="ana", reason="x")) == "unknown-signer"
    world.ask("bo", role="db-admin")
    assert code(world.answer("mallory", "approve", 5)) == "unknown-signer"
    assert code(renew(world, stolen, serial=None)) == "unknown-signer", "without the serial it is nobody's key"


ENDS = ("drop", "revoke", "revoke serial", "revoke person", "lock", "time", "grant", "key", "left", "policy")


@pytest.mark.parametrize("end", ENDS)
def test_what_is_over_revoked_or_taken_renews_nothing(world: World, stolen: Key, end: str) -> None:
    match end:
        case "drop":
            world.give_back("ana", "drop", 3)
        case "revoke":
            world.act("eve", "revoke", "/v1/revocations", request=3, reason="lost")
        case "revoke serial":
            world.act("eve", "revoke", "/v1/revocations", serial=4, reason="lost")
        case "revoke person":
            world.act("eve", "revoke", "/v1/revocations", person="ana", reason="lost")
        case "lock":
            world.act("eve", "lock", "/v1/locks", person="ana", reason="lost")
        case "time":
            world.now += 10 * MINUTE
        case "grant":
            world.now += 30 * MINUTE
        case "key":  # the key that asked is not ana's any more
            other = keys.make(world.directory, name="other").public_key.line
            people = world.files["people.toml"].decode().replace(world.people["ana"].public_key.line, other)
            world.adopt(people=people)
        case "left":
            people = world.files["people.toml"].decode()
            world.adopt(people=people[: people.index("[people.ana]")] + people[people.index("[people.bo]") :])
        case _:
            fingerprint = stolen.public_key.fingerprint
            world.adopt(people=f'revoked_keys = ["{fingerprint}"]\n' + world.files["people.toml"].decode())
    size = world.store.size()
    answer = renew(world, stolen)
    assert (answer.status_code, code(answer)) == (401, "revoked-key" if end == "policy" else "unknown-signer")
    assert world.store.size() == size
    world.check()


def a_chain(world: World, stolen: Key) -> dict[int, Key]:
    """The keys of certificates by serial: a thief's 6 and 8, one by the key of the other; ana's own 10, and 12 by its key."""
    made = {4: stolen}
    for serial, by in ((6, 4), (8, 6), (10, None), (12, 10)):
        made[serial] = keys.make(world.directory, name=f"of-{serial}")
        got = world.renew("ana", 3, made[serial]) if by is None else renew(world, made[by], made[serial], serial=by)
        assert got.get_json()["serial"] == serial
    return made


@pytest.mark.parametrize(("revoked", "ended"), [(4, [4, 6, 8]), (6, [6, 8]), (8, [8]), (10, [10, 12]), (12, [12])])
def test_with_a_certificate_end_those_that_its_key_asked_for(world: World, stolen: Key, revoked: int, ended: list[int]) -> None:
    made = a_chain(world, stolen)
    answer = world.act("eve", "revoke", "/v1/revocations", serial=revoked, reason="stolen")
    assert answer.get_json()["revoked"] == ended
    of_hosts = krl.parse(world.http.get("/v1/krl").data, world.signer.public_key)
    assert list(of_hosts.serials) == ended
    for serial, key in made.items():
        assert renew(world, key, serial=serial).status_code == (401 if serial in ended else 201), serial
    seen = CaseFile.parse(world.read("ana", "/v1/cases/3").data).certificates()
    assert [each.serial for each in seen if each.revoked] == ended
    assert world.renew("ana", 3).status_code == 201, "the grant stays: the person's own key has the next one"
    world.check()


def test_what_a_revoked_key_had_asked_for_is_not_made_again(world: World, stolen: Key) -> None:
    fresh, id_ = keys.make(world.directory, name="fresh"), uuid7()
    assert renew(world, stolen, fresh, id=id_).status_code == 201
    assert renew(world, stolen, fresh, id=id_).status_code == 201
    world.act("eve", "revoke", "/v1/revocations", serial=4, reason="stolen")
    assert renew(world, stolen, fresh, id=id_).status_code in (401, 404)
    world.check()


def test_the_chain_ends_also_across_an_extension(world: World, stolen: Key) -> None:
    world.adopt(role_web_admin=SHORT.replace("[[allow]]", "max_extensions = 2\n[[allow]]", 1))
    made = keys.make(world.directory, name="before"), keys.make(world.directory, name="behind")
    assert renew(world, stolen, made[0]).get_json()["serial"] == 7
    extended = world.ask("ana").get_json()["serial"]
    behind = renew(world, made[0], made[1], serial=7).get_json()
    assert (behind["request"], behind["serial"]) == (extended - 1, extended + 2)
    answer = world.act("eve", "revoke", "/v1/revocations", serial=4, reason="stolen")
    assert answer.get_json()["revoked"] == [4, 7, extended + 2]
    assert renew(world, made[1], serial=extended + 2, request=extended - 1).status_code == 401
    world.check()


def test_a_verifier_finds_a_renewal_within_a_chain_that_was_ended(
    world: World, stolen: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_chain(world, stolen)
    world.act("eve", "revoke", "/v1/revocations", serial=4, reason="stolen")
    monkeypatch.setattr(Request, "renews", lambda *_: True)  # a CA that takes the key of 8 all the same
    assert renew(world, made[8], serial=8).status_code == 201
    with pytest.raises(LogDamaged, match="certificate 8, whose key signed it, was revoked"):
        check(world, world.entries())


# ------------------------------------------------------------------------------- long chains


def lengthen(world: World, key: Key, serial: int, times: int) -> int:
    """Renews so many times over the same key, each time by the certificate before, `serial` at first; the serial of the last."""
    for _ in range(times):
        answer = renew(world, key, key, serial=serial)
        assert answer.status_code == 201, answer.text
        serial = answer.get_json()["serial"]
    return serial


def test_a_long_chain_ends_at_the_persons_own_key_once_a_serial_of_theirs_was_revoked(world: World, stolen: Key) -> None:
    other = world.ask("ana", role="dev").get_json()["serial"]
    longest = lengthen(world, stolen, 4, LONGEST_CHAIN - 1)  # so many certificates, with the first
    longer = lengthen(world, stolen, longest, 1)
    lengthen(world, stolen, longer, 1)  # while none was revoked, none is looked up
    assert world.act("eve", "revoke", "/v1/revocations", serial=other, reason="lost").get_json()["revoked"] == [other]
    lengthen(world, stolen, longest, 1)
    size = world.store.size()
    answer = renew(world, stolen, stolen, serial=longer)
    assert (answer.status_code, code(answer), world.store.size()) == (401, "unknown-signer", size)
    again = world.renew("ana", 3, stolen).get_json()["serial"]
    lengthen(world, stolen, again, 1)  # the person's own key began another chain
    world.check()


def test_the_revocation_list_has_all_of_a_long_chain(world: World, stolen: Key) -> None:
    last = lengthen(world, stolen, 4, LONGEST_CHAIN + 5)
    answer = world.act("eve", "revoke", "/v1/revocations", serial=4, reason="stolen")
    assert answer.get_json()["revoked"] == list(range(4, last + 1, 2))
    assert code(renew(world, stolen, serial=last)) == "unknown-signer"
    assert all(each.revoked for each in CaseFile.parse(world.read("ana", "/v1/cases/3").data).certificates())
    world.check()


@pytest.mark.parametrize("revoked", [1, 10**6])
def test_no_more_of_a_chain_is_looked_at_than_the_longest_has(world: World, stolen: Key, revoked: int) -> None:
    del stolen
    asked = fold([entry for entry in world.entries() if isinstance(entry, RequestEntry)], int(world.now))
    asked = asked._replace(revoked_serials=frozenset({revoked}))
    looked_at: list[int] = []

    def before(serial: int) -> int | None:
        looked_at.append(serial)
        return serial - 1 if serial else None

    assert asked.renews(LONGEST_CHAIN - 1, before) == (revoked > LONGEST_CHAIN)
    looked_at.clear()
    assert not asked.renews(10**5, before)
    assert len(looked_at) == LONGEST_CHAIN


def test_the_revocation_list_is_looked_up_again_for_what_ends_something_only(
    world: World, stolen: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open to everybody, and a person may have thousands of certificates."""
    looked_up: list[Filter] = []
    select = world.store.select

    def selected(wanted: Filter, most: int) -> list[bytes]:
        looked_up.append(wanted)
        return select(wanted, most)

    monkeypatch.setattr(world.store, "select", selected)

    def listed() -> list[int]:
        return list(krl.parse(world.http.get("/v1/krl").data, world.signer.public_key).serials)

    assert listed() == []
    world.now += 30
    lengthen(world, stolen, 4, 1)
    world.act("eve", "revoke", "/v1/revocations", serial=4, reason="stolen")
    assert listed() == [4, 6]
    looked_up.clear()
    for _ in range(3):
        world.ask("bo", role="dev")
        read = krl.parse(world.http.get("/v1/krl").data, world.signer.public_key)
        assert (read.version, read.serials) == (world.store.size(), (4, 6))
    assert looked_up == []
    theirs = world.store.size() - 1
    world.give_back("bo", "drop", theirs - 1)
    assert set(listed()) > {4, 6}, "the next end is there at once"
    world.now += 10 * MINUTE - 1
    assert {4, 6} & set(listed()) == {6}
    world.now += 1
    world.ask("bo", role="dev")
    assert 6 not in listed(), "also within the same minute, for a longer log"


def test_policy_decides_each_of_them_again(world: World, stolen: Key) -> None:
    world.adopt(role_web_admin=SHORT.replace('groups = ["sre"]', 'groups = ["leads"]'))
    answer = renew(world, stolen)
    assert (answer.status_code, code(answer)) == (403, "denied")
    refusal = world.entries()[-1]
    assert isinstance(refusal, RefuseEntry)
    assert (refusal.actor, refusal.signed.key) == ("ana", stolen.public_key)
    world.check()


def test_where_a_security_key_is_wanted_the_persons_own_is_asked_for_and_no_refusal_recorded(world: World, stolen: Key) -> None:
    world.adopt(role_web_admin=SHORT + "hardware_key = true\n")
    size = world.store.size()
    answer = renew(world, stolen)
    assert (answer.status_code, code(answer)) == (401, "not-touched")
    assert world.store.size() == size
    world.adopt(role_web_admin=SHORT + '[[deny]]\nhardware_key = false\nmessage = "Touch it"\n')
    assert code(renew(world, stolen)) == "not-touched"


def test_the_key_renews_its_own_grant_only(world: World, stolen: Key) -> None:
    """Neither another of ana's, nor somebody else's, nor by the serial of a certificate that it is not the key of."""
    other = world.ask("ana", role="dev", reason="").get_json()
    theirs = world.ask("bo", role="dev", reason="").get_json()
    for request, serial in (
        (other["request"], 4), (theirs["request"], theirs["serial"]), (3, other["serial"]), (3, 3), (3, 10**9),
        (other["request"], other["serial"]), (10**9, 10**9 + 1),
    ):  # fmt: skip
        answer = renew(world, stolen, request=request, serial=serial)
        assert answer.status_code in {400, 401}, (request, serial)
        assert code(answer) in {"unknown-signer", "malformed"}
    assert code(renew(world, world.people["ana"])) == "unknown-signer", "who names a certificate signs with its key"


def test_a_renewal_from_elsewhere_is_refused_where_the_address_is_pinned(world: World, stolen: Key) -> None:
    world.adopt(role_web_admin=SHORT.replace("[[allow]]", "pin_source_address = true\n[[allow]]"))
    key = keys.make(world.directory, name="pinned")
    world.now += 31 * MINUTE
    issued = world.ask("ana", key).get_json()
    world.http.environ_base["REMOTE_ADDR"] = "198.51.100.7"
    answer = renew(world, key, request=issued["request"], serial=issued["serial"])
    assert (answer.status_code, code(answer)) == (403, "refused")


def test_the_same_statement_again_is_the_same_certificate(world: World, stolen: Key) -> None:
    fresh, statement = keys.make(world.directory, name="fresh"), uuid7()
    first, again = (renew(world, stolen, fresh, id=statement).get_json() for _ in range(2))
    assert first == again
    world.check()


# ------------------------------------------------------------------------------- verified


@pytest.mark.parametrize(
    ("at", "change", "because"),
    [
        (-2, {"actor": "bo"}, "signed by the key of another person's certificate"),
        (-2, {"hardware_key": True}, "no touch of a security key is proven"),
        (-2, "another key", "not signed by the key of certificate 4"),
        (4, "over", "certificate 4, whose key signed it, was over"),
        (5, "revoked", "certificate 4, whose key signed it, was revoked"),
    ],
)
def test_a_verifier_finds_a_renewal_by_a_key_that_may_not(
    world: World, stolen: Key, at: int, change: dict[str, Any] | str, because: str
) -> None:
    world.act("eve", "unlock", "/v1/locks", person="bo", reason="found")  # entry 5: to be made a revocation
    world.now += 5 * MINUTE
    renew(world, stolen)
    entries: list[AnyEntry] = world.entries()
    check(world, entries)
    entries[at] = changed(world, entries[at], change)
    with pytest.raises(LogDamaged, match=because):
        check(world, entries)


def changed(world: World, there: AnyEntry, change: dict[str, Any] | str) -> AnyEntry:
    """The entry as a CA that lies would have it."""
    match change, there:
        case "another key", RenewEntry():
            other = keys.sshsig(world.people["ana"], there.statement.encode())
            return dataclasses.replace(there, signature=b64encode(other).decode())
        case "over", IssueEntry():
            return with_certificate(there, valid_before=int(START) + MINUTE)
        case "revoked", UnlockEntry():
            said = json.loads(there.statement) | {"action": "revoke", "serial": 4}
            text = canonical.encode({name: value for name, value in said.items() if name != "person"})
            signature = b64encode(keys.sshsig(world.people["eve"], text)).decode()
            members = {field.name: getattr(there, field.name) for field in dataclasses.fields(there)}
            return RevokeEntry(**members | {"statement": text.decode(), "signature": signature, "person": "ana"}, serial=4)
        case dict(), _:
            return dataclasses.replace(there, **change)
        case _:
            raise AssertionError(change)


def with_certificate(issue: IssueEntry, **fields: Any) -> IssueEntry:
    tbs = dataclasses.replace(issue.certificate, **fields).to_be_signed
    return dataclasses.replace(issue, tbs=b64encode(tbs).decode())
