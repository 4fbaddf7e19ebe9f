"""What readers see of a transcript: what was said, and when.

This relies on the documented contract only: `original`, `start` and `segments` with `text`,
`start` and `end`. Transcripts of older programs hold no more than that, and no value in a document
is trusted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

LONGEST_SECONDS = 86400.0
"""Seconds. Times farther from the start of their transcript than this are nonsense."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word and when it was spoken (UTC)."""

    start: datetime
    end: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """A segment with absolute times (UTC).

    `recording` and `transcript` are ids in the form that people can type. `words` is empty if the
    words were not stored, or do not add up to the text.
    """

    recording: str
    transcript: str
    start: datetime
    end: datetime
    text: str
    language: str | None = None
    model: str | None = None
    words: tuple[SpokenWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """The utterances of one transcript, in order; none begins before `start` (UTC)."""

    start: datetime
    utterances: tuple[Utterance, ...]


def stretch(document: Mapping[str, Any], shown: Callable[[Any], str]) -> Stretch | None:
    """Read a transcript; None if it has no usable start time.

    `shown` formats an id so that people can type it.
    """
    start = document.get("start")
    if not isinstance(start, datetime):
        return None
    said = sorted(_utterances(document, start, shown), key=lambda utterance: utterance.start)
    return Stretch(min([start, *(u.start for u in said[:1])]), tuple(said))


def _utterances(
    document: Mapping[str, Any], start: datetime, shown: Callable[[Any], str]
) -> Iterator[Utterance]:
    recording, transcript = shown(document.get("original")), shown(document.get("_id"))
    segments = document.get("segments")
    for segment in segments if isinstance(segments, list) else []:
        text = _text(segment.get("text")) if isinstance(segment, dict) else ""
        if text.strip():
            began, ended = _times(segment, start)
            yield Utterance(
                recording,
                transcript,
                began,
                ended,
                text,
                language=_text(segment.get("language")) or _text(document.get("language")) or None,
                model=_text(document.get("model")) or None,
                words=_words(segment, start, text),
            )


def _times(piece: Mapping[str, Any], start: datetime) -> tuple[datetime, datetime]:
    """Use absolute times where they are stored, else seconds from the transcript's start."""
    began = _moment(piece.get("start_at"), piece.get("start"), start) or start
    ended = _moment(piece.get("end_at"), piece.get("end"), start) or began
    return began, max(began, ended)


def _moment(stored: Any, seconds: Any, start: datetime) -> datetime | None:
    if isinstance(stored, datetime):
        return stored
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    is_usable = is_number and 0 <= seconds <= LONGEST_SECONDS
    return start + timedelta(seconds=seconds) if is_usable else None


def _words(segment: Mapping[str, Any], start: datetime, text: str) -> tuple[SpokenWord, ...]:
    """The stored words, provided that they add up to the text."""
    stored = segment.get("words")
    entries = [w for w in stored if isinstance(w, dict)] if isinstance(stored, list) else []
    words = tuple(
        SpokenWord(*_times(entry, start), _text(entry.get("word", entry.get("text"))))
        for entry in entries
    )
    is_whole = _without_spaces("".join(w.text for w in words)) == _without_spaces(text)
    return words if is_whole else ()


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
