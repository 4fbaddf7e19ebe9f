"""Which formats there are."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from stt_lib.export import jsonfile, srt, tsv, txt, vtt
from stt_lib.export.scope import Scope
from stt_lib.utterances import Stretch

Writer = Callable[[Iterable[Stretch], Scope], Iterator[str]]


def _page(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """The template engine takes a while to load, which other commands need not wait for."""
    from stt_lib.export import page

    return page.write(stretches, scope)


WRITERS: Final[dict[str, Writer]] = {
    "txt": txt.write,
    "srt": srt.write,
    "vtt": vtt.write,
    "json": jsonfile.write,
    "tsv": tsv.write,
    "html": _page,
}


def by_suffix(path: Path | None) -> str:
    """The format that a file's name asks for; txt when it asks for none that there is."""
    suffix = "" if path is None else path.suffix.lower().removeprefix(".")
    return {"htm": "html"}.get(suffix, suffix if suffix in WRITERS else "txt")
