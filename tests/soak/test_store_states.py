"""Claims, failures and results by several workers in any order: the promises hold in every state.

Hypothesis makes up the order; a model of a few lines says what MongoDB must hold after each step.
A claim expires by a date in the past, for waiting would take too long.
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
    Claim,
    Failure,
    Segment,
    Transcript,
    consecutive_runs,
    identity,
)
from stt_lib.domain.sequences import group
from stt_lib.errors import ClaimLost, FailureKind
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
class Held:
    """What the model knows of one chunk."""

    marked: bool = False
    owner: Any = None
    judged_empty: bool = False
    holder: str | None = None
    expired: bool = False
    failures: int = 0
    parked: bool = False
    is_due_later: bool = False

    def is_claimable_by(self, token: str, is_old_plan: bool) -> bool:
        """An old plan does not know that the chunk has failed since, and has to wait."""
        if self.marked or self.holder == token:
            return not self.marked
        waits = is_old_plan and (self.parked or self.is_due_later)
        return (self.holder is None or self.expired) and not waits

    def is_held_by(self, token: str) -> bool:
        return not self.marked and self.holder == token

    def let_go(self) -> None:
        self.holder, self.expired = None, False

    def mark(self) -> None:
        self.marked = True
        self.forget_failures()
        self.let_go()

    def forget_failures(self) -> None:
        self.failures, self.parked, self.is_due_later = 0, False, False


@dataclass
class Attempt:
    """One worker's try at some chunks; `open` are those it has not finished with."""

    store: Store
    claim: Claim
    open: list[int]
    was_renewed: bool = False
    transcript: Transcript | None = None
    is_saved: bool = False
    is_empty: bool = False

    @property
    def token(self) -> str:
        return self.claim.token


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
        self.world.chunks.delete_many({})
        self.world.transcriptions.delete_many({})
        self.recording = ObjectId()
        self.rows = [chunk(self.recording, index) for index in range(CHUNKS)]
        self.world.chunks.insert_many(self.rows)
        self.model = [Held() for _ in range(CHUNKS)]
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
        won = self._expect_claim(indexes, token, is_old_plan)
        for _ in range(1 + twice):  # the answer to the first one was lost
            claim = store.claim(sequence, token, since=PAST if is_old_plan else None)
            assert [c.index for c in claim.chunks] == won if claim else not won
        self._count("claims won" if claim else "claims refused")
        if claim is None:
            return None
        self.attempts.append(Attempt(store, claim, won))
        return self.attempts[-1]

    def _expect_claim(self, indexes: list[int], token: str, is_old_plan: bool) -> list[int]:
        """The newest chunk and what lies next to it; what was won beyond is given back."""
        won = [i for i in indexes if self.model[i].is_claimable_by(token, is_old_plan)]
        if indexes[-1] not in won:
            return []
        lost = [index for index in indexes if index not in won]
        kept = [index for index in won if not lost or index > max(lost)]
        for index in won:
            self.model[index].let_go()
            if index in kept:
                self.model[index].holder = token
        return kept

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        self._expire(self._any(data))

    @precondition(lambda self: 0 < len(self.attempts) < AT_ONCE)
    @rule(data=st.data(), worker=WORKER, length=LENGTH)
    def take_over(self, data: st.DataObject, worker: int, length: int) -> None:
        """A claim expires, and another worker is there at once."""
        attempt = self._any(data)
        self._expire(attempt)
        self._claim(worker, data.draw(st.sampled_from(attempt.open)), length)

    def _expire(self, attempt: Attempt) -> None:
        query = {"stt.claim.by": attempt.token}
        self.world.chunks.update_many(query, {"$set": {"stt.claim.until": PAST}})
        for held in self.model:
            held.expired = held.expired or held.holder == attempt.token

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), twice=st.booleans())
    def renew(self, data: st.DataObject, *, twice: bool) -> None:
        self._renew(self._any(data), twice)

    def _renew(self, attempt: Attempt, twice: bool) -> None:
        mine = self._mine(attempt)
        is_lost = len(mine) < len(attempt.open)
        self._do(lambda: attempt.store.renew(self._ids(attempt), attempt.token), is_lost, twice)
        for held in mine:
            held.expired = False
        attempt.was_renewed = attempt.was_renewed or not is_lost

    def _release(self, attempt: Attempt, twice: bool) -> None:
        mine = self._mine(attempt)
        for _ in range(1 + twice):
            attempt.store.release(self._ids(attempt), attempt.token)
        for held in mine:
            held.let_go()
        self._end(attempt)

    # -- results ------------------------------------------------------------------------------

    @precondition(lambda self: any(a.was_renewed and not a.is_empty for a in self.attempts))
    @rule(data=st.data(), twice=st.booleans())
    def save(self, data: st.DataObject, *, twice: bool) -> None:
        """After a renewal, as the worker does it; however long ago that was."""
        self._save(self._any(data, lambda a: a.was_renewed and not a.is_empty), twice)

    @precondition(lambda self: any(not a.is_empty for a in self.attempts))
    @rule(data=st.data())
    def renew_and_save(self, data: st.DataObject) -> None:
        attempt = self._any(data, lambda a: not a.is_empty)
        self._renew(attempt, twice=False)
        if attempt.was_renewed:
            self._save(attempt, twice=False)

    @precondition(lambda self: 0 < len(self.attempts) < AT_ONCE)
    @precondition(lambda self: any(not a.is_empty for a in self.attempts))
    @rule(data=st.data(), worker=WORKER, length=LENGTH, is_late=st.booleans())
    def race(self, data: st.DataObject, worker: int, length: int, *, is_late: bool) -> None:
        """Two save what both have heard: one woke up after the other had claimed its chunks."""
        late = self._any(data, lambda a: not a.is_empty)
        self._renew(late, twice=False)
        self._expire(late)
        other = self._claim(worker, data.draw(st.sampled_from(late.open)), length)
        if other is not None:
            self._renew(other, twice=False)
            for attempt in (late, other) if is_late else (other, late):
                if attempt.was_renewed:
                    self._save(attempt, twice=False)

    def _save(self, attempt: Attempt, twice: bool) -> None:
        if attempt.transcript is None:
            attempt.transcript = self._transcript(
                [chunk for chunk in attempt.claim.chunks if chunk.index in attempt.open]
            )
        transcript = attempt.transcript
        ids = set(transcript.chunk_ids)
        indexes = [index for index, row in enumerate(self.rows) if row["_id"] in ids]
        is_free = all(self.model[i].owner in (None, transcript.id) for i in indexes)
        for _ in range(1 + twice):
            assert attempt.store.save(transcript) == is_free
        if is_free:
            attempt.is_saved = True
            for index in indexes:
                self.model[index].owner = transcript.id
        self._count("saves" if is_free else "saves refused")

    @precondition(lambda self: any(a.was_renewed and not a.transcript for a in self.attempts))
    @rule(data=st.data())
    def judge_empty(self, data: st.DataObject) -> None:
        self._any(data, lambda a: a.was_renewed and not a.transcript).is_empty = True

    @precondition(lambda self: any(a.is_saved or a.is_empty for a in self.attempts))
    @rule(data=st.data(), twice=st.booleans())
    def mark(self, data: st.DataObject, *, twice: bool) -> None:
        attempt = self._any(data, lambda a: a.is_saved or a.is_empty)
        self._mark(attempt, attempt.open, twice)
        self._end(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def mark_what_is_owned(self, data: st.DataObject) -> None:
        """As the worker does before it posts, and when another transcript came first."""
        attempt = self._any(data)
        owned = attempt.store.owned(self.recording, self._ids(attempt))
        indexes = [index for index in attempt.open if self.model[index].owner is not None]
        assert len(owned) == len(indexes)
        if indexes:
            self._mark(attempt, indexes, twice=False)
            attempt.open = [index for index in attempt.open if index not in indexes]
        if not attempt.open:
            self._end(attempt)

    def _mark(self, attempt: Attempt, indexes: list[int], twice: bool) -> None:
        mine = [self.model[i] for i in indexes if self.model[i].is_held_by(attempt.token)]
        for held in mine:
            held.judged_empty = attempt.is_empty
            held.mark()
        is_lost = not all(self.model[index].marked for index in indexes)
        ids = [self.rows[index]["_id"] for index in indexes]
        self._do(lambda: attempt.store.mark(ids, attempt.token), is_lost, twice)

    # -- failures -----------------------------------------------------------------------------

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), max_failures=st.sampled_from([1, 3]), twice=st.booleans())
    def blame(self, data: st.DataObject, max_failures: int, *, twice: bool) -> None:
        attempt = self._any(data)
        index = data.draw(st.sampled_from(attempt.open))
        held = self.model[index]
        is_mine = held.is_held_by(attempt.token)
        failure = Failure(FailureKind.INVALID_AUDIO, "not audio", "http://server")
        chunk_id = self.rows[index]["_id"]

        def blame() -> None:
            attempt.store.blame(
                chunk_id, attempt.token, failure, due_in=300.0, max_failures=max_failures
            )

        self._do(blame, not is_mine, twice)
        if is_mine:
            held.failures += 1
            held.parked = held.failures >= max_failures
            held.is_due_later = True
            held.let_go()
        attempt.open.remove(index)
        if not attempt.open:
            self._end(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), excuse=st.booleans(), twice=st.booleans())
    def give_up(self, data: st.DataObject, *, excuse: bool, twice: bool) -> None:
        attempt = self._any(data)
        if excuse:
            self._excuse(attempt, twice)
        else:
            self._release(attempt, twice)

    def _excuse(self, attempt: Attempt, twice: bool) -> None:
        mine = self._mine(attempt)
        failure = Failure(FailureKind.CONNECTION, "refused", "http://server")
        is_lost = len(mine) < len(attempt.open)
        ids = self._ids(attempt)
        self._do(lambda: attempt.store.excuse(ids, attempt.token, failure), is_lost, twice)
        for held in mine:
            held.is_due_later = False
            held.let_go()
        self._end(attempt)

    @rule()
    def retry_now(self) -> None:
        self.bench.stores[0].retry_now()
        for held in self.model:
            if not held.marked:
                held.forget_failures()

    # -- in every state -----------------------------------------------------------------------

    @invariant()
    def mongodb_holds_what_the_model_says(self) -> None:
        self.bench.steps += 1
        documents = list(self.world.chunks.find({}, {"data": 0}, sort=[("index", 1)]))
        for document, held in zip(documents, self.model, strict=True):
            stt = document.get("stt", {})
            assert (document["transcribed_at"] is not None) == held.marked
            assert stt.get("claim", {}).get("by") == held.holder
            assert stt.get("failures", 0) == held.failures
            assert ("parked_at" in stt) == held.parked
            assert not (held.marked and stt)

    @invariant()
    def the_promises_hold(self) -> None:
        owners = self.world.owners()
        assert set(owners.values()) <= {1}
        owned = {row["_id"] for row, held in zip(self.rows, self.model, strict=True) if held.owner}
        assert set(owners) == owned
        for held in self.model:
            assert not held.marked or held.owner or held.judged_empty

    def teardown(self) -> None:
        """Everybody dies; all claims expire; a plain run and one for the failed finish all."""
        claimed = {"stt.claim": {"$exists": True}}
        self.world.chunks.update_many(claimed, {"$set": {"stt.claim.until": PAST}})
        for only_failed in (False, True):
            self._process_all(only_failed=only_failed)
        assert self.world.pending() == []
        owners = self.world.owners()
        assert set(owners.values()) <= {1}
        for row, held in zip(self.rows, self.model, strict=True):
            assert row["_id"] in owners or held.judged_empty

    def _process_all(self, *, only_failed: bool) -> None:
        store = self.bench.stores[0]
        pending = list(store.pending(since=store.now(), only_failed=only_failed))
        for sequence in group(pending):
            claim = store.claim(sequence, f"token-{next(self.tokens)}")
            assert claim is not None
            owned = store.owned(self.recording, [chunk.id for chunk in claim.chunks])
            rest = [chunk for chunk in claim.chunks if identity(chunk.id) not in owned]
            for run in consecutive_runs(rest):
                assert store.save(self._transcript(run))
            store.mark([chunk.id for chunk in claim.chunks], claim.token)

    # -- helpers ------------------------------------------------------------------------------

    def _ref(self, index: int) -> ChunkRef:
        row = self.rows[index]
        return ChunkRef(row["_id"], self.recording, self.recording, index, row["start"])

    def _any(
        self, data: st.DataObject, condition: Callable[[Attempt], Any] = lambda _: True
    ) -> Attempt:
        return data.draw(st.sampled_from([a for a in self.attempts if condition(a)]))

    def _mine(self, attempt: Attempt) -> list[Held]:
        held = [self.model[index] for index in attempt.open]
        return [one for one in held if one.is_held_by(attempt.token)]

    def _ids(self, attempt: Attempt) -> list[Any]:
        return [self.rows[index]["_id"] for index in attempt.open]

    def _end(self, attempt: Attempt) -> None:
        self.attempts.remove(attempt)

    def _do(self, verb: Callable[[], None], is_lost: bool, twice: bool) -> None:
        """Call it, again if its answer was lost; it must say so when the claim was."""
        for _ in range(1 + twice):
            if is_lost:
                with pytest.raises(ClaimLost):
                    verb()
            else:
                verb()
        self._count("verbs of a lost claim" if is_lost else "verbs of a live claim")

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
    stores[0].ensure_indexes()
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
