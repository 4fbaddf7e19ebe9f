"""`show`: what happened to a chunk, a recording or a transcript; restores dropped text."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from shlex import quote
from typing import Any

import click

from stt_lib import filtering
from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import at, print_json, with_shown_ids
from stt_lib.cli.session import opened_store, same_place
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.domain.models import ChunkStory, Explained
from stt_lib.domain.text import one_line
from stt_lib.domain.units import counted
from stt_lib.errors import InputError
from stt_lib.filtering import Clue, Policy, Surroundings, in_words
from stt_lib.telemetry.formatters import short_id, shown_id


@click.command()
@click.argument("id_", metavar="ID")
@JSON
@click.option("--restore", is_flag=True, help="Put dropped text back into the transcripts")
@settings_options("filter", "filter_phrases", "local", "data_dir")
def show(id_: str, as_json: bool, restore: bool, **flags: Any) -> None:
    """Show what happened to a chunk, a recording or a transcript.

    Lists failures, and each segment that was kept or dropped, with the evidence: points above zero
    indicate that nobody spoke, and a segment is dropped when its points reach the threshold of
    --filter.
    """
    settings = load(flags)
    policy = filtering.policy(settings.filter, settings.filter_phrases)
    with opened_store(settings) as store:
        heard = store.dropped.explained(id_)
        stories = store.failures.stories(id_)
        if not heard and not stories:
            raise InputError(
                f"nothing is known about {id_}: give the id of a chunk, of a recording with"
                " transcripts or failures, or of a transcript"
            )
        if restore:
            restored = sum(store.dropped.restore(explained) for explained in heard)
            click.echo(f"{counted(restored, 'segment')} put back")
            return
    if as_json:
        chunks = [with_shown_ids(story) for story in stories]
        print_json({"chunks": chunks, "transcripts": [_plain(e, policy) for e in heard]})
        return
    paragraphs = [_story(story, same_place(settings)) for story in stories]
    paragraphs += [_explained(each, policy) for each in heard]
    click.echo("\n\n".join("\n".join(lines) for lines in paragraphs))


def _story(story: ChunkStory, place: str) -> Iterator[str]:
    """A chunk with its failures; `place` holds the options for further commands."""
    yield f"chunk {short_id(story.id)}"
    yield f"  recording  {short_id(story.original_id)}, index {short_id(story.index)}"
    yield f"  start      {at(story.start)}"
    yield f"  state      {_state(story)}"
    if story.parked_at is not None:
        yield f"  to retry   {PROGRAM} errors retry {quote(one_line(shown_id(story.id)))}{place}"
    if story.history:
        yield f"  failures   {story.failures} caused by its audio; the most recent attempts:"
    for past in story.history:
        server = f" ({past.server})" if past.server and past.server not in past.message else ""
        yield f"    {at(past.at)}  {one_line(f'{past.kind}: {past.message}{server}')}"


def _state(story: ChunkStory) -> str:
    if story.transcribed_at is not None:
        return f"transcribed {at(story.transcribed_at)}"
    if story.parked_at is not None:
        return f"parked since {at(story.parked_at)}"
    if story.claimed_by is not None:
        return f"claimed by {short_id(story.claimed_by)} until {at(story.claimed_until)}"
    if story.retry_at is not None:
        return f"due {at(story.retry_at)}"
    return "pending"


def _rows(explained: Explained, policy: Policy) -> Iterator[tuple[dict[str, Any], Sequence[Clue]]]:
    """Every segment in order of time, for programs, and the evidence, weighed again."""
    record = explained.transcript
    prob = dict(record.top_language_probs or ()).get(record.language or "")
    around = Surroundings(record.language, prob, explained.detections)
    everything = record.everything
    weighed = filtering.weigh([segment for segment, _ in everything], around, policy.phrases)
    rows = zip(everything, weighed, strict=True)
    for number, ((segment, dropped), clues) in enumerate(rows, start=1):
        row = {
            "number": number,
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
        yield row, clues


def _explained(explained: Explained, policy: Policy) -> Iterator[str]:
    """A transcript with the evidence on each of its segments."""
    record = explained.transcript
    name = f"transcript {short_id(record.id)}"
    if not explained.is_saved:
        name = f"no transcript: everything was dropped (chunk {short_id(record.chunk_ids[0])})"
    threshold = "only blanks are dropped"
    if policy.threshold is not None:
        threshold = f"segments are dropped from {policy.threshold:+.1f}"
    yield f"{at(record.start)}  {name}"
    yield (
        f"  recording {short_id(record.original_id)},"
        f" language {short_id(record.language or 'unknown')};"
        f" filter {policy.level}: {threshold}"
    )
    for row, clues in _rows(explained, policy):
        verdict = "kept   " if row["verdict"] == "kept" else "DROPPED"
        moment = (record.start + timedelta(seconds=row["start"])).astimezone()
        shown = f"{moment:%H:%M:%S}  {verdict} {row['score']:+5.1f}  {one_line(row['text'])}"
        yield f"  {row['number']:3}  {shown}"
        yield from (f"{'':16} {in_words(clue)}" for clue in clues if clue.points)


def _plain(explained: Explained, policy: Policy) -> dict[str, Any]:
    record = explained.transcript
    return {
        "transcript": shown_id(record.id) if explained.is_saved else None,
        "recording": shown_id(record.original_id),
        "chunks": [shown_id(chunk_id) for chunk_id in record.chunk_ids],
        "start": record.start.isoformat(),
        "language": record.language,
        "filter": policy.level,
        "threshold": policy.threshold,
        "segments": [row for row, _ in _rows(explained, policy)],
    }
