"""The README's first command does what it shows, and leaves nothing behind."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sshd import current_account

ROOT = Path(__file__).parents[1]


def run_demo(tmp_path: Path, *arguments: str) -> str:
    """The demo's output, without its colours."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "scripts" / "demo", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\x1b\[\d*m", "", done.stdout)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@dataclass(frozen=True)
class Shown:
    """What one run of the demo printed and what it left in its temporary directory."""

    text: str
    left: list[Path]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """One run for all who only look."""
    directory = tmp_path_factory.mktemp("demo")
    return Shown(run_demo(directory), list(directory.iterdir()))


def test_the_demo_goes_from_login_to_a_shell_and_shows_why_others_are_refused(demo: Shown) -> None:
    assert f"I am {current_account()} on a host that never heard of ana" in demo.text
    assert "Accepted publickey for" in demo.text
    assert "ID ana/web-admin/2 (serial 3)" in demo.text
    assert re.search(r"login web-admin --reason 'just looking'\nYou hold .*\njit-ssh: error: .*incident number", demo.text)
    assert demo.text.count("(exit code 3)") == 1
    assert "demo.example/jit-ssh is whole: 11 entries" in demo.text, "ana, an auditor, looked at the log: that is one, too"


def test_the_demo_shows_another_person_approving_what_nobody_gets_alone(demo: Shown) -> None:
    """In this order, each at their own machine."""
    steps = (
        r"^\$ jit-ssh login db-admin --reason 'INC-12 disk full' --no-wait$", r"^4$", r"^\(exit code 4\)$",
        r"^bo\$ jit-ssh requests --waiting$", r"^4 +.* ana +db-admin",
        r"^bo\$ jit-ssh approve 4 --yes$", r"^request 4 by ana for db-admin is granted$",
        r"^\$ jit-ssh login --request 4$", r"^ana holds db-admin until .*, serial 7$",
        r"^\$ jit-ssh drop db-admin$", r"^db-admin is given back$",
        r"bo +approve +db-admin, request 4$",
    )  # fmt: skip
    rest = demo.text[: demo.text.index("$ jit-ssh log\n")]
    for step in steps[:-1]:
        found = re.search(step, rest, re.MULTILINE)
        assert found, f"{step} does not follow"
        rest = rest[found.end() :]
    assert re.search(steps[-1], demo.text, re.MULTILINE)
    assert demo.text.count("(exit code") == 2


def test_the_demo_leaves_nothing_behind(demo: Shown) -> None:
    assert demo.left == []


def test_the_session_on_the_readmes_first_screen_is_the_demos(demo: Shown) -> None:
    screen = (ROOT / "README.md").read_text().split("```")[1].removeprefix("console\n")
    real = [timeless(line) for line in demo.text.replace(f"{current_account()}@", "root@").splitlines()]
    for line in screen.splitlines():
        assert timeless(line) in real


def timeless(line: str) -> str:
    """The line without the time of day, the time left or gone and the account that the demo happens to use."""
    line = re.sub(rf"^  {re.escape(current_account())} on ", "  root on ", line)
    moment = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d"  # with its day where that is another
    line = re.sub(rf"(until|lapses) {moment} \(in [\d hms]+\)", r"\1 then", line)
    line = re.sub(rf"{moment} \([\d ms]+ ago\)", "before", line)
    return " ".join(line.split())  # the columns of a table are as wide as the times in it


def test_the_demo_kept_can_be_played_with_and_ended_as_it_says(tmp_path: Path) -> None:
    shown = run_demo(tmp_path, "--keep")
    ending = re.search(r"kill ([\d ]+); rm -r (\S+)$", shown, re.MULTILINE)
    assert ending
    pids = [int(pid) for pid in ending[1].split()]
    try:
        assert all(alive(pid) for pid in pids)
        exports = re.search(r"export (.*)", shown)
        assert exports
        again = f"export {exports[1]}; jit-ssh login web-admin --reason 'INC-13 still full'"
        assert "ana holds web-admin" in subprocess.run(["bash", "-c", again], check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["bash", "-c", ending[0]], check=True)


def test_an_unknown_argument_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    refused = subprocess.run(
        [ROOT / "scripts" / "demo", "--kep"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "usage: scripts/demo [--keep]" in refused.stderr
    assert list(tmp_path.iterdir()) == []
