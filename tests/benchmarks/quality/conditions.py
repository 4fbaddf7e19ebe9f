"""What may be wrong with a recording: pauses, noises, a telephone, a low level."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from tests.benchmarks import material
from tests.benchmarks.material import Part

TALKERS = 6
"""Voices that speak at the same time in babble."""

TELEPHONE = (300.0, 3400.0)
"""Hertz. Where the loudness has fallen by 3 dB; a telephone does not cut more sharply."""

STEEPNESS = 4
"""Order of the slopes: 24 dB per octave."""

SILENCE_SECONDS = 120.0
SILENCE_EVERY = 40
"""Sentences between two long silences."""

Pauses = Callable[[int, random.Random], float]
"""Return the seconds before a sentence, by its number."""

Treatment = Callable[[Samples, Part, str], Samples]
"""Return what becomes of the sound of a recording, by its part and name."""


@dataclass(frozen=True)
class Condition:
    """How a recording is made of sentences."""

    name: str
    pause: Pauses
    treat: Treatment
    is_available: Callable[[Part], bool] = lambda part: True
    most_times: int = 1
    """How often a sentence is said in a row at most, as telephone prompts are."""


# -- pauses ---------------------------------------------------------------------------------------


def thinking(number: int, rng: random.Random) -> float:
    """Mostly a breath; one in six is a pause of up to 20 s."""
    return rng.uniform(2.0, 20.0) if rng.random() < 1 / 6 else rng.uniform(0.5, 2.0)


def reading(number: int, rng: random.Random) -> float:
    """Somebody reads without a break, so that a cut falls into a sentence, mostly."""
    return rng.uniform(0.3, 0.6)


def absent(number: int, rng: random.Random) -> float:
    """Now and then nobody is there for minutes."""
    return SILENCE_SECONDS if number % SILENCE_EVERY == 20 else thinking(number, rng)


# -- treatments -----------------------------------------------------------------------------------


def untouched(sound: Samples, part: Part, name: str) -> Samples:
    return sound


def faint(sound: Samples, part: Part, name: str, decibels: float) -> Samples:
    return sound * np.float32(10 ** (-decibels / 20))


def telephone(sound: Samples, part: Part, name: str) -> Samples:
    """Only the band that a telephone passes, with slopes like its own."""
    spectrum = np.fft.rfft(sound)
    hertz = np.maximum(np.fft.rfftfreq(sound.size, 1 / WHISPER_RATE), 1.0)
    low, high = TELEPHONE
    passed = (1 + (low / hertz) ** (2 * STEEPNESS)) * (1 + (hertz / high) ** (2 * STEEPNESS))
    return np.fft.irfft(spectrum / np.sqrt(passed), sound.size).astype(np.float32)


def with_babble(sound: Samples, part: Part, name: str, decibels: float) -> Samples:
    """Six people speak in the background."""
    rng = random.Random(name)
    files = material.crowd(part)
    talk = sum(_normal(_endless(rng.sample(files, len(files)), sound.size)) for _ in range(TALKERS))
    return _mixed(sound, np.asarray(talk, np.float32), decibels)


def with_music(sound: Samples, part: Part, name: str, decibels: float) -> Samples:
    """Music plays in the background."""
    return _mixed(sound, _endless(material.music(part), sound.size), decibels)


def _mixed(sound: Samples, noise: Samples, decibels: float) -> Samples:
    """Add noise that is so many decibels less loud than the speech; pauses do not count."""
    speech = sound[sound != 0]
    return sound + _normal(noise) * np.float32(_level(speech) * 10 ** (-decibels / 20))


def _endless(files: Sequence[Path], size: int) -> Samples:
    """Files one after the other, and once more from the first, up to that size."""
    pieces: list[Samples] = []
    for piece in _again_and_again(files):
        pieces.append(piece)
        if sum(p.size for p in pieces) >= size:
            break
    return np.concatenate(pieces)[:size]


def _again_and_again(files: Sequence[Path]) -> Iterator[Samples]:
    while True:
        for path in files:
            yield material.trimmed(decode(path.read_bytes(), path.name))


def _normal(sound: Samples) -> Samples:
    return sound / np.float32(max(_level(sound), 1e-9))


def _level(sound: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def _has_crowd(part: Part) -> bool:
    return bool(material.crowd(part))


def _has_music(part: Part) -> bool:
    return bool(material.music(part))


CLEAN = Condition("clean", thinking, untouched)

CONDITIONS = (
    CLEAN,
    Condition("continuous", reading, untouched),
    Condition("repeated", thinking, untouched, most_times=3),
    Condition("babble 10 dB", thinking, partial(with_babble, decibels=10), _has_crowd),
    Condition("babble 0 dB", thinking, partial(with_babble, decibels=0), _has_crowd),
    Condition("music 10 dB", thinking, partial(with_music, decibels=10), _has_music),
    Condition("music 0 dB", thinking, partial(with_music, decibels=0), _has_music),
    Condition("telephone", thinking, telephone),
    Condition("-30 dB", thinking, partial(faint, decibels=30)),
    Condition("silences", absent, untouched),
)
