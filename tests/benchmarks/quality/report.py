"""The tables: word error rates, builds of the same recording, times, and the seams."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev

import numpy as np

from tests.benchmarks.lab import Goal, Row, Table
from tests.benchmarks.quality import intervals, times
from tests.benchmarks.quality.conditions import CLEAN
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.scoring import Score, Seam, score, seams
from tests.benchmarks.quality.times import Times
from tests.benchmarks.quality.ways import Texts

WHOLE, OURS, LIBRARY = "whole", "stt", "faster-whisper"
STORED, CUT, SINGLE = "whole as stored", "cut at 30", "chunk by chunk"

MAX_POINTS = 0.1
"""How much higher our word error rate may be than that of the whole recording."""

MAX_ERROR = 0.5
"""Seconds. Time error of first words after pauses that nine of ten stay below."""

WORST_ERROR = 2.0


@dataclass(frozen=True)
class Result:
    """One recording in one condition, built once, in all ways."""

    condition: str
    build: int
    language: str
    name: str
    seconds: float
    scores: Mapping[str, Score]
    times: Times

    def differences(self, way: str) -> list[int]:
        """How many more errors stt makes than another way, by sentence."""
        pairs = zip(
            self.scores[OURS].errors_by_sentence, self.scores[way].errors_by_sentence, strict=True
        )
        return [ours - other for ours, other in pairs]


def result(recording: Recording, condition: str, build: int, texts: Mapping[str, Texts]) -> Result:
    """Score what was heard of a recording in each way."""
    heard = {way: by_name[recording.name] for way, by_name in texts.items()}
    return Result(
        condition,
        build,
        recording.language,
        recording.name,
        recording.seconds,
        {w: score(recording.texts, h.parts, recording.language) for w, h in heard.items()},
        times.judged(recording.sentences, heard[OURS].words, heard[OURS].subtitles),
    )


# -- word errors ----------------------------------------------------------------------------------


def error_rates(results: Sequence[Result]) -> Table:
    """How many words are wrong, way by way, and how far the ways differ."""
    rows = [_rates(condition, language, group) for condition, language, group in _groups(results)]
    goals = [
        Goal(
            f"{CLEAN.name}, {row['language']}: stt less whole, points",
            MAX_POINTS,
            row[_LESS],
            False,
        )
        for row in rows
        if row["condition"] == CLEAN.name
    ]
    notes = (
        "95 %: where the difference lies if other sentences of this kind had been said (bootstrap",
        "over sentences; errors are averaged over the builds). An interval that holds 0 is no "
        "difference.",
    )
    return Table("Word error rate in %", rows, goals, notes)


_LESS = f"less {WHOLE}"


def _groups(results: Sequence[Result]) -> Iterator[tuple[str, str, list[Result]]]:
    """Yield the results of each condition and language, and all languages of a condition."""
    for condition, found in groupby(results, key=lambda r: r.condition):
        group = list(found)
        languages = list(dict.fromkeys(r.language for r in group))
        for language in languages:
            yield condition, language, [r for r in group if r.language == language]
        if len(languages) > 1:
            yield condition, "all", group


def _rates(condition: str, language: str, results: Sequence[Result]) -> Row:
    builds = len({r.build for r in results})
    ways = list(results[0].scores)
    row: Row = {
        "condition": condition,
        "language": language,
        "words": sum(len(r.scores[OURS].reference) for r in results) // builds,
        "minutes": round(sum(r.seconds for r in results) / builds / 60, 1),
        "builds": builds,
        **{way: round(_percent(r.scores[way] for r in results), 2) for way in ways},
    }
    for way in ways:
        if way != OURS:
            row |= _difference(way, results)
    return row


def _difference(way: str, results: Sequence[Result]) -> Row:
    """The difference to a way, averaged over the builds, with its interval."""
    by_name: dict[str, list[Result]] = {}
    for found in results:
        by_name.setdefault(found.name, []).append(found)
    errors: list[float] = []
    words: list[int] = []
    for builds in by_name.values():
        errors += np.mean([found.differences(way) for found in builds], axis=0).tolist()
        words += builds[0].scores[OURS].words_by_sentence
    low, high = intervals.interval(errors, words)
    return {
        f"less {way}": round(intervals.points(errors, words), 2),
        f"95 % ({way})": f"{low:+.2f} to {high:+.2f}",
    }


def _percent(found: Iterable[Score]) -> float:
    scores = list(found)
    return 100 * sum(s.errors for s in scores) / sum(len(s.reference) for s in scores)


def builds(results: Sequence[Result]) -> Table:
    """How far noise that nobody hears moves the text of a recording."""
    rows: list[Row] = []
    clean = [found for found in results if found.condition == CLEAN.name]
    for name in dict.fromkeys(found.name for found in clean):
        again = [found for found in clean if found.name == name]
        if len(again) > 1:
            rows.append(_spread(name, again))
    return Table(
        "The same recordings with other inaudible noise",
        rows,
        [],
        ("Word error rates in %: mean and standard deviation over the builds.",),
    )


def _spread(name: str, again: Sequence[Result]) -> Row:
    row: Row = {"recording": name, "words": len(again[0].scores[OURS].reference)}
    for way in again[0].scores:
        rates = [found.scores[way].percent for found in again]
        row |= {way: round(mean(rates), 2), f"{way} s.d.": round(stdev(rates), 2)}
    least = min(found.scores[OURS].percent for found in again)
    most = max(found.scores[OURS].percent for found in again)
    return row | {f"{OURS} range": f"{least:.2f} to {most:.2f}"}


# -- times ----------------------------------------------------------------------------------------


def first_words(results: Sequence[Result]) -> Table:
    """How wrong the times of first words after pauses are."""
    rows = [
        _errors(condition, language, [found.times for found in group])
        for condition, language, group in _groups(results)
    ]
    rows = [row for row in rows if row["first words"]]
    goals = [goal for row in rows if row["condition"] == CLEAN.name for goal in _time_goals(row)]
    notes = (
        "Seconds between the first word of a sentence after a pause of 2 to 20 s and its time in",
        "the transcript. early: subtitles that are over before the first word of theirs is said,",
        "of those that begin with the first word of a sentence.",
    )
    return Table("Times", rows, goals, notes)


def _errors(condition: str, language: str, found: Sequence[Times]) -> Row:
    errors = np.abs([error for times_ in found for error in times_.errors])
    p50, p90, worst = np.percentile(errors, [50, 90, 100]) if errors.size else (0.0, 0.0, 0.0)
    return {
        "condition": condition,
        "language": language,
        "first words": errors.size,
        "unheard": sum(times_.unheard for times_ in found),
        "median": round(float(p50), 2),
        "p90": round(float(p90), 2),
        "max": round(float(worst), 2),
        "subtitles": sum(times_.subtitles for times_ in found),
        "early": sum(times_.early for times_ in found),
    }


def _time_goals(row: Row) -> list[Goal]:
    language = row["language"]
    return [
        Goal(f"{language}: p90 of time errors, s", MAX_ERROR, row["p90"], at_least=False),
        Goal(f"{language}: largest time error, s", WORST_ERROR, row["max"], at_least=False),
        Goal(f"{language}: subtitles over before their word", 0, row["early"], at_least=False),
    ]


# -- seams ----------------------------------------------------------------------------------------


def at_the_seams(results: Sequence[Result]) -> Table:
    """What is wrong at the seams and right in the text of the whole recording."""
    rows = [
        _damage(way, found, seams(heard, found.scores[WHOLE]))
        for found in results
        for way, heard in found.scores.items()
        if heard.seams
    ]
    ours = [row for row in rows if row["way"] == OURS]
    goals = [
        Goal(f"stt: words {kind} at seams", 0, sum(row[kind] for row in ours), at_least=False)
        for kind in ("extra", "lost")
    ]
    notes = (
        "Words within five of a seam that are right in the text of the whole recording, and",
        "missing (lost), too many (extra, as words said twice) or wrong (misheard) here.",
        *_shown(results),
    )
    return Table("At the seams", rows, goals, notes)


def _damage(way: str, result: Result, found: Sequence[Seam]) -> Row:
    return {
        "way": way,
        "condition": result.condition,
        "build": result.build,
        "recording": result.name,
        "seams": len(found),
        "clean": sum(seam.is_clean for seam in found),
        "extra": sum(seam.extra for seam in found),
        "lost": sum(seam.lost for seam in found),
        "misheard": sum(seam.misheard for seam in found),
    }


def _shown(results: Sequence[Result]) -> Iterator[str]:
    """The words around each seam of ours that is not clean: as they were said, and as heard."""
    for found in results:
        for seam in seams(found.scores[OURS], found.scores[WHOLE]):
            if not seam.is_clean:
                yield f"{found.name}: said  {seam.reference}"
                yield f"{found.name}: heard {seam.heard}"
