"""Why the kit goes no further: nothing is handed out."""

from ca.errors import JitSshError


class Stop(JitSshError):
    """What was attempted cannot or may not be done; the message says why, the hint what to do."""

    code = "break-glass"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.noted = False  # whether the journal has it
