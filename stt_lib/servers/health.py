"""The health of one server: its circuit breaker, its pauses, and what it is known to hold.

Times are of any monotonic clock, in seconds.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from stt_lib.domain.backoff import delay
from stt_lib.errors import AttemptError, FailureKind, ServerBusy, ServerMisconfigured, ServerTrouble
from stt_lib.servers.deadlines import Deadlines
from stt_lib.servers.throttling import ConcurrencyLimit
from stt_lib.servers.transport import display_name
from stt_lib.telemetry.events import Event
from stt_lib.timing import Timing

THRESHOLD = 3
"""Failures in a row that open the breaker."""

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 30.0

LONGEST_ABSENCE_SECONDS = 2.0
"""Seconds. Longest rest of a server that refuses connections: that costs nobody anything, and a
server that restarts is used again at once.
"""

TRIAL_SHARE = 0.1
"""Share of the time that trials of a server where nobody listens may take: some addresses refuse
nothing, and each trial waits in vain for a connection."""

LOGGED_RESTS = 4
"""Rests of one outage that are logged; then each of twice as many: it may last a weekend."""

BUSY_BASE_SECONDS, BUSY_MAX_SECONDS = 1.0, 30.0

LONGEST_PAUSE_SECONDS = 3600.0
"""Seconds. No server is left alone for longer, whatever it asks."""

LOGGED_SECONDS = 30.0
"""Seconds. A pause that is longer than the last one logged by more than this is logged, too."""

RECENT_SECONDS = 30.0
"""Seconds. An answer no older than this is evidence that a server works."""


@dataclass(slots=True)
class Breaker:
    """A circuit breaker: closed while the server serves, open while it rests, then one trial.

    Each failed trial lengthens the rest.
    """

    rng: random.Random
    failures: int = 0
    openings: int = 0
    rest_ends: float | None = None

    @property
    def closed(self) -> bool:
        return self.rest_ends is None

    @property
    def is_news(self) -> bool:
        """Whether the rest that has begun is worth a line in the log."""
        return self.openings <= LOGGED_RESTS or self.openings.bit_count() == 1

    def is_trial_due(self, now: float) -> bool:
        return self.rest_ends is not None and now >= self.rest_ends

    def success(self) -> bool:
        """Note an answer; returns whether it closed the breaker."""
        came_back = not self.closed
        self.failures = self.openings = 0
        self.rest_ends = None
        return came_back

    def failure(
        self, now: float, *, certain: bool = False, longest: float = LONGEST_REST_SECONDS
    ) -> bool:
        """Note trouble; returns whether the server is to rest (again) because of it.

        `certain`: nobody listens there, or a trial failed, so that one failure is enough.
        `longest` limits the rest, in seconds.
        Requests that were in flight when the breaker opened do not lengthen the rest.
        """
        self.failures += 1
        if not self.closed and not (certain and self.is_trial_due(now)):
            return False
        if self.closed and not certain and self.failures < THRESHOLD:
            return False
        self.openings += 1
        rest = delay(self.openings, FIRST_REST_SECONDS, longest, self.rng)
        self.rest_ends = now + rest
        return True


@dataclass(frozen=True, slots=True)
class News:
    """A change in a server's health, to be logged once no lock is held."""

    level: int
    text: str
    extra: dict[str, object]


class Server:
    """One STT server and all that is known of it. Not thread-safe: the pool's lock guards it."""

    def __init__(
        self,
        protocol: str,
        url: str,
        *,
        ceiling: int,
        workers: int,
        timeout: Callable[[int], float],
        timing: Timing,
    ) -> None:
        self.protocol = protocol
        self.url = url
        self.name = display_name(url)
        self.breaker = Breaker(timing.random)
        self.limit = ConcurrencyLimit(ceiling)
        self.deadlines = Deadlines(timeout, workers=workers)
        self.pace = 0.0
        """Recent seconds per second of audio."""
        self.in_flight = 0
        self.on_trial = False
        self.misconfigured = False
        self._timing = timing
        self._busy_answers = 0
        self._pause_began = float("-inf")
        self._asked_until = self._paused_until = 0.0
        self._logged_pause = 0.0
        self._answered_at = float("-inf")
        self._is_known_as_slow = False

    @property
    def serves(self) -> bool:
        """Whether its last word was an answer, not trouble, and it has asked for no pause."""
        has_asked_for_a_pause = self._timing.monotonic() < self._asked_until
        return not (self.is_out or self._busy_answers or has_asked_for_a_pause)

    @property
    def is_out(self) -> bool:
        """Whether it gets no requests but trials."""
        return self.misconfigured or not self.breaker.closed

    @property
    def has_answered_lately(self) -> bool:
        return self._timing.monotonic() - self._answered_at < RECENT_SECONDS

    @property
    def owes(self) -> bool:
        """Whether it may still be computing something for this process."""
        return self.deadlines.held(self._timing.monotonic()) > 0

    def takes_requests(self, now: float) -> bool:
        has_room = self.in_flight < self.limit.value
        return has_room and not self.is_out and not self._is_paused(now)

    def wants_trial(self, now: float) -> bool:
        may_be_tried = not self.on_trial and not self.misconfigured and not self._is_paused(now)
        return may_be_tried and self.breaker.is_trial_due(now)

    def may_be_forgotten(self, now: float) -> bool:
        """Whether it holds no request, and does not have to be left alone."""
        is_resting = self.breaker.rest_ends is not None and now < self.breaker.rest_ends
        return not (self.in_flight or self.owes or is_resting or self._is_paused(now))

    def _is_paused(self, now: float) -> bool:
        return now < max(self._asked_until, self._paused_until)

    # -- what happened to a request -----------------------------------------------------------

    def answered(self) -> News | None:
        """It works: after an answer it has room, unless it has asked for a pause."""
        self._answered_at = self._paused_until = self._timing.monotonic()
        self._busy_answers = 0
        if not self.breaker.success():
            return None
        return self.news(logging.INFO, "answers again", Event.SERVER_BACK)

    def measured(self, seconds: float, audio: float) -> None:
        """It transcribed `audio` seconds in `seconds`."""
        pace = seconds / max(audio, 1e-3)
        self.pace = 0.8 * self.pace + 0.2 * pace if self.pace else pace
        self.limit.answered(self.in_flight)

    def was_slow(self) -> News | None:
        """It needs longer than the timeouts assume: worth a hint, once."""
        if self._is_known_as_slow:
            return None
        self._is_known_as_slow = True
        text = (
            "takes longer than the timeouts assume: raise --timeout-per-chunk, or run fewer workers"
        )
        return self.news(logging.WARNING, text, Event.SERVER_SLOW)

    def refused(self, kind: FailureKind, *, started: float) -> None:
        """A request that was sent at `started` failed; some failures mean too many at once."""
        if kind in (FailureKind.BUSY, FailureKind.TIMEOUT):
            self.limit.refused(self._timing.monotonic(), started=started)

    def failed(
        self, error: AttemptError, *, certain: bool = False, seconds: float = 0.0
    ) -> News | None:
        """It is in trouble, found out in `seconds`; `certain` as for `Breaker.failure`."""
        if isinstance(error, ServerBusy):
            return self._pause(error, seconds)
        self._busy_answers = 0  # from here the breaker decides
        if isinstance(error, ServerMisconfigured):
            certain = True
            if not self._may_recover_from(error):
                return self._give_up(error)
        now = self._timing.monotonic()
        longest = LONGEST_REST_SECONDS
        if isinstance(error, ServerTrouble) and error.unreachable:
            longest = min(longest, max(LONGEST_ABSENCE_SECONDS, seconds / TRIAL_SHARE))
        rests = self.breaker.failure(now, certain=certain, longest=longest)
        return self._rest(error, now) if rests else None

    def _pause(self, busy: ServerBusy, seconds: float) -> News | None:
        """All threads together leave a busy server alone, for as long as it asks.

        Refusals of requests that were on their way when a pause began count as one: a server that
        several workers find full has not been busy several times in a row.
        """
        now, seconds_asked = self._timing.monotonic(), self._seconds_asked(busy.retry_after)
        is_another = now - seconds >= self._pause_began
        if is_another:
            self._pause_began = now
            self._busy_answers += 1
        if seconds_asked > 0:
            pause = seconds_asked
            self._asked_until = max(self._asked_until, now + pause)
        elif is_another:
            rng = self._timing.random
            pause = delay(self._busy_answers, BUSY_BASE_SECONDS, BUSY_MAX_SECONDS, rng)
            self._paused_until = now + pause
        else:
            return None
        is_first = is_another and self._busy_answers == 1
        if not is_first and seconds_asked <= self._logged_pause + LOGGED_SECONDS:
            return None
        self._logged_pause = pause
        text = f"is busy, pausing until {self._time_in(pause)}"
        return self.news(logging.INFO, text, Event.SERVER_BUSY, seconds=round(pause, 1))

    def _seconds_asked(self, asked: float | datetime | None) -> float:
        """Not above 0 if it asks for no pause; a date that is past is a wrong clock's."""
        if isinstance(asked, datetime):
            asked = (asked - self._timing.now()).total_seconds()
        return min(asked or 0.0, LONGEST_PAUSE_SECONDS)

    def _rest(self, error: AttemptError, now: float) -> News:
        self.limit.restart()
        rest = (self.breaker.rest_ends or now) - now
        level = logging.WARNING if self.breaker.is_news else logging.DEBUG
        text = f"rests until {self._time_in(rest)}: {error}"
        facts = {"kind": error.kind, "seconds": round(rest, 1)}
        return self.news(level, text, Event.SERVER_RESTS, **facts)

    def _may_recover_from(self, error: ServerMisconfigured) -> bool:
        """Whether it may answer again without a change here, as it has answered before.

        Its container may be being replaced, or its key. But when the audio cannot be decoded here
        before it is sent, a trial would succeed and help nobody.
        """
        has_answered = self._answered_at > float("-inf")
        return has_answered and error.kind is not FailureKind.REJECTED

    def _give_up(self, error: AttemptError) -> News | None:
        if self.misconfigured:
            return None
        self.misconfigured = True
        text = f"is out for this run: {error}"
        return self.news(logging.ERROR, text, Event.SERVER_OUT, kind=error.kind)

    def news(self, level: int, text: str, event: Event, **facts: object) -> News:
        return News(level, f"STT server {self.name} {text}", event.of(server=self.name, **facts))

    def _time_in(self, seconds: float) -> str:
        return f"{self._timing.now().astimezone() + timedelta(seconds=seconds):%H:%M:%S}"
