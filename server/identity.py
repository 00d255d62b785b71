"""Who signed: from the texts of an HTTP request to a person, or an error that says why not.

Nothing is believed before its signature verified, and no signature is verified for a key that is nobody's. Statements refused
here are not entries of the log: whoever has no valid key, or replays what another signed, could fill it. They are in the
server's own log, with the request's id.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ca import canonical, statement
from ca.acts import Said
from ca.asking import Asked
from ca.errors import BadSignature, Malformed, NotTouched, RevokedKey, Stale, UnknownSigner, Unsigned, WrongAudience
from ca.keys import PublicKey
from ca.roles import Policy
from ca.sshsig import SshSig
from ca.statement import FRESH, AnyStatement, CertificateStatement, ReadStatement, RequestStatement
from ca.wire import decode_base64

_SCHEME: Final = "JIT-SSH "
_FROM_BASE64URL: Final = str.maketrans("-_+/=", "+/...")  # what is not of its alphabet becomes what is of none


@dataclass(frozen=True)
class Identified:
    """A person, what they signed, and whether a security key proved their touch."""

    person: str
    key: PublicKey
    statement: AnyStatement
    touched: bool


Holder = Callable[[CertificateStatement, PublicKey, int], str | None]
"""Whose living certificate a statement is signed by at a moment (Unix seconds), if the key is that certificate's."""


def nobody(_said: CertificateStatement, _key: PublicKey, _now: int) -> None:
    """No key but the person's own signs for them."""


def identify(text: str, signature: SshSig, policy: Policy, origin: str, now: int, holder: Holder = nobody) -> Identified:
    """The person whose key signed the statement `text` for this log within 120 s of `now` (Unix seconds).

    Or, where the statement asks for the next certificate by the serial of one, the person who holds that one, by `holder`.
    Raises `Malformed`, `WrongAudience`, `RevokedKey`, `UnknownSigner`, `BadSignature`, `NotTouched` or `Stale`.
    """
    said = statement.parse(text.encode())
    if said.audience != origin:
        raise WrongAudience(f"the statement was made for {said.audience}, this is {origin}", "Run jit-ssh setup for this CA")
    key = signature.key
    if policy.is_revoked(key):
        raise RevokedKey(f"your key {key.fingerprint} is revoked", "Sign with another of your keys; see jit-ssh setup")
    if isinstance(said, CertificateStatement) and said.serial is not None:
        signature.verify(text.encode())  # before anything is looked up
        _demand_fresh(said, now)
        if (holds := holder(said, key, now)) is None:
            raise UnknownSigner(f"the key {key.fingerprint} has no certificate that it could renew", "Sign with your own key")
        return Identified(holds, key, said, touched=False)  # the person need not have been there
    owner = policy.owner_of(key)
    if owner is None:
        raise UnknownSigner(f"the key {key.fingerprint} is nobody's here", f"Ask for this line in people.toml: {key.line}")
    touched = signature.verify(text.encode())
    if key.hardware and not touched:
        raise NotTouched("the security key signed without a touch", "Touch the key when it blinks")
    _demand_fresh(said, now)
    return Identified(owner.name, key, said, touched)


def _demand_fresh(said: AnyStatement, now: int) -> None:
    age = now - said.time
    if abs(age) > FRESH:
        when = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise Stale(f"the statement is {when}, more than {FRESH} s", "Set this machine's clock right, and try again")


def asked(body: bytes, address: str | None, policy: Policy, origin: str, now: int, holder: Holder = nobody) -> Asked:
    """What asks for a certificate, in the body of `POST /v1/requests` or `/v1/certificates`. Raises what `identify` raises."""
    text, signature, possession = _texts(body, "statement", "signature", "possession")
    who = identify(text, SshSig.parse(decode_base64(signature, "the signature")), policy, origin, now, holder)
    if not isinstance(who.statement, RequestStatement | CertificateStatement):
        raise Malformed("the statement does not ask for a certificate", 'Its action must be "request" or "certificate"')
    proof = SshSig.parse(decode_base64(possession, "the proof of possession"))
    if proof.key != who.statement.public_key:
        raise BadSignature("the proof of possession is not by the key to certify", "Sign the statement with that key as well")
    proof.verify(text.encode())
    return Asked(who.person, who.key, who.statement, text, signature, address, who.touched, possession)


def said(body: bytes, address: str | None, policy: Policy, origin: str, now: int) -> Said:
    """What a person did about a request or a person, in the body of a POST. Raises what `identify` raises."""
    text, signature = _texts(body, "statement", "signature")
    who = identify(text, SshSig.parse(decode_base64(signature, "the signature")), policy, origin, now)
    if isinstance(who.statement, RequestStatement | CertificateStatement | ReadStatement):
        raise Malformed("the statement does nothing here", "Send it where its action belongs")
    return Said(who.person, who.key, who.statement, text, signature, address, who.touched)


def reader(authorization: str | None, path: str, address: str | None, policy: Policy, origin: str, now: int) -> Said:
    """The person who signed the reading of `path` (with its query), and their words. Raises what `identify` raises."""
    if authorization is None or not authorization.startswith(_SCHEME):
        raise Unsigned("reading this needs a signed statement", "Send Authorization: JIT-SSH <statement>.<signature>")
    text, _, signature = authorization.removeprefix(_SCHEME).partition(".")
    words, blob = _unpacked(text).decode(errors="replace"), _unpacked(signature)
    who = identify(words, SshSig.parse(blob), policy, origin, now)
    if not isinstance(who.statement, ReadStatement) or who.statement.path != path:
        raise BadSignature("the statement was signed for reading something else", f"Sign a read statement for {path}")
    return Said(who.person, who.key, who.statement, words, b64encode(blob).decode(), address, who.touched)


def _texts(body: bytes, *names: str) -> list[str]:
    members = canonical.parse_object(body, "the request body")
    if members.keys() != set(names) or not all(isinstance(value, str) for value in members.values()):
        raise Malformed(f"the request body has exactly the texts {', '.join(names)}")
    return [members[name] for name in names]


def _unpacked(text: str) -> bytes:
    padded = text.translate(_FROM_BASE64URL) + "=" * (-len(text) % 4)
    return decode_base64(padded, "the authorization")
