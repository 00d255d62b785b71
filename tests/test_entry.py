"""Entries: what is logged is read again as it was, nothing else is an entry, and none is too large to be one."""

import dataclasses
import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca import canonical, entry, spelled
from ca.entry import (
    KINDS,
    LARGEST,
    AnyEntry,
    ApproveEntry,
    BreakGlassEntry,
    DenyEntry,
    DropEntry,
    Fork,
    GenesisEntry,
    IssueEntry,
    KitEntry,
    LockEntry,
    LoginEntry,
    PolicyEntry,
    ReadEntry,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SealEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import Malformed
from ca.findings import Duty, Finding, Privilege, Step, Way
from ca.journal import Certified
from ca.sshd_lines import Login
from tests import emergencies
from tests.formats_example import FixedKey
from tests.journals import Pen, facts
from tests.world import World

IN_C = spelled.in_c_alone(KINDS)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.integers(0, 2**63 - 1)
FINDINGS = st.lists(st.builds(Finding, TEXT, TEXT, TEXT, st.none() | st.booleans()), max_size=2).map(tuple)
WAYS = st.lists(st.builds(Way, TEXT, FINDINGS, st.none() | TEXT), max_size=2).map(tuple)
PRIVILEGES = st.builds(
    Privilege,
    principals=st.lists(TEXT, max_size=2).map(tuple),
    duration=NUMBER,
    force_command=st.none() | TEXT,
    source_address=st.none() | TEXT,
    permit=st.lists(TEXT, max_size=2).map(tuple),
)
STEPS = st.lists(st.builds(Step, TEXT, NUMBER, st.none() | NUMBER, st.none() | TEXT), max_size=2).map(tuple)
KNOWN = st.builds(Duty, schedule=TEXT, source=TEXT, age=NUMBER, level=NUMBER, until=st.none() | NUMBER)
FREE = st.builds(Duty, schedule=TEXT, source=TEXT, age=NUMBER)
UNKNOWN = st.builds(Duty, schedule=TEXT, unknown=TEXT)
DUTIES = st.lists(KNOWN | FREE | UNKNOWN, min_size=1, max_size=3, unique_by=lambda duty: duty.schedule).map(
    lambda duties: tuple(sorted(duties, key=lambda duty: duty.schedule))
)
HEAD = {"index": NUMBER, "time": NUMBER, "actor": TEXT}
SAID = {
    **HEAD,
    "statement": TEXT,
    "signature": TEXT,
    "address": st.none() | TEXT,
    "hardware_key": st.booleans(),
    "policy": NUMBER,
}
DECIDED = {**SAID, "findings": FINDINGS, "ways": WAYS, "on_call": st.none() | DUTIES}
ABOUT = {"role": TEXT, "request": NUMBER}
MAYBE_NUMBER, MAYBE_TEXT = st.none() | NUMBER, st.none() | TEXT
EMERGENCY = FixedKey(9)
KIT = facts(EMERGENCY)
SEALED = emergencies.seal(EMERGENCY)
PEN = Pen(EMERGENCY, KIT)
LINES = [PEN.refused(), PEN.begin(), PEN.use(FixedKey(3)), PEN.close(1)]
ENTRIES = st.one_of(
    st.builds(
        GenesisEntry,
        **HEAD,
        origin=TEXT,
        ca_key=TEXT,
        log_key=TEXT,
        follows=st.none() | st.builds(Fork, log_key=TEXT, kept=TEXT, lost=MAYBE_TEXT),
    ),
    st.builds(PolicyEntry, **HEAD, files=st.dictionaries(TEXT, TEXT, max_size=3)),
    st.builds(
        RequestEntry,
        **DECIDED,
        role=TEXT,
        possession=TEXT,
        privilege=PRIVILEGES,
        steps=st.none() | STEPS,
        expires=MAYBE_NUMBER,
        request=MAYBE_NUMBER,
    ),
    st.builds(RefuseEntry, **DECIDED, role=MAYBE_TEXT, possession=MAYBE_TEXT, request=MAYBE_NUMBER, code=TEXT, message=TEXT),
    st.builds(RenewEntry, **DECIDED, **ABOUT, possession=TEXT, until=NUMBER),
    st.builds(ApproveEntry, **DECIDED, **ABOUT, privilege=st.none() | PRIVILEGES),
    *(st.builds(kind, **SAID, **ABOUT) for kind in (DenyEntry, WithdrawEntry, DropEntry)),
    st.builds(RevokeEntry, **SAID, person=TEXT, request=MAYBE_NUMBER, serial=MAYBE_NUMBER),
    *(st.builds(kind, **SAID, person=TEXT) for kind in (LockEntry, UnlockEntry)),
    st.builds(IssueEntry, **HEAD, **ABOUT, tbs=TEXT),
    st.builds(ReadEntry, **SAID, request=MAYBE_NUMBER),
    st.builds(SealEntry, **HEAD, seal=st.just(SEALED)),
    st.builds(SealEntry, **HEAD, seal=st.just(SEALED), replaces=NUMBER, overlap=NUMBER),
    st.builds(KitEntry, **HEAD, seal=NUMBER, facts=st.just(KIT)),
    st.sampled_from(LINES).flatmap(
        lambda line: st.builds(
            BreakGlassEntry,
            **HEAD,
            kit=NUMBER,
            line=st.just(line.encode().decode()),
            person=st.just(line.person if isinstance(line, Certified) else None),
        )
    ),
    st.builds(
        LoginEntry,
        **HEAD,
        login=st.builds(
            Login,
            user=TEXT,
            address=TEXT,
            port=NUMBER,
            key=TEXT,
            key_id=TEXT,
            serial=NUMBER,
            ca=TEXT,
            time=MAYBE_NUMBER,
            host=MAYBE_TEXT,
        ),
        request=MAYBE_NUMBER,
        person=MAYBE_TEXT,
    ),
    st.builds(ReviewEntry, **SAID, request=NUMBER, person=TEXT, verdict=TEXT),
)


@given(ENTRIES)
def test_an_entry_of_any_kind_is_read_as_it_was_written(written: AnyEntry) -> None:
    encoded = written.encode()
    assert entry.decode(encoded) == IN_C(encoded) == canonical.decode(encoded, KINDS, "it") == written
    assert json.loads(encoded)["kind"] == written.TAG[1]


def test_every_kind_is_tried_and_named_once() -> None:
    assert len({kind.TAG for kind in KINDS}) == len(KINDS) == 19


@given(ENTRIES, st.data())
def test_an_entry_changed_anywhere_is_malformed_or_another(written: AnyEntry, data: st.DataObject) -> None:
    encoded = written.encode()
    at, octet = data.draw(st.integers(0, len(encoded) - 1)), data.draw(st.integers(0, 255))
    changed = encoded[:at] + bytes([octet]) + encoded[at + 1 :]
    with suppress(Malformed):
        assert (entry.decode(changed) == written) == (changed == encoded)
    for cut in (encoded[:at], encoded[at + 1 :], encoded + encoded[at : at + 1]):
        with pytest.raises(Malformed):
            entry.decode(cut)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.TAG[1])
def test_the_members_of_a_kind_are_those_that_are_documented_and_no_more(kind: type[AnyEntry]) -> None:
    members = {field.name: 1 for field in dataclasses.fields(kind)} | {"kind": kind.TAG[1]}
    optional = {field.name for field in dataclasses.fields(kind) if field.default is None}
    with pytest.raises(Malformed, match="unknown member 'more'"):
        entry.decode(canonical.encode(members | {"more": 1}))
    for name in members.keys() - {"kind", *optional}:
        with pytest.raises(Malformed, match="lacks the member"):
            entry.decode(canonical.encode({other: value for other, value in members.items() if other != name}))


@pytest.mark.parametrize(
    "duty",
    [
        '"schedule":"web"',
        '"schedule":"web","source":"PagerDuty"',
        '"age":3,"schedule":"web"',
        '"age":3,"schedule":"web","source":"PagerDuty","unknown":"it did not answer"',
        '"level":1,"schedule":"web","unknown":"it did not answer"',
        '"age":3,"schedule":"web","source":"PagerDuty","until":5',
    ],
)
def test_who_is_on_call_is_known_or_unknown_and_never_half(duty: str) -> None:
    for whole in (Duty(schedule="web", unknown="it did not answer"), Duty(schedule="web", source="PagerDuty", age=3)):
        assert decided_by(canonical.encode(whole).decode()).on_call == (whole,)
    with pytest.raises(Malformed, match="'web' said of who is on call is neither known nor unknown"):
        decided_by(f"{{{duty}}}")


def test_each_schedule_stands_once_in_a_decision_and_in_order() -> None:
    db, web = (f'{{"schedule":"{name}","unknown":"it did not answer"}}' for name in ("db", "web"))
    assert [duty.schedule for duty in decided_by(db, web).on_call or ()] == ["db", "web"]
    for duties in ((web, db), (db, db), ()):
        with pytest.raises(Malformed, match="does not name each schedule once, in order"):
            decided_by(*duties)


def decided_by(*duties: str) -> RefuseEntry:
    """A refusal with these duties, read."""
    said: dict[str, Any] = {"statement": "", "signature": "", "hardware_key": False, "policy": 1}
    refusal = RefuseEntry(index=2, time=0, actor="ana", **said, findings=(), ways=(), code="denied", message="no")
    text = refusal.encode().decode().replace('"policy"', f'"on_call":[{",".join(duties)}],"policy"')
    found = entry.decode(text.encode())
    assert isinstance(found, RefuseEntry)
    return found


def test_an_entry_is_not_larger_than_its_length_of_two_bytes_can_say() -> None:
    def sized(length: int) -> PolicyEntry:
        return PolicyEntry(index=1, time=0, actor="x" * length, files={})

    frame = len(sized(0).encode())
    assert len(sized(LARGEST - frame).encode()) == LARGEST == 2**16 - 1
    with pytest.raises(Malformed, match="entry 1 has 65536 bytes, more than 65535"):
        sized(LARGEST - frame + 1).encode()
    with pytest.raises(Malformed, match="more than 65535"):
        entry.decode(bytes(LARGEST + 1))


def test_the_largest_request_that_a_person_can_make_is_an_entry(world: World) -> None:
    """Quotes are escaped twice, in the statement and in the entry; two RSA keys of 8,192 bits would not fit a statement twice."""
    assert world.ask("ana", reason="INC-1" + '"' * 495).status_code == 201
    assert world.ask("ana", reason="INC-1" + "\N{GRINNING FACE}" * 495).status_code == 201
    assert world.ask("ana", reason="\\" * 500).status_code == 403
    world.check()


def test_a_log_of_real_entries_is_read_as_it_was_written(world: World) -> None:
    assert world.ask("ana").status_code == 201
    assert world.ask("bo").status_code == 403
    assert world.ask("bo", role="db-admin").status_code == 202
    assert world.answer("cy", "approve", 5).status_code == 200
    assert world.renew("bo", 5).status_code == 201
    assert world.give_back("bo", "drop", 5).status_code == 200
    assert world.ask("bo", role="db-admin").status_code == 202
    assert world.answer("cy", "deny", 10).status_code == 200
    assert world.ask("bo", role="db-admin").status_code == 202
    assert world.give_back("bo", "withdraw", 12).status_code == 200
    assert world.act("eve", "revoke", "/v1/revocations", person="ana", reason="left").status_code == 200
    for action in ("lock", "unlock"):
        assert world.act("eve", action, "/v1/locks", person="ana", reason="left").status_code == 200
    assert world.read("eve", "/v1/log/entries").status_code == 200
    emergency = emergencies.sealed(world)
    used = emergencies.hand_in(world, emergency)
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    emergencies.seen(world, emergency, used)
    assert set(world.kinds()) == {kind.TAG[1] for kind in KINDS}
    for index, source in enumerate(world.store.entries(0, world.store.size())):
        read = entry.decode(source)
        assert (read.index, read.encode()) == (index, source)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_an_entry_holds_in_base64_is_read_or_malformed(lasting_world: World, data: st.DataObject) -> None:
    issued = IssueEntry(index=3, time=0, actor="ana", role="dev", request=2, tbs=b64encode(data.draw(st.binary())).decode())
    with pytest.raises(Malformed):
        _ = issued.certificate
    if lasting_world.store.size() < 4:
        assert lasting_world.ask("ana").status_code == 201
    asked = next(one for one in lasting_world.entries() if isinstance(one, RequestEntry))
    hostile = dataclasses.replace(asked, signature=data.draw(TEXT), possession=data.draw(TEXT))
    with pytest.raises(Malformed):
        _ = hostile.signed
    with pytest.raises(Malformed):
        _ = hostile.possession_signed


def test_an_issue_is_under_two_kib_and_says_nothing_personal(world: World) -> None:
    """It travels inside the certificate, to hosts and their logs."""
    assert world.ask("ana", reason="INC-1 a name and a number").status_code == 201
    assert world.renew("ana", 2).status_code == 201
    at_once, renewed = (each for each in world.entries() if isinstance(each, IssueEntry))
    assert json.loads(at_once.encode()).keys() == json.loads(renewed.encode()).keys()
    for encoded in (at_once.encode(), renewed.encode()):
        assert len(encoded) < 2048
        assert b"a name" not in encoded
        assert b"127.0.0.1" not in encoded
        assert b"sre" not in encoded
