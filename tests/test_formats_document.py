"""ca/FORMATS.md says what the code does.

Every list of fields, code, limit and name is compared in both directions, the worked example byte for byte, and its commands
are run.
"""

import ast
import importlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import types
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import fields
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import pytest

from ca import (
    acts,
    asking,
    canonical,
    certificate,
    entry,
    issue,
    journal,
    kit,
    krl,
    names,
    request,
    sshsig,
    statement,
    trust,
    verify,
)
from ca.certificate import SignedCertificate
from ca.checkpoint import open_checkpoint
from ca.entry import DecidedEntry, Entry, SaidEntry
from ca.errors import BadSignature, JitSshError, Malformed, Unsigned
from ca.extract import Extract
from ca.findings import Duty, Finding, Privilege, Step, Way
from ca.keys import ALGORITHMS
from ca.merkle import leaf_hash
from ca.proof import proven
from ca.sshd_lines import Login
from ca.statement import ReadStatement, Statement
from ca.trust import Trust
from ca.wire import Reader, string
from server import connection, identity, problems, serving
from server.app import create_app
from server.gateway import MAX_BODY
from tests import emergencies, formats_example
from tests.formats_example import DOCUMENT, NOW, ORIGIN, VECTORS
from tests.world import FILES, World

TEXT: Final = DOCUMENT.read_text()
_HEADING: Final = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_FIELDS: Final = re.compile(r"^```fields\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIELD: Final = re.compile(r"(?P<type>\S+(?: \S+)*?) {2,}(?P<name>\S+(?: \S+)*?)(?: {2,}(?P<note>optional|generated))?")

# Each list of members in the document, with the dataclasses that have them and the one whose members were listed before.
MEMBERS: Final[dict[str, tuple[tuple[type[Any], ...], type[Any] | None]]] = {
    "Every statement": ((Statement,), None),
    "Statement `request`": ((statement.RequestStatement,), Statement),
    "Statement `approve`": ((statement.ApproveStatement,), Statement),
    "Statement `deny`": ((statement.DenyStatement,), Statement),
    "Statement `review`": ((statement.ReviewStatement,), Statement),
    "Statements `withdraw` and `drop`": ((statement.WithdrawStatement, statement.DropStatement), Statement),
    "Statement `certificate`": ((statement.CertificateStatement,), Statement),
    "Statement `revoke`": ((statement.RevokeStatement,), Statement),
    "Statements `lock` and `unlock`": ((statement.LockStatement, statement.UnlockStatement), Statement),
    "Statement `read`": ((ReadStatement,), Statement),
    "Every entry": ((Entry,), None),
    "Entry `genesis`": ((entry.GenesisEntry,), Entry),
    "Fork": ((entry.Fork,), None),
    "Entry `policy`": ((entry.PolicyEntry,), Entry),
    "What a person caused": ((SaidEntry,), Entry),
    "Every decision": ((DecidedEntry,), SaidEntry),
    "Entry `request`": ((entry.RequestEntry,), DecidedEntry),
    "Entry `approve`": ((entry.ApproveEntry,), DecidedEntry),
    "Entries `deny`, `withdraw` and `drop`": ((entry.DenyEntry, entry.WithdrawEntry, entry.DropEntry), SaidEntry),
    "Entry `refuse`": ((entry.RefuseEntry,), DecidedEntry),
    "Entry `read`": ((entry.ReadEntry,), SaidEntry),
    "Entry `renew`": ((entry.RenewEntry,), DecidedEntry),
    "Entry `issue`": ((entry.IssueEntry,), Entry),
    "Entry `revoke`": ((entry.RevokeEntry,), SaidEntry),
    "Entries `lock` and `unlock`": ((entry.LockEntry, entry.UnlockEntry), SaidEntry),
    "Entry `seal`": ((entry.SealEntry,), Entry),
    "Entry `kit`": ((entry.KitEntry,), Entry),
    "Entry `break-glass`": ((entry.BreakGlassEntry,), Entry),
    "Entry `review`": ((entry.ReviewEntry,), SaidEntry),
    "Entry `login`": ((entry.LoginEntry,), Entry),
    "Login": ((Login,), None),
    "Finding": ((Finding,), None),
    "Duty": ((Duty,), None),
    "Way": ((Way,), None),
    "Step": ((Step,), None),
    "Privilege": ((Privilege,), None),
    "Trust": ((Trust,), None),
    "Extract proof": ((Extract,), None),
    "Seal": ((kit.Seal,), None),
    "Share": ((kit.Share,), None),
    "Kit facts": ((kit.Facts,), None),
    "Every line": ((journal.Line,), None),
    "Line `open`": ((journal.Open,), journal.Line),
    "Lines `use` and `drill`": ((journal.Use, journal.Drill), journal.Line),
    "Line `drilled`": ((journal.Drilled,), journal.Line),
    "Line `refused`": ((journal.Refused,), journal.Line),
    "Line `close`": ((journal.Close,), journal.Line),
}
TAGS: Final = {
    "Every statement": "action", "Every entry": "kind", "Every line": "kind",
    "Trust": "trust", "Extract proof": "extract", "Kit facts": "kit", "Login": "login",
}  # fmt: skip
BASE64: Final = {"signature", "possession", "tbs"}
OTHERS: Final = {  # lists that are compared with bytes, answers or the database below
    "Request body", "Case", "Case file", "Case of a use",
    "SSHSIG", "Signed bytes", "Certificate blob", "KRL", "Problem", "Problem of a refused request",
    "Table `entries`", "Table `nodes`", "Table `checkpoints`", "Table `policy_files`",
}  # fmt: skip

Field = tuple[str, str, str | None]


def sections(level: int) -> dict[str, str]:
    """The text below each heading of this level, up to the next heading of any level that is not deeper."""
    headings = list(_HEADING.finditer(TEXT))
    ends = [*headings[1:], None]
    found: dict[str, str] = {}
    for at, heading in enumerate(headings):
        if len(heading[1]) == level:
            last = next((end for end in ends[at:] if end is None or len(end[1]) <= level), None)
            found[heading[2]] = TEXT[heading.end() : last.start() if last else len(TEXT)]
    return found


PARTS: Final = sections(3)
CHAPTERS: Final = sections(2)


def listed(part: str) -> list[Field]:
    """The (type, name, note) of each field in a part's list."""
    (block,) = _FIELDS.findall(PARTS[part])
    matches = [_FIELD.fullmatch(line) for line in block.splitlines()]
    assert all(matches), block
    return [(match["type"], match["name"], match["note"]) for match in matches if match]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without their backquotes; the heading and the line below it left out."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


def type_words(name: str, shape: Any) -> str:
    """A member's type as the document calls it."""
    if get_origin(shape) is tuple:
        return f"list of {type_words('', get_args(shape)[0])}"
    if get_origin(shape) is Mapping:
        return f"map of {type_words('', get_args(shape)[1])}"
    words = {str: "base64" if name in BASE64 else "text", int: "integer", bool: "boolean"}
    return words.get(shape) or str(shape.__name__).lower()


def members(kind: type[Any], known: type[Any] | None) -> set[Field]:
    """What the code has, without the members of `known`."""
    hints = get_type_hints(kind)
    before = {field.name for field in fields(known)} if known else set()
    found = set()
    for field in fields(kind):
        shape, optional = hints[field.name], isinstance(hints[field.name], types.UnionType)
        if optional:
            (shape,) = (part for part in get_args(shape) if part is not type(None))
        if field.name not in before:
            found.add((type_words(field.name, shape), field.name, "optional" if optional else None))
    return found


# --------------------------------------------------------------- the lists


def test_every_list_of_fields_is_compared_with_the_code_here() -> None:
    assert {part for part, text in PARTS.items() if _FIELDS.search(text)} == MEMBERS.keys() | OTHERS
    assert len(_FIELDS.findall(TEXT)) == len(MEMBERS) + len(OTHERS)


@pytest.mark.parametrize("part", MEMBERS)
def test_a_list_of_members_is_that_of_the_dataclass(part: str) -> None:
    tag: set[Field] = {("text", TAGS[part], None)} if part in TAGS else set()
    found = listed(part)
    kinds, known = MEMBERS[part]
    assert all(set(found) == members(kind, known) | tag for kind in kinds)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("part", [*MEMBERS, *sorted(OTHERS)])
def test_every_field_has_its_paragraph_and_no_other_has_one(part: str) -> None:
    openings = re.findall(r"^((?:\*\*`[^`]+`\*\*(?:, )?)+):", PARTS[part], re.MULTILINE)
    explained = [name for opening in openings for name in re.findall(r"`([^`]+)`", opening)]
    assert explained == [name for _, name, _ in listed(part)]


def test_every_kind_of_statement_and_entry_has_its_list_and_no_other_kind_has_one() -> None:
    for headings, kinds in (
        ("Entry|Entries", entry.KINDS),
        ("Statement|Statements", get_args(statement.AnyStatement)),
        ("Line|Lines", get_args(journal.AnyLine)),
    ):
        titles = [part for part in PARTS if re.fullmatch(rf"({headings}) `.*", part)]
        assert sorted(re.findall("`(.*?)`", " ".join(titles))) == sorted(kind.TAG[1] for kind in kinds)
    tagged = (*entry.KINDS, *get_args(statement.AnyStatement), *get_args(journal.AnyLine), trust.Trust, Extract, kit.Facts, Login)
    tags = {kind.TAG[0] for kind in tagged}
    assert tags == set(TAGS.values())
    every = {"Every entry": entry.AnyEntry, "Every statement": statement.AnyStatement, "Every line": journal.AnyLine}
    for part, kind in every.items():
        (line,) = re.findall(rf"^\*\*`{TAGS[part]}`\*\*: (.*?)\.$", PARTS[part], re.MULTILINE | re.DOTALL)
        assert set(re.findall(r"`(.*?)`", line)) == {each.TAG[1] for each in get_args(kind)}


# ------------------------------------------------------ limits, names, codes


@pytest.mark.parametrize("row", rows(CHAPTERS["Limits"]), ids=lambda row: str(row[0]))
def test_a_limit_is_the_constant_of_the_code(row: list[str]) -> None:
    module, _, name = row[0].rpartition(".")
    assert str(getattr(importlib.import_module(module), name)) == row[1]


@pytest.mark.parametrize(
    "module",
    [
        "ca.statement", "ca.sshsig", "ca.entry", "ca.certificate", "ca.checkpoint", "ca.krl", "ca.merkle", "ca.tiles", "ca.trust",
        "ca.journal", "ca.kit", "server.api", "server.cases",
    ],
)  # fmt: skip
def test_every_public_limit_of_a_format_is_in_the_document(module: str) -> None:
    source = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())
    targets = {node.target.id for node in source.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    values = vars(importlib.import_module(module))
    limits = {f"{module}.{name}" for name in targets if not name.startswith("_") and isinstance(values[name], int)}
    assert limits <= {row[0] for row in rows(CHAPTERS["Limits"])}


def test_the_names_are_those_of_the_code() -> None:
    patterns = {name: value.pattern for name, value in vars(names).items() if isinstance(value, re.Pattern)}
    assert {row[0]: row[1] for row in rows(CHAPTERS["Names"])} == patterns


def test_a_line_is_what_can_be_shown_whatever_the_version_of_unicode() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        selector = 0xE0100 <= code <= 0xE01EF  # marks that select a variant: invisible, so refused with their plane
        if unicodedata.category(character) != "Cn":
            assert bool(names.LINE.fullmatch(character)) == (character.isprintable() and not selector), hex(code)
    assert names.LINE.fullmatch("\U0001fae8")  # unknown to Unicode 14, which Python 3.11 has


def test_the_key_types_and_how_many_fields_they_have_are_those_of_the_code() -> None:
    assert {row[0]: int(row[1]) for row in rows(PARTS["Certificate blob"])} == certificate._KEY_STRINGS
    assert set(certificate._KEY_STRINGS) == set(ALGORITHMS)


def refusal_codes() -> set[str]:
    """The codes that the document gives to `refuse` entries."""
    _, _, text = PARTS["Entry `refuse`"].partition("**`code`**:")
    return set(re.findall(r"`(.*?)`", text.partition(". See")[0]))


def test_the_codes_and_their_statuses_are_those_of_the_code() -> None:
    ours = {kind.code: status.value for kind, status in problems.STATUS.items()}
    http = {problems.HTTP_CODES[status]: status.value for status in problems.HTTP_CODES}
    others = {"internal": 500, json.loads(serving._BUSY.content)["code"]: int(serving._BUSY.status[:3])}
    documented = {row[0]: int(row[1]) for row in rows(PARTS["Codes"])}
    refused = {code: problems._REFUSED.get(code, 403) for code in refusal_codes()}
    assert documented == ours | http | refused | others


def test_the_codes_of_refusals_are_those_that_the_code_gives() -> None:
    """Each is the second argument of `Moment.refused`."""
    trees = [ast.parse(Path(str(module.__file__)).read_text()) for module in (acts, asking, issue)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    refusals = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "refused"]
    codes = {str(call.args[1].value) for call in refusals if isinstance(call.args[1], ast.Constant)}
    assert len(refusals) > 10
    assert codes == refusal_codes()


def test_every_error_of_the_product_has_a_status_or_is_only_recorded() -> None:
    kinds = {kind for kind in JitSshError.__subclasses__() if kind.__module__ == JitSshError.__module__}
    assert {kind.code for kind in kinds - problems.STATUS.keys()} <= {"refused"}


def test_a_policy_entry_names_the_files_that_decide_and_no_others(world: World) -> None:
    others = (".people.toml", "README.toml", "roles/.old/dev.toml", "roles/.#dev.toml", "roles/é.md", "notes.md")
    world.files |= dict.fromkeys(others, b"")
    size = world.store.size()
    world.ca.adopt(world.files)
    assert world.store.size() == size
    world.adopt(guardrails='auditors = ["security", "sre"]\n')
    newest = world.entries()[-1]
    assert isinstance(newest, entry.PolicyEntry)
    assert newest.files == {name: sha256(text).hexdigest() for name, text in world.files.items() if name not in others}
    for name, digest in newest.files.items():
        assert world.store.policy_file(digest) == world.files[name]


# --------------------------------------------------------------------- HTTP


def test_the_routes_are_those_of_the_program(world: World) -> None:
    rules = [rule for rule in create_app(world.ca, world.store).url_map.iter_rules() if rule.endpoint != "static"]
    found = {f"{method} {path}" for rule in rules for path in _paths(rule.rule) for method in rule.methods or ()}
    listed_here = {row[0] for row in rows(PARTS["Routes"])}
    assert listed_here == {route for route in found if not route.startswith(("HEAD ", "OPTIONS "))}


def _paths(rule: str) -> Iterator[str]:
    """The paths of a rule as the document writes them, one for each word of a choice."""
    rule = rule.replace("<int:index>", "N").replace("<path:path>", "PATH").replace("<digest>", "DIGEST")
    choice = re.search(r"<any\((.*)\):action>", rule)
    for word in choice[1].split(", ") if choice else [""]:
        yield rule.replace(choice[0], word) if choice else rule


def test_a_case_has_the_members_of_the_document(world: World) -> None:
    waiting = world.ask("bo", role="db-admin").json
    assert isinstance(waiting, dict)
    number = waiting["request"]
    granted = world.answer("cy", "approve", number, reason="go on").json
    assert world.renew("bo", number).status_code == 201
    extension = world.ask("bo", role="db-admin").json
    assert isinstance(extension, dict)
    over = world.answer("di", "deny", extension["request"], reason="enough").json
    forced = FILES["roles/web-admin.toml"].replace("[[allow]]", 'force_command = "id"\n[[allow]]')
    world.adopt(role_web_admin=forced)
    commanded = world.read("ana", f"/v1/requests/{world.ask('ana').json['request']}").json  # type: ignore[index]
    seen = [case for case in (waiting, granted, over, commanded) if isinstance(case, dict)]
    assert len(seen) == 4
    words = {str: "text", int: "integer", list: "list"}
    for name in {name for case in seen for name in case}:
        note = None if all(name in case for case in seen) else "optional"
        (kind,) = {words[type(case[name])] for case in seen if name in case}
        assert (kind, name) in [(of, each) for of, each, _ in listed("Case")]
        assert note is None or (kind, name, note) in listed("Case")
    assert {name for case in seen for name in case} == {name for _, name, _ in listed("Case")}


def test_a_case_of_a_use_has_the_members_of_the_document(world: World) -> None:
    of = emergencies.sealed(world)
    pen = of.pen()
    pen.begin()
    for key in (emergencies.ANA, world.people["ana"]):
        pen.use(key)
    of_nobody, of_ana = emergencies.lines(world, of, pen.lines)[1:]
    waiting = world.read("eve", f"/v1/requests/{of_nobody}").json
    reviewed = world.answer("eve", "review", of_ana, verdict="real", reason="INC-77").json
    assert isinstance(waiting, dict)
    assert isinstance(reviewed, dict)
    words: dict[type[Any], str] = {str: "text", list: "list of text"}
    notes = {name: None if name in waiting else "optional" for name in reviewed}
    assert {(words[type(value)], name, notes[name]) for name, value in reviewed.items()} == set(listed("Case of a use"))


def test_a_case_file_has_the_members_of_the_document(world: World) -> None:
    assert world.ask("ana").status_code == 201
    file = world.read("eve", "/v1/cases/3").json
    assert isinstance(file, dict)
    words = {str: "text", int: "integer", list: "list", bool: "boolean"}
    assert [(words[type(value)], name, None) for name, value in file.items()] == sorted(listed("Case file"), key=lambda of: of[1])


def test_the_statuses_of_a_request_are_those_of_the_code() -> None:
    assert {row[0] for row in rows(CHAPTERS["The state of a request"])} == set(get_args(request.Status))


# ------------------------------------------------------------------ problems


def test_a_problem_has_exactly_the_members_of_the_document(world: World) -> None:
    problem = world.http.get("/v1/roles").json
    assert isinstance(problem, dict)
    words = {str: "text", int: "integer", list: "list"}
    assert {(words[type(value)], name, None) for name, value in problem.items()} == set(listed("Problem"))


def test_the_problem_of_a_refused_request_has_the_members_of_the_document(world: World) -> None:
    problem = world.ask("bo").json
    assert isinstance(problem, dict)
    assert set(problem) == {name for _, name, _ in (*listed("Problem"), *listed("Problem of a refused request"))}
    refusal = world.entries()[problem["entry"]]
    assert isinstance(refusal, entry.RefuseEntry)
    assert (problem["code"], problem["status"], problem["type"]) == (refusal.code, 403, f"urn:jit-ssh:problem:{refusal.code}")


@pytest.mark.parametrize(
    ("method", "path", "size", "code"),
    [
        ("POST", "/v1/ca", 0, "method-not-allowed"),
        ("GET", "/v1/nothing", 0, "not-found"),
        ("POST", "/v1/requests", MAX_BODY + 1, "too-large"),
        ("POST", "/v1/requests", MAX_BODY, "malformed"),
    ],
)
def test_what_http_refuses_has_a_code_of_the_document(world: World, method: str, path: str, size: int, code: str) -> None:
    answer = world.http.open(path, method=method, data=b" " * size)
    assert answer.json is not None
    assert answer.json["code"] == code
    assert [code, str(answer.status_code)] in [row[:2] for row in rows(PARTS["Codes"])]


def test_a_body_that_the_gateway_refuses_has_the_code_of_the_document() -> None:
    too_large = connection._TOO_LARGE
    problem = json.loads(too_large.content)
    assert [problem["code"], too_large.status[:3]] in [row[:2] for row in rows(PARTS["Codes"])]
    assert set(problem) == {name for _, name, _ in listed("Problem")} - {"instance"}


# ------------------------------------------------------------------ database


def _columns(database: sqlite3.Connection, table: str) -> Iterator[Field]:
    for _, name, kind, _, _, _, hidden in database.execute(f"PRAGMA table_xinfo({table})"):
        yield kind, name, "generated" if hidden else None


def test_the_tables_columns_triggers_and_indexes_are_those_of_the_database(world: World) -> None:
    database = sqlite3.connect(world.directory / "log.db")
    found = {kind: {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = ?", [kind])}
             for kind in ("table", "trigger", "index")}  # fmt: skip
    tables = {part.split("`")[1] for part in PARTS if part.startswith("Table ")}
    assert found["table"] == tables | {"_sqlite_migrations"}
    for table in tables:
        assert list(_columns(database, table)) == listed(f"Table `{table}`")
    assert found["trigger"] == {row[0] for row in rows(PARTS["Triggers and indexes"])}
    (indexes,) = re.findall(r"^The indexes are (.*?)\.$", PARTS["Triggers and indexes"], re.MULTILINE | re.DOTALL)
    ours = {name for name in found["index"] if name.startswith("entries")}
    assert set(re.findall(r"`(.*?)`", indexes)) == ours
    database.close()


# -------------------------------------------------------------- wire formats


def _walk(part: str, blob: bytes, key_type: str = "") -> dict[str, bytes]:
    """Reads `blob` by the document's list alone; nothing may be left."""
    reader, found = Reader(blob, part), {}
    for kind, name, _ in listed(part):
        if kind == "fields":
            count = next(int(row[1]) for row in rows(PARTS[part]) if row[0] == key_type)
            found[name] = b"".join(reader.string() for _ in range(count))
        elif kind == "string":
            found[name] = reader.string()
        else:
            found[name] = reader.take({"byte": 1, "byte[6]": 6, "uint32": 4, "uint64": 8}[kind])
    reader.end()
    return found


def test_a_signature_is_read_by_the_list_of_the_document() -> None:
    blob = formats_example.ANA.sshsig(b"text").blob
    found = _walk("SSHSIG", blob)
    assert (found["magic"], found["version"], found["namespace"]) == (b"SSHSIG", b"\0\0\0\1", b"jit-ssh")
    assert (found["reserved"], found["hash algorithm"]) == (b"", b"sha512")
    signed = _walk("Signed bytes", sshsig.signed_bytes(b"text"))
    assert signed.pop("hash") == sha512(b"text").digest()
    assert signed.items() <= found.items()


def test_a_certificate_is_read_by_the_list_of_the_document(example: Mapping[str, bytes]) -> None:
    signed = SignedCertificate.parse_line(example["certificate-cert.pub"].decode())
    found = _walk("Certificate blob", signed.blob, signed.certificate.key.algorithm)
    assert int.from_bytes(found["serial"], "big") == 3
    assert (found["key id"], found["certificate type"], found["reserved"]) == (b"ana/web-logs/2", b"\0\0\0\1", b"")
    assert found["signature key"] == formats_example.CA_KEY.public_key.blob
    assert (found["nonce"], found["signature"]) == (formats_example.NONCE, signed.signature)


def test_a_revocation_list_is_read_by_the_list_of_the_document(example: Mapping[str, bytes]) -> None:
    found = _walk("KRL", example["krl"])
    assert found["magic"] == b"SSHKRL\n\0"
    assert (found["format"], found["version"], found["section type"]) == (bytes([0, 0, 0, 1]), bytes([*[0] * 7, 9]), b"\x01")
    assert (found["date"], found["flags"]) == (NOW.to_bytes(8, "big"), bytes(8))
    ca_key = formats_example.CA_KEY.public_key
    assert found["section"] == string(ca_key.blob) + string("") + b"\x20" + string((7).to_bytes(8, "big"))
    assert krl.parse(example["krl"], ca_key).serials == (7,)


def test_the_body_has_exactly_the_members_of_the_document(example: Mapping[str, bytes]) -> None:
    body = json.loads(example["body.json"])
    assert {name for _, name, _ in listed("Request body")} == set(body)
    policy = formats_example.policy()
    assert identity.asked(example["body.json"], None, policy, ORIGIN, NOW).person == "ana"
    wrong = [body | {"more": ""}, *({name: body[name] for name in body if name != left} for left in body)]
    for members_sent in wrong:
        with pytest.raises(Malformed):
            identity.asked(json.dumps(members_sent).encode(), None, policy, ORIGIN, NOW)


# --------------------------------------------------- the rules for one spelling

READ: Final = formats_example.READ.decode()


def test_text_is_escaped_as_the_document_says() -> None:
    every = "".join(map(chr, (*range(0x80), 0x2028, 0xE9, 0x1F600)))
    short = {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r", 0x22: r"\"", 0x5C: r"\\"}
    spelled = "".join(short.get(ord(each), rf"\u00{ord(each):02x}" if each < " " else each) for each in every)
    assert canonical.encode({"a": every}).decode() == f'{{"a":"{spelled}"}}'


def test_members_are_sorted_by_code_points_and_absent_is_not_empty() -> None:
    assert canonical.encode({"\U0001f600": 1, "\ufb33": 2, "b": 3, "B": 4}).decode() == '{"B":4,"b":3,"\ufb33":2,"\U0001f600":1}'
    assert canonical.encode(Privilege(principals=(), duration=1)) == b'{"duration":1,"permit":[],"principals":[]}'


@pytest.mark.parametrize(
    "spelling",
    [
        READ + "\n",
        " " + READ,
        "\ufeff" + READ,
        READ.replace(":", ": ", 1),
        READ.replace("/v1", r"\/v1"),
        READ.replace("read", r"\u0072ead", 1),
        READ.replace("1800000000", "1800000000.0"),
        READ.replace("1800000000", "18e8"),
        READ.replace("1800000000", "-0"),
        READ.replace("1800000000", "01800000000"),
        READ.replace("1800000000", str(2**63)),
        READ.replace("1800000000", "true"),
        READ.replace('"time"', '"tome":null,"time"'),
        READ[:-1] + ',"time":1800000000}',
        READ[:-1] + ',"zone":"utc"}',
        READ.replace('"action":"read",', "")[:-1] + ',"action":"read"}',
    ],
)
def test_a_statement_has_no_second_spelling(spelling: str) -> None:
    assert isinstance(statement.parse(READ.encode()), ReadStatement)
    with pytest.raises(Malformed):
        statement.parse(spelling.encode())


def test_the_authorization_has_no_second_spelling() -> None:
    header, policy = formats_example.authorization(), formats_example.policy()
    path = "/v1/log/entries?start=0&limit=500"
    assert identity.reader(header, path, None, policy, ORIGIN, NOW).person == "ana"
    text, _, signature = header.removeprefix("JIT-SSH ").partition(".")
    padding = ["=" * (-len(part) % 4) for part in (text, signature)]
    assert padding[0] or padding[1]
    for other in (
        f"JIT-SSH {text}{padding[0]}.{signature}{padding[1]}",
        "JIT-SSH " + header.removeprefix("JIT-SSH ").replace("_", "/"),
        header.replace("JIT-SSH", "jit-ssh"),
        header.replace("JIT-SSH ", "JIT-SSH  "),
        f"{header},{header}",
        header + ".",
        header[:-1],
    ):
        assert other != header
        with pytest.raises((Malformed, Unsigned, BadSignature)):
            identity.reader(other, path, None, policy, ORIGIN, NOW)


# ---------------------------------------------------------------- the example


@pytest.fixture(scope="module")
def example() -> Mapping[str, bytes]:
    """The files of the example as the code makes them."""
    return formats_example.make()


def test_the_files_of_the_example_are_what_the_code_makes(example: Mapping[str, bytes]) -> None:
    stored = {path.relative_to(VECTORS).as_posix(): path.read_bytes() for path in VECTORS.rglob("*") if path.is_file()}
    assert stored == example


def test_the_document_shows_the_files_of_the_example(example: Mapping[str, bytes]) -> None:
    assert formats_example.with_files(TEXT, example) == TEXT
    shown = re.findall(r"^`([a-z0-9.-]+)`:\n\n```$", TEXT, re.MULTILINE)
    assert set(example) - set(shown) == {name for name in example if name.startswith("policies/")} | {"signers", "tile", "krl"}


def test_the_commands_of_the_document_print_what_it_says() -> None:
    assert TEXT.count("$ ") > 10
    assert formats_example.with_answers(TEXT, VECTORS) == TEXT


def test_the_example_verifies(example: Mapping[str, bytes]) -> None:
    trusted = Trust.parse(example["trust.json"])
    checkpoint = open_checkpoint(example["checkpoint"], trusted.verifier)
    entries = [(index, example[f"entry-{index}.json"]) for index in range(4)]
    report = verify.verify(trusted, checkpoint, [leaf_hash(source) for _, source in entries], entries)
    assert (report.entries, report.signatures, report.certificates) == (4, 2, 1)
    sources = [example[f"entry-{index}.json"] for index in range(8)]
    assert (sources[4], sources[5]) == (entry.decode(sources[4]).encode(), entry.decode(sources[5]).encode())
    signed = SignedCertificate.parse_line(example["certificate-cert.pub"].decode())
    signed.verify(trusted.public_keys[0])
    assert proven(signed, trusted) == checkpoint
    assert trusted.fingerprint.removeprefix("SHA256:") in TEXT


@pytest.mark.parametrize(
    ("file", "old", "new", "command"),
    [
        ("statement.json", b"900", b"901", "-s statement.sig < statement.json"),
        ("statement.json", b"900", b"901", "-s possession.sig < statement.json"),
        ("entry-1.json", b'"index":1', b'"index":2', "cmp leaves tile"),
        ("checkpoint", b"\n4\n", b"\n5\n", "openssl pkeyutl -verify"),
        ("entry-3.json", b'"tbs":"AAAAI', b'"tbs":"AAAAJ', "cmp - tbs"),
        ("entry-3.json", b'"request":2', b'"request":1', "cmp - entry-3.json"),
        ("certificate.tlog-proof", b"\n6fNi", b"\n6eNi", "sed -n 5p certificate.tlog-proof"),
        ("certificate.tlog-proof", b"index 3", b"index 2", "cmp - certificate.tlog-proof"),
        ("certificate-cert.pub", b"cNrmmxDQ==", b"cNrmmxDg==", "ssh-keygen -L -f certificate-cert.pub"),  # the CA's signature
        ("policies/hosts.toml", b"web-*", b"*", "sha256sum"),
        ("approval.json", b"1200", b"1201", "-s approval.sig < approval.json"),
        ("entry-4.json", b'"index":4', b'"index":5', "cat entry-4.json; } | openssl dgst -sha256 | sed"),
        ("krl", b"\0\0\0\x07", b"\0\0\0\x08", "ssh-keygen -Q -f krl another-cert.pub"),
        ("facts.json", b'"quorum":2', b'"quorum":1', "openssl dgst -sha256 facts.json"),
        ("journal.jsonl", b'"host":"laptop"', b'"host":"laptot"', "head -n 1 journal.jsonl"),
        ("journal.jsonl", b"CA down", b"CA dawn", "-s use.sig < use"),
    ],
)
def test_the_commands_notice_a_changed_file(file: str, old: bytes, new: bytes, command: str, tmp_path: Path) -> None:
    changed = shutil.copytree(VECTORS, tmp_path / "files")
    source = (changed / file).read_bytes()
    assert source.count(old) == 1
    (changed / file).write_bytes(source.replace(old, new))
    before, after = (_answer(formats_example.with_answers(TEXT, files), command) for files in (VECTORS, changed))
    assert before != after


def _answer(document: str, command: str) -> str:
    (found,) = re.findall(rf"^\$ [^\n]*{re.escape(command)}[^\n]*\n(.*?)(?=^\$ |^```)", document, re.MULTILINE | re.DOTALL)
    return str(found)


def test_ssh_keygen_signs_the_same_bytes_as_the_example(tmp_path: Path) -> None:
    """The deterministic signature of Ed25519: another program, the same key and statement, the same file."""
    private = tmp_path / "ana"
    private.write_bytes(formats_example.ANA.private_file)
    private.chmod(0o600)
    shutil.copy(VECTORS / "statement.json", tmp_path)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(private), "-n", "jit-ssh", str(tmp_path / "statement.json")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "statement.json.sig").read_bytes() == (VECTORS / "statement.sig").read_bytes()
