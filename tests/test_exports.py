"""Exports: what an auditor gets says what the log says, opens in other programs, and shows every change to it."""

import csv
import io
import json
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from ca import asking, statement
from ca.acts import Moment
from ca.asking import Asked
from ca.batch import Tail
from ca.entry import AnyEntry
from ca.errors import JitSshError, LogDamaged, Malformed, Misconfigured
from ca.extract import Extract
from ca.statement import RequestStatement
from server import exports
from server.log_commands import verify_
from tests import emergencies, keys
from tests.formats_example import FixedKey
from tests.test_store_sound import rows_of
from tests.world import World

FORMULA: Final = '=HYPERLINK("http://evil.example","INC-1")'


@pytest.fixture
def lived(world: World) -> World:
    """A log in which everything happened, with some time between the steps."""
    steps: list[Callable[[], Any]] = [
        lambda: world.ask("ana"),
        lambda: world.ask("bo", role="db-admin", reason="disk full on the primary"),
        lambda: world.answer("cy", "approve", 4),
        lambda: world.ask("bo", role="web-admin"),
        lambda: world.ask("di", role="db-admin", reason=FORMULA),
        lambda: world.answer("cy", "deny", 7, reason="not today"),
        lambda: world.give_back("ana", "drop", 2),
        lambda: world.act("eve", "lock", "/v1/locks", person="bo", reason="laptop lost"),
    ]
    for step in steps:
        assert step().status_code in (200, 201, 202, 403)
        world.now += 60
    return world


def export(world: World, name: str, since: float | None = None, until: float | None = None) -> Path:
    out = world.directory / name
    first, last = (None if time is None else int(time * 1000) for time in (since, until))
    exports.export(world.store, world.ca.trust, out, first, last)
    return out


def rows(path: Path, query: str) -> list[dict[str, Any]]:
    """By another program: the database needs nothing of ours."""
    done = subprocess.run(["sqlite3", "-json", path, query], check=True, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def test_a_part_with_a_certificate_of_a_grant_from_before_it_verifies(world: World) -> None:
    assert world.ask("ana").status_code == 201
    world.now += 60
    assert world.renew("ana", 2).status_code == 201
    out = export(world, "out.jsonl", since=world.now)
    assert exports.verify_file(out)[1].certificates == 1


@pytest.mark.parametrize("name", ["out.db", "out.jsonl"])
def test_an_export_verifies_by_itself(lived: World, name: str) -> None:
    out = export(lived, name)
    proof, report = exports.verify_file(out)
    assert proof.ca == lived.ca.trust
    assert (proof.start, proof.end, report.entries) == (0, lived.store.size(), lived.store.size())
    assert report.signatures == lived.check().signatures
    assert out.stat().st_mode & 0o777 == 0o600


def verified(path: Path, *options: str) -> tuple[int, str]:
    """The exit code of `jit-ssh-ca log verify`, and what it says."""
    done = CliRunner().invoke(verify_, [str(path), *options])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["out.db", "out.jsonl"])
def test_what_an_export_cannot_show_is_said_and_a_copy_of_the_database_shows_it(lived: World, name: str) -> None:
    """A CA's process whose owner logs a request in ana's name, signed by a key of their own: no policy file has it."""
    code, said = verified(lived.store.path)
    assert (code, "not checked" in said) == (0, False)
    thief = keys.make(lived.directory, name="thief")
    text = lived.statement(thief.public_key, role="db-admin")
    signed = lived.signed(text, thief, thief)
    words = statement.parse(text)
    asked = Asked(
        "ana", thief.public_key, words, signed["statement"], signed["signature"], "192.0.2.1", False, signed["possession"]
    )

    def forge(tail: Tail) -> Sequence[AnyEntry]:
        assert isinstance(words, RequestStatement)
        return [asking.ask(asked, words, Moment(tail, lived.ca.rules, lambda _: {}), None)]

    [forged] = lived.ca.log.append(forge)
    code, said = verified(lived.store.path)
    assert code == 1
    assert (
        f"entry {forged.index}: its signature is by {thief.public_key.fingerprint}, no key of ana by the policy in force" in said
    )
    unchecked = "not checked: whose keys signed, which takes the policy files"
    code, said = verified(export(lived, name))
    assert (code, f"{unchecked}\n" in said) == (0, True), said
    code, said = verified(export(lived, f"part-{name}", since=lived.now))
    assert code == 0, said
    assert f"{unchecked}, and the log's other entries: these are 1 of {forged.index + 1}, from {forged.index} on\n" in said
    told = json.loads(verified(lived.directory / f"part-{name}", "--json")[1])
    assert [told[member] for member in ("start", "entries", "size", "whose_keys")] == [forged.index, 1, forged.index + 1, False]


@pytest.mark.parametrize("name", ["out.db", "out.jsonl"])
def test_every_part_of_a_log_verifies_by_itself(lived: World, name: str) -> None:
    size, begun = lived.store.size(), lived.now - 8 * 60
    for first, last in ((0, 3), (2, 2), (1, 8), (4, 5), (7, 9), (8, 20)):
        out = export(lived, f"{first}-{last}-{name}", begun + 60 * first, begun + 60 * last)
        proof, report = exports.verify_file(out)
        assert report.entries == proof.end - proof.start
        times = [one.time // 1000 for one in lived.entries()[proof.start : proof.end]]
        assert all(begun + 60 * first <= time < begun + 60 * last for time in times)
        assert report.checkpoint.size == size


def test_the_lines_are_the_entries_own_bytes(lived: World) -> None:
    first, *lines = export(lived, "out.jsonl").read_bytes().splitlines()
    assert lines == list(lived.store.entries(0, lived.store.size()))
    assert Extract.parse(first).encode() == first


def test_the_views_say_who_got_what_and_why(lived: World) -> None:
    out = export(lived, "out.db")
    [first, *_] = rows(out, "SELECT * FROM requests")
    shown = [first[name] for name in ("person", "role", "reason", "granted_at_once")]
    assert shown == ["ana", "web-admin", "INC-12 disk full", 1]
    issued = rows(out, "SELECT person, role, principals, reason, serial, valid_before FROM issuances")
    assert [one["person"] for one in issued] == ["ana"]
    assert issued[0]["principals"] == "root@web"
    [yes] = rows(out, "SELECT approver, person, role, granted FROM approvals")
    assert yes == {"approver": "cy", "person": "bo", "role": "db-admin", "granted": 1}
    denied = rows(out, "SELECT kind, actor, message, reason FROM denials ORDER BY kind DESC")
    assert [(one["kind"], one["actor"]) for one in denied] == [("refuse", "bo"), ("deny", "cy")]
    assert denied[1]["reason"] == "not today"
    ended = rows(out, 'SELECT kind, actor, person, reason FROM revocations ORDER BY "index"')
    assert [(one["kind"], one["actor"], one["person"]) for one in ended] == [("drop", "ana", "ana"), ("lock", "eve", "bo")]


def test_the_views_say_who_read_what(lived: World) -> None:
    for path in ("/v1/cases/2", "/v1/log/entries?text=disk"):
        assert lived.read("eve", path).status_code == 200
    found = rows(export(lived, "out.db"), "SELECT reader, request, path FROM readings")
    assert [tuple(one.values()) for one in found] == [("eve", 2, "/v1/cases/2"), ("eve", None, "/v1/log/entries?text=disk")]


def test_a_certificate_is_told_with_the_address_from_which_it_was_asked_for(world: World) -> None:
    assert world.ask("ana").status_code == 201
    elsewhere = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.9"}}
    post = world.http.post
    world.http.post = lambda *given, **more: post(*given, **more, **elsewhere)  # type: ignore[method-assign]
    assert world.renew("ana", 2).status_code == 201
    issued = rows(export(world, "out.db"), "SELECT address, reason FROM issuances")
    assert [tuple(one.values()) for one in issued] == [("127.0.0.1", "INC-12 disk full"), ("192.0.2.9", "INC-12 disk full")]


def test_what_a_hosts_log_gives_is_found_by_an_index(lived: World) -> None:
    with closing(sqlite3.connect(export(lived, "out.db"))) as database:
        for column in ("serial", '"key"', "actor", "time", "request"):
            sql = f"EXPLAIN QUERY PLAN SELECT * FROM entries WHERE {column} = '1'"  # noqa: S608 - names of columns
            [plan] = database.execute(sql).fetchall()
            assert "USING INDEX" in plan[3], plan


def test_uses_of_the_emergency_key_stand_beside_their_reviews(world: World) -> None:
    of = emergencies.sealed(world)
    first = emergencies.hand_in(world, of)
    second = emergencies.hand_in(world, emergencies.sealed(world, FixedKey(10), replaces=of.seal_entry))
    assert world.answer("eve", "review", first, verdict="misuse", reason="nobody knows why").status_code == 200
    out = export(world, "out.db")
    found = rows(out, "SELECT * FROM emergencies")
    assert [(each["index"], each["person"], each["kind"], each["verdict"]) for each in found] == [
        (first, "ana", "use", "misuse"), (second, "ana", "use", None)
    ]  # fmt: skip
    assert (found[0]["reason"], found[0]["principals"], found[0]["reviewer"]) == ("CA down, INC-77", "break-glass@web", "eve")
    assert found[0]["key"] == emergencies.ANA.public_key.fingerprint
    exports.verify_file(out)


def test_reasons_can_be_searched(lived: World) -> None:
    found = rows(export(lived, "out.db"), "SELECT rowid, reason FROM entries_fts WHERE entries_fts MATCH 'primary'")
    assert [one["reason"] for one in found] == ["disk full on the primary"]


def test_a_spreadsheet_gets_no_formula(lived: World) -> None:
    table = list(csv.DictReader(io.StringIO(export(lived, "out.csv").read_text())))
    assert len(table) == lived.store.size()
    assert [one["reason"] for one in table if "HYPERLINK" in one["reason"]] == ["'" + FORMULA]
    assert not any(str(value).startswith(("=", "+", "-", "@")) for one in table for value in one.values())


def test_no_file_is_overwritten_and_none_is_left_half_done(lived: World) -> None:
    out = export(lived, "out.db")
    before = out.read_bytes()
    with pytest.raises(Misconfigured, match="is there already"):
        export(lived, "out.db")
    assert out.read_bytes() == before
    with pytest.raises(Misconfigured, match="ends in none of"):
        export(lived, "out.xlsx")
    with pytest.raises(Misconfigured, match="cannot be written"):
        export(lived, "nowhere/out.db")
    assert not [path for path in lived.directory.iterdir() if path.name.startswith(".out")]


def test_a_damaged_log_is_not_exported(lived: World) -> None:
    with closing(sqlite3.connect(lived.directory / "log.db", isolation_level=None)) as database:
        database.execute("DROP TRIGGER entries_update")
        database.execute("UPDATE entries SET entry = replace(entry, 'not today', 'not todaY') WHERE kind = 'deny'")
    for name in ("out.db", "out.jsonl", "out.csv"):
        with pytest.raises(LogDamaged):
            export(lived, name)
        assert not (lived.directory / name).exists()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET reason = 'INC-13' WHERE \"index\" = 2",
        "UPDATE entries SET time = '2027-01-15T08:00:00.001Z' WHERE \"index\" = 2",
        "UPDATE entries SET serial = 4 WHERE kind = 'issue'",
        "UPDATE entries SET entry = replace(entry, 'INC-12', 'INC-13')",
        'DELETE FROM entries WHERE "index" = 3',
        'DELETE FROM entries WHERE "index" = (SELECT max("index") FROM entries)',
        "DELETE FROM entries",
        "DELETE FROM proof",
        "INSERT INTO proof SELECT * FROM proof",
        "UPDATE proof SET extract = replace(extract, '\"start\":0', '\"start\":1')",
        "UPDATE proof SET extract = replace(extract, 'ca.example.com', 'ca.example.org')",
        "DROP VIEW issuances",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END",
    ],
)
def test_every_change_to_an_exported_database_is_seen(lived: World, change: str) -> None:
    out = export(lived, "out.db")
    with closing(sqlite3.connect(out, isolation_level=None)) as database:
        database.execute(change)
    with pytest.raises(JitSshError):
        exports.verify_file(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM proof", "has no proof in its table proof"),
        ("INSERT INTO proof SELECT * FROM proof", "has more than one proof in its table proof"),
        ("DROP TABLE proof", "has not the tables and views of an export"),
        (
            "UPDATE entries SET reason = 'INC-13' WHERE \"index\" = 2",
            "row 2 does not say what its entry says: its reason is another",
        ),
    ],
)
def test_a_change_to_an_exported_database_is_named(lived: World, change: str, message: str) -> None:
    out = export(lived, "out.db")
    with closing(sqlite3.connect(out, isolation_level=None)) as database:
        database.execute(change)
    code, said = verified(out)
    assert (code, message in said, "\nhint: " in said) == (1, True, True), said


@pytest.mark.parametrize("name", ["out.db", "out.jsonl"])
def test_an_export_that_was_cut_off_is_said_so(lived: World, name: str) -> None:
    out = export(lived, name)
    out.write_bytes(out.read_bytes()[: -5000 if name == "out.db" else -10])
    code, said = verified(out)
    message = "is malformed" if name == "out.db" else f"line {lived.store.size() + 1} is cut off"
    assert (code, message in said, "\nhint: " in said) == (1, True, True), said


INDEXED: Final = {
    "an index": (
        "DELETE FROM bare WHERE kind = 'lock'",
        "an index does not agree with the entries: row 11 missing from index idx_entries_kind",
    ),
    "its end": ("INSERT INTO bare VALUES ('zoe', 1)", "an index does not agree with the entries: wrong # of entries in index"),
}


@pytest.mark.parametrize(("change", "message"), INDEXED.values(), ids=INDEXED.keys())
def test_an_index_of_an_export_that_hides_or_adds_a_row_is_seen(lived: World, change: str, message: str) -> None:
    out = export(lived, "out.db")
    with rows_of(out, "idx_entries_kind", "kind") as bare:
        assert bare.execute(change).rowcount == 1
    with pytest.raises(LogDamaged, match=f"^{message}"):
        exports.verify_file(out)


def test_a_full_text_index_that_hides_a_word_is_seen(lived: World) -> None:
    out = export(lived, "out.db")
    searched = "actor, person, role, reason, message, principals"
    with closing(sqlite3.connect(out, isolation_level=None)) as database:
        database.execute(
            f"INSERT INTO entries_fts (entries_fts, rowid, {searched}) SELECT 'delete', rowid, {searched} FROM entries"  # noqa: S608
            " WHERE kind = 'lock'"
        )
        assert database.execute("SELECT rowid FROM entries_fts WHERE entries_fts MATCH 'laptop'").fetchall() == []
    with pytest.raises(LogDamaged, match="the full-text index entries_fts does not agree"):
        exports.verify_file(out)


def test_a_view_that_shows_something_else_is_seen(lived: World) -> None:
    out = export(lived, "out.db")
    with closing(sqlite3.connect(out, isolation_level=None)) as database:
        [[told]] = database.execute("SELECT sql FROM sqlite_master WHERE name = 'denials'").fetchall()
        database.execute("DROP VIEW denials")
        database.execute(told.replace("'refuse', 'deny'", "'refuse'"))
    with pytest.raises(Malformed, match="not the tables and views"):
        exports.verify_file(out)


def test_every_change_to_exported_lines_is_seen(lived: World) -> None:
    out = export(lived, "out.jsonl", lived.now - 6 * 60)
    lines = out.read_bytes().splitlines(keepends=True)
    proof = json.loads(lines[0])
    changed = [
        lines[:-1],
        [*lines, lines[-1]],
        [lines[0], *lines[2:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines[:-1], lines[-1].rstrip(b"\n")],
        [*lines[:-1], lines[-1].replace(b'"time":18', b'"time":19')],
        [lines[0], b"{}\n", *lines[2:]],
        [],
        *([spelled(proof | {member: value}), *lines[1:]] for member, value in wrong(proof)),
    ]
    for each in changed:
        out.write_bytes(b"".join(each))
        with pytest.raises(JitSshError):
            exports.verify_file(out)


def wrong(proof: dict[str, Any]) -> list[tuple[str, Any]]:
    before = proof["before"]
    return [
        ("before", before[:-1]),
        ("before", [*before, before[0]]),
        ("before", before[::-1]),
        ("before", [before[0].upper(), *before[1:]]),
        ("before", [before[0][:-2], *before[1:]]),
        ("after", ["00" * 32]),
        ("start", proof["start"] - 1),
        ("start", -1),
        ("end", proof["end"] - 1),
        ("end", 2**62),
        ("checkpoint", proof["checkpoint"].replace("ca.example.com", "ca.example.org")),
    ]


def spelled(proof: dict[str, Any]) -> bytes:
    return json.dumps(proof, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_what_is_no_export_is_said_so(tmp_path: Path) -> None:
    contents = (
        b"",
        b"{}\n",
        b"{",
        b"\0" * 100_000,
        b"SQLite format 3\0" + b"x" * 5000,
        b"x" * 200_000,
        b"index,time\n",
        b"\xff\n",
    )
    for content in contents:
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(JitSshError, match=f"^{path} (is neither|cannot be read)") as raised:
            exports.verify_file(path)
        assert raised.value.hint
