"""From the bytes of a policy file to its value or its problems, worded for the person who edits the file.

A problem names the key by its path, lists counted from 1 like the rules of a decision: `allow[2].groups[1]: unknown group …`.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ca.fields import Known, Table, suggestion

_LARGEST: Final = 4 * 1024 * 1024  # bytes; ten thousand people with three keys each
_LONGEST_LINE: Final = 8 * 1024  # characters; tomllib takes time quadratic in the parts of a dotted key

_Shape = TypeVar("_Shape", bound=Table)
_WORDS: Final = {
    "missing": "missing",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "date_type": "must be a date without quotes, such as 2027-03-31",
    "tuple_type": "must be a list in [ ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "too_long": "has more than {max_length} entries",
    "union_tag_not_found": "kind: missing",
    "union_tag_invalid": "kind: must be one of {expected_tags}",
}


def shown(text: str) -> str:
    """`text` when it is an ordinary name or path, else escaped and cut: file names and keys come from anywhere."""
    return text if re.fullmatch(r"[A-Za-z0-9_./-]{1,100}", text, re.ASCII) else f"{text[:80]!a}"


def parse(content: bytes) -> dict[str, Any]:
    """The TOML table in `content`. Raises `ValueError` with a sentence for what is too large, not UTF-8 or not TOML."""
    if len(content) > _LARGEST:
        raise ValueError(f"larger than {_LARGEST} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"line {number} is longer than {_LONGEST_LINE} characters")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise ValueError("a number is too large") from error


def validate(shape: type[_Shape], table: dict[str, Any], known: Known) -> tuple[_Shape | None, list[str]]:
    """The table as a value of that shape, or None and every problem."""
    try:
        return shape.model_validate(table, context=known), []
    except ValidationError as error:
        return None, [_problem(shape, each) for each in error.errors(include_url=False, include_input=False)]


def _problem(shape: type[Table], error: ErrorDetails) -> str:
    path, keys = _located(shape, [step for step in error["loc"] if step != "[key]"])
    where = "".join(f"[{step + 1}]" if isinstance(step, int) else f".{shown(step)}" for step in path).removeprefix(".")
    if error["type"] == "extra_forbidden":
        what = f"unknown key{suggestion(str(path[-1]), keys)}"
    elif error["type"] == "value_error":
        what = str(error["ctx"]["error"])
    else:
        what = _WORDS.get(error["type"], error["msg"].replace("Input should be", "must be", 1)).format(**error.get("ctx", {}))
    return f"{where}: {what}"


def _located(shape: type[Table], path: list[int | str]) -> tuple[list[int | str], list[str]]:
    """The path as the file has it, without the `kind` that pydantic adds to it, and the keys of the table its last step is in."""
    tables, located, keys = [shape], list[int | str](), list[str]()
    for step in path:
        if of_kind := [table for table in tables if step in _kinds(table)]:
            tables = of_kind
            continue
        located.append(step)
        fields = {field.alias or name: field for table in tables for name, field in table.model_fields.items()}
        keys = list(fields)
        if step in fields:
            tables = list(_tables(fields[str(step)].annotation)) or tables
    return located, keys


def _kinds(table: type[Table]) -> tuple[object, ...]:
    """What a table that is one of several kinds has as its `kind`."""
    return get_args(table.model_fields["kind"].annotation) if "kind" in table.model_fields else ()


def _tables(annotation: object) -> Iterator[type[Table]]:
    """The tables that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for part in get_args(annotation):
        yield from _tables(part)
