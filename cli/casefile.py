"""The case file as the CA sends it: entries of the log, and what it says of them today. What an entry says is read from it here.

More kinds of entries will belong to a case than this client knows; those are skipped, and counted.
"""

from dataclasses import dataclass
from typing import Final, Self

from ca import entry
from ca.entry import (
    AnyEntry,
    ApproveEntry,
    DecidedEntry,
    IssueEntry,
    RenewEntry,
    RequestEntry,
    RevokeEntry,
    SaidEntry,
)
from ca.errors import JitSshError, Malformed
from ca.request import renewed_by
from cli.answers import Members
from cli.case import Case
from cli.use import Use

LARGEST: Final = 64 * 1024 * 1024  # bytes of a case file: a thousand entries, and a hundred requests


@dataclass(frozen=True)
class Certificate:
    """A certificate of a case. Times are Unix seconds; `asked_by` is the entry of who asked for it, with its address."""

    serial: int
    request: int
    asked_by: int | None
    renewal: bool
    address: str | None
    hardware_key: bool
    key: str  # its fingerprint
    key_id: str
    principals: tuple[str, ...]
    force_command: str | None
    source_address: str | None
    permit: tuple[str, ...]
    valid_after: int
    valid_before: int
    revoked: bool


@dataclass(frozen=True)
class CaseFile:
    """A case: its requests and entries, oldest first. `more`: there are others before; `unread`: so many cannot be read here."""

    case: int
    requests: tuple[Case, ...]
    entries: tuple[AnyEntry, ...]
    more: bool
    unread: int
    use: Use | None

    @classmethod
    def parse(cls, source: bytes) -> Self:
        """Reads a case file. Raises `Malformed`."""
        members = Members.parse(source)
        texts = members.texts("entries")
        entries = [found for text in texts if (found := _entry(text)) is not None]
        requests = tuple(Case.read(each) for each in members.each("requests"))
        use = Use.read(members) if "use" in members else None
        return cls(members.integer("case"), requests, tuple(entries), members.flag("more"), len(texts) - len(entries), use)

    @property
    def current(self) -> Case | None:
        """The request whose grant lasts longest, else the newest, if the case has requests."""
        held = [each for each in self.requests if each.status == "granted"]
        return max(held, key=lambda each: each.until or 0) if held else next(reversed(self.requests), None)

    def asked(self, case: Case) -> RequestEntry | None:
        """The entry of one of the requests."""
        return next((each for each in self.entries if isinstance(each, RequestEntry) and each.index == case.request), None)

    def certificates(self) -> list[Certificate]:
        """Each that was issued, oldest first."""
        by_index = {each.index: each for each in self.entries}
        ended = {each.request for each in self.requests if each.status in ("dropped", "revoked")}
        serials = {each.serial for each in self.entries if isinstance(each, RevokeEntry) and each.serial is not None}
        found: list[Certificate] = []
        for each in self.entries:
            if isinstance(each, IssueEntry):
                before = by_index.get(each.index - 1)
                if before is not None and renewed_by(before) in serials:  # with a certificate end those that its key asked for
                    serials.add(each.index)
                revoked = each.request in ended or each.index in serials
                found.append(_certificate(each, before, renewal=each.request in {one.request for one in found}, revoked=revoked))
        return found

    def decided(self, case: Case) -> DecidedEntry | None:
        """The decision that one of the requests came to: of the approval that granted it, else of the request itself."""
        approvals = [each for each in self.entries if isinstance(each, ApproveEntry) and each.request == case.request]
        return next((each for each in approvals if each.privilege is not None), self.asked(case))

    def badly_signed(self) -> list[int]:
        """The entries whose person's signature does not verify."""
        return [each.index for each in self.entries if isinstance(each, SaidEntry) and not _is_signed(each)]


def _entry(text: str) -> AnyEntry | None:
    try:
        return entry.decode(text.encode())
    except Malformed:
        return None


def _certificate(issued: IssueEntry, before: AnyEntry | None, *, renewal: bool, revoked: bool) -> Certificate:
    made, asking = issued.certificate, before if isinstance(before, RequestEntry | RenewEntry) else None
    return Certificate(
        serial=made.serial,
        request=issued.request,
        asked_by=asking.index if asking else None,
        renewal=renewal,
        address=asking.address if asking else None,
        hardware_key=asking is not None and asking.hardware_key,
        key=made.key.fingerprint,
        key_id=made.key_id,
        principals=made.principals,
        force_command=made.force_command,
        source_address=made.source_address,
        permit=made.permit,
        valid_after=made.valid_after,
        valid_before=made.valid_before,
        revoked=revoked,
    )


def _is_signed(found: SaidEntry) -> bool:
    try:
        found.signed.verify(found.statement.encode())
    except JitSshError:
        return False
    return True
