"""What a server heard: JSON to an `Answer`, validated once, here.

Unknown fields are ignored, and so are scores and words that make no sense: the text matters. What
comes out has finite times within the audio that do not run backwards.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from stt_lib.domain import languages
from stt_lib.domain.models import Answer, Segment, Word
from stt_lib.errors import FailureKind, Suspect
from stt_lib.servers import diagnosis
from stt_lib.servers.transport import Reply

MAX_NUMBER: Final = 1e6
"""Larger than any time in seconds and any score."""

LANGUAGES: Final = 5
"""Probable languages that are kept."""


# -- shapes -----------------------------------------------------------------------------------


def _usable(value: object) -> object:
    """A score that cannot be computed says nothing about the text, so it is absent, not wrong."""
    is_number = isinstance(value, int | float)
    return value if not is_number or abs(value) <= MAX_NUMBER else None  # type: ignore[arg-type]


def _or_none(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


def _named(*order: str) -> Callable[[object], object]:
    """Some servers send objects as lists, because that is how JSON writes named tuples."""

    def named(value: object) -> object:
        return dict(zip(order, value, strict=False)) if isinstance(value, list) else value

    return named


_Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_NUMBER, le=MAX_NUMBER)]
_Score = Annotated[_Number | None, BeforeValidator(_usable)]
_Language = Annotated[StrictStr, StringConstraints(max_length=100)]
# The length is no part of the pattern: counted by the expression, it takes 20 MB.
_Name = StringConstraints(strip_whitespace=True, max_length=200, pattern=r"^[\w./\\:@+-]+$")
_Model = Annotated[Annotated[StrictStr, _Name] | None, WrapValidator(_or_none)]
_Duration = Annotated[Annotated[float, Field(gt=0, le=MAX_NUMBER)] | None, WrapValidator(_or_none)]
"""Some servers send the number as text."""


class _Shape(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Word(_Shape):
    start: _Number
    end: _Number
    text: Annotated[StrictStr, StringConstraints(pattern=r"\S")] = Field(
        validation_alias=AliasChoices("word", "text")
    )
    probability: Annotated[_Number | None, WrapValidator(_or_none)] = Field(
        None, validation_alias=AliasChoices("probability", "score")
    )


_WordRow = Annotated[_Word, BeforeValidator(_named("start", "end", "word", "probability"))]
_Words = Annotated[list[_WordRow] | None, WrapValidator(_or_none)]


class _Segment(_Shape):
    start: _Number
    end: _Number
    text: StrictStr
    no_speech_prob: _Score = None
    avg_logprob: _Score = None
    compression_ratio: _Score = None
    language: Annotated[_Language | None, WrapValidator(_or_none)] = None
    words: _Words = None

    def record(self, length: float) -> Segment:
        """Times within the audio that never run backwards."""
        start = _within(self.start, 0.0, length)
        scores = (self.no_speech_prob, self.avg_logprob, self.compression_ratio)
        if self.avg_logprob == 0:
            # Nothing is ever that certain: a server without scores fills in constants.
            scores = (None, None, None)
        end = _within(self.end, start, length)
        return Segment(
            *(start, end, self.text, *scores),
            language=languages.code(self.language),
            words=_records(self.words, length),
        )


_ROW = (
    *("id", "seek", "start", "end", "text", "tokens", "temperature"),
    *("avg_logprob", "compression_ratio", "no_speech_prob", "words"),
)
_SegmentRow = Annotated[_Segment, BeforeValidator(_named(*_ROW))]


class _Transcription(_Shape):
    segments: list[_SegmentRow]
    language: _Language | None = None
    top_language_probs: list[tuple[_Language, _Number]] | None = None
    model: _Model = None


class _VerboseJson(_Shape):
    """`verbose_json` of OpenAI's API, and what is close to it."""

    text: StrictStr | None = None
    segments: list[_SegmentRow] | None = None
    words: _Words = None
    language: _Language | None = None
    duration: _Duration = None
    model: _Model = None
    language_probabilities: dict[_Language, _Number] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "_VerboseJson":
        if self.text is None and self.segments is None:
            raise ValueError("lacks text and segments")
        if self.words and not self.segments and not self.spoken:
            raise ValueError("has words, but no text")
        return self

    @property
    def spoken(self) -> str:
        return (self.text or "").strip()


# -- answers ----------------------------------------------------------------------------------


def transcription(reply: Reply, server: str, seconds: float | None) -> Answer:
    """Read `{"language", "top_language_probs", "segments", "model"}`, the user's own protocol.

    `seconds` is the length of the audio, where it is known.

    Raises:
        AttemptError: of the kind that the status code or the shape of the answer says.
    """
    heard = _parsed(_Transcription, reply, server, "transcribe")
    length = math.inf if seconds is None else seconds
    probs = heard.top_language_probs
    return Answer(
        segments=tuple(segment.record(length) for segment in heard.segments),
        language=heard.language or None,
        top_language_probs=None if probs is None else tuple(probs),
        model=heard.model,
        server=server,
    )


def verbose_json(
    reply: Reply, server: str, *, protocol: str, seconds: float | None, fallback: float
) -> tuple[Answer, float | None]:
    """Read `{"text", "language", "duration", "segments", …}`, much of which may be missing.

    Text without segments becomes one segment over the whole audio: `seconds`, or what the server
    says, or `fallback`. Also returns how many seconds of the audio were certainly heard, if known.

    Raises:
        AttemptError: of the kind that the status code or the shape of the answer says.
    """
    heard = _parsed(_VerboseJson, reply, server, protocol)
    length = math.inf if seconds is None else seconds
    segments = heard.segments or []
    ends = [segment.end for segment in segments] + ([heard.duration] if heard.duration else [])
    if not segments and heard.spoken:
        end = seconds or heard.duration or fallback
        segments = [_Segment(start=0.0, end=end, text=heard.text or "")]
    records = tuple(segment.record(length) for segment in segments)
    if not any(record.words for record in records):
        records = _shared_out(records, _records(heard.words, length))
    answer = Answer(
        segments=records,
        language=languages.code(heard.language),
        top_language_probs=_ranked(heard.language_probabilities),
        model=heard.model,
        server=server,
    )
    return answer, max(ends, default=None)


def _ranked(probs: dict[str, float] | None) -> tuple[tuple[str, float], ...] | None:
    if not probs:
        return None
    return tuple(sorted(probs.items(), key=lambda pair: pair[1], reverse=True)[:LANGUAGES])


_AnyShape = TypeVar("_AnyShape", bound=_Shape)


def _parsed(shape: type[_AnyShape], reply: Reply, server: str, protocol: str) -> _AnyShape:
    diagnosis.check_status(reply, server, protocol)
    try:
        return shape.model_validate_json(reply.body)
    except ValidationError as error:
        _invalid(error, reply, server, protocol)


def _invalid(error: ValidationError, reply: Reply, server: str, protocol: str) -> NoReturn:
    """Say where the answer is wrong, never what it says: that may be transcript text."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Keys of the server's own may be text as well: only the names of fields are quoted.
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS)
    if first["type"] == "json_invalid":
        what = "is not JSON"
    elif first["type"] == "missing":
        what = f"lacks {place}"
    elif first["type"] == "value_error":
        what = first["msg"].removeprefix("Value error, ")
    else:
        what = f"has a wrong value at {place or 'its top level'} ({first['type']})"
    message = f"the answer of {server} {what}: {diagnosis.hint(reply, server, protocol)}"
    raise Suspect(FailureKind.INVALID_ANSWER, message, server) from None


_FIELDS = {
    name for shape in (_Transcription, _VerboseJson, _Segment) for name in shape.model_fields
}


# -- words ------------------------------------------------------------------------------------


def _within(moment: float, earliest: float, latest: float) -> float:
    return max(earliest, min(moment, latest))


def _records(words: Sequence[_Word] | None, length: float) -> tuple[Word, ...]:
    """Words whose times lie within the audio and never run backwards."""
    records: list[Word] = []
    start = 0.0
    for word in words or ():
        start = _within(word.start, start, length)
        end = _within(word.end, start, length)
        records.append(Word(start, end, word.text, word.probability))
    return tuple(records)


def _shared_out(segments: Sequence[Segment], words: Sequence[Word]) -> tuple[Segment, ...]:
    """Give each segment its words from one list for all: by their number, else by their times."""
    counts = [len(segment.text.split()) for segment in segments]
    if sum(counts) == len(words):
        rest = iter(words)
        return tuple(
            replace(segment, words=tuple(itertools.islice(rest, count)))
            for segment, count in zip(segments, counts, strict=True)
        )
    ends = [segment.start for segment in segments[1:]] + [math.inf]
    return tuple(
        replace(segment, words=tuple(w for w in words if segment.start <= w.start < end))
        for segment, end in zip(segments, ends, strict=False)
    )
