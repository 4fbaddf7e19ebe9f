"""The pool of STT servers: who may post now, to which server, and what is done when none serves.

At most `max_in_flight` requests are under way at any moment. Whoever wants to post stands in
line with a ticket; the line is served in the order of the tickets, so that the newest sequences
start first whichever thread is ready first.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from stt_lib.domain.backoff import delay
from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import (
    AttemptError,
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServerMisconfigured,
    ServersUnavailable,
    ServerTrouble,
    Stopped,
    Suspect,
)
from stt_lib.servers import probe, protocols
from stt_lib.servers.health import Breaker
from stt_lib.servers.options import Options
from stt_lib.servers.throttling import Limit, Pacer
from stt_lib.servers.transport import Channel, Watchdog, authorities, display_name
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.stats import Stats

log = logging.getLogger("stt")

POLL_SECONDS = 0.25
"""How soon a waiting thread notices that a rest is over or a stop was asked for."""

RECENT_SECONDS = 30.0
"""An answer so recent is evidence that a server works."""

BUSY_BASE_SECONDS, BUSY_MAX_SECONDS = 1.0, 30.0


@dataclass(slots=True, eq=False)
class Server:
    """One STT server and what we know of its health; times of the monotonic clock.

    `pace` is its recent seconds per second of audio.
    """

    protocol: str
    url: str
    breaker: Breaker
    limit: Limit
    pace: float = 0.0
    in_flight: int = 0
    on_trial: bool = False
    misconfigured: bool = False
    busy_answers: int = 0
    paused_until: float = 0.0
    answered_at: float = float("-inf")
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = display_name(self.url)

    @property
    def serves(self) -> bool:
        """Whether its last word was an answer, not trouble."""
        return self.breaker.closed and not self.busy_answers and not self.misconfigured

    def takes_requests(self, now: float) -> bool:
        return (
            self.breaker.closed
            and not self.misconfigured
            and now >= self.paused_until
            and self.room > 0
        )

    @property
    def room(self) -> int:
        """Requests that it may get right now."""
        return self.limit.value - self.in_flight

    def wants_trial(self, now: float) -> bool:
        return not self.on_trial and not self.misconfigured and self.breaker.is_trial_due(now)


@dataclass(frozen=True, slots=True)
class _Grant:
    """A place to post; `is_trial` when a clip of ours has to be posted there first."""

    server: Server
    channel: Channel
    is_trial: bool


@dataclass(slots=True, eq=False)
class _Waiter:
    ticket: int
    audio: float
    avoid: Server | None
    granted: threading.Event = field(default_factory=threading.Event)
    grant: _Grant | None = None


class ServerPool:
    """Thread-safe; `stop` ends every wait with `Stopped`."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        options: Options,
        protocol: str,
        max_in_flight: int,
        server_max: int | None = None,
        adapts: bool = True,
        rate_limit: float | None = None,
        audio_rate: float | None = None,
        timeout: Callable[[int], float],
        server_wait: float,
        ca_file: Path | None = None,
        stop: threading.Event,
        stats: Stats | None = None,
    ) -> None:
        """Set up; nothing is sent yet.

        `options` go to every server; `protocol` is that of the URLs which do not name theirs.
        `timeout` gives the seconds allowed for a request of so many chunks; after `server_wait`
        seconds without any server in service, every wait ends with `ServersUnavailable`.
        `server_max` bounds the requests at one server, `adapts` lets their number find itself
        below that; `rate_limit` is in requests per second, `audio_rate` in seconds of audio per
        second.
        """
        rng = random.Random()  # noqa: S311 - jitter, not cryptography
        self._rng = rng
        ceiling = min(max_in_flight, server_max or max_in_flight)
        self.servers = [
            Server(*protocols.parse(url, protocol), Breaker(rng), Limit(ceiling, adapts=adapts))
            for url in urls
        ]
        self._requests = Pacer(rate_limit)
        self._audio = Pacer(audio_rate)
        self._options = options
        self._timeout = timeout
        self._server_wait = server_wait
        self._stop = stop
        self.stats = stats or Stats()
        trusted = authorities(ca_file)
        self._channels = [Channel(trusted) for _ in range(max_in_flight)]
        self._idle = list(self._channels)
        self._lock = threading.Lock()
        self._line: set[int] = set()
        self._waiting: dict[int, _Waiter] = {}
        self._out_since: float | None = None
        self._last_trouble: AttemptError | None = None
        self._over: ServersUnavailable | None = None
        self._watchdog = Watchdog(self._channels)

    def close(self) -> None:
        self._watchdog.stop()
        for channel in self._channels:
            channel.close()

    def cut(self) -> None:
        """End all requests under way at once: their threads see a broken connection."""
        for channel in self._channels:
            channel.cut()

    # -- the line -----------------------------------------------------------------------------

    def line_up(self, ticket: int) -> None:
        """Announce that this ticket will want to post soon: later ones wait for it."""
        with self._lock:
            self._line.add(ticket)

    def step_out(self, ticket: int) -> None:
        """This ticket will not post (for now): the next one need not wait for it."""
        with self._lock:
            self._line.discard(ticket)
            self._dispatch()

    def serves_besides(self, server: Server) -> bool:
        """Whether another server is well: then nobody has to wait until this one is."""
        with self._lock:
            return any(other.serves for other in self.servers if other is not server)

    @contextmanager
    def slot(self, ticket: int, *, audio: float, avoid: Server | None = None) -> Iterator["Slot"]:
        """Wait for a place to post `audio` seconds; elsewhere than at `avoid` if possible.

        Raises:
            Stopped: the run is to end.
            ServersUnavailable: no server has been in service for `server_wait` seconds.
        """
        server, channel = self._enter(_Waiter(ticket, audio, avoid))
        try:
            yield Slot(self, server, channel)
        finally:
            self._leave(server, channel)

    def _enter(self, waiter: _Waiter) -> tuple[Server, Channel]:
        with self._lock:
            self._waiting[waiter.ticket] = waiter
        try:
            while True:
                grant = self._granted(waiter)
                if not grant.is_trial:
                    return grant.server, grant.channel
                self._try_out(grant.server, grant.channel)
        finally:
            with self._lock:
                del self._waiting[waiter.ticket]
                self._line.discard(waiter.ticket)
                self._dispatch()

    def _granted(self, waiter: _Waiter) -> _Grant:
        with self._lock:
            waiter.grant = None
            waiter.granted.clear()
            self._line.add(waiter.ticket)
        while True:
            with self._lock:
                self._dispatch()
                if waiter.grant is not None:
                    return waiter.grant
                if self._stop.is_set():
                    raise Stopped
                self._check_outage()
                pause = self._seconds_to_the_next()
            waiter.granted.wait(min(POLL_SECONDS, pause) if pause else POLL_SECONDS)

    def _seconds_to_the_next(self) -> float:
        """What the rates still ask for. The lock is held."""
        now = time.monotonic()
        return max(self._requests.seconds_left(now), self._audio.seconds_left(now))

    def _dispatch(self) -> None:
        """Hand idle channels to whoever is first in line and ready. The lock is held."""
        while self._idle and self._line and not self._stop.is_set():
            waiter = self._waiting.get(min(self._line))
            if waiter is None or self._seconds_to_the_next() > 0:
                return  # the first one is still loading its audio, or it is too soon
            server, is_trial = self._choice(waiter.avoid)
            if server is None:
                return
            self._line.discard(waiter.ticket)
            server.in_flight += 1
            server.on_trial = server.on_trial or is_trial
            if not is_trial:
                self._requests.take(time.monotonic())
                self._audio.take(time.monotonic(), waiter.audio)
            waiter.grant = _Grant(server, self._idle.pop(), is_trial)
            waiter.granted.set()

    def _choice(self, avoid: Server | None) -> tuple[Server | None, bool]:
        """A server that is due for a trial, else the one with most room; and whether it is one."""
        now = time.monotonic()
        for server in self.servers:
            if server.wants_trial(now):
                return server, True
        open_ = [server for server in self.servers if server.takes_requests(now)]
        return min(open_, key=lambda s: (s is avoid, -s.room, s.pace), default=None), False

    def _leave(self, server: Server, channel: Channel) -> None:
        with self._lock:
            server.in_flight -= 1
            self._idle.append(channel)
            self._dispatch()

    # -- health -------------------------------------------------------------------------------

    def _try_out(self, server: Server, channel: Channel) -> None:
        """One real transcription decides whether a resting server is back."""
        try:
            self._probe(server, channel)
        finally:
            with self._lock:
                server.on_trial = False
            self._leave(server, channel)

    def _probe(self, server: Server, channel: Channel) -> bool:
        """Post a clip that every working server transcribes; True when it does."""
        try:
            self._post(server, channel, (probe.clip(),))
        except AttemptError as error:
            self._trouble(server, error, certain=not isinstance(error, ServerBusy))
            return False
        self._answered(server)
        return True

    def _post(self, server: Server, channel: Channel, chunks: Sequence[Chunk]) -> Answer:
        return protocols.transcribe(
            server.protocol,
            channel,
            server.url,
            chunks,
            options=self._options,
            server=server.name,
            seconds=self._timeout(len(chunks)),
        )

    def _answered(self, server: Server) -> None:
        with self._lock:
            server.answered_at = time.monotonic()
            server.busy_answers = 0
            self._out_since = None
            if server.breaker.success():
                log.info(
                    "STT server %s answers again",
                    server.name,
                    extra=Event.SERVER_BACK.of(server=server.name),
                )

    def _measured(self, server: Server, started: float, audio: float) -> None:
        with self._lock:
            now = time.monotonic()
            seconds = now - started
            pace = seconds / max(audio, 1e-3)
            server.pace = 0.8 * server.pace + 0.2 * pace if server.pace else pace
            server.limit.answered(now, audio=audio, seconds=seconds, in_flight=server.in_flight)
        self.stats.answered(server.name, seconds=seconds, audio=audio)
        log.debug(
            "Answer of STT server %s after %.2fs for %.1f s of audio",
            server.name,
            seconds,
            audio,
            extra=Event.ANSWERED.of(server=server.name, seconds=round(seconds, 3)),
        )

    def _too_much(self, server: Server, started: float) -> None:
        with self._lock:
            server.limit.refused(time.monotonic(), started=started)

    def _trouble(self, server: Server, error: AttemptError, *, certain: bool = False) -> None:
        with self._lock:
            now = time.monotonic()
            self._last_trouble = error
            if isinstance(error, ServerBusy):
                self._pause(server, error, now)
            elif isinstance(error, ServerMisconfigured):
                self._give_up_on(server, error)
            elif server.breaker.failure(now, certain=certain):
                rest = (server.breaker.rest_ends or now) - now
                log.log(
                    logging.WARNING if server.breaker.is_news else logging.DEBUG,
                    "STT server %s rests until %s: %s",
                    server.name,
                    _clock(rest),
                    error,
                    extra=Event.SERVER_RESTS.of(
                        server=server.name, kind=error.kind, seconds=round(rest, 1)
                    ),
                )
            if self._out_since is None and not any(s.serves for s in self.servers):
                self._out_since = now

    def _pause(self, server: Server, busy: ServerBusy, now: float) -> None:
        """All threads together leave a busy server alone for as long as it asks."""
        server.busy_answers += 1
        seconds = busy.retry_after
        if seconds is None:
            seconds = delay(server.busy_answers, BUSY_BASE_SECONDS, BUSY_MAX_SECONDS, self._rng)
        server.paused_until = max(server.paused_until, now + seconds)
        if server.busy_answers == 1:
            log.info(
                "STT server %s is busy, pausing until %s",
                server.name,
                _clock(seconds),
                extra=Event.SERVER_BUSY.of(server=server.name, seconds=round(seconds, 1)),
            )

    def _give_up_on(self, server: Server, error: AttemptError) -> None:
        if not server.misconfigured:
            server.misconfigured = True
            log.error(
                "STT server %s is out for this run: %s",
                server.name,
                error,
                extra=Event.SERVER_OUT.of(server=server.name, kind=error.kind),
            )

    def _check_outage(self) -> None:
        """Raise when no server has been in service for too long. The lock is held."""
        if self._over is None and self._is_outage():
            names = ", ".join(server.name for server in self.servers)
            why = f": {self._last_trouble}" if self._last_trouble else ""
            self._over = ServersUnavailable(f"no STT server is available ({names}){why}")
        if self._over is not None:
            raise self._over

    def _is_outage(self) -> bool:
        if all(server.misconfigured for server in self.servers):
            return True
        if self._out_since is None or any(server.in_flight for server in self.servers):
            return False
        return time.monotonic() - self._out_since >= self._server_wait


class Slot:
    """The right to post to one server, until the slot is left."""

    def __init__(self, pool: ServerPool, server: Server, channel: Channel) -> None:
        self._pool = pool
        self.server = server
        self._channel = channel

    def transcribe(self, chunks: Sequence[Chunk], when_sent: Callable[[], None]) -> Answer:
        """Post consecutive chunks, oldest first; `when_sent` is called once they are on their way.

        Raises:
            ServerTrouble: the server's or the network's doing.
            Suspect: it failed, though the server works with other audio.
            AudioRejected: the server says that the audio is at fault, and works with other audio.
        """
        pool, server = self._pool, self.server
        started = time.monotonic()
        try:
            with self._channel.telling(when_sent):
                answer = pool._post(server, self._channel, chunks)
        except ServerTrouble as error:
            pool.stats.failed(server.name, error.kind)
            if error.kind in (FailureKind.BUSY, FailureKind.TIMEOUT):
                pool._too_much(server, started)
            pool._trouble(server, error, certain=error.unreachable)
            raise
        except (Suspect, AudioRejected) as error:
            pool.stats.failed(server.name, error.kind)
            self._clear_the_server_of(error, alone=len(chunks) == 1)
            raise
        pool._answered(server)
        pool._measured(server, started, sum(chunk.seconds for chunk in chunks))
        return answer

    def _clear_the_server_of(self, error: AttemptError, *, alone: bool) -> None:
        """Turn a complaint about the audio into trouble unless the server works with other audio.

        A chunk that fails alone is about to be blamed, so that nothing less than a trial counts
        when the complaint may be the server's own fault.
        """
        if isinstance(error, AudioRejected) and not alone:
            return
        recently = time.monotonic() - self.server.answered_at < RECENT_SECONDS
        if recently and not (alone and isinstance(error, Suspect)):
            return
        if not self._pool._probe(self.server, self._channel):
            raise ServerTrouble(error.kind, str(error), self.server.name) from error


def _clock(seconds: float) -> str:
    return (datetime.now().astimezone() + timedelta(seconds=seconds)).strftime("%H:%M:%S")
