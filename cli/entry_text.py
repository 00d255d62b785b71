"""What an entry says to a person: in a line, and in full."""

from typing import Final

from ca.canonical import parse_object
from ca.certificate import Certificate
from ca.checkpoint import VerifierKey, open_checkpoint
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    BreakGlassEntry,
    DecidedEntry,
    DenyEntry,
    DropEntry,
    Fork,
    GenesisEntry,
    IssueEntry,
    KitEntry,
    LockEntry,
    LoginEntry,
    PolicyEntry,
    ReadEntry,
    RefuseEntry,
    RenewEntry,
    RequestEntry,
    ReviewEntry,
    RevokeEntry,
    SaidEntry,
    SealEntry,
    UnlockEntry,
    WithdrawEntry,
)
from ca.errors import JitSshError
from ca.findings import Privilege
from cli import emergency_text, output
from cli.answers import findings_lines, ways_lines

HEADING: Final = ("ENTRY", "TIME", "WHO", "KIND", "WHAT")


def row(each: AnyEntry) -> tuple[str, ...]:
    """Index, time, actor, kind, and the entry in a few words."""
    return (str(each.index), output.timestamp(each.time / 1000), each.actor, each.TAG[1], _what(each))


def _what(each: AnyEntry) -> str:  # noqa: PLR0911 - the words of each kind
    match each:
        case GenesisEntry():
            after = f", after {VerifierKey.parse(each.follows.log_key).name}" if each.follows else ""
            return f"the log {each.origin} begins{after}"
        case PolicyEntry():
            return f"{len(each.files)} policy files decide"
        case RequestEntry():
            waits = ", waits for approval" if each.steps else ""
            return f"{each.role} for {output.duration(each.privilege.duration)}{waits}{_because(each)}"
        case RefuseEntry():
            return f"{each.role + ' ' if each.role else ''}refused: {each.message}"
        case ApproveEntry() | DenyEntry() | WithdrawEntry() | DropEntry() | RenewEntry():
            return f"{each.role}, request {each.request}{_because(each)}"
        case RevokeEntry() | LockEntry() | UnlockEntry():
            return f"{each.person}{_because(each)}"
        case ReadEntry():
            return _path(each)
        case IssueEntry():
            return f"{each.role} until {output.timestamp(each.certificate.valid_before)}, for request {each.request}"
        case SealEntry() | KitEntry() | BreakGlassEntry() | ReviewEntry() | LoginEntry():
            return emergency_text.what(each)


def _because(each: SaidEntry) -> str:
    reason = parse_object(each.statement.encode(), "the statement").get("reason")
    return f": {reason}" if reason else ""


def _follows(old: Fork | None) -> dict[str, str]:
    if old is None:
        return {}
    key = VerifierKey.parse(old.log_key)
    kept, lost = (None if note is None else open_checkpoint(note, key) for note in (old.kept, old.lost))
    told = {"follows": f"{key.name}, of which {kept.size} entries were kept"} if kept else {}
    return told | ({"lost": f"{lost.size - kept.size} entries of it, up to {lost.size}"} if lost and kept else {})


def _path(each: ReadEntry) -> str:
    return str(parse_object(each.statement.encode(), "the statement").get("path"))


def show(found: AnyEntry) -> None:
    """Prints everything in an entry, its certificate read and its signature judged."""
    common = {"entry": str(found.index), "kind": found.TAG[1], "time": output.timestamp(found.time / 1000), "who": found.actor}
    output.fields(common | _members(found))
    if isinstance(found, DecidedEntry):
        for line in (*findings_lines(found.findings), *ways_lines(found.ways)):
            output.result(line)


def _members(found: AnyEntry) -> dict[str, str]:  # noqa: C901, PLR0911 - the members of each kind
    match found:
        case GenesisEntry():
            return {"log": found.origin, "CA key": found.ca_key, "log key": found.log_key} | _follows(found.follows)
        case PolicyEntry():
            return dict(found.files)
        case RequestEntry():
            waits = "; then ".join(f"{step.count} of {step.group}" for step in found.steps or ())
            outcome = {"role": found.role, "outcome": f"waits for {waits}" if waits else "granted"}
            return outcome | _privilege(found.privilege) | _said(found)
        case RefuseEntry():
            return {"role": found.role or "", "outcome": f"refused ({found.code}): {found.message}"} | _said(found)
        case ApproveEntry():
            granted = {} if found.privilege is None else {"outcome": "granted"} | _privilege(found.privilege)
            return {"role": found.role, "request": f"entry {found.request}"} | granted | _said(found)
        case DenyEntry() | WithdrawEntry() | DropEntry() | RenewEntry():
            return {"role": found.role, "request": f"entry {found.request}"} | _said(found)
        case RevokeEntry() | LockEntry() | UnlockEntry():
            return {"person": found.person} | _said(found)
        case ReadEntry():
            about = {} if found.request is None else {"request": f"entry {found.request}"}
            return about | {"path": _path(found)} | _said(found)
        case IssueEntry():
            return {"role": found.role, "request": f"entry {found.request}"} | _certificate(found.certificate)
        case SealEntry() | KitEntry() | BreakGlassEntry() | ReviewEntry() | LoginEntry():
            return emergency_text.members(found) | (_said(found) if isinstance(found, ReviewEntry) else {})


def _said(found: SaidEntry) -> dict[str, str]:
    return {
        "from": found.address or "",
        "hardware key": "touched" if found.hardware_key else "no",
        "policy": f"entry {found.policy}",
        "statement": found.statement,
        "signature": _judged(found),
    }


def _judged(found: SaidEntry) -> str:
    try:
        signed = found.signed
        signed.verify(found.statement.encode())
    except JitSshError as error:
        return f"BAD: {error.message}"
    return f"good, by {signed.key.algorithm} {signed.key.fingerprint}"


def _privilege(granted: Privilege) -> dict[str, str]:
    return {"for": output.duration(granted.duration)} | _restrictions(granted)


def _certificate(certificate: Certificate) -> dict[str, str]:
    return {
        "serial": str(certificate.serial),
        "key id": certificate.key_id,
        "key": f"{certificate.key.algorithm} {certificate.key.fingerprint}",
        "valid from": output.timestamp(certificate.valid_after),
        "valid until": output.timestamp(certificate.valid_before),
        "CA": certificate.ca_key.fingerprint,
    } | _restrictions(certificate)


def _restrictions(given: Certificate | Privilege) -> dict[str, str]:
    return {
        "principals": ", ".join(given.principals),
        "runs only": given.force_command or "",
        "only from": given.source_address or "",
        "permits": ", ".join(given.permit),
    }
