r"""Formats for programs: a JSON document, and a table for spreadsheets, awk and pandas.

The JSON document has one segment per line; unknown values are absent from a segment:

    {"recording": id or null, "since": time or null, "until": time or null,
     "segments": [{"recording", "transcript", "start", "end", "text", "language", "model", "name",
                   "words": [{"start", "end", "text"}]}]}

The table has tabs between its columns. Tabs, line ends and backslashes in a cell are written as
\t, \n, \r and \\, and other control characters as \x1b, as in PostgreSQL's COPY format.

Times are UTC in ISO 8601.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, utc

COLUMNS: Final = ("recording", "start", "end", "text", "language", "transcript", "name")

_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
_ESCAPES: Final = {
    **{code: rf"\x{code:02x}" for code in _CONTROLS},
    **str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}),
}
_JSON_ESCAPES: Final = {code: rf"\u{code:04x}" for code in _CONTROLS}


def write_json(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield the document segment by segment."""
    head = {
        "recording": scope.recording,
        "since": utc(scope.since) if scope.since else None,
        "until": utc(scope.until) if scope.until else None,
    }
    yield _line(head)[:-1] + ', "segments": ['
    between = "\n"
    for said in in_time(stretches):
        yield between + _line(_segment(said, scope))
        between = ",\n"
    yield "\n]}\n"


def _segment(said: Utterance, scope: Scope) -> dict[str, Any]:
    words = [
        {"start": utc(word.start), "end": utc(word.end), "text": word.text.strip()}
        for word in said.words
    ]
    entry = {
        "recording": said.recording,
        "transcript": said.transcript,
        "start": utc(said.start),
        "end": utc(said.end),
        "text": said.text,
    }
    name = scope.name_of(said.recording)
    known = {"language": said.language, "model": said.model, "name": name, "words": words}
    return entry | {key: value for key, value in known.items() if value}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_JSON_ESCAPES)


def write_tsv(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield a header, then a row per segment."""
    yield _row(COLUMNS)
    for said in in_time(stretches):
        times, name = (utc(said.start), utc(said.end)), scope.name_of(said.recording)
        text = said.text, said.language or "", said.transcript
        yield _row((said.recording, *times, *text, name or ""))


def _row(cells: Iterable[str]) -> str:
    return "\t".join(cell.translate(_ESCAPES) for cell in cells) + "\n"
