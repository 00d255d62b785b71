"""What an operator is told after an emergency, and of how the emergency key stands: in lines, and as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ca import canonical
from ca.emergency import Emergency, officers
from ca.entry import BreakGlassEntry
from ca.keys import PublicKey
from ca.readiness import Readiness
from ca.reconcile import Matched, match
from ca.sshd_lines import Login, Unreadable, moment
from ca.store.sqlite import SqliteStore
from server import emergency
from server.handing_in import HandedIn

_DAY = 24 * 3600


@dataclass(frozen=True)
class Findings:
    """A journal that was handed in, with what hosts saw."""

    handed: HandedIn
    emergency: Emergency
    matched: Matched
    unreadable: tuple[Unreadable, ...]
    owners: Mapping[int, str | None]  # whose the certified key was, by the use's entry

    @classmethod
    def of(
        cls, handed: HandedIn, store: SqliteStore, logins: tuple[Login, ...], unreadable: tuple[Unreadable, ...]
    ) -> "Findings":
        """`store` is the log's after the journal was taken in."""
        known = emergency.read(store)
        owners = {use.index: emergency.owner(store, use) for use in handed.uses}
        return cls(handed, known, match(known, handed.uses, logins), unreadable, owners)

    def lines(self, directory: Path, *, compared: bool) -> Iterator[str]:
        """What was found and what to do, for people; `compared` says whether there were logins to compare with."""
        journal, added = self.handed.journal, self.handed.added
        where = f", entries {added[0].index} to {added[-1].index}" if added else ""
        yield f"{len(journal.lines)} lines, all signed and in order; {len(added)} are new{where}"
        for doubt in journal.doubts:
            yield f"NOTE: {doubt}"
        logins = dict[int, tuple[Login, ...]]((use.index, found) for use, found in self.matched.used)
        for use in self.handed.uses:
            yield from self._use(use, logins.get(use.index, ()), compared)
        yield from self._alarms()
        yield from self._next(directory, compared)

    def _use(self, use: BreakGlassEntry, logins: tuple[Login, ...], compared: bool) -> Iterator[str]:
        line, review = use.certified, self.emergency.reviews.get(use.index)
        state = f"reviewed: {review.verdict}" if review else "awaits review"
        yield f"entry {use.index}, {moment(line.time)}: {line.TAG[1]} by {line.person} of {', '.join(line.principals)}, {state}"
        yield f"  {line.reason}"
        yield f"  opened by {', '.join(self._officers(use)) or 'whoever had the security key'}"
        if (whose := self.owners[use.index]) != line.person:
            key = PublicKey.parse_line(line.key).fingerprint
            yield f"  NOT A KEY OF {line.person}: people.toml gives {key} to {whose or 'nobody'}"
        if review and review.actor in self.emergency.took_part(use):
            yield f"  REVIEWED BY ONE OF THEM: this session names {review.actor} in a line that was handed in after the review"
        for login in logins:
            yield f"  login {moment(login.time)}: {_login(login)}"
        if compared and not logins:
            yield "  UNUSED: none of these logins is by its certificate"

    def _officers(self, use: BreakGlassEntry) -> tuple[str, ...]:
        seal = self.emergency.seals[self.emergency.kits[use.kit].seal].seal
        return officers(self.emergency.session(use), seal.shares)

    def _alarms(self) -> Iterator[str]:
        for login in self.matched.strange:
            yield f"ALARM: a login that no line speaks of, {moment(login.time)}: {_login(login)}"
            yield f"  {login.key_id} (serial {login.serial}), key {login.key}, CA {login.ca}"
        for line in self.unreadable:
            yield f"ALARM: a login that cannot be read, {moment(line.time)}: {line.line}"

    def _next(self, directory: Path, compared: bool) -> Iterator[str]:
        yield ""
        yield "Next:"
        if self.matched.strange:
            yield "  somebody has the emergency key outside its kit: remove it from every host now, and look at those hosts"
        if not compared:
            yield "  compare with what hosts saw: the same command with --logins FILE"
        waiting = [use for use in self.handed.uses if use.index not in self.emergency.reviews]
        for use in waiting:
            there = ", ".join(sorted(self.emergency.took_part(use)))
            yield f"  jit-ssh review {use.index} --as drill|real|misuse --note '…'    # an auditor or revoker, none of {there}"
        if self.handed.uses:
            yield f"  jit-ssh-ca break-glass rotate {directory} …    # the key was in the memory of a laptop"

    @property
    def json(self) -> str:
        """The same for programs."""
        journal = self.handed.journal
        return _dumped(
            {
                "lines": len(journal.lines),
                "entries": [each.index for each in self.handed.added],
                "kit": journal.kit.index,
                "doubts": journal.doubts,
                "uses": [self._use_json(use) for use in self.handed.uses],
                "strange": [canonical.plain(login) for login in self.matched.strange],
                "unreadable": [canonical.plain(line) for line in self.unreadable],
            }
        )

    def _use_json(self, use: BreakGlassEntry) -> dict[str, Any]:
        line, review = use.certified, self.emergency.reviews.get(use.index)
        logins = next((found for used, found in self.matched.used if used.index == use.index), ())
        return {
            "entry": use.index, "kind": line.TAG[1], "person": line.person, "time": line.time, "principals": line.principals,
            "reason": line.reason, "serial": line.serial, "officers": self._officers(use),
            "key_owner": self.owners[use.index],
            "review": None if review is None else review.verdict, "logins": [canonical.plain(login) for login in logins],
        }  # fmt: skip


def _login(login: Login) -> str:
    return f"{login.user} from {login.address}" + (f" on {login.host}" if login.host else "")


# ------------------------------------------------------------------- status


def status_lines(found: Readiness, now: int) -> Iterator[str]:
    """How the emergency key stands at `now` (Unix seconds), for people."""
    if found.seal is not None:
        seal = found.seal.seal
        officers = ", ".join(share.officer for share in seal.shares)
        opened = f"{seal.quorum} of {officers}" if officers else "the security key"
        fingerprint = PublicKey.parse_line(seal.key).fingerprint
        yield f"emergency key  {fingerprint}, opened by {opened}"
        yield f"sealed         {moment(found.seal.time // 1000)} (entry {found.seal.index})"
        if found.seal.overlap is not None:
            until = "hosts may trust it until" if found.seal.overlap > now else "hosts had to forget it by"
            yield f"replaced       the key of entry {found.seal.replaces}: {until} {moment(found.seal.overlap)}"
    if found.kit is not None:
        yield f"kit            {found.kit.facts.digest[:16]}, made {moment(found.kit.facts.made)} (entry {found.kit.index})"
    if found.last_drill is not None:
        yield f"last drill     {moment(found.last_drill)}, {(now - found.last_drill) // _DAY} days ago"
    yield from (f"TO DO          {concern}" for concern in found.concerns)
    if not found.concerns:
        yield "nothing to do"


def status_json(found: Readiness) -> str:
    """The same for programs; times are Unix seconds."""
    seal, kit = found.seal, found.kit
    return _dumped({
        "seal": None if seal is None else {
            "entry": seal.index, "time": seal.time // 1000, "key": PublicKey.parse_line(seal.seal.key).fingerprint,
            "quorum": seal.seal.quorum, "officers": [share.officer for share in seal.seal.shares],
            "replaces": seal.replaces, "overlap": seal.overlap,
        },
        "kit": None if kit is None else {"entry": kit.index, "digest": kit.facts.digest, "made": kit.facts.made},
        "last_drill": found.last_drill,
        "unreviewed": [each.index for each in found.unreviewed],
        "concerns": found.concerns,
    })  # fmt: skip


def _dumped(members: dict[str, Any]) -> str:
    return json.dumps(members, indent=2)
