"""Real sounds through the real parts: what the detector passes and what the filter leaves.

Sounds and short answers are stored as recordings of their own, with quiet room noise around them.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import WHISPER_RATE
from stt_lib.domain.models import NewChunk
from stt_lib.local.ingest import CHUNK_SECONDS
from tests.benchmarks.lab import Goal, Row, Table
from tests.benchmarks.material import Clip, Spoken
from tests.benchmarks.quality import recordings
from tests.benchmarks.quality.recordings import Recording, Sentence
from tests.benchmarks.quality.scoring import words
from tests.benchmarks.quality.times import Shown
from tests.benchmarks.quality.ways import Texts

LONGEST = 20.0
"""Seconds of a sound that are heard."""

NEAR = 1.0
"""Seconds that the times of a dropped segment may be off."""

APART = 4
"""Chunks from one border with a word on it to the next."""

MAX_LEFT = 0.02
"""Share of the sounds of which text may be left …"""

MAX_LEFT_OF_PASSED = 0.2
"""… and of those that the detector passes."""

MAX_LOST = 0.001
"""Share of the words said that the filter may drop."""

MIN_IN_BOTH, MAX_IN_NEITHER = 57 / 60, 1 / 60
"""Shares of the words on a border of two chunks that are in both, or in neither."""

Chunks = Mapping[str, Sequence[NewChunk]]
"""Of each recording, by name."""


# -- recordings -----------------------------------------------------------------------------------


def alone(sounds: Sequence[Clip | Spoken], folder: Path) -> list[Recording]:
    """Return a recording of each sound and nothing else, in whole chunks."""
    rng = random.Random(11)
    return [_alone(number, sound, rng.uniform(1, 4), folder) for number, sound in enumerate(sounds)]


def _alone(number: int, source: Clip | Spoken, at: float, folder: Path) -> Recording:
    sound = source.sound()[: round(LONGEST * WHISPER_RATE)]
    start = round(at * WHISPER_RATE)
    chunk = CHUNK_SECONDS * WHISPER_RATE
    whole = np.pad(sound, (start, -(start + sound.size) % chunk))
    name = f"{number:03} {source.name if isinstance(source, Clip) else source.text}"
    path = recordings.saved(folder / f"alone-{number}.wav", whole, name)
    text = source.text if isinstance(source, Spoken) else ""
    said = Sentence(at, at + sound.size / WHISPER_RATE, text)
    return Recording(name, path, "en", (said,))


def on_borders(answers: Sequence[Spoken], folder: Path) -> Recording:
    """Return words whose middle is on the border of two chunks, far from each other."""
    size = APART * CHUNK_SECONDS * WHISPER_RATE
    whole = np.zeros(size * len(answers), np.float32)
    said = []
    for number, answer in enumerate(answers):
        sound = answer.sound()
        start = number * size + size // 2 - sound.size // 2
        whole[start : start + sound.size] = sound
        times = (start / WHISPER_RATE, (start + sound.size) / WHISPER_RATE)
        said.append(Sentence(*times, answer.text))
    path = recordings.saved(folder / "borders.wav", whole, "borders")
    return Recording("borders", path, "en", tuple(said))


# -- sounds without speech ------------------------------------------------------------------------


def phantoms(model: str, chunks: Chunks, heard: Texts) -> Table:
    """How many sounds are taken for speech, and of how many a transcript is made."""
    passed = [name for name, made in chunks.items() if any(chunk.has_speech for chunk in made)]
    written = [name for name in passed if _has_words(heard[name].text) or heard[name].dropped]
    left = [name for name in passed if _has_words(heard[name].text)]
    row: Row = {
        "model": model,
        "sounds": len(chunks),
        "passed": len(passed),
        "text before the filter": len(written),
        "text left": len(left),
        "% of all": _percent(len(left), len(chunks)),
        "% of passed": _percent(len(left), len(passed)),
    }
    goals = [
        Goal("share with text left", MAX_LEFT, len(left) / len(chunks), at_least=False),
        Goal(
            "share of the passed ones",
            MAX_LEFT_OF_PASSED,
            len(left) / max(1, len(passed)),
            at_least=False,
        ),
    ]
    notes = tuple(f"{name}: {heard[name].text}" for name in left)
    return Table(f"Sounds without speech, {model}", [row], goals, notes)


def _has_words(text: str) -> bool:
    return bool(re.search(r"\w", text))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


# -- speech ---------------------------------------------------------------------------------------


def lost_words(model: str, found: Sequence[Recording], heard: Texts) -> Table:
    """How many words that were said the filter has dropped."""
    said = sum(len(words(text, r.language)) for r in found for text in r.texts)
    drops = [(r, dropped) for r in found for dropped in heard[r.name].dropped]
    lost = sum(_true_words(recording, dropped) for recording, dropped in drops)
    row: Row = {
        "model": model,
        "words said": said,
        "segments dropped": len(drops),
        "true words lost": lost,
        "%": round(100 * lost / said, 3),
    }
    goals = [Goal("share of words lost", MAX_LOST, lost / said, at_least=False)]
    notes = tuple(f"{r.name}, {d.start:.1f} s: {d.text}" for r, d in drops)
    return Table(f"True words that the filter drops, {model}", [row], goals, notes)


def _true_words(recording: Recording, dropped: Shown) -> int:
    """The words of a dropped segment that were said at that time."""
    near = [
        sentence.text
        for sentence in recording.sentences
        if sentence.start - NEAR <= dropped.end and sentence.end + NEAR >= dropped.start
    ]
    said = Counter(word for text in near for word in words(text, recording.language))
    return (said & Counter(words(dropped.text, recording.language))).total()


# -- short answers and borders --------------------------------------------------------------------


def answers(model: str, found: Sequence[Recording], chunks: Chunks, heard: Texts) -> Table:
    """What becomes of a word that is said alone."""
    texts = [(r.texts[0], heard[r.name].text) for r in found]
    row: Row = {
        "model": model,
        "answers": len(found),
        "passed": sum(any(c.has_speech for c in chunks[r.name]) for r in found),
        "with text": sum(_has_words(text) for _, text in texts),
        "right": sum(words(said) == words(text) for said, text in texts),
        "several words": sum(len(words(text)) > 1 for _, text in texts),
    }
    notes = tuple(f"{said}: {text}" for said, text in texts if len(words(text)) > 1)
    return Table(f"One word alone, {model}", [row], [], notes)


@dataclass(frozen=True)
class Borders:
    """Words on a border of two chunks, by the number of the two that are marked as speech."""

    both: int
    one: int
    neither: int

    @property
    def all(self) -> int:
        return self.both + self.one + self.neither


def counted(recording: Recording, chunks: Sequence[NewChunk]) -> Borders:
    """Count the marks around the middle of each word."""
    marks = {chunk.index: chunk.has_speech for chunk in chunks}
    at = [round((s.start + s.end) / 2 / CHUNK_SECONDS) for s in recording.sentences]
    found = Counter(marks[border - 1] + marks[border] for border in at)
    return Borders(found[2], found[1], found[0])


def borders(found: Borders) -> Table:
    """Whether a short word on the border of two chunks is in both of them."""
    row: Row = {
        "words": found.all,
        "in both": found.both,
        "in one": found.one,
        "in neither": found.neither,
    }
    goals = [
        Goal("share in both", round(MIN_IN_BOTH, 3), round(found.both / found.all, 3)),
        Goal(
            "share in neither",
            round(MAX_IN_NEITHER, 3),
            round(found.neither / found.all, 3),
            at_least=False,
        ),
    ]
    return Table("Digits centred on the border of two chunks", [row], goals)
