"""The values that policy files are made of: names, durations, networks, zones, patterns.

Each type turns TOML text into a value that needs no second look, or raises `ValueError` with a sentence for the person
who wrote it; pydantic collects them all. A reference to something that another file defines is checked here as well,
against the names passed as validation context, so that it is reported in place and together with everything else.
"""

import base64
import binascii
import difflib
import ipaddress
import math
import re
import zoneinfo
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, Strict, ValidationInfo

from ca import names
from ca.errors import Malformed
from ca.keys import PublicKey
from ca.statement import LONGEST_REASON

T = TypeVar("T", bound=Hashable)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_DURATION: Final = 24 * 3600  # seconds; what is needed for longer than a day is standing privilege, not just in time
MAX_PRINCIPALS: Final = 256  # sshd refuses a certificate with more (SSHKEY_CERT_MAX_PRINCIPALS)
MAX_COMMAND: Final = 512  # characters; the forced command travels in the certificate and in the log
MAX_LINE: Final = 300  # characters of a sentence in a policy file
_MAX_PATTERN: Final = 200  # characters
_MAX_ATTEMPTS: Final = 1_000_000  # ways to try a pattern on one reason: some ten milliseconds
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# What a policy file may refer to, by kind ("group", "person", "host group", "role", "schedule"); None: its file cannot be read.
Known = Mapping[str, frozenset[str] | None]


class Table(BaseModel):
    """A TOML table: nothing is converted, nothing unknown is accepted, nothing changes afterwards."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a known word is close, else nothing."""
    close = difflib.get_close_matches(word[:80].lower(), known, n=1)
    return f" (did you mean {close[0]!a}?)" if close else ""


def _from_text(parse: Callable[[str], T], example: str) -> PlainValidator:
    def check(value: object) -> T:
        if not isinstance(value, str):
            raise ValueError(f'must be text in quotes, such as "{example}"')
        try:
            return parse(value)
        except Malformed as error:
            raise ValueError(": ".join(filter(None, (error.message, error.hint)))) from error

    return PlainValidator(check)


def checked_name(pattern: re.Pattern[str], what: str, example: str) -> PlainValidator:
    """Text that is a whole match of one of the patterns of `ca.names`."""
    return _from_text(lambda text: names.require(pattern, text, what), example)


def _reference(kind: str, named_in: Callable[[str], str] = str) -> AfterValidator:
    def check(value: str, info: ValidationInfo) -> str:
        context: Known = info.context or {}
        known, name = context.get(kind), named_in(value)
        if known is not None and name not in known:
            raise ValueError(f"unknown {kind} {name[:80]!a}{suggestion(name, known)}")
        return value

    return AfterValidator(check)


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    seen: set[T] = set()
    for at, value in enumerate(values, start=1):
        if value in seen:
            raise ValueError(f"entry {at} is the same as an earlier one")
        seen.add(value)
    return values


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:  # an empty list of conditions could be read as "nobody" or as "no condition"
        raise ValueError("must not be empty")
    return values


def _line(text: str) -> str:
    if not text.strip() or text != text.strip() or not names.LINE.fullmatch(text):
        raise ValueError("must be one line of printable text without spaces around it")
    return text


# ------------------------------------------------------------------ parsers


def seconds(text: str) -> int:
    """The seconds of `90s`, `30m`, `8h` or `1d`; `Malformed` for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text, re.ASCII)
    if not match:
        raise Malformed(f"{text[:80]!a} is not a duration", 'write a whole number and a unit, such as "90s", "30m" or "8h"')
    return int(match[1]) * _UNITS[match[2]]


def duration_text(length: int) -> str:
    """`length` seconds in the largest unit that divides them: the inverse of `seconds`."""
    unit = next(unit for unit in "dhms" if length % _UNITS[unit] == 0)
    return f"{length // _UNITS[unit]}{unit}"


def _policy_duration(text: str) -> int:
    length = seconds(text)
    if length > MAX_DURATION:
        raise ValueError(f"{text} is more than the {duration_text(MAX_DURATION)} that any grant may last")
    return length


def _minute_of_day(text: str) -> int:
    match = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00", text, re.ASCII)
    if not match:
        raise Malformed(f"{text[:80]!a} is not a time of day", "write hours and minutes from 00:00 to 24:00")
    return int(text[:2]) * 60 + int(text[3:])


def _zone(text: str) -> zoneinfo.ZoneInfo:
    # Lower-case keys such as "localtime" exist on some machines only, and would mean something else on each.
    if re.fullmatch(r"[A-Z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}", text, re.ASCII):
        try:
            return zoneinfo.ZoneInfo(text)
        except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
            pass
    close = difflib.get_close_matches(text[:80], zoneinfo.available_timezones(), n=1)
    raise ValueError(f"unknown time zone {text[:80]!a}" + (f" (did you mean {close[0]!a}?)" if close else ""))


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise Malformed(f"{text[:80]!a} is not a network", 'write a CIDR block, such as "192.0.2.0/24"') from error
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        raise Malformed(f"{text[:80]!a} is IPv4 written as IPv6", "write the IPv4 network")
    if str(network) != text:
        raise Malformed(f"{text[:80]!a} is not written canonically", f"write {network}")
    return network


def ip_address(text: str) -> str:
    """The address in its usual spelling; `Malformed` for what is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise Malformed(f"{text[:80]!a} is not an address", 'write one such as "192.0.2.1"') from error


def moment(text: str) -> datetime:
    """The moment of `2027-01-15T09:00+01:00`; `Malformed` for anything else, and for a time without its zone."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"{text[:80]!a} is not a moment", 'write it like "2027-01-15T09:00+01:00"') from error
    if read.tzinfo is None or not 1970 < read.year < 9999:  # at the ends of the calendar no zone's clock can be told
        raise Malformed(f"{text[:80]!a} has no time zone, or no usual year", 'write it like "2027-01-15T09:00+01:00"')
    return read


def _principal(text: str) -> str:
    account, _, host_group = text.partition("@")
    stand_in = "person" if account == "{person}" else account
    if account == names.BREAK_GLASS:
        raise Malformed(f"{text[:80]!a} is the emergency key's alone", "what it may do is in break-glass.toml")
    names.require(names.PRINCIPAL, f"{stand_in}@{host_group}", "principal")
    return text


def _person(text: str) -> str:
    if text == "root":
        raise Malformed("nobody can be called root", "{person} in a principal would give them the root account")
    if text == names.BREAK_GLASS:
        raise Malformed(f"nobody can be called {text}", "{person} in a principal would be one of the emergency key's")
    return names.require(names.PERSON, text, "person")


def _fingerprint(text: str) -> str:
    # A fingerprint that is not in canonical form would equal no key's, and so revoke nothing, silently.
    digest = text.removeprefix("SHA256:")
    try:
        canonical = base64.b64encode(base64.b64decode(digest + "=", validate=True)).decode().rstrip("=")
    except (binascii.Error, ValueError):
        canonical = ""
    if text != f"SHA256:{canonical}" or len(digest) != 43:
        raise Malformed(f"{text[:80]!a} is not a key's fingerprint", "copy it from: ssh-keygen -lf KEY.pub")
    return text


# A pattern is a sequence of characters, classes and groups of alternatives; only a single character or class repeats, so
# that no repeat stands inside another, and `_attempts` bounds the rest: a backtracking match takes no more steps than that.
_CLASS: Final = r"\[(?!(?:[^\]\\]|\\.)*(?:--|&&|~~|\|\|))\^?(?:[^\]\[\\]|\\.)+\]"  # without what Python reserves for sets
_ATOM: Final = rf"(?:\\[^0-9A-Za-z]|\\[dDwWsSbB]|{_CLASS}|[^\\\[\](){{}}*+?|^$])"
_PIECE: Final = re.compile(
    rf"\((?:\?:)?(?P<alternatives>(?:{_ATOM}|\|)*)\)(?P<maybe>\?)?"
    rf"|{_ATOM}(?:(?P<open>[*+])|(?P<once>\?)|\{{(?P<least>\d{{1,3}})(?P<to>,)?(?P<most>\d{{1,3}})?\}})?"
)


def _attempts(piece: re.Match[str]) -> int:
    if piece["alternatives"] is not None:
        return piece["alternatives"].count("|") + 1 + bool(piece["maybe"])
    if piece["open"] or (piece["to"] and not piece["most"]):
        return LONGEST_REASON
    if piece["once"]:
        return 2
    return int(piece["most"]) - int(piece["least"]) + 1 if piece["most"] else 1


@lru_cache(maxsize=256)  # many roles ask for the same
def _reason_pattern(text: str) -> re.Pattern[str]:
    body = text.removeprefix("^").removesuffix("$")
    pieces = list(_PIECE.finditer(body))
    if len(text) > _MAX_PATTERN or not text or "".join(piece[0] for piece in pieces) != body:
        raise ValueError(
            f"a pattern is at most {_MAX_PATTERN} characters: text, classes, repeats of one character or class, and "
            "groups of alternatives without repeats; see POLICY.md"
        )
    if math.prod(map(_attempts, pieces)) > _MAX_ATTEMPTS:
        raise ValueError("this pattern could be tried in too many ways: use fewer repeats, or give them limits")
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error


# -------------------------------------------------------------------- types

AnyNumber = Annotated[tuple[T, ...], Strict(False), AfterValidator(_distinct)]  # TOML lists become tuples
AtLeastOne = Annotated[tuple[T, ...], Strict(False), AfterValidator(_not_empty), AfterValidator(_distinct)]
InOrder = Annotated[tuple[T, ...], Strict(False), AfterValidator(_not_empty)]  # the same may come twice

Line = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(_line)]
Command = Annotated[str, Field(max_length=MAX_COMMAND), AfterValidator(_line)]
Duration = Annotated[int, _from_text(_policy_duration, "30m")]
MinuteOfDay = Annotated[int, _from_text(_minute_of_day, "09:00")]
Zone = Annotated[zoneinfo.ZoneInfo, _from_text(_zone, "Europe/Berlin")]
Cidr = Annotated[Network, _from_text(_network, "192.0.2.0/24")]
IpAddress = Annotated[str, _from_text(ip_address, "192.0.2.1")]
Moment = Annotated[datetime, _from_text(moment, "2027-01-15T09:00+01:00")]
ReasonPattern = Annotated[re.Pattern[str], _from_text(_reason_pattern, "^INC-[0-9]+")]
Key = Annotated[PublicKey, _from_text(PublicKey.parse_line, "ssh-ed25519 AAAA… ana@laptop")]
Fingerprint = Annotated[str, _from_text(_fingerprint, "SHA256:…")]
Principal = Annotated[str, _from_text(_principal, "root@web-prod"), _reference("host group", lambda text: text.partition("@")[2])]

PersonName = Annotated[str, _from_text(_person, "ana")]
GroupName = Annotated[str, checked_name(names.GROUP, "group", "sre")]
ScheduleName = Annotated[str, checked_name(names.GROUP, "schedule", "web")]
RoleName = Annotated[str, checked_name(names.ROLE, "role", "web-admin")]
HostPattern = Annotated[str, checked_name(names.HOST_PATTERN, "host pattern", "web-*.example.com")]
KnownGroup = Annotated[str, _reference("group")]
KnownPerson = Annotated[str, _reference("person")]
KnownHostGroup = Annotated[str, _reference("host group")]
KnownRole = Annotated[str, _reference("role")]
KnownSchedule = Annotated[str, _reference("schedule")]
