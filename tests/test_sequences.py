"""Grouping: every chunk in exactly one sequence, whatever comes."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.domain.models import ChunkRef, ChunkSequence, Problem
from stt_lib.domain.sequences import LONGEST_SPAN, MAX_CHUNKS, PATIENCE, group, settled
from stt_lib.errors import FailureKind
from tests.support.world import START


def ref(recording: str, index: int, *, start: int | None = None, **more: object) -> ChunkRef:
    """A chunk ten seconds after the one before, unless `start` (seconds) says otherwise."""
    seconds = 10 * index if start is None else start
    return ChunkRef(
        id=f"{recording}{index}@{seconds}{more or ''}",
        original_id=recording,
        recording=recording,
        index=index,
        start=START + timedelta(seconds=seconds),
        **more,  # type: ignore[arg-type]
    )


def newest_first(chunks: list[ChunkRef]) -> list[ChunkRef]:
    """The order of the pending index."""
    return sorted(
        chunks,
        key=lambda c: (c.priority is not None, c.priority or 0, c.start or START, c.index or 0),
        reverse=True,
    )


def indexes(sequences: list[ChunkSequence]) -> list[list[int | None]]:
    return [[chunk.index for chunk in sequence.chunks] for sequence in sequences]


def test_a_gap_ends_a_sequence_and_the_chunk_in_hand_starts_the_next() -> None:
    chunks = newest_first([ref("a", i) for i in (0, 1, 3, 4, 5)])
    assert indexes(list(group(chunks))) == [[3, 4, 5], [0, 1]]


def test_chunks_that_are_minutes_apart_make_no_sequence_of_hours() -> None:
    chunks = newest_first([ref("a", i, start=240 * i) for i in range(30)])
    found = list(group(chunks))
    assert sum(map(len, found)) == 30
    for sequence in found:
        first, last = sequence.chunks[0].start, sequence.newest.start
        assert first is not None
        assert last is not None
        assert last - first <= LONGEST_SPAN


def test_the_cap_ends_a_sequence_and_repeats_no_chunk() -> None:
    found = list(group(newest_first([ref("a", i) for i in range(65)])))
    assert indexes(found) == [list(range(35, 65)), list(range(5, 35)), list(range(5))]


def test_recordings_that_run_at_the_same_time_do_not_cut_each_other() -> None:
    chunks = newest_first([ref(r, i) for r in "abc" for i in range(20)])
    assert sorted(map(len, group(chunks))) == [20, 20, 20]


def test_sequences_come_in_the_order_of_their_newest_chunks() -> None:
    long = [ref("long", i) for i in range(25)]
    short = [ref("short", 7, start=235), ref("short", 5, start=215)]
    found = list(group(newest_first(long + short)))
    assert [(s.original_id, len(s)) for s in found] == [("long", 25), ("short", 1), ("short", 1)]


def test_equal_starts_are_grouped_by_index() -> None:
    found = list(group(newest_first([ref("a", i, start=0) for i in range(4)])))
    assert indexes(found) == [[0, 1, 2, 3]]


def test_the_first_sequence_does_not_wait_for_the_end_of_the_backlog() -> None:
    def endless() -> object:
        yield ref("newest", 0, start=0)
        for i in range(10_000_000):
            yield ref("old", 10_000_000 - i, start=-int(PATIENCE.total_seconds()) - 10 * i - 1)

    assert next(iter(group(endless()))).original_id == "newest"  # type: ignore[arg-type]


def test_the_second_chunk_with_an_index_fails_alone() -> None:
    twin = ref("a", 3, start=31)
    found = list(group(newest_first([ref("a", i) for i in range(6)] + [twin])))
    whole = next(s for s in found if s.problem is None)
    alone = next(s for s in found if s.problem is not None)
    assert indexes([whole]) == [[0, 1, 2, 3, 4, 5]]
    assert alone.problem is not None
    assert alone.problem.kind is FailureKind.DUPLICATE_INDEX
    assert len(alone) == 1


def test_a_twin_of_the_last_chunk_before_the_cap_is_found_too() -> None:
    twin = ref("a", 5, start=49)
    found = list(group(newest_first([ref("a", i) for i in range(35)] + [twin])))
    assert sorted(len(s) for s in found if s.problem is None) == [5, 30]
    assert [len(s) for s in found if s.problem is not None] == [1]


def test_a_chunk_with_a_problem_does_not_cut_its_neighbours() -> None:
    bad = ref("a", 3, start=35, problem=Problem(FailureKind.INVALID_CHUNK, "no index"))
    found = list(group(newest_first([ref("a", i) for i in range(6)] + [bad])))
    assert indexes([s for s in found if s.problem is None]) == [[0, 1, 2, 3, 4, 5]]


def test_a_sequence_has_one_priority() -> None:
    chunks = [ref("a", i, priority=5.0 if i >= 4 else None) for i in range(8)]
    assert indexes(list(group(newest_first(chunks)))) == [[4, 5, 6, 7], [0, 1, 2, 3]]


def indexes_cut_at(probs: dict[int, float]) -> list[list[int | None]]:
    chunks = [replace(ref("a", i), prob=probs.get(i, 0.97)) for i in range(40)]
    return indexes(list(group(newest_first(chunks))))


def test_at_the_cap_the_cut_is_made_where_people_pause() -> None:
    assert [found[0] for found in indexes_cut_at({})] == [10, 0]
    assert [found[0] for found in indexes_cut_at({12: 0.55, 13: 0.6})] == [13, 0]
    assert [found[0] for found in indexes_cut_at({13: 0.55, 14: 0.9})] == [14, 0]
    assert [found[0] for found in indexes_cut_at({9: 0.5, 10: 0.6, 14: 0.6})] == [10, 0]


def test_a_pause_that_is_none_or_too_far_before_the_cap_is_passed_over() -> None:
    assert [found[0] for found in indexes_cut_at({13: 0.85, 14: 0.9})] == [10, 0]
    assert [found[0] for found in indexes_cut_at({16: 0.55, 17: 0.55})] == [10, 0]


def test_speech_that_just_fits_is_not_cut() -> None:
    chunks = [replace(ref("a", i), prob=0.55) for i in range(30)]
    assert indexes(list(group(newest_first(chunks)))) == [list(range(30))]


def test_the_order_stays_that_of_the_newest_chunks() -> None:
    """The rest before a pause is newer than what other recordings have brought meanwhile."""
    chunks = [replace(ref("a", i), prob=0.55 if i in (14, 15) else 0.97) for i in range(40)]
    others = [ref(name, 0, start=start) for name, start in (("b", 145), ("c", 125))]
    found = list(group(newest_first([*chunks, *others])))
    assert [(s.original_id, s.newest.index) for s in found] == [
        ("a", 39),
        ("b", 0),
        ("a", 14),
        ("c", 0),
    ]


def test_the_newest_sequence_of_a_growing_recording_is_left_alone_until_it_settles() -> None:
    chunks = [ref("a", i) for i in (*range(10), *range(12, 20))] + [ref("b", 0, start=500)]
    found = list(group(newest_first(chunks)))

    def left(seconds: float) -> list[tuple[object, int | None]]:
        age = timedelta(seconds=600)
        now = START + timedelta(seconds=seconds) + age
        return [(s.original_id, s.newest.index) for s in settled(found, now, age)]

    assert left(0) == [("a", 9)]
    assert left(199.9) == [("a", 9)]
    assert left(200) == [("a", 19), ("a", 9)]
    assert left(510) == [("b", 0), ("a", 19), ("a", 9)]


def test_a_chunk_dated_far_in_the_future_does_not_wait_for_that_day() -> None:
    ten_years = 10 * 365 * 86400
    found = list(group(newest_first([ref("a", 0, start=ten_years), ref("b", 0, start=100)])))
    age = timedelta(seconds=300)
    assert [s.original_id for s in settled(found, START, age)] == ["a"]
    assert [s.original_id for s in settled(found, START + timedelta(hours=1), age)] == ["a", "b"]


@pytest.mark.parametrize("cap", [1, 2, 30])
def test_the_cap_is_kept(cap: int) -> None:
    assert max(map(len, group(newest_first([ref("a", i) for i in range(40)]), cap))) == cap


chunk_refs = st.lists(
    st.builds(
        lambda *given, prob, **named: replace(ref(*given, **named), prob=prob),
        st.sampled_from("abc"),
        st.integers(0, 80),
        start=st.one_of(st.none(), st.integers(0, 900)),
        priority=st.sampled_from([None, None, None, 1.0, 2.0]),
        prob=st.one_of(st.none(), st.floats(0.5, 1)),
        problem=st.sampled_from([None] * 8 + [Problem(FailureKind.INVALID_CHUNK, "bad")]),
    ),
    max_size=120,
)


@given(chunk_refs, st.integers(1, MAX_CHUNKS))
def test_every_chunk_is_in_exactly_one_sequence(chunks: list[ChunkRef], cap: int) -> None:
    stream = newest_first(chunks)
    found = list(group(stream, cap))
    assert Counter(c.id for s in found for c in s.chunks) == Counter(c.id for c in stream)
    for sequence in found:
        numbers = [chunk.index for chunk in sequence.chunks]
        assert len(numbers) <= cap
        assert len({chunk.recording for chunk in sequence.chunks}) == 1
        if sequence.problem is None:
            first = numbers[0]
            assert first is not None
            assert numbers == list(range(first, first + len(numbers)))


@given(st.sets(st.integers(0, 100), min_size=1), st.sets(st.integers(0, 100)))
def test_recordings_with_gaps_make_as_few_sequences_as_possible(
    one: set[int], other: set[int]
) -> None:
    chunks = [ref("a", i) for i in one] + [ref("b", i, start=10 * i + 4) for i in other]
    found = list(group(newest_first(chunks)))
    assert len(found) == fewest(one) + fewest(other)


def fewest(numbers: set[int]) -> int:
    runs = [n for n in numbers if n - 1 not in numbers]
    lengths = [next(k for k in range(1, 102) if n + k not in numbers) for n in runs]
    return sum(-(-length // MAX_CHUNKS) for length in lengths)
