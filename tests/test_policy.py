"""Pure policy: delays, durations, the circuit breaker, the search for a bad chunk."""

import math
import random
import re
import struct
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.audio import ogg
from stt_lib.audio.decoding import decode
from stt_lib.domain import backoff
from stt_lib.domain.bisection import Heard, Unusable, salvage
from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import AudioRejected, FailureKind, ServerTrouble, Suspect
from stt_lib.local.ingest import SAMPLES
from stt_lib.servers.health import LONGEST_REST_SECONDS, THRESHOLD, Breaker
from tests.support.world import START

# -- backoff ----------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 1e6), st.integers())
def test_delays_are_capped_and_never_nothing(
    attempt: int, base: float, cap: float, seed: int
) -> None:
    seconds = backoff.delay(attempt, base, cap, random.Random(seed))
    assert 0 < seconds <= cap
    assert seconds <= base * 2.0 ** min(attempt - 1, 64)


@given(st.integers(1, 30), st.integers())
def test_the_least_delay_doubles(attempt: int, seed: int) -> None:
    assert backoff.delay(attempt, 1, 1e12, random.Random(seed)) >= 2.0 ** (attempt - 2)


def test_delays_are_spread() -> None:
    rng = random.Random(7)
    assert len({backoff.delay(3, 1, 60, rng) for _ in range(50)}) == 50


@given(st.integers(0, 10_000), st.integers())
def test_later_runs_wait_longer_but_never_more_than_a_day(failures: int, seed: int) -> None:
    seconds = backoff.later_run_delay(failures, random.Random(seed))
    assert 150 <= seconds <= 24 * 3600
    if failures >= 6:
        assert seconds >= 12 * 3600


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        backoff.delay(0, 1, 1, random.Random())


# -- durations of Ogg Opus --------------------------------------------------------------------


def page(granule: int, body: bytes) -> bytes:
    lengths = [255] * (len(body) // 255) + [len(body) % 255]
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, granule, 1, 0, 0, len(lengths))
    return head + bytes(lengths) + body


def opus_file(samples: int, pre_skip: int = 312) -> bytes:
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, pre_skip, 48000, 0, 0)
    return page(0, head) + page(0, b"OpusTags" + bytes(600)) + page(samples + pre_skip, b"a" * 300)


def seconds(data: bytes) -> float:
    opus = ogg.read(data)
    assert opus is not None
    return opus.seconds


@given(st.integers(1, 48_000 * 600), st.integers(0, 4000))
def test_the_duration_is_the_last_granule_less_the_pre_skip(count: int, skip: int) -> None:
    assert seconds(opus_file(count, skip)) == pytest.approx(count / 48_000)


def test_chained_files_add_up() -> None:
    assert seconds(opus_file(48_000) + opus_file(24_000)) == pytest.approx(1.5)


@given(st.binary(max_size=200))
def test_garbage_has_no_duration(data: bytes) -> None:
    assert ogg.read(data) is None


@given(st.integers(0, 3000))
def test_a_truncated_file_is_read_as_far_as_it_goes(length: int) -> None:
    """Decoders leave out the page that is incomplete."""
    first, both = opus_file(48_000), opus_file(48_000) + opus_file(24_000)
    ends_of_pages = {len(both), *(match.start() for match in re.finditer(b"OggS", both))}
    cut = both[:length]
    opus = ogg.read(cut)
    if len(cut) < len(first):
        assert opus is None
    else:
        assert opus is not None
        assert opus.seconds == pytest.approx(1.5 if cut == both else 1.0)
        assert opus.is_whole == (len(cut) in ends_of_pages)


def test_a_real_file_that_is_cut_off_is_as_long_as_what_can_be_decoded() -> None:
    whole = SAMPLES[0].read_bytes()
    cut = whole[: len(whole) // 2]
    opus = ogg.read(cut)
    assert opus is not None
    assert not opus.is_whole
    assert opus.seconds == pytest.approx(decode(cut, "half").size / 16_000, abs=0.02)


def test_real_recordings_are_measured_to_the_sample() -> None:
    assert seconds(SAMPLES[0].read_bytes()) == pytest.approx(33.76, abs=0.05)


# -- the circuit breaker ----------------------------------------------------------------------


def breaker() -> Breaker:
    return Breaker(random.Random(1))


def test_a_server_rests_after_failures_in_a_row() -> None:
    b = breaker()
    assert [b.failure(0.0) for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]
    assert not b.closed


def test_a_success_between_failures_starts_the_count_again() -> None:
    b = breaker()
    for _ in range(10):
        assert not b.failure(0.0)
        assert not b.success()
    assert b.closed


def test_one_certain_failure_is_enough() -> None:
    b = breaker()
    assert b.failure(0.0, certain=True)
    assert not b.closed


def test_rests_grow_up_to_the_longest_and_a_success_ends_them() -> None:
    b, now, rests = breaker(), 0.0, []
    for _ in range(12):
        assert b.failure(now, certain=True)
        assert b.rest_ends is not None
        rests.append(b.rest_ends - now)
        now = b.rest_ends
        assert b.is_trial_due(now)
    assert rests[0] <= 1.0 < rests[2] < rests[-1] <= LONGEST_REST_SECONDS
    assert b.success()
    assert b.closed


def test_a_long_outage_is_told_ever_more_rarely() -> None:
    b, now, told = breaker(), 0.0, []
    for rest in range(1, 3000):  # a night
        b.failure(now, certain=True)
        now = b.rest_ends or now
        if b.is_news:
            told.append(rest)
    assert told == [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]


def test_requests_that_were_under_way_do_not_lengthen_the_rest() -> None:
    b = breaker()
    b.failure(0.0, certain=True)
    ends = b.rest_ends
    assert ends is not None
    assert not b.failure(ends / 2)
    assert not b.failure(ends / 2, certain=True)
    assert b.rest_ends == ends


# -- the search for a bad chunk ---------------------------------------------------------------


def chunks(count: int) -> list[Chunk]:
    return [
        Chunk(i, i, START + timedelta(seconds=10 * i), b"x", "opus", 10.0) for i in range(count)
    ]


class Server:
    """Rejects what holds a bad chunk, or more chunks than it takes."""

    def __init__(self, bad: set[int], most: int = 1000) -> None:
        self.bad, self.most, self.requests = bad, most, 0

    def post(self, posted: Sequence[Chunk]) -> Answer:
        self.requests += 1
        if len(posted) > self.most or self.bad & {chunk.index for chunk in posted}:
            raise AudioRejected(FailureKind.INVALID_AUDIO, "no", "s")
        return Answer(())


def outcome(count: int, server: Server) -> tuple[list[list[int]], list[int]]:
    found = list(salvage(chunks(count), server.post))
    order = [c.index for p in found for c in (p.chunks if isinstance(p, Heard) else (p.chunk,))]
    assert order == list(range(count))
    heard = [[c.index for c in piece.chunks] for piece in found if isinstance(piece, Heard)]
    return heard, [piece.chunk.index for piece in found if isinstance(piece, Unusable)]


@pytest.mark.parametrize("bad", range(30))
def test_one_bad_chunk_costs_about_two_log2_n_requests_and_leaves_two_pieces(bad: int) -> None:
    server = Server({bad})
    heard, unusable = outcome(30, server)
    assert unusable == [bad]
    assert heard == [piece for piece in (list(range(bad)), list(range(bad + 1, 30))) if piece]
    assert server.requests - 1 <= 2 * math.log2(30)


@given(st.integers(1, 30), st.sets(st.integers(0, 29)))
def test_bad_chunks_are_found_and_the_rest_stays_in_as_few_pieces_as_possible(
    count: int, bad: set[int]
) -> None:
    bad = {index for index in bad if index < count}
    server = Server(bad)
    heard, unusable = outcome(count, server)
    assert set(unusable) == bad
    assert len(heard) == sum(i not in bad and (i == 0 or i - 1 in bad) for i in range(count))
    assert server.requests <= 1 + len(bad) * (2 * math.log2(max(count, 2)) + 1)


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_server_that_takes_less_at_once_gets_less_and_no_chunk_is_blamed(
    count: int, most: int
) -> None:
    heard, unusable = outcome(count, Server(set(), most))
    assert unusable == []
    assert len(heard) == -(-count // most)


@given(st.integers(1, 30), st.sets(st.integers(0, 29), max_size=3), st.integers(0, 2**32))
def test_a_server_that_fails_at_random_costs_requests_but_loses_nothing(
    count: int, bad: set[int], seed: int
) -> None:
    rng, server = random.Random(seed), Server(bad)

    def post(posted: Sequence[Chunk]) -> Answer:
        if rng.random() < 0.2:
            raise Suspect(FailureKind.SERVER_ERROR, "no", "s")
        return server.post(posted)

    found = list(salvage(chunks(count), post))
    order = [c.index for p in found for c in (p.chunks if isinstance(p, Heard) else (p.chunk,))]
    assert order == list(range(count))


def test_trouble_of_the_server_ends_the_search_with_what_was_heard() -> None:
    server = Server({20})

    def post(posted: Sequence[Chunk]) -> Answer:
        if posted[0].index == 20:
            raise ServerTrouble(FailureKind.CONNECTION, "gone", "s")
        return server.post(posted)

    search = salvage(chunks(30), post)
    first = next(search)
    assert isinstance(first, Heard)
    assert len(first.chunks) == 20
    with pytest.raises(ServerTrouble):
        next(search)
