"""What a case says to a person: in a line, and in full."""

import time
from collections.abc import Sequence

from ca.findings import Duty
from cli import output
from cli.answers import findings_lines, ways_lines
from cli.case import Case


def rows(cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """A heading, and each case in a few words."""
    now = int(time.time())
    return [("REQUEST", "ASKED", "WHO", "ROLE", "FOR", "STATUS", "REASON"), *(_row(case, now) for case in cases)]


def _row(case: Case, now: int) -> tuple[str, ...]:
    asked = output.moment(case.asked_at, now)
    return (str(case.request), asked, case.person, case.role, output.duration(case.duration), _status(case, now), case.reason)


def _status(case: Case, now: int) -> str:
    match case.status:
        case "pending":
            return f"waits for {case.waits_for}"
        case "granted" if case.until is not None:
            return f"granted until {output.moment(case.until, now)}"
        case _:
            return case.status + (f" by {case.ended_by}" if case.ended_by else "")


def show(case: Case, address: str | None = None, *, touched: bool = False) -> None:
    """Prints everything about a request, and how the decision came about; where it was asked from, and if with a touch."""
    now = int(time.time())
    source = (f" from {address}" if address else "") + (", a security key was touched" if touched else "")
    expires = f", lapses {output.moment(case.expires, now)}" if case.status == "pending" and case.expires else ""
    output.fields(
        {
            "request": f"{case.request}, {_status(case, now)}{expires}",
            "who": case.person,
            "role": f"{case.role}: {case.about}",
            "accounts": "; ".join(str(account) for account in case.accounts),
            "runs only": case.force_command or "",
            "permits": ", ".join(case.permit),
            "for": output.duration(case.duration) + (f", extends request {case.extends}" if case.extends is not None else ""),
            "reason": case.reason or "none given",
            "asked": output.moment(case.asked_at, now) + source,
            "on call": "; ".join(_duty(duty, now) for duty in case.duties),
            "approved": "; ".join(_approvals(case, now)),
            "ended": case.end_reason or "",
            "before": "; ".join(f"{each.role} {output.duration(now - each.time)} ago, {each.status}" for each in case.recent)
            or "nothing",
        }
    )
    for line in (*findings_lines(case.findings), *ways_lines(case.ways)):
        output.result(line)


def _duty(duty: Duty, now: int) -> str:
    if duty.unknown is not None:
        return f"{duty.schedule}: {duty.unknown}"
    level = "no" if duty.level is None else f"level {duty.level}"
    until = "" if duty.until is None else f" until {output.moment(duty.until, now)}"
    return f"{duty.schedule}: {level}{until}, by {duty.source} {duty.age} s before"


def _approvals(case: Case, now: int) -> list[str]:
    return [
        f"by {each.person} {output.moment(each.time, now)}"
        + (f", for {output.duration(each.duration)}" if each.duration is not None else "")
        + (f": {each.reason}" if each.reason else "")
        for each in case.approvals
    ]
