"""An entry as a row of a table: what one sorts, filters and counts by. All of it can be made again from the entry."""

import json
from datetime import UTC, datetime
from typing import Final

from ca.entry import AnyEntry, BreakGlassEntry, IssueEntry, LoginEntry, SaidEntry
from ca.journal import Certified
from ca.keys import PublicKey
from ca.sshd_lines import Login

COLUMNS: Final[dict[str, type]] = {
    "index": int,
    "time": str,
    "kind": str,
    "actor": str,
    "person": str,
    "role": str,
    "request": int,
    "reason": str,
    "message": str,
    "address": str,
    "duration": int,
    "principals": str,
    "serial": int,
    "key": str,
    "key_id": str,
    "valid_after": str,
    "valid_before": str,
    "path": str,
}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def row(found: AnyEntry) -> dict[str, object]:
    """What `COLUMNS` say of an entry, None where it says nothing. Times are ISO 8601 in UTC, `duration` is seconds."""
    own = {name: getattr(found, name, None) for name in ("actor", "person", "role", "request", "message", "address", "serial")}
    words = json.loads(found.statement) if isinstance(found, SaidEntry) else {}
    said = {name: words.get(name) for name in ("reason", "path")}
    privilege = getattr(found, "privilege", None)
    return (
        dict.fromkeys(COLUMNS)
        | own
        | said
        | {"index": found.index, "time": _iso(found.time / 1000), "kind": found.TAG[1]}
        | ({"duration": privilege.duration, "principals": " ".join(privilege.principals)} if privilege else {})
        | (_certified(found) if isinstance(found, IssueEntry) else {})
        | (_seen(found.login) if isinstance(found, LoginEntry) else {})
        | (_in_emergency(found.told) if isinstance(found, BreakGlassEntry) and isinstance(found.told, Certified) else {})
    )


def _certified(found: IssueEntry) -> dict[str, object]:
    certificate = found.certificate
    return {
        "principals": " ".join(certificate.principals),
        "serial": certificate.serial,
        "key": certificate.key.fingerprint,
        "key_id": certificate.key_id,
        "valid_after": _iso(certificate.valid_after),
        "valid_before": _iso(certificate.valid_before),
    }


def _in_emergency(line: Certified) -> dict[str, object]:
    return {
        "reason": line.reason,
        "principals": " ".join(line.principals),
        "serial": line.serial,
        "key": PublicKey.parse_line(line.key).fingerprint,
        "key_id": line.key_id,
        "valid_after": _iso(line.valid_after),
        "valid_before": _iso(line.valid_before),
    }


def _seen(login: Login) -> dict[str, object]:
    return {"address": login.address, "serial": login.serial, "key": login.key, "key_id": login.key_id}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def inert(value: object) -> object:
    """For a spreadsheet, which must not take for a formula what somebody gave as a reason."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
