"""Asking the CA for a role: granted at once, or a case that waits; and another certificate within a grant."""

import time
from dataclasses import dataclass
from functools import partial

from ca.errors import Forbidden, JitSshError, NotTouched, SignerFailed, UnknownSigner
from ca.statement import CertificateStatement, RequestStatement
from cli import held as holding
from cli import known, output, seen, waiting
from cli.answers import Members, Role
from cli.case import Case, parse_list
from cli.client import Sign
from cli.held import Held
from cli.machine import Machine
from cli.problems import Denied
from cli.seen import Seen
from cli.taking import LONGEST, Asked, FreshKey, signer, take


@dataclass(frozen=True)
class Wish:
    """What a person wants: a role, for so many seconds or its default, and why; `listed` as the CA listed it before."""

    role: str
    duration: int | None
    reason: str
    listed: Role | None = None


def obtain(machine: Machine, wish: Wish, *, wait: bool) -> Held | Case:
    """The certificate, given to ssh, or the case that waits for approvals, unless `wait` says to wait for them.

    Raises `Denied` with what can be had instead. A role that is held is extended.
    """
    machine.directory.of_role(wish.role, "-cert")  # raises for a name that cannot be a file's
    key = FreshKey()
    asked = _asked(machine, wish, key)
    words = partial(RequestStatement, role=wish.role, duration=wish.duration, reason=wish.reason, key=key.public.line)
    before = seen.newest(machine.directory, machine.profile.trust.verifier)
    try:
        answer = machine.client.send(_seen("/v1/requests", before), words, key.prove)
    except Denied as error:
        raise _with_hint(machine, wish.role, error) from error
    if Members.parse(answer).text("status") != "pending":
        return take(machine, answer, asked, key, before)
    case = Case.parse(answer)
    if not wait:
        return case
    waiting.until_granted(machine.client, case)
    return _fetch(machine, case.request, asked, key)


def pick_up(machine: Machine, number: int, *, wait: bool) -> Held | Case:
    """The same for a request that was made before."""
    case = waiting.read_case(machine.client, number)
    if case.person != machine.profile.person:
        raise Forbidden(f"request {number} is {case.person}'s, and you are {machine.profile.person}")
    if case.status == "pending" and not wait:
        return case
    case = waiting.until_granted(machine.client, case)
    key, left = FreshKey(), (case.until or 0) - int(time.time())
    return _fetch(machine, number, Asked.of(case.role, case.accounts, max(left, 1), key), key)


def renew(machine: Machine, held: Held, *, silently: bool = False) -> Held:
    """Another certificate within the grant that is held; asked for by the key of the one that is here, while that is valid.

    So nobody has to touch a key or type a passphrase, unless the role wants a security key each time: `silently`, even then.
    """
    key, now = FreshKey(), int(time.time())
    asked = Asked.of(held.role, held.accounts, max(held.until - now, 1), key)
    by_certificate = signer(machine.directory, held, now)
    if by_certificate is not None:
        try:
            return _fetch(machine, held.request, asked, key, (held.serial, by_certificate))
        except (NotTouched, UnknownSigner, SignerFailed):
            if silently:
                raise
    return _fetch(machine, held.request, asked, key)


def _fetch(machine: Machine, request: int, asked: Asked, key: FreshKey, by: tuple[int, Sign] | None = None) -> Held:
    """`by` is the serial of a certificate and what signs with its key, instead of the person's."""
    serial, sign = by or (None, None)
    words = partial(CertificateStatement, request=request, key=key.public.line, serial=serial)
    before = seen.newest(machine.directory, machine.profile.trust.verifier)
    answer = machine.client.send(_seen("/v1/certificates", before), words, key.prove, sign)
    return take(machine, answer, asked, key, before)


def _seen(path: str, before: Seen | None) -> str:
    """Asks for the proof that the log continues what was seen of it."""
    return path if before is None else f"{path}?seen={before.size}"


def _asked(machine: Machine, wish: Wish, key: FreshKey) -> Asked:
    """What the certificate must fit. That of a role that is held may last as long as what is held."""
    now, held = int(time.time()), holding.grant(machine.directory, wish.role, int(time.time()))
    longest = wish.duration or (wish.listed.default_duration if wish.listed else LONGEST)
    if held is not None:
        output.talk(f"You hold {wish.role} until {output.moment(held.until, now)}: this asks to extend it")
        longest = max(longest, held.until - now)
    return Asked.of(wish.role, wish.listed.accounts if wish.listed else None, longest, key)


def open_request(machine: Machine, role: str) -> Case | None:
    """This person's request for the role that waits or is granted, if there is one, on whatever machine it was made."""
    mine = parse_list(machine.client.read("/v1/requests?view=mine"))
    return next((case for case in mine if case.role == role and case.status in {"pending", "granted"}), None)


def _with_hint(machine: Machine, role: str, error: Denied) -> Denied:
    """The denial, with what can be had right now instead, or the request that waits already."""
    instead: list[Role] = []
    try:
        if error.considered:
            instead = [each for each in known.instead_of(machine.read_roles().roles, role) if each.role != role][:3]
            can = [f"You can have {each.role} right now ({_reach(each)}): jit-ssh login {each.role}" for each in instead]
        else:
            waiting = open_request(machine, role)
            can = [f"Go on with it: jit-ssh login --request {waiting.request}"] if waiting else []
    except JitSshError:
        return error  # the denial is what matters
    told = {**(error.told or {}), "instead": [each.role for each in instead]}
    return Denied(error.message, "\n".join(can) or error.hint, error.considered, error.entry, told)


def _reach(role: Role) -> str:
    return "; ".join(str(account) for account in role.accounts)
