"""What a verifier checks of the lifecycle: each rule by a log that breaks this one alone, though the CA could have signed it."""

import dataclasses
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from ca import canonical, merkle, verify
from ca.checkpoint import Checkpoint
from ca.entry import AnyEntry, ApproveEntry, IssueEntry, RenewEntry, RequestEntry, SaidEntry
from ca.errors import LogDamaged
from tests import keys
from tests.test_lifecycle import ask, lock, revoke
from tests.world import World, uuid7

Entries = list[AnyEntry]
Change = Callable[[World, Entries], None]
# The log of `lived`, by index; genesis and policy are 0 and 1.
ASKED, YES, RENEWED, ISSUED, MORE, NO, GIVEN_BACK, BACK, ENDED, LOCKED, OPENED = range(2, 13)


@pytest.fixture
def lived(world: World) -> World:
    """Bo asks, Cy approves, a certificate; an extension that Di denies; the grant dropped; another request revoked, Bo locked."""
    request = ask(world)
    world.answer("cy", "approve", request, duration=900)
    world.renew("bo", request)
    more = ask(world)
    world.answer("di", "deny", more)
    world.give_back("bo", "drop", request)
    back = ask(world)
    assert back == BACK
    revoke(world, request=back)
    lock(world, "bo")
    lock(world, "bo", "unlock")
    return world


def check(world: World, entries: Entries) -> None:
    """Verifies a log of exactly these entries."""
    encoded = [each.encode() for each in entries]
    frontier, leaves = merkle.Frontier(), list(map(merkle.leaf_hash, encoded))
    for leaf in leaves:
        frontier.append(leaf)
    checkpoint = Checkpoint(world.ca.trust.origin, frontier.size, frontier.root())
    verify.verify(world.ca.trust, checkpoint, leaves, enumerate(encoded))


def changed(at: int, **members: Any) -> Change:
    """Replaces members of one entry."""

    def change(_world: World, entries: Entries) -> None:
        entries[at] = dataclasses.replace(entries[at], **members)

    return change


def said(at: int, by: str, /, **members: Any) -> Change:
    """Another statement under an entry, signed by this person's key; None removes a member."""

    def change(world: World, entries: Entries) -> None:
        there = entries[at]
        assert isinstance(there, SaidEntry)
        words = json.loads(there.statement) | members
        text = canonical.encode({name: value for name, value in words.items() if value is not None})
        signature = b64encode(keys.sshsig(world.people[by], text)).decode()
        proof: dict[str, Any] = {"possession": signature} if isinstance(there, RenewEntry | RequestEntry) else {}
        entries[at] = dataclasses.replace(there, statement=text.decode(), signature=signature, **proof)

    return change


def both(*changes: Change) -> Change:
    """One after the other."""

    def change(world: World, entries: Entries) -> None:
        for each in changes:
            each(world, entries)

    return change


def certified(**fields: Any) -> Change:
    """Replaces fields of the certificate."""

    def change(_world: World, entries: Entries) -> None:
        issue = entries[ISSUED]
        assert isinstance(issue, IssueEntry)
        tbs = dataclasses.replace(issue.certificate, **fields).to_be_signed
        entries[ISSUED] = dataclasses.replace(issue, tbs=b64encode(tbs).decode())

    return change


def granted(**members: Any) -> Change:
    """Replaces members of the privilege that the approval grants."""

    def change(_world: World, entries: Entries) -> None:
        yes = entries[YES]
        assert isinstance(yes, ApproveEntry)
        assert yes.privilege is not None
        entries[YES] = dataclasses.replace(yes, privilege=dataclasses.replace(yes.privilege, **members))

    return change


def cut(at: int) -> Change:
    """Only what comes before."""

    def change(_world: World, entries: Entries) -> None:
        del entries[at:]

    return change


def appended(at: int, by: str) -> Change:
    """An entry once more at the end, with a statement of its own."""

    def change(world: World, entries: Entries) -> None:
        entries.append(dataclasses.replace(entries[at], index=len(entries), time=entries[-1].time))
        said(len(entries) - 1, by, id=uuid7())(world, entries)

    return change


def late(at: int, milliseconds: int) -> Change:
    """An entry and all behind it come so much later, with statements of that time."""

    def change(world: World, entries: Entries) -> None:
        for index in range(at, len(entries)):
            there = entries[index]
            entries[index] = dataclasses.replace(there, time=there.time + milliseconds)
            assert isinstance(there, SaidEntry)
            said(index, there.actor, time=(there.time + milliseconds) // 1000)(world, entries)

    return change


def test_what_the_ca_wrote_is_whole(lived: World) -> None:
    entries = lived.entries()
    expected = ["request", "approve", "renew", "issue", "request", "deny", "drop", "request", "revoke", "lock", "unlock"]
    assert [each.TAG[1] for each in entries[2:]] == expected
    check(lived, entries)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (changed(YES, request=ISSUED), "about another request"),
        (said(YES, "cy", request=MORE), "about another request"),
        (both(changed(YES, request=1), said(YES, "cy", request=1)), "is not a request"),
        (changed(YES, role="dev"), "names another role"),
        (said(YES, "cy", leaf="0" * 64), "about other words"),
        (said(YES, "cy", action="deny", duration=None), "says something else"),
        (both(changed(YES, actor="bo"), said(YES, "bo")), "by the person who asked"),
        (granted(duration=901), "for longer than"),
        (granted(principals=("root@web",)), "grants something else"),
        (granted(permit=("port-forwarding", "pty")), "grants something else"),
        (changed(YES, privilege=None), "not granted then: pending"),
        (both(cut(RENEWED), appended(YES, "cy")), "did not wait: granted"),
        (both(cut(RENEWED), late(YES, 900_000)), "did not wait: lapsed"),
        (both(cut(BACK), appended(YES, "di")), "did not wait: dropped"),
        (appended(NO, "di"), "did not wait: denied"),
        (both(changed(NO, actor="bo"), said(NO, "bo")), "by the person who asked"),
        (said(NO, "di", leaf="0" * 64), "about other words"),
        (changed(NO, request=ASKED), "about another request"),
        (both(changed(GIVEN_BACK, actor="ana"), said(GIVEN_BACK, "ana")), "not by the person who asked"),
        (said(GIVEN_BACK, "bo", action="withdraw"), "says something else"),
        (changed(MORE, actor="ana"), "what its person holds of the role"),
        (changed(MORE, request=None, extends=None, extension=None), "what its person holds of the role"),
        (changed(MORE, extension=2), "what its person holds of the role"),
        (changed(MORE, extends=YES), "what its person holds of the role"),
        (changed(BACK, request=ASKED, extends=ASKED, extension=1), "what its person holds of the role"),
        (changed(ASKED, policy=0), "as the policy in force"),
        (changed(YES, policy=ASKED), "as the policy in force"),
        (both(cut(OPENED), appended(BACK, "bo")), "bo is locked out"),
        (both(cut(OPENED), appended(LOCKED, "bo"), changed(OPENED, actor="bo")), "bo is locked out"),
        (changed(MORE, request=1), "what its person holds of the role"),
        (said(MORE, "bo", duration=600), "longer than was asked for"),
        (said(MORE, "bo", role="dev"), "does not ask for its role"),
        (changed(RENEWED, request=1), "is not a request"),
        (changed(RENEWED, actor="ana"), "not by the person who asked"),
        (changed(RENEWED, role="dev"), "names another role"),
        (changed(RENEWED, until=1_800_000_599), "longer than the rule that decided"),
        (cut(ISSUED), "granted a certificate, and this is not its issue"),
        (both(cut(ISSUED), appended(YES, "cy")), "granted a certificate, and this is not its issue"),
        (changed(ISSUED, request=1), "nobody asked for it"),
        (changed(ISSUED, request=MORE), "nobody asked for it"),
        (changed(ISSUED, actor="ana"), "another person or role"),
        (said(RENEWED, "bo", request=BACK), "is not a request"),
        (said(RENEWED, "bo", action="withdraw", key=None), "does not ask for a certificate"),
        (said(RENEWED, "bo", time=1_800_000_121), "not fresh"),
        (said(RENEWED, "bo", audience="other.example.com"), "was made for"),
        (certified(valid_before=1_800_000_901), "longer than the rule that decided"),
        (both(changed(RENEWED, until=1_800_000_901), certified(valid_before=1_800_000_901)), "outlives its grant"),
        (certified(principals=("root@web",)), "principals are not"),
        (certified(serial=9), "serial is 9"),
        (certified(key_id="bo/db-admin/6"), "key id is"),
        (said(ENDED, "eve", request=ASKED), "names another request"),
        (said(ENDED, "eve", request=None, person="bo"), "names another request"),
        (said(ENDED, "eve", action="lock", request=None, person="bo"), "says something else"),
        (changed(LOCKED, person="ana"), "names another person"),
        (said(LOCKED, "eve", person="ana"), "names another person"),
        (said(LOCKED, "eve", action="unlock"), "says something else"),
        (changed(OPENED, person="ana"), "names another person"),
    ],
)
def test_a_log_that_breaks_one_rule_is_refused(change: Change, because: str, lived: World) -> None:
    entries = lived.entries()
    change(lived, entries)
    with pytest.raises(LogDamaged, match=because):
        check(lived, entries)


@pytest.mark.parametrize("at", [YES, NO, GIVEN_BACK, ENDED, LOCKED, OPENED])
def test_every_act_is_signed_by_whoever_did_it_once_and_in_time(at: int, lived: World) -> None:
    entry, asked = lived.entries()[at], lived.entries()[ASKED]
    assert isinstance(entry, SaidEntry)
    assert isinstance(asked, RequestEntry)
    by = {YES: "cy", NO: "di", GIVEN_BACK: "bo"}.get(at, "eve")
    for change, because in (
        (changed(at, signature=asked.signature), "not one by"),
        (changed(at, statement=entry.statement.replace("1800000000", "1800000001")), "not one by"),
        (said(at, by, time=1_800_000_121), "not fresh"),
        (said(at, by, audience="other.example.com"), "was made for"),
        (said(at, by, id=json.loads(asked.statement)["id"]), "stands in an earlier entry"),
        (changed(at, hardware_key=True), "no touch"),
    ):
        entries = lived.entries()
        change(lived, entries)
        with pytest.raises(LogDamaged, match=because):
            check(lived, entries)


@pytest.mark.parametrize("end", ["drop", "revoke", "revoke the person", "lock"])
def test_no_certificate_comes_after_the_end(world: World, end: str) -> None:
    request = ask(world)
    world.answer("cy", "approve", request)
    world.renew("bo", request)
    match end:
        case "drop":
            world.give_back("bo", "drop", request)
        case "revoke":
            revoke(world, request=request)
        case "revoke the person":
            revoke(world, person="bo")
        case _:
            lock(world, "bo")
    *entries, renewal, issue, ended = world.entries()
    first = renewal.index
    entries += [dataclasses.replace(each, index=first + at) for at, each in enumerate((ended, renewal, issue))]
    with pytest.raises(LogDamaged, match="is locked out" if end == "lock" else r"was not granted then: (dropped|revoked)"):
        check(world, entries)


def test_an_extension_does_not_outlive_the_end_of_its_grant(world: World) -> None:
    request = ask(world)
    world.answer("cy", "approve", request)
    more = ask(world)
    world.answer("cy", "approve", more)
    world.give_back("bo", "drop", request)
    entries = world.entries()
    yes, drop = entries[-2:]
    entries[-2:] = [dataclasses.replace(drop, index=yes.index), dataclasses.replace(yes, index=drop.index)]
    with pytest.raises(LogDamaged, match="did not wait: dropped"):
        check(world, entries)
