"""Policy files written by an enemy or by a slip: each is refused in plain words, and none of it is loaded."""

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ca import roles
from ca.errors import Misconfigured
from ca.statement import LONGEST_REASON
from tests.policies import FOR_SRE, GUARDRAILS, HEAD, HOSTS, PEOPLE, files, key, policy, problems, problems_of

# What must never be part of a name: each could add a principal, leave a directory, forge a line or pass for another name.
TAINTS = [
    "", " ", "a b", " ana", "ana ", "ana,root", "ana\x00", "ana\n", "ana\nroot", "ana\r", "ana\t", "ana#", "#ana", "*", "an*",
    "an?", "Ana", "ANA", "аna", "ａna", "ana\u0301", "an\u200ba", "\u202eana", "ana\x1b[2J", "-ana", ".ana", "../ana", "a/b",
    "a\\b", "ana@dev", "ana:x", "ana;id", "$(id)", "`id`", "ana'", 'ana"', "ana=", "ana!", "~ana", "%u", "a" * 64, "ana\ud7ff",
]  # fmt: skip


def quoted(text: str) -> str:
    """A TOML basic string: JSON's, but for escapes beyond the basic plane, which do not occur here."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def refused(written: dict[str, str] | None = None, /, **role_files: str) -> tuple[str, ...]:
    """The problems, each a line that a terminal can show."""
    lines = problems(written, **role_files)
    assert lines
    assert all(line.isprintable() and line.isascii() and len(line) < 500 for line in lines), lines
    return lines


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", TAINTS)
def test_no_name_in_any_place_can_be_tainted(name: str) -> None:
    assert policy(web=FOR_SRE).roles
    refused(web=FOR_SRE.replace('"root@web-prod"', quoted(f"{name}@web-prod")))
    refused(web=FOR_SRE.replace('"root@web-prod"', quoted(f"root@{name}")))
    refused(web=FOR_SRE.replace('owner = "sre"', f"owner = {quoted(name)}"))
    refused(web=HEAD + f"[[allow]]\ngroups = [{quoted(name)}]\n")
    refused(web=HEAD + f"[[allow]]\npeople = [{quoted(name)}]\n")
    refused({"people.toml": PEOPLE + f"[people.{quoted(name)}]\ngroups = []\nkeys = [{quoted(key(9).line)}]\n"})
    refused({"people.toml": PEOPLE.replace("[groups]\n", f'[groups]\n{quoted(name)} = "x"\n')})
    refused({"hosts.toml": HOSTS + f'[groups.{quoted(name)}]\nabout = "x"\nhosts = ["x"]\n'})
    refused({"guardrails.toml": f"auditors = [{quoted(name)}]\n"})


@pytest.mark.parametrize(
    "principal",
    [
        "root", "root@", "@web-prod", "root@@web-prod", "root@web-prod@dev", "{person}", "{PERSON}@dev", "{person}{person}@dev",
        "x{person}@dev", "{person}x@dev", "{person}@{person}", "{person.name}@dev", "{0}@dev", "{}@dev", "{{person}}@dev",
        "root@web-prod,root@dev", "root@web-prod\x00", "root@web-prod\n", "root@web-prod ", "root @dev", "root@web-prod#",
        "*@dev", "root@*", "Root@dev", "r\u043eot@dev", "%h@dev",
    ],
)  # fmt: skip
def test_a_principal_is_one_account_on_one_host_group(principal: str) -> None:
    assert "principals[1]" in refused(web=FOR_SRE.replace('"root@web-prod"', quoted(principal)))[0]


@pytest.mark.parametrize(("count", "fits"), [(256, True), (257, False)])
def test_a_role_has_no_more_principals_than_sshd_takes(count: int, fits: bool) -> None:
    many = ", ".join(f'"account{number}@dev"' for number in range(count))
    written = FOR_SRE.replace('"root@web-prod"', many)
    if fits:
        assert len(policy(web=written).roles["web"].principals) == 256
    else:
        assert refused(web=written) == ("roles/web.toml: principals: has more than 256 entries",)


def test_nobody_is_called_root() -> None:
    line = refused({"people.toml": PEOPLE.replace("[people.dora]", "[people.root]")})[0]
    assert line.startswith("people.toml: people.root: nobody can be called root")


@pytest.mark.parametrize(
    "name",
    [
        "roles/../web.toml", "../roles/web.toml", "/roles/web.toml", "./people.toml", "roles//web.toml", "roles/sub/web.toml",
        "roles/Web.toml", "roles/we b.toml", "roles/web\n.toml", "roles/web\x00.toml", "roles/w\u0435b.toml", "roles\\web.toml",
        "roles/web.TOML", "roles/web.toml~", "roles/web", "web.toml", "people.toml.bak", "People.toml", "people.json", "roles/..",
        "../README.md", "roles/-web.toml", "roles/" + "w" * 64 + ".toml", "\x1b]0;x\x07.toml", "",
    ],
)  # fmt: skip
def test_a_file_of_another_name_is_a_problem_and_nothing_is_loaded(name: str) -> None:
    assert policy(good=FOR_SRE).roles
    refused({name: FOR_SRE}, good=FOR_SRE)


@pytest.mark.parametrize(
    "pattern", ["", "!web", "web,db", "web db", "web\n", "web\x00", "we\u0431", "web#", '"web"', "x" * 254, "-web"]
)
def test_a_host_pattern_stays_one_word_of_an_ssh_config(pattern: str) -> None:
    refused({"hosts.toml": HOSTS.replace('"*.dev.example.com"', quoted(pattern))})


@pytest.mark.parametrize("text", ["", " ", "x ", "a\nb", "a\x00b", "a\x1b[2J", "a\u202eb", "x" * 513])
def test_a_forced_command_is_one_bounded_printable_line(text: str) -> None:
    assert policy(web='force_command = "journalctl --follow"\n' + FOR_SRE).roles
    refused(web=f"force_command = {quoted(text)}\n" + FOR_SRE)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2J", "a\u202eb", "x" * 301, "a\u0085b", ""])
def test_a_sentence_cannot_drive_a_terminal(text: str) -> None:
    refused(web=FOR_SRE.replace('"A role"', quoted(text)))
    refused(web=FOR_SRE + f"[[deny]]\nmessage = {quoted(text)}\n")


# ----------------------------------------------------------------------- keys

CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t"
DEGENERATE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    "line",
    [
        "", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-dss AAAAB3NzaC1kc3M=", CERTIFICATE, DEGENERATE,
        f"{key(9).line}\n{key(10).line}", f'command="id" {key(9).line}', f"{key(9).line}\x00",
        key(9).line.replace("ssh-ed25519", "ssh-rsa"), key(9).line[:-4], "/etc/passwd", "x" * 5_000,
    ],
)  # fmt: skip
def test_a_key_is_one_sound_public_key(line: str) -> None:
    assert "people.dora.keys[1]" in refused({"people.toml": PEOPLE.replace(f'"{key(5).line}"', quoted(line))})[0]


@pytest.mark.parametrize(
    "fingerprint",
    [
        "", "SHA256:", key(9).fingerprint + "=", key(9).fingerprint.removeprefix("SHA256:"), key(9).fingerprint[:-1],
        key(9).fingerprint.replace("SHA256", "MD5"), "SHA256:" + "/" * 43, key(9).fingerprint + "\n", key(9).fingerprint.lower(),
    ],
)  # fmt: skip
def test_a_fingerprint_that_could_equal_no_keys_is_a_problem(fingerprint: str) -> None:
    written = PEOPLE.replace(quoted(key(99).fingerprint), quoted(fingerprint))
    assert "revoked_keys[1]" in refused({"people.toml": written})[0]


# ------------------------------------------------------------------ durations


@pytest.mark.parametrize(
    "value",
    [
        "1800", "-1", "0", "nan", "inf", "1.5", "true", '"0s"', '"-1m"', '"1.5h"', '"1e3s"', '"30"', '"30M"', '"30 m"', '"1h30m"',
        '"٣0m"', '"999999999999999999h"', '"25h"', '"86401s"', '"2d"', '""', "1" + "0" * 400, "0x" + "f" * 5000, "09:00:00", "[]",
    ],
)  # fmt: skip
def test_a_duration_is_text_with_a_unit_and_at_most_a_day(value: str) -> None:
    assert policy(web=FOR_SRE.replace('"1h"', '"1d"')).roles["web"].max_duration == 86400
    assert "max_duration" in refused(web=FOR_SRE.replace('max_duration = "1h"', f"max_duration = {value}"))[0]


# ------------------------------------------------------------ reason patterns


def with_pattern(pattern: str) -> str:
    return f'reason = {{ pattern = {quoted(pattern)}, message = "Say why" }}\n' + FOR_SRE


@pytest.mark.parametrize(
    "pattern",
    [
        "", "(a+)+$", "(a|a)*$", "(a*)*", "([a-z]+)*x", "(x+x+)+y", r"(\w+\s?)*$", "(a{1,9}){9}", "a*a*a*a*$", ".*.*.*x",
        "(?=a)a", "(?!a)b", r"(a)\1", "(?P<n>a)", "(?i)inc", "a++", "a+?", "(", "[", "a{", "*", "a**", "INC|CHG", "((a))", r"\Z",
        r"\x41", "[a--b]", r"[\]a--b]", "x" * 201, "[z-a]", "a{3,2}", "a\\",
    ],
)  # fmt: skip
def test_a_pattern_that_could_be_slow_or_means_something_else_is_refused(pattern: str) -> None:
    assert "roles/web.toml: reason.pattern: " in refused(web=with_pattern(pattern))[0]


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^INC-[0-9]+", "INC-12 disk full", "inc-12"),
        ("INC-[0-9]+", "INC-12", "see INC-12"),
        (r"^(INC|CHG)-\d{1,8}\b.+$", "CHG-7 patch", "CHG-7"),
        (r"(?:INC-\d\d|drill)( by ops)?: .+", "drill: x", "INC-1: x"),
        (r"[A-Z]{2,10}-[0-9]+\.", "OPS-1.", "OPS-1"),
        (r"[\]a]\[\*", "][*", "b[*"),
    ],
)
def test_an_ordinary_pattern_is_taken(pattern: str, matching: str, other: str) -> None:
    reason = policy(web=with_pattern(pattern)).roles["web"].reason
    assert reason is not None
    assert reason.pattern.match(matching)
    assert not reason.pattern.match(other)


PIECES = st.sampled_from(
    ["a", "b", ".", "[ab]", r"\w", "(a|b)", "(a|a|ab)?", "(|a)", "a?", "a*", ".+", "[ab]{1,40}", r"\w{2,}", "a{0,99}"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
@example("(a|a|ab)?a*.+x")
@example("(|a)" * 19 + "x")
def test_no_accepted_pattern_is_slow_on_any_reason(pattern: str) -> None:
    try:
        reason = policy(web=with_pattern(pattern + "x$")).roles["web"].reason
    except Misconfigured:
        return
    assert reason is not None
    for text in ("a" * LONGEST_REASON, "ab" * (LONGEST_REASON // 2), "a" * (LONGEST_REASON - 1) + "b"):
        begun = time.process_time()
        reason.pattern.match(text)
        assert time.process_time() - begun < 1


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        ('about = "x"'.encode("utf-16"), "not UTF-8"),
        (b'about = "\xe2\x28\xa1"', "not UTF-8 at byte 9"),
        (b"\xef\xbb\xbf" + FOR_SRE.encode(), "not TOML"),
        (b"\x00", "not TOML"),
        (b"about = 'a\x1bb'", "not TOML"),
        (b"a = 1\na = 2\n", "not TOML"),
        (b"a = " + b"[" * 100_000, "line 1 is longer than 8192 characters"),
        (b"a = " + b"[" * 8_000, "nested too deeply"),
        (b"a = [\n" + b"[\n" * 100_000, "nested too deeply"),
        (b"a = " + b"{a=" * 2_500, "nested too deeply"),
        (b"a." * 4_000 + b"b = 1", "about: missing"),
        (b"[" + b"a." * 4_000 + b"b]", "about: missing"),
        (b"a = " + b"1" * 5_000, "a number is too large"),
        (b"#" + b"x" * (4 << 20), "larger than 4194304 bytes"),
        (b"#\n" * (2 << 20), "about: missing"),
        (b"review_by = 2027-02-30", "not TOML"),
    ],
)
def test_a_file_that_is_no_ordinary_toml_is_refused_quickly(content: bytes, problem: str) -> None:
    begun = time.process_time()
    lines = problems_of(files(good=FOR_SRE) | {"roles/bad.toml": content})
    assert time.process_time() - begun < 5
    assert lines[0].startswith(f"roles/bad.toml: {problem}")
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "content",
    ["people = 1", "people = []", "groups = 3", "[people]\nana = 3", "[[people]]\n[[groups]]", "[groups]\nx = {}"],
)
def test_tables_that_are_something_else_are_refused(content: str) -> None:
    refused({"people.toml": content}, web=FOR_SRE)


def test_a_key_path_is_shown_without_its_control_characters() -> None:
    written = FOR_SRE + '["\\u001b[31mred"]\n"\\u202e" = 1\n'
    assert refused(web=written) == (r"roles/web.toml: '\x1b[31mred': unknown key",)


@pytest.mark.parametrize("table", ["role", "allow", "deny", "guardrail", "person", "host group"])
def test_an_unknown_key_is_refused_in_every_table(table: str) -> None:
    extra = "valid_forever = true\n"
    where: dict[str, dict[str, str]] = {
        "role": {"roles/web.toml": extra + FOR_SRE},
        "allow": {"roles/web.toml": FOR_SRE + extra},
        "deny": {"roles/web.toml": FOR_SRE + '[[deny]]\nmessage = "No"\n' + extra},
        "guardrail": {"guardrails.toml": GUARDRAILS + '[[deny]]\nmessage = "No"\n' + extra},
        "person": {"people.toml": PEOPLE + extra},
        "host group": {"hosts.toml": HOSTS + extra},
    }
    assert re.search(r"valid_forever: unknown key$", refused(where[table])[0])


SOUND = files(web=with_pattern("^INC-[0-9]+") + "hardware_key = true\n" + '[[deny]]\ngroups = ["security"]\nmessage = "No"\n')


def complaint(contents: dict[str, bytes]) -> tuple[str, ...] | None:
    """The problems, or None when the files load; any other exception is the test's failure."""
    try:
        roles.load(contents)
    except Misconfigured as error:
        return error.problems
    return None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SOUND)), st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 3))
def test_any_change_of_any_file_gives_a_policy_or_problems(name: str, at: int, put: bytes, cut: int) -> None:
    sound = SOUND[name]
    at %= len(sound)
    lines = complaint(SOUND | {name: sound[:at] + put + sound[at + cut :]})
    assert lines is None or (lines and all(line.isprintable() for line in lines))


NAMES = st.sampled_from([*SOUND, "roles/x.toml", "y"]) | st.text(max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=60) | st.text().map(str.encode)))
def test_any_files_at_all_give_a_policy_or_problems(written: dict[str, bytes]) -> None:
    lines = complaint(SOUND | written)
    assert lines is None or (lines and all(line.isprintable() for line in lines))
