"""The chunks beside those of a claim: posted as context, and joined without repeating their words.

Where speech continues in a neighbouring chunk, the sequence was cut there: because it was long
enough, or because the neighbour was transcribed before. Then the neighbour's audio is posted as
well, so that words at the cut are heard whole, but its text stays with its own transcript. Text
is only ever removed where such a neighbour was really part of the request.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stt_lib.domain.bisection import Heard
from stt_lib.domain.models import Chunk, Claim, Seam, Segment, Transcript, identity
from stt_lib.domain.stitching import Overlap, Side
from stt_lib.filtering import Verdict
from stt_lib.store import Store

FAILURES_BEFORE_ALONE = 2
"""Runs. After their requests failed in this many, chunks are posted without context, which may be
the cause."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An end of the claimed chunks beyond which a neighbour was posted; `side` is the claimed one.

    `position` is that of the cut in the posted audio, in seconds.
    """

    side: Side
    own: Chunk
    neighbour: Chunk
    position: float

    @property
    def pair(self) -> tuple[Any, Any]:
        """The ids of the chunks before and after the cut."""
        pair = (self.own.id, self.neighbour.id)
        return pair if self.side is Side.EARLIER else pair[::-1]

    def overlap(self, segments: Sequence[Segment]) -> Overlap:
        """The segments around the cut: both chunks beside it were heard."""
        reach = (self.own.seconds, self.neighbour.seconds)
        ordered = reach if self.side is Side.EARLIER else reach[::-1]
        return Overlap(segments, self.position, ordered, self.side)


class Context:
    """The neighbours of a claim, and the seams with their transcripts."""

    def __init__(
        self, store: Store, claim: Claim, *, is_replacement: bool, pause: Callable[[], None]
    ) -> None:
        """`pause` is called between two looks at the claim of somebody else; it may raise."""
        self._store = store
        self._claim = claim
        self._is_replacement = is_replacement
        self._pause = pause
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
        before = filter(self._may_join, self._at(run[0].index - 1))
        after = filter(self._may_join, self._at(run[-1].index + 1))
        return (*before, *run, *after)

    def _at(self, index: int) -> list[Chunk]:
        return [self._by_index[index]] if index in self._by_index else []

    def _may_join(self, neighbour: Chunk) -> bool:
        """Whether a neighbour may be posted with our chunks.

        A replacement that is not saved in the end must not have decided anything: it is posted
        without pending neighbours.
        """
        return not neighbour.failures and (not self._is_replacement or self._is_saved(neighbour))

    def own(self, heard: Heard, verdict: Verdict) -> tuple[Verdict, tuple[Any, ...]]:
        """The verdict without the text that belongs to the transcripts of the neighbours.

        Also returns the ids of the neighbours at which a decided seam was kept.
        """
        timeline = heard.timeline
        segments: Sequence[Segment] = verdict.kept
        no_speech = [dropped.segment for dropped in verdict.dropped]
        joined: list[Any] = []
        for cut in self._cuts(heard):
            while self._is_replacement and self._has_to_wait(cut):
                self._pause()
            overlap = cut.overlap(segments)
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

    def _cuts(self, heard: Heard) -> list[Cut]:
        """The ends of our chunks beyond which there is a neighbour, posted or not."""
        first, last = heard.chunks[0], heard.chunks[-1]
        before = heard.audio[:1] if heard.audio[0] is not first else self._at(first.index - 1)
        after = heard.audio[-1:] if heard.audio[-1] is not last else self._at(last.index + 1)
        return [
            *(Cut(Side.LATER, first, chunk, heard.timeline.begin) for chunk in before),
            *(Cut(Side.EARLIER, last, chunk, heard.timeline.end) for chunk in after),
        ]

    def _has_to_wait(self, cut: Cut) -> bool:
        """Whether somebody who began before us may be replacing the transcript beside ours.

        Each side would go by text that the other one replaces, and both might give up the same
        word. Where both go by a decided seam, they may be replaced at the same time.
        """
        ours, theirs = self._transcript_of(cut.own), self._transcript_of(cut.neighbour)
        is_kept = _keeps_seam(ours, cut.neighbour) and _keeps_seam(theirs, cut.own)
        if is_kept and self._decided(cut.pair) is not None:
            return False
        return self._store.claims.is_behind(self._claim.token, cut.neighbour.id)

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
        at = heard.timeline.at(cut.position + proposed.moment)
        return self._store.seams.decide(self._claim.original_id, cut.pair, proposed, at)

    def _agreed(self, cut: Cut, beside: Transcript | None) -> Seam | None:
        """The decided seam, unless the transcript beside ours was saved without regard to it.

        Of two workers on the same chunks, one may decide and the other one be the first to save.
        """
        return self._decided(cut.pair) if _keeps_seam(beside, cut.own) else None

    def _is_saved(self, neighbour: Chunk) -> bool:
        return neighbour.is_done or identity(neighbour.id) in self._claim.loaded.owned

    def _decided(self, pair: tuple[Any, Any]) -> Seam | None:
        return self._store.seams.find(self._claim.original_id, pair)

    def _transcript_of(self, neighbour: Chunk) -> Transcript | None:
        return self._store.transcripts.of_chunk(self._claim.original_id, neighbour.id)


def _keeps_seam(transcript: Transcript | None, beside: Chunk) -> bool:
    """Whether a transcript, if there is one, goes by the seam with this chunk beside it."""
    return transcript is None or transcript.joined is None or beside.id in transcript.joined


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
