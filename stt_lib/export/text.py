"""Plain text: paragraphs with the time when each begins, pauses as blank lines."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, lasting
from stt_lib.export.typesetting import clean, ends_sentence, fold, run_on

COLUMNS: Final = 88
_INDENT: Final = " " * 12
_BREATH: Final = timedelta(seconds=3)
_SILENCE: Final = timedelta(minutes=1)
_LONG: Final = timedelta(seconds=45)
_TOO_LONG: Final = timedelta(seconds=90)


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """One heading for each recording and day, then its paragraphs.

    Of recordings made at the same time each transcript stays in one piece.
    """
    last: Utterance | None = None
    for paragraph in _paragraphs(u for stretch in stretches for u in stretch.utterances):
        yield _before(paragraph[0], last, scope)
        yield _set(paragraph, scope)
        last = paragraph[-1]


def _paragraphs(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    paragraph: list[Utterance] = []
    for utterance in utterances:
        if paragraph and _begins_anew(paragraph, utterance):
            yield paragraph
            paragraph = []
        paragraph.append(utterance)
    if paragraph:
        yield paragraph


def _begins_anew(paragraph: list[Utterance], utterance: Utterance) -> bool:
    first, last = paragraph[0], paragraph[-1]
    lasted = utterance.end - first.start
    return (
        utterance.recording != last.recording
        or utterance.start - last.end >= _BREATH
        or lasted > _TOO_LONG
        or (lasted > _LONG and ends_sentence(last.text))
    )


def _before(first: Utterance, last: Utterance | None, scope: Scope) -> str:
    """What stands between two paragraphs."""
    day = scope.local(first.start).date()
    if last is None or last.recording != first.recording or scope.local(last.start).date() != day:
        heading = f"{day} · recording {clean(first.recording)} · {scope.zone_of(first.start)}"
        return ("" if last is None else "\n") + heading + "\n"
    gap = first.start - last.end
    if gap >= _SILENCE:
        return f"\n{_INDENT}— {lasting(gap)} without speech —\n\n"
    return "\n" if gap >= _BREATH else ""


def _set(paragraph: list[Utterance], scope: Scope) -> str:
    text = run_on([utterance.text for utterance in paragraph])
    time = f"  {scope.local(paragraph[0].start):%H:%M:%S}  "
    lines = fold(text, COLUMNS - len(_INDENT))
    return "".join(f"{_INDENT if at else time}{line}\n" for at, line in enumerate(lines))
