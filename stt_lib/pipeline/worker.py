"""One sequence from claim to mark: claim, load, post, filter, save, mark.

Whatever happens on the way, every chunk of the claim ends up marked, failed or given back.
"""

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Hashable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime

from stt_lib import filtering
from stt_lib.config.settings import Settings
from stt_lib.domain import backoff
from stt_lib.domain.bisection import Heard, Unusable, salvage
from stt_lib.domain.models import (
    Answer,
    Chunk,
    ChunkSequence,
    Claim,
    Failure,
    Outcome,
    Problem,
    Revision,
    Transcript,
    consecutive_runs,
    identity,
)
from stt_lib.domain.sequences import duplicate_index
from stt_lib.errors import (
    AttemptError,
    AudioRejected,
    ClaimLost,
    FailureKind,
    ServerBusy,
    ServerTrouble,
    Stopped,
    StoreUnavailable,
    SttError,
    Suspect,
    Unavailable,
)
from stt_lib.pipeline.context import Neighbours
from stt_lib.pipeline.heartbeat import Leases, moment
from stt_lib.pipeline.sinks import Ledger
from stt_lib.servers.health import Server
from stt_lib.servers.pool import ServerPool
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")

MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Result:
    """How a sequence ended; `seconds` from the first request to the last write."""

    sequence: ChunkSequence
    outcome: Outcome
    seconds: float


class Worker:
    """Processes sequences; one object serves all threads."""

    def __init__(
        self,
        ledger: Ledger,
        pool: ServerPool,
        leases: Leases,
        settings: Settings,
        stop: threading.Event,
        since: datetime | None = None,
    ) -> None:
        """`since` is the start of the run by the database's clock.

        Raises:
            ConfigurationError: the person's file of phrases cannot be used.
        """
        self.ledger = ledger
        self.pool = pool
        self.leases = leases
        self.settings = settings
        self.stop = stop
        self.since = since
        self.stats = pool.stats
        self.rng = random.Random()  # noqa: S311 - jitter, not cryptography
        self.filter = filtering.policy(settings.filter, settings.filter_phrases)
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def process(self, sequence: ChunkSequence, ticket: int) -> Result:
        """Process a sequence whose ticket stands in the pool's line.

        Raises:
            Stopped: a stop was asked for before the end; nothing is lost, nothing held.
            Unavailable: MongoDB or all STT servers are away.
        """
        try:
            token = f"{self._name}/{uuid.uuid4().hex}"
            taken = moment()
            claim = self.ledger.claim(sequence, token, since=self.since)
            if claim is None:
                log.debug("Skipped a sequence: another worker has it", extra=Event.SKIPPED.of())
                return Result(sequence, Outcome.SKIPPED, 0.0)
            with self.leases.hold(claim, taken):
                return _Job(self, sequence, claim, ticket).run()
        finally:
            self.pool.step_out(ticket)


class _Job:
    """The work on one claim."""

    def __init__(self, worker: Worker, sequence: ChunkSequence, claim: Claim, ticket: int) -> None:
        self._worker = worker
        self._ledger = worker.ledger
        self._settings = worker.settings
        self._sequence = sequence
        self._claim = claim
        self._ticket = ticket
        self._neighbours = Neighbours(worker.ledger, claim)
        self._open = {identity(chunk.id): chunk for chunk in claim.chunks}
        self._outcomes: set[Outcome] = set()
        self._started: float | None = None
        self._is_announced = False

    def run(self) -> Result:
        try:
            self._fail_unusable()
            self._mark_owned(self._claim.owned)
            for run in self._runs():
                self._transcribe(run)
        except ClaimLost as lost:
            return self._skipped(lost)
        except AttemptError as error:
            self._excuse_rest(error)
        except StoreUnavailable:
            raise  # nor can the claim be given back: it will expire
        except (Stopped, Unavailable):
            self._give_back()
            raise
        except Exception as error:  # noqa: BLE001 - a defect must not stop the other sequences
            self._blame_rest(error)
        return self._finished()

    # -- before the request -------------------------------------------------------------------

    def _fail_unusable(self) -> None:
        """Chunks that cannot be posted fail alone, before any request."""
        for chunk in self._claim.chunks:
            problem = self._sequence.problem or chunk.problem or self._twin_of(chunk)
            if problem is not None:
                self._blame(chunk, AttemptError(problem.kind, problem.message))

    def _twin_of(self, chunk: Chunk) -> Problem | None:
        """A chunk once known as a duplicate stays one after its twin was transcribed."""
        if chunk.was_duplicate and self._ledger.has_transcribed_twin(self._claim, chunk):
            return duplicate_index(chunk.index)
        return None

    def _mark_owned(self, owned: Set[Hashable]) -> None:
        """What a saved transcript owns already was not marked because somebody crashed."""
        chunks = [self._open[i] for i in owned & self._open.keys()]
        if chunks:
            self._settle(chunks, Outcome.TRANSCRIBED)

    # -- the request --------------------------------------------------------------------------

    def _runs(self) -> Iterable[tuple[Chunk, ...]]:
        """What is to be posted together."""
        chunks = tuple(self._open.values())
        if chunks and not self._ledger.is_divisible:
            return [chunks]
        return self._neighbours.runs(chunks)

    def _transcribe(self, run: tuple[Chunk, ...]) -> None:
        heard = self._heard_in_context(run)
        if heard is None and not self._ledger.is_divisible:
            heard = Heard(run, self._post(run, run, is_search=False), run)
        if heard is not None:
            self._save(heard)
            return
        for part in consecutive_runs(run):
            self._salvage(part)

    def _heard_in_context(self, run: tuple[Chunk, ...]) -> Heard | None:
        """Post chunks with their neighbours; None without any, or if the server does not take it.

        Then the chunks have to be tried alone before anything is said against them.
        """
        audio = self._neighbours.with_context(run)
        if len(audio) == len(run):
            return None
        try:
            return Heard(run, self._post(audio, run, is_search=False), audio)
        except (AudioRejected, Suspect) as error:
            logs.retrying(self._sequence, 1, error)
            return None

    def _salvage(self, run: tuple[Chunk, ...]) -> None:
        def post(chunks: Sequence[Chunk]) -> Answer:
            return self._post(chunks, chunks, is_search=len(chunks) < len(run))

        for piece in salvage(run, post):
            match piece:
                case Heard():
                    self._save(piece)
                case Unusable():
                    self._blame(piece.chunk, piece.error)

    def _post(self, audio: Sequence[Chunk], chunks: Sequence[Chunk], *, is_search: bool) -> Answer:
        """Post the audio, in which the given chunks are ours.

        Until there is an answer, a verdict on the audio, or no attempt left.

        Trouble of the server or the network costs one of `retries`; a busy server costs none.
        A suspicion against whole audio gets one more attempt, elsewhere if possible, so that
        a stray error does not start a search.
        """
        avoid: Server | None = None
        failures = suspicions = 0
        seconds = sum(chunk.seconds for chunk in audio)
        while True:
            with self._worker.pool.slot(self._ticket, audio=seconds, avoid=avoid) as slot:
                self._started = self._started or time.monotonic()
                avoid = slot.server
                try:
                    # What is logged before the request would keep the server waiting for it.
                    return self._worker.pool.transcribe(slot, audio, self._announce)
                except ServerBusy:
                    continue
                except ServerTrouble as error:
                    failures += 1
                    if failures > self._settings.retries:
                        raise
                    if slot.server.serves:  # else the pool has told already
                        self._announce()
                        logs.retrying(self._sequence, failures, error)
                except Suspect as error:
                    suspicions += 1
                    if is_search or suspicions > 1:
                        raise
                    logs.retrying(self._sequence, suspicions, error)
            self._worker.stats.retried(slot.server.name)
            if failures + suspicions > 1 or not self._worker.pool.serves_besides(avoid):
                self._wait(failures + suspicions)
            # While we waited, or were frozen, the chunks may have become somebody else's task.
            self._ledger.renew([chunk.id for chunk in chunks], self._claim.token)

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            logs.processing(self._sequence)

    def _wait(self, failures: int) -> None:
        base, cap = self._settings.backoff_base, self._settings.backoff_max
        if self._worker.stop.wait(backoff.delay(failures, base, cap, self._worker.rng)):
            raise Stopped

    # -- after the request --------------------------------------------------------------------

    def _save(self, heard: Heard) -> None:
        began = time.monotonic()
        around = filtering.Surroundings.of(heard.answer, heard.audio)
        verdict = filtering.judge(heard.answer.segments, around, self._worker.filter)
        ids = [chunk.id for chunk in heard.chunks]
        # A claim that was lost while we were frozen or cut off must not become a transcript.
        if not self._worker.leases.is_fresh(self._claim.token):
            self._ledger.renew(ids, self._claim.token)
        own = self._neighbours.own(heard, verdict)
        name, filtered = self._ledger.name(self._claim), self._settings.filter
        transcript = _transcript(name, self._claim, heard, own, filtered)
        if own.kept:
            if not self._ledger.save(transcript):
                self._mark_owned(self._ledger.owned(self._claim.original_id, ids))
                raise ClaimLost("another worker has saved a transcript of these chunks")
            self._settle(heard.chunks, Outcome.TRANSCRIBED)
        else:
            self._settle(heard.chunks, Outcome.EMPTY, unsaved=transcript)
        self._worker.stats.saved(time.monotonic() - began)

    def _settle(
        self, chunks: Sequence[Chunk], outcome: Outcome, *, unsaved: Transcript | None = None
    ) -> None:
        ids = [chunk.id for chunk in chunks]
        self._ledger.mark(ids, self._claim.token, unsaved=unsaved)
        self._close(chunks, outcome)

    def _close(self, chunks: Sequence[Chunk], outcome: Outcome) -> None:
        self._outcomes.add(outcome)
        audio = sum(chunk.seconds for chunk in chunks)
        self._worker.stats.settled(outcome, len(chunks), audio)
        for chunk in chunks:
            self._open.pop(identity(chunk.id), None)
        self._worker.leases.settle(self._claim.token, [chunk.id for chunk in chunks])

    # -- when it fails ------------------------------------------------------------------------

    def _blame(self, chunk: Chunk, error: AttemptError) -> None:
        self._log_failure(error, chunk)
        self._ledger.blame(
            chunk.id,
            self._claim.token,
            _failure(error),
            due_in=backoff.later_run_delay(chunk.failures + 1, self._worker.rng),
            max_failures=self._settings.max_failures,
        )
        self._close([chunk], Outcome.ERROR)

    def _excuse_rest(self, error: AttemptError) -> None:
        self._log_failure(error)
        chunks = list(self._open.values())
        self._ledger.excuse(
            [chunk.id for chunk in chunks],
            self._claim.token,
            _failure(error),
            due_in=self._delay_after_excuses(max(chunk.excuses for chunk in chunks) + 1),
        )
        self._close(chunks, Outcome.ERROR)

    def _delay_after_excuses(self, excuses: int) -> float:
        """None at first, for the server is to blame, and the next run some way off.

        But audio that fails in run after run while other audio is transcribed must not take
        a place in every run for ever.
        """
        beyond = excuses - self._settings.max_failures
        if beyond >= 0:
            return backoff.later_run_delay(beyond + 1, self._worker.rng)
        is_last_run = self._settings.watch is not None
        return backoff.same_run_delay(excuses, self._worker.rng) if is_last_run else 0.0

    def _blame_rest(self, defect: Exception) -> None:
        """A defect of ours, or a refusal of MongoDB: count it, or it would be tried for ever."""
        error = AttemptError(FailureKind.INTERNAL, f"internal error: {type(defect).__name__}")
        error.__cause__ = defect
        for chunk in list(self._open.values()):
            self._blame(chunk, error)

    def _give_back(self) -> None:
        ids = [chunk.id for chunk in self._open.values()]
        if ids:
            try:
                self._ledger.release(ids, self._claim.token)
            except SttError as error:
                log.warning(
                    "A claim could not be given back and will expire: %s",
                    error,
                    extra=Event.CLAIM_TROUBLE.of(),
                )

    def _skipped(self, lost: ClaimLost) -> Result:
        logs.skipped(self._sequence, f"result dropped: {lost}")
        self._give_back()
        return Result(self._sequence, Outcome.SKIPPED, self._seconds())

    def _log_failure(self, error: AttemptError, culprit: Chunk | None = None) -> None:
        self._announce()
        chunk_id = None if culprit is None else culprit.id
        logs.failed(self._sequence, self._seconds(), error, chunk_id)
        self._worker.stats.blamed(error.kind)

    # -- the end ------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _finished(self) -> Result:
        ranked = (Outcome.ERROR, Outcome.TRANSCRIBED, Outcome.EMPTY)
        outcome = next(o for o in ranked if o in self._outcomes)
        self._announce()
        if outcome is not Outcome.ERROR:
            logs.completed(self._sequence, self._seconds(), outcome)
        return Result(self._sequence, outcome, self._seconds())


def _transcript(
    name: Revision, claim: Claim, heard: Heard, verdict: filtering.Verdict, filtered: str
) -> Transcript:
    answer = heard.answer
    timeline = heard.timeline
    placed = timeline.place(dropped.segment for dropped in verdict.dropped)
    return Transcript(
        id=name.transcript_id,
        revision=name.number,
        original_id=claim.original_id,
        start=heard.chunks[0].start,
        end=heard.chunks[-1].end,
        chunk_ids=tuple(chunk.id for chunk in heard.chunks),
        segments=tuple(timeline.place(verdict.kept)),
        language=answer.language,
        top_language_probs=answer.top_language_probs,
        model=answer.model,
        server=answer.server,
        protocol=answer.protocol,
        parameters={**answer.parameters, "filter": filtered},
        dropped=tuple(
            replace(dropped, segment=segment)
            for dropped, segment in zip(verdict.dropped, placed, strict=True)
        ),
    )


def _failure(error: AttemptError) -> Failure:
    return Failure(error.kind, str(error)[:MAX_MESSAGE], error.server)
