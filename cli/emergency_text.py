"""What the entries of emergency keys say to a person: seals, kits, and the lines of a kit's journal."""

from ca import statement
from ca.entry import BreakGlassEntry, EmergencyEntry, KitEntry, LoginEntry, ReviewEntry, SealEntry
from ca.journal import AnyLine, Certified, Close, Drill, Drilled, Open, Refused
from ca.keys import PublicKey
from ca.sshd_lines import Login
from ca.statement import ReviewStatement
from cli import output


def what(each: EmergencyEntry) -> str:
    """An entry in a few words."""
    match each:
        case SealEntry():
            return f"emergency key {_fingerprint(each.seal.key)}"
        case KitEntry():
            return f"{each.facts.digest[:16]} for {', '.join(each.facts.hosts)}"
        case BreakGlassEntry():
            return words(each.told) if each.person is None else f"{each.person}, {words(each.told)}"
        case LoginEntry():
            by = "WITH A CERTIFICATE THAT NO LINE SPEAKS OF" if each.request is None else f"of the use in entry {each.request}"
            return f"{_login(each.login)}, {by}"
        case ReviewEntry():
            said = statement.parse(each.statement.encode())
            finding = said.reason if isinstance(said, ReviewStatement) else ""
            return f"entry {each.request} by {each.person} is {each.verdict}: {finding}"


def members(found: EmergencyEntry) -> dict[str, str]:
    """An entry in full, but for what a person signed."""
    match found:
        case SealEntry():
            return _seal(found)
        case KitEntry():
            return _kit(found)
        case BreakGlassEntry():
            return {"kit": f"entry {found.kit}"} | line(found.told)
        case LoginEntry():
            return _seen(found)
        case ReviewEntry():
            return {"use": f"entry {found.request}", "person": found.person, "verdict": found.verdict}


def words(line: AnyLine) -> str:
    """A line in a few words."""
    match line:
        case Open():
            forced = f", though the CA answered: {line.forced}" if line.forced else ""
            return f"{'drill' if line.drill else 'emergency'} begins on {line.host}{forced}"
        case Certified():
            kind = "drill" if isinstance(line, Drill) else "use"
            return f"{kind}: {', '.join(line.principals)} until {output.timestamp(line.valid_before)}: {line.reason}"
        case Drilled():
            return f"drill {'entered' if line.entered else 'did not enter'} {line.target}"
        case Refused():
            return f"{line.attempted} refused: {line.why}"
        case Close():
            return f"ends after {line.certificates} certificates"


def line(told: AnyLine) -> dict[str, str]:
    """A line in full."""
    common = {
        "line": told.TAG[1],
        "written": output.timestamp(told.time),
        "session": told.session,
        "signed": "by the emergency key" if told.signature else "no",
        "says": words(told),
    }
    if isinstance(told, Open):
        return common | {"shares": ", ".join(share[:16] for share in told.shares), "kit's version": told.version}
    return common | certified(told) if isinstance(told, Certified) else common


def certified(told: Certified) -> dict[str, str]:
    """The certificate of a line."""
    return {
        "person": told.person,
        "serial": str(told.serial),
        "key id": told.key_id,
        "key": _fingerprint(told.key),
        "principals": ", ".join(told.principals),
        "valid from": output.timestamp(told.valid_after),
        "valid until": output.timestamp(told.valid_before),
        "reason": told.reason,
    }


def _seal(found: SealEntry) -> dict[str, str]:
    replaced = "" if found.overlap is None else f"entry {found.replaces}, trusted until {output.timestamp(found.overlap)}"
    officers = ", ".join(share.officer for share in found.seal.shares)
    return {
        "emergency key": _fingerprint(found.seal.key),
        "opened by": f"{found.seal.quorum} of {officers}" if officers else "whoever has the security key",
        "replaces": replaced,
    }


def _kit(found: KitEntry) -> dict[str, str]:
    facts = found.facts
    hosts = "; ".join(f"{group} as {', '.join(accounts)}" for group, accounts in facts.hosts.items())
    return {
        "kit": facts.digest,
        "seal": f"entry {found.seal}",
        "people": ", ".join(facts.people),
        "hosts": hosts,
        "certificates": f"{facts.certificates} a session, {output.duration(facts.longest)} at most",
        "refuses while": ", ".join(facts.ask),
    }


def _seen(found: LoginEntry) -> dict[str, str]:
    login = found.login
    return {
        "login": _login(login),
        "use": "NONE: no line spoke of this certificate" if found.request is None else f"entry {found.request}",
        "person": found.person or "",
        "serial": str(login.serial),
        "key id": login.key_id,
        "key": login.key,
        "CA": login.ca,
    }


def _login(login: Login) -> str:
    when = "at an unknown time" if login.time is None else output.timestamp(login.time)
    return f"{when}: {login.user} from {login.address} port {login.port}" + (f" on {login.host}" if login.host else "")


def _fingerprint(key: str) -> str:
    return PublicKey.parse_line(key).fingerprint
