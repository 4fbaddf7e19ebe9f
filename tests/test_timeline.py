"""Times by the clock: chunks of any length, clocks that drift and jump."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from stt_lib.domain.models import Chunk, Segment, Word
from stt_lib.domain.timeline import Timeline
from tests.local.sounds import encoded, tone
from tests.support.whisper import FakeWhisper, Reply, Request, transcription
from tests.support.world import START, World, chunk


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def audio(
    *lengths: float, starts: Sequence[float] | None = None, measured: bool = True
) -> list[Chunk]:
    begins = starts or list(accumulate(lengths[:-1], initial=0.0))
    return [
        Chunk(i, i, after(begin), b"", "opus", length, is_measured=measured)
        for i, (length, begin) in enumerate(zip(lengths, begins, strict=True))
    ]


def placed(chunks: list[Chunk], *spans: tuple[float, float]) -> list[tuple[float, float]]:
    segments = [Segment(start, end, "text") for start, end in spans]
    found = list(Timeline(chunks).place(segments))
    for segment in found:
        assert segment.start_at == after(segment.start)
        assert segment.end_at == after(segment.end)
    return [(segment.start, segment.end) for segment in found]


def test_positions_count_from_the_chunk_that_they_lie_in() -> None:
    chunks = audio(9.5, 10.0, 10.5, 10.0, starts=[0, 10, 20, 30])
    found = placed(chunks, (1, 9.5), (9.5, 10), (10.5, 19.5), (19.5, 30), (30, 40))
    assert found == [(1, 9.5), (10, 10.5), (11, 20), (20, 30.5), (30, 40)]


def test_a_clock_set_forward_moves_what_comes_after() -> None:
    chunks = audio(10, 10, 10, starts=[0, 10, 80])
    assert placed(chunks, (8, 12), (18, 20), (20, 22), (19, 21)) == [
        (8, 12),
        (18, 20),
        (80, 82),
        (80, 81),
    ]


def test_a_clock_set_back_moves_what_comes_after_but_not_before() -> None:
    chunks = audio(10, 10, 10, starts=[0, 10, 16])
    assert placed(chunks, (17, 19), (19, 21), (20.5, 22), (24, 26)) == [
        (17, 19),
        (19, 21),  # by the clock it would end before it began
        (19, 20.5),
        (20, 22),
    ]


def test_words_lie_where_their_segments_do() -> None:
    words = (Word(9, 10, " over", 0.9), Word(10, 10.4, " there", 0.8))
    [segment] = Timeline(audio(10, 10, starts=[0, 12])).place([Segment(9, 10.4, "", words=words)])
    assert [(w.start, w.end, w.probability) for w in segment.words] == [
        (9, 10, 0.9),
        (12, 12.4, 0.8),
    ]
    assert segment.words[1].start_at == after(12)
    assert (segment.start, segment.end) == (9, 12.4)


def test_what_lies_in_context_is_moved_to_the_edge() -> None:
    timeline = Timeline(audio(10, 10, 10), 1, 2)
    spans = [(8, 9), (9.5, 11), (19, 20.3), (25, 26)]
    found = list(timeline.place([Segment(start, end, "") for start, end in spans]))
    assert [(s.start, s.end) for s in found] == [(0, 0), (0, 1), (9, 10), (10, 10)]


def test_lengths_that_the_audio_does_not_tell_are_read_off_the_starts() -> None:
    chunks = audio(10, 10, 10, starts=[0, 9.5, 20], measured=False)
    assert placed(chunks, (1, 9.5), (9.5, 10), (20, 25)) == [(1, 9.5), (9.5, 10), (20, 25)]


lengths = st.lists(st.sampled_from([9.5, 9.9935, 10.0, 10.5]), min_size=1, max_size=6)


@given(lengths, st.data())
def test_times_never_run_backwards_nor_out_of_the_audio(
    lengths: list[float], data: st.DataObject
) -> None:
    starts = data.draw(
        st.lists(st.integers(0, 90), min_size=len(lengths), max_size=len(lengths)).map(sorted)
    )
    starts = [start - starts[0] for start in starts]
    moments = sorted(data.draw(st.lists(st.floats(-1, 70), min_size=2, max_size=20)))
    chunks = audio(*lengths, starts=starts)
    found = placed(chunks, *pairwise(moments))
    assert all(0 <= start <= end for start, end in found)
    assert all(a[0] <= b[0] for a, b in pairwise(found))
    length = (max(chunk.end for chunk in chunks) - chunks[0].start).total_seconds()
    assert all(start <= length + 0.001 for start, _ in found)


def test_documents_hold_the_times_of_the_clock(world: World, whisper: FakeWhisper) -> None:
    """Real Ogg Opus of 9.5, 10 and 10.5 s; the clock is set forward by a minute in the middle."""
    lengths = (9.5, 10.0, 10.5, 10.0)
    starts = (0.0, 9.5, 79.5, 90.0)
    for index, (seconds, begin) in enumerate(zip(lengths, starts, strict=True)):
        data = encoded(tone(seconds, rate=48_000), "ogg", "libopus")
        world.chunks.insert_one({**chunk("rec", index), "start": after(begin), "data": data})
    whisper.script = in_the_middle_of_each(lengths)
    assert world.run().returncode == 0
    [document] = world.transcriptions.find()
    assert document["start"].timestamp() == START.timestamp()
    assert document["duration"] == 100.0
    for segment, begin in zip(document["segments"], starts, strict=True):
        assert segment["start"] == begin + 4
        assert segment["end"] == begin + 5
        assert segment["start_at"].timestamp() == after(begin + 4).timestamp()
        assert segment["end_at"].timestamp() == after(begin + 5).timestamp()
        [word] = segment["words"]
        assert word["word"] == " there"
        assert word["start"] == begin + 4.5
        assert word["end_at"].timestamp() == after(begin + 5).timestamp()


def in_the_middle_of_each(lengths: tuple[float, ...]) -> Callable[[Request], Reply]:
    def script(_: Request) -> Reply:
        begins = accumulate(lengths[:-1], initial=0.0)
        return transcription([heard(begin) for begin in begins])

    def heard(begin: float) -> dict[str, object]:
        word = {"word": " there", "start": begin + 4.5, "end": begin + 5, "probability": 0.9}
        return {"start": begin + 4, "end": begin + 5, "text": " Over there.", "words": [word]}

    return script
