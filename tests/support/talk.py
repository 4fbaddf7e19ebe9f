"""Somebody talks across the boundaries of chunks, and a server hears it, each time a bit different.

The chunks are those of `World.record`: their bytes say which one they are. What lies at the outer
ends of the posted audio is cut off in the middle of the word, as a real server hears it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.support.whisper import Reply, Request, transcription
from tests.support.world import World

CHUNK_SECONDS = 10.0
VOCABULARY = """
    the roof still leaks and rain comes in right above cookbooks so we moved them to second floor
    where children used to read that is good news for this evening
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Said:
    """A word; times in seconds from the start of the recording."""

    text: str
    start: float
    end: float


class Talk:
    """So many chunks full of words, some of them across a boundary; as a script for a server.

    `jitter` in seconds is how far off the server's times are, `timed` whether it gives words.
    """

    def __init__(
        self, chunks: int, *, seed: int = 0, jitter: float = 0.4, timed: bool = False
    ) -> None:
        self._rng = random.Random(seed)
        self._jitter = jitter
        self._timed = timed
        self.said = list(_words(chunks * CHUNK_SECONDS, self._rng))

    @property
    def words(self) -> list[str]:
        return [word.text for word in self.said]

    def __call__(self, request: Request) -> Reply:
        if request.is_probe:
            return transcription([])
        indexes = [int(audio.decode().rpartition("/")[2]) for audio in request.audio]
        assert all(b == a + 1 for a, b in pairwise(indexes)), "not in order"
        begin, end = indexes[0] * CHUNK_SECONDS, (indexes[-1] + 1) * CHUNK_SECONDS
        return transcription(list(self._segments(list(self._heard(begin, end)), begin)))

    def _heard(self, begin: float, end: float) -> Iterator[Said]:
        for word in self.said:
            if begin <= word.start and word.end <= end:
                yield word
            elif word.start < begin < word.end:
                yield Said(word.text[len(word.text) // 2 :], begin, word.end)
            elif word.start < end < word.end:
                yield Said(word.text[: len(word.text) // 2 + 1], word.start, end)

    def _segments(self, heard: list[Said], begin: float) -> Iterator[dict[str, Any]]:
        while heard:
            size = self._rng.randint(3, 14)
            part, heard = heard[:size], heard[size:]
            shift = self._rng.uniform(-self._jitter, self._jitter) - begin
            segment: dict[str, Any] = {
                "start": part[0].start + shift,
                "end": part[-1].end + shift,
                "text": "".join(f" {word.text}" for word in part),
                "no_speech_prob": 0.01,
            }
            if self._timed:
                segment["words"] = [
                    {"word": f" {w.text}", "start": w.start + shift, "end": w.end + shift}
                    for w in part
                ]
            yield segment


def _words(seconds: float, rng: random.Random) -> Iterator[Said]:
    """Words all along, so placed that one lies across each boundary of a chunk."""
    at = 0.2
    before = ""
    while at < seconds - 1:
        text = rng.choice([word for word in VOCABULARY if word != before])
        length = 0.06 * len(text) + 0.1
        left = CHUNK_SECONDS - at % CHUNK_SECONDS
        if length < left < length + 0.5:
            length = left + 0.15
        yield Said(text, at, at + length)
        before = text
        at += length + rng.choice([0.05, 0.05, 0.05, 0.6])


def told(world: World) -> list[str]:
    """The words of all transcripts, one after the other in time."""
    documents = world.transcriptions.find({}, {"segments.text": 1}, sort=[("start", 1)])
    return [
        word
        for document in documents
        for segment in document["segments"]
        for word in segment["text"].split()
    ]
