"""Which formats there are."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from stt_lib.domain.utterances import Stretch
from stt_lib.export import jsonfile, srt, tables, text, vtt
from stt_lib.export.scope import Scope

Writer = Callable[[Iterable[Stretch], Scope], Iterator[str]]


def _page(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """The template engine takes a while to load, which other commands need not wait for."""
    from stt_lib.export import page

    return page.write(stretches, scope)


WRITERS: Final[dict[str, Writer]] = {
    "txt": text.write,
    "srt": srt.write,
    "vtt": vtt.write,
    "json": jsonfile.write,
    "tsv": tables.write,
    "html": _page,
}


def by_suffix(path: Path | None) -> str:
    """The format that a file's name asks for; txt when it asks for none that there is."""
    suffix = "" if path is None else path.suffix.lower().removeprefix(".")
    return {"htm": "html"}.get(suffix, suffix if suffix in WRITERS else "txt")
