"""What a log says of emergency keys: a fold over its `seal`, `kit`, `break-glass` and `review` entries, in order.

It takes only what an honest CA writes, so a verifier and the CA itself judge by the same rules.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ca import journal, statement
from ca.entry import BreakGlassEntry, EmergencyEntry, KitEntry, LoginEntry, ReviewEntry, SealEntry
from ca.errors import Malformed
from ca.journal import AnyLine, Certified, Drilled, Open
from ca.keys import PublicKey
from ca.kit import Share
from ca.merkle import leaf_hash
from ca.sshd_lines import Login
from ca.sshsig import verifier
from ca.statement import ReviewStatement

_Certificate = tuple[str, int, str, str]  # the CA's fingerprint, the serial, the certified key's fingerprint, the key id


@dataclass
class Emergency:
    """The emergency keys of a log as far as its entries were taken. Dictionaries are by the entry's index, in order.

    `hidden` says that entries before may not have been shown: then what refers to them is not compared with them.
    """

    hidden: bool = False
    seals: dict[int, SealEntry] = field(default_factory=dict)
    kits: dict[int, KitEntry] = field(default_factory=dict)
    lines: dict[int, BreakGlassEntry] = field(default_factory=dict)
    reviews: dict[int, ReviewEntry] = field(default_factory=dict)  # by the entry of the use
    logins: dict[int, LoginEntry] = field(default_factory=dict)
    _told: set[Login] = field(default_factory=set)
    _by_certificate: dict[_Certificate, BreakGlassEntry] = field(default_factory=dict)
    _by_digest: dict[str, BreakGlassEntry] = field(default_factory=dict)
    _behind: dict[str, BreakGlassEntry] = field(default_factory=dict)  # by the SHA-256 of the line before
    _forked: set[str] = field(default_factory=set)  # SHA-256 of lines
    _sessions: dict[tuple[int, str], list[AnyLine]] = field(default_factory=lambda: defaultdict(list))

    @property
    def seal(self) -> SealEntry | None:
        """The newest: the key that is sealed now."""
        return next(reversed(self.seals.values()), None)

    @property
    def uses(self) -> dict[int, BreakGlassEntry]:
        """The lines that a certificate was signed for, also for practice."""
        return {index: each for index, each in self.lines.items() if isinstance(each.told, Certified)}

    @property
    def unreviewed(self) -> list[BreakGlassEntry]:
        """The uses that nobody has reviewed."""
        return [each for index, each in self.uses.items() if index not in self.reviews]

    @property
    def strange(self) -> list[LoginEntry]:
        """The logins with a certificate that no line speaks of."""
        return [each for each in self.logins.values() if self.use_of(each.login) is None]

    def use_of(self, login: Login) -> BreakGlassEntry | None:
        """The use whose certificate it was: by CA, serial, certified key, and key id, which names the very line."""
        return self._by_certificate.get((login.ca, login.serial, login.key, login.key_id))

    def concerns(self, login: Login) -> bool:
        """Whether it is under an emergency key of this log."""
        return any(fingerprint_of(seal) == login.ca for seal in self.seals.values())

    def knows(self, login: Login) -> bool:
        """Whether it is in the log."""
        return login in self._told

    @property
    def last_drill(self) -> int | None:
        """Unix seconds of the newest drill in which ssh got in."""
        entered = (each.told for each in self.lines.values() if isinstance(each.told, Drilled) and each.told.entered)
        return max((line.time for line in entered), default=None)

    def kit_named(self, digest: str) -> KitEntry | None:
        """The kit whose facts have this SHA-256 in hexadecimal."""
        return next((each for each in self.kits.values() if each.facts.digest == digest), None)

    def holds(self, line: AnyLine) -> BreakGlassEntry | None:
        """The entry of this very line."""
        return self.at(line.digest)

    def at(self, digest: str) -> BreakGlassEntry | None:
        """The entry whose line has this SHA-256 in hexadecimal."""
        return self._by_digest.get(digest)

    def following(self, before: str) -> BreakGlassEntry | None:
        """The first entry whose line stands behind the one with this SHA-256."""
        return self._behind.get(before)

    def session(self, entry: BreakGlassEntry) -> list[AnyLine]:
        """All lines of the run of the kit in which the line of `entry` was written."""
        return self._sessions[entry.kit, entry.told.session]

    def took_part(self, use: BreakGlassEntry) -> frozenset[str]:
        """Who was there in the session of a use, as far as it was shown: none of them reviews it."""
        kit = self.kits.get(use.kit)
        sealed = None if kit is None else self.seals.get(kit.seal)
        return took_part(self.session(use), () if sealed is None else sealed.seal.shares)

    # ------------------------------------------------------------------ taking

    def take(self, found: EmergencyEntry) -> None:
        """The next entry. Raises `Malformed`, or what a bad signature raises."""
        match found:
            case SealEntry():
                self._take_seal(found)
            case KitEntry():
                self._take_kit(found)
            case BreakGlassEntry():
                self._take_line(found)
            case ReviewEntry():
                self._take_review(found)
            case LoginEntry():
                self._take_login(found)

    def _take_seal(self, found: SealEntry) -> None:
        newest = None if self.seal is None else self.seal.index
        if found.replaces != newest and not (self.hidden and newest is None):
            raise Malformed(f"it replaces the seal {found.replaces}, and the newest is {newest}")
        key = PublicKey.parse_line(found.seal.key)
        if key.line != found.seal.key:
            raise Malformed("its key is not of the form `type base64`")
        if any(each.seal.key == found.seal.key for each in self.seals.values()):
            raise Malformed("its key was sealed before")
        self.seals[found.index] = found

    def _take_kit(self, found: KitEntry) -> None:
        if self.kit_named(found.facts.digest):
            raise Malformed("the same kit stands in an earlier entry")
        if found.seal in self.seals or not self.hidden:
            sealed = self.seals.get(found.seal)
            if sealed is None or sealed is not self.seal:
                raise Malformed(f"entry {found.seal} is not the newest seal")
            officers = tuple(share.officer for share in sealed.seal.shares)
            of_seal = (sealed.seal.key, sealed.seal.quorum, officers, sealed.seal.shares_id)
            if (found.facts.key, found.facts.quorum, found.facts.officers, found.facts.shares_id) != of_seal:
                raise Malformed(f"it is not a kit for the seal in entry {found.seal}")
        self.kits[found.index] = found

    def _take_line(self, found: BreakGlassEntry) -> None:
        line, kit = found.told, self.kits.get(found.kit)
        if (known := self.holds(line)) is not None:
            raise Malformed(f"its line stands in entry {known.index}")
        if kit is None and not self.hidden:
            raise Malformed(f"entry {found.kit} is not a kit")
        if kit is not None:
            self._check_line(line, kit)
        self.lines[found.index] = self._by_digest[line.digest] = found
        self._behind.setdefault(line.before, found)
        self._sessions[found.kit, line.session].append(line)
        if kit is not None and isinstance(line, Certified):
            ca, key = (PublicKey.parse_line(text).fingerprint for text in (kit.facts.key, line.key))
            self._by_certificate[ca, line.serial, key, line.key_id] = found

    def _check_line(self, line: AnyLine, kit: KitEntry) -> None:
        before = self.at(line.before)
        begins = line.before == kit.facts.digest
        if not begins and not (before is None and self.hidden):
            if before is None or before.kit != kit.index:
                raise Malformed("its line does not continue one of the same kit")
            if line.time < before.told.time:
                raise Malformed("its line is older than the one before it")
        if line.before in self._forked or (not begins and self.following(line.before) is not None):
            self._forked.add(line.digest)  # of two copies of a journal that went on apart: a session may stand in both
        elif not self.hidden:
            journal.check_order(line, self._sessions[kit.index, line.session], kit.facts.digest)
        journal.check_signature(line, verifier(PublicKey.parse_line(kit.facts.key), journal.NAMESPACE))

    def _take_review(self, found: ReviewEntry) -> None:
        said = statement.parse(found.statement.encode())
        if not isinstance(said, ReviewStatement) or (said.request, said.verdict) != (found.request, found.verdict):
            raise Malformed("its statement says something else")
        if found.actor == found.person:
            raise Malformed("it is by the person who was named in it")
        if found.request in self.reviews:
            raise Malformed(f"entry {found.request} was reviewed before")
        use = self.lines.get(found.request)
        if use is None and self.hidden:
            return
        if use is None or use.person is None or use.person != found.person:
            raise Malformed(f"entry {found.request} is no use of the emergency key by {found.person}")
        if said.leaf != leaf_hash(use.encode()).hex():
            raise Malformed("its statement is about other words than its use's")
        if found.actor in self.took_part(use):
            raise Malformed("it is by somebody who was named in the session of its use, or whose share opened it")
        self.reviews[found.request] = found

    def _take_login(self, found: LoginEntry) -> None:
        if self.knows(found.login):
            raise Malformed("its login stands in an earlier entry")
        use = self.use_of(found.login)
        if not self.hidden:
            if not self.concerns(found.login):
                raise Malformed("it is not under an emergency key of this log")
            if (found.request, found.person) != (None if use is None else use.index, None if use is None else use.person):
                raise Malformed("it names another use than the one of its certificate")
        self._told.add(found.login)
        self.logins[found.index] = found


def officers(session: Iterable[AnyLine], shares: Iterable[Share]) -> tuple[str, ...]:
    """Whose `shares` opened the key for a session; one that is none of them by its fingerprint."""
    names = {share.fingerprint: share.officer for share in shares}
    opened = (line for line in session if isinstance(line, Open))
    return tuple(names.get(share, f"unknown share {share[:16]}") for line in opened for share in line.shares)


def took_part(session: Iterable[AnyLine], shares: Iterable[Share]) -> frozenset[str]:
    """Who was named in a session, and whose shares opened it: they would settle a case of their own."""
    lines = tuple(session)
    return frozenset({line.person for line in lines if isinstance(line, Certified)} | {*officers(lines, shares)})


def fingerprint_of(sealed: SealEntry) -> str:
    """The fingerprint of the key of a seal."""
    return PublicKey.parse_line(sealed.seal.key).fingerprint
