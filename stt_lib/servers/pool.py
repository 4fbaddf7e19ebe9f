"""The pool of STT servers: who may post now, to which server, and what happens if none serves.

At most `max_in_flight` requests are in flight at any moment. Whoever wants to post stands in line
with a ticket; the line is served in the order of the tickets, so that the newest sequences start
first whichever thread is ready first.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import (
    AttemptError,
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServersUnavailable,
    ServerTrouble,
    Stopped,
    Suspect,
)
from stt_lib.servers import health_check, protocols
from stt_lib.servers.deadlines import Pending
from stt_lib.servers.health import News, Server
from stt_lib.servers.protocols import Options, Request
from stt_lib.servers.throttling import RateLimiter
from stt_lib.servers.transport import Channel, do_nothing
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.stats import Stats
from stt_lib.timing import REAL, Timing
from stt_lib.timing import Event as Flag

log = logging.getLogger("stt")

POLL_SECONDS: Final = 0.25
"""Seconds. Interval at which a waiting thread looks for the end of a pause, or a stop."""

PROOFS: Final = 3
"""Test clips that a server transcribes between refusals of one request before that is suspected:
behind one address there may be several servers, some of them full."""

BUSY_ANSWERS: Final = 3
"""Busy answers in a row to one request, after which the request itself may be the cause."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to post one request at a time to a server, through a channel.

    Its thread may get to run long after it was granted: a refusal counts from `granted_at`.
    """

    server: Server
    channel: Channel
    granted_at: float
    is_trial: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    ticket: int
    audio: float
    avoid: Server | None
    granted: Flag
    slot: Slot | None = None


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
        rate_limit: float | None = None,
        audio_rate: float | None = None,
        timeout: Callable[[int], float],
        server_wait: float,
        stop: Flag,
        stats: Stats,
        channels: Callable[[], Channel],
        timing: Timing = REAL,
    ) -> None:
        """Set up; nothing is sent yet.

        `options` go to every server; `protocol` is that of URLs which do not name theirs.
        `timeout` gives the seconds that an idle server may take for a number of chunks; after
        `server_wait` seconds without any server in service every wait ends with
        `ServersUnavailable`. `server_max` bounds the requests at one server; `rate_limit` is in
        requests per second, `audio_rate` in seconds of audio per second. `channels` opens
        connections.
        """

        def server(url: str) -> Server:
            return Server(
                *protocols.parse(url, protocol),
                ceiling=min(max_in_flight, server_max or max_in_flight),
                workers=max_in_flight,
                timeout=timeout,
                timing=timing,
            )

        self._server = server
        self.servers = [server(url) for url in urls]
        self._followed: dict[str, dict[str, Server]] = {}
        self.stats = stats
        self._patience = timeout
        self._requests = RateLimiter(rate_limit)
        self._audio = RateLimiter(audio_rate)
        self._options = options
        self._server_wait = server_wait
        self._stop = stop
        self._timing = timing
        self._channels = [channels() for _ in range(max_in_flight)]
        self._idle = list(self._channels)
        self._lock = timing.lock()  # never held across anything that may wait
        self._line: set[int] = set()
        self._waiting: dict[int, _Waiter] = {}
        self._under_way: dict[Channel, tuple[Server, Pending]] = {}
        self._out_since: float | None = None
        self._last_trouble: AttemptError | None = None
        self._over: ServersUnavailable | None = None

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def cut(self) -> None:
        """Abort all requests in flight: their threads see a broken connection."""
        for channel in self._channels:
            channel.cut()

    @property
    def in_flight(self) -> int:
        """The number of requests, from the moment at which each may be sent."""
        with self._lock:
            return len(self._channels) - len(self._idle)

    # -- deadlines ----------------------------------------------------------------------------

    def timeout(self, chunks: int) -> float:
        """Seconds that a request would be allowed if the best server got it now."""
        with self._lock:
            now = self._timing.monotonic()
            usable = [server for server in self.servers if not server.is_out] or self.servers
            seconds = (server.deadlines.seconds(chunks, now) for server in usable)
            return min(seconds, default=self._patience(chunks))

    def ends_at(self) -> float | None:
        """Monotonic seconds at which the last request in flight is answered or given up."""
        with self._lock:
            requests = (request for _, request in self._under_way.values())
            return max((request.ends_at for request in requests), default=None)

    # -- servers that come and go -------------------------------------------------------------

    def follow(self, source: str, urls: Sequence[str]) -> None:
        """Let these be the servers of a source: new ones are used at once, vanished ones drained.

        A vanished server gets no more requests; those in flight there may end. As long as it holds
        one, or has to be left alone, it is remembered: its address may come back.
        """
        with self._lock:
            now, known = self._timing.monotonic(), self._followed.get(source, {})
            used = {url: server for url, server in known.items() if server in self.servers}
            wanted = {url: known.get(url) or self._server(url) for url in urls}
            new = [server for url, server in wanted.items() if url not in used]
            gone = [server for url, server in used.items() if url not in wanted]
            kept = {url: s for url, s in known.items() if not s.may_be_forgotten(now)}
            self._followed[source] = kept | wanted
            self.servers = [s for s in self.servers if s not in gone] + new
            self._dispatch()
        for server in new:
            _log(server.news(logging.INFO, "is used", Event.SERVER_FOUND))
        for server in gone:
            _log(server.news(logging.INFO, "has gone: no more requests", Event.SERVER_GONE))

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
    def slot(self, ticket: int, *, audio: float, avoid: Server | None = None) -> Iterator[Slot]:
        """Wait for a slot to post `audio` seconds; elsewhere than at `avoid` if possible.

        Raises:
            Stopped: the run is to end.
            ServersUnavailable: no server has been in service for `server_wait` seconds.
        """
        slot = self._enter(_Waiter(ticket, audio, avoid, self._timing.event()))
        try:
            yield slot
        finally:
            self._leave(slot)

    def _enter(self, waiter: _Waiter) -> Slot:
        with self._lock:  # in one step: whoever stands in line may be given a slot at any time
            self._waiting[waiter.ticket] = waiter
            self._line.add(waiter.ticket)
        try:
            while (slot := self._granted(waiter)).is_trial:
                self._try_out(slot)
                with self._lock:
                    waiter.slot = None
                    waiter.granted.clear()
                    self._line.add(waiter.ticket)
            return slot
        finally:
            with self._lock:
                del self._waiting[waiter.ticket]
                self._line.discard(waiter.ticket)
                self._dispatch()

    def _granted(self, waiter: _Waiter) -> Slot:
        while True:
            with self._lock:
                self._dispatch()
                if waiter.slot is not None:
                    return waiter.slot
                if self._stop.is_set():
                    raise Stopped
                self._check_outage()
                pause = self._seconds_to_the_next()
            waiter.granted.wait(min(POLL_SECONDS, pause) if pause else POLL_SECONDS)

    def _seconds_to_the_next(self) -> float:
        """Seconds that the rates still demand. The lock is held."""
        now = self._timing.monotonic()
        return max(self._requests.seconds_left(now), self._audio.seconds_left(now))

    def _count_in_rates(self, audio: float) -> None:
        """Note a request that starts now. The lock is held."""
        now = self._timing.monotonic()
        self._requests.take(now)
        self._audio.take(now, audio)

    def _dispatch(self) -> None:
        """Hand idle channels to whoever is first in line and ready. The lock is held."""
        while self._idle and self._line and not self._stop.is_set() and self._over is None:
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
                self._count_in_rates(waiter.audio)
            waiter.slot = Slot(server, self._idle.pop(), self._timing.monotonic(), is_trial)
            waiter.granted.set()

    def _choice(self, avoid: Server | None) -> tuple[Server | None, bool]:
        """A server that is due for a trial, or with fewest requests; and whether it is a trial.

        Not the one with most room: a server that is back has little, and would be left idle.
        """
        now = self._timing.monotonic()
        for server in self.servers:
            if server.wants_trial(now):
                return server, True
        open_ = [server for server in self.servers if server.takes_requests(now)]
        return min(open_, key=lambda s: (s is avoid, s.in_flight, s.pace), default=None), False

    def _leave(self, slot: Slot) -> None:
        with self._lock:
            slot.server.in_flight -= 1
            self._idle.append(slot.channel)
            self._dispatch()

    # -- requests -----------------------------------------------------------------------------

    def transcribe(
        self,
        slot: Slot,
        chunks: Sequence[Chunk],
        when_sent: Callable[[], None] = do_nothing,
        *,
        busy_answers: int = 0,
    ) -> Answer:
        """Post consecutive chunks, oldest first; `when_sent` is called once they are on their way.

        `busy_answers` to the same request came before, in a row and without Retry-After.

        Raises:
            ServerTrouble: the fault of the server or the network.
            Suspect: it failed, though the server works with other audio.
            AudioRejected: the server says that the audio is at fault, and works with other audio.
        """
        server = slot.server
        may_be_poison = busy_answers + 1 >= BUSY_ANSWERS
        try:
            post = self._posted_with_proof if may_be_poison else self._posted
            return post(slot, chunks, when_sent)
        except ServerTrouble as error:
            if not isinstance(error, ServerBusy):
                self.stats.failed(server.name, error.kind)
            with self._lock:
                server.refused(error.kind, started=slot.granted_at)
            seconds = self._timing.monotonic() - slot.granted_at
            self._trouble(server, error, certain=error.unreachable, seconds=seconds)
            raise
        except (Suspect, AudioRejected) as error:
            if error.server is None:  # the audio was refused before anything was sent
                raise
            self.stats.failed(server.name, error.kind)
            if not isinstance(error.__cause__, ServerBusy):  # otherwise the server is cleared
                self._clear_the_server_of(error, slot, alone=len(chunks) == 1)
            raise

    def _posted_with_proof(
        self, slot: Slot, chunks: Sequence[Chunk], when_sent: Callable[[], None]
    ) -> Answer:
        """Post a request that was refused as by a busy server, time and again.

        Some servers and gateways say "busy" when they fail with certain audio. Retried for ever, it
        would hold up the backlog, because its ticket is the first. If the server refuses it once
        more, and again right after each of `PROOFS` test clips that it transcribes, the audio is
        suspected as after a persistent 5xx. A full server refuses a clip as well.

        A full server that has room just for the clip gets a wrong verdict. That loses no words: it
        takes two before whole audio is searched for a bad chunk, and one against a chunk alone
        before that chunk is left to a later run.
        """
        for _ in range(PROOFS):
            try:
                return self._posted(slot, chunks, when_sent)
            except ServerBusy as busy:
                if busy.retry_after is not None or self._stop.is_set():
                    raise
                if not self._probe(slot) or self._stop.is_set():
                    raise
            with self._lock:
                self._count_in_rates(sum(chunk.seconds for chunk in chunks))
        try:
            return self._posted(slot, chunks, when_sent)
        except ServerBusy as busy:
            if busy.retry_after is not None:
                raise
            message = f"{busy}, though it transcribes other audio"
            raise Suspect(FailureKind.SERVER_ERROR, message, slot.server.name) from busy

    def _posted(self, slot: Slot, chunks: Sequence[Chunk], when_sent: Callable[[], None]) -> Answer:
        started = self._timing.monotonic()
        answer = self._post(slot, chunks, started, when_sent)
        self._answered(slot.server)
        self._measured(slot.server, started, sum(chunk.seconds for chunk in chunks))
        return answer

    def _post(
        self,
        slot: Slot,
        chunks: Sequence[Chunk],
        started: float,
        when_sent: Callable[[], None] = do_nothing,
    ) -> Answer:
        """Post, and keep account of what the server holds."""
        server, pending = slot.server, None
        with self._lock:
            seconds = server.deadlines.seconds(len(chunks), started)

        def sent() -> float:
            nonlocal pending
            when_sent()
            if pending is None:  # a protocol may post again in another format
                with self._lock:
                    now = self._timing.monotonic()
                    pending = server.deadlines.sent(len(chunks), now, started=started)
                    self._under_way[slot.channel] = server, pending
            return pending.allowed

        request = Request(slot.channel, server.url, self._options, server.name, seconds, sent)
        failure: FailureKind | None = FailureKind.INTERNAL
        try:
            answer = protocols.post(server.protocol, request, chunks)
            failure = None
            return answer
        except AttemptError as error:
            failure = error.kind
            raise
        finally:
            if pending is not None:
                self._ended(slot, pending, failure)

    def _ended(self, slot: Slot, request: Pending, failure: FailureKind | None) -> None:
        server, news = slot.server, None
        with self._lock:
            del self._under_way[slot.channel]
            now = self._timing.monotonic()
            if failure is FailureKind.TIMEOUT:
                server.deadlines.abandoned(request, now)
            elif failure is not None:
                server.deadlines.failed(request)
            elif server.deadlines.answered(request, now):
                news = server.was_slow()
        _log(news)

    def _clear_the_server_of(self, error: AttemptError, slot: Slot, *, alone: bool) -> None:
        """Turn a complaint about the audio into trouble unless the server works with other audio.

        A chunk that fails alone is about to be blamed. If the complaint may be the server's own
        fault, only a trial can clear the server.
        """
        if isinstance(error, AudioRejected) and not alone:
            return
        with self._lock:
            recently = slot.server.has_answered_lately
        if recently and not (alone and isinstance(error, Suspect)):
            return
        if not self._probe(slot):
            raise ServerTrouble(error.kind, str(error), slot.server.name) from error

    # -- health -------------------------------------------------------------------------------

    def _try_out(self, slot: Slot) -> None:
        """One real transcription decides whether a resting server is back."""
        try:
            self._probe(slot)
        finally:
            with self._lock:
                slot.server.on_trial = False
            self._leave(slot)

    def _probe(self, slot: Slot) -> bool:
        """Post a clip that every working server transcribes; returns whether it did."""
        chunks = (health_check.probe(self._timing.now()),)
        began = self._timing.monotonic()
        try:
            self._post(slot, chunks, began)
        except AttemptError as error:
            seconds = self._timing.monotonic() - began
            is_certain = not isinstance(error, ServerBusy)
            self._trouble(slot.server, error, certain=is_certain, seconds=seconds)
            return False
        self._answered(slot.server)
        return True

    def _answered(self, server: Server) -> None:
        with self._lock:
            self._out_since = None
            news = server.answered()
        _log(news)

    def _measured(self, server: Server, started: float, audio: float) -> None:
        seconds = self._timing.monotonic() - started
        with self._lock:
            server.measured(seconds, audio)
        self.stats.answered(server.name, seconds=seconds, audio=audio)
        log.debug(
            "Answer of STT server %s after %.2fs for %.1f s of audio",
            server.name,
            seconds,
            audio,
            extra=Event.ANSWERED.of(server=server.name, seconds=round(seconds, 3)),
        )

    def _trouble(
        self, server: Server, error: AttemptError, *, certain: bool, seconds: float
    ) -> None:
        with self._lock:
            self._last_trouble = error
            news = server.failed(error, certain=certain, seconds=seconds)
            if server.serves and server in self.servers:  # its breaker decides: no outage so far
                self._out_since = None
            if error.kind is FailureKind.TIMEOUT and server.is_out:
                self._give_up_overdue(server)
        _log(news)

    def _give_up_overdue(self, server: Server) -> None:
        """Stop waiting for a server that hangs, where only its queue gave a request more time.

        The lock is held, so that no request can end, and another one begin, meanwhile.
        """
        now = self._timing.monotonic()
        for channel, (holder, request) in self._under_way.items():
            if holder is server and server.deadlines.is_overdue(request, now):
                channel.expire()

    def _check_outage(self) -> None:
        """Raise when no server has been in service for too long. The lock is held."""
        if self._over is None and self._is_outage():
            names = ", ".join(server.name for server in self.servers) or "no address"
            why = f": {self._last_trouble}" if self._last_trouble else ""
            self._over = ServersUnavailable(f"no STT server is available ({names}){why}")
        if self._over is not None:
            raise self._over

    def _is_outage(self) -> bool:
        """An outage begins when no server serves, and none may still be computing for us."""
        if self.servers and all(server.misconfigured for server in self.servers):
            return True
        if self._out_since is None:
            if not any(server.serves or server.owes for server in self.servers):
                self._out_since = self._timing.monotonic()
            return False
        if any(server.in_flight or server.serves for server in self.servers):
            return False  # one is being tried, or was found since and is about to be
        return self._timing.monotonic() - self._out_since >= self._server_wait


def _log(news: News | None) -> None:
    if news is not None:
        log.log(news.level, "%s", news.text, extra=news.extra)
