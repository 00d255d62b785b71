"""The HTTP door: each view parses, asks the CA, and words the answer. Nothing is decided here."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, g, json, render_template, request

from ca import canonical, policy
from ca.entry import RefuseEntry
from ca.errors import Forbidden, LogDamaged, Malformed, NotFound
from ca.issue import CertificateAuthority, Issued
from ca.policy import Decision, Denied, Facts, Granted
from ca.roles import Policy, Role
from ca.store.sqlite import Filter, SqliteStore
from ca.tiles import Tile
from server import identity, problems
from server.identity import Identified

MOST_ENTRIES: Final = 1000  # of the log in one answer
_USUAL_ENTRIES: Final = 100
_FILTERS: Final = ("actor", "role", "kind", "since", "until", "serial", "start", "before", "limit")


class Door:
    """The views over one CA and the store of its log."""

    def __init__(self, ca: CertificateAuthority, store: SqliteStore, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self._ca = ca
        self._store = store
        self._clock = clock

    def routes(self) -> Blueprint:
        """Every route there is."""
        routes = Blueprint("api", __name__)
        routes.post("/v1/requests")(self.ask)
        routes.get("/v1/roles")(self.roles)
        routes.get("/v1/log/entries")(self.entries)
        routes.get("/v1/ca")(self.description)
        routes.get("/log/checkpoint")(self.checkpoint)
        routes.get("/log/<path:path>")(self.tile)
        routes.get("/healthz")(self.healthy)
        routes.get("/readyz")(self.ready)
        routes.get("/")(self.home)
        return routes

    def ask(self) -> Response:
        """A person asks for a role: the certificate, or a problem with the decision's reasons."""
        rules = self._ca.rules.policy
        asked = identity.asked(request.get_data(), request.remote_addr, rules, self._ca.trust.origin, int(self._clock()))
        g.person = asked.person
        outcome = self._ca.request(asked)
        if isinstance(outcome, RefuseEntry):
            return problems.refusal(outcome)
        return _answer(_issued(outcome, rules), HTTPStatus.CREATED)

    def roles(self) -> Response:
        """Every role with what the reader would get right now."""
        rules = self._ca.rules.policy
        who = self._reader(rules)
        facts = Facts(who.person, request.remote_addr, who.touched, datetime.fromtimestamp(self._clock(), UTC))
        listed = [_role(rules, facts, role, decision) for role, decision in policy.outlook(rules, facts)]
        groups, auditor = rules.people[who.person].groups, rules.is_auditor(who.person)
        return _answer({"person": who.person, "groups": groups, "auditor": auditor, "roles": listed})

    def entries(self) -> Response:
        """The log: all of it for auditors, their own entries for others."""
        rules = self._ca.rules.policy
        who, wanted = self._reader(rules), _filter()
        if not rules.is_auditor(who.person):
            if wanted.actor not in (None, who.person):
                raise Forbidden("only auditors read other people's entries", "guardrails.toml names the auditors' groups")
            wanted = replace(wanted, visible_to=who.person)
        most = min(_number("limit") or _USUAL_ENTRIES, MOST_ENTRIES)
        found = [encoded.decode() for encoded in self._store.select(wanted, most + 1)]
        return _answer({"size": self._store.size(), "entries": found[:most], "more": len(found) > most})

    def description(self) -> Response:
        """Whom to trust: what `jit-ssh setup` shows and pins."""
        return Response(self._ca.trust.encode(), mimetype="application/json")

    def checkpoint(self) -> Response:
        """The newest checkpoint's note."""
        return Response(self._store.checkpoint(), mimetype="text/plain")

    def tile(self, path: str) -> Response:
        """Hashes of the log's tree: a full tile never changes."""
        tile = Tile.parse(path)
        try:
            hashes = b"".join(self._store.node(level, position) for level, position in tile.nodes())
        except LogDamaged as error:
            raise NotFound(f"{tile} is not there, or not yet", "The checkpoint says how large the log is") from error
        return Response(hashes, mimetype="application/octet-stream")

    def healthy(self) -> Response:
        """The process answers."""
        return _answer({"status": "ok"})

    def ready(self) -> Response:
        """A request would be answered."""
        self._ca.ready()
        return _answer({"status": "ok"})

    def home(self) -> str:
        """What a browser shows: which CA this is and how to begin."""
        return render_template("home.html", trust=self._ca.trust, url=request.url_root.rstrip("/"))

    def _reader(self, rules: Policy) -> Identified:
        path = request.path
        if request.query_string:  # as bytes: `full_path` fails on what is not UTF-8, and no statement names such a path
            path += "?" + request.query_string.decode("latin-1")
        header, trust = request.headers.get("Authorization"), self._ca.trust
        who = identity.reader(header, path, rules, trust.origin, int(self._clock()))
        g.person = who.person
        return who


def _answer(members: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(json.dumps(members), status, mimetype="application/json")


def _issued(issued: Issued, rules: Policy) -> dict[str, Any]:
    certificate = issued.certificate.certificate
    return {
        "request": issued.request.index,
        "serial": certificate.serial,
        "person": issued.request.actor,
        "role": issued.request.role,
        "certificate": issued.certificate.line,
        "valid_after": certificate.valid_after,
        "valid_before": certificate.valid_before,
        "accounts": _accounts(rules, certificate.principals),
        "findings": canonical.plain(issued.request.findings),
        "ways": canonical.plain(issued.request.ways),
    }


def _role(rules: Policy, facts: Facts, role: Role, decision: Decision) -> dict[str, Any]:
    shown = {
        "role": role.name,
        "about": role.about,
        "owner": role.owner,
        "default": role.default,
        "accounts": _accounts(rules, policy.principals(role, facts.person)),
        "default_duration": role.default_duration,
        "max_duration": role.max_duration,
        "permit": role.permit,
        "findings": canonical.plain(decision.findings),
        "ways": canonical.plain(decision.ways),
    }
    if role.reason:
        shown["reason"] = {"pattern": role.reason.pattern.pattern, "message": role.reason.message}
    if role.force_command:
        shown["force_command"] = role.force_command
    match decision:
        case Granted():
            return shown | {"outcome": "granted", "until": int(facts.now.timestamp()) + decision.privilege.duration}
        case Denied():
            return shown | {"outcome": "approval" if decision.needs_approval else "denied", "message": decision.message}


def _accounts(rules: Policy, principals: tuple[str, ...]) -> list[dict[str, Any]]:
    accounts = rules.accounts(principals)
    return [{"account": each.account, "group": each.host_group, "hosts": each.hosts} for each in accounts]


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
    text = request.args.get(name)
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Malformed(f"{name} is not a whole number: {text[:60]!a}")
    return None if text is None else int(text)
