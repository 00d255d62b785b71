"""While the CA runs, somebody else writes to its database: nothing is signed because the store says so."""

import dataclasses
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator

import pytest

from ca import merkle
from ca.entry import AnyEntry, IssueEntry, PolicyEntry, RefuseEntry, RequestEntry
from ca.errors import LogDamaged, LogUnwritable
from tests.world import World, certificate

Database = sqlite3.Connection


@pytest.fixture
def database(world: World) -> Iterator[Database]:
    """The world's database, for somebody who can write to the file and removed its triggers."""
    opened = sqlite3.connect(world.directory / "log.db", isolation_level=None)
    for (trigger,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        opened.execute(f"DROP TRIGGER {trigger}")
    yield opened
    opened.close()


def replace(database: Database, entry: AnyEntry, *, tree: bool = False) -> None:
    """Puts `entry` in place of the one of its index; with `tree`, its leaf as well."""
    database.execute("UPDATE entries SET entry = ? WHERE idx = ?", [entry.encode().decode(), entry.index])
    if tree:
        leaf = merkle.leaf_hash(entry.encode())
        database.execute("UPDATE nodes SET hash = ? WHERE level = 0 AND position = ?", [leaf, entry.index])


def as_root(issue: AnyEntry) -> IssueEntry:
    """The entry of a certificate that was never granted."""
    assert isinstance(issue, IssueEntry)
    raised = dataclasses.replace(issue.certificate, principals=("root@web",))
    return dataclasses.replace(issue, tbs=b64encode(raised.to_be_signed).decode())


def test_a_repeated_request_is_answered_from_the_log(world: World, database: Database) -> None:
    del database  # without triggers, and nothing changed
    body = world.body("bo", role="dev")
    assert certificate(world.post(body)) == certificate(world.post(body))


@pytest.mark.parametrize("tree", [False, True])
def test_a_repeated_request_does_not_get_a_changed_entry_signed(world: World, database: Database, tree: bool) -> None:
    body = world.body("bo", role="dev")
    assert certificate(world.post(body)).certificate.principals == ("bo@dev",)
    replace(database, as_root(world.entries()[-1]), tree=tree)
    calls = world.signer.calls
    answer = world.post(body)
    assert (answer.status_code, answer.json and answer.json["code"], world.signer.calls) == (503, "log-damaged", calls)


def test_a_request_that_was_put_behind_the_checkpoint_is_not_signed(world: World, database: Database) -> None:
    body = world.body("bo", role="dev")
    world.post(body)
    request, issue = world.entries()[-2:]
    assert isinstance(request, RequestEntry)
    database.execute("DELETE FROM entries WHERE idx >= ?", [request.index])
    database.execute("DELETE FROM nodes WHERE position >= ? AND level = 0", [request.index])
    database.execute("DELETE FROM checkpoints WHERE size > ?", [request.index])
    for entry in (request, as_root(issue)):
        database.execute("INSERT INTO entries (idx, entry) VALUES (?, ?)", [entry.index, entry.encode().decode()])
    calls = world.signer.calls
    assert (world.post(body).status_code, world.signer.calls) == (503, calls)


def test_no_root_is_signed_that_does_not_continue_the_one_before(world: World, database: Database) -> None:
    assert world.ask("bo").status_code == 403
    refusal = world.entries()[-1]
    assert isinstance(refusal, RefuseEntry)
    replace(database, dataclasses.replace(refusal, message="something else"), tree=True)
    calls, size = world.signer.calls, world.store.size()
    answer = world.ask("ana", role="dev")
    assert (answer.status_code, world.signer.calls, world.store.size()) == (503, calls, size)


def test_a_change_of_policy_is_not_hidden_behind_a_changed_entry(world: World, database: Database) -> None:
    files = world.files | {"guardrails.toml": b'auditors = ["security", "sre"]\n'}
    world.ca.adopt(files)
    changed = world.entries()[-1]
    assert isinstance(changed, PolicyEntry)
    replace(database, dataclasses.replace(changed, files={}))
    with pytest.raises(LogDamaged):
        world.ca.adopt(world.files)


# ------------------------------------------------------------- what is made to be forgotten


def forget(database: Database, kind: str) -> None:
    """Removes the entries of this kind; the tree still has them."""
    assert database.execute("DELETE FROM entries WHERE kind = ?", [kind]).rowcount


@pytest.mark.parametrize("restarted", [False, True])
def test_a_lock_that_is_removed_still_locks_out(world: World, database: Database, restarted: bool) -> None:
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 200
    world.ask("bo")  # so that the lock is not the newest entry
    if restarted:
        world.reopen()
    forget(database, "lock")
    refused = world.ask("ana", role="dev")
    assert (refused.status_code, refused.json and refused.json["code"]) == (403, "locked")


def failed_to_begin(world: World, database: Database) -> None:
    """As when another process holds the file for too long."""
    begin, world.store.writing = world.store.writing, busy  # type: ignore[method-assign,assignment]
    assert world.ask("bo", role="dev").status_code == 503
    world.store.writing = begin  # type: ignore[method-assign]


def busy() -> None:
    raise LogUnwritable("the file is held")


def failed_to_be_signed(world: World, database: Database) -> None:
    sign, world.ca.log._sign = world.ca.log._sign, lambda _message: b""
    assert world.ask("bo", role="dev").status_code == 503
    world.ca.log._sign = sign


def failed_by_the_clock(world: World, database: Database) -> None:
    world.now -= 1000
    assert world.ask("bo", role="dev").status_code == 503
    world.now += 1000


def failed_by_the_disk(world: World, database: Database) -> None:
    pages = world.store._writer._one("PRAGMA page_count")
    world.store._writer.db.execute(f"PRAGMA max_page_count = {pages}")
    codes = {world.ask("bo", role="dev", reason="INC-1 " + "x" * 400).status_code for _ in range(40)}
    assert 503 in codes
    world.store._writer.db.execute("PRAGMA max_page_count = 1000000")


def failed_by_a_newest_entry_that_is_none(world: World, database: Database) -> None:
    index, text = database.execute("SELECT idx, entry FROM entries ORDER BY idx DESC LIMIT 1").fetchone()
    database.execute("UPDATE entries SET entry = ? WHERE idx = ?", [text.replace('"time":', '"tame":', 1), index])
    assert world.ask("bo", role="dev").status_code in {201, 503}
    database.execute("UPDATE entries SET entry = ? WHERE idx = ?", [text, index])


@pytest.mark.parametrize(
    "fail",
    [failed_to_begin, failed_to_be_signed, failed_by_the_clock, failed_by_the_disk, failed_by_a_newest_entry_that_is_none],
)
def test_a_commit_that_fails_makes_the_ca_forget_nothing(
    world: World, database: Database, fail: Callable[[World, Database], None]
) -> None:
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 200
    world.ask("bo")
    forget(database, "lock")
    fail(world, database)
    refused = world.ask("ana", role="dev")
    assert (refused.status_code, refused.json and refused.json["code"]) == (403, "locked"), refused.text


def test_what_failed_to_be_committed_is_not_remembered(world: World) -> None:
    sign, world.ca.log._sign = world.ca.log._sign, lambda _message: b""
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 503
    assert world.ask("di", role="db-admin").status_code == 503
    world.ca.log._sign = sign
    assert world.ask("ana", role="dev").status_code == 201
    assert world.ask("di", role="db-admin").status_code == 202
    world.check()


def test_what_was_committed_before_an_error_is_learnt_by_the_next(world: World) -> None:
    """The note beside the database cannot be written: what was appended stays."""
    memory, world.store._memory = world.store._memory, -1
    assert world.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 503
    world.store._memory = memory
    assert world.kinds()[-1] == "lock"
    assert world.ask("ana", role="dev").status_code == 403
    world.check()


def test_an_unlock_that_is_made_up_lets_nobody_in(world: World, database: Database) -> None:
    locked = world.act("eve", "lock", "/v1/locks", person="ana", reason="lost")
    assert locked.status_code == 200
    world.ask("bo")
    database.execute('UPDATE entries SET entry = replace(entry, \'"kind":"lock"\', \'"kind":"unlock"\')')
    assert world.ask("ana", role="dev").status_code == 403


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", [{"person": "ana"}, {"request": 2}, {"serial": 3}])
def test_a_revocation_that_is_removed_is_missed(
    world: World, database: Database, restarted: bool, how: dict[str, object]
) -> None:
    held, _ = world.ask("ana", role="dev"), world.ask("ana", role="web-admin")
    assert held.json
    assert world.act("eve", "revoke", "/v1/revocations", reason="left", **how).status_code == 200
    world.ask("bo")
    if restarted:
        world.reopen()
    forget(database, "revoke")
    again = world.renew("ana", held.json["request"])
    assert (again.status_code, again.json and again.json["code"]) == (503, "log-damaged")


def test_a_request_that_is_removed_is_missed(world: World, database: Database) -> None:
    assert world.ask("ana", role="db-admin").status_code == 202
    world.ask("bo")
    world.reopen()
    forget(database, "request")
    again = world.ask("ana", role="db-admin")
    assert (again.status_code, again.json and again.json["code"]) == (503, "log-damaged")


def test_a_log_that_becomes_shorter_while_the_ca_runs_stops_it_until_it_is_looked_at(world: World, database: Database) -> None:
    size, body = world.store.size(), world.body("ana", role="dev")
    assert world.ask("ana", role="dev").status_code == 201
    for table, place in (("entries", "idx"), ("checkpoints", "size - 1"), ("nodes", "(position + 1) * (1 << level) - 1")):
        database.execute(f"DELETE FROM {table} WHERE {place} >= ?", [size])  # noqa: S608 - fixed words
    for _ in range(2):
        answer = world.post(body)
        assert (answer.status_code, answer.json and answer.json["code"]) == (503, "log-damaged")
        assert "does not continue the one of 4 that was there before" in answer.text
    assert world.store.size() == size
    damaged = world.ca.log._damaged
    assert damaged is not None
    assert damaged.__traceback__ is None, "an error that is kept keeps whatever it was raised through"
    with pytest.raises(LogDamaged):
        world.ca.log.check()


def test_what_another_process_appended_is_learnt_and_not_asked_again(world: World, database: Database) -> None:
    assert world.ask("ana", role="dev").status_code == 201
    other = world.open_beside()
    assert other.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 200
    assert world.ask("bo").status_code == 403
    forget(database, "lock")
    assert world.ask("ana", role="dev").status_code == 403


def test_what_another_process_appended_is_believed_only_as_far_as_the_root_says(world: World, database: Database) -> None:
    assert world.ask("ana", role="dev").status_code == 201
    other = world.open_beside()
    assert other.act("eve", "lock", "/v1/locks", person="ana", reason="lost").status_code == 200
    database.execute('UPDATE entries SET entry = replace(entry, \'"kind":"lock"\', \'"kind":"unlock"\')')
    assert world.ask("ana", role="dev").status_code == 503
