"""The character sets of every name that ends up in a certificate, a file name, a log line or an ssh_config.

Each name is ASCII, lower case, begins with a letter, digit or underscore, and has no comma, space, `#`, wildcard or control
character: a value that passes cannot add a principal, leave a directory, forge a log line or drive a terminal.
Names are matched whole; two different names are never the same account.
"""

import re
from typing import Final

from ca.errors import Malformed

PERSON: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,31}", re.ASCII)  # may become an account through {person}
ACCOUNT: Final = PERSON  # what useradd accepts, and a dot
GROUP: Final = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,62}", re.ASCII)  # of people or of hosts
ROLE: Final = GROUP
PRINCIPAL: Final = re.compile(rf"({ACCOUNT.pattern})@({GROUP.pattern})", re.ASCII)
BREAK_GLASS: Final = "break-glass"  # the account of the emergency key's principals: no other CA signs one, nobody is called so
HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9*?_][A-Za-z0-9*?._:-]{0,252}", re.ASCII)  # for ssh_config; one name, no `!`
KEY_ID: Final = re.compile(r"[A-Za-z0-9._@/+-]{1,120}", re.ASCII)
ORIGIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}(/[A-Za-z0-9._-]{1,63}){0,4}", re.ASCII)  # C2SP: no space, no plus

# One line of text for people: no control, format, direction or private characters, and no white space but the space. Listed,
# because str.isprintable differs with Python's Unicode version, and what a CA accepted no verifier may find malformed.
LINE: Final = re.compile(
    r"[^\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ud800-\uf8ff\ufeff\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]*"
)


def require(pattern: re.Pattern[str], value: str, what: str) -> str:
    """`value`, if the whole of it is in the set; otherwise `Malformed`, naming `what` and the value as Python prints it."""
    if not pattern.fullmatch(value):
        raise Malformed(f"{what} {value[:80]!a} is not allowed", f"it must match {pattern.pattern}")
    return value
