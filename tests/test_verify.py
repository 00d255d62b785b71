"""What a verifier checks (FORMATS.md): each rule by a log that breaks this one alone, signed by the log's own key."""

import dataclasses
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from ca import entry, merkle, verify
from ca.certificate import Certificate
from ca.checkpoint import Checkpoint
from ca.entry import AnyEntry, IssueEntry, RefuseEntry, RequestEntry
from ca.errors import LogDamaged
from ca.trust import Trust
from tests.formats_example import ADDRESS, ANA, CA_KEY, FRESH_KEY, LOG_KEY, NOW, ORIGIN, STATEMENT, make
from tests.world import World

FILES = make()
TRUST = Trust.parse(FILES["trust.json"])
Entries = list[AnyEntry]


def sound() -> Entries:
    """genesis, policy, request, issue."""
    return [entry.decode(FILES[f"entry-{index}.json"]) for index in range(4)]


def check(entries: Entries, remembered: Checkpoint | None = None) -> verify.Report:
    """Verifies a log of exactly these entries."""
    encoded = [each.encode() for each in entries]
    leaves = list(map(merkle.leaf_hash, encoded))
    return verify.verify(TRUST, checkpoint_of(leaves), leaves, list(enumerate(encoded)), remembered)


def checkpoint_of(leaves: list[bytes]) -> Checkpoint:
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return Checkpoint(ORIGIN, frontier.size, frontier.root())


def changed(at: int, **members: Any) -> Callable[[Entries], None]:
    """Replaces members of one entry."""

    def change(entries: Entries) -> None:
        entries[at] = dataclasses.replace(entries[at], **members)

    return change


def certified(**fields: Any) -> Callable[[Entries], None]:
    """Replaces fields of the certificate to be signed."""

    def change(entries: Entries) -> None:
        issue = entries[3]
        assert isinstance(issue, IssueEntry)
        certificate: Certificate = dataclasses.replace(issue.certificate, **fields)
        entries[3] = dataclasses.replace(issue, tbs=b64encode(certificate.to_be_signed).decode())

    return change


def granted(**members: Any) -> Callable[[Entries], None]:
    """Replaces members of the privilege, and the certificate's fields of the same meaning."""

    def change(entries: Entries) -> None:
        request = entries[2]
        assert isinstance(request, RequestEntry)
        entries[2] = dataclasses.replace(request, privilege=dataclasses.replace(request.privilege, **members))

    return change


def said(old: bytes, new: bytes) -> Callable[[Entries], None]:
    """Another statement, signed by both keys."""
    assert STATEMENT.count(old) == 1
    text = STATEMENT.replace(old, new)
    signature, possession = (b64encode(key.sshsig(text).blob).decode() for key in (ANA, FRESH_KEY))
    return changed(2, statement=text.decode(), signature=signature, possession=possession)


def repeated(entries: Entries) -> None:
    entries.append(dataclasses.replace(entries[2], index=4))


def sig(key: Any, text: bytes = STATEMENT) -> str:
    return b64encode(key.sshsig(text).blob).decode()


def test_a_sound_log_is_whole() -> None:
    report = check(sound())
    assert (report.entries, report.signatures, report.certificates) == (4, 2, 1)
    assert check(sound(), remembered=checkpoint_of([merkle.leaf_hash(each.encode()) for each in sound()[:3]])) == report


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (changed(3, index=7), "calls itself 7"),
        (changed(2, time=NOW * 1000), "time is before"),
        (lambda entries: entries.pop(0), "calls itself"),
        (changed(0, index=0, origin="ca.example.com/other"), "begins the log"),
        (changed(0, log_key=str(TRUST.verifier).replace("+", "+0", 1)), "log key is not"),
        (lambda entries: entries.append(dataclasses.replace(entries[0], index=4)), "and no other, is the genesis"),
        (said(b'"request"', b'"requests"'), "no known kind"),
        (said(b"ca.example.com/jit-ssh", b"ca.example.com/other"), "was made for"),
        (said(b"%d" % NOW, b"%d" % (NOW - 121)), "not fresh"),
        (said(b"%d" % NOW, b"%d" % (NOW + 121)), "not fresh"),
        (said(b"web-logs", b"web-admin"), "does not ask for its role"),
        (said(b"web-logs", b'web-logs","x":"'), "unknown member"),
        (repeated, "stands in an earlier entry"),
        (changed(2, signature=sig(ANA, STATEMENT + b" ")), "not one by"),
        (changed(2, possession=sig(FRESH_KEY, STATEMENT + b" ")), "not one by"),
        (changed(2, possession=sig(ANA)), "by another key"),
        (changed(2, hardware_key=True), "no touch"),
        (changed(3, request=1), "nobody asked for it"),
        (changed(3, request=3), "nobody asked for it"),
        (changed(3, actor="bo"), "another person or role"),
        (changed(3, role="web-admin"), "another person or role"),
        (certified(key=ANA.public_key), "another key"),
        (certified(ca_key=LOG_KEY.public_key), "does not trust"),
        (certified(serial=2), "serial is 2"),
        (certified(key_id="ana/web-logs/3"), "key id is"),
        (certified(principals=("root@web-prod",)), "principals are not"),
        (certified(principals=("logs@web-prod", "root@web-prod")), "principals are not"),
        (certified(force_command=None), "forced command"),
        (certified(source_address=None), "source address"),
        (certified(source_address="0.0.0.0/0"), "source address"),
        (certified(permit=("port-forwarding", "pty")), "permits something else"),
        (certified(valid_after=NOW), "from its issue on"),
        (certified(valid_before=NOW + 901), "outlives its grant"),
        (lambda entries: entries.pop(), "granted a certificate, and this is not its issue"),
        (granted(duration=901), "longer than was asked"),
        (granted(principals=("root@web-prod",)), "principals are not"),
    ],
)
def test_a_log_that_breaks_one_rule_is_refused(change: Callable[[Entries], None], because: str) -> None:
    entries = sound()
    change(entries)
    with pytest.raises(LogDamaged, match=because):
        check(entries)


@pytest.mark.parametrize("shift", [-120, 120])
def test_a_statement_at_the_edge_of_freshness_is_whole(shift: int) -> None:
    entries = sound()
    said(b"%d" % NOW, b"%d" % (NOW + shift))(entries)
    assert check(entries).certificates == 1


def test_a_grant_without_a_duration_asked_for_lasts_as_the_role_says() -> None:
    entries = sound()
    said(b'"duration":900,', b"")(entries)
    assert check(entries).certificates == 1


@pytest.mark.parametrize("dropped", [{0, 1}, {2}, {3}, {0, 1, 2}, {1}])
def test_a_part_of_the_log_is_checked_as_far_as_it_is_shown(dropped: set[int]) -> None:
    encoded = [each.encode() for each in sound()]
    leaves = list(map(merkle.leaf_hash, encoded))
    shown = [(index, source) for index, source in enumerate(encoded) if index not in dropped]
    if (2 in dropped) != (3 in dropped):  # a certificate without its request proves nothing, nor the other way around
        with pytest.raises(LogDamaged):
            verify.verify(TRUST, checkpoint_of(leaves), leaves, shown)
    else:
        assert verify.verify(TRUST, checkpoint_of(leaves), leaves, shown).entries == len(shown)


def test_what_the_checkpoint_does_not_cover_is_refused() -> None:
    encoded = [each.encode() for each in sound()]
    leaves = list(map(merkle.leaf_hash, encoded))
    checkpoint, entries = checkpoint_of(leaves), list(enumerate(encoded))
    other = checkpoint_of([*leaves[:2], leaves[3]])
    for given, because in (
        ((checkpoint, leaves[:3], entries[:3]), "do not add up"),
        ((checkpoint, leaves, [*entries, (4, encoded[3])]), "is shown, but"),
        ((checkpoint, leaves, [*entries[:3], (3, encoded[2])]), "not the one in the log's tree"),
        ((checkpoint, leaves, entries, other), "rewritten"),
        ((checkpoint_of(leaves[:3]), leaves[:3], entries[:3], checkpoint), "old copy"),
    ):
        with pytest.raises(LogDamaged, match=because):
            verify.verify(TRUST, *given)


def test_what_an_ordinary_person_can_read_verifies_with_all_the_leaves(world: World) -> None:
    for person in ("ana", "bo", "ana", "bo"):
        world.ask(person)
    answer = world.read("bo", "/v1/log/entries?start=0").json
    assert answer
    shown = [(json.loads(source)["index"], source.encode()) for source in answer["entries"]]
    assert [index for index, _ in shown] == [0, 4, 7], "bo's two refusals and the genesis"
    checkpoint = world.check().checkpoint
    leaves = list(world.store.nodes(0))
    report = verify.verify(world.ca.trust, checkpoint, leaves, shown)
    assert (report.entries, report.signatures, report.certificates) == (3, 4, 0)
    shown[1] = (4, shown[1][1].replace(b"INC-12 disk full", b"INC-12 fisk dull"))
    with pytest.raises(LogDamaged, match="entry 4 is not the one in the log's tree"):
        verify.verify(world.ca.trust, checkpoint, leaves, shown)


def test_a_refusal_that_its_person_did_not_sign_is_refused(world: World) -> None:
    world.ask("bo")
    world.ask("ana")
    entries = world.entries()
    refusal, request = entries[2:4]
    assert isinstance(refusal, RefuseEntry)
    assert isinstance(request, RequestEntry)
    entries[2] = dataclasses.replace(refusal, signature=request.signature)
    encoded = [each.encode() for each in entries]
    leaves = list(map(merkle.leaf_hash, encoded))
    checkpoint = dataclasses.replace(checkpoint_of(leaves), origin=world.ca.trust.origin)
    with pytest.raises(LogDamaged, match=r"^entry 2: the signature is not one by"):
        verify.verify(world.ca.trust, checkpoint, leaves, enumerate(encoded))


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 1, 2, 3), (0, 2, 3, 1), (0, 1, 2, 3, 0)])
def test_entries_are_shown_in_order_and_once(order: tuple[int, ...]) -> None:
    encoded = [each.encode() for each in sound()]
    leaves = list(map(merkle.leaf_hash, encoded))
    with pytest.raises(LogDamaged, match=r"entry \d is shown, but the log has 4 entries"):
        verify.verify(TRUST, checkpoint_of(leaves), leaves, [(index, encoded[index]) for index in order])


@pytest.mark.parametrize("source", [b"", b"{}", b"\xff", b'{"kind":"genesis"}', bytes(70_000)])
def test_an_entry_that_is_none_is_refused_by_its_index(source: bytes) -> None:
    encoded = [each.encode() for each in sound()]
    encoded[1] = source
    leaves = list(map(merkle.leaf_hash, encoded))
    with pytest.raises(LogDamaged, match=r"^entry 1: the entry"):
        verify.verify(TRUST, checkpoint_of(leaves), leaves, list(enumerate(encoded)))


def test_the_words_of_the_example_are_those_of_its_keys() -> None:
    request = sound()[2]
    assert isinstance(request, RequestEntry)
    assert (request.signed.key, request.possession_signed.key) == (ANA.public_key, FRESH_KEY.public_key)
    assert (request.address, TRUST.public_keys) == (ADDRESS, (CA_KEY.public_key,))
