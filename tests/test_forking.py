"""`restore --fork`: a log that cannot be continued gets a successor that nobody takes for it, and the break is on record."""

import json
import os
import re
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca import canonical, entry
from ca.certificate import SignedCertificate
from ca.checkpoint import open_checkpoint
from ca.entry import OPERATOR, Fork, GenesisEntry, LockEntry, SealEntry
from ca.errors import JitSshError, LogDamaged, Misconfigured
from ca.judge import Judge
from ca.log import Tail
from ca.statement import LockStatement
from ca.store.sqlite import SqliteCopy
from server import config, copies
from server.directory import create, open_ca
from server.forking import Forked, fork
from tests import emergencies, keys
from tests.formats_example import FixedKey
from tests.keys import Key
from tests.running import ORIGIN, Ran, Running, body, run
from tests.world import uuid7

NEW = "ca2.example.com"


@pytest.fixture
def ana(tmp_path: Path) -> Key:
    return keys.make(tmp_path, name="ana")


@pytest.fixture
def ca(tmp_path: Path, ana: Key) -> Path:
    """A CA with a backup in `old`, and one more entry since."""
    create(tmp_path / "ca", ORIGIN, ("ana", ana.public_key), None)
    grow(tmp_path / "ca")
    copies.backup(tmp_path / "ca", tmp_path / "old")
    grow(tmp_path / "ca")
    return tmp_path / "ca"


def grow(directory: Path) -> None:
    with (directory / "policies" / "people.toml").open("a") as file:
        file.write("#\n")
    opened = open_ca(directory, lambda _path: b"")
    opened.store.close()
    opened.on_call.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def genesis(directory: Path) -> GenesisEntry:
    opened = open_ca(directory, lambda _path: b"")
    with closing(opened.store):
        opened.on_call.close()
        first = entry.decode(next(opened.store.entries(0, 1)))
    assert isinstance(first, GenesisEntry)
    return first


def forked(ca: Path) -> Forked:
    return fork(ca, ca.parent / "old", NEW, None)


def test_a_fork_is_another_log_with_other_keys_and_names_the_one_before(ca: Path) -> None:
    before, public = contents(ca), (ca / "keys" / "ca.pub").read_text()
    made = forked(ca)
    first = genesis(ca)
    assert (first.origin, made.trust.origin, made.old.origin) == (NEW, NEW, ORIGIN)
    assert first.ca_key != public.strip()
    assert first.follows is not None
    kept, lost = (open_checkpoint(note or "", made.old.verifier) for note in (first.follows.kept, first.follows.lost))
    assert (kept.size, lost.size, made.signed) == (made.report.checkpoint.size, kept.size + 1, kept.size + 1)
    after = contents(ca)
    changed = {before["ca.toml"], before["jit-ssh.db"]}  # SQLite took in what was beside the database: it is compared below
    assert set(before.values()) - changed <= set(after.values()), "nothing that was there is gone"
    assert after["ca.toml"].decode() == before["ca.toml"].decode().replace(f'"{ORIGIN}"', f'"{NEW}"')
    assert made.kept is not None
    assert copies.check_copy(made.kept)[0] == made.old, "the old log is still checked by its own keys"
    assert not [name for name in after if "forking" in name]


def test_the_whole_way_of_an_operator(ca: Path, ana: Key) -> None:
    refused = run("restore", ca, ca.parent / "old")
    assert refused.code == 1
    assert "1 would be forgotten" in refused.err
    assert "--fork NEW-ORIGIN" in refused.err
    running = Running(ca)
    in_use = run("restore", ca, ca.parent / "old", "--fork", NEW)
    code, answer = running.ask(body(ana, ana))
    assert (code, in_use.code) == (201, 1), in_use
    assert "stop the server first" in in_use.err
    lost = SignedCertificate.parse_line(answer["certificate"]).certificate
    assert running.stops() == 0
    told = run("restore", ca, ca.parent / "old", "--fork", NEW)
    assert told.code == 0, told.err
    assert f"{ca} is now the CA {NEW}" in told.out
    assert "lost         3 entries that were signed" in told.out
    assert "follows      ca.example.com, of which" in told.out
    running = Running(ca)
    try:
        assert running.ask(body(ana, ana))[1]["code"] == "wrong-audience"
        code, answer = running.ask(body(ana, ana, audience=NEW))
        assert code == 201
        new = SignedCertificate.parse_line(answer["certificate"]).certificate
        assert new.ca_key != lost.ca_key, "whatever the serials are, none is taken for the other"
    finally:
        assert running.stops() == 0
    verified = run("log", "verify", ca)
    assert verified.code == 0, verified.err
    assert told.out.partition("fingerprint  ")[2].split()[0] in run("fingerprint", ca).out


def test_sshd_takes_no_serial_of_one_for_one_of_the_other(ca: Path, ana: Key, tmp_path: Path) -> None:
    """A revocation list of the new CA, as short as it is, is about the new CA's certificates alone."""
    running = Running(ca)
    old = running.ask(body(ana, ana))[1]
    running.stops()
    forked(ca)
    (tmp_path / "old-cert.pub").write_text(old["certificate"])
    (tmp_path / "serials").write_text(f"serial: 1-{old['serial'] + 10}\n")
    list_, ca_key = str(tmp_path / "krl"), str(ca / "keys" / "ca.pub")
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", list_, "-s", ca_key, str(tmp_path / "serials")], check=True)
    asked = ["ssh-keygen", "-Q", "-f", list_, str(tmp_path / "old-cert.pub")]
    assert subprocess.run(asked, check=False, capture_output=True).returncode == 0, "so hosts must let go of the old CA"


def without_database(ca: Path) -> None:
    (ca / "jit-ssh.db").unlink()


def damaged(ca: Path) -> None:
    (ca / "jit-ssh.db").write_bytes(b"garbage" * 1000)


@pytest.mark.parametrize("spoil", [without_database, damaged])
def test_what_is_beside_a_lost_database_still_says_what_was_signed(ca: Path, spoil: Callable[[Path], None]) -> None:
    spoil(ca)
    assert forked(ca).signed == forked_size(ca) + 1


def forked_size(ca: Path) -> int:
    found = genesis(ca).follows
    assert found is not None
    return copies.check_copy(ca.parent / "old" / "jit-ssh.db")[1].checkpoint.size


def test_on_a_new_machine_nobody_knows_what_is_lost(ca: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir(mode=0o700)
    (new / "keys").mkdir(mode=0o700)
    for name in ("ca.toml", "policies"):
        (tmp_path / "old" / name).rename(new / name)
    made = fork(new, tmp_path / "old", NEW, None)
    assert (made.kept, genesis(new).follows) == (None, Fork(log_key=made.old.log_key, kept=kept_note(tmp_path / "old")))


def kept_note(backup: Path) -> str:
    with closing(SqliteCopy(backup / "jit-ssh.db")) as copy:
        return copy.checkpoint() or ""


def same_origin(ca: Path) -> Ran:
    return run("restore", ca, ca.parent / "old", "--fork", ORIGIN)


def no_origin(ca: Path) -> Ran:
    return run("restore", ca, ca.parent / "old", "--fork", "Not An Origin")


def another_cas_backup(ca: Path) -> Ran:
    create(ca.parent / "other", "other.example.com", None, None)
    copies.backup(ca.parent / "other", ca.parent / "others")
    return run("restore", ca, ca.parent / "others", "--fork", NEW)


def no_backup(ca: Path) -> Ran:
    (ca.parent / "old" / "jit-ssh.db").write_bytes(b"")
    return run("restore", ca, ca.parent / "old", "--fork", NEW)


def key_in_an_agent(ca: Path) -> Ran:
    agent = ca.parent / "agent"
    with keys.ssh_agent(agent):
        subprocess.run(["ssh-add", "-q", ca / "keys" / "ca"], check=True, env=os.environ | {"SSH_AUTH_SOCK": str(agent)})
        shown = subprocess.run(["ssh-keygen", "-lf", ca / "keys" / "ca"], check=True, capture_output=True, text=True).stdout
        (ca / "ca.toml").write_text(
            (ca / "ca.toml").read_text().replace('"file:keys/ca"', f'"agent:{shown.split()[1]}?socket={agent}"')
        )
        return run("restore", ca, ca.parent / "old", "--fork", NEW)


def encrypted_keys(ca: Path) -> Ran:
    for name in ("ca", "log"):
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "correct horse", "-f", ca / "keys" / name], check=True)
    return run("restore", ca, ca.parent / "old", "--fork", NEW)


def a_bad_policy(ca: Path) -> Ran:
    (ca / "policies" / "hosts.toml").write_text("= 1")
    return run("restore", ca, ca.parent / "old", "--fork", NEW)


def an_origin_that_is_not_on_a_line_of_its_own(ca: Path) -> Ran:
    text = (ca / "ca.toml").read_text()
    (ca / "ca.toml").write_text(re.sub(r"^origin = .*$", f'"origin" = "{ORIGIN}"', text, flags=re.MULTILINE))
    return run("restore", ca, ca.parent / "old", "--fork", NEW)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (same_origin, "is the log that the backup is of"),
        (no_origin, "origin 'Not An Origin' is not allowed"),
        (another_cas_backup, "it is the log of other.example.com"),
        (no_backup, "cannot be read as a log's database"),
        (key_in_an_agent, "is the old log's"),
        (encrypted_keys, "is encrypted, and the new key would not be"),
        (a_bad_policy, "the policy has 1 problem"),
        (an_origin_that_is_not_on_a_line_of_its_own, "cannot be replaced"),
    ],
)
def test_a_fork_that_cannot_be_changes_nothing(ca: Path, attempt: Callable[[Path], Ran], said: str) -> None:
    done = attempt(ca)
    assert (done.code, done.out) == (1, ""), done
    assert said in done.err
    assert config.load(ca).origin == ORIGIN
    assert not [name for name in contents(ca) if "forking" in name or "Z" in name]
    assert (ca / "jit-ssh.db").exists()


def test_encrypted_keys_are_followed_by_encrypted_ones(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("battery staple\n")
    assert encrypted_keys(ca).code == 1
    done = run("restore", ca, tmp_path / "old", "--fork", NEW, "--passphrase-file", tmp_path / "passphrase")
    assert done.code == 0, done.err
    assert run("log", "verify", ca, "--passphrase-file", tmp_path / "passphrase").code == 0
    assert run("restore", ca, tmp_path / "old", "--passphrase-file", tmp_path / "passphrase").code == 2


def test_whoever_was_locked_out_is_not_let_in_by_a_fork(ca: Path, ana: Key, tmp_path: Path) -> None:
    people, bo = ca / "policies" / "people.toml", keys.make(tmp_path, name="bo")
    with people.open("a") as file:
        file.write(f'[people.bo]\ngroups = ["engineers"]\nkeys = ["{bo.public_key.line}"]\n')
    running = Running(ca)
    said = LockStatement(audience=ORIGIN, id=uuid7(), time=int(time.time()), person="bo", reason="laptop lost")
    text = canonical.encode(said)
    signature = b64encode(keys.sshsig(ana, text)).decode()
    answer = running.fetch("/v1/locks", json.dumps({"statement": text.decode(), "signature": signature}).encode())
    assert answer[0] == 200, answer
    assert running.stops() == 0
    copies.backup(ca, tmp_path / "new")
    for backup in ("old", "new"):  # the lock is in what was lost, or in what is left
        with pytest.raises(Misconfigured, match="bo: locked out by the old log"):
            fork(ca, tmp_path / backup, NEW, None)
    people.write_text(people.read_text().partition("[people.bo]")[0])
    assert fork(ca, tmp_path / "old", NEW, None).trust.origin == NEW


@pytest.mark.parametrize("where", ["in what is left", "in what was lost", "nowhere"])
def test_the_operator_is_told_who_was_locked_out_and_which_emergency_key_was_sealed(ca: Path, ana: Key, where: str) -> None:
    def lock_and_seal(tail: Tail) -> list[LockEntry | SealEntry]:
        text = canonical.encode(LockStatement(audience=ORIGIN, id=uuid7(), time=tail.time // 1000, person="zed", reason="left"))
        head: dict[str, Any] = {"time": tail.time, "actor": "ana", "hardware_key": False, "policy": policy}
        signed = b64encode(keys.sshsig(ana, text)).decode()
        lock = LockEntry(index=tail.index, person="zed", statement=text.decode(), signature=signed, address=None, **head)
        seal = emergencies.seal(FixedKey(9))
        return [lock, SealEntry(index=tail.index + 1, time=tail.time, actor=OPERATOR, seal=seal)]

    opened = open_ca(ca, lambda _path: b"")
    with closing(opened.store):
        opened.on_call.close()
        policy = opened.ca.rules.index
        if where != "nowhere":
            opened.ca.log.append(lock_and_seal)
    backup = ca.parent / "old"
    if where == "in what is left":
        backup = ca.parent / "new"
        copies.backup(ca, backup)
    told = run("restore", ca, backup, "--fork", NEW)
    assert told.code == 0, told.err
    assert ("zed was locked out" in told.out) == (where != "nowhere")
    assert ("whom the lost entries locked, nobody may know" in told.out) == (where != "in what is left")
    if where == "nowhere":
        assert "no break-glass key was sealed" in told.out
        return
    assert "jit-ssh lock zed --reason" in told.out
    assert f"emergency  {FixedKey(9).public_key.fingerprint} was sealed, and is not in the new log" in told.out
    assert f"jit-ssh-ca break-glass init {ca} --officers cy,di,eve --quorum 2, then break-glass kit {ca} OUT" in told.out


def test_a_genesis_that_lies_about_what_it_follows_does_not_verify(ca: Path) -> None:
    made = forked(ca)
    first, judge = genesis(ca), Judge.of(made.trust)
    judge.entry(0, first.encode())
    told = first.follows
    assert told is not None
    assert told.lost is not None
    for wrong in (
        replace(told, kept=told.lost, lost=told.kept),
        replace(told, lost=told.kept),
        replace(told, log_key=first.log_key),
        replace(told, kept=told.kept.replace(ORIGIN, NEW)),
        replace(told, lost=json.dumps(told.lost)),
        replace(told, log_key=""),
    ):
        with pytest.raises((LogDamaged, JitSshError)):
            judge.entry(0, replace(first, follows=wrong).encode())


def test_a_fork_that_was_cut_off_is_done_again(ca: Path) -> None:
    made = forked(ca)
    assert made.kept is not None
    (ca / "jit-ssh.db").unlink()  # as a crash before the last rename leaves it: new keys, new ca.toml, no database
    again = forked(ca)
    assert again.trust.origin == NEW
    assert again.trust.ca_keys != made.trust.ca_keys
    assert genesis(ca).origin == NEW
