"""`break-glass`: from a reason and the officers' shares to a certificate, with nothing but Python and OpenSSH.

Order of effects, and what is left if the machine stops after each:
  1 what is asked is checked against what was sealed; the CA is asked whether it is down    nothing, or a `refused` line
  2 the officers type their shares; the key is rebuilt into an agent of our own             nothing
  3 `open` is signed with it and made durable                                               a line: the quorum met
  4 for each certificate: its line is made durable, then it is signed and checked           a line without a certificate
  5 in a drill, ssh gets in with it; `close`; the agent ends                                certificates that nobody has
  6 the certificates are written beside the keys
"""

import argparse
import platform
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import get_data
from typing import Final, NoReturn

from breakglass import drill, options, outage, slip39
from breakglass.hiding import hide
from breakglass.keygen import EmergencyKey, in_hardware, rebuilt
from breakglass.record import Journal
from breakglass.stop import Stop
from breakglass.terminal import ask, need_terminal, say
from breakglass.wanted import Named, Wanted, check, read_key
from ca.errors import JitSshError
from ca.journal import FIRST_SERIAL, Close, Drill, Drilled, Open, Refused, Use
from ca.kit import Facts
from ca.names import LINE

VERSION: Final = "0.1.0"
_BACKDATE: Final = 300  # seconds: in an outage clocks may drift
_OLD: Final = 400 * 86_400  # seconds after which a kit, or the clock, is probably not the right one

_LONGEST_PLACE: Final = 70  # of the 103 bytes that a socket's name may have on a Mac


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the kit; its exit code: 0 done, 1 refused or failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    facts = Facts.parse(get_data("breakglass", "facts.json") or b"")
    asked = options.parse(arguments, facts, _moment(facts.made))
    try:
        _need_programs()
        for sentence in hide():
            say(f"break-glass: warning: {sentence}")
        need_terminal()
        journal = Journal(asked.journal or Path.home() / f"break-glass-{facts.digest[:8]}.jsonl", facts, secrets.token_hex(16))
        with tempfile.TemporaryDirectory(prefix="glass", dir=_short()) as private:
            _Run(asked, facts, journal, Path(private)).go()
    except JitSshError as error:
        say(f"break-glass: error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return 1
    return 0


def _short() -> str:
    """Where temporary files go; the agent's socket in there must have a short name."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < _LONGEST_PLACE else "/tmp"  # noqa: S108 - what is made in there is a directory of our own


def _need_programs() -> None:
    for name in ("ssh", "ssh-agent", "ssh-keygen"):
        if shutil.which(name) is None:
            raise Stop(f"{name} is not on this machine", "Install OpenSSH's client programs, or use another laptop")


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class _Run:
    """One run: what was asked of which kit, and where it is written down. `private` is a directory of this run alone."""

    asked: argparse.Namespace
    facts: Facts
    journal: Journal
    private: Path

    def go(self) -> None:
        """All of it. Raises `Stop`."""
        with self._recorded():
            wanted, target = self._wanted()
            forced = self._check_outage()
            self._confirm(wanted)
            with self._emergency_key() as (key, shares):
                self._open(key, shares, forced)
                with self._recorded(key):
                    certificates = self._session(wanted, target, key)
        self._hand_out(wanted, certificates)

    @contextmanager
    def _recorded(self, key: EmergencyKey | None = None) -> Iterator[None]:
        """Whatever stops the run inside is a line of the journal, signed once the key has opened the session."""
        try:
            yield
        except (JitSshError, KeyboardInterrupt, EOFError, OSError, subprocess.SubprocessError) as error:
            stop = _stop(error)
            if not stop.noted:
                attempted = f"{', '.join(self.asked.person)} on {', '.join(self.asked.group)}: {self.asked.reason}"
                try:
                    self.journal.write(Refused, key.sign if key else None, attempted=_plain(attempted), why=_plain(stop.message))
                except JitSshError as other:
                    say(f"break-glass: warning: this is in no journal: {other.message}")
                stop.noted = True
            raise stop from None

    def _wanted(self) -> tuple[Wanted, drill.Target | None]:
        keys = self.asked.key or [drill.make_key(self.private)]
        named = tuple(read_key(person, path) for person, path in zip(self.asked.person, keys, strict=True))
        wanted = check(self.asked, named, self.facts)
        if not self.asked.drill:
            return wanted, None
        if self.asked.at is not None:
            return wanted, drill.canary(self.asked.at)
        return wanted, drill.own_sshd(self.private, self.facts.key, wanted.groups)

    def _check_outage(self) -> str | None:
        """Why to go on although the CA answers, if it does. Raises `Stop`."""
        if self.asked.drill or (url := outage.answering(self.facts.ask)) is None:
            return None
        if self.asked.force is None:
            hint = "Use jit-ssh login. If it cannot help, say why: --force 'REASON'"
            raise Stop(f"the CA at {url} answers: this is not the moment to break the glass", hint)
        if not self.asked.force.strip():
            raise Stop("--force needs a reason", "Say why the CA that answers cannot help")
        forced = _plain(self.asked.force)
        say(f"The CA at {url} answers. You go on because: {forced}")
        return forced

    def _confirm(self, wanted: Wanted) -> None:
        """Nobody else can tell whether the clock is right, and a certificate of a wrong one opens nothing."""
        now = int(time.time())
        if now < self.facts.made:
            when = f"{_moment(now):%Y-%m-%d %H:%M} UTC"
            raise Stop(f"this machine's clock says {when}, which is before the kit was made", "Set it right first")
        if now - self.facts.made > _OLD:
            say(f"This kit is from {_moment(self.facts.made):%Y-%m-%d}. Is there a newer one? Is the clock right?")
        say("DRILL" if self.asked.drill else "EMERGENCY")
        for named in wanted.named:
            say(f"  {named.person} with the key {named.fingerprint}")
        until = f"{_moment(now + wanted.duration):%H:%M} UTC, {wanted.duration // 60} minutes from now"
        say(f"  enters {', '.join(wanted.groups)} until {until}")
        say(f"  because: {wanted.reason}")
        say(f"  This machine's clock says {_moment(now):%Y-%m-%d %H:%M:%S} UTC; compare it with another clock.")
        if ask("Is all of this right? Type yes: ").lower() != "yes":
            raise Stop("you did not say yes", "If the clock is wrong, set it and start again: hosts refuse what is not valid yet")

    @contextmanager
    def _emergency_key(self) -> Iterator[tuple[EmergencyKey, tuple[str, ...]]]:
        """The key while it is needed, and the fingerprints of the shares that made it."""
        if self.facts.shares_id is None:
            yield in_hardware(self.asked.security_key, self.facts.key, self.private), ()
            return
        shares = slip39.gather(self.facts, slip39.unpack(Path(sys.argv[0]).resolve(), self.private))
        fingerprints = shares.fingerprints
        with rebuilt(shares.seed, self.facts.key, self.private) as key:
            shares.forget()
            yield key, fingerprints

    def _open(self, key: EmergencyKey, shares: tuple[str, ...], forced: str | None) -> None:
        host, drilling = _plain(platform.node()), self.asked.drill
        self.journal.write(
            Open, key.sign, kit=self.facts.digest, host=host, version=VERSION, drill=drilling, shares=shares, forced=forced
        )

    def _session(self, wanted: Wanted, target: drill.Target | None, key: EmergencyKey) -> list[str]:
        certificates = [self._certificate(named, wanted, key) for named in wanted.named]
        if target is not None:
            self._drill(target, wanted, certificates[0], key)
        self.journal.write(Close, key.sign, certificates=len(certificates))
        return certificates

    def _certificate(self, named: Named, wanted: Wanted, key: EmergencyKey) -> str:
        """Its line first, then the certificate that the line names."""
        kind: type[Use | Drill] = Drill if self.asked.drill else Use
        now = int(time.time())
        said = self.journal.write(
            kind, key.sign, person=named.person, key=named.key, principals=wanted.principals, reason=wanted.reason,
            serial=FIRST_SERIAL + secrets.randbelow(FIRST_SERIAL), valid_after=now - _BACKDATE,
            valid_before=now + wanted.duration,
        )  # fmt: skip
        return key.certify(said)

    def _drill(self, target: drill.Target, wanted: Wanted, certificate: str, key: EmergencyKey) -> None:
        path = self.private / "drill-cert.pub"
        path.write_text(certificate)
        entered = drill.enters(target, _identity(wanted.named[0].path), path)
        self.journal.write(Drilled, key.sign, target=_plain(target.name), entered=entered)
        if not entered:
            raise Stop(f"ssh did not get into {target.name} with the certificate", "Find out why before you need it")
        say(f"ssh got into {target.name} with the certificate.")

    def _hand_out(self, wanted: Wanted, certificates: Sequence[str]) -> None:
        """From here on there is no key any more. The result is on stdout, all talk beside it."""
        for named, certificate in zip(wanted.named, certificates, strict=True) if not self.asked.drill else ():
            path = _saved(named, certificate)
            say(f"For {named.person}, until {_moment(int(time.time()) + wanted.duration):%H:%M} UTC, {path}; on the host, as:")
            for group in wanted.groups:
                for account in self.facts.hosts[group]:
                    how = ["-o", "IdentitiesOnly=yes", "-o", f"CertificateFile={path}", "-i", str(_identity(named.path))]
                    print(shlex.join(["ssh", *how, f"{account}@HOST"]) + f"    # HOST: any of {group}")
        say(f"Hand in the journal when the CA is back: {self.journal.path}")
        say(f"  jit-ssh-ca break-glass import DIR {shlex.quote(str(self.journal.path))}")


def _identity(public: Path) -> Path:
    """What `ssh -i` gets: the private key beside its public half, or that alone if an agent has the key."""
    private = public.with_suffix("")
    return private.absolute() if public.suffix == ".pub" and private.exists() else public.absolute()


def _saved(named: Named, certificate: str) -> Path:
    """Writes the certificate beside the key; if that cannot be, into the current directory, and else it is shown."""
    name = f"{named.path.name.removesuffix('.pub')}-break-glass-cert.pub"
    for directory in (named.path.absolute().parent, Path.cwd()):
        try:
            with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as file:
                file.write(certificate)
            return Path(file.name).rename(directory / name)
        except OSError:
            continue
    say(f"The certificate can be written nowhere here; put this line into a file {name}:")
    say(certificate)
    return Path(name)


def _stop(error: BaseException) -> Stop:
    match error:
        case Stop():
            return error
        case JitSshError():
            return Stop(error.message, error.hint)
        case KeyboardInterrupt() | EOFError():
            return Stop("given up at the terminal", "Nothing was handed out")
        case OSError():
            return Stop(f"the system refused: {error.strerror} {error.filename or ''}".rstrip(), "Nothing was handed out")
        case _:
            return Stop(f"a program failed: {error}", "Nothing was handed out")


def _plain(text: str) -> str:
    """The text as a journal takes it: what could drive a terminal is replaced, and it is cut at 500 characters."""
    return "".join(character if LINE.fullmatch(character) else "?" for character in text[:500]) or "-"
