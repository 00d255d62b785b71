"""A security engineer inspects a case with the real programs: from a serial in a host's log to who, what and why.

Ana asks for the databases, Bo lets her for a shorter time, Dee inspects, and the auditors take a copy with them.
"""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests import keys
from tests.home import ROOT, Home, ServedCA, make_home, served_ca, ssh_agent
from tests.running import run

PEOPLE: Final = """[groups]
sre = "On call"
leads = "Approve"
security = "Inspect"
[people.ana]
groups = ["sre"]
keys = ["{ana}"]
[people.bo]
groups = ["leads"]
keys = ["{bo}"]
[people.dee]
groups = ["security"]
keys = ["{dee}"]
"""
FILES: Final = {
    "hosts.toml": '[groups.db]\nabout = "Databases"\nhosts = ["db-*.example"]\n',
    "guardrails.toml": 'auditors = ["security"]\nrevokers = ["security"]\n',
    "roles/db-admin.toml": """about = "Root on databases"
owner = "leads"
review_by = 2099-01-01
principals = ["root@db"]
default_duration = "10m"
max_duration = "10m"
reason = { pattern = "^INC-[0-9]+", message = "Start with the incident number" }
[[allow]]
groups = ["sre"]
approvals = [{ from = "leads", count = 1 }]
""",
}


@dataclass(frozen=True)
class Company:
    """A CA that is served, and three people at their machines."""

    ca: ServedCA
    ana: Home
    bo: Home
    dee: Home


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    directory, homes = tmp_path_factory.mktemp("company"), tmp_path_factory.mktemp("homes")
    people = ("ana", "bo", "dee")
    public = {name: keys.make(directory, name=name).public_key.line for name in people}
    with ExitStack() as open_:
        agent = open_.enter_context(ssh_agent())
        ca = open_.enter_context(served_ca(tmp_path_factory.mktemp("served") / "ca", PEOPLE.format(**public), FILES))
        made = {name: make_home(homes / name, directory / name, agent if name == "ana" else None) for name in people}
        for home in made.values():
            done(home.run("setup", ca.url, "--fingerprint", ca.fingerprint))
        yield Company(ca, **made)


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@dataclass(frozen=True)
class Night:
    """What happened: the request's number, the serial of Ana's certificate, and the refused attempt before."""

    request: int
    serial: int
    refused: int


@pytest.fixture(scope="module")
def night(company: Company) -> Night:
    """Ana is refused, asks again, gets twenty times what she needs cut to five minutes, and is inspected in the morning."""
    refused = company.ana.run("login", "db-admin", "--reason", "it is slow")
    assert refused.returncode == 3
    asked = company.ana.run("login", "db-admin", "--reason", "INC-12 disk full", "--no-wait")
    assert asked.returncode == 4
    number = asked.stdout.strip()
    done(company.bo.run("approve", number, "--yes", "--for", "5m", "--reason", "the primary only"))
    [held] = company.ana.json("login", "--request", number)
    attempt = re.search(r"entry (\d+) of the log", refused.stderr)
    assert attempt
    return Night(int(number), held["serial"], int(attempt[1]))


def seen(entries: list[dict[str, Any]]) -> list[str]:
    return [f"{each['kind']} by {each['actor']}" for each in entries]


def test_a_serial_in_a_hosts_log_leads_to_the_whole_case(company: Company, night: Night) -> None:
    case = company.dee.json("show", str(night.serial))
    assert (case["case"], case["person"], case["role"], case["status"]) == (night.request, "ana", "db-admin", "granted")
    [request] = case["requests"]
    assert request["reason"] == "INC-12 disk full"
    granting = next(each for each in case["entries"] if each["kind"] == "approve")
    assert all(finding["holds"] for finding in [*granting["findings"], *granting["ways"][0]["findings"]])
    [yes] = request["approvals"]
    assert (yes["person"], yes["duration"], yes["reason"]) == ("bo", 300, "the primary only")
    assert seen(case["entries"])[:4] == ["request by ana", "approve by bo", "renew by ana", "issue by ana"]
    assert case["badly_signed"] == []


def test_every_certificate_is_told_as_openssh_tells_it(company: Company, night: Night) -> None:
    [made] = company.dee.json("show", str(night.request))["certificates"]
    told = done(
        subprocess.run(
            ["ssh-keygen", "-L", "-f", company.ana.ours / "db-admin-cert.pub"], capture_output=True, text=True, check=False
        )
    )
    assert made["serial"] == night.serial
    assert f"Serial: {made['serial']}\n" in told
    assert made["key"] in told
    assert f'Key ID: "{made["key_id"]}"' in told
    assert made["principals"] == ["root@db"]
    assert "root@db" in told
    assert made["valid_before"] - made["valid_after"] <= 300 + 60
    assert (made["address"], made["hardware_key"], made["revoked"]) == ("127.0.0.1", False, False)


def test_it_reads_as_a_person_wants_it(company: Company, night: Night) -> None:
    shown = re.sub(" +", " ", done(company.dee.run("show", str(night.serial))))
    for words in (
        f"request {night.request}, granted until",
        "who ana",
        "role db-admin: Root on databases",
        "accounts root on db (db-*.example)",
        "reason INC-12 disk full",
        "from 127.0.0.1",
        "approved by bo",
        "for 5 m: the primary only",
        "✓ the person is in one of these groups: sre: ana is in sre",
        "✓ the request is approved by 1 of leads: ",
        f"{night.serial} request {night.request} ",
        f"{night.request} 20",
    ):
        assert words in shown, words


def test_a_refusal_is_a_case_too(company: Company, night: Night) -> None:
    case = company.dee.json("show", str(night.refused))
    assert (case["case"], case["requests"], case["certificates"]) == (night.refused, [], [])
    assert case["entries"][0]["message"].startswith("db-admin is not granted")
    assert "Start with the incident number" in done(company.dee.run("show", str(night.refused)))


def test_words_person_and_time_find_it_and_a_spreadsheet_takes_it(company: Company, night: Night) -> None:
    for search in (["--search", "disk full"], ["--person", "ana", "--kind", "request"], ["--serial", str(night.serial)]):
        assert company.dee.json("log", *search, "--since", "1h"), search
    table = list(csv.DictReader(io.StringIO(done(company.dee.run("log", "--csv", "--limit", "500")))))
    assert [row["reason"] for row in table if row["kind"] == "request"] == ["INC-12 disk full"]
    assert [row["key_id"] for row in table if row["kind"] == "issue"] == [f"ana/db-admin/{night.request}"]


def test_the_inspection_is_on_record_and_warns_nobody(company: Company, night: Night) -> None:
    company.dee.json("show", str(night.serial))
    reads = company.dee.json("log", "--kind", "read", "--limit", "500")
    assert {each["actor"] for each in reads} == {"dee"}
    assert f"/v1/cases/{night.serial}" in [json.loads(each["statement"])["path"] for each in reads]
    mine = company.dee.json("show", str(night.request))
    assert seen(mine["entries"]).count("read by dee") == 1, "whichever of its entries she names, it is one case"
    for theirs in (company.ana.json("show", str(night.request))["entries"], company.ana.json("log", "--limit", "500")):
        assert not [each for each in theirs if each["kind"] == "read"]
    assert company.ana.json("log", "--kind", "read") == []
    assert company.ana.run("show", str(night.serial)).returncode == 0, "her own case she reads by any of its entries"
    before = company.dee.run("log", "show", "0").returncode, company.bo.run("show", "1").returncode
    assert before == (0, 1)


def test_the_auditors_take_a_copy_that_proves_itself(company: Company, night: Night, tmp_path: Path) -> None:
    company.dee.json("show", str(night.serial))
    exported = run("log", "export", company.ca.directory, tmp_path / "audit.db", PYTHONPATH=str(ROOT))
    assert exported.code == 0, exported.err
    verified = run("log", "verify", tmp_path / "audit.db", "--fingerprint", company.ca.fingerprint)
    assert "all verify" in verified.out, verified.err

    def rows(query: str) -> list[dict[str, Any]]:
        told = subprocess.run(["sqlite3", "-json", tmp_path / "audit.db", query], check=True, capture_output=True, text=True)
        return list(json.loads(told.stdout or "[]"))

    [issued] = rows("SELECT person, reason, address, request, serial FROM issuances")
    assert list(issued.values()) == ["ana", "INC-12 disk full", "127.0.0.1", night.request, night.serial]
    assert {row["reader"] for row in rows("SELECT reader FROM readings")} == {"dee"}
    assert rows("SELECT message FROM denials")[0]["message"].startswith("db-admin is not granted")


def test_what_is_revoked_is_seen_to_be_revoked(company: Company, night: Night) -> None:
    done(company.dee.run("revoke", "--serial", str(night.serial), "--reason", "the key was copied"))
    case = company.dee.json("show", str(night.serial))
    assert [each["revoked"] for each in case["certificates"]] == [True]
    assert "revoke by dee" in seen(case["entries"])
    revoked = next(each for each in case["entries"] if each["kind"] == "revoke")
    assert company.dee.json("show", str(revoked["index"]))["case"] == night.request
    assert "revoked" in done(company.dee.run("show", str(night.request)))


def test_and_the_log_itself_is_checked_on_the_engineers_own_machine(company: Company, night: Night) -> None:
    assert night.serial
    done(company.dee.run("log", "verify"))
    [newest] = company.dee.json("log", "--limit", "1")
    followed = [sys.executable, "-c", "from cli.main import main; main()", "log", "--follow", "--json", "--limit", "1"]
    with subprocess.Popen(followed, stdout=subprocess.PIPE, text=True, env=company.dee.environment) as follower:
        try:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["index"] == newest["index"]
            refused = company.ana.run("login", "db-admin", "--reason", "it is slow again")
            assert refused.returncode == 3
            assert json.loads(follower.stdout.readline())["kind"] == "refuse", "her own reading is no news"
        finally:
            follower.terminate()
