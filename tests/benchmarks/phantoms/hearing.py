"""What a real model hears in the set, kept as JSON.

Each case is heard twice: by our own server, whose library leaves out by itself what it deems no
speech, and eagerly, as by a server that returns whatever the model writes.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import ctranslate2
from faster_whisper import WhisperModel

from stt_lib.local.transcriber import BUNDLE, BUNDLED_MODEL, Transcriber
from stt_lib.local.vad import probabilities, speech_probability
from tests.benchmarks.phantoms.cases import CHUNK_SECONDS, Case, all_cases
from tests.benchmarks.phantoms.noises import RATE, Sound

Heard = dict[str, Any]
"""A case without its sound: name, group, server, chunks (probabilities), spoken, answer."""

_SCORES = ("no_speech_prob", "avg_logprob", "compression_ratio")


class Ears:
    """A model, heard through either server."""

    def __init__(self, model: str) -> None:
        place = import_module(BUNDLE).get_model_path() if model == BUNDLED_MODEL else model
        self._server = Transcriber(model, parallel=1)
        self._model = WhisperModel(str(place), device="cpu", compute_type="int8", cpu_threads=1)

    def hear(self, case: Case, number: int) -> Iterator[Heard]:
        facts = {
            "name": case.name,
            "group": case.group,
            "chunks": [speech_probability(probabilities([chunk])) for chunk in _chunks(case.sound)],
            "spoken": [[round(s.start, 2), round(s.end, 2), s.text] for s in case.spoken],
        }
        ctranslate2.set_random_seed(number)
        answer = self._server.transcribe(case.sound, lambda: False)
        answer.pop("model")
        yield {"server": "ours", **facts, **answer}
        yield {"server": "eager", **facts, **self._eagerly(case.sound)}

    def _eagerly(self, sound: Sound) -> dict[str, Any]:
        found, info = self._model.transcribe(
            sound,
            beam_size=5,
            temperature=0.0,
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
            condition_on_previous_text=False,
        )
        probs = info.all_language_probs or [(info.language, info.language_probability)]
        return {
            "language": info.language,
            "top_language_probs": [[name, round(float(prob), 4)] for name, prob in probs[:5]],
            "segments": [
                {
                    "text": segment.text,
                    "start": round(segment.start, 2),
                    "end": round(segment.end, 2),
                    **{name: round(getattr(segment, name), 4) for name in _SCORES},
                }
                for segment in found
            ],
        }


def hear(model: str) -> Iterator[Heard]:
    """Let the model hear every case; that takes a quarter of an hour with a small one."""
    ears = Ears(model)
    for number, case in enumerate(all_cases()):
        yield from ears.hear(case, number)


def _chunks(sound: Sound) -> list[Sound]:
    size = CHUNK_SECONDS * RATE
    return [sound[at : at + size] for at in range(0, sound.size, size)]


def write(path: Path, heard: Iterator[Heard]) -> None:
    """One answer a line, so that two versions can be compared."""
    with path.open("w") as file:
        for case in heard:
            file.write(json.dumps(case, ensure_ascii=False) + "\n")


def read(path: Path) -> list[Heard]:
    return [json.loads(line) for line in path.read_text().splitlines()]
