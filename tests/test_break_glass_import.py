"""`jit-ssh-ca break-glass import` and `status`: the log learns of every use afterwards, and of every login that has none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ca import readiness
from ca.entry import OPERATOR, KitEntry, SealEntry
from ca.journal import AnyLine, Certified
from ca.kit import Facts
from ca.log import Log
from ca.readiness import Readiness
from ca.sshd_lines import Login
from ca.store.sqlite import SqliteStore
from server import admin, directory, emergency
from tests import emergencies
from tests.formats_example import FixedKey
from tests.journals import NOW, Pen, facts

EMERGENCY, NEXT, ANA, BO = FixedKey(9), FixedKey(10), FixedKey(3), FixedKey(6)
DAY = 24 * 3600
LATE = NOW + 100 * DAY  # the world of these journals is in the future: `ca break-glass status` has the machine's own clock


@dataclass
class Site:
    """A CA in a directory, a seal in its log with a kit, and a journal of that kit."""

    ca: Path
    pen: Pen

    @property
    def journal(self) -> Path:
        path = self.ca.parent / "journal.jsonl"
        path.write_bytes(self.pen.journal)
        return path

    def hand_in(self, *options: str | Path, journal: Path | None = None) -> Result:
        return ran("import", self.ca, journal or self.journal, *options)

    def hand_in_lines(self, lines: list[AnyLine], *options: str) -> Result:
        path = self.ca.parent / "other.jsonl"
        path.write_bytes(b"".join(line.encode() + b"\n" for line in lines))
        return self.hand_in(*options, journal=path)

    def logins(self, *told: Login) -> Path:
        path = self.ca.parent / "logins"
        path.write_bytes(b"".join(each.encode() + b"\n" for each in told))
        return path

    def size(self) -> int:
        return SqliteStore(self.ca / "jit-ssh.db").size()


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(admin.main, ["break-glass", *map(str, arguments)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A seal and a kit (entries 1 and 2), and a journal with a refusal and a use by ana."""
    directory.create(tmp_path / "ca", "ca.example.com", None, None)
    kit = facts(EMERGENCY, origin="ca.example.com")
    sealed(tmp_path / "ca", EMERGENCY, kit)
    pen = Pen(EMERGENCY, kit)
    pen.refused()
    pen.begin(shares=tuple(share.fingerprint for share in emergencies.seal(EMERGENCY).shares[:2]))
    pen.use(ANA)
    pen.close(1)
    return Site(tmp_path / "ca", pen)


@contextmanager
def opened(ca: Path) -> Iterator[Log]:
    yield directory.open_log(ca, lambda _path: b"")


def sealed(ca: Path, key: FixedKey, kit: Facts | None, replaces: int | None = None, overlap: int | None = None) -> None:
    with opened(ca) as log:
        seal = emergencies.seal(key)
        log.append(
            lambda tail: [
                SealEntry(index=tail.index, time=tail.time, actor=OPERATOR, seal=seal, replaces=replaces, overlap=overlap),
                *([KitEntry(index=tail.index + 1, time=tail.time, actor=OPERATOR, seal=tail.index, facts=kit)] if kit else []),
            ]
        )


def login(line: AnyLine, **changes: Any) -> Login:
    """What a host saw of the certificate of a line."""
    assert isinstance(line, Certified)
    return emergencies.login(emergencies.Sealed(EMERGENCY, facts(EMERGENCY), 1, 2), line, **changes)


# ------------------------------------------------------------------ importing


def test_every_line_becomes_an_entry_and_the_use_awaits_a_review(site: Site) -> None:
    told = site.hand_in()
    assert told.exit_code == 0, told.output
    assert "4 lines, all signed and in order; 4 are new, entries 3 to 6" in told.stdout
    assert "entry 5, 2027-01-15 08:00:03 UTC: use by ana of break-glass@web, awaits review\n  CA down, INC-77" in told.stdout
    assert "opened by cy, di" in told.stdout
    assert f"NOT A KEY OF ana: people.toml gives {ANA.public_key.fingerprint} to nobody" in told.stdout
    assert "jit-ssh review 5 --as drill|real|misuse --note '…'    # an auditor or revoker, none of ana, cy, di\n" in told.stdout
    assert "jit-ssh-ca break-glass rotate" in told.stdout
    with opened(site.ca) as log:
        log.check()
    verified = CliRunner().invoke(admin.main, ["log", "verify", str(site.ca)])
    assert verified.exit_code == 0, verified.output


def test_the_same_journal_twice_adds_nothing_and_a_longer_one_the_rest(site: Site) -> None:
    site.hand_in()
    again = site.hand_in()
    assert (again.exit_code, site.size()) == (0, 7)
    assert "0 are new" in again.stdout
    older = site.journal.read_bytes()
    site.pen.begin()
    site.pen.use(BO, person="bo")
    more = site.hand_in()
    assert "7 lines" not in more.stdout
    assert "2 are new, entries 7 to 8" in more.stdout
    assert "the session that begins in line 5 has no end" in more.stdout
    (site.ca.parent / "older").write_bytes(older)
    cut = site.hand_in(journal=site.ca.parent / "older")
    assert (cut.exit_code, site.size()) == (0, 9)
    assert "NOTE: it ends before entry 7, which continues it: an older copy, or its end was cut" in cut.stdout


def test_the_journals_of_two_laptops_are_both_taken(site: Site) -> None:
    site.hand_in()
    other = Pen(EMERGENCY, site.pen.kit, time=NOW + 50)
    other.begin()
    other.use(BO, person="bo")
    other.close(1)
    assert "3 are new" in site.hand_in_lines(other.lines).stdout
    assert "0 are new" in site.hand_in().stdout


def _cut_first(lines: list[AnyLine]) -> list[AnyLine]:
    return lines[1:]


def _cut_middle(lines: list[AnyLine]) -> list[AnyLine]:
    return lines[:2] + lines[3:]


def _edited(lines: list[AnyLine]) -> list[AnyLine]:
    used = lines[2]
    assert isinstance(used, Certified)
    return [*lines[:2], replace(used, reason="nothing much"), *lines[3:]]


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (_cut_first, "line 1 of the journal does not begin at a kit of this log"),
        (_cut_middle, "line 3 of the journal: it does not continue what stands before it"),
        (_edited, "line 3 of the journal:"),
        (lambda _lines: [], "the journal is empty"),
    ],
)
def test_a_journal_with_a_wrong_line_adds_nothing_and_the_line_is_named(site: Site, does: Any, words: str) -> None:
    before = site.size()
    told = site.hand_in_lines(does(list(site.pen.lines)))
    assert (told.exit_code, site.size()) == (1, before)
    assert words in told.stderr


def test_a_journal_whose_beginning_was_handed_in_before_is_wanted_whole(site: Site) -> None:
    site.hand_in()
    site.pen.begin()
    site.pen.close(0)
    told = site.hand_in_lines(site.pen.lines[4:])
    assert told.exit_code == 1
    assert "line 1 of the journal continues entry 6: what stood before it is cut" in told.stderr


def test_another_line_in_the_place_of_one_that_was_handed_in_is_refused_unless_told_otherwise(site: Site) -> None:
    site.hand_in()
    other = Pen(EMERGENCY, site.pen.kit, lines=list(site.pen.lines[:3]), time=NOW + 90, session=site.pen.session)
    other.use(BO, person="bo")
    other.close(2)
    told = site.hand_in_lines(other.lines)
    assert (told.exit_code, site.size()) == (1, 7)
    assert "line 4 of the journal: entry 6 has another line in its place" in told.stderr
    told = site.hand_in_lines(other.lines, "--branched")
    assert (told.exit_code, site.size()) == (0, 9)
    assert CliRunner().invoke(admin.main, ["log", "verify", str(site.ca)]).exit_code == 0


def test_another_cas_journal_and_what_is_none_are_refused(site: Site, tmp_path: Path) -> None:
    stranger = Pen(NEXT, facts(NEXT))
    stranger.begin()
    assert "does not begin at a kit of this log" in site.hand_in_lines(stranger.lines).stderr
    forger = Pen(NEXT, site.pen.kit)
    forger.begin()
    assert "line 1 of the journal: the signature is by" in site.hand_in_lines(forger.lines).stderr
    (tmp_path / "text").write_text("hello\n")
    assert "line 1 of the journal: " in site.hand_in(journal=tmp_path / "text").stderr
    assert "cannot be read" in site.hand_in(journal=tmp_path / "missing").stderr
    assert "cannot be read" in site.hand_in("--logins", tmp_path / "missing").stderr
    (tmp_path / "halved").write_bytes(site.pen.journal[:-9])
    assert "line 4 of the journal has no end" in site.hand_in(journal=tmp_path / "halved").stderr
    assert site.size() == 3


def test_a_kit_that_is_older_than_the_last_rotation_is_noticed(site: Site) -> None:
    kit = facts(NEXT, origin="ca.example.com")
    sealed(site.ca, NEXT, kit, replaces=1, overlap=NOW + DAY)
    told = site.hand_in()
    assert "NOTE: its kit (entry 2) is older than the rotation in entry 3" in told.stdout
    assert "hosts should have removed" not in told.stdout
    late = Pen(EMERGENCY, site.pen.kit, time=NOW + 2 * DAY)
    late.begin()
    assert "it was used after hosts should have removed the old key" in site.hand_in_lines(late.lines).stdout


def test_a_line_from_the_future_is_noticed(site: Site) -> None:
    """These journals are of 2027, and so the machine that runs this sees them."""
    assert "NOTE: line 1 is dated in the future: the clock of the kit's machine was wrong" in site.hand_in().stdout


# -------------------------------------------------------------- reconciling


def test_a_login_belongs_to_its_use(site: Site) -> None:
    used = site.pen.lines[2]
    told = site.hand_in("--logins", site.logins(login(used), login(used, port=5), login(used)))
    assert told.exit_code == 0, told.output
    assert site.size() == 9, "each login is an entry, once"
    assert site.hand_in("--logins", site.logins(login(used), login(used, port=5))).exit_code == 0
    assert site.size() == 9
    assert told.stdout.count("login 2027-01-15 08:01:03 UTC: root from 192.0.2.7 on web-1") == 2
    assert "UNUSED" not in told.stdout
    assert "ALARM" not in told.stdout


@pytest.mark.parametrize(
    "changes", [{"serial": 2**62 + 99}, {"key": BO.public_key.fingerprint}, {"key_id": "break-glass/ana/0011223344556677"}]
)
def test_a_login_that_no_line_speaks_of_is_theft_and_its_use_is_unused(site: Site, changes: dict[str, Any]) -> None:
    told = site.hand_in("--logins", site.logins(login(site.pen.lines[2], **changes)))
    assert told.exit_code == 3
    assert "ALARM: a login that no line speaks of, 2027-01-15 08:01:03 UTC: root from 192.0.2.7 on web-1" in told.stdout
    assert "UNUSED: none of these logins is by its certificate" in told.stdout
    assert "remove it from every host now" in told.stdout
    assert at(site)[-2].startswith("the login in entry 7 (web-1) is one that no line speaks of"), "and it is not forgotten"
    sealed(site.ca, NEXT, facts(NEXT, origin="ca.example.com"), replaces=1, overlap=NOW)
    assert not any("no line speaks of" in each for each in at(site))


def test_logins_under_other_cas_are_none_of_its_business_and_unreadable_ones_are(site: Site) -> None:
    other = login(site.pen.lines[2], ca=NEXT.public_key.fingerprint)
    assert site.hand_in("--logins", site.logins(other)).exit_code == 0
    (site.ca.parent / "log").write_text("Accepted publickey for root from 192.0.2.7 port 1 ssh2: ED25519-CERT SHA256:x ID yyyy\n")
    told = site.hand_in("--logins", site.ca.parent / "log")
    assert told.exit_code == 3
    assert "ALARM: a login that cannot be read, at an unknown time: Accepted publickey for root" in told.stdout


def test_programs_get_the_same(site: Site) -> None:
    used = site.pen.lines[2]
    strange = login(used, serial=2**62 + 99)
    told = json.loads(site.hand_in("--json", "--logins", site.logins(login(used), strange)).stdout)
    assert (told["lines"], told["entries"], told["kit"], told["unreadable"]) == (4, [3, 4, 5, 6], 2, [])
    (use,) = told["uses"]
    assert (use["entry"], use["person"], use["officers"], use["review"]) == (5, "ana", ["cy", "di"], None)
    assert use["key_owner"] is None
    assert [each["serial"] for each in use["logins"]] == [login(used).serial]
    assert [each["serial"] for each in told["strange"]] == [strange.serial]


# --------------------------------------------------------------------- status


def at(site: Site, now: int = LATE) -> list[str]:
    """What somebody has to do."""
    return list(Readiness.of(emergency.read(SqliteStore(site.ca / "jit-ssh.db")), now).concerns)


def test_status_is_1_thing_after_the_other(site: Site, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    directory.create(empty, "ca.example.com", None, None)
    assert ran("status", empty).stdout == "TO DO          no emergency key is sealed: jit-ssh-ca break-glass init\n"
    told = ran("status", site.ca)
    assert told.exit_code == 3
    assert f"emergency key  {EMERGENCY.public_key.fingerprint}, opened by 2 of cy, di, eve" in told.stdout
    assert "TO DO          no drill has ever entered a host" in told.stdout
    site.hand_in()
    assert at(site)[1:] == [
        "the use in entry 5 by ana awaits a review: jit-ssh review 5",
        "its key was rebuilt for an emergency (entry 5): jit-ssh-ca break-glass rotate",
    ]
    sealed(site.ca, NEXT, None, replaces=1, overlap=NOW + DAY)
    assert at(site) == [
        "there is no kit for the key sealed in entry 7: jit-ssh-ca break-glass kit",
        "no drill has ever entered a host: ./break-glass --drill",
        "the use in entry 5 by ana awaits a review: jit-ssh review 5",
    ]
    told = ran("status", site.ca, "--json")
    members = json.loads(told.stdout)
    assert (members["seal"]["entry"], members["kit"], members["unreviewed"]) == (7, None, [5])
    assert members["concerns"] == at(site)


def test_a_drill_is_due_after_ninety_days(site: Site) -> None:
    drills = Pen(EMERGENCY, site.pen.kit, time=NOW)
    drills.begin(drill=True)
    drills.use(ANA, drill=True)
    drilled = drills.drilled()
    assert site.hand_in_lines(drills.lines).exit_code == 0
    waits = "the use in entry 4 by ana awaits a review: jit-ssh review 4"
    assert at(site, drilled.time + readiness.DRILL_AGE) == [waits], "a drill needs no rotation"
    assert at(site, drilled.time + readiness.DRILL_AGE + 1) == [
        "the last drill was 90 days ago, more than 90: ./break-glass --drill", waits
    ]  # fmt: skip
