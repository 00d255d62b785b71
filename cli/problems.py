"""What can go wrong between this machine and a CA, in addition to `ca.errors`. `cli.main` gives each its exit code."""

from collections.abc import Mapping, Sequence
from typing import Any

from ca.errors import JitSshError


class Unreachable(JitSshError):
    """The CA did not answer, or something else did."""

    code = "ca-unreachable"


class AnswerLost(Unreachable):
    """The CA may have received the request, but its answer did not arrive."""

    code = "answer-lost"


class Denied(JitSshError):
    """The CA said no: `considered` are lines on how near each way was, `entry` is the refusal's index in the log.

    `told` is what `--json` says of it: the CA's problem, and what can be had `instead`.
    """

    code = "denied"

    def __init__(
        self,
        message: str,
        hint: str = "",
        considered: Sequence[str] = (),
        entry: int | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.considered = considered
        self.entry = entry
        self.told = told


class Ended(JitSshError):
    """The request is over: withdrawn, ended, given back or revoked."""

    code = "request-ended"


class WrongCase(JitSshError):
    """The CA shows a request otherwise than the log has it: nothing was signed."""

    code = "wrong-case"


class WrongCertificate(JitSshError):
    """The CA issued something else than it was asked for: nothing of it was installed."""

    code = "wrong-certificate"


class SplitView(JitSshError):
    """The CA shows a log that does not continue the one that this machine saw before."""

    code = "split-view"
