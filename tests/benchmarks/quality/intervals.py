"""How sure a difference is: an interval by drawing the sentences anew."""

from collections.abc import Sequence

import numpy as np

DRAWS = 4000
SEED = 7
WITHIN = (2.5, 97.5)
"""Percentiles: the interval holds 95 % of the draws."""


def points(errors: Sequence[float], words: Sequence[int]) -> float:
    """Return errors per hundred words."""
    return 100 * sum(errors) / sum(words)


def interval(errors: Sequence[float], words: Sequence[int]) -> tuple[float, float]:
    """Return where errors per hundred words lie if other sentences of this kind had been said.

    Both have an entry for each sentence. Errors may be differences between two ways, and so
    negative.
    """
    found, said = np.asarray(errors, float), np.asarray(words, float)
    rng = np.random.default_rng(SEED)
    often = rng.multinomial(found.size, np.full(found.size, 1 / found.size), size=DRAWS)
    rates = 100 * (often @ found) / np.maximum(often @ said, 1)
    low, high = np.percentile(rates, WITHIN)
    return float(low), float(high)
