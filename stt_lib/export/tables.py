r"""A table with tabs between the columns, for spreadsheets, awk and pandas.

Tabs, line ends and backslashes in a cell are written as \t, \n, \r and \\, as PostgreSQL's COPY
has it. Times are UTC, as ISO 8601 writes them.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from stt_lib.domain.utterances import Stretch
from stt_lib.export.scope import Scope, in_time, utc

COLUMNS: Final = ("recording", "start", "end", "text", "language", "transcript")
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """A header, then a line for each segment."""
    yield _row(COLUMNS)
    for said in in_time(stretches):
        times = utc(said.start), utc(said.end)
        yield _row((said.recording, *times, said.text, said.language or "", said.transcript))


def _row(cells: Iterable[str]) -> str:
    return "\t".join(cell.translate(_ESCAPES) for cell in cells) + "\n"
