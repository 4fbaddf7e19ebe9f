"""What lies beyond the ends of the chunks of a sequence: context to hear, seams to agree on.

Where the speech goes on in a neighbouring chunk, the sequence was cut there: by the cap, or because
the neighbour was done before, by whomever. Then its audio is posted, too, but not owned: it stays
with the transcript of its own, and the two are joined.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stt_lib.domain.bisection import Heard
from stt_lib.domain.models import Chunk, Claim, Seam, Segment, consecutive_runs, identity
from stt_lib.domain.stitching import Overlap, Side
from stt_lib.domain.timeline import Timeline
from stt_lib.filtering import Verdict
from stt_lib.pipeline.sinks import Ledger

YOUNG = timedelta(minutes=10)
"""A chunk that was ingested so recently may get a neighbour while it is being worked on."""

EXCUSES_BEFORE_ALONE = 2
"""Chunks whose requests failed in so many runs are posted without context: it may be the cause."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An end of posted chunks beyond which the speech goes on; `side` is where these lie.

    `position` of the cut in the posted audio in seconds; `is_heard` if the neighbour is in it.
    """

    side: Side
    own: Chunk
    neighbour: Chunk
    position: float
    is_heard: bool

    @property
    def pair(self) -> tuple[Chunk, Chunk]:
        """The chunk before the cut and the one behind it."""
        if self.side is Side.EARLIER:
            return self.own, self.neighbour
        return self.neighbour, self.own

    @property
    def reach(self) -> tuple[float, float]:
        """Seconds before and behind the cut that we have heard."""
        context = self.neighbour.seconds if self.is_heard else 0.0
        if self.side is Side.EARLIER:
            return self.own.seconds, context
        return context, self.own.seconds

    @property
    def decided(self) -> Seam | None:
        """The seam that was decided before we came."""
        earlier, later = self.pair
        return earlier.seam if earlier.seam_with == identity(later.id) else None


class Neighbours:
    """The chunks beside those of a claim."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        owned = [chunk for chunk in claim.chunks if identity(chunk.id) in claim.owned]
        beside = [chunk for chunk in (*claim.neighbours, *owned) if chunk.problem is None]
        counts = Counter(chunk.index for chunk in beside)
        # Of two chunks with one index nobody knows which one is the neighbour.
        alone = [chunk for chunk in beside if counts[chunk.index] == 1]
        self._by_index = {chunk.index: chunk for chunk in alone if chunk.has_speech}
        self._silent = {chunk.index: chunk for chunk in alone if not chunk.has_speech}

    def runs(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, ...]]:
        """The chunks in pieces that can be posted together: split at gaps, unless bridged."""
        piece: tuple[Chunk, ...] = ()
        for run in consecutive_runs(chunks):
            if piece and self.bridge((*piece, *run)) is None:
                yield piece
                piece = ()
            piece = (*piece, *run)
        if piece:
            yield piece

    def bridge(self, run: Sequence[Chunk]) -> tuple[Chunk, ...] | None:
        """The silent chunks in the gaps of a run; None when one is missing, or not silent."""
        held = {chunk.index for chunk in run}
        gaps = [index for index in range(run[0].index, run[-1].index) if index not in held]
        if any(index not in self._silent for index in gaps):
            return None
        return tuple(self._silent[index] for index in gaps)

    def with_context(self, run: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
        """The chunks of a run with what is to be posted before, between and behind them.

        Not with a neighbour that has failed itself: it would make us fail, too.
        """
        if max(chunk.excuses for chunk in run) >= EXCUSES_BEFORE_ALONE:
            return run
        beside = [chunk for chunk in self._beside(run) if chunk is not None and not chunk.failures]
        context = (*beside, *(self.bridge(run) or ()))
        return tuple(sorted((*run, *context), key=lambda chunk: chunk.index))

    def _beside(self, run: Sequence[Chunk]) -> tuple[Chunk | None, Chunk | None]:
        return self._by_index.get(run[0].index - 1), self._by_index.get(run[-1].index + 1)

    def own(self, heard: Heard, verdict: Verdict) -> Verdict:
        """The verdict without what the transcripts of the neighbours have, or will have."""
        timeline = heard.timeline
        segments: Sequence[Segment] = verdict.kept
        before, after = self._beside(heard.chunks)
        if before is not None:
            is_heard = heard.audio[0] is not heard.chunks[0]
            cut = Cut(Side.LATER, heard.chunks[0], before, timeline.begin, is_heard)
            segments = self._joined(cut, timeline, segments)
        if after is not None:
            is_heard = heard.audio[-1] is not heard.chunks[-1]
            cut = Cut(Side.EARLIER, heard.chunks[-1], after, timeline.end, is_heard)
            segments = self._joined(cut, timeline, segments)
        elif _is_young(heard.chunks[-1]):
            segments = self._left_to_latecomer(heard.chunks[-1], timeline, segments)
        dropped = (dropped for dropped in verdict.dropped if timeline.holds(dropped.segment))
        return Verdict(tuple(segments), tuple(dropped))

    def _left_to_latecomer(
        self, last: Chunk, timeline: Timeline, segments: Sequence[Segment]
    ) -> Sequence[Segment]:
        """Without what somebody has taken who came with the next chunk while we were posting."""
        seam = self._ledger.seam_behind(self._claim.original_id, last.id)
        if seam is None:
            return segments
        return Overlap(segments, timeline.end, (last.seconds, 0.0), Side.EARLIER).own(seam)

    def _joined(
        self, cut: Cut, timeline: Timeline, segments: Sequence[Segment]
    ) -> Sequence[Segment]:
        overlap = Overlap(segments, cut.position, cut.reach, cut.side)
        return overlap.own(
            cut.decided or self._settled(cut) or self._agreed(cut, timeline, overlap)
        )

    def _settled(self, cut: Cut) -> Seam | None:
        """What a neighbour's transcript leaves us that was saved without a thought of us."""
        neighbour = cut.neighbour
        if not neighbour.is_done and identity(neighbour.id) not in self._claim.owned:
            return None
        transcript = self._ledger.transcript_of(self._claim.original_id, neighbour.id)
        if transcript is None:
            return Seam((), (), 0, 0.0)
        if cut.side is Side.EARLIER:
            side, moment, reach = Side.LATER, neighbour.start, (0.0, neighbour.seconds)
        else:
            side, moment, reach = Side.EARLIER, neighbour.end, (neighbour.seconds, 0.0)
        position = (moment - transcript.start).total_seconds()
        return Overlap(transcript.segments, position, reach, side).as_it_is()

    def _agreed(self, cut: Cut, timeline: Timeline, overlap: Overlap) -> Seam:
        ours = overlap.propose()
        earlier, later = cut.pair
        at = timeline.at(cut.position + ours.moment)
        return self._ledger.agree_on_seam(self._claim.original_id, (earlier.id, later.id), ours, at)


def _is_young(chunk: Chunk) -> bool:
    return chunk.ingested_at is not None and datetime.now(UTC) - chunk.ingested_at < YOUNG
