"""How certificates are asked for over HTTP: many at a time, each step for all of them before the next.

A processor that does the same for one after the other does it in half the time, and the log writes once for all. What one of
them did wrong is that one's problem alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

from ca import canonical
from ca.asking import Asked
from ca.entry import IssueEntry, RefuseEntry, RequestEntry
from ca.errors import Malformed
from ca.issue import CertificateAuthority, Issued
from ca.log import Made
from ca.statement import CertificateStatement, RequestStatement
from server import identity, problems, told
from server.cases import Cases
from server.gateway import Answer
from server.pace import Pace
from server.requestlog import Exchange
from server.threads import LastStep

REQUESTS: Final = "/v1/requests"  # a person asks for a role
CERTIFICATES: Final = "/v1/certificates"  # for another certificate within a grant
_KINDS: Final[dict[str, type[RequestStatement | CertificateStatement]]] = {
    REQUESTS: RequestStatement,
    CERTIFICATES: CertificateStatement,
}


@dataclass(frozen=True)
class Post:
    """A POST to `REQUESTS` or `CERTIFICATES`; `query` is what stands behind the question mark."""

    exchange: Exchange
    query: str
    body: bytes


class Issuing:
    """Answers who asks for a certificate. Safe to use from many threads."""

    def __init__(self, ca: CertificateAuthority, cases: Cases, pace: Pace, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self._ca = ca
        self._cases = cases
        self._pace = pace
        self._clock = clock

    def begin(self, posts: Sequence[Post]) -> list[LastStep]:
        """Finds out who asks and has it decided and logged: the last step for each, which signs and words the answer.

        That answer is the certificate, a request that waits, or a problem with the decision's reasons.
        """
        identified = [self._identified(post) for post in posts]
        decided = self._decided(identified)
        steps = zip(posts, decided, strict=True)
        return [LastStep(partial(self._answered, post, each), self._is_quick(each)) for post, each in steps]

    def _decided(self, identified: Sequence[Asked | Exception]) -> list[Made]:
        """What became of each; what adds nothing to the log does not count in the person's pace."""
        asking = [each for each in identified if isinstance(each, Asked)]
        if not asking:
            return [each for each in identified if not isinstance(each, Asked)]
        try:
            size = self._ca.log.store.size()
            made = self._ca.decide(asking)
        except Exception as error:  # the store cannot be read
            size, made = 0, [error] * len(asking)
        added = {-1}
        for asked, outcome in zip(asking, made, strict=True):
            last = -1 if isinstance(outcome, BaseException) else outcome[-1].index
            if last < size or last in added:
                self._pace.give_back(asked.person, by_certificate=asked.by_certificate)
            added.add(last)
        each_made = iter(made)
        return [next(each_made) if isinstance(each, Asked) else each for each in identified]

    def _is_quick(self, decided: Made) -> bool:
        """Whether the answer is a certificate that waits for nobody, or an error; others ask the log and all people's rights."""
        return isinstance(decided, BaseException) or (self._ca.at_once and isinstance(decided[-1], IssueEntry))

    def _identified(self, post: Post) -> Asked | Exception:
        trust = self._ca.trust
        try:
            asked = identity.asked(
                post.body,
                post.exchange.address,
                self._ca.rules.policy,
                trust.origin,
                int(self._clock()),
                self._cases.holder,
            )
            if not isinstance(asked.statement, wanted := _KINDS[post.exchange.path]):
                raise Malformed("the statement is for another address", f'Its action must be "{wanted.TAG[1]}"')
            _seen(post)
            post.exchange.person = asked.person
            self._pace.count(asked.person, by_certificate=asked.by_certificate)
        except Exception as error:  # the others are not to suffer; it is said in the answer
            return error
        return asked

    def _answered(self, post: Post, decided: Made) -> Answer:
        try:
            if isinstance(decided, BaseException):
                raise decided
            match self._ca.outcome(decided):
                case RefuseEntry() as refusal:
                    return _problem(post, problems.refused(refusal, self._cases.could_approve(refusal, self._clock())))
                case RequestEntry() as pending:
                    now = self._clock()
                    return _json(self._cases.shown(self._cases.of(pending.index, now), now), HTTPStatus.ACCEPTED)
                case Issued() as issued:
                    said = told.issued(issued, self._ca.rules.policy) | self._grant(issued) | self._continues(issued, _seen(post))
                    return _json(said, HTTPStatus.CREATED)
        except Exception as error:
            return _problem(post, problems.raised(error, post.exchange))

    def _continues(self, issued: Issued, seen: int | None) -> dict[str, Any]:
        """That the log of the certificate's proof continues the one of so many entries that the client has seen."""
        return {} if seen is None else {"consistency": [step.hex() for step in self._ca.log.consistency(seen, issued.proof.size)]}

    def _grant(self, issued: Issued) -> dict[str, Any]:
        request = issued.request
        # What this request made of the grant, not what later ones did: a statement that is repeated gets the same answer.
        extensions = request.extension or 0
        if issued.issue.index == request.index + 1:  # granted at once: the grant began with it
            until = request.time // 1000 + request.privilege.duration
            return {"until": until, "status": "granted", "extensions": extensions}
        granted = self._cases.of(request.index, self._clock())
        return {"until": granted.until, "status": granted.status, "extensions": extensions}


def _seen(post: Post) -> int | None:
    """So many entries the client says that it has seen. Raises `Malformed`."""
    return told.number("seen", parse_qs(post.query).get("seen", [""])[0] or None) if post.query else None


def _problem(post: Post, problem: problems.Problem) -> Answer:
    return _answer(problem.document(post.exchange).encode(), problem.status, problems.TYPE, problem.headers.items())


def _json(members: dict[str, Any], status: HTTPStatus) -> Answer:
    return _answer(canonical.encode(members), status, "application/json")


def _answer(content: bytes, status: HTTPStatus, kind: str, more: Iterable[tuple[str, str]] = ()) -> Answer:
    headers = [("Content-Type", kind), ("Content-Length", str(len(content))), *more]
    return Answer(f"{status.value} {status.phrase}", headers, content)
