"""Replacing transcripts, on a store in memory."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from stt_lib.domain.models import (
    ALL,
    Condition,
    OldTranscript,
    Outcome,
    Revision,
    Selection,
    identity,
)
from stt_lib.pipeline.planner import plan
from stt_lib.pipeline.retranscription import Retranscription, TranscriptSink
from stt_lib.servers.transport import Reply
from stt_lib.timing import REAL
from tests.pipeline.lab import Lab, Posted, answer, echo, refuse
from tests.support.manual_time import START
from tests.support.memory_store import Away

OLD_SERVER = (Condition("server", "http://old"),)


def transcribed(count: int, chunks: int = 2) -> Lab:
    """A lab with recordings of one transcript each, an hour apart, made by another server."""
    lab = Lab(timing=REAL)
    for number in range(count):
        name = f"rec{number:03}."
        lab.record(range(chunks), name, start=START + timedelta(hours=number), transcribed_at=START)
        lab.database.transcripts.insert(
            {
                "_id": number,
                "original": name,
                "start": START + timedelta(hours=number),
                "end": START + timedelta(hours=number, seconds=10 * chunks),
                "chunk_ids": [f"{name}-{i}" for i in range(chunks)],
                "segments": [{"start": 0.0, "end": 5.0, "text": " old"}],
                "server": "http://old",
                "model": "old",
            }
        )
    return lab


def source(store: Any, *conditions: Condition, model: str | None = None) -> Retranscription:
    return Retranscription(store, conditions, ALL, model=model)


def run(lab: Lab, *conditions: Condition, **options: Any) -> dict[Outcome, int]:
    store = lab.store()
    runner = lab.runner(
        store, source(store, *conditions), TranscriptSink(store, conditions), **options
    )
    return runner.run().tally.counts


def texts(lab: Lab) -> list[str]:
    return [transcript.text for transcript in lab.transcripts]


def test_each_is_replaced_once_though_all_still_fulfil_the_condition() -> None:
    lab = transcribed(120)
    assert run(lab)[Outcome.TRANSCRIBED] == 120
    assert len(lab.requests) == 120
    assert {t["revision"] for t in lab.database.transcripts} == {2}
    assert len(list(lab.database.history)) == 120
    assert list(lab.database.claims) == []


def test_all_are_found_however_many_begin_at_the_same_time() -> None:
    """Read in several batches, each of which continues where the one before ended."""
    lab = transcribed(130, chunks=1)
    for document in list(lab.database.transcripts):
        if document["_id"] < 70:
            lab.database.transcripts.put({**document, "start": START})
    again = source(lab.store())
    found = []
    while True:
        sequences = again.sequences(run_started=START, excluding=())
        batch = [s for _, s in zip(range(40), sequences, strict=False)]
        if not batch:
            break
        found += [identity(s.revision.transcript_id) for s in batch if s.revision]
    assert len(set(found)) == 130


def test_what_somebody_replaced_meanwhile_is_skipped() -> None:
    lab = transcribed(1)
    store = lab.store()
    [sequence] = source(store).sequences(run_started=START, excluding=())
    assert sequence.revision == Revision(0, 1)
    run(lab)
    load = source(store).load(sequence)
    assert load.chunks == ()


def test_pending_chunks_and_transcripts_share_their_claims() -> None:
    lab = transcribed(2)
    other = lab.store()
    [_, held] = source(other).sequences(run_started=START, excluding=())
    assert other.claims.acquire(held, "other", "other")
    counts = run(lab, *OLD_SERVER, lease=3.0, max_runtime=1.0)
    assert counts[Outcome.TRANSCRIBED] == 1
    assert texts(lab) == ["old", "rec001.0 rec001.1"]
    other.claims.release("other")
    assert run(lab, *OLD_SERVER)[Outcome.TRANSCRIBED] == 1


def test_what_others_held_is_tried_once_more_at_the_end() -> None:
    lab = transcribed(3)
    other = lab.store()
    held = list(source(other).sequences(run_started=START, excluding=()))[1]
    assert other.claims.acquire(held, "other", "other")

    def release(posted: Posted) -> Reply:
        other.claims.release("other")
        return echo(posted)

    lab.script = release
    assert run(lab)[Outcome.TRANSCRIBED] == 3


def test_where_nothing_better_is_heard_the_old_text_stays() -> None:
    lab = transcribed(3)

    def script(posted: Posted) -> Reply:
        if posted[0].startswith("rec000"):
            return answer([])
        return refuse(415) if posted[0].startswith("rec001") else echo(posted)

    lab.script = script
    counts = run(lab)
    assert (counts[Outcome.EMPTY], counts[Outcome.ERROR], counts[Outcome.TRANSCRIBED]) == (1, 1, 1)
    assert texts(lab) == ["old", "old", "rec002.0 rec002.1"]
    assert list(lab.database.claims) == []
    assert all("stt" not in chunk for chunk in lab.database.chunks)


def test_text_that_the_filter_dropped_is_asked_for_again() -> None:
    lab = transcribed(1)
    thanks = {"start": 0.0, "end": 2.0, "text": " Thanks for watching!", "no_speech_prob": 0.9}
    named = {"model": "large", "language": "en", "segments": [thanks]}
    lab.script = lambda posted: Reply(200, {}, json.dumps(named).encode())
    for level, outcome in (("strict", Outcome.EMPTY), ("off", Outcome.TRANSCRIBED)):
        store = lab.store()
        again = source(store, model="large")
        report = lab.runner(store, again, TranscriptSink(store, ()), filter=level).run()
        assert report.tally.counts[outcome] == 1
    assert texts(lab) == ["Thanks for watching!"]


def test_none_is_passed_over_when_the_query_breaks_off() -> None:
    lab = transcribed(60)
    store = lab.store()
    complete = store.transcripts.to_retranscribe
    breaks = iter([True])

    def to_retranscribe(selection: Selection, *, before: Any = None) -> Iterator[OldTranscript]:
        for number, old in enumerate(complete(selection, before=before)):
            if number == 55 and next(breaks, False):
                raise Away("for a moment")
            yield old

    store.transcripts.to_retranscribe = to_retranscribe
    batch = plan(store, source(store), run_started=START, excluding=(), size=80)
    assert len(batch.sequences) == len(set(batch.sequences)) == 60
    assert next(breaks, None) is None


def test_lost_audio_is_left_as_it_is() -> None:
    lab = transcribed(3)
    lab.database.chunks.remove("rec000.-1")
    lab.database.chunks.put({**(lab.database.chunks.get("rec001.-0") or {}), "data": None})
    assert run(lab)[Outcome.TRANSCRIBED] == 1
    assert texts(lab)[:2] == ["old", "old"]


def test_a_replacement_is_not_posted_with_a_pending_neighbour() -> None:
    """It may not be saved in the end, and must not have decided where the two meet."""
    lab = transcribed(1)
    lab.record([2], "rec000.", start=START)
    run(lab)
    assert lab.requests == [("rec000.0", "rec000.1")]


def test_a_replacement_is_posted_with_its_transcribed_neighbour() -> None:
    lab = transcribed(1)
    lab.record([2], "rec000.", start=START, transcribed_at=START)
    run(lab)
    assert lab.requests == [("rec000.0", "rec000.1", "rec000.2")]
