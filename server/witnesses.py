"""The witnesses of a CA's log: asked in rounds, by a thread each, so that none makes another or the log wait.

A round is one checkpoint for all of them, the newest when the round begins; whoever commits meanwhile is cosigned with the next.
So cosignatures are of the same checkpoint, and one round serves all who wait. A crash at any moment loses nothing: what was
logged and not cosigned is asked for again.

The rule here: a witness can attach its cosignature, or stop the CA by having seen another history, and nothing else.
"""

import logging
import time
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Final

from ca.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from ca.cosignature import Cosignature, WitnessKey, attach
from ca.errors import JitSshError, LogDamaged, Misconfigured, NotWitnessed
from ca.log import Reading
from ca.witness import AnotherHistory
from server.config import LogSettings
from server.cosigned import Cosigned
from server.witness_client import Outrun, RemoteWitness

PACE: Final = 1.0  # seconds between two looks at the log when nobody waits
RETRY: Final = 5.0  # seconds before a witness that did not cosign is asked for the same checkpoint again
PATIENCE: Final = 8.0  # seconds that somebody waits for the cosignatures that are required; clients wait for 15
_HINT: Final = (
    "Restore the newest copy of the database: what was issued since is missing here. If it is the witness that is wrong, take it "
    "out of log.witnesses; then start again"
)
_log = logging.getLogger("jit-ssh.witnesses")


@dataclass
class _Round:
    number: int
    note: str
    checkpoint: Checkpoint
    got: dict[WitnessKey, Cosignature]
    failed: dict[WitnessKey, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    outrun: bool = False


class Witnesses:
    """Everybody who watches the log of `store`. Safe to use from many threads."""

    def __init__(self, store: Reading, key: VerifierKey, settings: LogSettings, memory: Cosigned) -> None:
        """`key` is the log's. Raises `Misconfigured` when it is one of the witnesses' as well."""
        if any(each.witness.public_key == key.public_key for each in settings.witnesses):
            raise Misconfigured("log.witnesses has the log's own key", "Name witnesses that others run")
        self._store = store
        self._key = key
        self._quorum = settings.quorum
        self._memory = memory
        self._remotes = [RemoteWitness(each.url, each.witness, memory.largest(each.witness)) for each in settings.witnesses]
        self._changed = Condition()  # owns all that follows
        self._closed = False
        self._round: _Round | None = None
        self._lost: _Round | None = None  # the newest that ended without those required
        self._best: _Round | None = None  # the newest that did not; late cosignatures still come in
        self._wanted = 0  # the largest size that somebody waits for
        self._alarms: dict[WitnessKey, str] = {}
        self._silent: dict[WitnessKey, str] = {}  # what was said in the server's log

    def start(self) -> None:
        """Begins to ask, and returns when each witness has answered, or has not for as long as it may take.

        Raises `LogDamaged` when one of them has seen another history, now or when it last answered.
        """
        self._alarms = {each: alarm for each in self._quorum.witnesses if (alarm := self._memory.alarmed(each)) is not None}
        for remote in self._remotes:
            Thread(target=self._ask_always, args=(remote,), name=f"witness {remote.key.name}", daemon=True).start()
        with self._changed:
            first = self._begin()
            self._changed.wait_for(lambda: len(first.got) + len(first.failed) == len(self._remotes), PATIENCE)
            for witness in first.got:  # it cosigned this log: what it saw was this one, or this has been mended since
                self._alarms.pop(witness, None)
            self._alarms |= self._forgotten(first.checkpoint.size)
            self._end(first)
        if self._alarms:
            self.close()
        self.demand_one_history()
        Thread(target=self._lead, name="witnesses", daemon=True).start()

    def _forgotten(self, have: int) -> dict[WitnessKey, str]:
        """The alarms of witnesses that cosigned more than there is, whatever they say now."""
        seen = {witness: self._memory.largest(witness) for witness in self._quorum.witnesses}
        why = "has cosigned {} entries of this log, which has {}"
        return {each: _sentence(each, why.format(largest, have)) for each, largest in seen.items() if largest > have}

    def close(self) -> None:
        """Lets go whoever waits; nobody is asked any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._memory.flush()

    # ------------------------------------------------------------- for the log

    @property
    def required(self) -> bool:
        """Whether somebody has to wait for them."""
        return bool(self._quorum.required)

    def demand_one_history(self) -> None:
        """Raises `LogDamaged` when a witness has seen more of this log than there is, or another one; until a new start."""
        if self._alarms:
            raise LogDamaged("; ".join(list(self._alarms.values())), _HINT)

    def cosigned(self, size: int) -> str | None:
        """The note over at least `size` entries with the cosignatures required. Raises `NotWitnessed`, `LogDamaged`."""
        if not self._quorum.required:
            return None
        end = time.monotonic() + PATIENCE
        with self._changed:
            came = self._round.number if self._round else 0
            while True:
                self.demand_one_history()
                if self._best and self._best.checkpoint.size >= size:
                    return self._cosigned(self._best)
                if self._lost and self._lost.number > came:  # it began after that was committed which is waited for
                    raise self._too_few(self._lost)
                if self._wanted < size:
                    self._wanted = size
                    self._changed.notify_all()
                if self._closed or not self._changed.wait(max(0, end - time.monotonic())):
                    raise self._too_few(self._round)

    def published(self) -> str | None:
        """The newest note with the cosignatures that it has; where some are required, the newest that has them."""
        newest = self._store.checkpoint()
        with self._changed:
            if self._quorum.required and self._best:
                return self._cosigned(self._best)
            if self._round and self._round.note == newest:
                return self._cosigned(self._round)
        return newest

    def _too_few(self, lost: _Round | None) -> NotWitnessed:
        silent = [f"{witness.name} {why}" for witness, why in (lost.failed if lost else {}).items()]
        return NotWitnessed(
            f"{self._quorum.required} witnesses have to cosign before a certificate leaves the CA: "
            + ("; ".join(silent) or "they did not answer in time"),
            "What was asked is in the log. Ask again: the same request gets its certificate when the witnesses answer",
        )

    # ---------------------------------------------------------------- rounds

    def _lead(self) -> None:
        """Begins a round whenever somebody waits for one, and else when the log has grown or a witness is missing."""
        while not self._closed:
            try:
                with self._changed:
                    self._changed.wait_for(self._is_wanted, PACE)
                    if self._is_due():
                        self._lead_round()
            except JitSshError as error:  # of the store: who appends is told by the log itself
                _log.error("the witnesses cannot be asked: %s", error.message)
                time.sleep(PACE)

    def _is_due(self) -> bool:
        if self._closed or self._alarms:
            return False
        last = self._round
        if last is None or self._is_wanted() or last.note != self._store.checkpoint():
            return True
        return bool(last.failed) and time.monotonic() >= last.began + RETRY

    def _lead_round(self) -> None:
        round_ = self._begin()
        self._changed.wait_for(lambda: self._closed or bool(self._alarms) or self._is_decided(round_))
        self._end(round_)

    def _is_wanted(self) -> bool:
        return not self._alarms and self._wanted > (self._best.checkpoint.size if self._best else 0)

    def _begin(self) -> _Round:
        note = self._store.checkpoint() or ""
        before = self._round
        got = dict(before.got) if before and before.note == note else {}
        number = before.number + 1 if before else 1
        self._round = _Round(number, note, open_checkpoint(note, self._key), got)
        self._changed.notify_all()
        return self._round

    def _is_decided(self, round_: _Round) -> bool:
        """Whether more answers would change nothing for who waits."""
        required, left = self._quorum.required, len(self._remotes) - len(round_.got) - len(round_.failed)
        enough = bool(required) and len(round_.got) >= required
        return round_.outrun or enough or left == 0 or len(round_.got) + left < required

    def _end(self, round_: _Round) -> None:
        if len(round_.got) >= self._quorum.required:
            self._best = round_
        elif not round_.outrun:
            self._lost, self._wanted = round_, 0  # who came during it says again what they want
        self._changed.notify_all()

    def _cosigned(self, round_: _Round) -> str:
        return attach(round_.note, [round_.got[witness] for witness in self._quorum.witnesses if witness in round_.got])

    # --------------------------------------------------------- one of the witnesses

    def _ask_always(self, remote: RemoteWitness) -> None:
        round_ = self._next(0, remote.key)
        while round_ is not None:
            self._ask(remote, round_)
            round_ = self._next(round_.number, remote.key)
        remote.close()

    def _next(self, done: int, witness: WitnessKey) -> _Round | None:
        """The round to ask the witness in, when there is a new one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_new(done, witness))
            return None if self._closed else self._round

    def _is_new(self, done: int, witness: WitnessKey) -> bool:
        return self._round is not None and self._round.number > done and witness not in self._round.got

    def _ask(self, remote: RemoteWitness, round_: _Round) -> None:
        try:
            cosignature = remote.cosign(round_.note, round_.checkpoint, self._store.node, self._store.size)
        except Outrun:
            with self._changed:
                round_.outrun = True
                round_.failed[remote.key] = "has cosigned a newer checkpoint meanwhile"
                self._changed.notify_all()
        except AnotherHistory as error:
            self._stop_issuing(remote.key, round_, error.message)
        except JitSshError as error:  # of the witness, or of a store that cannot be read: no cosignature by this one
            self._failed(remote.key, round_, error.message)
        except Exception:
            _log.exception("asking the witness %s failed", remote.key.name)
            self._failed(remote.key, round_, "could not be asked")
        else:
            self._memory.keep(round_.checkpoint.size, cosignature)
            with self._changed:
                round_.got[remote.key] = cosignature
                if self._silent.pop(remote.key, None):
                    _log.info("the witness %s cosigns again", remote.key.name)
                self._changed.notify_all()

    def _failed(self, witness: WitnessKey, round_: _Round, why: str) -> None:
        with self._changed:
            round_.failed[witness] = why
            if self._silent.get(witness) != why:
                self._silent[witness] = why
                _log.warning("the witness %s %s", witness.name, why)
            self._changed.notify_all()

    def _stop_issuing(self, witness: WitnessKey, round_: _Round, why: str) -> None:
        sentence = _sentence(witness, why)
        self._memory.alarm(round_.checkpoint.size, witness, sentence)
        _log.error("nothing is issued any more: %s; the checkpoint here is %s", sentence, round_.note)
        with self._changed:
            self._alarms[witness] = sentence
            round_.failed[witness] = why
            self._changed.notify_all()


def _sentence(witness: WitnessKey, why: str) -> str:
    return f"the witness {witness.name} {why}: this is an old copy, or there is a second history"
