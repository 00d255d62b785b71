"""`jit-ssh log`: list entries, show one with everything in it, and export a statement for others to verify."""

import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from ca import entry
from ca.canonical import parse_object
from ca.entry import AnyEntry, IssueEntry, SaidEntry
from ca.errors import NotFound
from ca.names import PERSON, require
from ca.sshsig import NAMESPACE
from cli import entries, entry_text, files, listing, output
from cli.machine import Machine
from cli.proof import proof
from cli.verify import verify

_EXPORTED: Final = ("allowed_signers", "signature.sig", "statement")
_KINDS: Final = tuple(kind.TAG[1] for kind in entry.KINDS)


@click.group(
    invoke_without_command=True,
    epilog="Examples:\n\n\b\n  jit-ssh log\n  jit-ssh log --person ana --kind issue --since 24h\n"
    "  jit-ssh log --search 'disk full' --csv > found.csv\n  jit-ssh log --follow\n"
    "  jit-ssh log show 17\n  jit-ssh log verify",
)
@click.option("--person", "actor", help="Only entries that this person caused.")
@click.option("--role", help="Only entries about this role.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only entries of this kind.")
@click.option("--since", metavar="TIME", help="Only entries from then on: 2h (ago), 2026-03-01 or '2026-03-01 14:30'.")
@click.option("--until", metavar="TIME", help="Only entries before then.")
@click.option("--serial", type=click.IntRange(0), metavar="N", help="Only the entry that issued the certificate of this serial.")
@click.option("--search", "text", metavar="WORDS", help="Only entries with all these words; prim* for all that begin so.")
@click.option("--limit", type=click.IntRange(1), metavar="N", default=20, show_default=True, help="At most so many, the newest.")
@click.option("--follow", is_flag=True, help="Then go on with those to come, until Ctrl-C.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for a spreadsheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON; with --follow, one a line.")
@click.pass_context
def log(
    ctx: click.Context,
    /,
    since: str | None,
    until: str | None,
    limit: int,
    follow: bool,
    as_csv: bool,
    as_json: bool,
    **wanted: str | int | None,
) -> None:
    """List, show and verify entries of the log.

    Without a command: the newest entries, your own or, if you are an auditor, everybody's. --search looks for words in reasons,
    refusals, people, roles, principals and addresses.
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms: choose one")
    bounded = {"--until": until, "--search": wanted["text"], "--serial": wanted["serial"]}
    if follow and (wrong := [name for name, value in bounded.items() if value is not None]):
        raise click.UsageError(f"--follow does not go with {' and '.join(wrong)}")
    now = int(time.time())
    moments = {"since": since, "until": until}
    query: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    query |= {name: output.parse_moment(text, now) * 1000 for name, text in moments.items() if text is not None}
    form: Callable[[], listing.Form] = listing.Table if as_csv else listing.Lines if as_json and follow else listing.Columns
    client = Machine.here().client
    if follow:
        with suppress(KeyboardInterrupt):  # that is how it ends
            listing.follow(client, query, limit, form())
        return
    found = list(entries.newest(client, query, limit))
    if as_json:
        output.result_json([parse_object(source, "the entry") for source in found])
    elif found or as_csv:  # a table without rows has its heading
        form().show(found)
    if not found and not as_json:
        output.talk("There is no such entry, or it is not yours to read")


log.add_command(verify)
log.add_command(proof)


@log.command(epilog="Examples:\n\n\b\n  jit-ssh log show 17\n  jit-ssh log show 17 --export /tmp/entry-17")
@click.argument("number", type=click.IntRange(0), metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print the entry as JSON.")
@click.option("--export", "export", type=click.Path(path_type=Path), metavar="DIR", help="Write statement and signature there.")
def show(number: int, as_json: bool, export: Path | None) -> None:
    """Show everything in entry N.

    Its certificate is read and its signature judged on this machine. With --export, the statement and its signature are
    written into DIR, for ssh-keygen to verify without anything of ours.
    """
    source = entries.one(Machine.here().client, number)
    found = entry.decode(source)
    if export is not None:
        _export(found, export)
    elif as_json:
        output.result_json(parse_object(source, "the entry"))
    else:
        entry_text.show(found)


def _export(found: AnyEntry, directory: Path) -> None:
    if not isinstance(found, SaidEntry):
        hint = f"Its statement is in entry {found.request}" if isinstance(found, IssueEntry) else "Requests and refusals have one"
        raise NotFound(f"entry {found.index} carries no statement", hint)
    signed, actor = found.signed, require(PERSON, found.actor, "the actor")
    directory.mkdir(parents=True, exist_ok=True)
    signer = f'{actor} namespaces="{NAMESPACE}" {signed.key.line}\n'
    for name, content in zip(_EXPORTED, (signer, signed.armored, found.statement), strict=True):
        files.write(directory / name, content.encode())
    allowed, signature, statement = (shlex.quote(str(directory.absolute() / name)) for name in _EXPORTED)
    output.talk(f"The key is the entry's own: compare {signed.key.fingerprint} with what you know of {actor}")
    output.result(f"ssh-keygen -Y verify -f {allowed} -I {actor} -n {NAMESPACE} -s {signature} < {statement}")
