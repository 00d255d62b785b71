"""What may be done with the emergency key: `break-glass.toml`, which every kit takes along as it is when the kit is made."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from ca import names
from ca.fields import AnyNumber, AtLeastOne, Duration, KnownGroup, KnownHostGroup, KnownPerson, Table, checked_name, duration_text
from ca.kit import LONGEST

NAME: Final = "break-glass.toml"
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]{1,250}(/[A-Za-z0-9._~/-]{0,200})?", re.ASCII)
Url = Annotated[str, checked_name(_URL, "URL", "https://ca.example.com")]
AccountName = Annotated[str, checked_name(names.ACCOUNT, "account", "root")]


def _short(length: int) -> int:
    if length > LONGEST:
        raise ValueError(f"{duration_text(length)} is more than the {duration_text(LONGEST)} that an emergency may last")
    return length


class BreakGlass(Table):
    """Who may be named in an emergency, where they get in, and how often; `max_duration` is in seconds."""

    groups: AnyNumber[KnownGroup] = ()
    people: AnyNumber[KnownPerson] = ()
    hosts: Annotated[dict[KnownHostGroup, AtLeastOne[AccountName]], Field(min_length=1)]
    ask: AtLeastOne[Url]
    max_duration: Annotated[Duration, AfterValidator(_short)] = LONGEST
    certificates: Annotated[int, Field(ge=1, le=20)] = 3

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if not self.groups and not self.people:
            raise ValueError("names nobody: add groups or people")
        return self
