"""Claims, failures and results by several workers in any order: the promises hold in every state.

Hypothesis makes up the order; a model of a few lines says what MongoDB must hold after each step.
A claim expires by a date in the past, because waiting would take too long.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stt_lib.domain.models import (
    Chunk,
    ChunkRef,
    ChunkSequence,
    Failure,
    Segment,
    Transcript,
    consecutive_runs,
    identity,
)
from stt_lib.domain.sequences import group
from stt_lib.errors import FailureKind
from stt_lib.local.mongod import Mongod
from stt_lib.store import Store
from tests.soak.conftest import Figures, Size, Worlds
from tests.support.world import START, World, chunk

CHUNKS = 5
AT_ONCE = 4
"""Attempts under way at most: few enough to meet each other."""
WORKERS = 3
PAST = datetime(2020, 1, 1, tzinfo=UTC)

WORKER = st.integers(0, WORKERS - 1)
INDEX = st.integers(0, CHUNKS - 1)
LENGTH = st.integers(1, CHUNKS)


@dataclass
class State:
    """What the model knows of one chunk; `attempt` is the last one that recorded a failure."""

    marked: bool = False
    owner: Any = None
    judged_empty: bool = False
    failures: int = 0
    attempt: str | None = None
    parked: bool = False
    retry: str | None = None
    """When it is due: "now" is the time of the last failure, "later" minutes after it."""

    def is_loaded(self, is_old_plan: bool) -> bool:
        """An old plan was made before anything had failed."""
        waits = self.retry == "later" or (is_old_plan and self.retry == "now")
        return not (self.marked or self.parked or waits)

    def mark(self) -> None:
        self.marked, self.retry, self.attempt = True, None, None
        self.failures, self.parked = 0, False


@dataclass
class Lease:
    """What the model knows of one claim."""

    indexes: list[int]
    expired: bool = False


@dataclass
class Attempt:
    """One worker's work on some chunks; `open` are those it has not finished with."""

    store: Store
    token: str
    chunks: tuple[Chunk, ...]
    open: list[int]
    transcript: Transcript | None = None
    is_saved: bool = False
    is_empty: bool = False


@dataclass
class Bench:
    """What all examples share."""

    world: World
    stores: list[Store]
    steps: int = 0
    examples: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """Every rule is one verb of the store, called by one of the attempts."""

    bench: ClassVar[Bench]

    def __init__(self) -> None:
        super().__init__()
        self.world = self.bench.world
        for collection in (self.world.chunks, self.world.transcriptions, self.world.claims):
            collection.delete_many({})
        self.recording = ObjectId()
        self.rows = [chunk(self.recording, index) for index in range(CHUNKS)]
        self.world.chunks.insert_many(self.rows)
        self.model = [State() for _ in range(CHUNKS)]
        self.leases: dict[str, Lease] = {}
        self.attempts: list[Attempt] = []
        self.tokens = itertools.count(1)
        self.bench.examples += 1

    # -- claims -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.attempts) < AT_ONCE)
    @rule(worker=WORKER, newest=INDEX, length=LENGTH, old=st.booleans(), twice=st.booleans())
    def claim(self, worker: int, newest: int, length: int, *, old: bool, twice: bool) -> None:
        self._claim(worker, newest, length, old, twice)

    def _claim(
        self, worker: int, newest: int, length: int, is_old_plan: bool = False, twice: bool = False
    ) -> Attempt | None:
        indexes = list(range(max(0, newest - length + 1), newest + 1))
        token, store = f"token-{next(self.tokens)}", self.bench.stores[worker]
        sequence = ChunkSequence(tuple(self._ref(index) for index in indexes))
        is_free = not any(set(lease.indexes) & set(indexes) for lease in self.leases.values())
        for _ in range(1 + twice):  # the answer to the first one was lost
            assert store.claims.acquire(sequence, token, "worker") == is_free
        self._count("claims" if is_free else "claims refused")
        if not is_free:
            return None
        self.leases[token] = Lease(indexes)
        return self._load(store, sequence, token, is_old_plan)

    def _load(
        self, store: Store, sequence: ChunkSequence, token: str, is_old_plan: bool
    ) -> Attempt | None:
        started = PAST if is_old_plan else store.now()
        loaded = store.chunks.load(sequence, run_started=started)
        wanted = [i for i in self.leases[token].indexes if self.model[i].is_loaded(is_old_plan)]
        assert [chunk.index for chunk in loaded.chunks] == wanted
        owned = {identity(self.rows[i]["_id"]) for i in wanted if self.model[i].owner is not None}
        assert loaded.owned == owned
        attempt = Attempt(store, token, loaded.chunks, wanted)
        self.attempts.append(attempt)
        if not wanted:
            self._release(attempt)
            return None
        return attempt

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        self._expire(self._any(data))

    def _expire(self, attempt: Attempt) -> None:
        self.world.claims.update_one({"_id": attempt.token}, {"$set": {"until": PAST}})
        if attempt.token in self.leases:
            self.leases[attempt.token].expired = True

    @rule(worker=WORKER)
    def plan(self, worker: int) -> None:
        """A planner deletes what has expired."""
        expired = [token for token, lease in self.leases.items() if lease.expired]
        assert self.bench.stores[worker].claims.delete_expired() == len(expired)
        for token in expired:
            del self.leases[token]

    @precondition(lambda self: 0 < len(self.attempts) < AT_ONCE)
    @rule(data=st.data(), worker=WORKER, length=LENGTH)
    def take_over(self, data: st.DataObject, worker: int, length: int) -> None:
        """A claim expires, and another worker is there at once."""
        attempt = self._any(data)
        self._expire(attempt)
        self.plan(worker)
        self._claim(worker, data.draw(st.sampled_from(attempt.open)), length)

    @rule(worker=WORKER, twice=st.booleans())
    def renew(self, worker: int, *, twice: bool) -> None:
        """The heartbeat of one process, for everything that it holds."""
        store = self.bench.stores[worker]
        tokens = [attempt.token for attempt in self.attempts if attempt.store is store]
        for _ in range(1 + twice):
            assert store.claims.renew(tokens) == set(tokens) - self.leases.keys()
        for token in self.leases.keys() & set(tokens):
            self.leases[token].expired = False

    def _release(self, attempt: Attempt, twice: bool = False) -> None:
        for _ in range(1 + twice):
            attempt.store.claims.release(attempt.token)
        self.leases.pop(attempt.token, None)
        self.attempts.remove(attempt)

    # -- results ------------------------------------------------------------------------------

    @precondition(lambda self: any(not a.is_empty for a in self.attempts))
    @rule(data=st.data(), twice=st.booleans())
    def save(self, data: st.DataObject, *, twice: bool) -> None:
        """Whether or not the claim is still there: what fences a late writer is the index."""
        self._save(self._any(data, lambda a: not a.is_empty), twice)

    @precondition(lambda self: 0 < len(self.attempts) < AT_ONCE)
    @precondition(lambda self: any(not a.is_empty for a in self.attempts))
    @rule(data=st.data(), worker=WORKER, length=LENGTH, is_late=st.booleans())
    def race(self, data: st.DataObject, worker: int, length: int, *, is_late: bool) -> None:
        """Two save what both have heard: one woke up after the other had claimed its chunks."""
        late = self._any(data, lambda a: not a.is_empty)
        self._expire(late)
        self.plan(worker)
        other = self._claim(worker, data.draw(st.sampled_from(late.open)), length)
        if other is not None:
            for attempt in (late, other) if is_late else (other, late):
                self._save(attempt, twice=False)

    def _save(self, attempt: Attempt, twice: bool) -> None:
        if attempt.transcript is None:
            attempt.transcript = self._transcript(
                [chunk for chunk in attempt.chunks if chunk.index in attempt.open]
            )
        transcript = attempt.transcript
        ids = set(transcript.chunk_ids)
        indexes = [index for index, row in enumerate(self.rows) if row["_id"] in ids]
        is_free = all(self.model[i].owner in (None, transcript.id) for i in indexes)
        for _ in range(1 + twice):
            assert attempt.store.transcripts.save(transcript) == is_free
        if is_free:
            attempt.is_saved = True
            for index in indexes:
                self.model[index].owner = transcript.id
        self._count("saves" if is_free else "saves refused")

    @precondition(lambda self: any(not a.transcript for a in self.attempts))
    @rule(data=st.data())
    def judge_empty(self, data: st.DataObject) -> None:
        self._any(data, lambda a: not a.transcript).is_empty = True

    @precondition(lambda self: any(a.is_saved or a.is_empty for a in self.attempts))
    @rule(data=st.data(), twice=st.booleans())
    def mark(self, data: st.DataObject, *, twice: bool) -> None:
        attempt = self._any(data, lambda a: a.is_saved or a.is_empty)
        self._mark(attempt, attempt.open, twice)
        self._release(attempt, twice)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def mark_what_is_owned(self, data: st.DataObject) -> None:
        """As the worker does before it posts, and when another transcript came first."""
        attempt = self._any(data)
        owned = attempt.store.transcripts.owned(self.recording, self._ids(attempt.open))
        indexes = [index for index in attempt.open if self.model[index].owner is not None]
        assert owned == set(map(identity, self._ids(indexes)))
        if indexes:
            self._mark(attempt, indexes, twice=False)
            attempt.open = [index for index in attempt.open if index not in indexes]
        if not attempt.open:
            self._release(attempt)

    def _mark(self, attempt: Attempt, indexes: list[int], twice: bool) -> None:
        for _ in range(1 + twice):
            attempt.store.chunks.mark(self._ids(indexes), is_backed=attempt.is_saved)
        for state in (self.model[index] for index in indexes):
            if not state.marked:
                state.judged_empty = attempt.is_empty
                state.mark()
        self._count("marks")

    # -- failures -----------------------------------------------------------------------------

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), max_failures=st.sampled_from([1, 3]), twice=st.booleans())
    def fail(self, data: st.DataObject, max_failures: int, *, twice: bool) -> None:
        """One chunk's own audio; without the claim it may be counted twice, at worst."""
        attempt = self._any(data)
        index = data.draw(st.sampled_from(attempt.open))
        self._record(attempt, [index], twice, due_in=300.0, max_failures=max_failures)
        state = self.model[index]
        if not state.marked and state.attempt != attempt.token:
            state.attempt, state.retry = attempt.token, "later"
            state.failures += 1
            state.parked = state.failures >= max_failures
        attempt.open.remove(index)
        if not attempt.open:
            self._release(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), is_failure=st.booleans(), twice=st.booleans())
    def give_up(self, data: st.DataObject, *, is_failure: bool, twice: bool) -> None:
        attempt = self._any(data)
        if is_failure:
            self._record(attempt, attempt.open, twice, due_in=0.0, audio_at_fault=False)
            for state in (self.model[index] for index in attempt.open):
                if not state.marked and state.attempt != attempt.token:
                    state.attempt, state.retry = attempt.token, "now"
        self._release(attempt, twice)

    def _record(
        self,
        attempt: Attempt,
        indexes: list[int],
        twice: bool,
        *,
        due_in: float,
        audio_at_fault: bool = True,
        max_failures: int = 3,
    ) -> None:
        for _ in range(1 + twice):
            attempt.store.failures.record(
                self._ids(indexes),
                Failure(FailureKind.INVALID_AUDIO, "not audio", "http://server"),
                attempt=attempt.token,
                audio_at_fault=audio_at_fault,
                due_in=due_in,
                max_failures=max_failures,
            )
        self._count("failures")

    @rule()
    def retry_now(self) -> None:
        self.bench.stores[0].failures.retry_now()
        for state in self.model:
            if state.retry is not None:
                state.retry, state.failures, state.parked = "now", 0, False

    # -- in every state -----------------------------------------------------------------------

    @invariant()
    def mongodb_holds_what_the_model_says(self) -> None:
        self.bench.steps += 1
        documents = list(self.world.chunks.find({}, {"data": 0}, sort=[("index", 1)]))
        for document, state in zip(documents, self.model, strict=True):
            stt = document.get("stt", {})
            assert (document["transcribed_at"] is not None) == state.marked
            assert stt.get("failures", 0) == state.failures
            assert stt.get("attempt") == state.attempt
            assert ("parked_at" in stt) == state.parked
            assert not (state.marked and stt)

    @invariant()
    def no_chunk_is_claimed_twice(self) -> None:
        claims = {claim["_id"]: claim["chunk_ids"] for claim in self.world.claims.find()}
        assert claims == {t: self._ids(lease.indexes) for t, lease in self.leases.items()}
        ids = [chunk_id for held in claims.values() for chunk_id in held]
        assert len(ids) == len(set(ids))

    @invariant()
    def the_promises_hold(self) -> None:
        owners = self.world.owners()
        assert set(owners.values()) <= {1}
        owned = {row["_id"] for row, at in zip(self.rows, self.model, strict=True) if at.owner}
        assert set(owners) == owned
        for state in self.model:
            assert not state.marked or state.owner or state.judged_empty

    def teardown(self) -> None:
        """Everybody dies; all claims expire; a plain run and one for the failed finish all."""
        self.world.claims.update_many({}, {"$set": {"until": PAST}})
        self.bench.stores[0].claims.delete_expired()
        for only_failed in (False, True):
            self._process_all(only_failed=only_failed)
        assert self.world.pending() == []
        assert self.world.claims.count_documents({}) == 0
        owners = self.world.owners()
        assert set(owners.values()) <= {1}
        for row, state in zip(self.rows, self.model, strict=True):
            assert row["_id"] in owners or state.judged_empty

    def _process_all(self, *, only_failed: bool) -> None:
        store = self.bench.stores[0]
        started = store.now()
        pending = list(store.chunks.pending(run_started=started, only_failed=only_failed))
        for sequence in group(pending):
            token = f"token-{next(self.tokens)}"
            assert store.claims.acquire(sequence, token, "last")
            loaded = store.chunks.load(sequence, run_started=started, only_failed=only_failed)
            rest = [chunk for chunk in loaded.chunks if identity(chunk.id) not in loaded.owned]
            for run in consecutive_runs(rest):
                assert store.transcripts.save(self._transcript(run))
            store.chunks.mark([chunk.id for chunk in loaded.chunks], is_backed=True)
            store.claims.release(token)

    # -- helpers ------------------------------------------------------------------------------

    def _ref(self, index: int) -> ChunkRef:
        row = self.rows[index]
        return ChunkRef(row["_id"], self.recording, self.recording, index, row["start"])

    def _any(
        self, data: st.DataObject, condition: Callable[[Attempt], Any] = lambda _: True
    ) -> Attempt:
        return data.draw(st.sampled_from([a for a in self.attempts if condition(a)]))

    def _ids(self, indexes: list[int]) -> list[Any]:
        return [self.rows[index]["_id"] for index in indexes]

    def _count(self, what: str) -> None:
        self.bench.counts[what] = self.bench.counts.get(what, 0) + 1

    def _transcript(self, chunks: Sequence[Chunk]) -> Transcript:
        return Transcript(
            id=ObjectId(),
            original_id=self.recording,
            start=START,
            end=START + timedelta(seconds=10 * len(chunks)),
            chunk_ids=tuple(chunk.id for chunk in chunks),
            segments=(Segment(0.0, 1.0, "words"),),
            language="en",
            top_language_probs=None,
            model=None,
            server=None,
        )


@pytest.fixture
def bench(worlds: Worlds, mongod: Mongod) -> Iterator[Bench]:
    world = worlds(mongod.uri, "http://127.0.0.1:9")
    stores = [Store(world.uri, world.database, lease=3600) for _ in range(WORKERS)]
    stores[0].indexes.ensure()
    yield Bench(world, stores)
    for store in stores:
        store.close()


@pytest.mark.timeout(400)  # a failure is narrowed down, which takes its time
def test_the_promises_hold_whatever_several_workers_do_in_any_order(
    bench: Bench, size: Size, figures: Figures
) -> None:
    examples, steps = size.of((35, 25), (1000, 60))
    Machine.bench = bench
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    figures.add(f"{bench.examples} orders, {bench.steps} states, {bench.counts}")
