"""Canonical JSON: the one spelling of every statement and entry, and frozen dataclasses as its values.

The spelling is UTF-8, no white space, object keys sorted, integers only, absent instead of null, and strings escaped no further
than JSON demands. `decode` accepts exactly what `encode` writes, so a signature or hash over the bytes is one over the value.
A dataclass with `TAG = (key, value)` is told from its siblings by that member; a member that may be absent is None then.
"""

import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, Final, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from ca.errors import Malformed

INTEGERS: Final = range(-(2**63), 2**63)


class Tagged:
    """A dataclass that is one of several: the member `TAG` says which."""

    TAG: ClassVar[tuple[str, str]]


T = TypeVar("T", bound=Tagged)


def encode(value: object) -> bytes:
    """The canonical JSON of a dataclass, or of a mapping of plain values."""
    return _ENCODER.encode(value).encode()


def plain(value: object) -> Any:
    """The value as JSON has it: mappings, lists, text, integers and booleans, and nothing for None in a dataclass."""
    return json.loads(_ENCODER.encode(value))


def _members(value: object) -> dict[str, object]:
    """What the encoder writes for a value that JSON does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    members = {name: member for name in shapes(kind) if (member := getattr(value, name)) is not None}
    if isinstance(value, Tagged):
        name, tag = value.TAG
        members[name] = tag
    return members


_ENCODER: Final = json.JSONEncoder(  # no value has cycles
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_members
)


def decode(source: bytes, kinds: Iterable[type[T]], what: str) -> T:
    """The value of that one of the tagged `kinds` that `source` spells. Raises `Malformed`, naming `what` and the member."""
    members = parse_object(source, what)
    value = _built(members, kinds, what)
    if _ENCODER.encode(members).encode() != source:  # what was read has these members and no other: absent is not null
        raise Malformed(f"{what} is not canonical JSON", "Sort the keys, write no white space, leave out what is absent")
    return value


def parse_object(source: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `source`: no duplicate keys, no numbers but integers of 64 bits. Raises `Malformed`."""
    try:
        value = _DECODER.decode(source.decode())
        if b"\\u" in source:  # else there is no lone surrogate, which is no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in INTEGERS:
        raise ValueError("a number is out of range")
    return int(digits)


def _no_float(_digits: str) -> NoReturn:
    raise ValueError("a number is not an integer")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_once_each, parse_float=_no_float, parse_int=_integer, parse_constant=_no_float
)


def _built(members: dict[str, Any], kinds: Iterable[type[T]], what: str) -> T:
    for kind in kinds:
        name, tag = kind.TAG
        if members.get(name) == tag:
            value: T = _builder(kind)(members, (what,))  # type: ignore[arg-type]  # no type object is hashable (python/mypy#11470)
            return value
    raise Malformed(f"{what} is of no known kind")


_Where = tuple[str, ...]  # what is read, and the members that lead to the value
_Read = Callable[[Any, _Where], Any]


@cache
def _builder(kind: type[Any]) -> _Read:
    """What makes a dataclass of the JSON object of its members. It raises `Malformed`."""
    members_of = shapes(kind)  # type: ignore[arg-type]  # as above
    readers = {name: _reader(present(shape)) for name, shape in members_of.items()}
    tag = dict([kind.TAG]) if issubclass(kind, Tagged) else {}
    needed = frozenset(name for name, shape in members_of.items() if present(shape) is shape)
    absent = dict.fromkeys(members_of.keys() - needed)
    allowed = tag.keys() | members_of.keys()

    def build(members: object, where: _Where) -> object:
        if type(members) is not dict:
            raise Malformed(f"{': '.join(where)} is not a JSON object")
        if not members.keys() <= allowed:
            raise Malformed(f"{': '.join(where)} has an unknown member {min(members.keys() - allowed)[:60]!a}")
        if not needed <= members.keys():
            raise Malformed(f"{': '.join(where)} lacks the member {min(needed - members.keys())!a}")
        if not tag.items() <= members.items():
            raise Malformed(f"{': '.join(where)} is of another kind than {tag}")
        return kind(**absent | {name: read(members[name], (*where, name)) for name, read in readers.items() if name in members})

    return build


@cache
def shapes(kind: type[Any]) -> dict[str, Any]:
    """The type of each member of a dataclass, by name."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def present(shape: Any) -> Any:
    """The shape of a member that is there, of one that need not be."""
    if isinstance(shape, types.UnionType) and type(None) in get_args(shape):
        return next(part for part in get_args(shape) if part is not type(None))
    return shape


def _reader(shape: Any) -> _Read:
    """What turns the JSON value of a member into one of this shape. It raises `Malformed`."""
    if isinstance(shape, type) and is_dataclass(shape):
        return _builder(shape)
    if get_origin(shape) is tuple:
        one = _reader(get_args(shape)[0])
        return lambda value, where: tuple([one(member, where) for member in _demand(value, list, where)])
    if get_origin(shape) is Mapping:
        each = _reader(get_args(shape)[1])
        return lambda value, where: {name: each(member, where) for name, member in _demand(value, dict, where).items()}
    return lambda value, where: _demand(value, shape, where)


def _demand(value: object, kind: type[Any], where: _Where) -> Any:
    if type(value) is not kind:
        raise Malformed(f"{': '.join(where)} is not {_WORDS[kind]}")
    if kind is int and value not in INTEGERS:
        raise Malformed(f"{': '.join(where)} is out of range")
    return value


_WORDS: Final[Mapping[Any, str]] = {str: "text", int: "an integer", bool: "true or false", list: "a list", dict: "a map"}
