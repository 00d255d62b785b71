"""The README is short, its links lead somewhere, and what it says about policy is true."""

import re
from pathlib import Path

import pytest

from ca import roles
from ca.errors import Misconfigured
from tests.world import FILES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path for folder in (".", "ca", "cli", "server") for path in (ROOT / folder).glob("*.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def policy_with(role: str) -> dict[str, bytes]:
    """World's policy files with this one as roles/web-admin.toml, and the groups that the README speaks of."""
    people = '[groups]\nsre = "s"\n"sre-leads" = "l"\nvendors = "v"\nsecurity = "a"\nengineers = "e"\n'
    hosts = '[groups.web-prod]\nabout = "Web"\nhosts = ["web-*.example.com"]\n'
    guardrails = FILES["guardrails.toml"]
    files = {"people.toml": people, "hosts.toml": hosts, "guardrails.toml": guardrails, "roles/web-admin.toml": role}
    return {name: text.encode() for name, text in files.items()}


def test_the_readme_has_at_most_200_lines_and_its_first_command_within_the_first_twenty() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert any(line.startswith("$ jit-ssh") for line in lines[:20])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_to_a_file(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_readmes_commands_are_there() -> None:
    for script in re.findall(r"^\$ (scripts/\w+)", README, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111


def test_the_readmes_policy_loads() -> None:
    [role] = blocks("toml")
    assert roles.load(policy_with(role)).roles["web-admin"].max_duration == 3600


def test_a_policy_with_one_word_wrong_does_not() -> None:
    [role] = blocks("toml")
    with pytest.raises(Misconfigured):
        roles.load(policy_with(role.replace("hardware_key", "hardware_keys")))


def test_the_spine_that_the_readme_names_is_there() -> None:
    for file, name in re.findall(r"\[[\w/.]+\]\(([\w/]+\.py)\)\s+`([\w.]+)`", README):
        code = (ROOT / file).read_text()
        assert all(re.search(rf"\b(def|class) {part}\b", code) for part in name.split(".")), f"{file} has no {name}"
