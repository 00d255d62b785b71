"""`ca.issue`, the spine: decide, log, sign, in this order; and what is left when one of them fails."""

import dataclasses
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from ca import issue
from ca.checkpoint import VerifierKey
from ca.entry import AnyEntry, IssueEntry, PolicyEntry, RefuseEntry, RequestEntry
from ca.errors import ClockWentBack, LogUnwritable, Misconfigured, SignerFailed
from ca.issue import CertificateAuthority
from ca.log import Log, Made, Make, Tail
from ca.signers.file import FileSigner
from ca.store.sqlite import SqliteStore
from ca.wire import Reader, string
from tests import keys
from tests.keys import Key
from tests.world import START, World, certificate


@pytest.fixture
def fresh(tmp_path: Path) -> FileSigner:
    """The key of one login."""
    return keys.make(tmp_path, name="fresh")


# ------------------------------------------------------------------ decide, log


def test_a_granted_request_and_its_certificate_are_logged_together(world: World, fresh: FileSigner) -> None:
    signed = certificate(world.ask("ana", fresh))
    assert world.kinds() == ["genesis", "policy", "request", "issue"]
    asked, issued = world.entries()[2:]
    assert isinstance(asked, RequestEntry)
    assert isinstance(issued, IssueEntry)
    assert (issued.request, issued.time, issued.actor, issued.role) == (2, asked.time, "ana", "web-admin")
    assert issued.certificate == signed.certificate.bare, "what was logged is what was signed"
    with world.store.writing() as writing:
        assert writing._one("SELECT group_concat(size) FROM checkpoints") == "1,2,4", "one commit for both"
    assert world.check().certificates == 1


def test_the_certificate_says_exactly_what_was_granted(world: World, fresh: FileSigner) -> None:
    signed = certificate(world.ask("ana", fresh, duration=600)).certificate
    assert signed.serial == 3, "the index of its entry"
    assert signed.key_id == "ana/web-admin/2"
    assert signed.principals == ("root@web",)
    assert (signed.valid_after, signed.valid_before) == (START - 60, START + 600)
    assert (signed.key, signed.ca_key) == (fresh.public_key, world.signer.public_key)
    assert (signed.force_command, signed.source_address, signed.permit) == (None, None, ("pty",))


def test_without_a_duration_the_roles_default_counts(world: World) -> None:
    assert certificate(world.ask("ana")).certificate.valid_before == START + 1800


def test_the_person_in_a_principal_is_the_one_who_asked(world: World) -> None:
    assert certificate(world.ask("bo", role="dev")).certificate.principals == ("bo@dev",)
    assert certificate(world.ask("ana", role="dev")).certificate.principals == ("ana@dev",)


def test_ssh_keygen_reads_the_certificate_as_we_do(world: World, fresh: FileSigner, tmp_path: Path) -> None:
    path = tmp_path / "answer-cert.pub"
    path.write_text(certificate(world.ask("ana", fresh)).line)
    shown = subprocess.run(["ssh-keygen", "-Lf", path], check=True, capture_output=True, text=True).stdout
    for said in ('Key ID: "ana/web-admin/2"', "Serial: 3", "root@web", "permit-pty", world.signer.public_key.fingerprint):
        assert said in shown


def test_each_certificate_has_a_nonce_of_its_own(world: World, fresh: FileSigner) -> None:
    nonces = {certificate(world.ask("ana", fresh)).certificate.nonce for _ in range(5)}
    assert len(nonces) == 5


def test_a_denied_request_is_logged_as_richly_and_never_signed(world: World) -> None:
    answer = world.ask("bo")
    assert answer.status_code == 403
    (refused,) = world.entries()[2:]
    assert isinstance(refused, RefuseEntry)
    assert (refused.actor, refused.role, refused.policy, refused.code) == ("bo", "web-admin", 1, "denied")
    assert refused.message == answer.json["detail"] if answer.json else False
    assert refused.statement
    assert refused.ways
    assert world.signer.calls == 0
    assert world.check().signatures == 2


def test_the_signer_is_called_once_for_each_certificate(world: World) -> None:
    for _ in range(3):
        world.ask("ana")
        world.ask("bo")
    assert world.signer.calls == 3
    assert world.kinds().count("issue") == 3


def test_many_at_once_get_certificates_with_serials_of_their_own(world: World) -> None:
    def ask(body: dict[str, str]) -> int:
        answer = world.http.application.test_client().post("/v1/requests", json=body)
        return certificate(answer).certificate.serial

    with ThreadPoolExecutor(8) as threads:
        serials = list(threads.map(ask, [world.body("ana") for _ in range(40)]))
    assert len(set(serials)) == 40
    assert world.check().certificates == 40


# ------------------------------------------------------------------- the policy


def test_the_first_policy_is_logged_with_the_digest_of_each_file(world: World) -> None:
    (policy,) = world.entries()[1:]
    assert isinstance(policy, PolicyEntry)
    assert policy.files == {name: sha256(content).hexdigest() for name, content in world.files.items()}
    for name, digest in policy.files.items():
        assert world.store.policy_file(digest) == world.files[name], "kept, so that an old decision can be judged again"


def test_the_same_files_make_no_new_entry(world: World) -> None:
    world.ca.adopt(world.files)
    world.reopen()
    assert world.kinds() == ["genesis", "policy"]
    assert world.ca.rules.index == 1


def test_changed_files_make_an_entry_that_decides_from_then_on(world: World) -> None:
    world.adopt(guardrails='auditors = ["security"]\n[[deny]]\nmessage = "All is frozen"\n')
    assert world.ca.rules.index == 2
    assert world.ask("ana").status_code == 403
    refused = world.entries()[-1]
    assert isinstance(refused, RefuseEntry)
    assert refused.policy == 2
    assert world.signer.calls == 0


def test_files_that_were_in_use_before_make_an_entry_again(world: World) -> None:
    people = world.files["people.toml"].decode()
    world.adopt(people=people + "# changed\n")
    world.adopt(people=people)
    assert world.kinds() == ["genesis", "policy", "policy", "policy"]


def test_one_bad_file_changes_nothing(world: World) -> None:
    rules = world.ca.rules
    with pytest.raises(Misconfigured, match="the policy has") as refused:
        world.adopt(guardrails='auditors = ["nobody"]\n', role_dev="principals = 7")
    assert {line.partition(":")[0] for line in refused.value.problems} == {"guardrails.toml", "roles/dev.toml"}
    assert world.ca.rules is rules
    assert world.kinds() == ["genesis", "policy"]
    assert world.ask("ana").status_code == 201


def test_a_policy_that_cannot_be_logged_does_not_decide(world: World) -> None:
    rules = world.ca.rules
    world.now -= 1
    with pytest.raises(ClockWentBack):
        world.adopt(guardrails='auditors = ["security"]\n# changed\n')
    assert world.ca.rules is rules


def test_a_person_removed_between_two_requests_gets_the_first_only(world: World) -> None:
    bodies = [world.body("ana"), world.body("ana")]
    assert world.post(bodies[0]).status_code == 201
    before, _, _ = world.files["people.toml"].decode().partition("[people.ana]")
    world.adopt(people=before)
    assert world.post(bodies[1]).status_code == 401
    assert world.signer.calls == 1


def test_a_person_who_left_the_group_is_refused(world: World) -> None:
    assert world.ask("ana").status_code == 201
    world.adopt(people=world.files["people.toml"].decode().replace('["engineers", "sre"]', '["engineers"]'))
    assert world.ask("ana").status_code == 403


GONE: dict[str, Callable[[str], str]] = {
    "another has the key": lambda people: people.replace("[people.ana]", "[people.ann]"),
    "nobody has the key": lambda people: re.sub(r"\[people\.ana\]\n.*\n.*\n", "", people),
}


@pytest.mark.parametrize("act", ["request", "drop"])
@pytest.mark.parametrize("gone", GONE.values(), ids=GONE.keys())
def test_a_person_removed_while_the_statement_waited_is_refused(world: World, gone: Callable[[str], str], act: str) -> None:
    """The policy that counts is that of the decision, not that of the signature's check: else the entry would not verify."""
    held = (world.ask("ana").json or {})["request"]
    kinds, calls, body = world.kinds(), world.signer.calls, world.body("ana")
    waiting, reloaded = threading.Event(), threading.Event()
    append = world.ca.log.append_all

    def late(makes: Sequence[Make]) -> list[Made]:
        waiting.set()
        reloaded.wait(20)
        return append(makes)

    with ThreadPoolExecutor(1) as threads:
        world.ca.log.append_all = late  # type: ignore[method-assign]
        answer = threads.submit(lambda: world.post(body) if act == "request" else world.give_back("ana", "drop", held))
        assert waiting.wait(20)
        world.ca.log.append_all = append  # type: ignore[method-assign]
        world.adopt(people=gone(world.files["people.toml"].decode()))
        reloaded.set()
        assert answer.result().status_code == 401
    assert (world.kinds(), world.signer.calls) == ([*kinds, "policy"], calls)
    world.check()


# ------------------------------------------------------------------- the signer


class Changed:
    """A signer whose signatures a test chooses."""

    at_once = True

    def __init__(self, world: World, sign: Callable[[bytes], bytes]) -> None:
        self.public_key = world.signer.public_key
        self.sign = sign

    def ready(self) -> None:
        """Always."""


def gone(_message: bytes) -> bytes:
    raise SignerFailed("the key is out of reach")


@pytest.mark.parametrize(
    "sign",
    [
        lambda _message: b"",
        lambda _message: b"garbage",
        lambda _message: string("ssh-ed25519") + string(bytes(64)),
        lambda _message: string("rsa-sha2-512") + string(bytes(384)),
        gone,
    ],
    ids=["nothing", "garbage", "zeros", "another type", "gone"],
)
def test_no_certificate_leaves_with_a_signature_that_does_not_verify(world: World, sign: Callable[[bytes], bytes]) -> None:
    body, signer = world.body("ana"), world.signer
    world.signer = Changed(world, sign)  # type: ignore[assignment]
    world.open()
    answer = world.post(body)
    assert (answer.status_code, answer.json["code"] if answer.json else None) == (503, "signer-failed")
    assert "certificate" not in (answer.json or {})
    assert world.kinds()[2:] == ["request", "issue"], "an entry without a certificate is harmless"
    world.check()
    world.signer = signer
    world.open()
    signed = certificate(world.post(body))
    assert signed.certificate.serial == 3, "the same statement gets the certificate that was logged"
    assert world.kinds()[2:] == ["request", "issue"]
    world.check()


def test_a_signature_by_another_key_is_not_taken_for_the_cas(world: World, tmp_path: Path) -> None:
    other = keys.make(tmp_path, name="other")
    world.signer = Changed(world, other.sign)  # type: ignore[assignment]
    world.open()
    assert world.ask("ana").status_code == 503


def test_a_signer_that_breaks_in_an_unforeseen_way_gives_no_certificate(world: World) -> None:
    def broken(_message: bytes) -> bytes:
        raise RuntimeError("secret detail of the signer")

    world.signer = Changed(world, broken)  # type: ignore[assignment]
    world.open()
    answer = world.ask("ana")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    world.check()


def test_a_log_that_cannot_be_written_means_no_signature(world: World) -> None:
    world.store._writer.db.execute("PRAGMA max_page_count = 1")
    answers = [world.ask("ana") for _ in range(20)]
    failed = [answer for answer in answers if answer.status_code == 503]
    assert failed
    assert failed[-1].json == failed[-1].json | {"code": "log-unwritable"} if failed[-1].json else False
    assert world.signer.calls == world.kinds().count("issue") == 20 - len(failed)
    world.store._writer.db.execute("PRAGMA max_page_count = 1073741823")
    assert world.ask("ana").status_code == 201
    world.check()


def test_a_clock_that_went_back_issues_nothing(world: World) -> None:
    world.ask("ana")
    world.now -= 5
    answer = world.ask("ana")
    assert answer.status_code == 503
    assert answer.json
    assert answer.json["code"] == "clock-went-back"
    assert world.signer.calls == 1


# ------------------------------------------------------------------ whose log


def opened(
    world: World, *, ca: Key | None = None, origin: str | None = None, log: FileSigner | None = None
) -> CertificateAuthority:
    signer = log or world.log_signer
    raw = Reader(signer.public_key.fields, "key").string()
    name = origin or world.ca.trust.origin
    another = Log(world.store, VerifierKey(name, raw), signer.sign, lambda: int(world.now * 1000))
    return CertificateAuthority(another, Changed(world, world.signer.sign) if ca is None else ca, world.files, bytes)  # type: ignore[arg-type]


def test_a_log_is_continued_by_those_who_began_it_only(world: World, tmp_path: Path) -> None:
    other = keys.make(tmp_path, name="other")
    for differs in ({"ca": other}, {"origin": "other.example.com"}, {"log": other}):
        with pytest.raises(Misconfigured, match=r"the log was begun by SHA256:.{43}, the configuration says SHA256:") as refused:
            opened(world, **differs)
        assert "Set origin, the CA key and the log key back" in refused.value.hint
    assert opened(world).trust == world.ca.trust == issue.begun_by(world.store)
    assert world.kinds() == ["genesis", "policy"]


def test_a_log_begins_once(world: World) -> None:
    with pytest.raises(Misconfigured, match="begun already"):
        issue.begin(world.ca.log, world.signer.public_key.line)
    assert world.kinds() == ["genesis", "policy"]


def test_the_cas_own_key_is_nobodys(world: World) -> None:
    rules = world.ca.rules
    people = world.files["people.toml"].decode()
    for key, whose in ((world.signer.public_key, "the CA's own"), (world.log_signer.public_key, "the log's own")):
        with pytest.raises(Misconfigured, match=f"gives {whose} key to bo"):
            world.adopt(people=people.replace(world.people["bo"].public_key.line, key.line))
    assert world.ca.rules is rules


def test_ready_says_what_would_keep_a_request_from_being_answered(world: World) -> None:
    world.ca.ready()
    world.signer.ready = lambda: gone(b"")  # type: ignore[method-assign,assignment]
    with pytest.raises(SignerFailed):
        world.ca.ready()
    world.now -= 1
    with pytest.raises(ClockWentBack):
        world.ca.ready()
    world.store._broken = "disk I/O error"
    with pytest.raises(LogUnwritable):
        world.ca.ready()


def test_a_decision_cannot_be_changed_after_it_was_made(world: World) -> None:
    world.ask("ana")
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.entries()[2].actor = "bo"  # type: ignore[misc]


def test_whoever_is_decided_behind_a_new_policy_in_the_same_commit_is_decided_by_it(world: World) -> None:
    """The new policy's entry and the request share a batch: both wait while another commits."""
    body = world.body("ana")
    without_ana = world.files["people.toml"].replace(b'["engineers", "sre"]', b'["engineers"]')
    began, both_wait = threading.Event(), threading.Event()

    def slow(_tail: Tail) -> Sequence[AnyEntry]:
        began.set()
        assert both_wait.wait(20)
        return []

    with ThreadPoolExecutor(3) as threads:
        threads.submit(world.ca.log.append, slow)
        assert began.wait(20)
        adopting = threads.submit(world.ca.adopt, world.files | {"people.toml": without_ana})
        while len(world.ca.log._queue) < 1:
            time.sleep(0.001)
        asking = threads.submit(world.post, body)
        while len(world.ca.log._queue) < 2:
            time.sleep(0.001)
        both_wait.set()
        assert adopting.result().index == 2
        assert asking.result().status_code == 403
    assert world.kinds()[2:] == ["policy", "refuse"]
    refusal = world.entries()[3]
    assert isinstance(refusal, RefuseEntry)
    assert refusal.policy == 2


def test_a_ca_whose_policy_another_process_replaced_decides_nothing_until_it_reads_the_files_again(world: World) -> None:
    changed = world.files | {"guardrails.toml": b'auditors = ["sre"]\n'}
    other = CertificateAuthority(world.log_of(SqliteStore(world.store.path)), world.signer, changed, os.urandom)
    assert world.ask("ana").status_code == 503
    world.files = changed
    assert world.ca.adopt(world.files).index == other.rules.index
    assert world.ask("ana").status_code == 201
