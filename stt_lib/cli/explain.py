"""`explain`: why the filter kept or dropped what the server heard, and a way back."""

import json
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import click

from stt_lib import filtering
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import opened_store
from stt_lib.config.settings import load
from stt_lib.domain.models import Dropped, Explained, Segment
from stt_lib.errors import InputError
from stt_lib.filtering import Clue, Policy, Surroundings, in_words


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--restore", is_flag=True, help="Put what was dropped back into the transcript.")
@click.option(
    "--segment",
    "places",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="With --restore: only the segment of this number; may be given several times.",
)
@settings_options("filter", "filter_phrases", "local", "data_dir")
def explain(id_: str, as_json: bool, restore: bool, places: tuple[int, ...], **flags: Any) -> None:
    """Show why text was kept or dropped, and undo it.

    ID is that of a transcript, a chunk or a recording. Points above zero say that nobody spoke;
    a segment whose points reach the threshold of --filter is dropped.
    """
    settings = load(flags)
    policy = filtering.policy(settings.filter, settings.filter_phrases)
    with opened_store(settings) as store:
        found = store.dropped.explained(id_)
        if not found:
            raise InputError(
                f"nothing was heard under the id {id_}: give that of a transcript, of a"
                " transcribed chunk or of a recording"
            )
        if places and (not restore or len(found) > 1):
            raise click.UsageError("--segment goes with --restore and the id of one transcript")
        if restore:
            back = sum(store.dropped.restore(explained, _chosen(places)) for explained in found)
            click.echo(f"{back} segment(s) put back")
            return
    if as_json:
        click.echo(json.dumps([_plain(e, policy) for e in found], indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(_told(explained, policy) for explained in found))


def _chosen(places: tuple[int, ...]) -> Collection[int] | None:
    return frozenset(places) or None


Row = tuple[Segment, Dropped | None, tuple[Clue, ...]]


def _rows(explained: Explained, policy: Policy) -> Sequence[Row]:
    """Every segment in the order of time with the evidence on it, weighed anew."""
    record = explained.transcript
    around = Surroundings(
        record.language,
        dict(record.top_language_probs or ()).get(record.language or ""),
        explained.stretches,
    )
    everything = record.everything
    weighed = filtering.weigh([segment for segment, _ in everything], around, policy.phrases)
    return [(s, dropped, clues) for (s, dropped), clues in zip(everything, weighed, strict=True)]


def _told(explained: Explained, policy: Policy) -> str:
    record = explained.transcript
    start = record.start.astimezone()
    what = f"transcript {record.id}"
    if not explained.is_saved:
        what = f"no transcript, all was dropped (chunk {record.chunk_ids[0]})"
    needed = "only blanks are dropped"
    if policy.threshold is not None:
        needed = f"dropped from {policy.threshold:+.1f} on"
    lines = [
        f"{start:%Y-%m-%d %H:%M:%S}  {what}",
        f"  recording {record.original_id}, language {record.language or 'unknown'};"
        f" filter {policy.level}: {needed}",
    ]
    for place, (segment, dropped, clues) in enumerate(_rows(explained, policy), start=1):
        points = filtering.score(clues) if dropped is None else dropped.score
        verdict = "kept   " if dropped is None else "DROPPED"
        moment = start + timedelta(seconds=segment.start)
        lines.append(
            f"  {place:3}  {moment:%H:%M:%S}  {verdict} {points:+5.1f}  {segment.text.strip()}"
        )
        lines += [f"{'':16} {in_words(clue)}" for clue in clues if clue.points]
    return "\n".join(lines)


def _plain(explained: Explained, policy: Policy) -> dict[str, Any]:
    record = explained.transcript
    return {
        "transcript": str(record.id) if explained.is_saved else None,
        "recording": str(record.original_id),
        "chunks": [str(chunk_id) for chunk_id in record.chunk_ids],
        "start": record.start.isoformat(),
        "language": record.language,
        "filter": policy.level,
        "threshold": policy.threshold,
        "segments": [
            {
                "number": place,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "verdict": "kept" if dropped is None else "dropped",
                "score": filtering.score(clues) if dropped is None else dropped.score,
                "reasons": [] if dropped is None else list(dropped.reasons),
                "evidence": [
                    {"kind": str(c.reason), "points": c.points, "value": c.value} for c in clues
                ],
            }
            for place, (segment, dropped, clues) in enumerate(_rows(explained, policy), start=1)
        ],
    }
