"""The command line. No secret is on it: shares are typed, and so are in no shell's history and no list of processes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ca.kit import Facts

_ABOUT = """\
Gets an engineer onto a host when the CA is gone: {quorum} of {officers} type their shares, and the
key that was sealed signs one certificate for each person named. Every use is a line of a journal
that has to be handed in afterwards.
"""
_AFTER = """\
who may be named:    {people}
what can be entered: {hosts}
at most:             {minutes} minutes, {certificates} certificates a session
kit:                 {digest}, made {made:%Y-%m-%d} for {origin}

example: break-glass --for {first} --key id_ed25519.pub --group {group} --reason "CA down, INC-77"
"""


def parse(arguments: Sequence[str] | None, facts: Facts, made: object) -> argparse.Namespace:
    """What was asked; exits with 2 and the usage for what cannot be understood."""
    told = {
        "quorum": facts.quorum, "officers": ", ".join(facts.officers) or "whoever has the security key", "origin": facts.origin,
        "people": ", ".join(facts.people), "minutes": facts.longest // 60, "certificates": facts.certificates, "made": made,
        "hosts": ", ".join(f"{group} as {' or '.join(accounts)}" for group, accounts in facts.hosts.items()),
        "digest": facts.digest[:16], "first": next(iter(facts.people), "ana"), "group": next(iter(facts.hosts), "web-prod"),
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="break-glass", description=_ABOUT.format(**told), epilog=_AFTER.format(**told), allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--for", dest="person", action="append", required=True, metavar="NAME", help="who gets in; repeatable")
    parser.add_argument("--key", action="append", type=Path, metavar="FILE", help="that person's public key, in the same order")
    parser.add_argument("--group", action="append", required=True, metavar="GROUP", help="a host group to enter; repeatable")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="what burns, with the incident's number")
    parser.add_argument("--duration", metavar="TIME", help="how long the certificates live, e.g. 45m (default 30m)")
    parser.add_argument("--drill", action="store_true", help="practise: all the way into an sshd of this machine")
    parser.add_argument("--at", metavar="ACCOUNT@HOST[:PORT]", help="practise on this host instead, which trusts the sealed key")
    parser.add_argument("--force", metavar="TEXT", help="go on although the CA answers, for this reason")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="the journal (default: in your home directory)")
    if facts.shares_id is None:
        parser.add_argument("--security-key", type=Path, required=True, metavar="FILE", help="its private key file")
    options = parser.parse_args(arguments)
    options.key = options.key or []
    if len(options.key) != len(options.person) and not (options.drill and not options.key and len(options.person) == 1):
        parser.error("give one --key for each --for (a drill for one person makes a key of its own)")
    if options.at is not None and not options.drill:
        parser.error("--at is for a --drill")
    if options.drill and len(options.person) > 1:
        parser.error("a drill is for one person")
    return options
