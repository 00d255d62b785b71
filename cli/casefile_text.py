"""What a case file says to a person: each request as it was decided, its certificates, and all that happened."""

import time
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ca.canonical import parse_object
from cli import case_text, entry_text, output, use
from cli.casefile import CaseFile, Certificate


def show(file: CaseFile) -> None:
    """Prints it; on stderr, what in it is not as it should be."""
    for case in file.requests:
        asked, decided = file.asked(case), file.decided(case)
        if decided is not None:
            case = replace(case, findings=decided.findings, ways=decided.ways)  # noqa: PLW2901 - the same case, by its entries
        case_text.show(case, asked.address if asked else None, touched=asked is not None and asked.hardware_key)
        output.result()
    if file.use is not None:
        use.show(file.use)
        output.result()
    elif not file.requests:
        about = next((each for each in file.entries if each.index == file.case), None)
        if about is not None:
            entry_text.show(about)
            output.result()
    if certificates := file.certificates():
        output.table([("CERTIFICATE", "FOR", "VALID UNTIL", "ASKED FROM", "KEY", "PRINCIPALS"), *map(_certificate, certificates)])
        output.result()
    output.table([entry_text.HEADING, *map(entry_text.row, file.entries)])
    _warn(file)


def _certificate(each: Certificate) -> tuple[str, ...]:
    until = output.moment(each.valid_before, int(time.time())) + (", revoked" if each.revoked else "")
    source = (each.address or "?") + (", touched" if each.hardware_key else "")
    what = f"request {each.request}" + (", renewed" if each.renewal else "")
    return str(each.serial), what, until, source, each.key, " ".join(each.principals)


def _warn(file: CaseFile) -> None:
    if bad := file.badly_signed():
        output.talk(f"BAD: the signatures of these entries do not verify: {', '.join(map(str, bad))}. Tell the security team")
    if file.more:
        output.talk("These are the newest entries of the case: for all of them, jit-ssh log")
    if file.unread:
        output.talk(f"{file.unread} more entries cannot be read by this version")


def as_json(file: CaseFile) -> Mapping[str, Any]:
    """The same for programs; more members may come."""
    case = file.current
    summary = {} if case is None else {"person": case.person, "role": case.role, "status": case.status, "until": case.until}
    used = {} if file.use is None else {each.name: getattr(file.use, each.name) for each in fields(file.use)}
    return {
        "case": file.case,
        **{name: value for name, value in (summary | used).items() if value is not None},
        "requests": file.requests,
        "certificates": file.certificates(),
        "entries": [parse_object(each.encode(), "the entry") for each in file.entries],
        "more": file.more,
        "badly_signed": file.badly_signed(),
    }
