"""What is published works without the checkout: the wheel, in an environment that has nothing else of ours."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ca.kit import Facts
from server.kit import build

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh virtual environment that has the wheel and what it depends on."""
    venv = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "scripts" / "requirements.txt"), str(wheel)], check=True)
    return venv / "bin"


def run(bare: Path, *command: str) -> str:
    """The output of a command of the bare environment, far from the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.check_output([bare / command[0], *command[1:]], cwd=bare, env=environment, text=True)


def test_the_wheel_has_the_three_packages_and_nothing_else_on_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ca", "cli", "server"}


def test_what_goes_to_hosts_is_where_install_host_looks_for_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, source in {"server/install-host": "scripts/install-host", "cli/host_verify.py": "cli/host_verify.py"}.items():
            assert archive.read(name) == (ROOT / source).read_bytes()
    assert '"$here/../cli/host_verify.py"' in (ROOT / "scripts/install-host").read_text()


def test_both_commands_teach_how_to_use_them(bare: Path) -> None:
    assert "jit-ssh login web-admin" in run(bare, "jit-ssh", "--help")
    assert "jit-ssh-ca serve" in run(bare, "jit-ssh-ca", "--help")


def test_a_new_ca_has_the_starter_policy(bare: Path, tmp_path: Path) -> None:
    run(bare, "jit-ssh-ca", "init", str(tmp_path / "ca"))
    assert "no problems" in run(bare, "jit-ssh-ca", "policy", "check", str(tmp_path / "ca"))


def test_the_app_factory_finds_its_templates(bare: Path, tmp_path: Path) -> None:
    run(bare, "jit-ssh-ca", "init", str(tmp_path / "ca"), "--origin", "wheel.example")
    program = f"""
from pathlib import Path
from server.app import create_app
from server.directory import open_ca
opened = open_ca(Path({str(tmp_path / "ca")!r}), lambda path: b"")
print(create_app(opened.ca, opened.store).test_client().get("/").text)
"""
    assert "<h1>wheel.example</h1>" in run(bare, "python", "-c", program)


def test_the_break_glass_kit_is_the_one_of_the_checkout(bare: Path, tmp_path: Path) -> None:
    facts = ROOT / "tests" / "vectors" / "statement-and-entry" / "facts.json"
    build(tmp_path / "here", Facts.parse(facts.read_bytes()))
    program = f"""
from pathlib import Path
from ca.kit import Facts
from server.kit import build
build(Path({str(tmp_path / "there")!r}), Facts.parse(Path({str(facts)!r}).read_bytes()))
"""
    run(bare, "python", "-c", program)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
