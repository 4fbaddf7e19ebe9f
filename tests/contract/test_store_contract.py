"""What every store does: MongoDB's, and the one in memory that tests and the simulation use."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stt_lib.domain.models import ALL, Failure, Seam, Segment, Selection, Transcript, identity
from stt_lib.errors import FailureKind
from tests.contract.conftest import LEASE, Bench, document, reference, sequence, transcript
from tests.support.manual_time import START


class Standing(datetime):
    """A clock by which everything happens in the same millisecond."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return START.astimezone(tz)


FAILURE = Failure(FailureKind.INVALID_AUDIO, "not audio", "http://stt:8000")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def pending(bench: Bench, **options: Any) -> list[Any]:
    found = bench.store.chunks.pending(**{"run_started": bench.store.now(), **options})
    return [chunk.id for chunk in found]


def loaded(bench: Bench, *indexes: int, **options: Any) -> Any:
    given = {"run_started": bench.store.now(), **options}
    return bench.store.chunks.load(sequence(*indexes), **given)


def fail(bench: Bench, index: int, **options: Any) -> None:
    given: dict[str, Any] = {
        "attempt": "attempt",
        "audio_at_fault": True,
        "due_in": 60.0,
        "max_failures": 3,
    }
    bench.store.failures.record([f"rec-{index}"], FAILURE, **{**given, **options})


def ids(*indexes: int) -> frozenset[Any]:
    return frozenset(identity(f"rec-{index}") for index in indexes)


class TestPending:
    def test_newest_first(self, bench: Bench) -> None:
        for index in (0, 2, 1):
            bench.insert(document(index))
        assert pending(bench) == ["rec-2", "rec-1", "rec-0"]

    def test_a_higher_priority_comes_first(self, bench: Bench) -> None:
        for index, fields in enumerate([{"priority": 5}, {}, {"priority": 1}]):
            bench.insert(document(index, **fields))
        assert pending(bench) == ["rec-0", "rec-2", "rec-1"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"vad": {"has_speech": False}},
            {"vad": None},
            {"transcribed_at": START},
            {"stt": {"parked_at": START}},
            {"stt": {"retry_at": LATER}},
        ],
    )
    def test_only_what_may_be_worked_on(self, bench: Bench, fields: dict[str, Any]) -> None:
        bench.insert(document(0, **fields))
        bench.insert(document(1))
        assert pending(bench) == ["rec-1"]

    def test_a_missing_mark_is_no_mark(self, bench: Bench) -> None:
        chunk = document(0)
        del chunk["transcribed_at"]
        bench.insert(chunk)
        assert pending(bench) == ["rec-0"]

    def test_claims_are_not_looked_at(self, bench: Bench) -> None:
        bench.insert(document(0))
        bench.store.claims.acquire(sequence(0), "token", "worker")
        assert pending(bench) == ["rec-0"]

    def test_exclusions_and_selections(self, bench: Bench) -> None:
        for index in range(4):
            bench.insert(document(index))
        bench.insert(document(9, recording="other"))
        until = START + timedelta(seconds=30)
        selection = Selection(START + timedelta(seconds=10), until, "rec")
        assert pending(bench, selection=selection) == ["rec-2", "rec-1"]
        assert pending(bench, selection=selection, excluding=ids(2)) == ["rec-1"]
        assert bench.store.chunks.count_pending(selection) == 2
        assert bench.store.chunks.count_pending(ALL) == 5

    def test_failed_ones_alone_are_those_that_failed_before_the_run(self, bench: Bench) -> None:
        for index in range(3):
            bench.insert(document(index))
        fail(bench, 0, max_failures=1)
        bench.wait(0.01)
        started = bench.store.now()
        bench.wait(0.01)
        fail(bench, 1)
        assert pending(bench, only_failed=True, run_started=started) == ["rec-0"]
        assert bench.store.chunks.count_pending(only_failed=True) == 2

    def test_the_first_and_the_last(self, bench: Bench) -> None:
        for index in range(5):
            bench.insert(document(index))
        first, last = bench.store.chunks.first_and_last_pending(2)
        assert [chunk.index for chunk in first] == [4, 3]
        assert [chunk.index for chunk in last] == [1, 0]

    def test_a_reference_holds_no_audio(self, bench: Bench) -> None:
        bench.insert(document(0, priority=3))
        [found] = bench.store.chunks.pending(run_started=bench.store.now())
        assert found == replace(reference(0), prob=0.9, priority=3.0)


class TestClaims:
    def test_of_two_that_share_a_chunk_one_is_refused_whole(self, bench: Bench) -> None:
        claims = bench.store.claims
        assert claims.acquire(sequence(0, 1), "first", "worker")
        assert not claims.acquire(sequence(1, 2), "second", "worker")
        assert claims.acquire(sequence(2, 3), "third", "worker")
        assert claims.held(["rec-0", "rec-1", "rec-2", "rec-4"]) == ids(0, 1, 2)

    def test_acquiring_again_with_the_same_token_succeeds(self, bench: Bench) -> None:
        assert bench.store.claims.acquire(sequence(0), "token", "worker")
        assert bench.store.claims.acquire(sequence(0), "token", "worker")

    def test_what_is_released_can_be_acquired(self, bench: Bench) -> None:
        claims = bench.store.claims
        claims.acquire(sequence(0), "first", "worker")
        claims.release("first")
        claims.release("first")
        assert claims.acquire(sequence(0), "second", "worker")

    def test_an_expired_claim_holds_until_it_is_deleted(self, bench: Bench) -> None:
        claims = bench.store.claims
        claims.acquire(sequence(0), "first", "worker")
        bench.wait(LEASE + 0.1)
        assert not claims.acquire(sequence(0), "second", "worker")
        assert claims.delete_expired() == 1
        assert claims.acquire(sequence(0), "second", "worker")

    def test_a_renewed_claim_does_not_expire(self, bench: Bench) -> None:
        claims = bench.store.claims
        claims.acquire(sequence(0), "token", "worker")
        bench.wait(LEASE * 0.8)
        assert claims.renew(["token"]) == frozenset()
        bench.wait(LEASE * 0.8)
        assert claims.delete_expired() == 0

    def test_renewing_names_what_is_gone_and_does_not_bring_it_back(self, bench: Bench) -> None:
        claims = bench.store.claims
        claims.acquire(sequence(0), "kept", "worker")
        claims.acquire(sequence(1), "gone", "worker")
        claims.release("gone")
        assert claims.renew(["kept", "gone"]) == {"gone"}
        assert set(claims.live()) == {"kept"}
        assert claims.renew([]) == frozenset()

    def test_live_claims_end_after_the_lease(self, bench: Bench) -> None:
        before = bench.store.now()
        bench.store.claims.acquire(sequence(0), "token", "worker")
        until = bench.store.claims.live()["token"]
        assert before <= until - timedelta(seconds=LEASE) <= bench.store.now()

    def test_a_claim_is_behind_an_older_one_while_that_one_lasts(self, bench: Bench) -> None:
        claims = bench.store.claims
        assert not claims.is_behind("new", "rec-0")
        claims.acquire(sequence(0, 1), "old", "worker")
        bench.wait(LEASE * 0.6)
        claims.acquire(sequence(2), "new", "worker")
        assert claims.is_behind("new", "rec-1")
        assert not claims.is_behind("old", "rec-2")
        assert not claims.is_behind("new", "rec-3")
        bench.wait(LEASE * 0.6)
        assert not claims.is_behind("new", "rec-1"), "its holder is dead or frozen"
        claims.renew(["old"])
        assert claims.is_behind("new", "rec-1")
        claims.release("old")
        assert not claims.is_behind("new", "rec-1")

    def test_holders(self, bench: Bench) -> None:
        claims = bench.store.claims
        claims.acquire(sequence(0), "a", "one")
        claims.acquire(sequence(1, 2), "b", "two")
        claims.acquire(sequence(3), "c", "two")
        found = [(h.worker, h.claims, h.chunks) for h in claims.holders()]
        assert found == [("two", 2, 3), ("one", 1, 1)]


class TestLoad:
    def test_chunks_oldest_first_with_audio(self, bench: Bench) -> None:
        for index in range(3):
            bench.insert(document(index, data=b"audio %d" % index))
        found = loaded(bench, 0, 1, 2)
        assert [(c.index, c.data) for c in found.chunks] == [
            (0, b"audio 0"),
            (1, b"audio 1"),
            (2, b"audio 2"),
        ]
        assert found.owned == frozenset()

    @pytest.mark.parametrize(
        "fields",
        [
            {"vad": {"has_speech": False}},
            {"transcribed_at": START},
            {"stt": {"parked_at": START}},
            {"stt": {"retry_at": LATER}},
        ],
    )
    def test_a_stale_plan_is_harmless(self, bench: Bench, fields: dict[str, Any]) -> None:
        bench.insert(document(0))
        bench.insert(document(1, **fields))
        assert [chunk.index for chunk in loaded(bench, 0, 1, 2).chunks] == [0]

    def test_failed_since_the_run_began(self, bench: Bench) -> None:
        bench.insert(document(0))
        bench.insert(document(1))
        fail(bench, 0, due_in=0.0)
        bench.wait(0.01)
        started = bench.store.now()
        bench.wait(0.01)
        fail(bench, 1, due_in=0.0)
        found = loaded(bench, 0, 1, run_started=started, only_failed=True)
        assert [chunk.index for chunk in found.chunks] == [0]

    def test_owned_ones_are_named(self, bench: Bench) -> None:
        for index in range(3):
            bench.insert(document(index))
        assert bench.store.transcripts.save(transcript(bench, 0, 1))
        found = loaded(bench, 1, 2)
        assert [chunk.index for chunk in found.chunks] == [1, 2]
        assert found.owned == ids(1)

    def test_neighbours(self, bench: Bench) -> None:
        for index in range(5):
            bench.insert(document(index))
        bench.insert(document(1, recording="other"))
        found = loaded(bench, 2, 3)
        assert sorted(chunk.id for chunk in found.neighbours) == ["rec-1", "rec-4"]
        again = bench.store.chunks.neighbours("rec", found.chunks)
        assert sorted(chunk.id for chunk in again) == ["rec-1", "rec-4"]

    def test_a_silent_chunk_is_no_neighbour(self, bench: Bench) -> None:
        bench.insert(document(0, vad={"has_speech": False}))
        bench.insert(document(1))
        assert loaded(bench, 1).neighbours == ()

    def test_done_neighbours_count(self, bench: Bench) -> None:
        bench.insert(document(0, transcribed_at=START))
        bench.insert(document(1))
        [neighbour] = loaded(bench, 1).neighbours
        assert (neighbour.index, neighbour.is_done) == (0, True)

    def test_audio_and_existing(self, bench: Bench) -> None:
        bench.insert(document(0, transcribed_at=START))
        bench.insert(document(1, transcribed_at=START))
        wanted = ["rec-1", "rec-7", "rec-0"]
        assert [chunk.index for chunk in bench.store.chunks.audio(wanted)] == [1, 0]
        assert bench.store.chunks.existing(wanted) == ids(0, 1)


class TestMark:
    @pytest.mark.parametrize("is_backed", [True, False])
    def test_a_mark_leaves_nothing_else_of_ours(self, bench: Bench, is_backed: bool) -> None:
        bench.insert(document(0))
        fail(bench, 0)
        bench.store.chunks.mark(["rec-0"], is_backed=is_backed)
        chunk = bench.chunk("rec-0")
        assert isinstance(chunk["transcribed_at"], datetime)
        assert "stt" not in chunk
        assert pending(bench) == []

    def test_marked_chunks_keep_their_first_mark(self, bench: Bench) -> None:
        bench.insert(document(0, transcribed_at=START))
        bench.store.chunks.mark(["rec-0"], is_backed=True)
        assert bench.chunk("rec-0")["transcribed_at"] == START


class TestFailures:
    def test_a_failure_is_recorded_once_per_attempt(self, bench: Bench) -> None:
        bench.insert(document(0))
        fail(bench, 0, attempt="one")
        fail(bench, 0, attempt="one")
        stt = bench.chunk("rec-0")["stt"]
        assert (stt["failures"], len(stt["history"])) == (1, 1)
        assert stt["error"]["kind"] == "invalid_audio"
        assert pending(bench) == []

    def test_it_is_due_again_later(self, bench: Bench) -> None:
        bench.insert(document(0))
        fail(bench, 0, due_in=0.2)
        assert pending(bench) == []
        bench.wait(0.3)
        assert pending(bench) == ["rec-0"]

    def test_audio_that_failed_too_often_is_parked(self, bench: Bench) -> None:
        bench.insert(document(0))
        for attempt in ("one", "two"):
            fail(bench, 0, attempt=attempt, due_in=0.0, max_failures=2)
        assert "parked_at" in bench.chunk("rec-0")["stt"]
        [kind] = bench.store.failures.kinds()
        assert (kind.kind, kind.chunks, kind.parked, kind.due) == ("invalid_audio", 1, 1, 0)

    def test_a_failure_of_the_server_never_parks(self, bench: Bench) -> None:
        bench.insert(document(0))
        for attempt in ("one", "two", "three", "four"):
            fail(bench, 0, attempt=attempt, audio_at_fault=False, due_in=0.0)
        [found] = loaded(bench, 0).chunks
        assert (found.failures, found.excuses) == (0, 4)

    def test_a_marked_chunk_does_not_fail(self, bench: Bench) -> None:
        bench.insert(document(0, transcribed_at=START))
        fail(bench, 0)
        assert "stt" not in bench.chunk("rec-0")

    def test_retrying_now(self, bench: Bench) -> None:
        for index in range(2):
            bench.insert(document(index))
        fail(bench, 0, max_failures=1)
        fail(bench, 1)
        assert bench.store.failures.count(None, "rec-0") == 1
        assert bench.store.failures.retry_now("invalid_audio", None) == 2
        assert pending(bench) == ["rec-1", "rec-0"]

    def test_stories(self, bench: Bench) -> None:
        bench.insert(document(0))
        fail(bench, 0)
        [story] = bench.store.failures.stories("rec")
        assert (story.id, [past.kind for past in story.history]) == ("rec-0", ["invalid_audio"])


@pytest.fixture
def _clocks_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes in the same millisecond must be told apart."""
    monkeypatch.setattr("stt_lib.store.transcripts.datetime", Standing)


def said(new: Transcript, text: str) -> Transcript:
    return replace(new, segments=(Segment(0.0, 1.0, f" {text}"),))


def stored(bench: Bench) -> tuple[str, int]:
    """The text of the first chunk's transcript, and its revision."""
    found = bench.store.transcripts.of_chunk("rec", "rec-0")
    assert found is not None
    return found.text, found.revision


@pytest.mark.usefixtures("_clocks_stand")
class TestTranscripts:
    def test_what_is_saved_is_read_again(self, bench: Bench) -> None:
        saved = transcript(bench, 0, 1)
        assert bench.store.transcripts.save(saved)
        found = bench.store.transcripts.of_chunk("rec", "rec-1")
        assert found is not None
        assert (found.id, found.text, found.chunk_ids) == (saved.id, saved.text, saved.chunk_ids)
        assert bench.store.transcripts.of_chunk("rec", "rec-2") is None
        assert [t.id for t in bench.store.transcripts.all()] == [saved.id]

    def test_a_chunk_has_one_owner(self, bench: Bench) -> None:
        assert bench.store.transcripts.save(transcript(bench, 0, 1))
        assert not bench.store.transcripts.save(transcript(bench, 1, 2))
        assert bench.store.transcripts.save(transcript(bench, 2))
        assert bench.store.transcripts.owned("rec", ["rec-0", "rec-2", "rec-3"]) == ids(0, 2)

    def test_saving_the_same_again_succeeds(self, bench: Bench) -> None:
        saved = transcript(bench, 0)
        assert bench.store.transcripts.save(saved)
        assert bench.store.transcripts.save(saved)

    def test_the_same_id_in_another_recording_is_another_chunk(self, bench: Bench) -> None:
        mine = transcript(bench, 0)
        assert bench.store.transcripts.save(mine)
        other = replace(mine, id=bench.store.transcripts.new_id(), original_id="other")
        assert bench.store.transcripts.save(other)

    def test_each_revision_is_written_once(self, bench: Bench) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        second = replace(first, revision=2)
        assert bench.store.transcripts.replace(said(second, "better"))
        assert not bench.store.transcripts.replace(said(second, "late"))
        assert stored(bench) == ("better", 2)

    def test_one_of_several_that_replace_a_revision_at_once_knows_that_it_did(
        self, bench: Bench
    ) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        together = threading.Barrier(3)

        def write(number: int, revision: int) -> bool:
            together.wait(20)
            new = said(replace(first, revision=revision), f"by {number}")
            return bench.store.transcripts.replace(new)

        with ThreadPoolExecutor(3) as writers:
            for revision in range(2, 12):
                verdicts = list(writers.map(write, range(3), 3 * [revision]))
                assert verdicts.count(True) == 1
                assert stored(bench) == (f"by {verdicts.index(True)}", revision)

    def test_a_replacement_whose_answer_was_lost_was_made(self, bench: Bench) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        second = replace(first, revision=2)
        verdicts = []
        bench.lose_answer(
            lambda: verdicts.append(bench.store.transcripts.replace(said(second, "late")))
        )
        assert bench.store.transcripts.replace(said(second, "mine"))
        assert verdicts == [False]
        assert stored(bench) == ("mine", 2)

    def test_a_replacement_of_somebody_else_stays_his_when_the_answer_to_us_was_lost(
        self, bench: Bench
    ) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        second = replace(first, revision=2)
        assert bench.store.transcripts.replace(said(second, "his"))
        bench.lose_answer(lambda: None)
        assert not bench.store.transcripts.replace(said(second, "mine"))
        assert stored(bench) == ("his", 2)

    def test_a_replacement_was_made_though_the_next_one_came_before_it_was_repeated(
        self, bench: Bench
    ) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        third = said(replace(first, revision=3), "next")
        bench.lose_answer(lambda: bench.store.transcripts.replace(third))
        assert bench.store.transcripts.replace(said(replace(first, revision=2), "mine"))
        assert stored(bench) == ("next", 3)

    def test_which_revision_is_current(self, bench: Bench) -> None:
        first = transcript(bench, 0)
        bench.store.transcripts.save(first)
        [old] = bench.store.transcripts.to_retranscribe(ALL)
        assert bench.store.transcripts.is_current(old.revision)
        bench.store.transcripts.replace(replace(first, revision=2))
        assert not bench.store.transcripts.is_current(old.revision)

    def test_nothing_heard_is_noted_on_the_revision(self, bench: Bench) -> None:
        bench.store.transcripts.save(transcript(bench, 0))
        [old] = bench.store.transcripts.to_retranscribe(ALL)
        bench.store.transcripts.note_nothing_heard(replace(old.revision, number=2), "large")
        assert [t.heard_nothing for t in bench.store.transcripts.to_retranscribe(ALL)] == [None]
        bench.store.transcripts.note_nothing_heard(old.revision, "large")
        assert [t.heard_nothing for t in bench.store.transcripts.to_retranscribe(ALL)] == ["large"]

    def test_old_transcripts_newest_first(self, bench: Bench) -> None:
        for index in (0, 2, 1):
            bench.store.transcripts.save(transcript(bench, index))
        found = list(bench.store.transcripts.to_retranscribe(ALL))
        assert [old.chunk_ids for old in found] == [("rec-2",), ("rec-1",), ("rec-0",)]
        before = START + timedelta(seconds=10)
        rest = bench.store.transcripts.to_retranscribe(ALL, before=before)
        assert [old.chunk_ids for old in rest] == [("rec-1",), ("rec-0",)]
        [(origin, count)] = bench.store.transcripts.count_by_origin(ALL)
        assert (origin.model, count) == ("tiny", 3)

    def test_a_transcribed_twin(self, bench: Bench) -> None:
        bench.insert(document(0))
        bench.insert({**document(0), "_id": "twin"})
        [chunk] = bench.store.chunks.audio(["twin"])
        assert not bench.store.chunks.has_transcribed_twin("rec", chunk)
        bench.store.transcripts.save(transcript(bench, 0))
        assert bench.store.chunks.has_transcribed_twin("rec", chunk)
        [itself] = bench.store.chunks.audio(["rec-0"])
        assert not bench.store.chunks.has_transcribed_twin("rec", itself)


class TestSeams:
    def test_the_first_decision_stands(self, bench: Bench) -> None:
        bench.insert(document(0))
        ours = Seam(("one", "two"), (-0.5, 0.5), 1, 0.1)
        theirs = Seam(("one",), (0.2,), 0, 0.0)
        pair = ("rec-0", "rec-1")
        assert bench.store.seams.find("rec", pair) is None
        assert bench.store.seams.decide("rec", pair, ours, START) == ours
        assert bench.store.seams.decide("rec", pair, theirs, START) == ours
        assert bench.store.seams.find("rec", pair) == ours
        assert bench.store.seams.find("rec", ("rec-1", "rec-2")) is None


class TestPriorities:
    def test_a_recording_comes_first_and_no_longer(self, bench: Bench) -> None:
        bench.insert(document(0))
        bench.insert(document(9, recording="other"))
        assert bench.store.chunks.prioritize("rec", 5) == 1
        assert pending(bench) == ["rec-0", "other-9"]
        assert bench.store.chunks.prioritize("rec", 0) == 1
        assert pending(bench) == ["other-9", "rec-0"]


def test_missing_indexes_are_created(bench: Bench) -> None:
    bench.store.indexes.ensure()
    assert list(bench.store.indexes.missing()) == []


def test_with_retries_returns_what_the_operation_does(bench: Bench) -> None:
    assert bench.store.with_retries(lambda: 7) == 7
