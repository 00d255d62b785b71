"""`jit-ssh-ca policy diff` and `replay`: what another policy would mean, for people and for the requests of the past.

Both end with a code of their own, so that a pipeline can ask for a second look at exactly what needs it.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from ca import entry, roles
from ca.compare import Change, Witness, compare
from ca.conditions import listed
from ca.entry import AnyEntry
from ca.hindsight import KINDS, Outcome, Replayed, summary
from ca.hindsight import replay as replayed
from ca.roles import Policy
from ca.store.filter import Filter
from ca.store.sqlite import SqliteCopy
from server import config
from server.directory import read_policies
from server.log_commands import milliseconds
from server.policy_commands import JSON, policy_root, print_json
from server.terminal import DIR, reports_errors

OTHERWISE: Final = 6  # exit code: something is decided otherwise, and nobody gains
GAINS: Final = 7  # exit code: somebody gains
_DAY: Final = 24 * 3600 * 1000  # milliseconds
_ALL: Final = 2**62
_POLICY = click.Path(exists=True, file_okay=False, path_type=Path)
_WORDS: Final[dict[Outcome, str]] = {
    "granted": "granted", "approved": "granted with the approvals it had", "pending": "approval needed", "denied": "denied",
}  # fmt: skip


# ----------------------------------------------------------------------- diff


@click.command()
@click.argument("old", type=_POLICY)
@click.argument("new", type=_POLICY)
@JSON
@click.pass_context
@reports_errors
def diff(ctx: click.Context, old: Path, new: Path, *, as_json: bool) -> None:
    """Show who gains and who loses when the policy OLD becomes NEW, over all people, roles and states of the facts.

    Each of both is a policy directory, or that of a CA. Exit code 0: everything is decided as before. 6: something is not, but
    nobody gains. 7: somebody gains. 1: one of both cannot be loaded.

    Example: jit-ssh-ca policy diff /etc/jit-ssh ./policies
    """
    found = compare(_load(old), _load(new), datetime.now(UTC).replace(microsecond=0))
    if as_json:
        print_json({"changes": found})
    else:
        for line in _told(found, new) if found else ("Everything is decided as before.",):
            click.echo(line)
    gains = any(change.direction == "gains" for change in found)
    ctx.exit(GAINS if gains else OTHERWISE if found else 0)


def _load(directory: Path) -> Policy:
    return roles.load(read_policies(policy_root(directory)))


def _told(found: Iterable[Change], new: Path) -> Iterator[str]:
    direction = ""
    for change in found:
        if change.direction != direction:
            direction = change.direction
            yield direction
        people = f": {listed(change.people)}" if change.people else ""
        yield f"  {change.role}: {change.what}{people}" if change.role else f"  {change.what}{people}"
        if change.witness is not None and change.role is not None:
            for observed in change.witness.observed:
                yield f"    when {observed}"
            yield f"    jit-ssh-ca policy explain {_explaining(change.witness, change.role, new)}"


def _explaining(witness: Witness, role: str, new: Path) -> str:
    """The arguments of `policy explain` that show it."""
    options = ["--at", witness.at]
    options += ["--address", witness.address] if witness.address else []
    options += ["--hardware-key"] if witness.hardware_key else []
    options += ["--granted", str(witness.auto_granted)] if witness.auto_granted else []
    for schedule, level in witness.on_call.items():
        options += ["--on-call", f"{schedule}={level}"]
    return shlex.join([str(new), witness.person, role, "--any-reason", *options])


# --------------------------------------------------------------------- replay


@click.command()
@DIR
@click.argument("new", type=_POLICY)
@click.option("--since", default="90d", show_default=True, metavar="TIME", help="From then on: 90d (ago), or 2026-03-01.")
@JSON
@click.pass_context
@reports_errors
def replay(ctx: click.Context, dir_: Path, new: Path, *, since: str, as_json: bool) -> None:
    """Decide the requests in the log of the CA in DIR again, by the policy NEW and the facts that the log kept.

    What would come out otherwise is listed. Exit code 0: nothing. 6: something, but nothing would be granted that was not.
    7: something would be granted.

    Example: jit-ssh-ca policy replay /etc/jit-ssh ./policies --since 90d
    """
    begin = milliseconds(since, datetime.now(UTC))
    every = tuple(replayed(_load(new), _entries(dir_, begin), begin // 1000))
    otherwise = [each for each in every if each.differs]
    counts = summary(every)
    if as_json:
        print_json({"requests": len(every), "now": counts, "otherwise": [asdict(each) for each in otherwise]})
    else:
        click.echo(_summed(len(every), counts))
        for each in otherwise:
            click.echo(_line(each))
            click.echo(f"    {each.why}")
    ctx.exit(GAINS if counts["granted"] else OTHERWISE if otherwise else 0)


def _entries(dir_: Path, begin: int) -> list[AnyEntry]:
    """Those of a CA's log that tell of requests since `begin` (Unix milliseconds), in order; the log is only read."""
    with closing(SqliteCopy(dir_ / config.load(dir_).database)) as store:
        sources = [
            source
            for kind in KINDS
            for source in store.select(Filter(kind=kind, since=None if "lock" in kind else begin - _DAY), _ALL)
        ]
    return sorted(map(entry.decode, sources), key=lambda each: each.index)


def _summed(requests: int, counts: Mapping[str, int]) -> str:
    if not any(counts.values()):
        return f"{requests} requests: all would come out as they did"
    return (
        f"{requests} requests: {counts['granted']} would now be granted, {counts['denied']} denied, "
        f"{counts['need_approval']} would need approval"
    )


def _line(each: Replayed) -> str:
    when = datetime.fromtimestamp(each.time, UTC)
    return f"{each.entry}  {when:%Y-%m-%d %H:%M}  {each.person}  {each.role}: {_WORDS[each.was]} → {_WORDS[each.now]}"
