"""`jit-ssh log proof`: that an entry is in the log, for whoever has the log's key and nothing else; and the check of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from ca import entry
from ca.canonical import parse_object
from ca.certificate import SignedCertificate
from ca.cosignature import Quorum, Witnessed
from ca.entry import AnyEntry
from ca.errors import LogDamaged, Malformed, NotFound
from ca.merkle import consistency_proof, leaf_hash
from ca.proof import Proof, carried, prove, proven
from ca.trust import Trust
from cli import entries, output, seen, watchers
from cli.client import Address, exchange
from cli.machine import Machine
from cli.seen import Seen
from cli.tiles import Nodes

_LARGEST: Final = 512 * 1024  # bytes of a file to check: more than any proof or certificate has


@click.command(
    epilog="Examples:\n\n\b\n  jit-ssh log proof 17 > entry-17.tlog-proof\n  jit-ssh log proof --check entry-17.tlog-proof\n"
    "  jit-ssh log proof --check ~/.ssh/jit-ssh/web-admin-cert.pub"
)
@click.argument("number", type=click.IntRange(0), metavar="[N]", required=False)
@click.option(
    "--check",
    type=click.Path(allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Check a proof, or the one in a certificate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the proof, or what was proven, as JSON.")
def proof(number: int | None, check: Path | None, as_json: bool) -> None:
    """Prove that entry N is in the log, or check such a proof.

    The proof (C2SP tlog-proof) has the entry, the hashes from it to the log's root, and the signed checkpoint. Checking it takes
    no CA: only the log's public key, which this machine has since `jit-ssh setup`, and the keys of your witnesses, if you keep
    some. --check takes a proof or a certificate, which carries its own; - is standard input.
    """
    if (number is None) == (check is None):
        raise click.UsageError("Give the number of an entry, or --check FILE")
    machine = Machine.here()
    if check is None:
        made = _proof(machine, number or 0)
        if as_json:
            output.result_json(_parts(made))
        else:
            click.echo(made.encode(), nl=False)
        return
    found = _checked(machine, _read(check))
    if as_json:
        output.result_json(found.members)
    else:
        found.tell()


def _proof(machine: Machine, number: int) -> Proof:
    """The proof of an entry that this person may read, under a checkpoint that continues what this machine saw."""
    directory, address, key = machine.directory, Address.parse(machine.profile.url), machine.profile.trust.verifier
    before, source = seen.newest(directory, key), entries.one(machine.client, number)
    note = exchange(address, "GET", "/log/checkpoint").decode(errors="replace")
    checkpoint = watchers.quorum(directory).open(note, key).checkpoint
    if number >= checkpoint.size:
        raise NotFound(f"entry {number} is not yet under the checkpoint that the CA shows", "Try again in a few seconds")
    nodes = Nodes(address, checkpoint.size)
    made = prove(source, number, checkpoint.size, nodes.read, note)
    made.verify_inclusion(checkpoint)
    shown, old = Seen(checkpoint, note), before.size if before else 0
    steps = consistency_proof(old, checkpoint.size, nodes.read) if old <= checkpoint.size else []
    continued = json.dumps({"consistency": [step.hex() for step in steps]})
    seen.demand_continued(directory, before, shown, continued.encode())
    seen.remember(directory, address, key, before, shown)
    return made


def _parts(made: Proof) -> dict[str, object]:
    """The proof as values. Whoever checks it takes the leaf's hash from the entry's own bytes."""
    return {
        "index": made.index,
        "entry": parse_object(made.entry, "the entry"),
        "leaf": leaf_hash(made.entry).hex(),
        "path": [step.hex() for step in made.path],
        "note": made.note,
    }


def _read(path: Path) -> str:
    try:
        with click.open_file(str(path), "rb") as file:
            content: bytes = file.read(_LARGEST + 1)
        if len(content) <= _LARGEST:
            return content.decode()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", "Make one: jit-ssh log proof N > FILE") from error
    except UnicodeDecodeError:
        pass
    raise Malformed(f"{path} is neither a proof nor a certificate", "Make one: jit-ssh log proof N > FILE")


@dataclass(frozen=True)
class _Proven:
    """What a proof has proven to this machine."""

    proof: Proof
    entry: AnyEntry
    witnessed: Witnessed
    certificate: SignedCertificate | None

    @property
    def members(self) -> dict[str, object]:
        """All of it as values."""
        checkpoint, cosignatures = self.witnessed.checkpoint, self.witnessed.cosignatures
        return {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "index": self.proof.index,
            "entry": parse_object(self.proof.entry, "the entry"),
            "witnesses": [{"name": each.witness.name, "time": each.time} for each in cosignatures],
        }

    def tell(self) -> None:
        """Says it to a person."""
        checkpoint, what = self.witnessed.checkpoint, type(self.entry).TAG[1]
        held = f"serial {self.certificate.certificate.serial}, exactly as in the entry" if self.certificate else ""
        output.result(f"entry {self.proof.index} is in the log of {checkpoint.origin}, below a checkpoint that its key signed")
        output.fields(
            {
                "  entry": f"{what} by {self.entry.actor}, {output.timestamp(self.entry.time / 1000)}",
                "  checkpoint": f"{checkpoint.size} entries, root {checkpoint.root.hex()[:16]}…",
                "  certificate": held,
                "  witnesses": ", ".join(each.witness.name for each in self.witnessed.cosignatures),
            }
        )


def _checked(machine: Machine, text: str) -> _Proven:
    """Raises what `Proof.verify` and `proven` raise."""
    trust, quorum = machine.profile.trust, watchers.quorum(machine.directory)
    certificate = None if text.startswith("c2sp.org/") else _certificate(text, trust, quorum)
    found = Proof.parse(text) if certificate is None else carried(certificate)
    witnessed = quorum.open(found.note, trust.verifier)
    found.verify_inclusion(witnessed.checkpoint)
    proved = entry.decode(found.entry)
    if proved.index != found.index:
        hint = "Show the proof to the security team"
        raise LogDamaged(f"entry {found.index} of the log says that it is entry {proved.index}", hint)
    return _Proven(found, proved, witnessed, certificate)


def _certificate(text: str, trust: Trust, quorum: Quorum) -> SignedCertificate:
    """A certificate that is signed by the CA, and the one in the log."""
    signed = SignedCertificate.parse_line(text)
    ca_key = signed.certificate.ca_key
    if ca_key not in trust.public_keys:
        raise Malformed(f"the certificate is by CA {ca_key.fingerprint}, which this machine does not believe")
    signed.verify(ca_key)
    proven(signed, trust, quorum)
    return signed
