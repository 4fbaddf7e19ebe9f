"""The chunks beside those of a claim: posted as context, and joined without repeating their words.

Where speech continues in a neighbouring chunk, the sequence was cut there: because it was long
enough, or because the neighbour was transcribed before. Then the neighbour's audio is posted as
well, so that words at the cut are heard whole, but its text stays with its own transcript. Text
is only ever removed where such a neighbour was really part of the request.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stt_lib.domain.bisection import Heard
from stt_lib.domain.models import Chunk, Claim, Seam, Segment, Transcript, identity
from stt_lib.domain.stitching import Overlap, Side
from stt_lib.domain.timeline import Timeline
from stt_lib.filtering import Verdict
from stt_lib.store import Store

FAILURES_BEFORE_ALONE = 2
"""Runs. After their requests failed in this many, chunks are posted without context, which may be
the cause."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An end of the claimed chunks with a neighbour beyond it; `side` is the claimed one."""

    side: Side
    own: Chunk
    neighbour: Chunk

    @property
    def pair(self) -> tuple[Any, Any]:
        """The ids of the chunks before and after the cut."""
        pair = (self.own.id, self.neighbour.id)
        return pair if self.side is Side.EARLIER else pair[::-1]

    def position(self, timeline: Timeline) -> float:
        """Seconds from the start of the posted audio."""
        return timeline.end if self.side is Side.EARLIER else timeline.begin

    def overlap(self, segments: Sequence[Segment], timeline: Timeline) -> Overlap:
        """The segments around the cut: both chunks beside it were heard."""
        reach = (self.own.seconds, self.neighbour.seconds)
        ordered = reach if self.side is Side.EARLIER else reach[::-1]
        return Overlap(segments, self.position(timeline), ordered, self.side)


class Context:
    """The neighbours of a claim, and the seams with their transcripts."""

    def __init__(self, store: Store, claim: Claim, *, is_replacement: bool) -> None:
        self._store = store
        self._claim = claim
        self._is_replacement = is_replacement
        owned = claim.loaded.owned
        done = [chunk for chunk in claim.loaded.chunks if identity(chunk.id) in owned]
        beside = [chunk for chunk in (*claim.loaded.neighbours, *done) if chunk.problem is None]
        counts = Counter(chunk.index for chunk in beside)
        # Of two chunks with the same index nobody knows which one is the neighbour.
        self._by_index = {chunk.index: chunk for chunk in beside if counts[chunk.index] == 1}

    def around(self, run: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
        """The chunks to post: the run, and its neighbours unless those have failed themselves."""
        if max(chunk.excuses for chunk in run) >= FAILURES_BEFORE_ALONE:
            return run
        cuts = [cut for cut in self._cuts(run) if self._may_join(cut)]
        before = [cut.neighbour for cut in cuts if cut.side is Side.LATER]
        after = [cut.neighbour for cut in cuts if cut.side is Side.EARLIER]
        return (*before, *run, *after)

    def _cuts(self, run: tuple[Chunk, ...]) -> list[Cut]:
        """The ends of these chunks beyond which there is a neighbour, posted or not."""
        first, last = run[0], run[-1]
        before, after = self._by_index.get(first.index - 1), self._by_index.get(last.index + 1)
        return [
            *([Cut(Side.LATER, first, before)] if before else []),
            *([Cut(Side.EARLIER, last, after)] if after else []),
        ]

    def _may_join(self, cut: Cut) -> bool:
        """Whether a neighbour may be posted with our chunks.

        A replacement may never be saved, so it must not decide a seam: with a pending neighbour
        it goes by the one that the old text keeps.
        """
        if cut.neighbour.failures:
            return False
        if not self._is_replacement or self._is_saved(cut.neighbour):
            return True
        ours = self._transcript_of(cut.own)
        return _keeps_seam(ours, cut.neighbour) and self._decided(cut) is not None

    def has_to_wait(self, heard: Heard) -> bool:
        """Whether an older claim is about to replace a transcript that ours has to fit.

        Each side would go by text that the other one replaces, and both might give up the same
        word. Where both keep a decided seam, they may be replaced at the same time.
        """
        cuts = self._cuts(heard.chunks) if self._is_replacement else []
        return any(
            self._store.claims.is_behind(self._claim.token, cut.neighbour.id)
            and not self._is_settled(cut)
            for cut in cuts
            if cut.neighbour in heard.audio
        )

    def _is_settled(self, cut: Cut) -> bool:
        """Whether the transcripts on both sides, as they are now, keep a decided seam."""
        ours, theirs = self._transcript_of(cut.own), self._transcript_of(cut.neighbour)
        is_kept = _keeps_seam(ours, cut.neighbour) and _keeps_seam(theirs, cut.own)
        return is_kept and self._decided(cut) is not None

    def own(self, heard: Heard, verdict: Verdict) -> tuple[Verdict, tuple[Any, ...]]:
        """The verdict without the text that belongs to the transcripts of the neighbours.

        Also returns the ids of the neighbours at which a decided seam was kept.
        """
        timeline = heard.timeline
        segments: Sequence[Segment] = verdict.kept
        no_speech = [dropped.segment for dropped in verdict.dropped]
        joined: list[Any] = []
        for cut in self._cuts(heard.chunks):
            overlap = cut.overlap(segments, timeline)
            beside = self._transcript_of(cut.neighbour)
            if cut.neighbour in heard.audio:
                seam = self._seam(cut, beside, overlap, heard)
                segments = overlap.own(seam or _end_of(beside, cut), no_speech)
            elif seam := self._agreed(cut, beside):
                segments = overlap.with_words_beyond(seam)
            if seam is not None:
                joined.append(cut.neighbour.id)
        dropped = (dropped for dropped in verdict.dropped if timeline.holds(dropped.segment))
        return Verdict(tuple(segments), tuple(dropped)), tuple(joined)

    def _seam(
        self, cut: Cut, beside: Transcript | None, overlap: Overlap, heard: Heard
    ) -> Seam | None:
        """Where the two transcripts meet: whoever comes first decides.

        The transcript beside ours may have been saved during the request, and alone if it was
        posted before there was anything beside it. Then it has decided nothing, and keeps all of
        its words.
        """
        if beside is not None or self._is_saved(cut.neighbour):
            return self._agreed(cut, beside)
        proposed = overlap.propose()
        at = heard.timeline.at(cut.position(heard.timeline) + proposed.moment)
        return self._store.seams.decide(self._claim.original_id, cut.pair, proposed, at)

    def _agreed(self, cut: Cut, beside: Transcript | None) -> Seam | None:
        """The decided seam, unless a transcript was saved without regard to it.

        Of two workers on the same chunks, one may decide and the other one be the first to save.
        That transcript may be the one beside ours, or the one that we replace: then whoever has
        the pending chunks beside it goes by its text.
        """
        is_kept = _keeps_seam(beside, cut.own)
        if self._is_replacement and beside is None:
            is_kept = _keeps_seam(self._transcript_of(cut.own), cut.neighbour)
        return self._decided(cut) if is_kept else None

    def _is_saved(self, neighbour: Chunk) -> bool:
        return neighbour.is_done or identity(neighbour.id) in self._claim.loaded.owned

    def _decided(self, cut: Cut) -> Seam | None:
        return self._store.seams.find(self._claim.original_id, cut.pair)

    def _transcript_of(self, neighbour: Chunk) -> Transcript | None:
        return self._store.transcripts.of_chunk(self._claim.original_id, neighbour.id)


def _keeps_seam(transcript: Transcript | None, neighbour: Chunk) -> bool:
    """Whether a transcript, if there is one, keeps the seam that was decided with a neighbour."""
    return transcript is None or transcript.joined is None or neighbour.id in transcript.joined


def _end_of(transcript: Transcript | None, cut: Cut) -> Seam:
    """What a neighbour has that was transcribed before there was anything beside it."""
    if transcript is None:
        return Seam((), (), 0, 0.0)
    neighbour, is_later = cut.neighbour, cut.side is Side.EARLIER
    side = Side.LATER if is_later else Side.EARLIER
    end = neighbour.start if is_later else neighbour.end
    reach = (0.0, neighbour.seconds) if is_later else (neighbour.seconds, 0.0)
    position = (end - transcript.start).total_seconds()
    return Overlap(transcript.segments, position, reach, side).as_it_is()
