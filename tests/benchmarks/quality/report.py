"""The two tables: word error rates, and what happened at the seams."""

from collections.abc import Mapping, Sequence

from tests.benchmarks.lab import Goal, Row, Table
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.scoring import Score, Seam, score, seams
from tests.benchmarks.quality.ways import Texts

WHOLE, STORED, OURS = "whole", "whole as stored", "ours"
CUT, SINGLE = "cut at 30", "chunk by chunk"

MAX_POINTS = 0.3
"""How much higher our word error rate may be than that of the whole recording."""

Scores = dict[str, dict[str, Score]]
"""By way, then by recording."""


def scores(recordings: Sequence[Recording], texts: Mapping[str, Texts]) -> Scores:
    return {
        way: {r.name: score(r.reference, by_name[r.name]) for r in recordings}
        for way, by_name in texts.items()
    }


def error_rates(measured: Scores, minutes: Mapping[str, float]) -> Table:
    """How many words are wrong, way by way."""
    rows = [
        _rates(name, {way: [by_name[name]] for way, by_name in measured.items()}, length)
        for name, length in minutes.items()
    ]
    total = {way: list(by_name.values()) for way, by_name in measured.items()}
    rows.append(_rates("all", total, sum(minutes.values())))
    goals = [
        Goal(f"{row['recording']}: ours less {way}, points", MAX_POINTS, row[f"less {way}"], False)
        for row in rows
        for way in (WHOLE, STORED)
    ]
    return Table("Word error rate in %", rows, goals)


def _rates(name: str, by_way: Mapping[str, Sequence[Score]], minutes: float) -> Row:
    rates = {way: _percent(found) for way, found in by_way.items()}
    return {
        "recording": name,
        "minutes": round(minutes, 1),
        "words": sum(len(found.reference) for found in by_way[WHOLE]),
        **{way: round(rate, 2) for way, rate in rates.items()},
        **{f"less {way}": round(rates[OURS] - rates[way], 2) for way in (WHOLE, STORED)},
    }


def _percent(found: Sequence[Score]) -> float:
    return 100 * sum(s.errors for s in found) / sum(len(s.reference) for s in found)


def at_the_seams(measured: Scores) -> Table:
    """What is wrong at the seams and right in the text of the whole recording."""
    rows = [
        _damage(way, name, seams(found, measured[WHOLE][name]))
        for way, by_name in measured.items()
        for name, found in by_name.items()
        if found.seams
    ]
    ours = [row for row in rows if row["way"] == OURS]
    goals = [
        Goal(f"ours: words {kind} at seams", 0, sum(row[kind] for row in ours), at_least=False)
        for kind in ("extra", "lost")
    ]
    notes = (
        "Words within five of a seam that are right in the text of the whole recording, and",
        "missing (lost), too many (extra, as words said twice) or wrong (misheard) here.",
        *_shown(measured),
    )
    return Table("At the seams", rows, goals, notes)


def _damage(way: str, name: str, found: Sequence[Seam]) -> Row:
    return {
        "way": way,
        "recording": name,
        "seams": len(found),
        "clean": sum(seam.is_clean for seam in found),
        "extra": sum(seam.extra for seam in found),
        "lost": sum(seam.lost for seam in found),
        "misheard": sum(seam.misheard for seam in found),
    }


def _shown(measured: Scores) -> list[str]:
    """The words around each seam of ours that is not clean: as they were said, and as heard."""
    lines = []
    for name, found in measured[OURS].items():
        for seam in seams(found, measured[WHOLE][name]):
            if not seam.is_clean:
                lines += [f"{name}: said  {seam.reference}", f"{name}: heard {seam.heard}"]
    return lines
