"""The emergency keys of a CA as its log tells them, and their uses as people see them."""

from typing import Any

from ca import entry
from ca.emergency import Emergency
from ca.entry import BreakGlassEntry, EmergencyEntry, PolicyEntry
from ca.journal import Certified
from ca.keyring import Keyring
from ca.keys import PublicKey
from ca.merkle import leaf_hash
from ca.roles import Policy
from ca.store.filter import Filter
from ca.store.sqlite import SqliteCopy, SqliteStore

_KINDS = ("seal", "kit", "break-glass", "review", "login")
_ALL = 2**62


def read(store: SqliteStore | SqliteCopy) -> Emergency:
    """All that the log says of emergency keys. Raises `Malformed` for a log that no honest CA wrote."""
    sources = (source for kind in _KINDS for source in store.select(Filter(kind=kind, start=0), _ALL))
    emergency = Emergency()
    for found in sorted(map(entry.decode, sources), key=lambda each: each.index):
        if isinstance(found, EmergencyEntry):
            emergency.take(found)
    return emergency


def use(store: SqliteStore, index: int) -> BreakGlassEntry | None:
    """The use of the emergency key in entry `index`, if it is one."""
    source = next(store.entries(index, index + 1), None) if index < store.size() else None
    found = None if source is None else entry.decode(source)
    return found if isinstance(found, BreakGlassEntry) and found.person is not None else None


def is_own(store: SqliteStore, index: int, person: str) -> bool:
    """Whether the use in entry `index` was in the person's name."""
    used = use(store, index)
    return used is not None and used.person == person


def visible(used: BreakGlassEntry, person: str, policy: Policy) -> bool:
    """Whether it was in the person's name, or is theirs to review."""
    return person == used.person or policy.is_auditor(person) or policy.is_revoker(person)


def owner(store: SqliteStore, used: BreakGlassEntry) -> str | None:
    """Whose key was certified, by the people.toml that was in force when it was handed in; None when it was nobody's."""
    for source in store.select(Filter(kind="policy", before=used.index), 1):
        policy = entry.decode(source)
        people = store.policy_file(policy.files["people.toml"]) if isinstance(policy, PolicyEntry) else None
        return Keyring.parse(people or b"").owners.get(PublicKey.parse_line(used.certified.key).blob)
    return None


def shown(store: SqliteStore, used: BreakGlassEntry, person: str, policy: Policy) -> dict[str, Any]:
    """The use with its seal, the lines of its session that `person` may read, and its review, each as its entry's text."""
    emergency = read(store)
    kit = emergency.kits[used.kit]
    of_session = [each for each in emergency.lines.values() if (each.kit, each.told.session) == (kit.index, used.told.session)]
    shown = [each for each in of_session if not isinstance(each.told, Certified) or visible(each, person, policy)]
    review = emergency.reviews.get(used.index)
    logins = [each for each in emergency.logins.values() if emergency.use_of(each.login) is emergency.lines[used.index]]
    members = {
        "use": _text(used),
        "leaf": leaf_hash(used.encode()).hex(),
        "seal": _text(emergency.seals[kit.seal]),
        "session": [_text(each) for each in shown],
        "logins": [_text(each) for each in logins],
    }
    if whose := owner(store, used):
        members["owner"] = whose
    return members if review is None else members | {"review": _text(review)}


def _text(found: EmergencyEntry) -> str:
    return found.encode().decode()
