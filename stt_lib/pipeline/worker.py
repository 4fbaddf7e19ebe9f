"""One sequence from claim to mark: acquire, load, post, filter, save, mark, release.

Whatever happens on the way, every chunk of a claim ends up marked, failed or released.
"""

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stt_lib import filtering
from stt_lib.config.settings import Settings
from stt_lib.domain import backoff
from stt_lib.domain.bisection import Heard, Unusable, divided, salvage
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
    ConfigurationError,
    FailureKind,
    ServerBusy,
    ServerTrouble,
    Stopped,
    StoreError,
    StoreUnavailable,
    SttError,
    Suspect,
    Unavailable,
)
from stt_lib.pipeline.context import Context
from stt_lib.pipeline.heartbeat import Heartbeat
from stt_lib.pipeline.planner import ends
from stt_lib.pipeline.sinks import Sink
from stt_lib.pipeline.sources import Source
from stt_lib.servers.health import Server
from stt_lib.servers.pool import ServerPool
from stt_lib.store import Store
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.stats import Stats
from stt_lib.timing import REAL, Timing
from stt_lib.timing import Event as StopEvent

log = logging.getLogger("stt")

MAX_MESSAGE = 300
"""Characters of an error's message that are stored."""

TURN_POLL_SECONDS = 0.2
"""Seconds. How often a waiting replacement checks whether its turn has come."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a sequence ended; `seconds` from the first request to the last write.

    `is_refused` when someone else holds one of its chunks. `is_settled` unless it may still be
    pending without a reason that the database knows: then this run must not try it again.
    """

    sequence: ChunkSequence
    outcome: Outcome
    seconds: float = 0.0
    is_refused: bool = False
    is_settled: bool = True


class Worker:
    """Processes sequences; one object serves all threads."""

    def __init__(
        self,
        store: Store,
        source: Source,
        sink: Sink,
        pool: ServerPool,
        settings: Settings,
        stop: StopEvent,
        *,
        stats: Stats,
        timing: Timing = REAL,
    ) -> None:
        """Prepare for a run; nothing is claimed yet.

        Raises:
            ConfigurationError: the user's file of phrases cannot be used.
        """
        self.store = store
        self.source = source
        self.sink = sink
        self.pool = pool
        self.heartbeat = Heartbeat(store.claims, settings.lease, timing)
        self.settings = settings
        self.stop = stop
        self.stats = stats
        self.timing = timing
        self.filter = filtering.policy(settings.filter, settings.filter_phrases)
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def process(
        self, sequence: ChunkSequence, ticket: int, *, look_first: bool = False
    ) -> Result | None:
        """Process a sequence whose ticket stands in the pool's line.

        With other runs about, `look_first` spares MongoDB a claim that it would refuse: then the
        result is None if somebody holds the sequence.

        Raises:
            Stopped: a stop was asked for before the end; nothing is lost, nothing held.
            Unavailable: MongoDB or all STT servers are away.
        """
        try:
            if look_first and self.store.claims.held(ends([sequence])):
                return None
            token = f"{self._name}/{self.timing.random.getrandbits(128):032x}"
            acquired_at = self.timing.boot_time()
            if not self.store.claims.acquire(sequence, token, self._name):
                log.debug("Skipped a sequence: another worker has it", extra=Event.SKIPPED.of())
                return Result(sequence, Outcome.SKIPPED, is_refused=True)
            with self._held(token, acquired_at):
                claim = Claim(token, sequence.original_id, self.source.load(sequence))
                if claim.loaded.chunks:
                    return _Job(self, sequence, claim, ticket).run()
                log.debug("Skipped a sequence: nothing is left to do", extra=Event.SKIPPED.of())
                return Result(sequence, Outcome.SKIPPED, is_settled=False)
        finally:
            self.pool.step_out(ticket)

    @contextmanager
    def _held(self, token: str, acquired_at: float) -> Iterator[None]:
        """Renew the claim within the block; release it unless MongoDB is away."""
        is_reachable = True
        try:
            with self.heartbeat.hold(token, acquired_at):
                yield
        except StoreUnavailable:
            is_reachable = False
            raise
        finally:
            if is_reachable:
                self._release(token)

    def _release(self, token: str) -> None:
        try:
            self.store.claims.release(token)
        except SttError as error:
            log.warning(
                "A claim could not be released and will expire: %s",
                error,
                extra=Event.CLAIM_TROUBLE.of(),
            )


class _Job:
    """The work on one claim."""

    def __init__(self, worker: Worker, sequence: ChunkSequence, claim: Claim, ticket: int) -> None:
        self._worker = worker
        self._sink = worker.sink
        self._settings = worker.settings
        self._timing = worker.timing
        self._sequence = sequence
        self._claim = claim
        self._ticket = ticket
        is_replacement = sequence.revision is not None
        self._context = Context(worker.store, claim, is_replacement=is_replacement)
        self._open = {identity(chunk.id): chunk for chunk in claim.loaded.chunks}
        self._outcomes: set[Outcome] = set()
        self._started: float | None = None
        self._is_announced = False
        self._is_settled = True

    def run(self) -> Result:
        try:
            self._process()
        except ClaimLost as lost:
            logs.skipped(self._sequence, f"result dropped: {lost}")
            return Result(self._sequence, Outcome.SKIPPED, self._seconds(), is_settled=False)
        return self._finished()

    def _process(self) -> None:
        try:
            self._mark_saved_before()
            self._fail_unusable()
            self._report_damage()
            for run in self._runs():
                try:
                    self._transcribe(run)
                except AttemptError as error:
                    self._excuse(run, error)
        except (ClaimLost, Stopped, Unavailable, ConfigurationError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect must not stop the other sequences
            self._fail_each(error)

    # -- before the request -------------------------------------------------------------------

    def _mark_saved_before(self) -> None:
        """A worker that saved a transcript died before it marked these chunks."""
        owned = self._claim.loaded.owned
        chunks = [chunk for key, chunk in self._open.items() if key in owned]
        if chunks:
            self._sink.saved_before([chunk.id for chunk in chunks])
            self._close(chunks, Outcome.TRANSCRIBED)

    def _fail_unusable(self) -> None:
        """Chunks that cannot be posted fail alone, before any request."""
        for chunk in list(self._open.values()):
            problem = self._sequence.problem or chunk.problem or self._twin_of(chunk)
            if problem is not None:
                self._fail_one(chunk, AttemptError(problem.kind, problem.message))

    def _report_damage(self) -> None:
        for chunk in self._open.values():
            if not chunk.is_whole:
                logs.cut_off(self._sequence, chunk)

    def _twin_of(self, chunk: Chunk) -> Problem | None:
        """A chunk once known as a duplicate remains one after its twin was transcribed."""
        chunks, original_id = self._worker.store.chunks, self._claim.original_id
        if chunk.was_duplicate and chunks.has_transcribed_twin(original_id, chunk):
            return duplicate_index(chunk.index)
        return None

    # -- the request --------------------------------------------------------------------------

    @property
    def _is_divisible(self) -> bool:
        """Whether a part may be saved without the rest: a transcript is replaced as a whole."""
        return self._sequence.revision is None

    def _runs(self) -> Iterable[tuple[Chunk, ...]]:
        """The chunks in groups that are posted together."""
        chunks = tuple(self._open.values())
        if not self._is_divisible:
            return [chunks] if chunks else []
        return [part for run in consecutive_runs(chunks) for part in divided(run)]

    def _transcribe(self, run: tuple[Chunk, ...]) -> None:
        heard = self._heard_in_context(run)
        if heard is not None and self._save(heard):
            return
        if self._is_divisible:
            self._salvage(run)
        else:
            self._save(Heard(run, self._post(run, run), run))

    def _heard_in_context(self, run: tuple[Chunk, ...]) -> Heard | None:
        """Post chunks with their neighbours; None if there are none, or the server rejects it.

        Then the chunks have to be tried alone before they are said to be at fault.
        """
        audio = self._context.around(run)
        if len(audio) == len(run):
            return None
        try:
            return Heard(run, self._post(audio, run), audio)
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
                    self._fail_one(piece.chunk, piece.error)

    def _post(
        self, audio: Sequence[Chunk], own: Sequence[Chunk], *, is_search: bool = False
    ) -> Answer:
        """Post audio, of which some chunks are our own, until there is an answer or a verdict.

        Trouble of the server or the network costs one of `retries`; a busy server costs none, but
        after some busy answers without Retry-After the pool finds out whether it is one.
        A suspicion against whole audio gets one more attempt, elsewhere if possible, so that
        a stray error does not start a search.
        """
        avoid: Server | None = None
        failures = suspicions = busy_answers = 0
        seconds = sum(chunk.seconds for chunk in audio)
        while True:
            with self._worker.pool.slot(self._ticket, audio=seconds, avoid=avoid) as slot:
                self._make_sure_of(own)
                self._started = self._started or self._timing.monotonic()
                avoid = slot.server
                try:
                    # Logged once the request is sent: the server should not wait for the log.
                    return self._worker.pool.transcribe(
                        slot, audio, self._announce, busy_answers=busy_answers
                    )
                except ServerBusy as busy:
                    busy_answers = busy_answers + 1 if busy.retry_after is None else 0
                    continue
                except ServerTrouble as error:
                    failures += 1
                    busy_answers = 0
                    if self._worker.stop.is_set():
                        raise Stopped from None  # perhaps it was cut off at the end of the run
                    if failures > self._settings.retries:
                        raise
                    if slot.server.serves:  # otherwise the pool has logged it
                        self._announce()
                        logs.retrying(self._sequence, failures, error)
                except Suspect as error:
                    suspicions += 1
                    busy_answers = 0
                    if is_search or suspicions > 1:
                        raise
                    logs.retrying(self._sequence, suspicions, error)
            self._worker.stats.retried(slot.server.name)
            if failures + suspicions > 1 or not self._worker.pool.serves_besides(avoid):
                self._wait(failures + suspicions)

    def _make_sure_of(self, chunks: Sequence[Chunk]) -> None:
        """Renew a claim that may have expired, and see whether the chunks are still to be done.

        That is after a freeze, a long wait for a server, or a slow load of the audio.

        Raises:
            ClaimLost: someone else has taken them.
        """
        if not self._worker.heartbeat.refresh(self._claim.token):
            return
        now = self._worker.source.load(self._sequence)
        left = {identity(chunk.id) for chunk in now.chunks} - now.owned
        if not left.issuperset(identity(chunk.id) for chunk in chunks):
            raise ClaimLost("its chunks were transcribed meanwhile")

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            logs.processing(self._sequence)

    def _wait(self, failures: int) -> None:
        base, cap = self._settings.backoff_base, self._settings.backoff_max
        if self._worker.stop.wait(backoff.delay(failures, base, cap, self._timing.random)):
            raise Stopped

    # -- after the request --------------------------------------------------------------------

    def _save(self, heard: Heard) -> bool:
        """Write what was heard; False if all text lies in the audio of neighbours.

        It does if the chunks hold no speech, but also if the server makes up times. Then they have
        to be heard alone.
        """
        self._wait_for_turn(heard)
        began = self._timing.monotonic()
        surroundings = filtering.Surroundings.of(heard.answer, heard.audio)
        verdict = filtering.judge(heard.answer.segments, surroundings, self._worker.filter)
        # Before anything is written: after a freeze the chunks may be someone else's work.
        self._worker.heartbeat.refresh(self._claim.token)
        own, joined = self._context.own(heard, verdict)
        if verdict.kept and not own.kept and len(heard.audio) > len(heard.chunks):
            return False
        transcript = self._transcript(heard, own, joined)
        if not own.kept:
            self._sink.no_speech(transcript)
        elif not self._sink.save(transcript):
            raise ClaimLost("another worker has saved a transcript of these chunks")
        self._close(heard.chunks, Outcome.TRANSCRIBED if own.kept else Outcome.EMPTY)
        self._worker.stats.saved(self._timing.monotonic() - began)
        return True

    def _wait_for_turn(self, heard: Heard) -> None:
        """Let an older replacement beside ours end; after a stop for `grace` seconds at most.

        Raises:
            ClaimLost: our claim has expired meanwhile.
            Stopped: the other one has not ended in time.
        """
        left = self._settings.grace
        while self._context.has_to_wait(heard):
            if self._worker.stop.wait(TURN_POLL_SECONDS):
                if left <= 0:
                    raise Stopped
                left -= TURN_POLL_SECONDS
                self._timing.sleep(TURN_POLL_SECONDS)
            self._worker.heartbeat.refresh(self._claim.token)

    def _transcript(
        self, heard: Heard, verdict: filtering.Verdict, joined: tuple[Any, ...]
    ) -> Transcript:
        answer, timeline = heard.answer, heard.timeline
        placed = timeline.place(dropped.segment for dropped in verdict.dropped)
        revision = self._next_revision()
        return Transcript(
            id=revision.transcript_id,
            revision=revision.number,
            original_id=self._claim.original_id,
            start=heard.chunks[0].start,
            end=heard.chunks[-1].end,
            chunk_ids=tuple(chunk.id for chunk in heard.chunks),
            segments=tuple(timeline.place(verdict.kept)),
            language=answer.language,
            top_language_probs=answer.top_language_probs,
            model=answer.model,
            server=answer.server,
            protocol=answer.protocol,
            parameters={**answer.parameters, "filter": self._settings.filter},
            dropped=tuple(
                replace(dropped, segment=segment)
                for dropped, segment in zip(verdict.dropped, placed, strict=True)
            ),
            joined=joined,
        )

    def _next_revision(self) -> Revision:
        old = self._sequence.revision
        if old is None:
            return Revision(self._worker.store.transcripts.new_id())
        return replace(old, number=old.number + 1)

    def _close(self, chunks: Sequence[Chunk], outcome: Outcome) -> None:
        """These chunks are done with: what they have come to is written."""
        self._outcomes.add(outcome)
        audio = sum(chunk.seconds for chunk in chunks)
        self._worker.stats.settled(outcome, len(chunks), audio)
        for chunk in chunks:
            self._open.pop(identity(chunk.id), None)

    # -- failures -----------------------------------------------------------------------------

    def _fail_one(self, chunk: Chunk, error: AttemptError) -> None:
        """The audio of this chunk is at fault, or the chunk itself."""
        due_in = backoff.later_run_delay(chunk.failures + 1, self._timing.random)
        self._fail([chunk], error, audio_at_fault=True, due_in=due_in)

    def _fail_each(self, defect: Exception) -> None:
        """A defect of stt, or a refusal of MongoDB: uncounted, it would be tried for ever."""
        if isinstance(defect, StoreError):
            error = AttemptError(FailureKind.DATABASE, str(defect))
        else:
            error = AttemptError(FailureKind.INTERNAL, f"internal error: {type(defect).__name__}")
            error.__cause__ = defect
        for chunk in list(self._open.values()):
            self._fail_one(chunk, error)

    def _excuse(self, run: tuple[Chunk, ...], error: AttemptError) -> None:
        """The servers or the network are at fault that some of these chunks are still open."""
        chunks = [chunk for chunk in run if identity(chunk.id) in self._open]
        due_in = self._delay_after(max(chunk.excuses for chunk in chunks) + 1)
        self._fail(chunks, error, audio_at_fault=False, due_in=due_in)

    def _delay_after(self, failures: int) -> float:
        """Seconds. At first none: the servers are at fault, and the next run is some way off.

        But audio that fails in run after run while other audio is transcribed must not take
        a place in every run for ever.
        """
        beyond = failures - self._settings.max_failures
        if beyond >= 0:
            return backoff.later_run_delay(beyond + 1, self._timing.random)
        is_last_run = self._settings.watch is not None
        return backoff.same_run_delay(failures, self._timing.random) if is_last_run else 0.0

    def _fail(
        self, chunks: Sequence[Chunk], error: AttemptError, *, audio_at_fault: bool, due_in: float
    ) -> None:
        self._worker.heartbeat.refresh(self._claim.token)  # as in `_save`
        self._announce()
        chunk_id: Any = chunks[0].id if audio_at_fault else None
        logs.failed(self._sequence, self._seconds(), error, chunk_id)
        self._worker.stats.blamed(error.kind)
        try:
            self._sink.failed(
                chunks,
                Failure(error.kind, str(error)[:MAX_MESSAGE], error.server),
                attempt=self._claim.token,
                audio_at_fault=audio_at_fault,
                due_in=due_in,
            )
        except Unavailable:
            raise
        except SttError as refusal:  # the log has to do
            self._is_settled = False
            logs.failed(self._sequence, self._seconds(), refusal, chunk_id)
        self._close(chunks, Outcome.ERROR)

    # -- the end ------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return 0.0 if self._started is None else self._timing.monotonic() - self._started

    def _finished(self) -> Result:
        ranked = (Outcome.ERROR, Outcome.TRANSCRIBED, Outcome.EMPTY)
        outcome = next(o for o in ranked if o in self._outcomes)
        self._announce()
        if outcome is not Outcome.ERROR:
            logs.completed(self._sequence, self._seconds(), outcome)
        return Result(self._sequence, outcome, self._seconds(), is_settled=self._is_settled)
