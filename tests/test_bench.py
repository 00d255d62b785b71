"""scripts/bench: that it measures everything it promises and stops by itself. How fast anything is, is asserted nowhere."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
CLIENTS = ("1 client", "8 clients", "64 clients")
WATCHED = ("64 clients, 2 witnesses", "64 clients, 2 witnesses required")
PROMISED = {
    "bare cryptography: three verifications, one signature",
    "bare cryptography, by OpenSSL alone",
    "bare cryptography, on every processor at once",
    "durable write of 4 KiB on this file system",
    "ssh-keygen -s, one certificate",
    *(f"policy, 2000 roles, 10000 people: {what}" for what in ("load", "a decision", "who-can", "diff of one role")),
    "server memory before the load",
    "server memory after it",
    "jit-ssh --help",
    "jit-ssh login",
    "jit-ssh status",
    "what ssh runs while the certificate is fresh",
    *(f"issuing, {clients}: {what}" for clients in CLIENTS for what in ("rate", "answer", "answer, p99", "server CPU of one")),
    *(f"issuing, {clients}: {what}" for clients in WATCHED for what in ("rate", "answer", "answer, p99", "server CPU of one")),
    *(f"issuing, {clients}: server CPU / bare cryptography" for clients in CLIENTS),
    *(f"issuing, {clients}: server CPU / the same by OpenSSL alone" for clients in CLIENTS),
    *(f"issuing, {clients}: rate / ssh-keygen -s one by one" for clients in CLIENTS),
    *(
        f"verify, 200 entries: {what}"
        for what in (f"rate on {os.cpu_count()} processors", "CPU of one", "CPU / bare verifications")
    ),
}


@dataclass(frozen=True)
class Run:
    """What one quick run printed and wrote, and the directory that it was to measure in."""

    done: subprocess.CompletedProcess[str]
    figures: list[dict[str, Any]]
    directory: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory, written = tmp_path_factory.mktemp("measured"), tmp_path_factory.mktemp("written") / "figures.json"
    bench = [sys.executable, "-m", "benchmark", "--quick", "--entries", "3000"]
    bench += ["--json", str(written), "--directory", str(directory)]
    paths = {"PYTHONPATH": f"{SCRIPTS.parent}:{SCRIPTS}"}
    done = subprocess.run(bench, capture_output=True, text=True, check=False, timeout=120, env=os.environ | paths)
    assert (done.returncode, done.stderr) == (0, "")
    return Run(done, json.loads(written.read_text())["figures"], directory)


def test_every_figure_is_in_the_table_and_in_the_json(run: Run) -> None:
    assert {figure["name"] for figure in run.figures} == PROMISED
    assert all(figure["value"] >= 0 and figure["name"] in run.done.stdout for figure in run.figures)


def test_the_goals_stand_beside_their_figures(run: Run) -> None:
    assert {figure["name"]: figure["goal"] for figure in run.figures if figure["goal"] is not None} == {
        "policy, 2000 roles, 10000 people: load": 3000,
        "policy, 2000 roles, 10000 people: a decision": 1,
        "policy, 2000 roles, 10000 people: who-can": 1000,
        "jit-ssh login": 500,
        "jit-ssh status": 150,
        "what ssh runs while the certificate is fresh": 15,
        "issuing, 1 client: answer": 4,
        "issuing, 64 clients: rate": 1000,
        "issuing, 64 clients: answer, p99": 150,
        "issuing, 64 clients: server CPU / bare cryptography": 3,
        "verify, 200 entries: CPU / bare verifications": 2.5,
    }
    assert run.done.stdout.count(" met") + run.done.stdout.count(" missed") == 11


def test_nothing_is_left_behind(run: Run) -> None:
    assert not list(run.directory.iterdir())
