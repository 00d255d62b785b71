"""What `[[example]]` in a role file says: who asks and how, who has approved, and what has to come of it.

An example is about the rules and not about the staff: the person is in exactly the groups it names, whatever people.toml says,
and on call exactly where it says so.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from ca.fields import AnyNumber, Duration, IpAddress, KnownGroup, KnownSchedule, Line, Moment, PersonName, Table
from ca.oncall import Level

_USUALLY: Final = datetime(2027, 1, 15, 12, tzinfo=UTC)  # a Friday

Expected = Literal["granted", "pending", "denied"]


class Ask(Table):
    """`ask = { person = "ana", groups = ["sre"], on_call = { web = 1 } }`: a request and its facts."""

    person: PersonName
    groups: AnyNumber[KnownGroup] = ()
    on_call: dict[KnownSchedule, Level] = Field(default_factory=dict)
    hardware_key: bool = False
    address: IpAddress | None = None
    reason: Line = ""
    at: Moment = _USUALLY
    duration: Duration | None = None


class Example(Table):
    """`[[example]]`: `approvals` has the group of each person who has approved."""

    ask: Ask
    approvals: Annotated[tuple[KnownGroup, ...], Strict(False), Field(max_length=40)] = ()
    expect: Expected
