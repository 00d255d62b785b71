"""What people ask of the CA, each as the entry it leaves: a request, another certificate within a grant, or a refusal.

Pure, like `ca.acts`: a statement and the log's tail in, an entry out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from ca import acts
from ca.acts import DAY, Moment, Said
from ca.conditions import Facts
from ca.entry import AnyEntry, IssueEntry, RefuseEntry, RenewEntry, RequestEntry
from ca.errors import Malformed, NotTouched
from ca.findings import Privilege
from ca.keys import PublicKey
from ca.policy import Decision, Denied, Granted, Pending, evaluate
from ca.request import RenewedBy, Request
from ca.roles import Policy
from ca.statement import CertificateStatement, RequestStatement

MOST_REQUESTS: Final = 1000  # of a person for a role that are looked at: more grants a day cannot be budgeted


@dataclass(frozen=True)
class Asked(Said):
    """A request, or the asking for another certificate, with the verified proof of possession of the key to certify."""

    possession: str

    @property
    def wanted(self) -> RequestStatement | CertificateStatement:
        """The statement."""
        if not isinstance(self.statement, RequestStatement | CertificateStatement):
            raise Malformed("the statement does not ask for a certificate")
        return self.statement

    @property
    def by_certificate(self) -> bool:
        """Whether a certificate's key signs for the person."""
        return isinstance(self.statement, CertificateStatement) and self.statement.serial is not None


# --------------------------------------------------------------------- asking


def ask(asked: Asked, said: RequestStatement, at: Moment, uncertifiable: str | None) -> RequestEntry | RefuseEntry:
    """The decision on a request; `uncertifiable` says why the key gets no certificate, if so."""
    about: dict[str, Any] = {"role": said.role, "possession": asked.possession}
    if uncertifiable is not None:
        return at.refused(asked, "refused", uncertifiable, **about)
    if at.locked(asked.person):
        return at.refused(asked, "locked", f"{asked.person} is locked out by the security team", **about)
    before = at.newest(asked.person, said.role) if said.role in at.rules.policy.roles else None
    if before is not None and before.newest.status == "pending":
        waiting = before.newest.entry.index
        return at.refused(asked, "refused", f"request {waiting} for {said.role} waits already", **about)
    held = before if before is not None and before.current.status == "granted" else None
    facts = at.facts(asked, auto_granted=_auto_granted(asked.person, said.role, at), extensions=held and held.extensions)
    decision = evaluate(at.rules.policy, said.role, said.duration, said.reason, facts)
    about |= acts.reasons(decision, facts, at)
    match decision:
        case Denied():
            return at.refused(asked, "denied", decision.message, **about)
        case Pending():
            about |= {"steps": decision.steps, "expires": decision.expires}
        case Granted():
            pass
    if held is not None:
        current = held.current.entry
        about |= {"request": current.first, "extends": current.index, "extension": held.extensions + 1}
    return acts.record(RequestEntry, asked, at, privilege=decision.privilege, **about)


def _auto_granted(person: str, name: str, at: Moment) -> int:
    """How many requests for the role were granted to the person without approval in the last 24 hours, as far as it matters."""
    role = at.rules.policy.roles.get(name)
    if role is None or role.auto_per_day is None:
        return 0
    recent = at.tail.log.requests(person, name, at.tail.time - 1000 * DAY, most=MOST_REQUESTS)
    if len(recent) == MOST_REQUESTS:  # also by requests that were withdrawn again: no way to hide the granted ones
        return MOST_REQUESTS
    entries = [at.tail.entry(index) for index in recent]
    return sum(isinstance(each, RequestEntry) and not each.steps for each in entries)


# ------------------------------------------------------------------- renewing


def renew(asked: Asked, held: Request, at: Moment, uncertifiable: str | None) -> RenewEntry | RefuseEntry:
    """The decision on another certificate within what is `held`; `uncertifiable` says why the key gets none, if so."""
    entry, number = held.entry, getattr(asked.statement, "request", None)
    about = {"possession": asked.possession, "request": number}
    if asked.person != entry.actor:
        return at.refused(asked, "forbidden", f"request {number} is somebody else's", **about)
    about["role"] = entry.role
    if uncertifiable is not None:
        return at.refused(asked, "refused", uncertifiable, **about)
    if at.locked(asked.person):
        return at.refused(asked, "locked", f"{asked.person} is locked out by the security team", **about)
    if held.status != "granted" or held.until is None:
        return at.refused(asked, "not-granted", f"request {number} is {held.status}", **about)
    facts = replace(at.facts_again(held), address=asked.address, hardware_key=asked.hardware_key)

    def decide(facts: Facts) -> Decision:
        reason, approvals = acts.reason_of(entry), acts.approved(held, at)
        return evaluate(at.rules.policy, entry.role, held.privilege.duration, reason, facts, approvals)

    decision = decide(facts)
    reasons = acts.reasons(decision, facts, at)
    if not isinstance(decision, Granted):
        _demand_touch(asked, decide, facts)
        message = decision.message if isinstance(decision, Denied) else f"{entry.role} needs more approvals than it had"
        return at.refused(asked, "denied", message, **reasons, **about)
    if not acts.same(decision.privilege, held.privilege):
        return at.refused(asked, "refused", _changed(decision.privilege, held), **about)
    until = min(held.until, at.seconds + decision.privilege.duration)
    return acts.record(RenewEntry, asked, at, until=until, **reasons, **about | {"request": entry.index})


def _demand_touch(asked: Asked, decide: Callable[[Facts], Decision], facts: Facts) -> None:
    """Raises `NotTouched` where nothing is missing but that the person signs, and not a certificate's key for them."""
    if asked.by_certificate and isinstance(decide(replace(facts, hardware_key=True)), Granted):
        raise NotTouched("each certificate of this role is asked for with a security key", "Sign with your own key, and touch it")


def lives(
    said: CertificateStatement, key: PublicKey, asked: Request, issued: AnyEntry, policy: Policy, now: int, renewed_by: RenewedBy
) -> bool:
    """Whether `key` is that of the certificate by which the statement is signed: of this very grant, neither over nor revoked.

    Nor may the key that asked for the grant have been taken from the person: with it ends what it began. `renewed_by` is as in
    `Request.renews`.
    """
    if not isinstance(issued, IssueEntry) or (issued.index, issued.request) != (said.serial, asked.entry.index):
        return False
    certificate, owner = issued.certificate, policy.owner_of(asked.entry.signed.key)
    owned = certificate.key == key and owner is not None and owner.name == asked.entry.actor
    # Last whether it was revoked: whoever has not its key has nothing looked up for them.
    return owned and now < certificate.valid_before and asked.renews(issued.index, renewed_by)


def _changed(now: Privilege, held: Request) -> str:
    before = held.privilege.source_address
    if before and now.source_address and acts.same(replace(now, source_address=before), held.privilege):
        return f"{held.entry.role} was granted for the address {before} only, and this is from {now.source_address}: ask again"
    return f"what {held.entry.role} gives was changed since it was granted: ask again"
