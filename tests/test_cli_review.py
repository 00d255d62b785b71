"""`jit-ssh show` and `review` of a use of the emergency key, which was handed in beside the running CA."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ca import entry, merkle
from ca.entry import OPERATOR, BreakGlassEntry, KitEntry, SealEntry
from cli.answers import Members
from cli.problems import WrongCase
from cli.use import Use
from server import admin, directory
from tests import emergencies, keys
from tests.formats_example import FixedKey
from tests.home import ORIGIN, Home, make_home, served_ca
from tests.journals import Pen, facts
from tests.world import World

EMERGENCY, ANA = FixedKey(9), FixedKey(3)
PEOPLE = """[groups]
sre = "On call"
security = "Reviews"
[people.ana]
groups = ["sre"]
keys = ["{ana}"]
[people.bo]
groups = ["sre"]
keys = ["{bo}"]
[people.eve]
groups = ["security"]
keys = ["{eve}"]
"""
FILES = {
    "hosts.toml": '[groups.web]\nabout = "Web"\nhosts = ["web-*.example"]\n',
    "guardrails.toml": 'auditors = ["security"]\n',
    "break-glass.toml": 'groups = ["sre"]\nask = ["https://ca.example"]\n[hosts]\nweb = ["root"]\n',
}


@dataclass(frozen=True)
class Town:
    """A served CA with a use by ana (entry `use`) and one by eve two entries after it, and the machines of its people."""

    use: int
    people: dict[str, Home]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    root = tmp_path_factory.mktemp("town")
    public = {name: keys.make(root, name=name).public_key.line for name in ("ana", "bo", "eve")}
    with served_ca(root / "ca", PEOPLE.format(**public), FILES) as ca:
        people = {name: make_home(root / "homes" / name, root / name) for name in public}
        for home in people.values():
            done = home.run("setup", ca.url, "--fingerprint", ca.fingerprint)
            assert done.returncode == 0, done.stderr
        yield Town(handed_in(ca.directory, root / "journal"), people)


def handed_in(ca: Path, journal: Path) -> int:
    """The entry of ana's use, after the operator sealed a key, made a kit and handed in its journal."""
    kit = facts(EMERGENCY, origin=ORIGIN)
    log = directory.open_log(ca, lambda _path: b"")
    log.append(lambda tail: [SealEntry(index=tail.index, time=tail.time, actor=OPERATOR, seal=emergencies.seal(EMERGENCY))])
    log.append(lambda tail: [KitEntry(index=tail.index, time=tail.time, actor=OPERATOR, seal=tail.index - 1, facts=kit)])
    pen = Pen(EMERGENCY, kit)
    pen.begin(shares=tuple(share.fingerprint for share in emergencies.seal(EMERGENCY).shares[:2]))
    used = pen.use(ANA)
    pen.begin(shares=tuple(share.fingerprint for share in emergencies.seal(EMERGENCY).shares[1:]))
    pen.use(FixedKey(4), person="eve", reason="CA down, INC-78 \N{LATIN SMALL LETTER E WITH ACUTE}")
    journal.write_bytes(pen.journal)
    seen = emergencies.login(emergencies.Sealed(EMERGENCY, kit, 0, 0), used)
    journal.with_suffix(".logins").write_bytes(seen.encode() + b"\n")
    logins = ["--logins", str(journal.with_suffix(".logins"))]
    told = CliRunner().invoke(admin.main, ["break-glass", "import", str(ca), str(journal), *logins])
    assert told.exit_code == 0, told.output
    return int(told.stdout.partition("\nentry ")[2].partition(",")[0])


def test_a_use_is_shown_to_whom_it_concerns_and_reviewed_by_another_person(town: Town) -> None:
    ana, bo, eve = (town.people[name] for name in ("ana", "bo", "eve"))
    for home in (ana, eve):
        shown = home.run("show", str(town.use))
        assert shown.returncode == 0, shown.stderr
        assert f"use          {town.use}, use, awaits review" in shown.stdout
        assert "opened by    cy, di" in shown.stdout
        assert "key of       nobody, NOT ana" in shown.stdout
        assert "WITHOUT AN END: broken off, or cut" in shown.stdout
        assert shown.stdout.count(" UTC  entry ") == 2
        assert f"root from 192.0.2.7 port 4 on web-1, of the use in entry {town.use}" in shown.stdout
    assert bo.run("show", str(town.use)).returncode == 1
    assert eve.json("show", str(town.use))["use"]["person"] == "ana"

    refused = ana.run("review", str(town.use), "--as", "real", "--note", "it was me")
    assert (refused.returncode, "auditors or revokers review" in refused.stderr) == (3, True)
    refused = eve.run("review", str(town.use + 2), "--as", "real", "--note", "it was me")
    assert (refused.returncode, "nobody reviews a session in which they were named" in refused.stderr) == (3, True)
    assert eve.run("review", str(town.use), "--as", "fine", "--note", "x").returncode == 2

    done = eve.run("review", str(town.use), "--as", "real", "--note", "INC-77: the CA was down")
    assert done.returncode == 0, done.stderr
    assert f"the use in entry {town.use} by ana is reviewed: real" in done.stdout
    shown = ana.run("show", str(town.use))
    assert f"use          {town.use}, use, real" in shown.stdout
    assert f"entry {town.use} by ana is real: INC-77: the CA was down" in shown.stdout
    again = eve.run("review", str(town.use), "--as", "misuse", "--note", "on second thought")
    assert (again.returncode, "was reviewed already: real" in again.stderr) == (1, True)

    listed = eve.run("log", "--kind", "login")
    assert f"root from 192.0.2.7 port 4 on web-1, of the use in entry {town.use}" in listed.stdout
    listed = eve.run("log", "--kind", "break-glass")
    assert "ana, use: break-glass@web until" in listed.stdout
    assert "emergency key" in eve.run("log", "show", str(town.use - 3)).stdout
    assert "web as root" in eve.run("log", "show", str(town.use - 2)).stdout
    assert "by the emergency key" in eve.run("log", "show", str(town.use)).stdout
    assert eve.run("log", "verify").returncode == 0


def test_a_request_is_no_use_and_a_use_no_request(town: Town) -> None:
    eve = town.people["eve"]
    done = eve.run("approve", str(town.use + 2), "--yes")
    assert (done.returncode, "is a use of the emergency key and no request" in done.stderr) == (1, True)
    assert eve.run("review", "1", "--as", "real", "--note", "x").returncode == 1


def test_what_is_shown_otherwise_than_the_log_has_it_is_not_signed_for(world: World) -> None:
    used = emergencies.hand_in(world, emergencies.sealed(world))
    answer = world.read("eve", f"/v1/requests/{used}").data
    case = Use.read(Members.parse(answer))
    assert case.proven(used) == case
    forged = json.loads(answer)
    forged["use"] = forged["use"].replace("CA down", "CA gone")
    forged["leaf"] = merkle.leaf_hash(forged["use"].encode()).hex()
    other = entry.decode(json.loads(answer)["seal"].encode())
    assert isinstance(other, SealEntry)
    for wrong, words in (
        (replace(case, leaf="0" * 64), "the entry is not the one that would be signed for"),
        (Use.read(Members.parse(json.dumps(forged).encode())), "signature"),
        (replace(case, seal=replace(other, seal=emergencies.seal(FixedKey(10)))), "the signature is by"),
    ):
        with pytest.raises(WrongCase, match=words):
            wrong.proven(used)
    with pytest.raises(WrongCase, match="the entry is not the one"):
        case.proven(used + 1)
    assert isinstance(case.use, BreakGlassEntry)
