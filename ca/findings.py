"""What a decision is made of, as entries keep it: what was looked at, what holds, who has to approve, what is given."""

from dataclasses import dataclass

from ca.errors import Malformed


@dataclass(frozen=True)
class Finding:
    """One condition as it was considered: its fixed sentence, what was observed, and whether it held; None is unknown."""

    condition: str
    sentence: str
    observed: str
    holds: bool | None = None


@dataclass(frozen=True)
class Way:
    """One block of the policy as it was considered; `rule` is its name, such as `allow 1` or `guardrails deny 2`."""

    rule: str
    findings: tuple[Finding, ...]
    message: str | None = None  # of a deny: what to do instead

    @property
    def unmet(self) -> int:
        """How many conditions do not hold, or are unknown."""
        return sum(finding.holds is not True for finding in self.findings)


@dataclass(frozen=True)
class Step:
    """So many different people of a group have to approve; after `escalate_after` seconds those of `escalate_to` may as well."""

    group: str
    count: int
    escalate_after: int | None = None
    escalate_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What a schedule said of a person's being on call, or why it was `unknown`. Raises `Malformed` for both, or neither.

    `source` said so `age` seconds before; `level` is absent for who was not on call, and `until` (Unix seconds) when the shift
    has no end.
    """

    schedule: str
    source: str | None = None
    age: int | None = None
    level: int | None = None
    until: int | None = None
    unknown: str | None = None

    def __post_init__(self) -> None:
        said = (self.source, self.age, self.level, self.until)
        known = None not in said[:2] and (self.level is not None or self.until is None) and self.unknown is None
        if not known and (self.unknown is None or said != (None,) * 4):
            raise Malformed(f"what {self.schedule[:60]!a} said of who is on call is neither known nor unknown")


@dataclass(frozen=True, kw_only=True)
class Privilege:
    """What a grant gives, for `duration` seconds."""

    principals: tuple[str, ...]
    duration: int
    force_command: str | None = None
    source_address: str | None = None
    permit: tuple[str, ...] = ()
