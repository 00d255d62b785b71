"""Everything that can go wrong here, in the words of the product: no HTTP status, no exit code.

One class is one situation. `server.problems` gives each its status, `cli.main` its exit code; `code` is the
stable name that both print. The message says what was attempted and what is wrong, the hint what to do.
"""

from errno import EBADF, EDQUOT, EIO, ENOSPC
from typing import ClassVar


class JitSshError(Exception):
    """The root of this product's errors; catch it only at a door."""

    code: ClassVar[str]

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Malformed(JitSshError):
    """Bytes that are not what their format says. Every parser raises this and nothing else."""

    code = "malformed"


class Unsigned(JitSshError):
    """Something that a person has to sign came without a signature."""

    code = "unsigned"


class BadSignature(JitSshError):
    """A signature that does not fit its key, message or namespace."""

    code = "bad-signature"


class UnknownSigner(JitSshError):
    """A signature by a key that the policy gives to nobody."""

    code = "unknown-signer"


class RevokedKey(JitSshError):
    """A key that `people.toml` lists as revoked."""

    code = "revoked-key"


class NotTouched(JitSshError):
    """A security key signed without its user-presence flag."""

    code = "not-touched"


class WrongAudience(JitSshError):
    """A statement made for another log."""

    code = "wrong-audience"


class Stale(JitSshError):
    """A statement too far from the CA's clock."""

    code = "stale"


class Replayed(JitSshError):
    """Another statement with the id of one that is in the log."""

    code = "replayed"


class Forbidden(JitSshError):
    """A person asked to read what is not theirs to read."""

    code = "forbidden"


class TooMany(JitSshError):
    """A person signed more statements than the CA takes of one; after `retry_after` seconds it takes the next."""

    code = "too-many"

    def __init__(self, message: str, hint: str = "", retry_after: int = 60) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class NotFound(JitSshError):
    """The thing named is not there."""

    code = "not-found"


class ClockWentBack(JitSshError):
    """The clock is before the newest entry: issuing stops until it is right again."""

    code = "clock-went-back"


class ClockJumped(JitSshError):
    """The clock leapt ahead: an entry of that time would stop issuing until then, so none is written."""

    code = "clock-jumped"


class LogUnwritable(JitSshError):
    """An entry could not be made durable: nothing was issued."""

    code = "log-unwritable"


class LogDamaged(JitSshError):
    """The log is not the one that was signed: cut, rewritten, or an old copy."""

    code = "log-damaged"


class NotWitnessed(JitSshError):
    """Too few witnesses have cosigned a checkpoint: what it proves is not believed, or not issued, yet."""

    code = "not-witnessed"


class SignerFailed(JitSshError):
    """The CA or log key could not be used, or made a signature that does not verify."""

    code = "signer-failed"


class Misconfigured(JitSshError):
    """`ca.toml`, a key file or a policy file is wrong; `problems` has every finding, one line each."""

    code = "misconfigured"

    def __init__(self, message: str, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


def of_system(error: OSError) -> tuple[str, str]:
    """Message and hint for an error of the system that ends a command: one that names no file is of what was printed."""
    if error.filename is None and error.errno in (EBADF, EDQUOT, EIO, ENOSPC):
        return f"the output cannot be written: {error.strerror}", "What was done before is done. Look where the output goes"
    return str(error), ""
