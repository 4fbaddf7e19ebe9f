"""What is no speech, made by numpy: each function takes a generator and a length in samples.

The results have a root mean square of 1; `cases` sets the level.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000

Sound = NDArray[np.float32]
_Floats = NDArray[np.floating[Any]]
_Maker = Callable[[np.random.Generator, int], _Floats]


def _coloured(rng: np.random.Generator, size: int, slope: float) -> _Floats:
    """Noise whose power falls as frequency to the power of -`slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 20.0)
    return np.asarray(np.fft.irfft(spectrum * hertz ** (-slope / 2), size))


def _band(rng: np.random.Generator, size: int, low: float, high: float) -> _Floats:
    spectrum = np.fft.rfft(rng.standard_normal(size))
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    return np.asarray(np.fft.irfft(spectrum * ((hertz > low) & (hertz < high)), size))


def _time(size: int) -> _Floats:
    return np.arange(size) / RATE


def white(rng: np.random.Generator, size: int) -> _Floats:
    return _coloured(rng, size, 0)


def pink(rng: np.random.Generator, size: int) -> _Floats:
    return _coloured(rng, size, 1)


def brown(rng: np.random.Generator, size: int) -> _Floats:
    return _coloured(rng, size, 2)


def wind(rng: np.random.Generator, size: int) -> _Floats:
    """Brown noise in gusts of some seconds."""
    gusts = np.interp(_time(size), np.arange(0, 600, 1.5), rng.uniform(0, 1, 400) ** 2)
    return np.asarray(_coloured(rng, size, 2) * gusts)


def hum(rng: np.random.Generator, size: int) -> _Floats:
    """Mains: 50 or 60 Hz and what comes with it."""
    base = rng.choice([50.0, 60.0])
    tones = [np.sin(2 * np.pi * base * k * _time(size)) / k for k in range(1, 9)]
    return np.asarray(np.sum(tones, axis=0) + 0.05 * rng.standard_normal(size))


def tone(rng: np.random.Generator, size: int) -> _Floats:
    return np.asarray(np.sin(2 * np.pi * rng.uniform(150, 2000) * _time(size)))


def _note(hertz: float, size: int, fade: float) -> _Floats:
    """A plucked string: harmonics that die away."""
    t = _time(size)
    parts = [np.sin(2 * np.pi * hertz * k * t) / k**1.5 for k in range(1, 7)]
    return np.asarray(np.sum(parts, axis=0) * np.exp(-t / fade))


def chords(rng: np.random.Generator, size: int) -> _Floats:
    """A triad every second, as from a guitar."""
    sound = np.zeros(size + RATE * 3)
    for start in range(0, size, RATE):
        root = 110 * 2 ** (rng.integers(0, 12) / 12)
        for step in (0, int(rng.choice([3, 4])), 7, 12):
            sound[start : start + RATE * 3] += _note(root * 2 ** (step / 12), RATE * 3, 0.8)
    return sound[:size]


def melody(rng: np.random.Generator, size: int) -> _Floats:
    """Single notes of a scale with vibrato, four to a second: a flute, nearly a voice."""
    pitches = 440 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12], size // RATE * 4 + 4) / 12)
    pitch = np.repeat(pitches, RATE // 4)[:size] * (1 + 0.01 * np.sin(2 * np.pi * 5 * _time(size)))
    swell = np.abs(np.sin(2 * np.pi * 2 * _time(size)))
    return np.asarray(np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * swell)


def beat(rng: np.random.Generator, size: int) -> _Floats:
    """A drum at 120 beats a minute."""
    t = _time(RATE // 2)
    kick = np.sin(2 * np.pi * 60 * t) * np.exp(-t / 0.08)
    hat = rng.standard_normal(t.size) * np.exp(-np.abs(t - 0.25) / 0.02) * 0.3
    return np.resize(kick + hat, size)


def clicks(rng: np.random.Generator, size: int) -> _Floats:
    """A keyboard: short bursts at random times, about four to a second."""
    hits = (rng.random(size) < 4 / RATE) * rng.uniform(0.3, 1, size)
    burst = rng.standard_normal(160) * np.exp(-np.arange(160) / 30)
    return np.asarray(np.convolve(hits, burst)[:size] + 1e-4 * rng.standard_normal(size))


def breath(rng: np.random.Generator, size: int) -> _Floats:
    """Breathing in and out, every four seconds."""
    phase = np.sin(2 * np.pi * _time(size) / 4 + rng.uniform(0, 6))
    return np.asarray(_band(rng, size, 300, 3000) * np.maximum(phase, 0.02) ** 2)


def steps(rng: np.random.Generator, size: int) -> _Floats:
    """Footsteps: dull thumps, not quite regular."""
    sound = 0.002 * rng.standard_normal(size + RATE)
    at = 0
    while at < size:
        thump = _band(rng, RATE // 4, 40, 400) * np.exp(-np.arange(RATE // 4) / 900)
        sound[at : at + thump.size] += thump
        at += int(RATE * rng.uniform(0.45, 0.65))
    return sound[:size]


def rain(rng: np.random.Generator, size: int) -> _Floats:
    drops = (rng.random(size) < 60 / RATE) * rng.uniform(0, 1, size)
    splash = np.exp(-np.arange(60) / 10)
    return np.asarray(np.convolve(drops, splash)[:size] + 0.02 * white(rng, size))


def ringing(rng: np.random.Generator, size: int) -> _Floats:
    """A telephone: two tones, two seconds on and four off."""
    on = (_time(size) + rng.uniform(0, 2)) % 6 < 2
    tones = np.sin(2 * np.pi * 440 * _time(size)) + np.sin(2 * np.pi * 480 * _time(size))
    return np.asarray(tones * on + 1e-3 * rng.standard_normal(size))


def murmur(rng: np.random.Generator, size: int) -> _Floats:
    """Speech behind a wall: noise with the rhythm of syllables and the colour of a voice."""
    syllables = np.interp(_time(size), np.arange(0, 600, 0.12), rng.uniform(0, 1, 5000) ** 2)
    return np.asarray(_band(rng, size, 100, 700) * syllables)


def engine(rng: np.random.Generator, size: int) -> _Floats:
    """A motor whose speed wanders."""
    speed = np.interp(_time(size), np.arange(0, 600, 2), rng.uniform(60, 110, 300))
    turns = np.cumsum(speed) / RATE
    return np.asarray(np.sum([np.sin(2 * np.pi * k * turns) / k for k in range(1, 12)], axis=0))


NOISES: dict[str, _Maker] = {
    maker.__name__: maker
    for maker in (
        *(white, pink, brown, wind, hum, tone, chords, melody, beat),
        *(clicks, breath, steps, rain, ringing, murmur, engine),
    )
}


def noise(kind: str, seed: int, seconds: float, level: float) -> Sound:
    """Noise of a kind, at a level in dB below full scale (root mean square)."""
    raw = NOISES[kind](np.random.default_rng(seed), round(seconds * RATE))
    strength = 10 ** (level / 20) / max(float(np.sqrt(np.mean(raw**2))), 1e-9)
    return np.asarray(np.clip(raw * strength, -1, 1), dtype=np.float32)
