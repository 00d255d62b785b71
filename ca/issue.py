"""The spine: decide, log, sign. There is no other path to a signature by the CA key.

What a crash leaves: before the log's commit, nothing; after it and before the signature, an entry without a certificate, which is
harmless; after the signature, a certificate whose entry is durable. Whoever lost the answer sends the same statement again and
gets the same certificate, made again from the bytes in the log.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from ca import acts, asking, entry, roles
from ca.acts import Moment, OnCallFacts, Rules, Said
from ca.asking import Asked
from ca.certificate import BACKDATE, NONCE_BYTES, Certificate, SignedCertificate, add_proof
from ca.entry import OPERATOR, AnyEntry, Fork, GenesisEntry, IssueEntry, PolicyEntry, RefuseEntry, RenewEntry, RequestEntry
from ca.errors import BadSignature, LogDamaged, Malformed, Misconfigured, NotFound, Replayed, SignerFailed, Stale, UnknownSigner
from ca.findings import Privilege
from ca.keys import ed25519_key
from ca.log import Log, Made, Make, Reading, Tail
from ca.proof import Proof
from ca.request import key_id
from ca.roles import Policy
from ca.signers.uri import Signer
from ca.statement import FRESH, CertificateStatement, RequestStatement
from ca.trust import Trust
from ca.wire import decode_base64, string

_NOT_GIVEN: Final = "It was given to nobody. Restore the newest copy of the database"


@dataclass(frozen=True)
class Issued:
    """A granted request, the entry of its certificate, the certificate, and the proof in it."""

    request: RequestEntry
    issue: IssueEntry
    certificate: SignedCertificate
    proof: Proof


Outcome = Issued | RequestEntry | RefuseEntry
_S = TypeVar("_S", bound=Said)


class CertificateAuthority:
    """Decides on requests, logs what it decided, and signs what it logged. Safe to use from many threads."""

    def __init__(
        self,
        log: Log,
        signer: Signer,
        files: Mapping[str, bytes],
        random: Callable[[int], bytes],
        on_call: OnCallFacts = lambda _person: {},
    ) -> None:
        """`files` are the policy files; `random` gives that many unpredictable bytes; `on_call` a person's shifts, at once.

        Raises `Misconfigured` when the policy is wrong or the log was begun with other keys.
        """
        self.log = log
        self._signer = signer
        self._random = random
        self.on_call = on_call
        self._own = {"the CA's own": signer.public_key, "the log's own": ed25519_key(log.key.public_key)}
        self.trust = Trust(origin=log.key.name, ca_keys=(signer.public_key.line,), log_key=str(log.key))
        _check_genesis(log, self.trust)
        self._coming: Rules | None = None  # of a policy entry that is being committed
        self.rules = self.adopt(files)

    # ------------------------------------------------------------ the policy

    def adopt(self, files: Mapping[str, bytes]) -> Rules:
        """From now on these files decide: all of them, or `Misconfigured` with every problem and nothing changed."""
        policy = roles.load(files)
        for whose, key in self._own.items():
            if owner := policy.owner_of(key):
                raise Misconfigured(f"people.toml gives {whose} key to {owner.name}", "Remove it there")
        digests = {name: sha256(content).hexdigest() for name, content in files.items() if roles.is_policy_file(name)}

        def write(tail: Tail) -> Sequence[AnyEntry]:
            newest = tail.newest("policy")
            if isinstance(newest, PolicyEntry) and newest.files == digests:
                return [newest]
            tail.log.add_files({name: files[name] for name in digests})
            self._coming = Rules(policy, tail.index)
            return [PolicyEntry(index=tail.index, time=tail.time, actor=OPERATOR, files=digests)]

        try:
            self.rules = Rules(policy, self.log.append(write)[0].index)
        finally:
            self._coming = None  # if its entry is not there, another may get that index
        return self.rules

    def ready(self) -> None:
        """Raises what would keep a request from being answered: an unwritable log, a wrong clock, a signer out of reach."""
        self.log.append(lambda _tail: [])
        self._signer.ready()

    # ------------------------------------------------------------- the spine

    def decide(self, all_: Sequence[Asked]) -> list[Made]:
        """Grants and certifies, or takes note of a request that waits for approvals, or refuses, for many; or the same for other
        certificates within a grant: one after the other and in one commit. All is in the log when this returns.

        In the place of an answer is `Replayed` for another statement with an id that is in the log, `NotFound`, and what
        `Log.append` raises.
        """
        return self.log.append_all([self._answering(asked) for asked in all_])

    def outcome(self, entries: Sequence[AnyEntry]) -> Outcome:
        """What was decided in these entries, with the certificate where there is one. Raises what the signer raises."""
        match entries:
            case [RequestEntry() as request, *_, IssueEntry() as issue]:
                proof = self.log.proof(issue.index)  # before it is signed: what too few have seen leaves the CA for nobody
                return Issued(request, issue, self._sign(issue, proof), proof)
            case [RequestEntry() | RefuseEntry() as entry]:
                return entry
            case _:
                raise Malformed(f"entry {entries[0].index} is no answer to a request")

    def act(self, said: Said) -> AnyEntry:
        """Takes note of what a person did about a request or a person, or refuses it. Raises what `decide` says."""
        return self.log.append(lambda tail: self._decide(said, tail, lambda known, at: [acts.act(known, at)]))[0]

    @property
    def at_once(self) -> bool:
        """Whether what was decided is certified without waiting for others: no witness is required, and the key is in here."""
        return self._signer.at_once and not (self.log.witnesses and self.log.witnesses.required)

    def _answering(self, asked: Asked) -> Make:
        return lambda tail: self._decide(asked, tail, self._answer)

    def _decide(self, said: _S, tail: Tail, how: Callable[[_S, Moment], Sequence[AnyEntry]]) -> Sequence[AnyEntry]:
        known, at = tail.caused_by(said.statement.id), Moment(tail, self._in_force(tail), self.on_call)
        if known is not None:
            return _again(said, known, at)
        if at.rules.policy.is_revoked(said.key) or not _speaks(said, at):
            raise UnknownSigner(f"the key {said.key.fingerprint} has just been taken from {said.person}")
        if abs(at.seconds - said.statement.time) > FRESH:  # it waited for the log: an entry that verifies as stale is not written
            raise Stale(f"the statement became older than {FRESH} s while the log was busy", "Try again")
        return how(said, at)

    def _answer(self, asked: Asked, at: Moment) -> Sequence[AnyEntry]:
        uncertifiable = self._uncertifiable(asked, at.rules.policy)
        match asked.wanted:
            case RequestStatement() as said:
                request = asking.ask(asked, said, at, uncertifiable)
                if isinstance(request, RefuseEntry) or request.steps:
                    return [request]
                until = at.seconds + request.privilege.duration
                return [request, self._issue(asked, at, request, request.privilege, until, request.index + 1)]
            case CertificateStatement() as said:
                held = at.case(at.request(said.request)).current
                renewal = asking.renew(asked, held, at, uncertifiable)
                if isinstance(renewal, RefuseEntry):
                    return [renewal]
                issue = self._issue(asked, at, held.entry, held.privilege, renewal.until, renewal.index + 1)
                return [held.entry, renewal, issue]

    def _issue(
        self, asked: Asked, at: Moment, request: RequestEntry, privilege: Privilege, until: int, serial: int
    ) -> IssueEntry:
        role = at.rules.policy.roles[request.role]
        longest = role.certificate_duration or privilege.duration
        certificate = Certificate(
            key=asked.wanted.public_key,
            serial=serial,
            key_id=key_id(request),
            principals=privilege.principals,
            valid_after=at.seconds - BACKDATE,
            valid_before=min(until, at.seconds + longest),
            force_command=privilege.force_command,
            source_address=privilege.source_address,
            permit=privilege.permit,
            ca_key=self._signer.public_key,
            nonce=self._random(NONCE_BYTES),
        )
        tbs = b64encode(certificate.to_be_signed).decode()
        return IssueEntry(index=serial, time=at.tail.time, actor=request.actor, role=request.role, request=request.index, tbs=tbs)

    def _in_force(self, tail: Tail) -> Rules:
        """The rules of the newest policy entry, which may stand in this very batch."""
        newest = tail.newest("policy")
        for rules in (self._coming, self.rules):
            if rules is not None and newest is not None and newest.index == rules.index:
                return rules
        raise Misconfigured("another process took other policy files into force", "Send this one a SIGHUP")

    def _uncertifiable(self, asked: Asked, policy: Policy) -> str | None:
        """Why nobody gets a certificate over the key that was sent, if so."""
        key = asked.wanted.public_key
        owner = policy.owner_of(key)
        for whose, own in self._own.items():
            if key == own:
                return f"the key to certify is {whose}"
        if policy.is_revoked(key):
            return f"the key to certify, {key.fingerprint}, is revoked"
        if owner is not None and owner.name != asked.person:
            return "the key to certify belongs to another person"
        return None

    def _sign(self, issue: IssueEntry, proof: Proof) -> SignedCertificate:
        """Signs what is in the log, with the proof that it is there.

        It believes the signer and itself as little as anybody: what leaves is parsed, verified and compared with the entry first.
        """
        logged = decode_base64(issue.tbs, "the certificate")
        tbs = add_proof(logged, proof.encode())
        try:
            signed = SignedCertificate.parse(tbs + string(self._signer.sign(tbs)))
            signed.verify(self._signer.public_key)
        except (Malformed, BadSignature) as error:
            raise SignerFailed(f"the CA key made a signature that does not verify: {error.message}") from error
        if signed.certificate.bare.to_be_signed != logged or proof.entry != issue.encode():
            raise LogDamaged("the certificate to be signed is not the one that is in the log", _NOT_GIVEN)
        return signed


def _speaks(said: Said, at: Moment) -> bool:
    """Whether the key is the person's, or that of the living certificate by which they ask for the next one."""
    policy, words = at.rules.policy, said.statement
    if not isinstance(words, CertificateStatement) or words.serial is None:
        owner = policy.owner_of(said.key)
        return owner is not None and owner.name == said.person
    asked = at.request(words.request)
    if words.serial >= at.tail.index or asked.entry.actor != said.person:
        return False
    return asking.lives(words, said.key, asked, at.tail.entry(words.serial), policy, at.seconds, at.renewed_by)


def _again(said: Said, known: AnyEntry, at: Moment) -> Sequence[AnyEntry]:
    """The answer that this very statement got before. Raises `Replayed`, and `NotFound` for a certificate whose grant is over."""
    if getattr(known, "statement", None) != said.text or known.actor != said.person:
        raise Replayed("another statement with this id is in the log", "Make a new statement with an id of its own")
    match known:
        case RequestEntry(steps=None):
            return _still_held([known, at.tail.entry(known.index + 1)], at)
        case RenewEntry():
            return _still_held([at.tail.entry(known.request), known, at.tail.entry(known.index + 1)], at)
        case _:
            return [known]


def _still_held(issued: Sequence[AnyEntry], at: Moment) -> Sequence[AnyEntry]:
    request, issue = issued[0].index, issued[-1].index
    asked = at.request(request)
    # Its chain is short: whoever repeats the statement has a key that `renews` lets through, or the person's own.
    status = "revoked" if asked.status == "granted" and asked.revokes(issue, at.renewed_by) else asked.status
    if status != "granted":  # also for whoever never got it: the answer, or the signature, may have been lost
        raise NotFound(f"request {request} is {status}: its certificate is not made again", "Ask again")
    return issued


def _check_genesis(log: Log, trust: Trust) -> None:
    if (begun := begun_by(log.store)) != trust:
        raise Misconfigured(
            f"the log was begun by {begun.fingerprint}, the configuration says {trust.fingerprint}",
            "Set origin, the CA key and the log key back to those that the log was begun with",
        )


def begun_by(log: Reading) -> Trust:
    """The CA that the log's first entry names. Raises `Misconfigured` if there is none, `LogDamaged` if it is none."""
    first = next(log.entries(0, 1), None)
    try:
        genesis = None if first is None else entry.decode(first)
    except Malformed as error:
        raise LogDamaged(f"entry 0 is not the one that was logged: {error.message}", "Restore the newest copy") from error
    if not isinstance(genesis, GenesisEntry):
        what = "the log is empty" if genesis is None else "the log does not begin with a genesis"
        raise Misconfigured(what, "Restore the newest copy of the database; only for a new CA: jit-ssh-ca init")
    return Trust(origin=genesis.origin, ca_keys=(genesis.ca_key,), log_key=genesis.log_key)


def begin(log: Log, ca_key: str, follows: Fork | None = None) -> None:
    """Writes the first entry of an empty log. Raises `Misconfigured` if the log is not empty."""

    def write(tail: Tail) -> Sequence[AnyEntry]:
        if tail.index:
            raise Misconfigured("the log has been begun already")
        origin, log_key = log.key.name, str(log.key)
        return [
            GenesisEntry(index=0, time=tail.time, actor=OPERATOR, origin=origin, ca_key=ca_key, log_key=log_key, follows=follows)
        ]

    log.append(write)
