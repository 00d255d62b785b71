"""A use of the emergency key, as the CA tells it and as its entries prove it."""

from dataclasses import dataclass
from typing import Self, TypeVar

from ca import entry, journal, merkle, names
from ca.emergency import officers
from ca.entry import AnyEntry, BreakGlassEntry, LoginEntry, ReviewEntry, SealEntry
from ca.errors import JitSshError, Malformed
from ca.journal import Certified, Close
from ca.keys import PublicKey
from ca.sshsig import verifier
from cli import emergency_text, output
from cli.answers import Members
from cli.problems import WrongCase

_E = TypeVar("_E", bound=AnyEntry)


@dataclass(frozen=True)
class Use:
    """A use with its seal, its session's lines, its logins and its review. `leaf` is what the CA says is the hash of `use`."""

    use: BreakGlassEntry
    leaf: str
    seal: SealEntry
    session: tuple[BreakGlassEntry, ...]
    logins: tuple[LoginEntry, ...]
    review: ReviewEntry | None
    owner: str | None  # whose the certified key was, by the CA's word

    @classmethod
    def read(cls, members: Members) -> Self:
        """The case of a use. Raises `Malformed`."""
        return cls(
            use=_entry(members.text("use"), BreakGlassEntry),
            leaf=members.text("leaf"),
            seal=_entry(members.text("seal"), SealEntry),
            session=tuple(_entry(text, BreakGlassEntry) for text in members.texts("session")),
            logins=tuple(_entry(text, LoginEntry) for text in members.texts("logins")),
            review=_entry(members.text("review"), ReviewEntry) if "review" in members else None,
            owner=members.text("owner", names.PERSON) if "owner" in members else None,
        )

    @property
    def line(self) -> Certified:
        """What was certified."""
        return self.use.certified

    @property
    def status(self) -> str:
        """`awaits review`, or the verdict."""
        return "awaits review" if self.review is None else self.review.verdict

    @property
    def officers(self) -> tuple[str, ...]:
        """Whose shares opened the key."""
        return officers((each.told for each in self.session), self.seal.seal.shares)

    def proven(self, number: int) -> Self:
        """This, if it is entry `number`, its leaf is the one that would be signed, and the sealed key signed its line.

        Raises `WrongCase`.
        """
        if (self.use.index, merkle.leaf_hash(self.use.encode()).hex()) != (number, self.leaf):
            raise _wrong(number, "the entry is not the one that would be signed for")
        try:
            key = PublicKey.parse_line(self.seal.seal.key)
            journal.check_signature(self.use.told, verifier(key, journal.NAMESPACE))
        except JitSshError as error:
            raise _wrong(number, error.message) from error
        return self


def _wrong(number: int, otherwise: str) -> WrongCase:
    hint = "Nothing was signed. Tell the security team"
    return WrongCase(f"the CA does not show the use in entry {number} as it is in the log: {otherwise}", hint)


def _entry(text: str, kind: type[_E]) -> _E:
    found = entry.decode(text.encode())
    if not isinstance(found, kind):
        raise Malformed(f"the CA's answer has an entry of the kind {found.TAG[1]} where it should have {kind.TAG[1]}")
    return found


def show(case: Use) -> None:
    """Prints everything about a use."""
    ends = any(isinstance(each.told, Close) for each in case.session)
    output.fields(
        {
            "use": f"{case.use.index}, {case.line.TAG[1]}, {case.status}",
            **emergency_text.certified(case.line),
            "key of": case.owner if case.owner == case.line.person else f"{case.owner or 'nobody'}, NOT {case.line.person}",
            "written": output.timestamp(case.line.time),
            "opened by": ", ".join(case.officers) or "whoever had the security key",
            "kit": f"entry {case.use.kit}, seal entry {case.seal.index}",
            "session": case.line.session + ("" if ends else ", WITHOUT AN END: broken off, or cut"),
        }
    )
    for each in case.session:
        output.result(f"  {output.timestamp(each.told.time)}  entry {each.index}  {emergency_text.what(each)}")
    for login in case.logins:
        output.result(f"login   {emergency_text.what(login)}")
    if case.review is not None:
        reviewed = output.timestamp(case.review.time / 1000)
        output.result(f"review  by {case.review.actor} {reviewed}, {emergency_text.what(case.review)}")
