"""Runs, and servers that compute one request at a time and never notice a hang-up.

All but one play on a virtual clock, with the default deadlines.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stt_lib.telemetry.events import Event
from tests.simulation.scheduler import Scheduler
from tests.simulation.servers import Hearing, SimulatedChannel, SimulatedServer, Spell, Weather
from tests.simulation.speech import Audio, Piece, Speech, Spoken
from tests.simulation.world import Run, World, settings
from tests.support import world as real
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper

SECONDS_PER_CHUNK = 3.0
"""What the default timeout assumes."""

LONG, SHORT = 30, 2


def backlog(*sizes: int) -> Speech:
    """Recordings of these sizes, each of which is one sequence."""
    return Speech(
        {
            (number, index): Piece(number, index, Audio.SPEECH, (Spoken(f"{number}at{index}", 4),))
            for number, size in enumerate(sizes)
            for index in range(size)
        }
    )


def server(speed: float, spells: tuple[Spell, ...] = ()) -> SimulatedServer:
    return SimulatedServer(
        "stt", SECONDS_PER_CHUNK / speed, True, None, Hearing(has_words=True), spells=[*spells]
    )


class SerialChannel(SimulatedChannel):
    """Each request takes exactly as long as its chunks, after all that came before it."""

    def _computed(self, target: SimulatedServer, files: int, weather: Weather | None) -> float:
        target.free_at = max(self._scheduler.now, target.free_at) + files * target.seconds_per_chunk
        return target.free_at


class Play(logging.Handler):
    """Runs on a backlog with one server, and what they logged at which virtual time."""

    def __init__(self, speech: Speech, server: SimulatedServer, *runs: dict[str, int]) -> None:
        super().__init__()
        self.events: list[tuple[float, str, str]] = []
        started = [Run(f"run{n}", 0.2 * n, settings([server], **run)) for n, run in enumerate(runs)]
        arrivals = [(0.0, piece) for piece in speech.pieces.values()]
        self.world = World(Scheduler(seed=1), speech, [server], started, arrivals, slowness=0.0)
        internet = self.world.internet
        internet.channels = lambda process: lambda: SerialChannel(internet, process)  # type: ignore[method-assign]
        with self._listening():
            self.world.play()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        log = logging.getLogger("stt")
        level = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)
            log.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", ""))
        self.events.append((self.world.scheduler.now, event, record.getMessage()))

    def posts(self) -> Counter[str]:
        """How often each sequence was posted."""
        trace = [text for _, _, text in self.world.scheduler.trace]
        return Counter(text for text in trace if text.startswith("post r"))

    def logged(self, event: Event) -> list[tuple[float, str]]:
        return [(at, text) for at, name, text in self.events if name == event]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("speed", [1, 2])
def test_a_short_request_behind_long_ones_is_not_given_up(speed: int, workers: int) -> None:
    sizes = 4 * [SHORT, LONG, SHORT]
    play = Play(backlog(*sizes), server(speed), {"max_workers": workers})
    assert list(play.posts().values()) == [1] * len(sizes)
    assert not play.logged(Event.SERVER_RESTS)
    assert not play.logged(Event.SERVER_SLOW)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_server_at_half_the_assumed_speed_gets_nothing_more_than_twice(workers: int) -> None:
    play = Play(backlog(*8 * [LONG]), server(0.5), {"max_workers": workers})
    assert len(play.posts()) == 8
    assert max(play.posts().values()) <= 2
    [(_, hint)] = play.logged(Event.SERVER_SLOW)
    assert "raise --timeout-per-chunk" in hint
    assert not play.logged(Event.FAILED)


@pytest.mark.parametrize("speed", [1, 2])
def test_two_processes_on_one_serial_server_give_nothing_up(speed: int) -> None:
    sizes = 16 * [12]
    two = {"max_workers": 2}
    play = Play(backlog(*sizes), server(speed), two, two)
    assert list(play.posts().values()) == [1] * len(sizes)


def test_a_parallel_server_all_of_whose_slots_hang_is_noticed_within_a_minute() -> None:
    hangs = Spell(Weather.HANGING, 0.0, 1e9)
    play = Play(backlog(*64 * [SHORT]), server(1.0, (hangs,)), {"max_workers": 64, "retries": 0})
    at, text = play.logged(Event.SERVER_RESTS)[0]
    assert at <= 60
    assert "timeout" in text


@pytest.mark.parametrize(
    ("grace", "least", "most"), [("30s", 29, 30), ("1h", 900, 1002)], ids=["grace", "deadline"]
)
def test_a_run_that_stops_waits_no_longer_than_its_requests_may_take(
    world: real.World, whisper: FakeWhisper, grace: str, least: float, most: float
) -> None:
    """`--grace` knows the deadlines of the requests in flight."""
    world.record(range(2))
    whisper.gate.clear()
    limits = ["--timeout-base", "1000", "--timeout-per-chunk", "1"]
    process = world.start("--max-workers", "1", "--grace", grace, *limits)
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    process.terminate()
    eventually(lambda: "Stopping" in world.log)
    whisper.gate.set()
    process.communicate(timeout=20)
    found = re.search(r"in flight get up to (\S+) s to finish", world.log)
    assert found is not None
    assert least <= float(found[1]) <= most
    world.assert_all_done()
