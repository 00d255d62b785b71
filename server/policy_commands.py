"""`jit-ssh-ca policy`: the policy files of a CA, or of a checkout, judged without serving. Opens neither keys nor log."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ca import names, roles
from ca.canonical import encode
from ca.conditions import told_shift
from ca.errors import Malformed, Misconfigured
from ca.fields import duration_text, ip_address, moment, seconds, suggestion
from ca.oncall import Shift
from ca.policy import Decision, Denied, Facts, Granted, Pending, eligible, evaluate
from ca.reach import who_can
from ca.review import warnings
from ca.roles import Policy
from ca.trial import Trial, outcome, trials
from server import config
from server.directory import read_policies
from server.terminal import DIR, reports_errors

JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_HOLDS = {True: "yes", False: "no", None: "unknown"}


@click.group()
def policy() -> None:
    """Work with the policy files of a CA without serving it."""


@policy.command()
@DIR
@JSON
@click.pass_context
@reports_errors
def check(ctx: click.Context, dir_: Path, *, as_json: bool) -> None:
    """Load the policy of the CA in DIR (or in a policy directory itself) and print every problem at once.

    Exit code 0: serve would take it. What is allowed but hardly meant is a warning.
    Example: jit-ssh-ca policy check /etc/jit-ssh
    """
    root = policy_root(dir_)
    try:
        loaded = roles.load(read_policies(root))
    except Misconfigured as error:
        if not as_json or not error.problems:
            raise
        print_json({"problems": error.problems, "warnings": []})
        ctx.exit(1)
    doubts = warnings(loaded, datetime.now(UTC).date())
    counts = {"roles": len(loaded.roles), "people": len(loaded.people), "host_groups": len(loaded.hosts)}
    if as_json:
        print_json(counts | {"problems": [], "warnings": doubts})
        return
    click.echo(f"{root}: {len(loaded.roles)} roles, {len(loaded.people)} people, {len(loaded.hosts)} host groups: no problems")
    for warning in doubts:
        click.echo(f"warning: {warning}", err=True)


def policy_root(dir_: Path) -> Path:
    """The policy directory of the CA in `dir_`, or `dir_` itself where there is no CA."""
    return dir_ / config.load(dir_).policies if (dir_ / config.NAME).exists() else dir_


# ----------------------------------------------------------------------- test


@policy.command("test")
@DIR
@JSON
@click.pass_context
@reports_errors
def try_examples(ctx: click.Context, dir_: Path, *, as_json: bool) -> None:
    """Decide every [[example]] of the roles as serve would, and print those of which something else comes, with the reasons.

    Exit code 0: all come out as they expect. Example: jit-ssh-ca policy test /etc/jit-ssh
    """
    root = policy_root(dir_)
    tried = trials(roles.load(read_policies(root)))
    failed = [trial for trial in tried if not trial.passed]
    if as_json:
        print_json({"examples": len(tried), "failed": [_said_of(trial) for trial in failed]})
        ctx.exit(1 if failed else 0)
    if failed:
        raise Misconfigured(
            f"{len(failed)} of {len(tried)} examples came out otherwise",
            "Change the rules, or what the example expects; ca/POLICY.md describes both",
            tuple(map(_failure, failed)),
        )
    click.echo(f"{root}: {len(tried)} examples, all as expected")


def _said_of(trial: Trial) -> dict[str, Any]:
    return {"role": trial.role, "example": trial.at, "expected": trial.example.expect} | _shown(trial.decision)


def _failure(trial: Trial) -> str:
    told = "\n".join(f"  {line}".rstrip() for line in _told(trial.decision))
    return f"roles/{trial.role}.toml: example[{trial.at}]: {trial.example.expect} was expected, but it is\n{told}"


# -------------------------------------------------------------------- explain


@policy.command()
@DIR
@click.argument("person")
@click.argument("role")
@click.option("--reason", default="", help="The reason given. Default: none.")
@click.option("--any-reason", is_flag=True, help="Leave aside what a reason has to look like.")
@click.option("--for", "length", help="The duration asked for, such as 30m. Default: the role's.")
@click.option("--at", help="The moment, with its zone, such as 2027-03-02T22:30+01:00. Default: now.")
@click.option("--address", help="Where the request comes from. Default: not known.")
@click.option("--hardware-key", is_flag=True, help="The request is signed with a security key.")
@click.option("--on-call", multiple=True, metavar="SCHEDULE=LEVEL", help="The person's level on a schedule; 0 is not on call.")
@click.option("--granted", type=click.IntRange(0), default=0, metavar="N", help="Grants without approval in the last 24 hours.")
@JSON
@reports_errors
def explain(
    dir_: Path,
    person: str,
    role: str,
    *,
    reason: str,
    any_reason: bool,
    length: str | None,
    at: str | None,
    address: str | None,
    hardware_key: bool,
    on_call: tuple[str, ...],
    granted: int,
    as_json: bool,
) -> None:
    """Decide what PERSON would be told who asks for ROLE, condition by condition. Asks no on-call source; nothing is logged.

    Exit code 0, whatever the decision. Example: jit-ssh-ca policy explain /etc/jit-ssh ana web-admin --reason "INC-12"
    """
    loaded = roles.load(read_policies(policy_root(dir_)))
    now = moment(at) if at else datetime.now(UTC)
    shifts = dict(_shift(each, person, loaded) for each in on_call)
    facts = Facts(person, ip_address(address) if address else None, hardware_key, now, shifts, auto_granted=granted)
    decision = evaluate(loaded, role, seconds(length) if length else None, None if any_reason else reason, facts)
    steps = decision.steps if isinstance(decision, Pending) else ()
    could = [(step, sorted(eligible(loaded, step, facts, in_time=True))) for step in steps]
    if as_json:
        approvers = [{"group": step.group, "count": step.count, "could": people} for step, people in could]
        print_json(_shown(decision) | ({"steps": approvers} if approvers else {}))
        return
    click.echo("\n".join(_told(decision)))
    if could:
        click.echo("\nwho could approve")
    for step, people in could:
        click.echo(f"  {step.count} of {step.group}: {', '.join(people)}")


def _shift(text: str, person: str, loaded: Policy) -> tuple[str, Shift]:
    schedule, _, digits = text.partition("=")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 3):
        raise Malformed(f"{text[:40]!a} is not a schedule and a level", "Write it like web=1")
    if schedule not in loaded.schedules:
        hint = "oncall.toml has the schedules" + suggestion(schedule, loaded.schedules)
        raise Malformed(f"unknown schedule {schedule[:40]!a}", hint)
    return schedule, told_shift(schedule, "the command line", person, int(digits) or None)


def _shown(decision: Decision) -> dict[str, Any]:
    said = {"decision": outcome(decision), "message": _sentence(decision)}
    return said | {"findings": decision.findings, "ways": decision.ways}


def _sentence(decision: Decision) -> str:
    match decision:
        case Granted(privilege=privilege):
            return f"{', '.join(privilege.principals)} for {duration_text(privilege.duration)}, by {decision.ways[0].rule}"
        case Pending(privilege=privilege, steps=steps):
            wanted = ", ".join(f"{step.count} of {step.group}" for step in steps)
            return f"{', '.join(privilege.principals)} for {duration_text(privilege.duration)}, once approved by {wanted}"
        case Denied():
            return decision.message


def _told(decision: Decision) -> Iterator[str]:
    """The decision and its reasons, line by line."""
    yield f"{outcome(decision)}: {_sentence(decision)}"
    request = [("the request", decision.findings)] if decision.findings else []
    for what, findings in (*request, *((way.rule, way.findings) for way in decision.ways)):
        yield from ("", what)
        for finding in findings:
            yield f"  {_HOLDS[finding.holds]:8}{finding.sentence}: {finding.observed}"


def print_json(value: object) -> None:
    """Prints what `ca.canonical` can spell, for programs."""
    click.echo(json.dumps(json.loads(encode(value)), indent=2))


# -------------------------------------------------------------------- who-can


@policy.command("who-can")
@DIR
@click.argument("principal")
@JSON
@reports_errors
def who_can_(dir_: Path, principal: str, as_json: bool) -> None:
    """List everybody who can get to PRINCIPAL (account@host-group), by which role and rule, and what each way needs.

    Exit code 0, also when nobody can. Example: jit-ssh-ca policy who-can /etc/jit-ssh root@web-prod
    """
    names.require(names.PRINCIPAL, principal, "principal")
    found = who_can(roles.load(read_policies(policy_root(dir_))), principal)
    if as_json:
        print_json({"principal": principal, "ways": found})
        return
    for reach in found:
        click.echo(f"{reach.person}  {reach.role}, {reach.rule}")
        for sentence in reach.needs:
            click.echo(f"  needs   {sentence}")
        for sentence in reach.unless:
            click.echo(f"  unless  {sentence}")
    if not found:
        click.echo(f"Nobody can get to {principal}.")
