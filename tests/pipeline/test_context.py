"""Speech that is cut: whatever is said, refused and done in whichever order, no word is lost."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_lib.domain.models import ALL, ChunkSequence, Seam, Selection
from stt_lib.pipeline.retranscription import Retranscription, TranscriptSink
from stt_lib.pipeline.sources import PendingChunks
from stt_lib.servers.transport import Reply
from stt_lib.timing import REAL
from tests.pipeline.lab import Lab, Posted, Script, answer, refuse
from tests.support.manual_time import START
from tests.support.waiting import eventually

WORDS_PER_CHUNK = 5
VOCABULARY = ["one", "two", "three", "and", "then", "we", "came", "back"]


def number(text: str) -> int:
    return int(text.removeprefix("rec"))


class Speech:
    """What is said in each chunk, and a server that hears it in segments of some size.

    `is_timed` when it gives the times of words; `limit` is the number of files that it takes.
    """

    def __init__(self, said: list[list[str]], size: int, *, is_timed: bool, limit: int) -> None:
        self.said = said
        self._size = size
        self._is_timed = is_timed
        self._limit = limit

    @property
    def text(self) -> list[str]:
        return [word for chunk in self.said for word in chunk]

    def __call__(self, posted: Posted) -> Reply:
        if len(posted) > self._limit:
            return refuse(413)
        words = [
            {"word": f" {word}", "start": 10 * at + 2 * n + 0.2, "end": 10 * at + 2 * n + 1.8}
            for at, name in enumerate(posted)
            for n, word in enumerate(self.said[number(name)])
        ]
        groups = [words[at : at + self._size] for at in range(0, len(words), self._size)]
        return answer([self._segment(group) for group in groups])

    def _segment(self, words: list[dict[str, object]]) -> dict[str, object]:
        text = "".join(str(word["word"]) for word in words)
        segment = {"start": words[0]["start"], "end": words[-1]["end"], "text": text}
        return {**segment, "words": words} if self._is_timed else segment


def timed(words: str, *times: float) -> Reply:
    """One segment with words that begin at these times."""
    heard = [
        {"word": f" {word}", "start": at, "end": at + 0.3}
        for word, at in zip(words.split(), times, strict=True)
    ]
    segment = {"start": times[0], "end": times[-1] + 0.3, "text": words, "words": heard}
    return answer([segment])


def done_by_hand(lab: Lab, *periods: Selection, **options: Any) -> None:
    for period in (*periods, Selection()):
        store = lab.store()
        report = lab.runner(store, PendingChunks(store, period), **options).run()
        assert report.halted_by is None
    lab.assert_all_done()


def until(chunk: int) -> Selection:
    return Selection(until=START + timedelta(seconds=10 * chunk - 1))


def since(chunk: int) -> Selection:
    return Selection(since=START + timedelta(seconds=10 * chunk))


chunks = st.lists(st.sampled_from(VOCABULARY), min_size=5, max_size=5)
periods = st.lists(
    st.builds(lambda at, make: make(at), st.integers(1, 11), st.sampled_from([until, since])),
    max_size=3,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(chunks, min_size=12, max_size=12),
    st.sampled_from([1, 2, 5, 7]),
    periods,
    st.sampled_from([2, 3, 5, 99]),
    st.integers(1, 3),
)
def test_every_word_is_there_once_in_order(
    said: list[list[str]], size: int, first: list[Selection], limit: int, workers: int
) -> None:
    speech = Speech(said, size, is_timed=True, limit=limit)
    lab = Lab()
    lab.script = speech
    lab.record(range(12))
    done_by_hand(lab, *first, max_workers=workers)
    assert lab.text == speech.text


@pytest.mark.parametrize("is_timed", [False, True])
def test_a_refused_request_with_neighbours_takes_nothing_from_the_chunks_alone(
    is_timed: bool,
) -> None:
    """The words resemble those of the neighbours' transcripts, which are not in the request."""
    said = [["one", "two", "three", "one", "two"]] * 3
    speech = Speech(said, 5, is_timed=is_timed, limit=1)
    lab = Lab()
    lab.script = speech
    lab.record(range(3))
    done_by_hand(lab, until(1), since(2))
    assert lab.text == speech.text


def test_a_server_that_takes_at_most_thirty_files_loses_no_word() -> None:
    said = [[f"w{at}x{n}" for n in range(5)] for at in range(95)]
    speech = Speech(said, 4, is_timed=True, limit=30)
    lab = Lab()
    lab.script = speech
    lab.record(range(95))
    done_by_hand(lab)
    assert lab.text == speech.text


def at_once(posted: Posted) -> Reply:
    return answer([{"start": 0.0, "end": 0.0, "text": f" {text}"} for text in posted])


def in_milliseconds(posted: Posted) -> Reply:
    times = [(10_000 * n + 1000, 10_000 * n + 9000) for n in range(len(posted))]
    return answer(
        [{"start": a, "end": b, "text": text} for (a, b), text in zip(times, posted, strict=True)]
    )


def from_zero_in_each_file(posted: Posted) -> Reply:
    return answer([{"start": 1.0, "end": 9.0, "text": f" {text}"} for text in posted])


@pytest.mark.parametrize("script", [at_once, in_milliseconds, from_zero_in_each_file])
def test_times_that_a_server_makes_up_lose_no_word(script: Script) -> None:
    """By them, all text lies in the audio of a neighbour."""
    lab = Lab()
    lab.script = script
    lab.record(range(60))
    lab.run(max_workers=1)
    lab.assert_all_done()
    assert set(lab.text) == {f"rec{n}" for n in range(60)}


def test_late_chunks_in_the_middle_are_heard_with_both_neighbours() -> None:
    said = [[f"w{at}x{n}" for n in range(5)] for at in range(9)]
    speech = Speech(said, 3, is_timed=True, limit=99)
    lab = Lab()
    lab.script = speech
    lab.record([0, 1, 2, 6, 7, 8])
    done_by_hand(lab)
    lab.record([3, 4, 5])
    done_by_hand(lab)
    assert lab.requests[-1] == ("rec2", "rec3", "rec4", "rec5", "rec6")
    assert lab.text == speech.text


def test_a_seam_of_a_killed_worker_loses_no_word_when_its_chunks_are_posted_alone() -> None:
    said = [["one", "two", "three", "four", "five"], ["six", "seven", "eight", "nine", "ten"]]
    lab = Lab()
    lab.script = Speech(said, 5, is_timed=True, limit=1)
    lab.record(range(2))
    words, seconds = ("four", "five", "six", "seven"), (-3.0, -1.0, 0.1, 3.0)
    lab.store().seams.decide("rec", ("rec-0", "rec-1"), Seam(words, seconds, 3, 0.5), START)
    done_by_hand(lab, until(1))
    assert lab.text == ["one", "two", "three", "four", "five", "six", *said[1]]


def test_a_neighbour_that_was_saved_alone_during_the_request_keeps_its_last_words() -> None:
    """Its audio ended at the cut, where each request puts a word on its own side."""
    lab = Lab()
    lab.record([0])
    [first] = lab.planned()
    is_posted = threading.Event()
    pool = ThreadPoolExecutor(1)

    def script(posted: Posted) -> Reply:
        if len(posted) == 1:
            lab.record([1])
            [second] = [s for s in lab.planned() if s.newest.index == 1]
            pool.submit(lab.process, replace(second, chunks=second.chunks[-1:]))
            assert is_posted.wait(20)
            return timed("more Roman than that.", 8.0, 8.5, 9.0, 9.6)
        is_posted.set()
        eventually(lambda: len(lab.transcripts) == 1, what="the first transcript is saved")
        return timed("more Roman than that, yet scarcely", 8.0, 8.5, 9.83, 10.21, 10.7, 11.0)

    lab.script = script
    lab.process(first)
    pool.shutdown()
    assert lab.text == ["more", "Roman", "than", "that.", "yet", "scarcely"]


def test_a_decision_of_a_worker_whose_transcript_was_refused_does_not_count() -> None:
    """Two had the same chunk: one decided about "six", the other one saved without hearing it."""
    lab = Lab()
    lab.script = lambda posted: (
        timed("four five", 7.0, 9.0)
        if len(posted) == 1
        else timed("four five six seven", 7.0, 9.0, 10.1, 13.0)
    )
    lab.record([0])
    done_by_hand(lab)
    words, seconds = ("four", "five", "six", "seven"), (-3.0, -1.0, 0.2, 3.0)
    lab.store().seams.decide("rec", ("rec-0", "rec-1"), Seam(words, seconds, 3, 0.5), START)
    lab.record([1])
    done_by_hand(lab)
    assert lab.text == ["four", "five", "six", "seven"]
    assert [transcript.joined for transcript in lab.transcripts] == [(), ()]


@pytest.mark.parametrize("first", [until(1), since(1)])
def test_transcripts_name_the_neighbours_they_were_joined_with(first: Selection) -> None:
    said = [["one", "two", "three", "four", "five"], ["six", "seven", "eight", "nine", "ten"]]
    lab = Lab()
    lab.script = Speech(said, 1, is_timed=True, limit=3)
    lab.record(range(2))
    done_by_hand(lab, first)
    assert [transcript.joined for transcript in lab.transcripts] == [("rec-1",), ("rec-0",)]


# -- transcripts are replaced -----------------------------------------------------------------


def halves(posted: Posted) -> Reply:
    """Both chunks have the word at the cut when they are heard alone."""
    match posted:
        case ["rec0"]:
            return timed("four five six", 6.0, 8.0, 9.7)
        case ["rec1"]:
            return timed("six seven", 0.0, 3.0)
        case _:
            return timed("four five six seven", 6.0, 8.0, 9.7, 13.0)


def apart(posted: Posted) -> Reply:
    """Heard with the second chunk, the first one has no word more than alone."""
    if posted == ("rec0",):
        return timed("four five", 6.0, 8.0)
    return timed("four five six seven", 6.0, 8.0, 10.1, 13.0)


def transcribed(source: Retranscription, chunk: int) -> ChunkSequence:
    """What is planned for the transcript of one chunk."""
    found = source.sequences(run_started=START, excluding=())
    [sequence] = [s for s in found if s.chunks[0].id == f"rec-{chunk}"]
    return sequence


def replacement(lab: Lab, chunk: int) -> tuple[Any, Callable[[], object]]:
    """A connection, and what replaces the transcript of one chunk on it."""
    store = lab.store()
    source, sink = Retranscription(store, (), ALL, model=None), TranscriptSink(store, ())
    sequence = transcribed(source, chunk)
    return store, lambda: lab.process(sequence, store=store, source=source, sink=sink)


def run_both(
    lab: Lab, one: tuple[Any, Callable[[], object]], two: tuple[Any, Callable[[], object]]
) -> bool:
    """Let the second one work after the first has read a transcript, until it ends or waits.

    Returns whether it had to wait.
    """
    (store, run), (other, run_other) = one, two
    read, is_behind = store.transcripts.of_chunk, other.claims.is_behind
    has_waited = threading.Event()
    pool = ThreadPoolExecutor(1)
    others: list[Future[object]] = []
    looks: list[bool] = []

    def looked(*place: Any) -> bool:
        looks.append(is_behind(*place))
        if len(looks) > 1:
            has_waited.set()
        return looks[-1]

    def read_and_let_the_other_work(*place: Any) -> Any:
        found = read(*place)
        if not others:
            lab.timing.sleep(1.0)
            others.append(pool.submit(run_other))
            eventually(lambda: has_waited.is_set() or others[0].done(), what="it ends or waits")
        return found

    store.transcripts.of_chunk = read_and_let_the_other_work
    other.claims.is_behind = looked
    run()
    others[0].result(20)
    pool.shutdown()
    return has_waited.is_set()


@pytest.mark.parametrize("first", [0, 1])
def test_two_replacements_lose_no_word_though_one_text_was_saved_without_regard_to_the_seam(
    first: int,
) -> None:
    lab = Lab()
    lab.record([0])
    [ours] = lab.planned()

    def script(posted: Posted) -> Reply:
        if posted == ("rec0",):
            lab.record([1])
            [both] = lab.planned()
            lab.process(replace(both, chunks=both.chunks[1:]))
        return halves(posted)

    lab.script = script
    lab.process(ours)
    assert [transcript.joined for transcript in lab.transcripts] == [(), ("rec-0",)]
    lab.script = halves
    run_both(lab, replacement(lab, first), replacement(lab, 1 - first))
    assert lab.text == ["four", "five", "six", "seven"]


@pytest.mark.parametrize("first", [0, 1])
def test_two_replacements_lose_no_word_though_no_seam_was_decided(first: int) -> None:
    lab = Lab()
    lab.script = lambda posted: halves(posted) if len(posted) == 1 else refuse(413)
    lab.record(range(2))
    done_by_hand(lab)
    assert lab.text == ["four", "five", "six", "six", "seven"]
    lab.script = halves
    run_both(lab, replacement(lab, first), replacement(lab, 1 - first))
    assert lab.text == ["four", "five", "six", "seven"]


@pytest.mark.parametrize("is_replaced_first", [False, True])
def test_a_replacement_beside_a_pending_chunk_loses_no_word(is_replaced_first: bool) -> None:
    """The old text was saved without regard to what a killed worker had decided."""
    lab = Lab()
    lab.script = halves
    lab.record([0])
    done_by_hand(lab)
    words, seconds = ("four", "five", "six", "seven"), (-3.85, -1.85, -0.15, 3.15)
    lab.store().seams.decide("rec", ("rec-0", "rec-1"), Seam(words, seconds, 2, 0.0), START)
    lab.record([1])
    [sequence] = lab.planned()
    store = lab.store()
    pending = store, lambda: lab.process(sequence, store=store)
    both = [pending, replacement(lab, 0)]
    run_both(lab, *(reversed(both) if is_replaced_first else both))
    assert lab.text == ["four", "five", "six", "seven"]


def test_seams_that_both_sides_keep_let_them_be_replaced_at_the_same_time() -> None:
    lab = Lab()
    lab.script = halves
    lab.record(range(2))
    done_by_hand(lab, until(1))
    assert [transcript.joined for transcript in lab.transcripts] == [("rec-1",), ("rec-0",)]
    assert not run_both(lab, replacement(lab, 1), replacement(lab, 0))
    assert lab.text == ["four", "five", "six", "seven"]


def test_a_replacement_beside_a_pending_chunk_goes_by_the_seam_that_the_old_text_keeps() -> None:
    lab = Lab()
    lab.script = lambda posted: (
        timed("four five six seven", 6.0, 8.0, 9.4, 13.0)
        if len(posted) == 2
        else timed("four five si", 6.0, 8.0, 9.4)
    )
    lab.record(range(2))
    store = lab.store()
    lab.runner(store, PendingChunks(store, until(1))).run()
    assert [transcript.joined for transcript in lab.transcripts] == [("rec-1",)]
    _, replace_it = replacement(lab, 0)
    replace_it()
    done_by_hand(lab)
    assert lab.text == ["four", "five", "six", "seven"]


def test_a_word_that_a_pending_chunk_keeps_is_not_added_to_a_replacement() -> None:
    """The seam would leave "six" to the old text, which was saved without regard to it."""
    lab = Lab()
    lab.script = apart
    lab.record([0])
    done_by_hand(lab)
    words, seconds = ("four", "five", "six", "seven"), (-3.85, -1.85, 0.25, 3.15)
    lab.store().seams.decide("rec", ("rec-0", "rec-1"), Seam(words, seconds, 3, 0.0), START)
    lab.record([1])
    [sequence] = lab.planned()
    store = lab.store()
    run_both(lab, (store, lambda: lab.process(sequence, store=store)), replacement(lab, 0))
    assert lab.text == ["four", "five", "six", "seven"]


def test_a_replacement_that_waits_is_saved_after_a_stop_too() -> None:
    """The answer is there, and the other one ends within the time for requests in flight."""
    lab = Lab(timing=REAL)
    lab.script = lambda posted: halves(posted) if len(posted) == 1 else refuse(413)
    lab.record(range(2))
    done_by_hand(lab)
    lab.script = halves
    store, replace_it = replacement(lab, 0)
    other = lab.store()
    is_behind = store.claims.is_behind
    looks: list[bool] = []

    def looked(*place: Any) -> bool:
        looks.append(is_behind(*place))
        match len(looks):
            case 1:
                lab.stop.set()
            case 3:
                other.claims.release("other")
        return looks[-1]

    store.claims.is_behind = looked
    sequence = transcribed(Retranscription(other, (), ALL, model=None), 1)
    assert other.claims.acquire(sequence, "other", "other")
    replace_it()
    assert looks == [True, True, True, False]
    assert [transcript.revision for transcript in lab.transcripts] == [2, 1]


def test_replacing_the_later_transcript_first_loses_no_word() -> None:
    """The end of the earlier one says nothing of the words beyond it."""
    lab = Lab()
    lab.script = apart
    for index in (0, 1):
        lab.record([index])
        done_by_hand(lab)
    for _ in range(2):
        store = lab.store()
        source = Retranscription(store, (), ALL, model=None)
        lab.runner(store, source, TranscriptSink(store, ()), max_workers=1).run()
        assert lab.text == ["four", "five", "six", "seven"]
    assert {transcript.revision for transcript in lab.transcripts} == {3}
