"""`jit-ssh log`: list entries, show one with everything in it, export a statement, and verify the log without trusting the CA."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from ca import entry
from ca.canonical import parse_object
from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from ca.entry import AnyEntry, AskedEntry, GenesisEntry, IssueEntry, PolicyEntry, RefuseEntry, RequestEntry
from ca.errors import JitSshError, LogDamaged, Malformed, Misconfigured, NotFound
from ca.merkle import HASH_LENGTH
from ca.tiles import FULL_WIDTH, Tile
from ca.verify import verify as verify_log
from cli import files, output, profile
from cli.answers import Members, ways_lines
from cli.client import Address, Client, exchange
from cli.directory import Directory
from cli.roles import client_of

_PAGE: Final = 1000  # entries that the CA gives at once
_LARGEST_PAGE: Final = 2 * _PAGE * entry.LARGEST  # bytes: JSON in JSON may double
_KINDS: Final = tuple(kind.TAG[1] for kind in entry.KINDS)


@click.group(
    invoke_without_command=True,
    epilog="Examples:\n\n\b\n  jit-ssh log\n  jit-ssh log --person ana --kind issue --since 24h\n"
    "  jit-ssh log show 17\n  jit-ssh log verify",
)
@click.option("--person", "actor", help="Only entries that this person caused.")
@click.option("--role", help="Only entries about this role.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only entries of this kind.")
@click.option("--since", metavar="TIME", help="Only entries from then on: 2h (ago), 2026-03-01 or '2026-03-01 14:30'.")
@click.option("--until", metavar="TIME", help="Only entries before then.")
@click.option("--serial", type=click.IntRange(0), help="Only the entry that issued the certificate of this serial.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON.")
@click.pass_context
def log(
    ctx: click.Context, /, since: str | None, until: str | None, limit: int, as_json: bool, **wanted: str | int | None
) -> None:
    """List the newest entries of the log: your own, or everybody's if you are an auditor."""
    if ctx.invoked_subcommand is not None:
        return
    now = int(time.time())
    moments = {"since": since, "until": until}
    query: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    query |= {name: output.parse_moment(text, now) * 1000 for name, text in moments.items() if text is not None}
    found = list(_newest(client_of(profile.load(Directory.of_home())), query, limit))
    if as_json:
        output.result_json([parse_object(source, "the entry") for source in found])
    elif found:
        entries = [entry.decode(source) for source in found]
        output.table([("ENTRY", "TIME", "WHO", "KIND", "WHAT"), *(_row(each) for each in entries)])
    else:
        output.talk("There is no such entry, or it is not yours to read")


def _newest(client: Client, asked: dict[str, object], limit: int) -> Iterator[bytes]:
    before: dict[str, object] = {}
    while limit > 0:
        page, more = _page(client, asked | before | {"limit": min(limit, _PAGE)})
        yield from page
        limit -= len(page)
        if not more or not page:
            return
        before = {"before": _index(page[-1])}


def _page(client: Client, query: dict[str, object]) -> tuple[list[bytes], bool]:
    answer = Members.parse(client.read(f"/v1/log/entries?{urlencode(query)}", _LARGEST_PAGE))
    return [text.encode() for text in answer.texts("entries")], answer.flag("more")


def _index(source: bytes) -> int:
    return Members(parse_object(source, "the entry"), "the entry").integer("index")


def _row(each: AnyEntry) -> tuple[str, ...]:
    return (str(each.index), output.timestamp(each.time / 1000), each.actor, each.TAG[1], _what(each))


def _what(each: AnyEntry) -> str:
    """An entry in a few words."""
    match each:
        case GenesisEntry():
            return f"the log {each.origin} begins"
        case PolicyEntry():
            return f"{len(each.files)} policy files decide"
        case RequestEntry():
            return f"{each.role} for {output.duration(each.privilege.duration)}{_because(each)}"
        case RefuseEntry():
            return f"{each.role} refused: {each.message}"
        case IssueEntry():
            return f"{each.role} until {output.timestamp(each.certificate.valid_before)}, for request {each.request}"


def _because(each: AskedEntry) -> str:
    reason = parse_object(each.statement.encode(), "the statement").get("reason")
    return f": {reason}" if reason else ""


# --------------------------------------------------------------------- show


@log.command(epilog="Examples:\n\n\b\n  jit-ssh log show 17\n  jit-ssh log show 17 --export /tmp/entry-17")
@click.argument("number", type=click.IntRange(0), metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print the entry as JSON.")
@click.option("--export", "export", type=click.Path(path_type=Path), metavar="DIR", help="Write statement and signature there.")
def show(number: int, as_json: bool, export: Path | None) -> None:
    """Show everything in entry N.

    With --export the statement and its signature are written into DIR, for ssh-keygen to verify without anything of ours.
    """
    page, _ = _page(client_of(profile.load(Directory.of_home())), {"start": number, "limit": 1})
    if not page or _index(page[0]) != number:
        raise NotFound(f"there is no entry {number}, or it is not yours to read", "List those that are with: jit-ssh log")
    found = entry.decode(page[0])
    if export is not None:
        _export(found, export)
    elif as_json:
        output.result_json(parse_object(page[0], "the entry"))
    else:
        _show(found)


def _show(found: AnyEntry) -> None:
    when = output.timestamp(found.time / 1000)
    output.fields({"entry": str(found.index), "kind": found.TAG[1], "time": when, "who": found.actor})
    match found:
        case GenesisEntry():
            output.fields({"log": found.origin, "CA key": found.ca_key, "log key": found.log_key})
        case PolicyEntry():
            output.fields(found.files)
        case RequestEntry() | RefuseEntry():
            _show_asked(found)
        case IssueEntry():
            _show_issue(found)


def _show_asked(found: RequestEntry | RefuseEntry) -> None:
    output.fields(
        {
            "role": found.role,
            "outcome": "granted" if isinstance(found, RequestEntry) else f"refused ({found.code}): {found.message}",
            "from": found.address or "",
            "hardware key": "touched" if found.hardware_key else "no",
            "policy": f"entry {found.policy}",
            "statement": found.statement,
            "signature": _judged(found),
        }
    )
    if isinstance(found, RequestEntry):
        granted = found.privilege
        output.fields(
            {
                "principals": ", ".join(granted.principals),
                "for": output.duration(granted.duration),
                "runs only": granted.force_command or "",
                "only from": granted.source_address or "",
                "permits": ", ".join(granted.permit),
            }
        )
    for line in ways_lines(found.ways):
        output.result(line)


def _judged(found: AskedEntry) -> str:
    try:
        found.signed.verify(found.statement.encode())
    except JitSshError as error:
        return f"BAD: {error.message}"
    return f"good, by {found.signed.key.algorithm} {found.signed.key.fingerprint}"


def _show_issue(found: IssueEntry) -> None:
    certificate = found.certificate
    output.fields(
        {
            "role": found.role,
            "request": f"entry {found.request}",
            "serial": str(certificate.serial),
            "key id": certificate.key_id,
            "key": f"{certificate.key.algorithm} {certificate.key.fingerprint}",
            "principals": ", ".join(certificate.principals),
            "valid from": output.timestamp(certificate.valid_after),
            "valid until": output.timestamp(certificate.valid_before),
            "runs only": certificate.force_command or "",
            "only from": certificate.source_address or "",
            "permits": ", ".join(certificate.permit),
            "CA": certificate.ca_key.fingerprint,
        }
    )


def _export(found: AnyEntry, directory: Path) -> None:
    if not isinstance(found, AskedEntry):
        hint = f"Its statement is in entry {found.request}" if isinstance(found, IssueEntry) else "Requests and refusals have one"
        raise NotFound(f"entry {found.index} carries no statement", hint)
    signed = found.signed
    directory.mkdir(parents=True, exist_ok=True)
    files.write(directory / "statement", found.statement.encode())
    files.write(directory / "signature.sig", signed.armored.encode())
    files.write(directory / "allowed_signers", f'{found.actor} namespaces="jit-ssh" {signed.key.line}\n'.encode())
    place = directory.absolute()
    output.talk(f"The key is the entry's own: compare {signed.key.fingerprint} with what you know of {found.actor}")
    output.result(
        f"ssh-keygen -Y verify -f '{place}/allowed_signers' -I {found.actor} -n jit-ssh"
        f" -s '{place}/signature.sig' < '{place}/statement'"
    )


# ------------------------------------------------------------------- verify


@log.command(epilog="Example:\n\n\b\n  jit-ssh log verify")
@click.option("--json", "as_json", is_flag=True, help="Print what was checked as JSON.")
def verify(as_json: bool) -> None:
    """Check the log without trusting the CA.

    The checkpoint's signature, all hashes, that the log only grew since this machine last looked, and in each entry that you may
    read the person's signature and that the certificate is what was granted. The checkpoint is kept for the next time.
    """
    directory = Directory.of_home()
    found = profile.load(directory)
    address, trust, client = Address.parse(found.url), found.trust, client_of(found)
    note = exchange(address, "GET", "/log/checkpoint")
    try:
        checkpoint = open_checkpoint(note, trust.verifier)
        remembered = _remembered(directory, trust.verifier)
        report = verify_log(trust, checkpoint, _leaves(address, checkpoint.size), _visible(client, checkpoint.size), remembered)
    except Malformed as error:
        raise LogDamaged(f"the log cannot be read: {error.message}", error.hint) from error
    files.write(directory.checkpoint, note)
    if as_json:
        root = checkpoint.root.hex()
        output.result_json(asdict(report) | {"checkpoint": {"origin": checkpoint.origin, "size": checkpoint.size, "root": root}})
        return
    output.result(f"{checkpoint.origin} is whole: {checkpoint.size} entries below a root that its key signed")
    output.result(f"  read      {report.entries} of {checkpoint.size} entries; of the others, which you may not read, the hashes")
    output.result(f"  verified  {report.signatures} signatures by people and their keys, {report.certificates} certificates")
    grown = f"it only grew from the {remembered.size} entries of the last time" if remembered else "seen here for the first time"
    output.result(f"  since     {grown}")


def _remembered(directory: Directory, key: VerifierKey) -> Checkpoint | None:
    try:
        note = directory.checkpoint.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return open_checkpoint(note, key)
    except JitSshError as error:
        raise Misconfigured(f"{directory.checkpoint} is no checkpoint of this log: {error.message}", "Who changed it?") from error


def _leaves(address: Address, size: int) -> Iterator[bytes]:
    """Every leaf hash of a log of this size, tile by tile."""
    for start in range(0, size, FULL_WIDTH):
        tile = Tile(0, start // FULL_WIDTH, min(FULL_WIDTH, size - start))
        hashes = _tile(address, tile)
        yield from (hashes[at : at + HASH_LENGTH] for at in range(0, tile.width * HASH_LENGTH, HASH_LENGTH))


def _tile(address: Address, tile: Tile) -> bytes:
    """A tile's hashes; a partial one may be gone when the full one is there (C2SP tlog-tiles)."""
    try:
        hashes = exchange(address, "GET", f"/log/{tile}")
    except NotFound:
        if tile.width == FULL_WIDTH:
            raise
        hashes = exchange(address, "GET", f"/log/{Tile(tile.level, tile.index)}")[: tile.width * HASH_LENGTH]
    if len(hashes) != tile.width * HASH_LENGTH:
        raise Malformed(f"{tile} has {len(hashes)} bytes, not {tile.width * HASH_LENGTH}")
    return hashes


def _visible(client: Client, size: int) -> Iterator[tuple[int, bytes]]:
    """The entries that this person may read, below `size`: those after it came while this was running."""
    start, more = 0, True
    while more and start < size:
        page, more = _page(client, {"start": start, "limit": _PAGE})
        if not page:
            return
        for source in page:
            index = _index(source)
            if index < start:
                raise Malformed(f"entry {index} comes after entry {start - 1}")
            start = index + 1
            if index < size:
                yield index, source
