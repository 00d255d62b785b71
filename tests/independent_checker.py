"""Judges a log by what `ca/FORMATS.md` says of it: a second program that shares no code with this project.

It is slow and plain: it looks through the whole log for each question. Not looked at: what follows from the lines of break-glass
journals.
"""

import base64
import hashlib
import sqlite3
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.independent_formats import (
    ENTRIES,
    LIMITS,
    STATEMENTS,
    Members,
    Wire,
    Wrong,
    binary,
    certificate,
    check_note,
    check_sshsig,
    demand,
    key_of,
    leaf_hash,
    read,
    tree_hash,
)

FRESH, BACKDATE = LIMITS["ca.statement.FRESH"], LIMITS["ca.certificate.BACKDATE"]
LARGEST, LONGEST = LIMITS["ca.entry.LARGEST"], LIMITS["ca.certificate.LONGEST"]


@dataclass
class Log:
    """What was received. Without `files`, whose keys signed is not judged; without `notes` and `nodes`, they are not.

    Of the nodes, those of all `levels` have to be there.
    """

    trust: Members
    entries: list[bytes]
    notes: dict[int, str] = field(default_factory=dict)
    nodes: dict[tuple[int, int], bytes] | None = None
    files: dict[str, bytes] | None = None
    levels: range = range(64)


def from_database(path: Path, trust: Members) -> Log:
    """A copy of the database, by its tables in the document."""
    with sqlite3.connect(path) as db:
        entries = [text.encode() for (text,) in db.execute("SELECT entry FROM entries ORDER BY idx")]
        notes = dict(db.execute("SELECT size, note FROM checkpoints").fetchall())
        nodes = {(level, position): hash_ for level, position, hash_ in db.execute("SELECT * FROM nodes")}
        files = dict(db.execute("SELECT sha256, content FROM policy_files").fetchall())
    db.close()
    return Log(trust, entries, notes, nodes, files)


def first_wrong(log: Log) -> tuple[int | None, str] | None:
    """The index of the first wrong entry (None: it is no entry) and what is wrong with it; None for a sound log."""
    history = History(log)
    for index, source in enumerate(log.entries):
        try:
            history.take(index, source)
        except (Wrong, KeyError, IndexError) as error:
            return index, str(error)
    try:
        demand(history.asking is None, "a certificate is missing")
    except Wrong as error:
        return len(log.entries), str(error)
    try:
        check_tree(log)
    except Wrong as error:
        return None, str(error)
    return None


def check_tree(log: Log) -> None:
    leaves = list(map(leaf_hash, log.entries))
    for size, note in log.notes.items():
        demand(check_note(note, log.trust["log_key"]) == (size, tree_hash(leaves[:size])), f"the checkpoint at {size}")
    demand(not log.notes or max(log.notes) == len(leaves), "the newest checkpoint is of another size")
    if log.nodes is not None:
        complete = [(level, at) for level in log.levels for at in range(len(leaves) >> level)]
        expected = {(level, at): tree_hash(leaves[at << level : (at + 1) << level]) for level, at in complete}
        demand(log.nodes == expected, "the nodes")
    for digest, content in (log.files or {}).items():
        demand(hashlib.sha256(content).hexdigest() == digest, f"the file {digest}")


class History:
    """The entries so far, and what can be said next."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.seen: list[Members] = []
        self.leaves: list[str] = []
        self.statements: list[Members | None] = []
        self.locked: set[str] = set()
        self.policy = 0
        self.owners: dict[bytes, str] = {}
        self.asking: tuple[Members, bytes] | None = None  # an entry that its certificate has to follow, and the key

    def take(self, index: int, source: bytes) -> None:
        demand(len(source) <= LARGEST, "too long")
        entry = read(source, ENTRIES, "kind")
        demand(entry["index"] == index, "another index")
        demand(not self.seen or entry["time"] >= self.seen[-1]["time"], "the time goes back")
        demand((entry["kind"] == "genesis") == (index == 0), "a genesis that is not the first, or none")
        demand(self.asking is None or entry["kind"] == "issue", "not the certificate that has to follow")
        asking, self.asking = self.asking, None
        statement = self.check_statement(entry) if "statement" in entry else None
        check_on_call(entry)
        check = getattr(self, f"check_{entry['kind'].replace('-', '_')}", None)
        if entry["kind"] == "issue":
            self.check_issue(entry, asking)
        elif check is not None:
            check(entry, statement)
        self.seen.append(entry)
        self.statements.append(statement)
        self.leaves.append(leaf_hash(source).hex())

    # ------------------------------------------------------------ one by one

    def check_genesis(self, entry: Members, _statement: None) -> None:
        trust = self.log.trust
        demand((entry["origin"], entry["log_key"]) == (trust["origin"], trust["log_key"]), "another log")

    def check_policy(self, entry: Members, _statement: None) -> None:
        self.policy = entry["index"]
        if self.log.files is None:
            return
        for name, digest in entry["files"].items():
            demand(digest in self.log.files, f"{name} is not there")
            demand(hashlib.sha256(self.log.files[digest]).hexdigest() == digest, f"{name} was changed")
        people = tomllib.loads(self.log.files[entry["files"]["people.toml"]].decode())
        revoked = set(people.get("revoked_keys", ()))
        self.owners = {}
        for person, about in people.get("people", {}).items():
            for blob in map(key_of, about["keys"]):
                fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
                if fingerprint not in revoked:
                    self.owners[blob] = person

    def check_statement(self, entry: Members) -> Members:
        """Item 4 of what a verifier checks."""
        kind, seconds = entry["kind"], entry["time"] // 1000
        statement, key = check_words(entry, self.log.trust["origin"])
        for before, other in zip(self.seen, self.statements, strict=True):
            recent = before["time"] // 1000 >= seconds - 2 * FRESH
            demand(not (recent and other and other["id"] == statement["id"]), "a statement that was used before")
        if self.log.files is not None:
            demand(self.owners.get(key) == entry["actor"], "a key that is not the actor's")
        demand(entry["policy"] == self.policy, "another policy")
        if kind != "refuse":
            demand(entry["actor"] not in self.locked, "locked out")
            demand(statement["action"] == {"renew": "certificate"}.get(kind, kind), "the statement says something else")
            self.check_named(entry, statement)
        return statement

    def check_named(self, entry: Members, statement: Members) -> None:
        """What the statement names, the entry names too."""
        for name in ("role", "serial", "person"):
            if name in statement:
                demand(entry.get(name) == statement[name], f"another {name}")
        demand(entry["kind"] != "revoke" or ("serial" in entry) == ("serial" in statement), "another serial")
        if entry["kind"] in {"approve", "deny", "withdraw", "review"}:
            demand(entry["request"] == statement["request"], "another request")
        elif entry["kind"] in {"drop", "revoke"}:
            first = self.first(self.request(statement["request"])) if "request" in statement else None
            demand(entry.get("request") == first, "another request")
        elif entry["kind"] == "renew":
            demand(self.first(self.request(statement["request"])) == self.first(self.request(entry["request"])), "another grant")

    # --------------------------------------------------- the state of a request

    def request(self, index: int) -> Members:
        demand(0 <= index < len(self.seen) and self.seen[index]["kind"] == "request", f"{index} is no request")
        return self.seen[index]

    @staticmethod
    def first(request: Members) -> int:
        return int(request["request"] if "request" in request else request["index"])

    def state(self, request: Members, now: int) -> tuple[str, int | None, Members | None]:
        """Status at `now`, the end of the grant and the privilege, by the table of the document."""
        grant = None if "steps" in request else (request["time"] // 1000, request["privilege"])
        used, ended, ended_at = False, None, None
        for entry in self.seen[request["index"] + 1 :]:
            time, mine = entry["time"] // 1000, entry.get("request") == request["index"]
            if entry["kind"] == "approve" and mine and "privilege" in entry:
                grant = time, entry["privilege"]
            used = used or (entry["kind"] == "issue" and mine)
            is_open = time < (request["expires"] if grant is None else grant[0] + grant[1]["duration"])
            if (end := self.ends(request, entry)) and is_open and not ended:
                ended, ended_at = end, time
        until = None if grant is None else grant[0] + grant[1]["duration"]
        if ended:
            return ended, until if until is None or ended_at is None else min(until, ended_at), grant and grant[1]
        if until is None or grant is None:
            return "pending" if now < request["expires"] else "lapsed", None, None
        return "granted" if now < until else "ended" if used else "unused", until, grant[1]

    def ends(self, request: Members, entry: Members) -> str | None:
        """What becomes of an open request by this entry, if that ends it."""
        kind, about = entry["kind"], entry.get("request")
        if kind in {"deny", "withdraw"} and about == request["index"]:
            return {"deny": "denied", "withdraw": "withdrawn"}[kind]
        if kind in {"drop", "revoke"} and about == self.first(request):
            return "dropped" if kind == "drop" else "revoked"
        everything = kind == "lock" or (kind == "revoke" and about is None and "serial" not in entry)
        return "revoked" if everything and entry["person"] == request["actor"] else None

    def approvals(self, request: Members) -> list[tuple[Members, Members]]:
        pairs = zip(self.seen, self.statements, strict=True)
        return [(e, s) for e, s in pairs if s and e["kind"] == "approve" and e["request"] == request["index"]]

    # ------------------------------------------------------------- kind by kind

    def check_request(self, entry: Members, statement: Members) -> None:
        longest = statement.get("duration", LONGEST)
        demand(entry["privilege"]["duration"] <= longest, "longer than was asked for")
        now, same = entry["time"] // 1000, (entry["actor"], entry["role"])
        mine = [e for e in self.seen if e["kind"] == "request" and (e["actor"], e["role"]) == same]
        expected: tuple[Any, ...] = (None, None, None)
        if mine:
            newest = mine[-1]
            demand(self.state(newest, now)[0] != "pending", "another request waits")
            case = [newest, *([self.request(newest["extends"])] if "extends" in newest else [])]
            held = [e for e in case if self.state(e, now)[0] == "granted"]
            if held:
                longest_held = max(held, key=lambda e: self.state(e, now)[1] or 0)
                count = newest.get("extension", 0) - ("extension" in newest and self.state(newest, now)[2] is None)
                expected = self.first(longest_held), longest_held["index"], count + 1
        demand((entry.get("request"), entry.get("extends"), entry.get("extension")) == expected, "extends something else")
        if "steps" not in entry:
            self.asking = entry, key_of(statement["key"])

    def check_answer(self, entry: Members, statement: Members, *, own: bool) -> Members:
        request = self.request(entry["request"])
        demand(self.state(request, entry["time"] // 1000)[0] == "pending", "it did not wait")
        demand(entry["role"] == request["role"], "another role")
        demand((entry["actor"] == request["actor"]) == own, "by the wrong person")
        demand(own or statement["leaf"] == self.leaves[request["index"]], "about other words")
        return request

    def check_approve(self, entry: Members, statement: Members) -> None:
        request = self.check_answer(entry, statement, own=False)
        before = self.approvals(request)
        demand(entry["actor"] not in {e["actor"] for e, _ in before}, "approved twice")
        if "privilege" in entry:
            demand(len(before) + 1 >= sum(step["count"] for step in request["steps"]), "too few approvals")
            demand(request["privilege"] | {"duration": 0} == entry["privilege"] | {"duration": 0}, "grants something else")
            allowed = [s["duration"] for s in (statement, *(s for _, s in before)) if "duration" in s]
            demand(entry["privilege"]["duration"] <= min(request["privilege"]["duration"], *allowed, 2**62), "grants for longer")

    def check_deny(self, entry: Members, statement: Members) -> None:
        self.check_answer(entry, statement, own=False)

    def check_withdraw(self, entry: Members, statement: Members) -> None:
        self.check_answer(entry, statement, own=True)

    def check_drop(self, entry: Members, statement: Members) -> None:
        request = self.request(statement["request"])
        demand((entry["actor"], entry["role"]) == (request["actor"], request["role"]), "another person's, or another role")

    def check_revoke(self, entry: Members, statement: Members) -> None:
        if "request" in statement:
            demand(self.request(statement["request"])["actor"] == entry["person"], "another person's")

    def check_lock(self, entry: Members, _statement: Members) -> None:
        self.locked.add(entry["person"])

    def check_unlock(self, entry: Members, _statement: Members) -> None:
        self.locked.discard(entry["person"])

    def check_renew(self, entry: Members, statement: Members) -> None:
        request = self.request(entry["request"])
        demand((entry["actor"], entry["role"]) == (request["actor"], request["role"]), "another person's, or another role")
        demand(self.state(request, entry["time"] // 1000)[0] == "granted", "not granted")
        self.asking = entry, key_of(statement["key"])

    def check_issue(self, entry: Members, asking: tuple[Members, bytes] | None) -> None:
        demand(asking, "nobody asked for it")
        assert asking
        by, key = asking
        request = self.request(entry["request"])
        demand(request["index"] == (by["request"] if by["kind"] == "renew" else by["index"]), "nobody asked for it")
        demand((entry["actor"], entry["role"]) == (request["actor"], request["role"]), "another person's, or another role")
        status, until, privilege = self.state(request, entry["time"] // 1000)
        demand(status == "granted" and privilege and until, "not granted")
        assert privilege
        assert until
        found = certificate(binary(entry["tbs"]))
        demand(found.pop("ca_key") in [key_of(line) for line in self.log.trust["ca_keys"]], "another CA")
        end = found.pop("valid_before")
        demand(end <= min(until, by.get("until", until)), "outlives its grant")
        demand(end > found["valid_after"], "never valid")
        options = {"force_command": privilege.get("force_command"), "source_address": privilege.get("source_address")}
        expected = {"key": key, "serial": entry["index"], "key_id": f"{entry['actor']}/{entry['role']}/{request['index']}"}
        expected |= {"valid_after": entry["time"] // 1000 - BACKDATE, "principals": privilege["principals"]}
        demand(found == expected | options | {"permit": privilege["permit"]}, "not what was granted")


def check_words(entry: Members, origin: str) -> tuple[Members, bytes]:
    """What somebody said in an entry, and the key that signed it: as far as that is to be judged without other entries."""
    text = entry["statement"]
    statement = read(text.encode(), STATEMENTS, "action")
    demand(statement["audience"] == origin, "a statement for another log")
    demand(abs(statement["time"] - entry["time"] // 1000) <= FRESH, "a statement that was not fresh")
    key, touched = check_sshsig(entry["signature"], text)
    demand(touched or not Wire(key).string().startswith(b"sk-"), "a security key without a touch")
    demand(touched or not entry["hardware_key"], "no touch is proven")
    if "possession" in entry:
        demand(statement["action"] in {"request", "certificate"}, "a proof of possession for nothing")
        demand(check_sshsig(entry["possession"], text)[0] == key_of(statement["key"]), "a proof by another key")
    return statement, key


def check_on_call(entry: Members) -> None:
    """Item 9 of what a verifier checks."""
    duties = entry.get("on_call", ())
    findings = [found for way in entry.get("ways", ()) for found in way["findings"] if found["condition"] == "on_call"]
    demand(duties or not findings, "decided by who is on call, without saying what was known")
    demand(all(duty.get("until", 2**62) * 1000 > entry["time"] for duty in duties), "a shift that had ended")
    holds = any(found.get("holds") for found in findings)
    demand(not holds or any("level" in duty for duty in duties), "nobody said that the person is on call")
