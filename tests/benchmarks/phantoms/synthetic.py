"""`python -m tests.benchmarks.phantoms.synthetic`: the filter on what a model heard earlier.

The recordings are made of synthetic voices and noises. That is enough to notice that a change
breaks the filter, but not to say how good it is: that is measured on real sounds.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from stt_lib.local.transcriber import BUNDLED_MODEL
from tests.benchmarks.phantoms import hearing
from tests.benchmarks.phantoms.hearing import Heard
from tests.benchmarks.phantoms.scoring import CONDITIONS, FILTERS, Confusion, confusion

HERE = Path(__file__).parent


def half(heard: Sequence[Heard], number: int) -> list[Heard]:
    """Every second case: the weights were chosen by the first half, the second reports."""
    names = list(dict.fromkeys(case["name"] for case in heard))
    wanted = set(names[number::2])
    return [case for case in heard if case["name"] in wanted]


def table(heard: Sequence[Heard]) -> Iterator[str]:
    """Return the lines of one table, in Markdown."""
    heads = ("given", "filter", "phantoms left", "noise with a transcript", "true segments lost")
    yield "| " + " | ".join((*heads, "true words lost", "precision", "recall")) + " |"
    yield "|---" * 8 + "|"
    for known in CONDITIONS:
        for name, judge in FILTERS.items():
            if name != "off" or known is CONDITIONS[0]:
                yield _row(known.name, name, confusion(heard, judge, known))


def _row(known: str, name: str, c: Confusion) -> str:
    phantoms = c.phantoms_left + c.phantoms_dropped
    cells = (
        "–" if name == "off" else known,
        name,
        f"{c.phantoms_left} of {phantoms}",
        f"{c.quiet_with_text} of {c.quiet}",
        f"{c.true_lost} of {c.true_kept + c.true_lost}",
        f"{c.words_lost} of {c.words_kept + c.words_lost}",
        "–" if name == "off" else f"{c.precision:.3f}",
        "–" if name == "off" else f"{c.recall:.3f}",
    )
    return "| " + " | ".join(cells) + " |"


def tables(model: str, heard: Sequence[Heard]) -> Iterator[str]:
    """Return one table for each server, of the half that the weights were not chosen by."""
    for server in dict.fromkeys(case["server"] for case in heard):
        yield f"\n{model}, {SERVERS[server]}:\n"
        yield from table([case for case in half(heard, 1) if case["server"] == server])


SERVERS = {
    "ours": "our own server",
    "eager": "a server that returns whatever the model writes",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.phantoms.synthetic", description=__doc__
    )
    parser.add_argument(
        "--model", default=BUNDLED_MODEL, help="a faster-whisper model or its folder"
    )
    parser.add_argument("--again", action="store_true", help="let the model hear the set once more")
    given = parser.parse_args(arguments)
    name = Path(given.model).name
    file = HERE / f"heard-{name}.jsonl"
    if given.again or not file.exists():
        hearing.write(file, hearing.hear(given.model))
    print("\n".join(tables(name, hearing.read(file))))


if __name__ == "__main__":
    main()
