"""The outage matrix of server/BREAK-GLASS.md, row by row: each part is taken away for real, and what the row says is true.

A test's docstring is the first cell of its row; what the program says, and within how many seconds, is compared with the row.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ca import canonical
from ca.certificate import SignedCertificate
from ca.signers.file import FileSigner
from ca.statement import ReadStatement
from ca.trust import Trust
from server import admin, copies
from server.app import create_app
from server.directory import OpenedCA, create, open_ca
from tests import keys, sshd
from tests.home import make_home
from tests.running import ORIGIN, Running, body, run
from tests.sshd import Sshd, current_account
from tests.world import authorization, uuid7

MATRIX: Final = (Path(admin.__file__).parent / "BREAK-GLASS.md").read_text().partition("## When something is down")[2]
LINES: Final = [line.strip("| ").split(" | ") for line in MATRIX.partition("\n## ")[0].splitlines() if line.startswith("| ")]
ROWS: Final = {cells[0]: cells for cells in LINES[1:]}
ME: Final = current_account()
DAY: Final = 24 * 3600
ROLE: Final = f"""about = "Everything here"
owner = "leads"
review_by = 2099-01-01
principals = ["{ME}@web"]
default_duration = "10m"
max_duration = "1h"
[[allow]]
"""
BY_APPROVAL: Final = '\n[[allow]]\ngroups = ["sre"]\napprovals = [{ from = "leads", count = 1 }]\n'


@dataclass(frozen=True)
class Site:
    """A CA that is copied for each row, the keys of its people, and a host that trusts it."""

    root: Path
    people: Mapping[str, FileSigner]
    host: Sshd

    def copy(self, directory: Path) -> Path:
        """A CA of the row's own."""
        return Path(shutil.copytree(self.root / "ca", directory / "ca"))

    def lets_in(self, certificate: Path) -> bool:
        """Whether ana gets into the host with it."""
        return sshd.ssh(self.host, ME, "echo", "in", identity=self.root / "ana", certificate=certificate).stdout == "in\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    people = {name: keys.make(root, name=name) for name in ("ana", "bo", "eve")}
    ca = root / "ca"
    create(ca, ORIGIN, None, None)
    shutil.rmtree(ca / "policies")
    (ca / "policies" / "roles").mkdir(parents=True)
    (root / "rota").write_text('#!/bin/sh\necho \'[{"person": "ana", "level": 1, "until": null}]\'\n')
    (root / "rota").chmod(0o755)
    for name, text in policies(people, root / "rota").items():
        (ca / "policies" / name).write_text(text)
    public = root / "ca.pub"
    public.write_text(trust_of(ca).ca_keys[0] + "\n")
    with sshd.trusting(root / "host", public, ["web"]) as host:
        yield Site(root, people, host)


def policies(people: Mapping[str, FileSigner], rota: Path) -> dict[str, str]:
    groups = {"ana": '"sre"', "bo": '"leads"', "eve": '"security"'}
    listed = [f'[people.{name}]\ngroups = [{groups[name]}]\nkeys = ["{key.public_key.line}"]\n' for name, key in people.items()]
    return {
        "people.toml": '[groups]\nsre = "x"\nleads = "x"\nsecurity = "x"\n' + "".join(listed),
        "hosts.toml": '[groups.web]\nabout = "Web"\nhosts = ["web-*"]\n',
        "guardrails.toml": 'auditors = ["security"]\nrevokers = ["security"]\n',
        "oncall.toml": f'[schedules.web]\nabout = "x"\n[[schedules.web.sources]]\nkind = "command"\nrun = ["{rota}"]\n',
        "roles/admin.toml": ROLE + 'groups = ["sre"]\n',
        "roles/called.toml": ROLE + 'on_call = { schedule = "web", levels = [1] }\n' + BY_APPROVAL,
    }


@dataclass(frozen=True)
class Door:
    """A CA in this process, behind its HTTP door."""

    opened: OpenedCA
    http: FlaskClient
    people: Mapping[str, FileSigner]
    now: Callable[[], float]

    def ask(self, role: str = "admin", **changes: Any) -> TestResponse:
        """ana asks."""
        return self.send(body(self.people["ana"], self.people["ana"], **{"role": role, "time": int(self.now())} | changes))

    def send(self, asked: bytes) -> TestResponse:
        """These very bytes."""
        return self.http.post("/v1/requests", data=asked)

    def act(self, who: str, action: str, path: str, /, **members: Any) -> TestResponse:
        common = {"action": action, "audience": ORIGIN, "id": uuid7(), "time": int(self.now())}
        text = canonical.encode(common | members)
        signature = b64encode(keys.sshsig(self.people[who], text)).decode()
        return self.http.post(path, data=json.dumps({"statement": text.decode(), "signature": signature}))

    def ready(self) -> int:
        """The status that decides whether a break-glass kit works without `--force`: it does not with 200."""
        return self.http.get("/readyz").status_code


@contextmanager
def door(ca: Path, people: Mapping[str, FileSigner], now: Callable[[], float] = time.time) -> Iterator[Door]:
    opened = open_ca(ca, lambda _path: b"", now)
    try:
        app = create_app(opened.ca, opened.store, reserve=opened.config.reserve, clock=now)
        yield Door(opened, app.test_client(), people, now)
    finally:
        opened.on_call.close()
        opened.store.close()


def trust_of(ca: Path) -> Trust:
    with door(ca, {}) as opened:
        return opened.opened.ca.trust


@contextmanager
def within(row: str) -> Iterator[None]:
    """What is done takes no longer than the row's last cell says."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began <= float(ROWS[row][-1].removesuffix(" s")), row


def says(row: str, words: str) -> None:
    """The row has this as it is."""
    assert f"`{words}`" in " ".join(ROWS[row]), f"{words} is not in the row: {row}"


def told(row: str, answer: TestResponse, status: int, code: str) -> None:
    """This is the problem, and the row says so."""
    assert answer.json is not None
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    says(row, code)


def kit(row: str, ready: int) -> None:
    """Whether the kit works is as the row says, by what `/readyz` answered."""
    assert ROWS[row][5].partition(",")[0] == ("refuses" if ready == 200 else "works")


def kept(directory: Path, answer: Mapping[str, Any] | None) -> Path:
    """The certificate of an answer, as ssh wants it."""
    assert answer is not None
    path = directory / "held-cert.pub"
    path.write_text(answer["certificate"] + "\n")
    return path


def test_every_row_of_the_matrix_is_tried_here() -> None:
    tests = [each for name, each in vars(sys.modules[__name__]).items() if name.startswith("test_outage")]
    assert {str(each.__doc__).removesuffix(".") for each in tests} == ROWS.keys()


def test_outage_of_the_process(site: Site, tmp_path: Path) -> None:
    """The CA's process is dead."""
    row, ca, ana = "The CA's process is dead", site.copy(tmp_path), site.people["ana"]
    server = Running(ca)
    status, answer = server.ask(asked := body(ana, ana, role="admin"))
    assert status == 201
    held = kept(tmp_path, answer)
    home = make_home(tmp_path / "home", site.root / "ana")
    assert home.run("setup", server.url, "--fingerprint", trust_of(ca).fingerprint).returncode == 0
    server.kill()
    with within(row):
        login = home.run("login", "admin", "--reason", "x")
    assert (login.returncode, "cannot be reached" in login.stderr) == (5, True)
    says(row, "cannot be reached")
    assert site.lets_in(held)
    with within(row):
        server = Running(ca)
        assert server.fetch("/readyz")[0] == 200
    assert server.ask(asked)[1]["certificate"] == answer["certificate"], "the same statement gets the same answer"
    assert server.stops() == 0


def test_outage_of_the_database(site: Site, tmp_path: Path) -> None:
    """The database is corrupt."""
    row, ca = "The database is corrupt", site.copy(tmp_path)
    with door(ca, site.people) as before:
        held = kept(tmp_path, before.ask().json)
    copies.backup(ca, tmp_path / "backup")
    whole = (ca / "jit-ssh.db").read_bytes()
    for at, words in ((0, "file is not a database"), (len(whole) // 2, "")):
        (ca / "jit-ssh.db").write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
        with within(row):
            refused = run("serve", ca, "--listen", "127.0.0.1:0")
        assert (refused.code, words in refused.err) == (1, True), refused.err
    assert site.lets_in(held)
    with within(row):
        copies.restore(ca, tmp_path / "backup")
        with door(ca, site.people) as after:
            assert (after.ask().status_code, after.ready()) == (201, 200)


@pytest.mark.root
def test_outage_of_the_disk(site: Site, tmp_path: Path) -> None:
    """The disk is full."""
    row, disk = "The disk is full", tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    with ExitStack() as ending:
        ending.callback(subprocess.run, ["umount", str(disk)], check=True)
        ca = site.copy(disk)
        with (ca / "ca.toml").open("a") as settings:
            settings.write("reserve = 1\n")
        opened = ending.enter_context(door(ca, site.people))
        held = kept(tmp_path, opened.ask().json)
        with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        answers = [opened.ask() for _ in range(100)]
        with within(row):
            told(row, answers[-1], 503, "log-unwritable")
            kit(row, opened.ready())
        assert site.lets_in(held)
        (disk / "ballast").unlink()
        with within(row):
            assert (opened.ask().status_code, opened.ready()) == (201, 200)


def test_outage_of_the_signer(site: Site, tmp_path: Path) -> None:
    """The CA key's agent is gone."""
    row, ca, away = "The CA key's agent is gone", site.copy(tmp_path), tmp_path / "away"
    socket, ana = tmp_path / "agent", site.people["ana"]
    (ca / "keys" / "ca").rename(away)
    fingerprint = FileSigner(away, lambda _path: b"").public_key.fingerprint
    (ca / "ca.toml").write_text((ca / "ca.toml").read_text().replace("file:keys/ca", f"agent:{fingerprint}?socket={socket}"))
    with ExitStack() as ending:
        with holding(socket, away):
            opened = ending.enter_context(door(ca, site.people))
            assert (opened.ask().status_code, opened.ready()) == (201, 200)
        with within(row):
            told(row, opened.send(asked := body(ana, ana, role="admin")), 503, "signer-failed")
        kit(row, opened.ready())
        assert opened.act("eve", "lock", "/v1/locks", person="bo", reason="x").status_code == 200, "what needs no signature works"
        with holding(socket, away), within(row):
            assert opened.send(asked).status_code == 201, "the same statement gets the certificate that was logged"
            assert opened.ready() == 200


@contextmanager
def holding(socket: Path, key: Path) -> Iterator[None]:
    """A real ssh-agent that has the key."""
    socket.unlink(missing_ok=True)
    with keys.ssh_agent(socket):
        environment = os.environ | {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True, env=environment)
        yield


def test_outage_of_the_on_call_source(site: Site, tmp_path: Path) -> None:
    """The on-call source is gone."""
    row, ca = "The on-call source is gone", site.copy(tmp_path)
    with door(ca, site.people) as opened:
        _until_known(opened)
        assert opened.ask("called").status_code == 201
    rota = ca / "policies" / "oncall.toml"
    rota.write_text(rota.read_text().replace("/rota", "/gone"))
    with door(ca, site.people) as opened:
        with within(row):
            answer = opened.ask("called")
        assert (answer.status_code, "unknown: " in answer.text) == (202, True), answer.text
        kit(row, opened.ready())
        says(row, "unknown: ")
        asked = answer.get_json()
        said = {"request": asked["request"], "leaf": asked["leaf"]}
        agreed = opened.act("bo", "approve", f"/v1/requests/{asked['request']}/approve", **said)
        assert (agreed.status_code, agreed.get_json()["status"]) == (200, "granted"), "the role's other way still works"


def _until_known(opened: Door) -> None:
    deadline = time.monotonic() + sshd.PATIENCE
    while isinstance(opened.opened.on_call.facts("ana")["web"], str):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the source is asked beside us


def test_outage_of_the_notification_channel(site: Site, tmp_path: Path) -> None:
    """The notification channel is gone."""
    row = "The notification channel is gone"
    with door(site.copy(tmp_path), site.people) as opened:
        opened.opened.on_call.close()
        asked = opened.ask("called").get_json()
        path = "/v1/requests?view=waiting"
        said = ReadStatement(audience=ORIGIN, id=uuid7(), time=int(time.time()), path=path)
        header = authorization(canonical.encode(said), site.people["bo"])
        with within(row):
            waiting = opened.http.get(path, headers={"Authorization": header}).get_json()
        assert [each["request"] for each in waiting["requests"]] == [asked["request"]]
    says(row, "jit-ssh requests --waiting")


def test_outage_of_a_persons_keys(site: Site, tmp_path: Path) -> None:
    """A person's key is lost."""
    row, ca = "A person's key is lost", site.copy(tmp_path)
    lost, fresh = site.people["ana"].public_key, keys.make(tmp_path, name="fresh")
    people = ca / "policies" / "people.toml"
    with door(ca, site.people) as opened:
        held = kept(tmp_path, opened.ask().json)
        assert opened.act("eve", "revoke", "/v1/revocations", person="ana", reason="laptop lost").status_code == 200
        renewed = people.read_text().replace(lost.line, fresh.public_key.line)
        people.write_text(f'revoked_keys = ["{lost.fingerprint}"]\n{renewed}')
        with within(row):
            opened.opened.reload_policies()
            told(row, opened.ask(), 401, "revoked-key")
            answer = opened.send(body(fresh, fresh, role="admin"))
            kit(row, opened.ready())
        assert answer.status_code == 201, answer.text
        assert site.lets_in(held), "a host that has not fetched the revocation list yet"


def test_outage_of_the_clock(site: Site, tmp_path: Path) -> None:
    """A clock is wrong by a day."""
    row, ca, wrong = "A clock is wrong by a day", site.copy(tmp_path), [0]
    with door(ca, site.people, lambda: time.time() + wrong[0]) as opened:
        assert opened.ask().status_code == 201
        wrong[0] = DAY
        with within(row):
            told(row, opened.ask(), 503, "clock-jumped")
            kit(row, opened.ready())
        wrong[0] = 0
        for seconds in (DAY, -DAY):
            with within(row):
                told(row, opened.ask(time=int(time.time()) + seconds), 401, "stale")
        assert (opened.ask().status_code, opened.ready()) == (201, 200), "when it is right again"
        wrong[0] = -DAY
        with within(row):
            told(row, opened.ask(), 503, "clock-went-back")
            kit(row, opened.ready())
        wrong[0] = 0
        assert opened.ready() == 200
        issued = SignedCertificate.parse_line(opened.ask().get_json()["certificate"]).certificate
    signer = FileSigner(ca / "keys" / "ca", lambda _path: b"")
    for seconds in (DAY, -DAY):  # what a host sees whose clock is wrong the other way round
        seen = replace(issued, valid_after=issued.valid_after + seconds, valid_before=issued.valid_before + seconds)
        signed = SignedCertificate(seen, signer.sign(seen.to_be_signed))
        assert not site.lets_in(kept(tmp_path, {"certificate": signed.line}))
    assert site.lets_in(kept(tmp_path, {"certificate": SignedCertificate(issued, signer.sign(issued.to_be_signed)).line}))


def test_outage_of_the_way_to_the_host(site: Site, tmp_path: Path) -> None:
    """A host cannot reach the CA."""
    row, revoked = "A host cannot reach the CA", site.host.prefix / "jit-ssh" / "revoked"
    before = revoked.read_bytes()
    with door(site.copy(tmp_path), site.people) as opened:
        asked = opened.ask().get_json()
        held = kept(tmp_path, asked)
        with within(row):
            assert site.lets_in(held)
        assert opened.act("ana", "drop", f"/v1/requests/{asked['request']}/drop", request=asked["request"]).status_code == 200
        assert site.lets_in(held), "it has the list of before"
        try:
            revoked.write_bytes(opened.http.get("/v1/krl").data)
            assert not site.lets_in(held), "once it has the new one"
        finally:
            revoked.write_bytes(before)
