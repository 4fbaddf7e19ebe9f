"""What was said: recordings of words, cut into chunks whose bytes name what they hold."""

import random
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from tests.simulation.timing import START
from tests.support.memory_database import Document

CHUNK_SECONDS: Final = 10.0
WORD_SECONDS: Final = 0.3
_PLACE: Final = re.compile(rb"SIM(\d+):(\d+);")
_SAMPLE_RATE: Final = 48_000


class Audio(Enum):
    """What is special about a chunk."""

    SPEECH = "speech"
    EMPTY = "empty"
    """The detector heard speech, the server hears none."""
    NOISE = "noise"
    """The server makes up a phrase, which the filter drops."""
    POISON = "poison"
    """No server takes a request with this chunk."""
    SHY = "shy"
    """No server takes a request with this chunk and others."""
    BROKEN = "broken"
    """The document cannot be used: it holds no audio."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word; `start` in seconds from the start of its chunk."""

    text: str
    start: float


@dataclass(slots=True)
class Piece:
    """A chunk of a recording."""

    recording: int
    index: int
    kind: Audio
    words: tuple[Spoken, ...] = ()
    priority: int | None = None

    @property
    def id(self) -> str:
        return f"r{self.recording}c{self.index}"

    @property
    def start(self) -> datetime:
        # An hour apart in the past, so that recordings do not overlap.
        hours = timedelta(hours=self.recording) - timedelta(hours=30)
        return START + hours + timedelta(seconds=CHUNK_SECONDS * self.index)

    def document(self, now: datetime) -> Document:
        """As the ingester inserts it."""
        made: dict[str, Any] = {
            "_id": self.id,
            "original_id": f"r{self.recording}",
            "index": self.index,
            "start": self.start,
            "data": b"" if self.kind is Audio.BROKEN else _opus(self.recording, self.index),
            "format": "opus",
            "ingested_at": now,
            "vad": {"ran_at": now, "prob": 0.9, "has_speech": True},
            "transcribed_at": None,
        }
        return made if self.priority is None else {**made, "priority": self.priority}


@dataclass(slots=True)
class Speech:
    """All recordings."""

    pieces: dict[tuple[int, int], Piece] = field(default_factory=dict)

    def by_id(self) -> dict[str, Piece]:
        return {piece.id: piece for piece in self.pieces.values()}

    def place(self, data: bytes) -> Piece | None:
        """The chunk with this audio; None if it is not from here."""
        found = _PLACE.search(data)
        return self.pieces[int(found[1]), int(found[2])] if found else None


def compose(rng: random.Random, recordings: int, chunks: int) -> Speech:
    """Recordings with so many chunks in all; some words occur once, others again and again."""
    speech = Speech()
    counter = 0
    sizes = _sizes(rng, recordings, chunks)
    for recording, size in enumerate(sizes):
        vocabulary = [_word(rng.randrange(10_000)) for _ in range(12)] if rng.random() < 0.3 else []
        spoken: list[str] = []
        for index in range(size):
            kind = _kind(rng)
            words = []
            for start in _starts(rng) if kind in (Audio.SPEECH, Audio.SHY) else []:
                counter += 1
                text = rng.choice(vocabulary) if vocabulary else _word(counter)
                if spoken[-2:] == [text, text]:  # the filter takes more for a loop
                    text = _word(counter)
                spoken.append(text)
                words.append(Spoken(text, start))
            speech.pieces[recording, index] = Piece(recording, index, kind, tuple(words))
    return speech


def _sizes(rng: random.Random, recordings: int, chunks: int) -> list[int]:
    """How many chunks each recording has: all have some, one or the other has many."""
    weights = [rng.random() ** 2 + 0.05 for _ in range(recordings)]
    sizes = [max(2, round(chunks * weight / sum(weights))) for weight in weights]
    sizes[0] += max(0, chunks - sum(sizes))
    return sizes


def _kind(rng: random.Random) -> Audio:
    rare = [Audio.EMPTY, Audio.NOISE, Audio.POISON, Audio.SHY, Audio.BROKEN]
    return rng.choices([Audio.SPEECH, *rare], [40, 2, 1, 0.5, 0.5, 0.5])[0]


def _starts(rng: random.Random) -> Iterable[float]:
    """Words with pauses; the chunk may begin or end in the middle of a sentence."""
    moment = rng.choice([0.02, 0.2, 1.5])
    end = CHUNK_SECONDS - rng.choice([0.02, 0.3, 2.0])
    while moment + WORD_SECONDS <= end:
        yield round(moment, 3)
        moment += WORD_SECONDS + rng.choice([0.1, 0.1, 0.1, 0.4, 1.2])


def _word(number: int) -> str:
    """A pronounceable word that no other number has."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    text = ""
    number += len(syllables)
    while number:
        number, place = divmod(number, len(syllables))
        text += syllables[place]
    return text


def _opus(recording: int, index: int) -> bytes:
    """An Ogg Opus file of ten seconds, as far as page headers tell."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, _SAMPLE_RATE, 0, 0)
    content = b"SIM%d:%d;" % (recording, index)
    return _page(head, 2, 0) + _page(content, 4, round(CHUNK_SECONDS * _SAMPLE_RATE))


def _page(body: bytes, flags: int, granule: int) -> bytes:
    return struct.pack("<4sBBqIIIBB", b"OggS", 0, flags, granule, 1, 0, 0, 1, len(body)) + body
