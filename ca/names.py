"""The character sets of every name that ends up in a certificate, a file name, a log line or an ssh_config.

Each is ASCII, lower case, begins with a letter, digit or underscore, and has no comma, space, `#`, wildcard or control
character: a value that passes cannot add a principal, leave a directory, forge a log line or drive a terminal.
Names are matched whole; two different names are never the same account.
"""

import re
from typing import Final

from ca.errors import Malformed

PERSON: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,31}", re.ASCII)       # may become an account through {person}
ACCOUNT: Final = PERSON                                                # what useradd accepts, and a dot
GROUP: Final = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,62}", re.ASCII)     # of people or of hosts
ROLE: Final = GROUP
PRINCIPAL: Final = re.compile(rf"({ACCOUNT.pattern})@({GROUP.pattern})", re.ASCII)
HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9*?_][A-Za-z0-9*?._:-]{0,252}", re.ASCII)  # for ssh_config; one name, no `!`
KEY_ID: Final = re.compile(r"[A-Za-z0-9._@/+-]{1,120}", re.ASCII)
ORIGIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}(/[A-Za-z0-9._-]{1,63}){0,4}", re.ASCII)  # C2SP: no space, no plus


def require(pattern: re.Pattern[str], value: str, what: str) -> str:
    """`value`, if the whole of it is in the set; otherwise `Malformed`, naming `what` and the value as Python prints it."""
    if not pattern.fullmatch(value):
        raise Malformed(f"{what} {value[:80]!a} is not allowed", f"it must match {pattern.pattern}")
    return value
