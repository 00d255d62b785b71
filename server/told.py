"""How the HTTP door reads its parameters and words what it found: values in, members of JSON out."""

from http import HTTPStatus
from typing import Any, Final

from flask import Response

from ca import canonical, policy
from ca.errors import Malformed
from ca.issue import Issued
from ca.policy import Decision, Denied, Facts, Granted, Pending
from ca.roles import Policy, Role

_MOST_DIGITS: Final = 18


def answer(members: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """These members as JSON; dataclasses are members, too."""
    return Response(canonical.encode(members), status, mimetype="application/json")


def number(name: str, text: str | None) -> int | None:
    """The value of a parameter that is a whole number, if it is given. Raises `Malformed`."""
    if text is not None and not (text.isascii() and text.isdigit()):
        raise Malformed(f"{name} is not a whole number: {text[:60]!a}")
    if text is not None and len(text) > _MOST_DIGITS:
        raise Malformed(f"{name} is too large: {text[:60]!a}", f"Give at most {_MOST_DIGITS} digits")
    return None if text is None else int(text)


def issued(given: Issued, rules: Policy) -> dict[str, Any]:
    """A certificate, and the decision that it came from."""
    certificate = given.certificate.certificate
    return {
        "request": given.request.index,
        "serial": certificate.serial,
        "person": given.request.actor,
        "role": given.request.role,
        "certificate": given.certificate.line,
        "valid_after": certificate.valid_after,
        "valid_before": certificate.valid_before,
        "accounts": accounts(rules, certificate.principals),
        "findings": given.request.findings,
        "ways": given.request.ways,
    }


def role(rules: Policy, facts: Facts, one: Role, decision: Decision) -> dict[str, Any]:
    """A role, and what the person would get of it at this moment."""
    said = {
        "role": one.name,
        "about": one.about,
        "owner": one.owner,
        "default": one.default,
        "accounts": accounts(rules, policy.principals(one, facts.person)),
        "default_duration": one.default_duration,
        "max_duration": one.max_duration,
        "permit": one.permit,
        "findings": decision.findings,
        "ways": decision.ways,
    }
    if one.reason:
        said["reason"] = {"pattern": one.reason.pattern.pattern, "message": one.reason.message}
    if one.force_command:
        said["force_command"] = one.force_command
    match decision:
        case Granted():
            return said | {"outcome": "granted", "until": int(facts.now.timestamp()) + decision.privilege.duration}
        case Pending():
            return said | {"outcome": "approval"}
        case Denied():
            return said | {"outcome": "denied", "message": decision.message}


def accounts(rules: Policy, principals: tuple[str, ...]) -> list[dict[str, Any]]:
    """Where these principals lead."""
    named = rules.accounts(principals)
    return [{"account": each.account, "group": each.host_group, "hosts": each.hosts} for each in named]
