"""What a log says of emergency keys: whatever no honest CA writes is refused by everybody who reads it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca import entry
from ca.acts import Moment
from ca.emergency import Emergency
from ca.entry import OPERATOR, BreakGlassEntry, EmergencyEntry, KitEntry, LoginEntry, SealEntry
from ca.errors import JitSshError, LogDamaged
from ca.journal import FIRST_SERIAL, Open, Use
from server import emergency as uses
from server import handing_in
from server.aftermath import Findings
from tests import emergencies
from tests.emergencies import ANA, Sealed, hand_in, lines, sealed
from tests.formats_example import FixedKey
from tests.journals import Pen, facts
from tests.world import World

EMERGENCY, NEXT = FixedKey(9), FixedKey(10)


def append(world: World, *made: Callable[[int, int], EmergencyEntry]) -> None:
    """Entries that are written without being judged; each is made of its index and time."""
    world.ca.log.append(lambda tail: [each(tail.index + at, tail.time) for at, each in enumerate(made)])


def reading(world: World) -> Emergency:
    return uses.read(world.store)


def refused(world: World) -> str:
    """What the verifier and the CA's own reading say of the log, which is the same."""
    with pytest.raises(LogDamaged) as found:
        world.check()
    with pytest.raises(JitSshError) as own:
        reading(world)
    assert own.value.message in found.value.message
    return found.value.message


def test_an_emergency_and_its_review_verify(world: World) -> None:
    of = sealed(world)
    used = hand_in(world, of)
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    later = sealed(world, NEXT, replaces=of.seal_entry)
    hand_in(world, later)
    world.check()
    found = reading(world)
    assert found.seal is not None
    assert found.seal.index == later.seal_entry
    assert [each.index for each in found.uses.values()] == [used, used + 6]
    assert [each.index for each in found.unreviewed] == [used + 6]


def test_a_newer_seal_names_the_one_that_it_replaces(world: World) -> None:
    sealed(world)
    sealed(world, NEXT)
    assert "it replaces the seal None, and the newest is 2" in refused(world)


def test_no_key_is_sealed_twice(world: World) -> None:
    of = sealed(world)
    sealed(world, EMERGENCY, replaces=of.seal_entry)
    assert "its key was sealed before" in refused(world)


def test_the_cas_own_key_is_not_sealed(world: World) -> None:
    own = world.ca.trust.ca_keys[0]
    seal = replace(emergencies.seal(EMERGENCY), key=own)
    append(world, lambda index, time: SealEntry(index=index, time=time, actor=OPERATOR, seal=seal))
    with pytest.raises(LogDamaged, match="the key that it seals is the CA's own"):
        world.check()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"quorum": 3}, "it is not a kit for the seal"),
        ({"key": NEXT.public_key.line}, "it is not a kit for the seal"),
        ({"officers": ("cy", "di")}, "it is not a kit for the seal"),
        ({"shares_id": 5}, "it is not a kit for the seal"),
    ],
)
def test_a_kit_is_one_for_the_newest_seal(world: World, known: dict[str, Any], words: str) -> None:
    sealed(world, EMERGENCY, **known)
    assert words in refused(world)


def test_a_kit_of_another_log_or_an_older_seal_or_made_twice_is_refused(world: World) -> None:
    of = sealed(world)
    later = sealed(world, NEXT, replaces=of.seal_entry)

    def kit(seal: int, **known: Any) -> Callable[[int, int], KitEntry]:
        key = EMERGENCY if seal == of.seal_entry else NEXT
        return lambda index, time: KitEntry(index=index, time=time, actor=OPERATOR, seal=seal, facts=facts(key, **known))

    for wrong, words in (
        (kit(of.seal_entry, people=("ana",)), "entry 2 is not the newest seal"),
        (kit(later.seal_entry), "the same kit stands in an earlier entry"),
        (kit(1, people=("bo",)), "entry 1 is not the newest seal"),
    ):
        found = reading(world)
        with pytest.raises(JitSshError, match=words):
            found.take(wrong(6, 0))
    append(world, kit(later.seal_entry, origin="another.example.com"))
    with pytest.raises(LogDamaged, match=r"it is a kit of another\.example\.com"):
        world.check()


# ------------------------------------------------------------------ the lines


def _twice(pen: Pen) -> None:
    pen.lines.append(pen.lines[-1])


def _left_out(pen: Pen) -> None:
    del pen.lines[1]


def _changed(pen: Pen) -> None:
    used = pen.lines[2]
    assert isinstance(used, Use)
    pen.lines[2] = replace(used, serial=FIRST_SERIAL)


def _by_another(pen: Pen) -> None:
    forger = Pen(NEXT, pen.kit, lines=list(pen.lines), time=pen.time)
    forger.begin()
    pen.lines = forger.lines


def _after_the_end(pen: Pen) -> None:
    pen.use(ANA)


def _back_in_time(pen: Pen) -> None:
    pen.time -= 1000
    pen.begin()


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (_twice, "its line stands in entry 7"),
        (_left_out, "its line does not continue one of the same kit"),
        (_changed, "the signature"),
        (_by_another, "the signature is by"),
        (_after_the_end, "its session has not begun, or is over"),
        (_back_in_time, "its line is older than the one before it"),
    ],
)
def test_a_line_that_does_not_belong_there_is_refused(world: World, does: Callable[[Pen], None], words: str) -> None:
    of = sealed(world)
    pen = written(of)
    does(pen)
    lines(world, of, pen.lines)
    assert words in refused(world)


def written(of: Sealed) -> Pen:
    """A refusal and a session with a use."""
    pen = of.pen()
    pen.refused()
    pen.begin()
    pen.use(ANA)
    pen.close(1)
    return pen


def test_a_line_of_no_kit_or_with_another_persons_name_is_refused(world: World) -> None:
    of = sealed(world)
    line = of.pen().begin()
    lines(world, replace(of, kit_entry=of.seal_entry), [line])
    assert "entry 2 is not a kit" in refused(world)
    used = written(of).lines[2].encode().decode()
    with pytest.raises(JitSshError, match="names another person than its line"):
        BreakGlassEntry(index=5, time=0, actor=OPERATOR, kit=3, line=used, person="bo")
    with pytest.raises(JitSshError, match="names another person than its line"):
        BreakGlassEntry(index=5, time=0, actor=OPERATOR, kit=3, line=used)


def test_two_kits_do_not_continue_one_another(world: World) -> None:
    of = sealed(world)
    another = facts(EMERGENCY, people=("ana",))
    append(world, lambda index, time: KitEntry(index=index, time=time, actor=OPERATOR, seal=of.seal_entry, facts=another))
    pen = written(of)
    lines(world, of, pen.lines[:2])
    lines(world, replace(of, kit_entry=4), pen.lines[2:])
    assert "its line does not continue one of the same kit" in refused(world)


def test_two_copies_of_a_journal_that_went_on_apart_can_both_be_there(world: World) -> None:
    of = sealed(world)
    one, other = written(of), of.pen()
    other.lines, other.time, other.session = one.lines[:3], one.time + 5, one.session
    other.use(ANA, serial=FIRST_SERIAL + 99)
    other.close(2)
    lines(world, of, one.lines)
    lines(world, of, other.lines[3:])
    world.check()
    assert len(reading(world).uses) == 2


# -------------------------------------------------------------- whose key it was


def test_whose_key_was_certified_is_told_as_it_was_when_it_was_handed_in(world: World) -> None:
    of = sealed(world)
    pen = of.pen()
    pen.begin()
    for key in (world.people["ana"], world.people["bo"], ANA):
        pen.use(key)
    of_ana, of_bo, of_nobody = lines(world, of, pen.lines)[1:]
    people = world.files["people.toml"].decode()
    world.adopt(people=people.replace(world.people["ana"].public_key.line, ANA.public_key.line))
    pen.use(world.people["ana"])
    (replaced,) = lines(world, of, pen.lines[4:])
    told = [world.read("eve", f"/v1/requests/{use}").json for use in (of_ana, of_bo, of_nobody, replaced)]
    assert [case and case.get("owner") for case in told] == ["ana", "bo", None, None]


# ------------------------------------------------------------------ the review


def test_a_use_is_reviewed_once_by_another_person_who_may(world: World) -> None:
    of = sealed(world)
    pen = of.pen()
    pen.begin()
    pen.use(ANA)
    pen.begin()
    pen.use(FixedKey(5), person="eve")
    _, for_ana, _, for_eve = lines(world, of, pen.lines)
    given = {"verdict": "real", "reason": "INC-77"}
    assert problem(world, "bo", for_ana, **given) == (403, "forbidden")
    assert problem(world, "ana", for_ana, **given) == (403, "forbidden")
    assert problem(world, "eve", for_eve, **given) == (403, "own-request")
    assert problem(world, "eve", for_ana, **given, leaf="0" * 64) == (403, "refused")
    assert problem(world, "eve", for_ana - 1, **given) == (404, "not-found")
    assert problem(world, "eve", 10_000, leaf="0" * 64, **given) == (404, "not-found")
    assert problem(world, "bo", 10_000, leaf="0" * 64, **given) == (403, "forbidden"), "what is there is not everybody's to know"
    assert problem(world, "eve", for_ana, verdict="fine", reason="INC-77") == (400, "malformed")
    assert problem(world, "eve", for_ana, verdict="real", reason=" ") == (400, "malformed")
    assert problem(world, "eve", for_ana, verdict="real") == (400, "malformed")
    assert world.answer("eve", "review", for_ana, **given).status_code == 200
    assert problem(world, "eve", for_ana, verdict="misuse", reason="no") == (409, "not-pending")
    assert [each.index for each in reading(world).unreviewed] == [for_eve]
    world.check()


SHARES = tuple(share.fingerprint for share in emergencies.seal(EMERGENCY).shares)  # of cy, di and eve


@pytest.mark.parametrize(
    ("opened", "named", "may"), [(SHARES[:2], "bo", True), (SHARES[1:], "bo", False), (SHARES[:2], "eve", False)]
)
def test_nobody_reviews_a_session_in_which_they_took_part(
    world: World, monkeypatch: pytest.MonkeyPatch, opened: Sequence[str], named: str, *, may: bool
) -> None:
    of = sealed(world)
    pen = of.pen()
    for shares, person in ((SHARES[1:], "eve"), (opened, named)):  # of another session it makes no difference
        pen.begin(shares=shares)
        pen.use(ANA)
        pen.use(FixedKey(5), person=person)
    for_ana = lines(world, of, pen.lines)[4]
    given = {"verdict": "real", "reason": "INC-77"}
    refusal = world.answer("eve", "review", for_ana, **given)
    assert refusal.status_code == (200 if may else 403), refusal.text
    if not may:
        assert problem(world, "eve", for_ana, **given) == (403, "own-request")
        assert "another auditor or revoker may" in refusal.text
        world.check()
        monkeypatch.setattr(Moment, "took_part", lambda _at, _use: frozenset())  # a CA that takes it all the same
        world.answer("eve", "review", for_ana, **given)
        assert "it is by somebody who was named in the session of its use, or whose share opened it" in refused(world)


def test_who_holds_a_line_back_until_after_their_review_is_told_of(world: World) -> None:
    pen = sealed(world).pen()
    pen.begin()
    pen.use(ANA)
    used = handing_in.hand_in(world.ca.log, world.store, pen.journal, (), branched=False).uses[0].index
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    found = []
    for person in ("bo", "eve"):
        pen.use(FixedKey(5), person=person)
        handed = handing_in.hand_in(world.ca.log, world.store, pen.journal, (), branched=False)
        found.append("\n".join(Findings.of(handed, world.store, (), ()).lines(Path("ca"), compared=False)))
    world.check()
    assert "REVIEWED BY ONE OF THEM" not in found[0]
    assert found[1].count("REVIEWED BY ONE OF THEM: this session names eve in a line that was handed in after the review") == 1


def test_a_session_is_that_of_one_kit(world: World) -> None:
    of = sealed(world)
    later = sealed(world, NEXT, replaces=of.seal_entry)
    for each, person in ((later, "eve"), (of, "bo")):
        pen = each.pen()
        pen.begin()
        pen.use(ANA)
        pen.use(FixedKey(5), person=person)
        used = lines(world, each, pen.lines)[1]
        assert [world.store.session(index) for index in (used - 1, used, used + 1)] == [[used - 1, used, used + 1]] * 3
        assert world.store.session(each.kit_entry) == []
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    world.check()


def problem(world: World, person: str, use: int, **members: Any) -> tuple[int, str]:
    leaf = {"leaf": "0" * 64} if use >= world.store.size() else {}
    answer = world.answer(person, "review", use, **leaf | members) if not leaf else world.act(
        person, "review", f"/v1/requests/{use}/review", request=use, **leaf | members
    )  # fmt: skip
    assert answer.json is not None
    return answer.status_code, answer.json["code"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "drill"}, "its statement says something else"),
        ({"request": 3}, "its statement says something else"),
        ({"person": "bo"}, "is no use of the emergency key by bo"),
        ({"person": "eve"}, "it is by the person who was named in it"),
    ],
)
def test_a_review_that_its_statement_does_not_bear_out_is_refused(world: World, changes: dict[str, Any], words: str) -> None:
    used = hand_in(world, sealed(world))
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    found, taken = world.entries(), Emergency()
    for each in found[:-1]:
        if isinstance(each, EmergencyEntry):
            taken.take(each)
    review = found[-1]
    assert isinstance(review, entry.ReviewEntry)
    with pytest.raises(JitSshError, match=words):
        taken.take(replace(review, **changes))
    taken.take(review)
    with pytest.raises(JitSshError, match="was reviewed before"):
        taken.take(review)


def test_a_login_is_of_the_use_whose_certificate_it_was(world: World) -> None:
    of = sealed(world)
    used = hand_in(world, of)
    seen, strange = emergencies.seen(world, of, used), emergencies.seen(world, of, used, serial=FIRST_SERIAL + 99)
    world.check()
    assert [each.index for each in reading(world).strange] == [strange]
    answer = world.read("ana", f"/v1/requests/{used}").json
    assert answer is not None
    assert [json.loads(each)["index"] for each in answer["logins"]] == [seen]


def test_a_login_that_no_line_speaks_of_is_explained_by_a_journal_that_comes_later(world: World) -> None:
    of = sealed(world)
    pen = of.pen()
    pen.begin()
    told = emergencies.login(of, pen.use(ANA))
    append(world, lambda index, time: LoginEntry(index=index, time=time, actor=OPERATOR, login=told))
    assert len(reading(world).strange) == 1
    lines(world, of, pen.lines)
    world.check()
    assert reading(world).strange == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"request": None, "person": None}, "it names another use than the one of its certificate"),
        ({"request": 4}, "it names another use"),
        ({"person": "bo"}, "it names another use"),
        ({"ca": NEXT.public_key.fingerprint}, "it is not under an emergency key of this log"),
    ],
)
def test_a_login_that_is_told_otherwise_is_refused(world: World, changes: dict[str, Any], words: str) -> None:
    of = sealed(world)
    used = hand_in(world, of)
    line = reading(world).lines[used].certified
    about: dict[str, Any] = {"request": used, "person": "ana"} | changes
    told = emergencies.login(of, line, **({"ca": about.pop("ca")} if "ca" in about else {}))
    append(world, lambda index, time: LoginEntry(index=index, time=time, actor=OPERATOR, login=told, **about))
    assert words in refused(world)


def test_a_login_is_told_once(world: World) -> None:
    of = sealed(world)
    used = hand_in(world, of)
    for _ in range(2):
        emergencies.seen(world, of, used)
    assert "its login stands in an earlier entry" in refused(world)


def test_who_may_read_a_use(world: World) -> None:
    of = sealed(world)
    pen = of.pen()
    pen.begin()
    pen.use(ANA)
    pen.use(FixedKey(5), person="bo")
    for_ana, for_bo = lines(world, of, pen.lines)[1:]
    assert session_of(world, "eve", for_ana) == ["open", "use", "use"]
    assert session_of(world, "ana", for_ana) == ["open", "use"], "not what was done in the names of others"
    for person, use in (("bo", for_ana), ("ana", for_bo), ("cy", for_ana), ("eve", for_ana - 1)):
        assert world.read(person, f"/v1/requests/{use}").status_code == 404
    assert world.answer("eve", "review", for_ana, verdict="real", reason="INC-77").status_code == 200
    answer = world.read("ana", "/v1/log/entries?start=2").json
    assert answer is not None
    kinds = [entry.decode(text.encode()).TAG[1] for text in answer["entries"]]
    assert kinds == ["break-glass", "review"]


def session_of(world: World, person: str, use: int) -> Sequence[str]:
    answer = world.read(person, f"/v1/requests/{use}")
    assert answer.json is not None, answer.text
    read = [entry.decode(text.encode()) for text in answer.json["session"]]
    return [each.told.TAG[1] for each in read if isinstance(each, BreakGlassEntry)]


def test_the_last_drill_is_one_in_which_ssh_got_in(world: World) -> None:
    of = sealed(world)
    pen = of.pen()
    pen.begin(drill=True)
    pen.use(ANA, drill=True)
    pen.drilled(entered=False)
    lines(world, of, pen.lines)
    assert reading(world).last_drill is None
    pen.use(ANA, drill=True)
    entered = pen.drilled()
    lines(world, of, pen.lines[3:])
    assert reading(world).last_drill == entered.time
    assert isinstance(reading(world).session(next(iter(reading(world).uses.values())))[0], Open)


def test_every_part_of_a_log_is_taken_by_who_was_not_shown_the_rest(world: World) -> None:
    of = sealed(world)
    used = hand_in(world, of)
    emergencies.seen(world, of, used)
    assert world.answer("eve", "review", used, verdict="real", reason="INC-77").status_code == 200
    hand_in(world, sealed(world, NEXT, replaces=of.seal_entry))
    told = [each for each in world.entries() if isinstance(each, EmergencyEntry)]
    for left_out in range(len(told)):
        for part in (told[left_out:], told[:left_out] + told[left_out + 1 :]):
            taken = Emergency(hidden=True)
            for each in part:
                taken.take(each)
