"""Whisper servers in memory, behind the pool's transport: slow, serial, busy, broken, dead."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from stt_lib.errors import FailureKind, ServerTrouble
from stt_lib.servers.transport import Part, Reply, WhenSent, do_nothing
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.speech import CHUNK_SECONDS, WORD_SECONDS, Audio, Piece, Speech
from tests.simulation.timing import SimulatedEvent

PAUSE_SECONDS: Final = 0.35
"""Seconds. A longer silence ends a segment."""


class Weather(Enum):
    """What happens to requests at a server for a while."""

    DOWN = "down"
    HANGING = "hanging"
    BUSY = "busy"
    FAILING = "failing"
    SENSELESS = "senseless"
    SLOW = "slow"
    LOSSY = "lossy"


@dataclass(frozen=True, slots=True)
class Spell:
    """Weather between two moments of virtual time."""

    weather: Weather
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Hearing:
    """How a server hears: whether it tells the times of words, how many words its segments have at
    most, and by how many seconds its times are late or early.
    """

    has_words: bool
    longest_segment: int = 12
    shift: float = 0.0


@dataclass(slots=True)
class SimulatedServer:
    """One server; `seconds_per_chunk` of computing, one request at a time if `is_serial`."""

    name: str
    seconds_per_chunk: float
    is_serial: bool
    max_files: int | None
    hearing: "Hearing"
    spells: list[Spell] = field(default_factory=list)
    free_at: float = 0.0
    refused: dict[tuple[str, Spell], int] = field(default_factory=dict)

    def spell(self, now: float) -> Spell | None:
        return next((s for s in self.spells if s.begins <= now < s.ends), None)

    def broke_down(self, since: float, now: float) -> bool:
        """Whether it went down meanwhile: requests under way were lost."""
        return any(s.weather is Weather.DOWN and since < s.begins <= now for s in self.spells)

    def calm(self) -> None:
        self.spells.clear()


class Observer(Protocol):
    """Who is told of requests, to check them."""

    def posted(self, pieces: Sequence[Piece]) -> int: ...

    def answered(self, pieces: Sequence[Piece]) -> None: ...

    def ended(self, request: int) -> None: ...


class Internet:
    """All servers, and what they hear."""

    def __init__(
        self,
        scheduler: Scheduler,
        servers: Sequence[SimulatedServer],
        speech: Speech,
        observer: Observer,
    ) -> None:
        self.scheduler = scheduler
        self.servers = {f"http://{server.name}": server for server in servers}
        self.speech = speech
        self.observer = observer

    def channels(self, process: Process) -> Callable[[], "SimulatedChannel"]:
        return lambda: SimulatedChannel(self, process)


class SimulatedChannel:
    """The way of one process to the servers, for one request at a time."""

    def __init__(self, internet: Internet, process: Process) -> None:
        self._internet = internet
        self._process = process
        self._scheduler = internet.scheduler
        self._random = internet.scheduler.random
        self._cut = SimulatedEvent(internet.scheduler)
        self._has_expired = False

    def cut(self) -> None:
        self._cut.set()

    def expire(self) -> None:
        self._has_expired = True
        self._cut.set()

    def close(self) -> None:
        """Nothing is held."""

    def post(
        self,
        url: str,
        parts: list[Part],
        headers: Any,
        *,
        server: str,
        seconds: float,
        when_sent: WhenSent = do_nothing,
    ) -> Reply:
        self._scheduler.point()
        self._cut.clear()
        self._has_expired = False
        started = self._scheduler.now
        target = self._internet.servers[url.removesuffix("/transcribe")]
        files = [content[1] for _, content in parts if content[0] is not None]
        pieces = [
            piece
            for data in files
            if isinstance(data, bytes) and (piece := self._internet.speech.place(data))
        ]
        self._scheduler.note(f"post {_names(pieces)} to {target.name}")
        try:
            with self._observed(pieces):
                reply = self._exchange(target, pieces, len(files), started, seconds, when_sent)
        except ServerTrouble as error:
            self._scheduler.note(f"no answer: {error.kind}")
            raise
        self._scheduler.point()
        self._scheduler.note(f"answer {reply.status}")
        return reply

    @contextmanager
    def _observed(self, pieces: Sequence[Piece]) -> Iterator[None]:
        observer = self._internet.observer
        request = observer.posted(pieces)
        try:
            yield
        finally:
            observer.ended(request)

    def _exchange(
        self,
        target: SimulatedServer,
        pieces: Sequence[Piece],
        files: int,
        started: float,
        seconds: float,
        when_sent: WhenSent,
    ) -> Reply:
        self._sleep(self._random.choice([0.0, 0.001, 0.01]), target)
        spell = target.spell(self._scheduler.now)
        weather = spell.weather if spell else None
        if spell and weather is Weather.DOWN:
            self._count(target, spell)
            raise _trouble(FailureKind.CONNECTION, target, unreachable=True)
        told = when_sent()
        deadline = started + (seconds if told is None else told)
        if weather is Weather.HANGING:
            self._wait(float("inf"), deadline, target)
        if spell and weather is Weather.BUSY:
            self._count(target, spell)
            return _busy(self._random)
        sent = self._scheduler.now
        self._wait(self._computed(target, files, weather), deadline, target)
        if weather is Weather.LOSSY or target.broke_down(sent, self._scheduler.now):
            raise _trouble(FailureKind.CONNECTION, target)
        if weather is Weather.FAILING:
            return _json(500, {"detail": "out of memory"})
        if weather is Weather.SENSELESS:
            return self._random.choice(_SENSELESS)
        return self._judged(target, pieces, files)

    def _count(self, target: SimulatedServer, spell: Spell) -> None:
        key = self._process.name, spell
        target.refused[key] = target.refused.get(key, 0) + 1

    def _computed(self, target: SimulatedServer, files: int, weather: Weather | None) -> float:
        """When the server will have computed a request that came just now."""
        factor = 10.0 if weather is Weather.SLOW else 1.0
        lasts = files * target.seconds_per_chunk * factor * self._random.uniform(0.8, 1.2)
        begins = self._scheduler.now
        if target.is_serial:
            begins = max(begins, target.free_at)
            target.free_at = begins + lasts
        return begins + lasts

    def _wait(self, until: float, deadline: float, target: SimulatedServer) -> None:
        self._sleep(min(until, deadline) - self._scheduler.now, target)
        if until > deadline:
            raise _trouble(FailureKind.TIMEOUT, target)

    def _sleep(self, seconds: float, target: SimulatedServer) -> None:
        if self._cut.wait(max(0.0, seconds)):
            kind = FailureKind.TIMEOUT if self._has_expired else FailureKind.CONNECTION
            raise _trouble(kind, target)

    def _judged(self, target: SimulatedServer, pieces: Sequence[Piece], files: int) -> Reply:
        if target.max_files is not None and files > target.max_files:
            return _json(413, {"detail": "too many files"})
        kinds = {piece.kind for piece in pieces}
        if Audio.POISON in kinds or (Audio.SHY in kinds and files > 1):
            return _json(self._random.choice([400, 500]), {"detail": "cannot decode"})
        self._internet.observer.answered(pieces)
        return _json(200, heard(pieces, target.hearing))


def heard(pieces: Sequence[Piece], hearing: Hearing) -> dict[str, Any]:
    """What a faultless server answers for these chunks, joined without a gap."""
    end = len(pieces) * CHUNK_SECONDS
    words = [
        Heard(text, min(max(start + hearing.shift, 0.0), end - WORD_SECONDS), silence)
        for position, piece in enumerate(pieces)
        for text, start, silence in _in(piece, position * CHUNK_SECONDS)
    ]
    segments = [_segment(run, hearing) for run in _runs(words, hearing)]
    return {"language": "en", "top_language_probs": [["en", 0.99]], "segments": segments}


class Heard(NamedTuple):
    """A word in an answer, and how probable the server takes it that nobody spoke."""

    text: str
    start: float
    no_speech_prob: float


def _in(piece: Piece, begins: float) -> Iterator[tuple[str, float, float]]:
    for word in piece.words:
        yield word.text, begins + word.start, 0.05
    if piece.kind is Audio.NOISE:
        yield "Thank you.", begins + 4.0, 0.95


def _runs(words: list[Heard], hearing: Hearing) -> Iterator[list[Heard]]:
    """Words in segments: split at pauses, and where a segment gets too long."""
    run: list[Heard] = []
    for word in words:
        if run and (
            word.start - run[-1].start - WORD_SECONDS > PAUSE_SECONDS
            or word.no_speech_prob != run[-1].no_speech_prob
            or len(run) == hearing.longest_segment
        ):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _segment(run: list[Heard], hearing: Hearing) -> dict[str, Any]:
    made: dict[str, Any] = {
        "start": run[0].start,
        "end": run[-1].start + WORD_SECONDS,
        "text": "".join(f" {word.text}" for word in run),
        "no_speech_prob": run[0].no_speech_prob,
    }
    if hearing.has_words:
        made["words"] = [
            {"word": f" {word.text}", "start": word.start, "end": word.start + WORD_SECONDS}
            for word in run
        ]
    return made


def _json(status: int, content: Any, **headers: str) -> Reply:
    kind = {"content-type": "application/json"}
    return Reply(status, {**kind, **headers}, json.dumps(content).encode())


def _busy(rng: random.Random) -> Reply:
    status = rng.choice([429, 503])
    headers = {"retry-after": str(rng.randint(1, 8))} if rng.random() < 0.5 else {}
    return _json(status, {"detail": "busy"}, **headers)


_SENSELESS: Final = [
    Reply(200, {"content-type": "text/html"}, b"<html>welcome</html>"),
    Reply(200, {}, b""),
    _json(200, {"language": "en"}),
    _json(200, {"segments": [{"text": "no times"}]}),
    _json(200, {"segments": [{"start": "0", "end": None, "text": 7}]}),
    _json(200, []),
]


def _trouble(
    kind: FailureKind, target: SimulatedServer, *, unreachable: bool = False
) -> ServerTrouble:
    error = ServerTrouble(kind, f"{target.name}: {kind}", target.name)
    error.unreachable = unreachable
    return error


def _names(pieces: Sequence[Piece]) -> str:
    if not pieces:
        return "probe"
    first, last = pieces[0], pieces[-1]
    return first.id if first is last else f"{first.id}–c{last.index}"
