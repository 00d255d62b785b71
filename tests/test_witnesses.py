"""A CA and its witness, as real processes: rolled back, split in two, rewritten with its own keys, and left alone."""

import shutil
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from ca.certificate import SignedCertificate
from ca.checkpoint import VerifierKey
from ca.cosignature import Quorum, Witnessed, WitnessKey
from ca.errors import LogDamaged
from ca.proof import carried
from server.directory import open_ca
from server.terminal import asker
from server.witness_commands import list_ as witness_list
from tests import keys
from tests.home import make_home
from tests.keys import Key
from tests.running import ORIGIN, Running, body, run
from tests.witnessing import Serving, made

DATABASE: Final = [f"jit-ssh.db{beside}" for beside in ("", "-wal", "-shm", ".checkpoint")]
REMEMBERED: Final = [f"jit-ssh.db.witnessed{beside}" for beside in ("", "-wal", "-shm")]


@dataclass
class Watched:
    """A CA in `directory` and the witness that its operator may configure."""

    directory: Path
    ana: Key
    fresh: Key
    log_key: VerifierKey
    witness: WitnessKey
    serving: Serving

    def configure(self, required: int = 0, url: str | None = None, directory: Path | None = None) -> None:
        """The witness as the only one, and how many are required."""
        settings = (directory or self.directory) / "ca.toml"
        plain = settings.read_text().partition("\n[log]")[0]
        table = f'[[log.witnesses]]\nurl = "{url or self.serving.url}"\nkey = "{self.witness}"\n'
        settings.write_text(f"{plain}\n[log]\nrequire_witnesses = {required}\n{table}")

    def ask(self, server: Running) -> tuple[int, str]:
        """The status of a request for a certificate, and what was said if it was not issued."""
        status, answer = server.ask(body(self.ana, self.fresh))
        return status, answer.get("detail", "")

    def published(self, server: Running, required: int = 1) -> Witnessed:
        with urllib.request.urlopen(f"{server.url}/log/checkpoint", timeout=20) as answer:  # noqa: S310 - our own
            return Quorum((self.witness,), required).open(answer.read(), self.log_key)

    def witness_says(self, what: str) -> list[str]:
        """The logs of `jit-ssh-ca witness list`, when it says this."""
        deadline = time.monotonic() + 20
        while what not in (listed := CliRunner().invoke(witness_list, [str(self.directory.with_name("witness"))]).output):
            assert time.monotonic() < deadline, listed
            time.sleep(0.02)  # another process's file
        return listed.splitlines()[1:]

    def copy(self, name: str) -> Path:
        """Everything that there is of the CA now: a backup, or a second machine."""
        return Path(shutil.copytree(self.directory, self.directory.with_name(name)))

    def grows(self, entries: int = 1, directory: Path | None = None) -> int:
        """The CA's log in this process, with so many policy entries more, each cosigned before the next; its size."""
        opened = open_ca(directory or self.directory, asker(None))
        guardrails = opened.directory / "policies" / "guardrails.toml"
        for _ in range(entries):
            guardrails.write_text(f"{guardrails.read_text()}# {opened.store.size()}\n")
            opened.reload_policies()
            if opened.witnesses is not None:
                self.witness_says(f" {opened.store.size()} entries")
        size = opened.store.size()
        opened.release()
        opened.store.close()
        return size

    def refusal(self) -> str:
        """What the CA says that does not open."""
        with pytest.raises(LogDamaged) as refused:
            open_ca(self.directory, asker(None))
        return refused.value.message

    def restore(self, copied: Path, *, forget: bool = True) -> None:
        """Puts a copy in the place of the CA's own files, and leaves nothing of a later log; or what witnesses said."""
        shutil.copytree(copied / "policies", self.directory / "policies", dirs_exist_ok=True)
        for name in [*DATABASE, *(REMEMBERED if forget else ())]:
            (self.directory / name).unlink(missing_ok=True)
            if (copied / name).exists():
                shutil.copy(copied / name, self.directory / name)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A CA that has served once, so that its policy is in the log, and a witness that knows it."""
    at = tmp_path_factory.mktemp("watched")
    ana, fresh = keys.make(at, name="ana"), keys.make(at, name="fresh")
    init = run("init", at / "ca", "--origin", ORIGIN, "--person", "ana", "--key", at / "ana.pub")
    assert init.code == 0, init.err
    assert Running(at / "ca").stops() == 0
    log_key = VerifierKey.parse(next(line for line in init.out.splitlines() if "log key" in line).split()[-1])
    witness = made(at / "witness", log_key, "w1.example.org")
    return Watched(at / "ca", ana, fresh, log_key, witness, None)  # type: ignore[arg-type]  # each test serves its own


@pytest.fixture
def watched(made_once: Watched, tmp_path: Path) -> Iterator[Watched]:
    for name in ("ana", "ana.pub"):
        shutil.copy(made_once.directory.with_name(name), tmp_path / name)
    for name in ("ca", "witness"):
        shutil.copytree(made_once.directory.with_name(name), tmp_path / name)
    serving = Serving(tmp_path / "witness")
    own = Watched(tmp_path / "ca", made_once.ana, made_once.fresh, made_once.log_key, made_once.witness, serving)
    own.configure()
    yield own
    own.serving.stop()


def stop(*servers: Running) -> None:
    for server in servers:
        assert server.stops() == 0


# ------------------------------------------------------------- cosignatures


def test_a_certificate_that_must_be_witnessed_leaves_when_it_is(watched: Watched) -> None:
    watched.configure(required=1)
    server = Running(watched.directory)
    for size in (4, 6, 8):
        status, answer = server.ask(body(watched.ana, watched.fresh))
        assert status == 201
        proof = carried(SignedCertificate.parse_line(answer["certificate"]))
        assert proof.verify(watched.log_key, Quorum((watched.witness,), 1)).size == size, "what leaves carries the cosignature"
        assert watched.published(server).checkpoint.size == size, "and it is public before the answer"
    stop(server)


def test_by_default_cosignatures_are_attached_when_they_come(watched: Watched) -> None:
    server = Running(watched.directory)
    assert watched.published(server).checkpoint.size == 2, "asked before anybody is served"
    assert watched.ask(server)[0] == 201
    watched.witness_says(f"{ORIGIN}: 4 entries")
    while not (published := watched.published(server, required=0)).cosignatures:
        assert published.checkpoint.size == 4  # the witness has kept it; its answer is on the way
    stop(server)


def test_without_its_witness_a_ca_goes_on_unless_it_must_be_witnessed(watched: Watched) -> None:
    url = watched.serving.url
    watched.serving.stop()
    server = Running(watched.directory)
    assert watched.ask(server)[0] == 201
    assert watched.published(server, required=0).cosignatures == ()
    stop(server)

    watched.configure(required=1)
    server = Running(watched.directory)
    request = body(watched.ana, watched.fresh)
    for _ in range(2):
        status, answer = server.ask(request)
        assert (status, answer["code"]) == (503, "not-witnessed")
        assert "w1.example.org did not answer" in answer["detail"]
    watched.serving = Serving(watched.directory.with_name("witness"), url.removeprefix("http://"))
    assert server.ask(request)[0] == 201, "the same statement, when the witness is there again"
    assert watched.published(server).checkpoint.size == 6, "what was asked twice is in the log once"
    stop(server)
    assert run("log", "verify", watched.directory).code == 0


# ------------------------------------------------------------------ old copies


def test_an_old_copy_does_not_start_when_a_witness_has_seen_more(watched: Watched) -> None:
    copied = watched.copy("yesterday")
    watched.grows()
    watched.restore(copied)
    before = (watched.directory / "jit-ssh.db").read_bytes()
    refused = run("serve", watched.directory, "--listen", "127.0.0.1:0")
    assert refused.code == 1
    assert "the witness w1.example.org has cosigned 3 entries of this log, which has 2: this is an old copy" in refused.err
    assert "hint: Restore the newest copy of the database" in refused.err
    assert (watched.directory / "jit-ssh.db").read_bytes() == before, "nothing was appended"


def test_an_old_copy_stops_issuing_when_the_witness_answers_again_and_stays_stopped(watched: Watched) -> None:
    copied = watched.copy("yesterday")
    watched.grows(10)
    newest = watched.copy("newest")

    watched.restore(copied)
    url = watched.serving.url
    watched.serving.stop()
    server = Running(watched.directory)
    assert watched.ask(server)[0] == 201, "nobody is there who would know better"
    watched.serving = Serving(watched.directory.with_name("witness"), url.removeprefix("http://"))
    watched.ask(server)
    server.says("nothing is issued any more")
    alarm = "has cosigned 12 entries of this log, which has 6"
    status, said = watched.ask(server)
    assert (status, alarm in said) == (503, True)
    assert server.fetch("/readyz")[0] == 503
    stop(server)

    watched.serving.stop()
    assert alarm in watched.refusal(), "a witness that is silent now does not unsay what it said"
    watched.serving = Serving(watched.directory.with_name("witness"), url.removeprefix("http://"))
    watched.restore(newest)
    assert watched.grows() == 13, "the newest copy goes on"


def test_what_was_cosigned_is_remembered_beside_the_database(watched: Watched) -> None:
    copied = watched.copy("yesterday")
    watched.grows()
    watched.restore(copied, forget=False)
    watched.serving.stop()
    assert "has cosigned 3 entries of this log, which has 2" in watched.refusal()


# --------------------------------------------------------------- two histories


def test_of_two_cas_with_one_key_the_witness_knows_one(watched: Watched) -> None:
    watched.configure(required=1)
    other = watched.copy("other")
    one, two = Running(watched.directory), Running(other)
    assert watched.ask(one)[0] == 201
    status, said = watched.ask(two)
    assert status == 503
    assert "the witness w1.example.org has cosigned 4 entries with another root" in said
    assert watched.ask(one)[0] == 201
    assert watched.ask(two)[0] == 503, "and it stays so"
    assert "its key signed 1 checkpoints that contradict" in "".join(watched.witness_says("ALARM"))
    stop(one, two)


def test_a_log_rewritten_with_its_own_keys_is_refused_by_the_witness(watched: Watched) -> None:
    """Who has both keys of the CA, and the database, begins again from the third entry; the log itself is flawless."""
    forged = watched.copy("forged")
    watched.grows(2)
    settings = forged / "ca.toml"
    settings.write_text(settings.read_text().partition("\n[log]")[0])
    watched.grows(5, forged)
    assert run("log", "verify", forged).code == 0
    watched.restore(forged)
    assert "has cosigned 4 entries that are not those at the beginning of this log" in watched.refusal()
    said = watched.serving.log.read_text()
    assert "submitted: 7 entries below" in said
    assert "cosigned before: 4 entries below" in said


# -------------------------------------------------------------- a person's view


def test_a_person_who_knows_witnesses_sees_who_cosigned_and_can_insist(watched: Watched, tmp_path: Path) -> None:
    watched.configure(required=1)
    server = Running(watched.directory)
    home = make_home(tmp_path / "home", watched.directory.parent / "ana")
    fingerprint = next(line for line in run("fingerprint", watched.directory).out.splitlines() if "fingerprint" in line)
    assert home.run("setup", server.url, "--fingerprint", fingerprint.split()[-1]).returncode == 0
    assert "witnesses" not in home.run("log", "verify").stdout, "who knows none is told nothing"

    other = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    known = home.ours / "witnesses"
    known.write_text(f"# two\n{watched.witness}\n{other}\nrequire 1\n")
    shown = home.run("log", "verify")
    assert "witnesses  cosigned by w1.example.org, of the 2 that you know" in shown.stdout, shown.stderr
    assert [each["name"] for each in home.json("log", "verify")["witnesses"]] == ["w1.example.org"]

    known.write_text(f"{watched.witness}\n{other}\nrequire 2\n")
    refused = home.run("log", "verify")
    assert refused.returncode == 1
    assert "has to be cosigned by 2 witnesses: w1.example.org did" in refused.stderr
    for wrong, why in (("require 3", "3 witnesses are required, 1 are known"), ("require one", "witnesses, line 1: ")):
        known.write_text(f"{wrong}\n{watched.witness}\n")
        refused = home.run("log", "verify")
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    stop(server)
