"""SubRip, the subtitles that every player reads.

It has no escape: what a player would take for a tag or for a line of times is written with
another character that looks like it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from stt_lib.domain.utterances import Stretch
from stt_lib.export.scope import Scope
from stt_lib.export.subtitles import cues

_ARROW: Final = re.compile(r"--+>")
_LOOKALIKES: Final = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Numbered cues; times count from the scope's zero."""
    for number, cue in enumerate(cues(stretches, scope), 1):
        lines = "\n".join(map(plain, cue.lines))
        yield f"{number}\n{_time(cue.start)} --> {_time(cue.end)}\n{lines}\n\n"


def plain(line: str) -> str:
    return _ARROW.sub("→", line).translate(_LOOKALIKES)


def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{rest:03}"
