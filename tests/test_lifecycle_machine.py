"""Random people do random things at random times, and after each step everything that must always hold does.

The model here is slow and knows nothing of `ca.request`: it reads the log's JSON from the beginning for each question.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from werkzeug.test import TestResponse

from ca.entry import IssueEntry
from tests.test_lifecycle import TWO_STEPS, lock, revoke
from tests.world import World

Json = dict[str, Any]
PEOPLE: Final = ("ana", "bo", "cy", "di", "eve")
ENGINEERS: Final = ("ana", "bo", "di")
MAY_ASK: Final = {"dev": ENGINEERS, "web-admin": ("ana",), "db-admin": ENGINEERS, "db-root": ENGINEERS}
MAY_APPROVE: Final = {"db-admin": ("cy", "di"), "db-root": ("cy", "di", "eve")}
LONGEST: Final = {"dev": 12 * 3600, "web-admin": 3600, "db-admin": 3600, "db-root": 3600}
ENDS_AS: Final = {"deny": "denied", "withdraw": "withdrawn", "drop": "dropped", "revoke": "revoked", "lock": "revoked"}
LENGTHS: Final = st.sampled_from([None, None, None, None, 1, 600, 1800, 3600, 3601])
ENDS: Final = st.sampled_from(["deny", "withdraw", "drop"])
NEWEST: Final = st.integers(0, 4)  # one of the newest five requests


# -------------------------------------------------------------------- the model


def beginning(log: list[Json], number: int) -> tuple[int, int] | None:
    """When the request's grant began and when it ends by itself, if it was granted."""
    request = log[number]
    granting = [request] if not request.get("steps") else []
    granting += [each for each in log if each["kind"] == "approve" and each["request"] == number and "privilege" in each]
    if not granting:
        return None
    (last,) = granting
    begun = last["time"] // 1000
    return begun, begun + last["privilege"]["duration"]


def by_itself(log: list[Json], number: int, now: int) -> str:
    """How the request stands if nobody ended it."""
    window = beginning(log, number)
    if window is None:
        return "lapsed" if now >= log[number]["expires"] else "pending"
    if now < window[1]:
        return "granted"
    return "ended" if any(each["kind"] == "issue" and each["request"] == number for each in log) else "unused"


def first_of(log: list[Json], number: int) -> int:
    """The request whose grant this one extends, or itself."""
    return int(log[number].get("request", number))


def concerns(log: list[Json], ending: Json, number: int) -> bool:
    """Whether an entry that ends something means this request."""
    match ending["kind"]:
        case "deny" | "withdraw":
            return bool(ending["request"] == number)
        case "drop":
            return first_of(log, ending["request"]) == first_of(log, number)
        case "revoke" if "serial" in ending:
            return False
        case "revoke" if "request" in ending:
            return first_of(log, ending["request"]) == first_of(log, number)
        case "revoke" | "lock":
            return bool(ending["person"] == log[number]["actor"])
        case _:
            return False


def standing(log: list[Json], number: int, now: int) -> str:
    """How the request stands at `now`, by everything that was logged."""
    for at in range(number + 1, len(log)):
        ending = log[at]
        if concerns(log, ending, number) and by_itself(log[:at], number, ending["time"] // 1000) in ("pending", "granted"):
            return ENDS_AS[ending["kind"]]
    return by_itself(log, number, now)


def locked(log: list[Json], person: str) -> bool:
    """Whether the last word about the person was to lock them out."""
    words = [each["kind"] for each in log if each["kind"] in ("lock", "unlock") and each["person"] == person]
    return words[-1:] == ["lock"]


# ----------------------------------------------------------------- the machine


class Lifecycle(RuleBasedStateMachine):
    """What people try, and what has to come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.world.adopt(role_db_root=TWO_STEPS)
        self.seen: list[bytes] = []  # every entry that was ever in the log

    def teardown(self) -> None:
        self.world.store.close()
        self.directory.cleanup()

    @property
    def log(self) -> list[Json]:
        return [json.loads(source) for source in self.world.store.entries(0, self.world.store.size())]

    @property
    def now(self) -> int:
        return int(self.world.now)

    def requests(self) -> list[int]:
        return [each["index"] for each in self.log if each["kind"] == "request"]

    def chosen(self, number: int) -> int:
        """A request by how many are newer, of the newest five."""
        return self.requests()[-1 - number % min(len(self.requests()), 5)]

    def case_holds(self, log: list[Json], number: int) -> bool:
        """Whether the grant that the request began or extends goes on."""
        case = [each for each in self.requests() if first_of(log, each) == first_of(log, number)]
        return any(standing(log, each, self.now) == "granted" for each in case)

    def expect(self, answer: TestResponse, ok: bool) -> None:
        assert answer.status_code < 500, answer.text
        assert (answer.status_code in (200, 201)) == ok, answer.text

    # ------------------------------------------------------------ what is done

    @initialize()
    def begin(self) -> None:
        for person in ENGINEERS:
            assert self.world.ask(person, role="db-admin" if person == "bo" else "db-root").status_code == 202

    @rule(person=st.sampled_from([*PEOPLE, *ENGINEERS]), role=st.sampled_from([*LONGEST, *MAY_APPROVE]), length=LENGTHS)
    def ask(self, person: str, role: str, length: int | None) -> None:
        may = person in MAY_ASK[role] and not locked(self.log, person) and (length or 1) <= LONGEST[role]
        answer = self.world.ask(person, role=role, duration=length)
        assert answer.status_code in ((201, 202, 403) if may else (403,)), answer.text

    @rule(person=st.sampled_from(ENGINEERS), role=st.sampled_from([*LONGEST, *MAY_APPROVE]), renewals=st.integers(0, 2))
    def hold(self, person: str, role: str, renewals: int) -> None:
        """What would seldom come together by chance: a request, all its approvals, and certificates."""
        self.ask(person, role, None)
        for approver in MAY_APPROVE.get(role, ()):
            self.approve(approver, 0, None)
        for _ in range(renewals):
            self.renew(None, 0)

    @rule(
        person=st.sampled_from(ENGINEERS),
        role=st.sampled_from(["dev", *["db-admin", "db-root"] * 3]),
        seconds=st.sampled_from([0.001, 60, 1799, 1800]),
        end=st.sampled_from(["deny", "deny", "withdraw", "drop", None]),
    )
    def go_on(self, person: str, role: str, seconds: float, end: str | None) -> None:
        """What is held is extended, and then given back, or asked for once more in vain."""
        for each in (person, *MAY_APPROVE.get(role, ())):
            if locked(self.log, each):
                self.unlock(each)
        self.hold(person, role, 1)
        self.wait(seconds)
        self.hold(person, role, 1)
        if end in ("deny", "withdraw"):
            self.ask(person, role, None)
        if end is not None:
            self.end(None, 0, end)

    @rule(person=st.sampled_from([*PEOPLE, *["cy", "di", "eve"] * 3]), number=NEWEST, length=LENGTHS)
    def approve(self, person: str, number: int, length: int | None) -> None:
        log, request = self.log, self.chosen(number)
        asked = log[request]
        said = [each["actor"] for each in log if each["kind"] == "approve" and each["request"] == request]
        ok = (
            self.may_answer(person, request)
            and person not in said
            and (length is None or length <= asked["privilege"]["duration"])
        )
        self.expect(self.world.answer(person, "approve", request, duration=length), ok)

    def may_answer(self, person: str, request: int) -> bool:
        log, asked = self.log, self.log[request]
        may = person in MAY_APPROVE.get(asked["role"], ()) and person != asked["actor"] and not locked(log, person)
        return may and standing(log, request, self.now) == "pending"

    @rule(person=st.sampled_from([*PEOPLE, None, None, None]), number=NEWEST, action=ENDS)
    def end(self, person: str | None, number: int, action: str) -> None:
        log, request = self.log, self.chosen(number)
        owner = log[request]["actor"]
        own = person in (None, owner) and not locked(log, owner)
        match action:
            case "deny":
                ok = self.may_answer(person or "cy", request)
                self.expect(self.world.answer(person or "cy", "deny", request), ok)
            case "withdraw":
                ok = own and standing(log, request, self.now) == "pending"
                self.expect(self.world.give_back(person or owner, "withdraw", request), ok)
            case _:
                self.expect(self.world.give_back(person or owner, "drop", request), own and self.case_holds(log, request))

    @rule(person=st.sampled_from([*PEOPLE, *[None] * 10]), number=NEWEST)
    def renew(self, person: str | None, number: int) -> None:
        log, request = self.log, self.chosen(number)
        owner = log[request]["actor"]
        ok = person in (None, owner) and not locked(log, owner) and self.case_holds(log, request)
        answer = self.world.renew(person or owner, request)
        if not any(locked(log, each["actor"]) for each in log if each["kind"] == "approve"):
            self.expect(answer, ok)
        assert ok or answer.status_code != 201

    @rule(by=st.sampled_from(["eve", "eve", "bo"]), number=NEWEST, what=st.sampled_from(["request", "serial", "person"]))
    def revoke(self, by: str, number: int, what: str) -> None:
        log, request = self.log, self.chosen(number)
        serials = [each["index"] for each in log if each["kind"] == "issue"]
        meant = {"request": request, "serial": serials[-1] if serials else 1, "person": log[request]["actor"]}[what]
        case = [each for each in self.requests() if first_of(log, each) == first_of(log, request)]
        is_open = any(standing(log, each, self.now) in ("pending", "granted") for each in case)
        possible = {"request": is_open, "serial": bool(serials), "person": True}[what]
        self.expect(revoke(self.world, by, **{what: meant}), by == "eve" and not locked(log, by) and possible)

    @rule(by=st.sampled_from(["eve", "ana"]), person=st.sampled_from(PEOPLE[:4]))
    def lock_for_a_while(self, by: str, person: str) -> None:
        action = "unlock" if locked(self.log, person) else "lock"
        self.expect(lock(self.world, person, action, by), by == "eve")

    @rule(person=st.sampled_from(PEOPLE))
    def unlock(self, person: str) -> None:
        self.expect(lock(self.world, person, "unlock"), ok=True)

    @rule(seconds=st.sampled_from([0.001, 1, 59, 60, 300, 599, 600, 899, 900, 1799, 1800, 8 * 3600]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def restart(self) -> None:
        self.world.reopen()

    # --------------------------------------------------------- what must hold

    @invariant()
    def no_entry_is_lost_or_changed(self) -> None:
        entries = list(self.world.store.entries(0, self.world.store.size()))
        assert entries[: len(self.seen)] == self.seen
        self.seen = entries

    @invariant()
    def the_log_verifies(self) -> None:
        self.world.check()

    @invariant()
    def the_fold_is_the_model(self) -> None:
        log = self.log
        for number in self.requests():
            assert self.world.status(number) == standing(log, number, self.now), f"request {number}"

    @invariant()
    def nobody_approves_for_themselves_or_twice(self) -> None:
        log = self.log
        for number in self.requests():
            said = [each["actor"] for each in log if each["kind"] == "approve" and each["request"] == number]
            assert log[number]["actor"] not in said
            assert len(set(said)) == len(said)
            if "steps" in log[number] and beginning(log, number):
                assert len(said) >= sum(step["count"] for step in log[number]["steps"])

    @invariant()
    def no_grant_is_longer_than_was_asked_or_than_its_role_gives(self) -> None:
        log = self.log
        for number in self.requests():
            window, asked = beginning(log, number), json.loads(log[number]["statement"]).get("duration")
            if window is not None:
                assert 0 < window[1] - window[0] <= min(asked or 10**9, LONGEST[log[number]["role"]])
        extending = [number for number in self.requests() if beginning(log, number) and "request" in log[number]]
        for number in extending:
            before = [each for each in extending if first_of(log, each) == first_of(log, number) and each <= number]
            assert log[number]["extension"] == len(before)
            assert log[number]["role"] != "db-admin" or len(before) <= 2

    @invariant()
    def what_is_held_is_extended_and_nothing_else(self) -> None:
        log = self.log
        for number in self.requests():
            asked = log[number]
            same = [each for each in self.requests() if all(log[each][name] == asked[name] for name in ("actor", "role"))]
            then = asked["time"] // 1000
            held = [each for each in same if each < number and standing(log[:number], each, then) == "granted"]
            assert {first_of(log, each) for each in held} == ({asked["request"]} if "request" in asked else set())
            if held:
                ends = [beginning(log[:number], each) or (0, 0) for each in held]
                assert (beginning(log[:number], asked["extends"]) or (0, 0))[1] == max(end for _, end in ends)

    @invariant()
    def no_certificate_is_outside_a_grant(self) -> None:
        log = self.log
        for at, issue in self.issues():
            request, issued_at = issue.request, issue.time // 1000
            assert standing(log[:at], request, issued_at) == "granted"
            window = beginning(log, request)
            assert window is not None
            assert window[0] <= issued_at < issue.certificate.valid_before <= window[1]
        assert self.world.signer.calls <= sum(each["kind"] == "issue" for each in log)

    def issues(self) -> Iterator[tuple[int, IssueEntry]]:
        for at, each in enumerate(self.world.entries()):
            if isinstance(each, IssueEntry):
                yield at, each

    @invariant()
    def whoever_is_locked_out_leaves_refusals_only(self) -> None:
        out: set[str] = set()
        for each in self.log:
            assert each["actor"] not in out or each["kind"] == "refuse"
            if each["kind"] == "lock":
                out.add(each["person"])
            elif each["kind"] == "unlock":
                out.discard(each["person"])


TestLifecycle = Lifecycle.TestCase
# A step verifies a log: without the phase that makes a failing example smaller, which would take minutes.
TestLifecycle.settings = settings(max_examples=15, stateful_step_count=40, phases=[Phase.generate])
