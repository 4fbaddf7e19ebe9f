"""What our documents look like: the mapping between MongoDB's dicts and our records.

Nothing here talks to MongoDB, and nothing that a document holds is trusted.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from stt_lib import __version__
from stt_lib.audio import ogg
from stt_lib.domain.models import (
    NOMINAL_CHUNK_SECONDS,
    USABLE_YEARS,
    Chunk,
    ChunkRef,
    ChunkStory,
    Detection,
    Dropped,
    Explained,
    FailedChunk,
    FailedKind,
    Holder,
    NewChunk,
    OldTranscript,
    Origin,
    PastFailure,
    Problem,
    Revision,
    Seam,
    Segment,
    Transcript,
    Word,
    Work,
    identity,
)
from stt_lib.errors import FailureKind

Document = Mapping[str, Any]

_NUMBER = (int, float)
_FORMAT = re.compile(r"[a-z0-9]{1,12}")
_OGG_FORMATS = frozenset({"opus", "ogg", "oga"})
_LARGEST_INDEX = 2**53 - 1
"""Beyond this, a double cannot tell an index from the next."""

_EPOCH = datetime.fromtimestamp(0, UTC)


def nested(document: Document, path: str) -> Any:
    """The value at a dotted path, or None where the path ends early."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, dict):  # Mapping would be asked ten times as slowly
            return None
        value = value.get(name)
    return value


def chunk_ref(document: Document) -> ChunkRef:
    """A chunk for the planner."""
    original_id = document.get("original_id")
    return ChunkRef(
        id=document["_id"],
        original_id=original_id,
        recording=identity(original_id),
        index=_index(document.get("index")),
        start=_usable_date(document.get("start")),
        prob=_probability(nested(document, "vad.prob")),
        priority=_priority(document.get("priority")),
        problem=_misplaced(document),
    )


def _probability(value: Any) -> float | None:
    """What lies outside of 0 to 1, as NaN does, says nothing."""
    return float(value) if isinstance(value, _NUMBER) and 0 <= value <= 1 else None


def _priority(value: Any) -> float | None:
    return float(value) if isinstance(value, _NUMBER) and not math.isnan(value) else None


def _whole_number(value: Any) -> int | None:
    """JavaScript drivers store whole numbers as doubles, so 3.0 is 3."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) else None


def _index(value: Any) -> int | None:
    number = _whole_number(value)
    return number if number is not None and abs(number) <= _LARGEST_INDEX else None


def _misplaced(document: Document) -> Problem | None:
    """Why a chunk cannot be placed in its recording, if so."""
    original_id, start, index = map(document.get, ("original_id", "start", "index"))
    if original_id is None:
        return _invalid("has no original_id")
    if isinstance(original_id, list):
        return _invalid("original_id is a list: use a single value")
    if _whole_number(index) is None:
        return _invalid(_wrong("index", index, "a whole number"))
    if _index(index) is None:
        return _invalid(f"index is beyond {_LARGEST_INDEX:,}")
    if not isinstance(start, datetime):
        return _invalid(_wrong("start", start, "a date"))
    if start.year not in USABLE_YEARS:
        return _invalid(f"start is in the year {start.year}")
    return None


def _usable_date(value: Any) -> datetime | None:
    """A date that durations and time zones can be added to."""
    date = _date(value)
    return date if date is not None and date.year in USABLE_YEARS else None


def _invalid(message: str) -> Problem:
    return Problem(FailureKind.INVALID_CHUNK, f"chunk {message}")


def _wrong(name: str, value: Any, wanted: str) -> str:
    if value is None:
        return f"has no {name}"
    return f"{name} is not {wanted} but of type {type(value).__name__}"


def chunk(document: Document) -> Chunk:
    """A chunk with its audio, or with the reason why it cannot be posted."""
    data, form = document.get("data"), document.get("format", "opus")
    problem = _misplaced(document) or _unusable(data) or _unknown_format(form)
    audio = bytes(data) if isinstance(data, bytes) and not problem else b""
    opus = ogg.read(audio) if audio and form in _OGG_FORMATS else None
    return Chunk(
        id=document["_id"],
        index=_index(document.get("index")) or 0,
        start=_usable_date(document.get("start")) or _EPOCH,
        data=audio,
        format=str(form),
        seconds=opus.seconds if opus else NOMINAL_CHUNK_SECONDS,
        is_measured=opus is not None,
        is_whole=opus is None or opus.is_whole,
        prob=_probability(nested(document, "vad.prob")),
        has_speech=nested(document, "vad.has_speech") is not False,
        is_done=document.get("transcribed_at") is not None,
        failures=_whole_number(nested(document, "stt.failures")) or 0,
        excuses=_whole_number(nested(document, "stt.excuses")) or 0,
        was_duplicate=nested(document, "stt.error.kind") == FailureKind.DUPLICATE_INDEX,
        problem=problem,
    )


def _unusable(data: Any) -> Problem | None:
    if not isinstance(data, bytes):
        return _invalid(_wrong("data", data, "binary"))
    return None if data else _invalid("data is empty")


def _unknown_format(form: Any) -> Problem | None:
    """The format becomes part of a request's header, so it has to be a plain word."""
    if type(form) is str and _FORMAT.fullmatch(form):
        return None
    return _invalid("format is not a plain word such as opus")


def seam(record: Seam) -> dict[str, Any]:
    """What is stored of a decision."""
    heard = zip(record.words, record.seconds, strict=True)
    return {
        "heard": [{"word": word, "at": at} for word, at in heard],
        "cut": record.cut,
        "moment": record.moment,
    }


def read_seam(value: Document | None) -> Seam | None:
    """A decision as it was stored; None if it cannot be read."""
    if value is None:
        return None
    try:
        heard = [(str(token["word"]), float(token["at"])) for token in value["heard"]]
        cut, moment = int(value["cut"]), float(value["moment"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    words, seconds = (tuple(part) for part in zip(*heard, strict=True)) if heard else ((), ())
    return Seam(words, seconds, min(max(cut, 0), len(words)), moment)


def transcript(record: Transcript, created_at: datetime) -> dict[str, Any]:
    """A document of `transcriptions`."""
    dropped = {"dropped_segments": list(map(_dropped, record.dropped))} if record.dropped else {}
    return {
        "_id": record.id,
        "original": record.original_id,
        "start": record.start,
        "end": record.end,
        "duration": (record.end - record.start).total_seconds(),
        "language": record.language,
        "top_language_probs": [list(pair) for pair in record.top_language_probs or ()],
        "segments": [_segment(segment) for segment in record.segments],
        "chunk_ids": list(record.chunk_ids),
        "model": record.model,
        "server": record.server,
        "protocol": record.protocol,
        "parameters": dict(record.parameters),
        "version": __version__,
        "created_at": created_at,
        **dropped,
        **({} if record.joined is None else {"joined": list(record.joined)}),
        **({"revision": record.revision} if record.revision > 1 else {}),
    }


def dropped_transcript(record: Transcript, dropped_at: datetime) -> dict[str, Any]:
    """A document of `stt_dropped`: a transcript under the id of its first chunk."""
    document = transcript(record, dropped_at)
    return {**document, "_id": record.chunk_ids[0], "transcript": document["_id"]}


def undropped(document: Document) -> dict[str, Any]:
    """The transcript that a document of `stt_dropped` was made of."""
    fields = {name: value for name, value in document.items() if name != "transcript"}
    return {**fields, "_id": document["transcript"]}


def read_transcript(document: Document) -> Transcript:
    """A transcript as it was saved.

    Raises:
        KeyError, TypeError: it is not what we or an older program save.
    """
    joined = document.get("joined")
    return Transcript(
        id=document["_id"],
        original_id=document["original"],
        start=_required_date(document["start"]),
        end=_required_date(document["end"]),
        chunk_ids=tuple(owned_ids(document)),
        segments=tuple(map(_read_segment, document["segments"])),
        language=document.get("language"),
        top_language_probs=tuple(map(tuple, document.get("top_language_probs") or ())),
        model=document.get("model"),
        server=document.get("server"),
        protocol=document.get("protocol"),
        parameters=document.get("parameters") or {},
        dropped=tuple(map(_read_dropped, document.get("dropped_segments") or ())),
        revision=_revision(document),
        joined=tuple(joined) if isinstance(joined, list) else None,
    )


def _required_date(value: Any) -> datetime:
    date = _usable_date(value)
    if date is None:
        raise TypeError("not a usable date")
    return date


def _read_segment(document: Document) -> Segment:
    given = {name: document[name] for name in _SEGMENT_FIELDS if name in document}
    words = tuple(map(_read_word, document.get("words") or ()))
    segment = Segment(**given, words=words)
    times = (segment.start, segment.end)
    if not isinstance(segment.text, str) or not all(isinstance(t, int | float) for t in times):
        raise TypeError("not a segment")
    return segment


def _read_word(document: Document) -> Word:
    given = {name: document[name] for name in _WORD_FIELDS if name in document}
    return Word(text=document["word"], **given)


_SEGMENT_FIELDS = tuple(name for name in Segment.__dataclass_fields__ if name != "words")
_WORD_FIELDS = tuple(name for name in Word.__dataclass_fields__ if name != "text")


def _segment(segment: Segment) -> dict[str, Any]:
    """What the server did not give is absent, not invented."""
    document = _given(segment, _SEGMENT_FIELDS)
    if segment.words:
        document["words"] = [
            {"word": word.text, **_given(word, _WORD_FIELDS)} for word in segment.words
        ]
    return document


def _given(record: Segment | Word, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def _dropped(record: Dropped) -> dict[str, Any]:
    return {
        **_segment(record.segment),
        "reasons": list(record.reasons),
        "score": record.score,
    }


def _read_dropped(document: Document) -> Dropped:
    reasons = tuple(map(str, document.get("reasons") or ()))
    return Dropped(_read_segment(document), reasons, float(document.get("score") or 0))


def explained(document: Document, chunks: Iterable[Document], *, is_saved: bool) -> Explained:
    """A transcript and the chunks under it; each ends where the next one starts."""
    record = read_transcript(document)
    known = [(c["start"], nested(c, "vad.prob")) for c in chunks if _date(c.get("start"))]
    known.sort(key=lambda pair: pair[0])
    starts = [(start - record.start).total_seconds() for start, _ in known]
    ends = [*starts[1:], (record.end - record.start).total_seconds()]
    return Explained(
        record,
        is_saved,
        tuple(
            Detection(start, max(start, end), _probability(prob))
            for start, end, (_, prob) in zip(starts, ends, known, strict=False)
        ),
    )


def restored(document: Document) -> dict[str, Any] | None:
    """The segments of a transcript once the dropped ones are back in their place in time.

    None if nothing was dropped.
    """
    dropped = [_taken_back(segment) for segment in document.get("dropped_segments") or ()]
    if not dropped:
        return None
    segments = sorted([*(document.get("segments") or ()), *dropped], key=_time)
    return {"segments": segments, "dropped_segments": []}


def _time(segment: Document) -> tuple[float, float, str]:
    return segment["start"], segment["end"], segment["text"]


def _taken_back(segment: Document) -> dict[str, Any]:
    """As the server gave it, and a word that a person wanted it."""
    given = {name: segment[name] for name in segment if name not in ("reasons", "score")}
    return {**given, "restored": True}


def old_transcript(document: Document) -> OldTranscript:
    """A transcript that may be transcribed again.

    Raises:
        TypeError: it cannot be placed in time.
    """
    silent = nested(document, "stt.heard_nothing.model")
    return OldTranscript(
        revision=Revision(document["_id"], _revision(document)),
        original_id=document.get("original"),
        start=_required_date(document.get("start")),
        chunk_ids=tuple(owned_ids(document)),
        origin=origin(document),
        heard_nothing=silent if isinstance(silent, str) else None,
    )


def _revision(document: Document) -> int:
    return _whole_number(document.get("revision")) or 1


def owned_ids(document: Document) -> list[Any]:
    """The chunks of a transcript or a claim; MongoDB treats a single value like a list of one."""
    ids = document.get("chunk_ids")
    if isinstance(ids, list):
        return ids
    return [] if ids is None else [ids]


def origin(document: Document) -> Origin:
    """How a transcript came about."""
    told = {name: document.get(name) for name in Origin.__dataclass_fields__}
    return Origin(**{name: value for name, value in told.items() if isinstance(value, str)})


def failed_kind(row: Document) -> FailedKind:
    """A row of the summary of failures."""
    return FailedKind(
        kind=str(row["_id"]),
        chunks=row["chunks"],
        parked=row["parked"],
        waiting=row["waiting"],
        next_due=_date(row["next_due"]),
        oldest=_date(row["oldest"]),
        newest=_date(row["newest"]),
    )


def holder(worker: str, claims: Sequence[Document]) -> Holder:
    """A worker and what it works on, the oldest claim first."""
    work = sorted(map(_work, claims), key=lambda work: work.since or _EPOCH)
    return Holder(
        worker=worker,
        claims=len(work),
        chunks=sum(one.chunks for one in work),
        since=min((one.since for one in work if one.since), default=None),
        until=max(filter(None, (_date(claim.get("until")) for claim in claims)), default=None),
        work=tuple(work),
    )


def _work(claim: Document) -> Work:
    return Work(
        original_id=claim.get("original"),
        start=_date(claim.get("start")),
        chunks=len(owned_ids(claim)),
        since=_date(claim.get("at")),
    )


def failed_chunk(document: Document) -> FailedChunk:
    """A chunk that failed, or was discarded after it had."""
    error = "stt.error" if nested(document, "stt.error") else "stt.discarded"
    return FailedChunk(
        id=document["_id"],
        original_id=document.get("original_id"),
        start=document.get("start"),
        kind=str(nested(document, f"{error}.kind")),
        failed_at=_date(nested(document, f"{error}.at")),
        retry_at=_date(nested(document, "stt.retry_at")),
        parked_at=_date(nested(document, "stt.parked_at")),
        discarded_at=_date(nested(document, "stt.discarded_at")),
    )


def story(document: Document, claim: Document | None) -> ChunkStory:
    """Everything that is known of a chunk except its audio; `claim` is the one on it."""
    history = nested(document, "stt.history")
    return ChunkStory(
        id=document["_id"],
        original_id=document.get("original_id"),
        index=document.get("index"),
        start=document.get("start"),
        transcribed_at=_date(document.get("transcribed_at")),
        parked_at=_date(nested(document, "stt.parked_at")),
        retry_at=_date(nested(document, "stt.retry_at")),
        claimed_by=None if claim is None else str(claim.get("worker")),
        claimed_until=None if claim is None else _date(claim.get("until")),
        failures=_whole_number(nested(document, "stt.failures")) or 0,
        history=tuple(map(_past_failure, history if isinstance(history, list) else [])),
    )


def _past_failure(entry: Document) -> PastFailure:
    server = entry.get("server")
    return PastFailure(
        at=_date(entry.get("at")),
        kind=str(entry.get("kind")),
        message=str(entry.get("message")),
        server=None if server is None else str(server),
    )


def _date(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None


def new_chunk(record: NewChunk, now: datetime) -> dict[str, Any]:
    """A document of `audio_chunks` as an ingester writes it."""
    return {
        "_id": ObjectId(record.id_bytes),
        "original_id": ObjectId(record.original_id_bytes),
        "index": record.index,
        "start": record.start,
        "data": record.data,
        "format": record.format,
        **({"file": record.file} if record.file else {}),
        **({"last": True} if record.is_last else {}),
        "ingested_at": now,
        "vad": {"ran_at": now, "prob": record.prob, "has_speech": record.has_speech},
        "transcribed_at": None,
    }
