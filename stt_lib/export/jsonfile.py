"""One JSON document, written segment by segment: each stands on a line of its own.

    {"recording": id or null, "since": time or null, "until": time or null,
     "segments": [{"recording", "transcript", "start", "end", "text", "language", "model",
                   "words": [{"start", "end", "text"}]}]}

Times are UTC, as ISO 8601 writes them. What is not known is absent from a segment.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, utc


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """The document, in as many parts as there are segments."""
    head = {
        "recording": scope.recording,
        "since": utc(scope.since) if scope.since else None,
        "until": utc(scope.until) if scope.until else None,
    }
    yield _line(head)[:-1] + ', "segments": ['
    between = "\n"
    for said in in_time(stretches):
        yield between + _line(_segment(said))
        between = ",\n"
    yield "\n]}\n"


def _segment(said: Utterance) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "recording": said.recording,
        "transcript": said.transcript,
        "start": utc(said.start),
        "end": utc(said.end),
        "text": said.text,
    }
    known = {"language": said.language, "model": said.model, "words": _words(said)}
    return entry | {name: value for name, value in known.items() if value}


def _words(said: Utterance) -> list[dict[str, str]]:
    return [
        {"start": utc(word.start), "end": utc(word.end), "text": word.text.strip()}
        for word in said.words
    ]


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
