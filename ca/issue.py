"""The spine: decide, log, sign. There is no other path to a signature by the CA key.

What a crash leaves: before the log's commit, nothing; after it and before the signature, an entry without a certificate, which is
harmless; after the signature, a certificate whose entry is durable. Whoever lost the answer sends the same statement again and
gets the same certificate, made again from the bytes in the log.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from ca import entry, roles
from ca.certificate import BACKDATE, NONCE_BYTES, Certificate, SignedCertificate
from ca.entry import OPERATOR, AnyEntry, AskedEntry, GenesisEntry, IssueEntry, PolicyEntry, RefuseEntry, RequestEntry
from ca.errors import BadSignature, Malformed, Misconfigured, Replayed, SignerFailed, Stale, UnknownSigner
from ca.keys import PublicKey, ed25519_key
from ca.log import Log, Tail
from ca.policy import Denied, Facts, Granted, evaluate
from ca.roles import Policy
from ca.signers.uri import Signer
from ca.statement import FRESH, RequestStatement
from ca.trust import Trust
from ca.verify import key_id
from ca.wire import decode_base64, string


@dataclass(frozen=True)
class Asked:
    """A request whose statement and proof of possession were verified: who asked, their words verbatim, and the facts."""

    person: str
    key: PublicKey  # that signed it
    statement: RequestStatement
    text: str
    signature: str
    possession: str
    address: str | None
    hardware_key: bool


@dataclass(frozen=True)
class Issued:
    """A granted request, the entry of its certificate, and the certificate."""

    request: RequestEntry
    issue: IssueEntry
    certificate: SignedCertificate


@dataclass(frozen=True)
class Rules:
    """A policy and the index of the entry from which on it decides."""

    policy: Policy
    index: int


class CertificateAuthority:
    """Decides on requests, logs what it decided, and signs what it logged. Safe to use from many threads."""

    def __init__(self, log: Log, signer: Signer, files: Mapping[str, bytes], random: Callable[[int], bytes]) -> None:
        """`files` are the policy files; `random` gives that many unpredictable bytes.

        Raises `Misconfigured` when the policy is wrong or the log was begun with other keys.
        """
        self.log = log
        self._signer = signer
        self._random = random
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

    def request(self, asked: Asked) -> Issued | RefuseEntry:
        """Grants and certifies, or refuses; either is in the log when this returns.

        Raises `Replayed` for another statement with an id that is in the log, and what `Log.append` and the signer raise.
        """
        match self.log.append(lambda tail: self._decide(asked, tail)):
            case [RequestEntry() as request, IssueEntry() as issue]:
                return Issued(request, issue, self._sign(issue))
            case [RefuseEntry() as refusal]:
                return refusal
            case entries:
                raise Malformed(f"entry {entries[0].index} is no answer to a request")

    def _decide(self, asked: Asked, tail: Tail) -> Sequence[AnyEntry]:
        known = tail.caused_by(asked.statement.id)
        if known is not None:
            return _again(asked, known, tail)
        rules, said = self._in_force(tail), asked.statement
        if rules.policy.is_revoked(asked.key) or rules.policy.owner_of(asked.key) != rules.policy.people.get(asked.person):
            raise UnknownSigner(f"the key {asked.key.fingerprint} has just been taken from {asked.person}")
        if abs(tail.time // 1000 - said.time) > FRESH:  # it waited for the log: an entry that verifies as stale is not written
            raise Stale(f"the statement became older than {FRESH} s while the log was busy", "Try again")
        now = datetime.fromtimestamp(tail.time / 1000, UTC)
        if problem := self._uncertifiable(asked, rules.policy):
            return [_record(RefuseEntry, asked, tail, rules, findings=(), ways=(), code="refused", message=problem)]
        facts = Facts(asked.person, asked.address, asked.hardware_key, now)
        match evaluate(rules.policy, said.role, said.duration, said.reason, facts):
            case Granted() as granted:
                return self._grant(asked, tail, rules, granted)
            case Denied() as denied:
                reasons = {"findings": denied.findings, "ways": denied.ways}
                return [_record(RefuseEntry, asked, tail, rules, **reasons, code="denied", message=denied.message)]

    def _in_force(self, tail: Tail) -> Rules:
        """The rules of the newest policy entry, which may stand in this very batch."""
        newest = tail.newest("policy")
        for rules in (self._coming, self.rules):
            if rules is not None and newest is not None and newest.index == rules.index:
                return rules
        raise Misconfigured("another process took other policy files into force", "Send this one a SIGHUP")

    def _grant(self, asked: Asked, tail: Tail, rules: Rules, granted: Granted) -> Sequence[AnyEntry]:
        reasons = {"findings": granted.findings, "ways": granted.ways}
        request = _record(RequestEntry, asked, tail, rules, **reasons, privilege=granted.privilege)
        tbs = b64encode(self._certificate(request, asked, tail.index + 1).to_be_signed).decode()
        issue = IssueEntry(
            index=tail.index + 1, time=tail.time, actor=request.actor, role=request.role, request=request.index, tbs=tbs
        )
        return [request, issue]

    def _certificate(self, request: RequestEntry, asked: Asked, serial: int) -> Certificate:
        now, privilege = request.time // 1000, request.privilege
        return Certificate(
            key=asked.statement.public_key,
            serial=serial,
            key_id=key_id(request),
            principals=privilege.principals,
            valid_after=now - BACKDATE,
            valid_before=now + privilege.duration,
            force_command=privilege.force_command,
            source_address=privilege.source_address,
            permit=privilege.permit,
            ca_key=self._signer.public_key,
            nonce=self._random(NONCE_BYTES),
        )

    def _uncertifiable(self, asked: Asked, policy: Policy) -> str | None:
        """Why nobody gets a certificate over the key that was sent, if so."""
        key = asked.statement.public_key
        owner = policy.owner_of(key)
        for whose, own in self._own.items():
            if key == own:
                return f"the key to certify is {whose}"
        if policy.is_revoked(key):
            return f"the key to certify, {key.fingerprint}, is revoked"
        if owner is not None and owner.name != asked.person:
            return "the key to certify belongs to another person"
        return None

    def _sign(self, issue: IssueEntry) -> SignedCertificate:
        """Signs what is in the log, and believes the signer as little as anybody: what leaves is parsed and verified first."""
        tbs = decode_base64(issue.tbs, "the certificate")
        try:
            signed = SignedCertificate.parse(tbs + string(self._signer.sign(tbs)))
            signed.verify(self._signer.public_key)
        except (Malformed, BadSignature) as error:
            raise SignerFailed(f"the CA key made a signature that does not verify: {error.message}") from error
        return signed


_Record = TypeVar("_Record", RequestEntry, RefuseEntry)


def _record(kind: type[_Record], asked: Asked, tail: Tail, rules: Rules, **decided: Any) -> _Record:
    """The entry of a decision: what the person said, by which facts and policy it was judged, and what was `decided`."""
    return kind(
        index=tail.index,
        time=tail.time,
        actor=asked.person,
        role=asked.statement.role,
        statement=asked.text,
        signature=asked.signature,
        possession=asked.possession,
        address=asked.address,
        hardware_key=asked.hardware_key,
        policy=rules.index,
        **decided,
    )


def _again(asked: Asked, known: AnyEntry, tail: Tail) -> Sequence[AnyEntry]:
    """The answer that this very statement got before."""
    if not isinstance(known, AskedEntry) or known.statement != asked.text or known.actor != asked.person:
        raise Replayed("another statement with this id is in the log", "Make a new statement with an id of its own")
    return [known, tail.entry(known.index + 1)] if isinstance(known, RequestEntry) else [known]


def _check_genesis(log: Log, trust: Trust) -> None:
    if (begun := begun_by(log)) != trust:
        raise Misconfigured(
            f"the log was begun by {begun.fingerprint}, the configuration says {trust.fingerprint}",
            "Set origin, the CA key and the log key back to those that the log was begun with",
        )


def begun_by(log: Log) -> Trust:
    """The CA that the log's first entry names. Raises `Misconfigured` if there is none."""
    first = next(log.store.entries(0, 1), None)
    genesis = None if first is None else entry.decode(first)
    if not isinstance(genesis, GenesisEntry):
        raise Misconfigured("the log does not begin with a genesis", "Make a new CA with jit-ssh-ca init")
    return Trust(origin=genesis.origin, ca_keys=(genesis.ca_key,), log_key=genesis.log_key)


def begin(log: Log, ca_key: str) -> None:
    """Writes the first entry of an empty log. Raises `Misconfigured` if the log is not empty."""

    def write(tail: Tail) -> Sequence[AnyEntry]:
        if tail.index:
            raise Misconfigured("the log has been begun already")
        origin, log_key = log.key.name, str(log.key)
        return [GenesisEntry(index=0, time=tail.time, actor=OPERATOR, origin=origin, ca_key=ca_key, log_key=log_key)]

    log.append(write)
