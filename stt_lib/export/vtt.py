"""WebVTT, the subtitles of the web (W3C, webvtt1)."""

from collections.abc import Iterable, Iterator

from stt_lib.domain.utterances import Stretch
from stt_lib.export.scope import Scope, utc
from stt_lib.export.subtitles import cues
from stt_lib.export.typesetting import clean


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """A note of what it is, then the cues; times count from the scope's zero."""
    what = "All recordings" if scope.recording is None else f"Recording {clean(scope.recording)}"
    yield f"WEBVTT\n\nNOTE\n{escaped(what)}; 00:00:00.000 is {utc(scope.zero)}.\n"
    yield from cue_blocks(stretches, scope)


def cue_blocks(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """The cues without a heading; each begins with an empty line."""
    for cue in cues(stretches, scope):
        lines = "\n".join(map(escaped, cue.lines))
        yield f"\n{_time(cue.start)} --> {_time(cue.end)}\n{lines}\n"


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
