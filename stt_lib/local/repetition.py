"""Does a text say again what it has just said? A pure function.

A model that is given its own last words as context sometimes repeats them instead of listening,
or stays in a loop.
"""

import re
from collections.abc import Iterable

RUN = 8
"""So many words in a row come back by chance in hardly any speech but lists and refrains."""

CONTEXT_WORDS = 200
"""How far back Whisper's context reaches: 223 tokens are about 170 words of English."""


def repeats_itself(texts: Iterable[str]) -> bool:
    """Whether eight words of a text, given in pieces, come back within the context."""
    words = re.findall(r"\w+", " ".join(texts).casefold())
    seen: dict[tuple[str, ...], int] = {}
    for end in range(RUN, len(words) + 1):
        run = tuple(words[end - RUN : end])
        if end - seen.get(run, -CONTEXT_WORDS) < CONTEXT_WORDS:
            return True
        seen[run] = end
    return False
