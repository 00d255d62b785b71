"""The manual and the help say what the program does: every command, every option, and examples that it would take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import cli
from cli.main import cli as root

MANUAL = (Path(cli.__path__[0]) / "MANUAL.md").read_text()


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


ALL = dict(commands(root, "jit-ssh"))


def section(path: str) -> str:
    """What the manual says of a command."""
    if path == "jit-ssh":
        return MANUAL.partition("## Commands")[0]
    found = re.search(rf"^### {path}(?: [A-Z\[][^\n]*)?\n(.*?)(?=^##)", MANUAL, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{path} is not in the manual"
    return found[1]


@pytest.mark.parametrize("path", ALL)
def test_the_manual_has_every_command_and_every_option(path: str) -> None:
    said = section(path)
    for parameter in ALL[path].params:
        for name in parameter.opts if isinstance(parameter, click.Option) else ():
            assert f"`{name}" in said or f"{name}`" in said, f"{path} {name} is not in the manual"


@pytest.mark.parametrize("path", [path for path in ALL if path != "jit-ssh"])
def test_the_manual_and_the_help_have_an_example_of_every_command(path: str) -> None:
    assert f"$ {path}" in section(path)
    assert path in (ALL[path].epilog or "")


def examples() -> list[str]:
    typed = re.findall(r"^ +\$ (jit-ssh .*)$", MANUAL, re.MULTILINE)
    for command in ALL.values():
        typed += re.findall(r"^  (jit-ssh .*?)(?: {2,}.*| && .*| > .*)?$", command.epilog or "", re.MULTILINE)
    return typed


@pytest.mark.parametrize("line", examples())
def test_every_example_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = root
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    command.make_context(line, words)


def test_the_manual_has_no_option_that_is_not_there() -> None:
    there = {name for command in ALL.values() for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    ours = re.findall(r"^`(--[a-z-]+)", MANUAL, re.MULTILINE)
    assert set(ours) <= there


def test_every_exit_code_is_in_the_manual_and_in_the_help() -> None:
    for code in range(6):
        assert f"| {code} |" in MANUAL
        assert re.search(rf"\b{code} ", root.epilog or "")
