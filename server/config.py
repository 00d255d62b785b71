"""`ca.toml`: how one CA is run. Every key, its default and what somebody who controls it could do: CONFIG.md."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from ca import names, policy_files
from ca.cosignature import Quorum, WitnessKey
from ca.errors import Malformed, Misconfigured
from ca.fields import Line, Table, checked_name
from ca.oncall import Address
from server.listening import Listen

NAME: Final = "ca.toml"
Origin = Annotated[str, checked_name(names.ORIGIN, "origin", "ca.example.com/jit-ssh")]


def _witness_key(text: str) -> str:
    try:
        WitnessKey.parse(text)
    except Malformed as error:
        raise ValueError(f"{error.message}: write the line that its operator got from jit-ssh-ca witness init") from error
    return text


def _prefix(text: str) -> str:
    if "?" in text or "#" in text:
        raise ValueError("the address that /add-checkpoint is appended to: without ? and #")
    return text


class WitnessSettings(Table):
    """One witness of the log: where it is asked, and what it signs with."""

    url: Annotated[Address, AfterValidator(_prefix)]
    key: Annotated[Line, AfterValidator(_witness_key)]

    @property
    def witness(self) -> WitnessKey:
        """The key as a value."""
        return WitnessKey.parse(self.key)


class LogSettings(Table):
    """Who watches the log."""

    witnesses: Annotated[tuple[WitnessSettings, ...], Strict(False)] = ()
    require_witnesses: int = 0

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        try:
            Quorum(tuple(each.witness for each in self.witnesses), self.require_witnesses)
        except Misconfigured as error:
            raise ValueError(f"{error.message}: {error.hint}") from error
        return self

    @property
    def quorum(self) -> Quorum:
        """The witnesses, and how many of them have to have seen what is issued."""
        return Quorum(tuple(each.witness for each in self.witnesses), self.require_witnesses)


class Config(Table):
    """What `ca.toml` may say. Paths are relative to the CA's directory."""

    origin: Origin
    ca_key: Line = "file:keys/ca"
    log_key: Line = "file:keys/log"
    database: Line = "jit-ssh.db"
    policies: Line = "policies"
    listen: Line = "127.0.0.1:8022"
    tls_certificate: Line | None = None
    tls_key: Line | None = None
    behind_proxy: bool = False
    threads: Annotated[int, Field(ge=1, le=256)] = 16
    statements_per_minute: Annotated[int, Field(ge=1, le=10**9)] = 300
    reserve: Annotated[int, Field(ge=0, le=10**9)] = 64
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _encrypted_or_private(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        private = _listen(self.listen).is_private
        if self.tls_certificate is None and not self.behind_proxy and not private:
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines without encryption: set tls_certificate and tls_key, "
                "or listen on 127.0.0.1, or set behind_proxy = true if only a TLS proxy reaches it"
            )
        return self


def _listen(text: str) -> Listen:
    try:
        return Listen.parse(text)
    except Misconfigured as error:
        raise ValueError(f"listen: {error.message}: {error.hint}") from error


def load(directory: Path) -> Config:
    """Reads `ca.toml` in the CA's directory. Raises `Misconfigured` with every problem."""
    path = directory / NAME
    try:
        table = policy_files.parse(path.read_bytes())
        config, problems = policy_files.validate(Config, table, {})
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", "Make a CA with jit-ssh-ca init DIR") from error
    except ValueError as error:
        config, problems = None, [str(error)]
    if config is None:
        lines = tuple(f"{path}: {problem}" for problem in problems)
        raise Misconfigured(f"{path} has {len(lines)} problem{'s'[: len(lines) != 1]}", "See server/CONFIG.md", lines)
    return config


def listening(settings: Config, listen: str | None) -> Config:
    """The same settings with another address to listen on, under the same rules. Raises `Misconfigured`."""
    if listen is None:
        return settings
    changed, problems = policy_files.validate(Config, settings.model_dump() | {"listen": listen}, {})
    if changed is None:
        raise Misconfigured("; ".join(problems))
    return changed
