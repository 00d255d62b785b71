"""Canonical JSON and statements: one spelling for each value, and for each text one value or `Malformed`."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ca import canonical, entry, spelled, statement
from ca.canonical import Tagged
from ca.errors import Malformed
from ca.statement import AnyStatement, ReadStatement, RequestStatement
from tests import policies


@dataclass(frozen=True)
class Inner:
    word: str
    flag: bool | None = None


@dataclass(frozen=True)
class Bare(Tagged):
    TAG: ClassVar = ("kind", "bare")

    flag: bool | None


@dataclass(frozen=True, kw_only=True)
class One(Tagged):
    TAG: ClassVar = ("kind", "one")

    text: str
    number: int
    flag: bool
    maybe: str | None = None
    many: tuple[Inner, ...]
    named: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Two(Tagged):
    TAG: ClassVar = ("kind", "two")

    text: str


@dataclass(frozen=True, kw_only=True)
class Outer(Tagged):
    TAG: ClassVar = ("kind", "outer")

    inner: Two


KINDS: tuple[type[One] | type[Two], ...] = (One, Two)
IN_C = spelled.in_c_alone(KINDS)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ONES = st.builds(
    One,
    text=TEXT,
    number=st.integers(-(2**63), 2**63 - 1),
    flag=st.booleans(),
    maybe=st.none() | TEXT,
    many=st.lists(st.builds(Inner, TEXT, st.none() | st.booleans()), max_size=3).map(tuple),
    named=st.dictionaries(TEXT, TEXT, max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(ONES | st.builds(Two, text=TEXT))
def test_what_is_encoded_is_decoded(value: One | Two) -> None:
    source = canonical.encode(value)
    assert canonical.decode(source, KINDS, "it") == value
    assert json.loads(source)["kind"] == value.TAG[1]


@given(ONES, st.data())
def test_what_is_not_the_one_spelling_is_malformed(value: One, data: st.DataObject) -> None:
    source = canonical.encode(value)
    at = data.draw(st.integers(0, len(source)))
    for changed in (source[:at], source[:at] + data.draw(st.binary(min_size=1, max_size=2)) + source[at:]):
        with suppress(Malformed):
            assert canonical.encode(canonical.decode(changed, KINDS, "it")) == changed


@given(JSON)
def test_any_json_is_a_value_or_malformed(value: object) -> None:
    for document in (value, {"kind": "one", "text": value}, {"kind": "two", "text": value}, {"kind": value}):
        source = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        with suppress(Malformed):
            assert canonical.encode(canonical.decode(source, KINDS, "it")) == source


@pytest.mark.parametrize("depth", [1_000, 60_000])
@pytest.mark.parametrize("before", [b'{"a":', b'{"many":[{"a":', b'{"named":{"a":', b'{"kind":"one","many":['])
def test_what_is_nested_deeply_is_malformed(before: bytes, depth: int) -> None:
    for source in (before + b"[" * depth, before + b'{"a":' * depth):
        assert IN_C(source) is None
        for decode in (
            spelled.decoder(KINDS, "it"),
            partial(canonical.decode, kinds=KINDS, what="it"),
            entry.decode,
            statement.parse,
        ):
            with pytest.raises(Malformed):
                decode(source)


def test_a_member_that_may_be_absent_needs_no_default() -> None:
    for value in (Bare(None), Bare(True)):
        assert spelled.decoder((Bare,), "it")(canonical.encode(value)) == value


@given(ONES | st.builds(Two, text=TEXT), st.data())
def test_the_decoder_in_c_takes_what_the_strict_one_takes(value: One | Two, data: st.DataObject) -> None:
    source = canonical.encode(value)
    at = data.draw(st.integers(0, len(source)))
    members = (b'"a":1,', b'"flag":true,', b'"flag":null,', b'"kind":"one",', b'"number":9223372036854775808,', b'"number":1.0,')
    added = data.draw(st.sampled_from((*members, b'"word":"x",', b" ", b"-", b"\\u0041", b"\xff", b"\xed\xa0\x80")))
    for text in (source, source[:at] + added + source[at:], source[:at] + source[at + 1 :]):
        try:
            strict = canonical.decode(text, KINDS, "it")
        except Malformed:
            strict = None
        assert IN_C(text) == strict


@given(JSON)
def test_the_decoder_in_c_takes_no_other_json(value: object) -> None:
    for document in (value, {"kind": "one", "text": value}, {"kind": "two", "text": value}, {"kind": value}):
        source = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
        found = IN_C(source)
        assert found is None or canonical.encode(found) == source


def test_the_decoder_in_c_spells_every_character_and_the_largest_integers_alike() -> None:
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    for value in (
        Two(text=every),
        *(One(text="", number=number, flag=False, many=(), named={every: every}) for number in (-(2**63), 2**63 - 1)),
    ):
        assert IN_C(canonical.encode(value)) == value


@given(st.binary(max_size=100) | st.text(alphabet='{}[]",:\\u0123eE+-.ntf ', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_malformed(source: bytes) -> None:
    with suppress(Malformed):
        assert canonical.parse_object(source, "it") == json.loads(source.decode())


GOOD = '{"flag":true,"kind":"one","many":[],"named":{},"number":1,"text":"x"}'


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (GOOD.replace('"kind":"one",', ""), "of no known kind"),
        (GOOD.replace('"one"', '"three"'), "of no known kind"),
        (GOOD.replace('"one"', '["one"]'), "of no known kind"),
        (GOOD.replace('"one"', "null"), "of no known kind"),
        (GOOD.replace("1", "1.0"), "not an integer"),
        (GOOD.replace("1", "1e0"), "not an integer"),
        (GOOD.replace("1", "-0"), "not canonical"),
        (GOOD.replace("1", "01"), "not JSON"),
        (GOOD.replace("1", str(2**63)), "out of range"),
        (GOOD.replace("1", "9" * 5000), "out of range"),
        (GOOD.replace("1", "NaN"), "not an integer"),
        (GOOD.replace("1", "-Infinity"), "not an integer"),
        (GOOD.replace("true", "1"), "flag is not true or false"),
        (GOOD.replace("true", '"true"'), "flag is not true or false"),
        (GOOD.replace("1", "true"), "number is not an integer"),
        (GOOD.replace("1", '"1"'), "number is not an integer"),
        (GOOD.replace('"x"', "1"), "text is not text"),
        (GOOD.replace('"x"', "null"), "text is not text"),
        (GOOD.replace('"x"', '"\\ud800"'), "not JSON"),
        (GOOD.replace('"x"', '"\\u0078"'), "not canonical"),
        (GOOD.replace('"x"', '"\\/"'), "not canonical"),
        (GOOD.replace('"x"', '"\n"'), "not JSON"),
        (GOOD.replace("{}", "[]"), "named is not"),
        (GOOD.replace("{}", '{"b":"","a":""}'), "not canonical"),
        (GOOD.replace("{}", '{"a":1}'), "named is not text"),
        (GOOD.replace("{}", '{"a":"","a":""}'), "stands twice"),
        (GOOD.replace('"named"', '"maybe":null,"named"'), "is not text"),
        (GOOD.replace("[]", "null"), "many is not"),
        (GOOD.replace("[]", "[1]"), "many is not a JSON object"),
        (GOOD.replace("[]", '[{"word":"x","flag":1}]'), "flag is not true or false"),
        (GOOD.replace("[]", '[{"word":"x","more":1}]'), "unknown member 'more'"),
        (GOOD.replace("[]", "[{}]"), "lacks the member 'word'"),
        (GOOD.replace(',"text":"x"', ""), "lacks the member 'text'"),
        (GOOD.replace('"text"', '"self"'), "unknown member 'self'"),
        (GOOD.replace('"text"', '"\\u001b[2J"'), r"unknown member '\x1b[2J'"),
        (GOOD + "\n", "not canonical"),
        (" " + GOOD, "not canonical"),
        (GOOD + GOOD, "not JSON"),
        ("\ufeff" + GOOD, "not JSON"),
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    ],
    ids=lambda text: text[:40],
)
def test_json_that_others_would_accept_is_malformed(source: str, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        canonical.decode(source.encode(), KINDS, "it")
    assert words in caught.value.message
    assert caught.value.message.startswith("it")
    assert len(caught.value.message) < 200


def test_the_least_value_is_decoded() -> None:
    """That each case above differs from in one way."""
    assert canonical.decode(GOOD.encode(), KINDS, "it") == One(text="x", number=1, named={}, flag=True, many=())


# ------------------------------------------------------------------- statements

IDS = st.from_regex(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", fullmatch=True)
COMMON: dict[str, Any] = {"audience": st.just("ca.example.com"), "id": IDS, "time": st.integers(0, 2**63 - 1)}
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]).filter(str.isprintable), max_size=500)
STATEMENTS = st.builds(
    RequestStatement,
    **COMMON,
    role=st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,62}", fullmatch=True),
    duration=st.none() | st.integers(-(2**63), 2**63 - 1),
    reason=PRINTABLE,
    key=st.integers(1, 9).map(lambda number: policies.key(number).line),
) | st.builds(ReadStatement, **COMMON, path=st.text(st.characters(codec="ascii").filter(str.isprintable)).map("/".__add__))


@given(STATEMENTS)
def test_a_statement_that_is_encoded_is_parsed(said: AnyStatement) -> None:
    source = canonical.encode(said)
    assume(len(source) <= 8192)
    assert statement.parse(source) == said


@given(STATEMENTS, st.data())
def test_a_statement_changed_anywhere_is_malformed_or_another(said: AnyStatement, data: st.DataObject) -> None:
    source = canonical.encode(said)
    at, octet = data.draw(st.integers(0, len(source) - 1)), data.draw(st.integers(0, 255))
    changed = source[:at] + bytes([octet]) + source[at + 1 :]
    with suppress(Malformed):
        assert (statement.parse(changed) == said) == (changed == source)


@given(STATEMENTS)
def test_a_statement_cut_anywhere_is_malformed(said: AnyStatement) -> None:
    source = canonical.encode(said)
    for at in range(0, len(source), 7):
        with pytest.raises(Malformed):
            statement.parse(source[:at])


def test_a_statement_is_not_larger_than_8_kib() -> None:
    with pytest.raises(Malformed, match="more than 8192"):
        statement.parse(b"{" + b" " * 8192)


@pytest.mark.parametrize(
    "inner", ['{"kind":"one","text":"x"}', '{"kind":" two","text":"x"}', '{"text":"x"}', '{"kind":2,"text":"x"}']
)
def test_a_value_within_another_is_of_its_kind_as_well(inner: str) -> None:
    def read(spelled: str) -> Outer:
        return canonical.decode(f'{{"inner":{spelled},"kind":"outer"}}'.encode(), [Outer], "the value")

    assert read('{"kind":"two","text":"x"}') == Outer(inner=Two(text="x"))
    with pytest.raises(Malformed, match="of another kind"):
        read(inner)
