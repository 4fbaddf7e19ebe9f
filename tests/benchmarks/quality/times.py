"""Whether the times are right: when first words are said, and when subtitles are shown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer

from tests.benchmarks.quality.recordings import Sentence

PAUSES = (2.0, 20.0)
"""Seconds of silence before the sentences whose first words are looked at."""


@dataclass(frozen=True)
class Shown:
    """Text that is said, or on the screen, from `start` to `end`; seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Times:
    """Errors of first words after pauses, in seconds, early ones negative; and of subtitles.

    `unheard` counts first words that the text does not contain. `subtitles` counts those that
    begin with the first word of a sentence, and `early` those of them that end before it.
    """

    errors: tuple[float, ...] = ()
    unheard: int = 0
    subtitles: int = 0
    early: int = 0


def judged(
    sentences: Sequence[Sentence], heard: Sequence[Shown], subtitles: Sequence[Shown]
) -> Times:
    """Compare with the truth; of `heard`, the start of every entry is the time of its first word.

    An entry that goes on after a pause has a wrong time for what follows the pause.
    """
    begun = _first_words(sentences, heard)
    late = [n for n, s in enumerate(sentences) if PAUSES[0] <= s.pause <= PAUSES[1] and n]
    shown = _first_words(sentences, subtitles)
    titles = {n: at for n, at in shown.items() if at.is_first}
    return Times(
        errors=tuple(begun[n].entry.start - sentences[n].start for n in late if n in begun),
        unheard=sum(n not in begun for n in late),
        subtitles=len(titles),
        early=sum(at.entry.end <= sentences[n].start for n, at in titles.items()),
    )


@dataclass(frozen=True)
class _Place:
    entry: Shown
    is_first: bool
    """Whether the word is the first of the entry."""


def _first_words(sentences: Sequence[Sentence], heard: Sequence[Shown]) -> dict[int, _Place]:
    """Return where the first word of each sentence is, if it was heard right."""
    said = [(word, number) for number, s in enumerate(sentences) for word in _words(s.text)]
    firsts = {at: n for at, (_, n) in enumerate(said) if at == 0 or said[at - 1][1] != n}
    found = list(_places(heard))
    if not found:
        return {}
    texts = (" ".join(word for word, _ in said), " ".join(word for word, _ in found))
    [alignment] = jiwer.process_words(*texts).alignments
    pairs = {
        chunk.ref_start_idx + step: chunk.hyp_start_idx + step
        for chunk in alignment
        if chunk.type == "equal"
        for step in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    return {n: found[pairs[at]][1] for at, n in firsts.items() if at in pairs}


def _places(heard: Sequence[Shown]) -> Iterator[tuple[str, _Place]]:
    for entry in heard:
        for number, word in enumerate(_words(entry.text)):
            yield word, _Place(entry, number == 0)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("'", "").replace("’", ""))
