"""Who is on call: what a schedule says about a person at one moment."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Level = Annotated[int, Field(ge=1, le=20)]  # 1 is called first


@dataclass(frozen=True)
class Shift:
    """What a schedule says about one person.

    `level` is None for somebody who is not on call, `until` the shift's end in Unix seconds (None: it has none), `age` how many
    seconds ago the source said so, and `on_call` everybody who is on call, with their levels.
    """

    schedule: str
    source: str
    level: int | None
    until: int | None
    age: int
    on_call: tuple[tuple[str, int], ...]
