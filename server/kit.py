"""The break-glass kit as one file: the program in scripts/break-glass, what it needs of `ca`, the SLIP-39 library, and the facts.

Everything in it is public. Two kits of the same facts are the same bytes.
"""

import os
import zipfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured
from ca.kit import Facts, Seal
from ca.roles import Policy

_OF_CA: Final = (  # what is there runs with the standard library alone
    "__init__", "errors", "wire", "point", "canonical", "names", "kit", "journal", "signers/__init__", "signers/agent_socket",
)  # fmt: skip
_LIBRARY: Final = "shamir_mnemonic"
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # zip knows no earlier one


def expect_free(out: Path) -> None:
    """Raises `Misconfigured` when there is something at `out`, or nowhere to put it."""
    if out.exists() or not out.absolute().parent.is_dir():
        raise Misconfigured(f"{out} is there already, or its directory is not", "Nothing was changed: name a new file")


def build(out: Path, facts: Facts) -> None:
    """Writes the kit to `out`, executable, whole or not at all. Raises `Misconfigured` when it is there or cannot be made."""
    expect_free(out)
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as file:
            file.write(_SHEBANG)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in sorted(_members(facts)):
                    archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o755)
        part.rename(out)
    except OSError as error:
        raise Misconfigured(f"{out} cannot be written: {error.strerror}", "Nothing was kept of it") from error


def _members(facts: Facts) -> Iterator[tuple[str, bytes]]:
    program = _program()
    for path in program.rglob("*.py"):
        yield path.relative_to(program).as_posix(), path.read_bytes()
    yield "breakglass/facts.json", facts.encode()
    package = Path(str(resources.files("ca")))
    for name in _OF_CA:
        yield f"ca/{name}.py", (package / f"{name}.py").read_bytes()
    for file in metadata.files(_LIBRARY) or ():  # with its licence, without its own command line
        if (file.parent.name == _LIBRARY and file.suffix in {".py", ".txt"} and file.name != "cli.py") or file.name == "LICENSE":
            yield f"slip39/{_LIBRARY}/{file.name}", Path(str(file.locate())).read_bytes()


def _program() -> Path:
    """In the wheel it is inside the package, in a checkout among the scripts."""
    package = Path(str(resources.files("server")))
    packaged = package / "break-glass"
    return packaged if packaged.is_dir() else package.parent / "scripts" / "break-glass"


def facts_of(policy: Policy, seal: Seal, origin: str, now: int) -> Facts:
    """What a kit made `now` (Unix seconds) knows. Raises `Misconfigured` without a sealed policy, or one that names nobody."""
    rules, people = policy.break_glass, policy.emergency_people()
    if rules is None:
        raise Misconfigured("there is no policies/break-glass.toml", "It says who may be named and where; see ca/POLICY.md")
    if not people:
        raise Misconfigured("break-glass.toml names groups in which nobody is", "Put somebody into them in people.toml")
    return Facts(
        origin=origin, made=now, key=seal.key, quorum=seal.quorum, officers=tuple(share.officer for share in seal.shares),
        shares_id=seal.shares_id, people=people, hosts=dict(rules.hosts), longest=rules.max_duration,
        certificates=rules.certificates, ask=rules.ask,
    )  # fmt: skip
