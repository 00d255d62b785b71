"""The HTTP door: each view parses, asks the CA, and words the answer. Nothing is decided here."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from itertools import islice
from threading import BoundedSemaphore
from typing import Final

from flask import Blueprint, Response, g, render_template, request

from ca import entry, krl, policy
from ca.acts import Said
from ca.entry import AnyEntry, LockEntry, RefuseEntry, UnlockEntry
from ca.errors import BadSignature, Forbidden, Malformed, NotFound
from ca.issue import CertificateAuthority
from ca.merkle import MAX_SIZE
from ca.policy import Facts
from ca.roles import Policy
from ca.statement import LockStatement, RevokeStatement, Statement, UnlockStatement
from ca.store.filter import Filter
from ca.store.sqlite import SqliteStore
from server import emergency, identity, problems, tiles, told
from server.casefiles import CaseFiles
from server.cases import Cases
from server.issuing import CERTIFICATES, REQUESTS, Issuing, Post
from server.pace import Pace
from server.room import demand_room
from server.search import Search, words
from server.sittings import EVERYWHERE, Place, Sittings

MOST_ENTRIES: Final = 1000  # of the log in one answer
_USUAL_ENTRIES: Final = 100
LONGEST_WAIT: Final = 25  # seconds that one answer waits for a request to change
_FILTERS: Final = ("actor", "role", "kind", "since", "until", "serial", "start", "before", "text", "wait", "limit")


class Door:
    """The views over one CA and the store of its log."""

    def __init__(
        self, ca: CertificateAuthority, store: SqliteStore, clock: Callable[[], float], waiting: int, pace: Pace, reserve: int
    ) -> None:
        """`clock` gives Unix seconds; so many threads may wait for a request to change, those who come after do not wait.

        With fewer than `reserve` MiB free on the disk it is not ready.
        """
        self._ca = ca
        self._store = store
        self._clock = clock
        self._cases = Cases(ca, store)
        self._files = CaseFiles(self._cases, store)
        self._search = Search(store.path.parent, store)
        self._may_wait = BoundedSemaphore(waiting)
        self._pace = pace
        self.issuing = Issuing(ca, self._cases, pace, clock)
        self._sittings = Sittings()
        self._reserve = reserve
        self._krl = (-1, -1), b""  # the size and minute of the newest list, and the list: it is open to everybody

    def routes(self) -> Blueprint:
        """Every route there is."""
        routes = Blueprint("api", __name__)
        routes.post(REQUESTS)(self.ask)
        routes.get("/v1/requests")(self.requests)
        routes.get("/v1/requests/<int:index>")(self.request)
        routes.get("/v1/cases/<int:index>")(self.case)
        routes.post("/v1/requests/<int:index>/<any(approve, deny, withdraw, drop, review):action>")(self.answer)
        routes.post(CERTIFICATES)(self.ask)
        routes.post("/v1/revocations")(self.revoke)
        routes.post("/v1/locks")(self.lock)
        routes.get("/v1/krl")(self.krl)
        routes.get("/v1/roles")(self.roles)
        routes.get("/v1/log/entries")(self.entries)
        routes.get("/v1/log/checkpoints")(self.checkpoints)
        routes.get("/v1/log/policies/<digest>")(self.policy_file)
        routes.get("/v1/ca")(self.description)
        routes.get("/log/checkpoint")(self.checkpoint)
        routes.get("/log/tile/entries/<path:path>")(self.bundle)
        routes.get("/log/<path:path>")(self.tile)
        routes.get("/healthz")(self.healthy)
        routes.get("/readyz")(self.ready)
        routes.get("/")(self.home)
        return routes

    def ask(self) -> Response:
        """A person asks for a role, or for another certificate within a grant: see `Issuing`."""
        post = Post(g.exchange, request.query_string.decode("latin-1"), request.get_data())
        [last] = self.issuing.begin([post])
        answer = last.answer()
        return Response(answer.content, answer.status, answer.headers)

    def answer(self, index: int, action: str) -> Response:
        """A person approves, denies, withdraws or drops a request, or reviews a use of the emergency key: how it stands then."""
        said = self._said()
        if getattr(said.statement, "request", None) != index or type(said.statement).TAG[1] != action:
            raise BadSignature("the statement was signed for something else", f'Sign action "{action}" for request {index}')
        outcome = self._act(said)
        if isinstance(outcome, RefuseEntry):
            return problems.refusal(outcome)
        return self._use(index, said.person) or self._case(index)

    def revoke(self) -> Response:
        """The security team ends grants or a certificate."""
        outcome = self._act(self._said(RevokeStatement))
        if isinstance(outcome, RefuseEntry):
            return problems.refusal(outcome)
        return told.answer({"entry": outcome.index, "revoked": self._cases.revoked(self._clock())})

    def lock(self) -> Response:
        """The security team locks a person out, or lets them in again."""
        outcome = self._act(self._said(LockStatement, UnlockStatement))
        if isinstance(outcome, LockEntry | UnlockEntry):
            locked = isinstance(outcome, LockEntry)
            return told.answer({"entry": outcome.index, "person": outcome.person, "locked": locked})
        return problems.refusal(outcome) if isinstance(outcome, RefuseEntry) else told.answer({"entry": outcome.index})

    def _said(self, *kinds: type[Statement]) -> Said:
        rules = self._ca.rules.policy
        said = identity.said(request.get_data(), request.remote_addr, rules, self._ca.trust.origin, int(self._clock()))
        if kinds and not isinstance(said.statement, kinds):
            raise Malformed("the statement is for another address", "Send it where its action belongs")
        g.exchange.person = said.person
        return said

    def _act(self, said: Said) -> AnyEntry:
        """What a person did, in the log. Raises `TooMany`, and what `CertificateAuthority.act` raises."""
        self._pace.count(said.person)
        size, done = self._store.size(), None
        try:
            done = self._ca.act(said)
        finally:
            if done is None or done.index < size:  # it raised, or was in the log before
                self._pace.give_back(said.person)
        return done

    def requests(self) -> Response:
        """The requests that are mine, that wait for me, or all."""
        who, now = self._reader(self._ca.rules.policy), self._clock()
        view = request.args.get("view", "mine")
        listed = self._cases.listed(view, who.person, now)
        if view == "all" and (refused := self._looks(who, "requests")):
            return refused
        return told.answer({"requests": [self._cases.shown(each, now) for each in listed]})

    def request(self, index: int) -> Response:
        """One request; with `wait`, when its status is no longer `seen` or so many seconds have passed. Or one emergency."""
        who = self._reader(self._ca.rules.policy)
        if (use := self._use(index, who.person)) is not None:
            return (None if emergency.is_own(self._store, index, who.person) else self._looks(who, f"case {index}")) or use
        asked = self._cases.of(index, self._clock())
        if not self._cases.visible(asked, who.person, self._clock()):
            raise NotFound(f"entry {index} is not a request of yours, nor one for you to answer", "jit-ssh requests lists them")
        if not self._cases.concerns(asked, who.person, self._clock()) and (
            refused := self._looks(who, f"case {asked.entry.first}")
        ):
            return refused
        self._wait(index, request.args.get("seen"), min(_number("wait") or 0, LONGEST_WAIT))
        return self._case(index)

    def case(self, index: int) -> Response:
        """All that the log has of the case that an entry belongs to."""
        who, now = self._reader(self._ca.rules.policy), self._clock()
        file = self._files.of(index, who.person, self._ca.rules.policy, now)
        if not file.concerns:
            if refused := self._looks(who, f"case {file.case}"):
                return refused
            file = self._files.of(index, who.person, self._ca.rules.policy, now)  # with who reads it
        return told.answer(self._files.shown(file, now))

    def _use(self, index: int, person: str) -> Response | None:
        """A use of the emergency key that the person may read."""
        used, rules = emergency.use(self._store, index), self._ca.rules.policy
        readable = used is not None and emergency.visible(used, person, rules)
        return told.answer(emergency.shown(self._store, used, person, rules)) if used is not None and readable else None

    def _wait(self, index: int, seen: str | None, seconds: int) -> None:
        end = time.monotonic() + seconds
        if not self._may_wait.acquire(blocking=False):
            return
        try:
            while (left := end - time.monotonic()) > 0 and not self._ca.log.released:
                size = self._store.size()
                if self._cases.of(index, self._clock()).status != seen:
                    return
                self._ca.log.wait(size, min(left, 1.0))
        finally:
            self._may_wait.release()

    def _case(self, index: int, status: HTTPStatus = HTTPStatus.OK) -> Response:
        return told.answer(self._cases.shown(self._cases.of(index, self._clock()), self._clock()), status)

    def krl(self) -> Response:
        """What hosts must not accept any more, as OpenSSH reads it; made again for a longer log, and each minute."""
        version, now = self._store.size(), int(self._clock())
        moment, revoked = self._krl
        if moment != (version, now // 60):
            [key] = self._ca.trust.public_keys
            revoked = krl.encode(version, now, key, self._cases.revoked(now))
            self._krl = (version, now // 60), revoked
        return Response(revoked, mimetype="application/octet-stream")

    def roles(self) -> Response:
        """Every role with what the reader would get right now."""
        rules = self._ca.rules.policy
        who = self._reader(rules)
        now, on_call = datetime.fromtimestamp(self._clock(), UTC), self._ca.on_call(who.person)
        locked = cache(self._store.locked)
        facts = Facts(who.person, request.remote_addr, who.hardware_key, now, on_call, locked=locked)
        listed = [told.role(rules, facts, role, decision) for role, decision in policy.outlook(rules, facts)]
        groups, auditor = rules.people[who.person].groups, rules.is_auditor(who.person)
        return told.answer({"person": who.person, "groups": groups, "auditor": auditor, "roles": listed})

    def entries(self) -> Response:
        """The log: all of it for auditors, their own entries for others."""
        rules = self._ca.rules.policy
        who, wanted = self._reader(rules), _filter()
        if not rules.is_auditor(who.person):
            if wanted.actor not in (None, who.person):
                raise Forbidden("only auditors read other people's entries", "guardrails.toml names the auditors' groups")
            wanted = replace(wanted, visible_to=who.person)
        text, most = request.args.get("text"), min(_number("limit") or _USUAL_ENTRIES, MOST_ENTRIES)
        what = f"log {replace(wanted, start=None, before=None)} {text if text is None else words(text)}"
        place, seconds = Place(wanted.start, wanted.before), min(_number("wait") or 0, LONGEST_WAIT)
        others = rules.is_auditor(who.person) and wanted.actor != who.person
        if others and (refused := self._looks(who, what, place)):
            return refused
        size, searched = self._grown(wanted.start, seconds), {}
        if text is not None:
            among, reached = self._search.find(text)
            wanted, searched = replace(wanted, among=tuple(among)), {"searched": reached}
        found = [encoded.decode() for encoded in self._store.select(wanted, most + 1)]
        last = entry.decode(found[most - 1].encode()).index if len(found) > most else None
        if others:
            self._sittings.goes_on(who.person, what, place.to(last), self._clock())
        return told.answer({"size": size, "entries": found[:most], "more": last is not None} | searched)

    def _looks(self, who: Said, what: str, place: Place = EVERYWHERE) -> Response | None:
        """Takes note of somebody who looks at what others did, before they see it; the problem if they may not.

        What cannot be written is not read: raises what `Log.append` raises.
        """
        if self._sittings.has(who.person, what, place, self._clock()) and who.person not in self._store.locked():
            return None
        outcome = self._act(who)
        if isinstance(outcome, RefuseEntry):
            return problems.refusal(outcome)
        self._sittings.begin(who.person, what, place, self._clock())
        return None

    def _grown(self, start: int | None, seconds: int) -> int:
        """The log's size, after waiting, when the reader wants to, for more than `start` entries."""
        if start is not None and seconds and self._may_wait.acquire(blocking=False):
            try:
                self._ca.log.wait(start, seconds)
            finally:
                self._may_wait.release()
        return self._store.size()

    def checkpoints(self) -> Response:
        """For auditors: every checkpoint that is kept, from the size `start` on."""
        self._auditor()
        stored = islice(self._store.checkpoints(_number("start") or 0, MAX_SIZE), MOST_ENTRIES + 1)
        notes = [note for _, note in stored]
        return told.answer({"checkpoints": notes[:MOST_ENTRIES], "more": len(notes) > MOST_ENTRIES})

    def policy_file(self, digest: str) -> Response:
        """For auditors: a policy file that was in force at some time, by its SHA-256 in hexadecimal."""
        self._auditor()
        if (content := self._store.policy_file(digest)) is None:
            raise NotFound("no policy file has this SHA-256", "The policy entries of the log name them")
        return Response(content, mimetype="application/octet-stream")

    def _auditor(self) -> Said:
        rules = self._ca.rules.policy
        who = self._reader(rules)
        if not rules.is_auditor(who.person):
            raise Forbidden("only auditors read this", "guardrails.toml names the auditors' groups")
        return who

    def description(self) -> Response:
        """Whom to trust: what `jit-ssh setup` shows and pins."""
        return Response(self._ca.trust.encode(), mimetype="application/json")

    def checkpoint(self) -> Response:
        """The newest checkpoint's note, with the cosignatures of witnesses."""
        return Response(self._ca.log.published(), mimetype="text/plain")

    def tile(self, path: str) -> Response:
        """Hashes of the log's tree."""
        return tiles.hashes(self._store, path)

    def bundle(self, path: str) -> Response:
        """For auditors: entries by their place, for programs that follow logs."""
        who = self._auditor()
        wanted = tiles.bundle(self._store, f"tile/entries/{path}")
        if refused := self._looks(who, "bundles", Place(wanted.start)):
            return refused
        self._sittings.goes_on(who.person, "bundles", (wanted.start, wanted.end), self._clock())
        return tiles.entries(self._store, wanted)

    def healthy(self) -> Response:
        """The process answers."""
        return told.answer({"status": "ok"})

    def ready(self) -> Response:
        """A request would be answered, and so would some more."""
        demand_room(self._store.path, self._reserve)
        self._ca.ready()
        return told.answer({"status": "ok"})

    def home(self) -> str:
        """What a browser shows: which CA this is and how to begin."""
        return render_template("home.html", trust=self._ca.trust, url=request.url_root.rstrip("/"))

    def _reader(self, rules: Policy) -> Said:
        path = request.path
        if request.query_string:  # as bytes: `full_path` fails on what is not UTF-8, and no statement names such a path
            path += "?" + request.query_string.decode("latin-1")
        header, trust = request.headers.get("Authorization"), self._ca.trust
        who = identity.reader(header, path, request.remote_addr, rules, trust.origin, int(self._clock()))
        g.exchange.person = who.person
        return who


def _filter() -> Filter:
    if unknown := request.args.keys() - set(_FILTERS):
        raise Malformed(f"there is no filter {min(unknown)[:60]!a}", f"Use {', '.join(_FILTERS)}")
    text = request.args.get
    return Filter(
        actor=text("actor"),
        role=text("role"),
        kind=text("kind"),
        since=_number("since"),
        until=_number("until"),
        serial=_number("serial"),
        start=_number("start"),
        before=_number("before"),
    )


def _number(name: str) -> int | None:
    return told.number(name, request.args.get(name))
