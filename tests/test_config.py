"""`server.config`: what ca.toml may say, every problem at once, and a manual that says the same."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from ca.errors import Misconfigured
from ca.fields import Table
from server import config
from server.config import Config, LogSettings, WitnessSettings

MANUAL: Final = (Path(config.__file__).parent / "CONFIG.md").read_text()
EXAMPLE: Final = "\n".join(re.findall(r"^    (.*)$", MANUAL, re.MULTILINE))
ROWS: Final = dict(re.findall(r"^\| `([\w.]+)` \| [^|]+ \| ([^|]+) \|$", MANUAL, re.MULTILINE))


def keys(table: type[Table], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that may be set, in the order of the code; the keys of a table behind its name and a point."""
    inner: dict[str, type[Table]] = {"log": LogSettings, "log.witnesses": WitnessSettings}
    for name, field in table.model_fields.items():
        if f"{before}{name}" != "log":
            yield f"{before}{name}", field
        if f"{before}{name}" in inner:
            yield from keys(inner[f"{before}{name}"], f"{before}{name}.")


KEYS: Final = dict(keys(Config))


def load(directory: Path, text: str | bytes) -> Config:
    (directory / config.NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(directory)


def problems(directory: Path, text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as refused:
        load(directory, text)
    assert refused.value.message.startswith(f"{directory / config.NAME} has ")
    assert all(line.startswith(f"{directory / config.NAME}: ") for line in refused.value.problems)
    return tuple(line.removeprefix(f"{directory / config.NAME}: ") for line in refused.value.problems)


# ------------------------------------------------------------------- the manual


def test_the_manual_names_every_key_and_no_other() -> None:
    assert list(ROWS) == list(KEYS), "the table, in the order of the code"
    assert re.findall(r"^### ([\w.]+)$", MANUAL, re.MULTILINE) == list(KEYS), "a section for each"


def test_the_manual_tells_the_defaults() -> None:
    defaults = {}
    for name, field in KEYS.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = list(default) if isinstance(default, tuple) else default
        defaults[name] = "required" if field.is_required() else "none" if default is None else f"`{default}`"
    assert defaults == ROWS


def test_the_manual_says_of_each_key_what_who_controls_it_could_do() -> None:
    sections = re.split(r"^### ", MANUAL, flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections if "*Who c" not in section] == []


def test_the_manuals_example_is_a_configuration(tmp_path: Path) -> None:
    loaded = load(tmp_path, EXAMPLE)
    plain = {name: value for name, value in tomllib.loads(EXAMPLE).items() if name != "log"}
    assert loaded.model_dump(include=set(plain)) == plain
    assert loaded.log.quorum.required == len(loaded.log.quorum.witnesses) == 1


# ------------------------------------------------------------------ what is read


def test_an_origin_is_enough(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'origin = "ca.example.com"')
    assert loaded.model_dump() == {
        "origin": "ca.example.com",
        "ca_key": "file:keys/ca",
        "log_key": "file:keys/log",
        "database": "jit-ssh.db",
        "policies": "policies",
        "listen": "127.0.0.1:8022",
        "tls_certificate": None,
        "tls_key": None,
        "behind_proxy": False,
        "threads": 16,
        "statements_per_minute": 300,
        "reserve": 64,
        "log": {"witnesses": (), "require_witnesses": 0},
    }


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    assert problems(tmp_path, 'orign = "ca"\nthreads = 0\nbehind_proxy = "yes"') == (
        "origin: missing",
        "behind_proxy: must be true or false",
        "threads: must be greater than or equal to 1",
        "orign: unknown key (did you mean 'origin'?)",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "origin: missing"),
        ("origin = 7", "origin: must be text in quotes"),
        ('origin = "CA"', "origin"),
        ('origin = "a b"', "origin"),
        ('origin = "a+b"', "origin"),
        ('origin = "a\\nb"', "origin"),
        ('origin = ""', "origin"),
        ('origin = "ca"\nthreads = 1.5', "threads: must be"),
        ('origin = "ca"\nthreads = true', "threads: must be"),
        ('origin = "ca"\nthreads = 257', "threads: must be less than or equal to 256"),
        ('origin = "ca"\nlisten = "localhost:80"', "'localhost:80' is not an address to listen on"),
        ('origin = "ca"\nlisten = "127.0.0.1"', "is not an address to listen on"),
        ('origin = "ca"\ndatabase = "a\\u0000b"', "database"),
        ('origin = "ca"\n[server]\nthreads = 3', "server: unknown key"),
        ('origin = "ca"\norigin = "ca"', "not TOML"),
        (b"origin = '\xff'", "not UTF-8"),
        ("origin = ", "not TOML"),
    ],
)
def test_a_wrong_value_is_refused_and_named(tmp_path: Path, text: str | bytes, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert said in problem


def test_a_configuration_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"ca\.toml cannot be read: No such file") as refused:
        config.load(tmp_path)
    assert "jit-ssh-ca init" in refused.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_problems(tmp_path_factory: pytest.TempPathFactory, source: bytes) -> None:
    directory = tmp_path_factory.getbasetemp()
    (directory / config.NAME).write_bytes(b'origin = "ca"\n' + source)
    try:
        loaded = config.load(directory)
    except Misconfigured as error:
        said = error.problems
    else:
        said = (loaded.origin,)
    assert said


# ---------------------------------------------------------------- witnesses

KEY: Final = re.findall(r'^    key = "(.*)"$', MANUAL, re.MULTILINE)[0]
OTHER: Final = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"


def witnesses(*those: tuple[str, str], required: int = 0) -> str:
    tables = "".join(f'[[log.witnesses]]\nurl = "{url}"\nkey = "{key}"\n' for url, key in those)
    return f'origin = "ca"\nlog.require_witnesses = {required}\n{tables}'


def test_witnesses_are_read_in_order(tmp_path: Path) -> None:
    loaded = load(tmp_path, witnesses(("https://w.example.org/a", KEY), ("http://127.0.0.1:8023", OTHER), required=2))
    assert [str(each) for each in loaded.log.quorum.witnesses] == [KEY, OTHER]
    assert loaded.log.quorum.required == 2
    assert config.listening(loaded, "[::1]:0").log == loaded.log


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (witnesses(required=1), "log: 1 witnesses are required, 0 are known"),
        (witnesses(required=-1), "log: -1 witnesses are required"),
        (witnesses(("https://w.example.org", KEY), required=2), "log: 2 witnesses are required, 1 are known"),
        (witnesses(("https://a.example.org", KEY), ("https://b.example.org", KEY)), "log: two witnesses have the name"),
        (witnesses(("http://w.example.org", KEY)), "log.witnesses[1].url: http can be forged on its way"),
        (witnesses(("https://w.example.org/?a", KEY)), "log.witnesses[1].url: the address that /add-checkpoint"),
        (witnesses(("w.example.org", KEY)), "log.witnesses[1].url: not the address"),
        (witnesses(("https://a@w.example.org", KEY)), "log.witnesses[1].url: not the address"),
        (witnesses(("https://w.example.org", KEY[:-1])), "log.witnesses[1].key: a verifier key is not"),
        (witnesses(("https://w.example.org", "ca+271527ec+Aa73LKQDe8WCylIi47MheWaZvFNwWCOEhMk9ro0ZeGjn")), "not a witness's"),
        ('origin = "ca"\nlog.witness = []', "log.witness: unknown key (did you mean 'witnesses'?)"),
        ('origin = "ca"\nlog.require_witnesses = "1"', "log.require_witnesses: must be"),
        ('origin = "ca"\n[[log.witnesses]]\nurl = "https://w.example.org"', "log.witnesses[1].key: missing"),
    ],
)
def test_witnesses_that_cannot_be_asked_or_counted_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert said in problem


# ---------------------------------------------------- encrypted, or this machine

TLS: Final = 'tls_certificate = "chain.pem"\ntls_key = "key.pem"\n'


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "127.9.9.9:80", "[::1]:0", "unix:/run/ca.sock"])
def test_plain_http_is_for_this_machine(tmp_path: Path, listen: str) -> None:
    assert load(tmp_path, f'origin = "ca"\nlisten = "{listen}"').listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "10.0.0.1:0", "[::ffff:192.0.2.1]:80"])
def test_other_machines_need_tls_or_a_proxy(tmp_path: Path, listen: str) -> None:
    text = f'origin = "ca"\nlisten = "{listen}"\n'
    (problem,) = problems(tmp_path, text)
    assert "without encryption" in problem
    assert "tls_certificate" in problem
    assert load(tmp_path, text + TLS).tls_key == "key.pem"
    assert load(tmp_path, text + "behind_proxy = true").behind_proxy


@pytest.mark.parametrize("half", TLS.splitlines())
def test_half_of_a_tls_pair_is_refused(tmp_path: Path, half: str) -> None:
    (problem,) = problems(tmp_path, f'origin = "ca"\n{half}')
    assert problem.endswith("tls_certificate and tls_key go together")


def test_another_address_on_the_command_line_is_under_the_same_rules(tmp_path: Path) -> None:
    settings = load(tmp_path, 'origin = "ca"')
    assert config.listening(settings, None) is settings
    assert config.listening(settings, "[::1]:0").listen == "[::1]:0"
    with pytest.raises(Misconfigured, match="without encryption"):
        config.listening(settings, "0.0.0.0:8022")
    with pytest.raises(Misconfigured, match="not an address"):
        config.listening(settings, "everywhere")
