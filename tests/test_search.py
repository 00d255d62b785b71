"""Searching the log: words find entries, what is found is read from the log, and the index is where nobody can change it."""

from pathlib import Path
from urllib.parse import quote

import pytest

from ca import entry
from server import search
from server.search import Search
from tests import emergencies
from tests.world import World


@pytest.fixture
def asked(world: World) -> World:
    """ana gets web-admin in entries 2 and 3, and is refused in 4; bo waits for db-admin in 5."""
    assert world.ask("ana", reason="INC-12 disk full on the Primary").status_code == 201
    assert world.ask("ana", role="web-admin", reason="no number").status_code == 403
    assert world.ask("bo", role="db-admin", reason="vacuum — größer").status_code == 202
    return world


def found(world: World, person: str, text: str, more: str = "") -> list[int]:
    answer = world.read(person, f"/v1/log/entries?text={quote(text)}{more}")
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert answer.json["searched"] == answer.json["size"] == world.store.size()
    return [entry.decode(text.encode()).index for text in answer.json["entries"]]


def test_words_of_reasons_refusals_people_roles_and_principals_are_found(asked: World) -> None:
    assert found(asked, "eve", "primary") == [2]
    assert found(asked, "eve", "disk primary") == [2]
    assert found(asked, "eve", "prim*") == [2]
    assert found(asked, "eve", "prim") == []
    assert found(asked, "eve", "incident") == [4]
    assert found(asked, "eve", "Größer") == [5]
    assert found(asked, "eve", "bo") == [5]
    assert found(asked, "eve", "root@web") == [2]
    assert found(asked, "eve", "db-admin") == [5]
    assert found(asked, "eve", "disk*", "&actor=bo") == []


def test_what_comes_later_is_found_later(asked: World) -> None:
    assert found(asked, "eve", "later") == []
    assert asked.ask("di", role="db-admin", reason="later").status_code == 202
    assert found(asked, "eve", "later") == [asked.store.size() - 1]


def test_nobody_finds_what_they_may_not_read(asked: World) -> None:
    assert found(asked, "ana", "primary") == [2]
    assert found(asked, "bo", "primary") == []
    assert found(asked, "bo", "vacuum") == [5]


@pytest.mark.parametrize("text", ["", " ", "*", '"', "—", "\0", "***", "'; --"])
def test_a_text_without_words_is_refused(asked: World, text: str) -> None:
    answer = asked.read("eve", f"/v1/log/entries?text={quote(text)}")
    assert answer.status_code == 400
    assert "no word" in answer.text


@pytest.mark.parametrize(
    "text", ['disk" OR "vacuum', "disk OR vacuum", "NOT disk", "reason:disk", "disk NEAR full", "{reason}:disk", "a" * 300]
)
def test_the_grammar_of_the_index_is_not_at_the_readers_disposal(asked: World, text: str) -> None:
    assert found(asked, "eve", text) == []


def test_the_index_is_in_no_file_that_anybody_could_open(asked: World, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    directory.mkdir()
    index = Search(directory, asked.store)
    assert index.find("primary") == ([2], asked.store.size())
    assert list(directory.iterdir()) == []
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    [file] = [path.name for path in opened if path.parent == directory]
    assert file.startswith(".search.")
    assert file.endswith(" (deleted)")


def test_a_long_log_is_taken_in_a_page_at_a_time(asked: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PAGE", 2)
    monkeypatch.setattr(search, "_SECONDS", 0)
    index = Search(tmp_path, asked.store)
    assert index.find("primary") == ([], 2)
    assert index.find("primary") == ([2], 4)
    assert index.find("vacuum") == ([5], 6)


def test_searching_writes_nothing_into_the_log_but_who_looks_at_what_others_did(asked: World) -> None:
    size = asked.store.size()
    found(asked, "ana", "disk")
    assert asked.store.size() == size
    found(asked, "eve", "disk")
    assert asked.kinds()[size:] == ["read"]
    asked.check()


def test_why_the_emergency_key_was_used_is_found(world: World) -> None:
    used = emergencies.hand_in(world, emergencies.sealed(world))
    for text in ("INC-77", "break-glass@web", "ana down"):
        assert found(world, "eve", text) == [used]
