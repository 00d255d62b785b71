"""What sshd's own log says of logins by certificate: plain lines, syslog's, and journald's JSON objects.

    Accepted publickey for USER from ADDRESS port N ssh2: TYPE-CERT SHA256:… ID KEY-ID (serial N) CA TYPE SHA256:…

Each part of a line may be somebody's who attacks: a message is recognised by its beginning, behind the header that the logger
wrote, and the serial and the CA by its end, because a key id may hold any text. What begins as such a login and does not end as
one (a key id of 900 characters makes sshd cut its line) is `Unreadable` and not nothing: a login must not hide in it.
Where sshd wants more than the key (AuthenticationMethods) it says `Partial` of the key, with LogLevel VERBOSE.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from ca import canonical
from ca.errors import Malformed

LONGEST: Final = 64 * 1024  # characters of a line that are looked at
_SHOWN: Final = 2048  # of an unreadable one that are kept
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NAMES: Final = ("sshd", "sshd-session", "sshd-auth")  # of its processes, since OpenSSH 9.8 and 10.0
_NAME: Final = f"(?:{'|'.join(_NAMES)})"
_ISO: Final = r"(?P<iso>\d{4}-\d\d-\d\dT\S{8,30})"
_SYSLOG: Final = re.compile(
    rf"(?:<\d{{1,3}}>)?(?:(?P<month>{'|'.join(_MONTHS)}) {{1,2}}(?P<day>\d{{1,2}}) (?P<clock>\d\d:\d\d:\d\d)"
    rf"|{_ISO}) (?P<host>\S+) {_NAME}(?:\[\d+\])?: (?P<message>.*)",
    re.ASCII | re.DOTALL,
)
_SYSLOG_1: Final = re.compile(  # RFC 5424
    rf"(?:<\d{{1,3}}>)?1 {_ISO} (?P<host>\S+) {_NAME} \S+ \S+ (?:-|\[[^\]]*\]) (?P<message>.*)", re.ASCII | re.DOTALL
)
_REPEATED: Final = re.compile(r"message repeated \d+ times: \[ ?(?P<message>.*)\]", re.ASCII | re.DOTALL)
_BEGINS: Final = re.compile(r"(?:Accepted|Partial) publickey for .* ssh2: \S+-CERT ", re.ASCII | re.DOTALL)
_FINGERPRINT: Final = r"SHA256:[A-Za-z0-9+/]{43}"
FINGERPRINT: Final = re.compile(_FINGERPRINT, re.ASCII)  # as sshd and ssh-keygen write a key's
_LOGIN: Final = re.compile(
    r"(?:Accepted|Partial) publickey for (?P<user>\S+) from (?P<address>\S+) port (?P<port>\d{1,5}) ssh2: "
    rf"[A-Z0-9-]+-CERT (?P<key>{_FINGERPRINT}) ID (?P<key_id>.*) "
    rf"\(serial (?P<serial>\d{{1,20}})\) CA [A-Z0-9-]+ (?P<ca>{_FINGERPRINT})",
    re.ASCII | re.DOTALL,
)

_MICROSECONDS: Final = re.compile(r"[0-9]{1,17}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Login(canonical.Tagged):
    """A login by certificate. `key` and `ca` are fingerprints; `time` is Unix seconds; `host` is what the logger called it."""

    TAG: ClassVar = ("login", "certificate")

    user: str
    address: str
    port: int
    key: str
    key_id: str
    serial: int
    ca: str
    time: int | None = None
    host: str | None = None

    def encode(self) -> bytes:
        """Its canonical JSON."""
        return canonical.encode(self)


@dataclass(frozen=True, kw_only=True)
class Unreadable(canonical.Tagged):
    """A line that begins as a login by certificate and does not say whose: by which CA, nobody knows."""

    TAG: ClassVar = ("login", "unreadable")

    line: str
    time: int | None = None
    host: str | None = None

    def encode(self) -> bytes:
        """Its canonical JSON."""
        return canonical.encode(self)


def parse(line: str, now: datetime) -> Login | Unreadable | None:
    """The login that a line of a log tells of. `now`, with its zone, says which year and zone syslog's times are of.

    Also reads what `encode` wrote.
    """
    line = line[:LONGEST].rstrip("\r\n")
    if line.startswith("{"):
        return _from_json(line)
    if (header := _SYSLOG.fullmatch(line) or _SYSLOG_1.fullmatch(line)) is not None:
        return _login(header["message"], _time(header, now), header["host"])
    return _login(line, None, None)


def _login(message: str, time: int | None, host: str | None) -> Login | Unreadable | None:
    if (repeated := _REPEATED.fullmatch(message)) is not None:
        message = repeated["message"]
    if _BEGINS.match(message) is None:
        return None
    found = _LOGIN.fullmatch(message)
    if found is None or int(found["serial"]) >= 2**63:
        return Unreadable(line=_printable(message[:_SHOWN]), time=time, host=host)
    return Login(
        user=_printable(found["user"]),
        address=_printable(found["address"]),
        port=int(found["port"]),
        key=found["key"],
        key_id=_printable(found["key_id"]),
        serial=int(found["serial"]),
        ca=found["ca"],
        time=time,
        host=host,
    )


def _printable(text: str) -> str:
    """The text with what could drive a terminal, or is no text at all, written in ASCII."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _time(header: re.Match[str], now: datetime) -> int | None:
    members = header.groupdict()
    try:
        if members["iso"]:
            read = datetime.fromisoformat(members["iso"])
            return int((read if read.tzinfo else read.replace(tzinfo=now.tzinfo)).timestamp())
        month, (hour, minute, second) = _MONTHS.index(members["month"]) + 1, map(int, members["clock"].split(":"))
        return _in_newest_year(now, month, int(members["day"]), (hour, minute, second))
    except (ValueError, OverflowError):
        return None


def _in_newest_year(now: datetime, month: int, day: int, clock: tuple[int, int, int]) -> int | None:
    """Syslog's old form names no year: the newest in which that moment is at most a day ahead, as clocks may be."""
    for year in range(now.year + 1, now.year - 5, -1):
        try:
            moment = datetime(year, month, day, *clock, tzinfo=now.tzinfo)
        except ValueError:  # 29 February
            continue
        if moment <= now + timedelta(days=1):
            return int(moment.timestamp())
    return None


# ------------------------------------------------------------------ journald


def _from_json(line: str) -> Login | Unreadable | None:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict):
        return None
    if "login" in members:
        return _again(line)
    if members.get("SYSLOG_IDENTIFIER") not in _NAMES:
        return None
    host, microseconds = members.get("_HOSTNAME"), str(members.get("__REALTIME_TIMESTAMP"))
    time = int(microseconds) // 1_000_000 if _MICROSECONDS.fullmatch(microseconds) else None
    return _login(_message(members.get("MESSAGE")), time, _printable(host) if isinstance(host, str) else None)


def _message(value: Any) -> str:
    """journald gives what is no UTF-8 as a list of bytes."""
    if isinstance(value, list) and all(isinstance(each, int) and 0 <= each < 256 for each in value):
        return bytes(value).decode(errors="backslashreplace")
    return value if isinstance(value, str) else ""


def _again(line: str) -> Login | Unreadable | None:
    kinds: tuple[type[Login | Unreadable], ...] = (Login, Unreadable)
    try:
        return canonical.decode(line.encode(), kinds, "the login")
    except (Malformed, UnicodeEncodeError):
        return None


def moment(at: int | None) -> str:
    """Unix seconds as a date and time in UTC."""
    return "at an unknown time" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
