"""What a server heard: JSON to an `Answer`.

Liberal in what is taken: numbers of any kind, fields that we do not know, scores that are not
there. Strict in what comes out: finite times within the audio that do not run backwards.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from stt_lib.domain.models import Answer, Segment, Word
from stt_lib.errors import FailureKind, Suspect
from stt_lib.servers import diagnosis, languages
from stt_lib.servers.transport import Reply


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _name_or_none(value: object) -> str | None:
    is_name = isinstance(value, str) and _NAME.fullmatch(value.strip())
    return str(value).strip() if is_name else None


_NAME = re.compile(r"[\w./\\:@+-]{1,200}")
_Number = StrictFloat | StrictInt
_Finite = Annotated[_Number, Field(allow_inf_nan=False)]
_Name = Annotated[str | None, BeforeValidator(_name_or_none)]
"""The name of a model: what cannot be one is as good as none."""
_Score = Annotated[_Number | None, AfterValidator(_finite_or_none)]
"""A score that cannot be computed says nothing of the text, so it is absent, not wrong."""


_ROW = (
    *("id", "seek", "start", "end", "text", "tokens", "temperature"),
    *("avg_logprob", "compression_ratio", "no_speech_prob", "words"),
)
"""The order of faster-whisper's segments as tuples."""


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Segment(_Model):
    start: _Finite
    end: _Finite
    text: StrictStr
    no_speech_prob: _Score = None
    avg_logprob: _Score = None
    compression_ratio: _Score = None
    words: Any = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Older services send segments as rows, because that is how JSON writes named tuples."""
        return dict(zip(_ROW, value, strict=False)) if isinstance(value, list) else value

    def record(self, length: float | None) -> Segment:
        """Times within the audio, as far as its length is known, that never run backwards."""
        start = _within(self.start, length)
        scores = (self.no_speech_prob, self.avg_logprob, self.compression_ratio)
        if self.avg_logprob == 0:
            # Nothing is ever that certain: a server without scores fills in constants.
            scores = (None, None, None)
        end = max(start, _within(self.end, length))
        return Segment(start, end, self.text, *scores, words=_words(self.words, length))


def _within(moment: float, length: float | None) -> float:
    return max(0.0, min(float(moment), math.inf if length is None else length))


class _Transcription(_Model):
    segments: list[_Segment]
    language: StrictStr | None = None
    top_language_probs: list[tuple[StrictStr, _Finite]] | None = None
    model: _Name = None


class _VerboseJson(_Model):
    """`verbose_json` of OpenAI's API, and what is close to it."""

    text: StrictStr | None = None
    segments: list[_Segment] | None = None
    words: Any = None
    language: StrictStr | None = None
    duration: Any = None
    model: _Name = None
    language_probabilities: dict[str, _Finite] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "_VerboseJson":
        if self.text is None and self.segments is None:
            raise ValueError("neither text nor segments")
        return self

    @property
    def told_duration(self) -> float | None:
        """Some send the number as text."""
        try:
            seconds = float(self.duration)
        except (TypeError, ValueError):
            return None
        return seconds if math.isfinite(seconds) and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Verbose:
    """An answer, and how far into the audio the server came for certain, if it told."""

    answer: Answer
    reach: float | None


def transcription(reply: Reply, server: str, seconds: float | None) -> Answer:
    """Read `{"language", "top_language_probs", "segments", "model"}`, our own protocol's answer.

    `seconds` is the length of the audio, where it is known.

    Raises:
        AttemptError: of the kind that the status code or the shape of the answer says.
    """
    diagnosis.check_status(reply, server, "transcribe")
    heard = _parsed(_Transcription, reply, server, "transcribe")
    return Answer(
        segments=tuple(segment.record(seconds) for segment in heard.segments),
        language=heard.language or None,
        top_language_probs=_languages(heard),
        model=heard.model or None,
        server=server,
    )


def verbose_json(
    reply: Reply, server: str, *, protocol: str, seconds: float | None, fallback: float
) -> Verbose:
    """Read `{"text", "language", "duration", "segments", …}`, of which much may be missing.

    Text without segments becomes one segment over the whole audio, of `fallback` seconds where
    neither `seconds` nor the server knows better.

    Raises:
        AttemptError: of the kind that the status code or the shape of the answer says.
    """
    diagnosis.check_status(reply, server, protocol)
    heard = _parsed(_VerboseJson, reply, server, protocol)
    segments = heard.segments or []
    told = [segment.end for segment in segments]
    told += [heard.told_duration] if heard.told_duration else []
    if not segments and heard.text and heard.text.strip():
        end = seconds or heard.told_duration or fallback
        segments = [_Segment(start=0.0, end=end, text=heard.text)]
    records = tuple(segment.record(seconds) for segment in segments)
    beside = _words(heard.words, seconds)
    if beside and not any(record.words for record in records):
        records = _shared_out(records, beside)
    answer = Answer(
        segments=records,
        language=languages.code(heard.language),
        top_language_probs=_ranked(heard.language_probabilities),
        model=heard.model or None,
        server=server,
    )
    return Verbose(answer, max(told, default=None))


def _languages(heard: _Transcription) -> tuple[tuple[str, float], ...] | None:
    if heard.top_language_probs is None:
        return None
    return tuple((name, float(prob)) for name, prob in heard.top_language_probs)


def _ranked(probs: dict[str, float | int] | None) -> tuple[tuple[str, float], ...] | None:
    if not probs:
        return None
    best = sorted(probs.items(), key=lambda pair: pair[1], reverse=True)[:_LANGUAGES]
    return tuple((name, float(prob)) for name, prob in best)


_LANGUAGES = 5
"""How many of the probable languages are kept."""

_Shape = TypeVar("_Shape", bound=_Model)


def _parsed(shape: type[_Shape], reply: Reply, server: str, protocol: str) -> _Shape:
    try:
        return shape.model_validate_json(reply.body)
    except ValidationError as error:
        _invalid(error, reply, server, protocol)


def _invalid(error: ValidationError, reply: Reply, server: str, protocol: str) -> NoReturn:
    """Say where the answer is wrong, never what it says: that may be transcript text."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        what = "is not JSON"
    elif first["type"] == "missing":
        what = f"lacks {place}"
    elif not place and first["type"] == "value_error":
        what = "lacks text and segments"
    else:
        what = f"has a wrong value at {place or 'its top level'} ({first['type']})"
    message = f"the answer of {server} {what}: {diagnosis.hint(reply, protocol)}"
    raise Suspect(FailureKind.INVALID_ANSWER, message, server) from None


# -- words ------------------------------------------------------------------------------------


def _words(value: object, length: float | None) -> tuple[Word, ...]:
    """Words from `[{"word", "start", "end", "probability"}, …]`; none if that is something else.

    Their times lie within the audio of `length` seconds and never run backwards.
    """
    rows = value if isinstance(value, list) else []
    words: list[Word] = []
    earliest = 0.0
    for row in rows:
        word = _word(row, earliest, math.inf if length is None else length)
        if word is None:
            return ()
        words.append(word)
        earliest = word.start
    return tuple(words)


_WORD_ROW = ("start", "end", "word", "probability")
"""The order of faster-whisper's words as tuples."""


def _word(row: Any, earliest: float, latest: float) -> Word | None:
    if isinstance(row, list):
        row = dict(zip(_WORD_ROW, row, strict=False))
    if not isinstance(row, dict):
        return None
    text = row.get("word", row.get("text"))
    start, end = _number(row.get("start")), _number(row.get("end"))
    if not isinstance(text, str) or not text.strip() or start is None or end is None:
        return None
    start = min(max(start, earliest), latest)
    probability = _number(row.get("probability", row.get("score")))
    return Word(start, min(max(start, end), latest), text, probability)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _shared_out(segments: Sequence[Segment], words: Sequence[Word]) -> tuple[Segment, ...]:
    """Give each segment its words from one list for all: by their number, else by their times."""
    counts = [len(segment.text.split()) for segment in segments]
    if sum(counts) != len(words):
        return tuple(
            replace(segment, words=_between(words, segment, following))
            for segment, following in zip(segments, [*segments[1:], None], strict=True)
        )
    given: list[Segment] = []
    at = 0
    for segment, count in zip(segments, counts, strict=True):
        given.append(replace(segment, words=tuple(words[at : at + count])))
        at += count
    return tuple(given)


def _between(
    words: Sequence[Word], segment: Segment, following: Segment | None
) -> tuple[Word, ...]:
    """What begins in the segment or in the pause behind it."""
    beyond = math.inf if following is None else following.start
    return tuple(word for word in words if segment.start <= word.start < beyond)
