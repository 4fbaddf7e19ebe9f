"""What has to hold at every moment of a simulation, and at its end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stt_lib.domain.models import identity
from stt_lib.store import mapping
from stt_lib.store.mapping import nested
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.speech import Audio, Piece, Speech
from tests.support.memory_database import Collection, Database, Document

MADE_UP = ("Thank", "you.")


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it was acquired."""

    token: str
    process: Process
    ids: frozenset[str]
    acquired_at: float


class Checks:
    """Watches the database and the requests of a simulation."""

    def __init__(self, scheduler: Scheduler, database: Database, speech: Speech) -> None:
        self._scheduler = scheduler
        self._database = database
        self._speech = speech
        self._claims: dict[str, Claim] = {}
        self._marked_at: dict[str, float] = {}
        self._in_flight: list[tuple[Process, frozenset[str], frozenset[str]]] = []
        self._answered: set[tuple[str, str]] = set()
        self.has_clock_jumped = False
        database.watcher = self._changed

    # -- the database -------------------------------------------------------------------------

    def _changed(self, place: Collection, before: Document | None, after: Document | None) -> None:
        self._note(place, before, after)
        match place.name:
            case "transcripts" if after is not None:
                self._check_owner(after)
            case "claims":
                self._claim_changed(before, after)
            case "chunks" if before is not None and after is not None:
                self._chunk_changed(before, after)

    def _note(self, place: Collection, before: Document | None, after: Document | None) -> None:
        document = after or before or {}
        ids = document.get("chunk_ids") or [document.get("_id")]
        verb = "changed in" if before and after else "put into" if after else "taken from"
        what = f"{ids[0]}–{ids[-1]}" if len(ids) > 1 else f"{ids[0]}"
        stt = nested(document, "stt.error.kind")
        mark = " marked" if document.get("transcribed_at") else f" failed: {stt}" if stt else ""
        undone = " (rolled back)" if self._database.is_rolling_back else ""
        self._scheduler.note(f"    {what}{mark} {verb} {place.name}{undone}")

    def _check_owner(self, new: Document) -> None:
        mine = set(new["chunk_ids"])
        for other in self._database.transcripts:
            shared = mine.intersection(other["chunk_ids"])
            if other["_id"] != new["_id"] and shared:
                raise Violation(f"{sorted(shared)} are owned by two transcripts")

    def _claim_changed(self, before: Document | None, after: Document | None) -> None:
        if before is None and after is not None and not self._database.is_rolling_back:
            token, ids = after["_id"], frozenset(after["chunk_ids"])
            process = self._process()
            self._claims[token] = Claim(token, process, ids, self._scheduler.now)
        if before is not None and after is None:
            claim = self._claims[before["_id"]]
            if claim.process is self._process() and not self._database.is_rolling_back:
                self._check_idle(claim, before)

    def _check_idle(self, claim: Claim, document: Document) -> None:
        """Whoever releases a claim has no request under way, and nothing left to write."""
        is_expired = document["until"] <= self._database.now()
        for process, ids, tokens in self._in_flight:
            if process is claim.process and claim.token in tokens and not is_expired:
                raise Violation(f"a claim on {sorted(ids)} was released during a request")

    def _chunk_changed(self, before: Document, after: Document) -> None:
        chunk_id = after["_id"]
        if after.get("transcribed_at") is None:
            self._marked_at.pop(chunk_id, None)
        elif before.get("transcribed_at") is None:
            self._marked_at[chunk_id] = self._scheduler.now
            self._check_mark(after)
        if nested(after, "stt.error.at") != nested(before, "stt.error.at"):
            self._check_failure(before)

    def _check_mark(self, chunk: Document) -> None:
        """A mark means that a transcript is saved, or that a server heard nothing to keep."""
        if self._database.is_rolling_back or self._is_owned(chunk):
            return
        if (self._process().name, chunk["_id"]) not in self._answered:
            raise Violation(f"{chunk['_id']} was marked without a transcript or a verdict")
        self._check_released(chunk)

    def _is_owned(self, chunk: Document) -> bool:
        return any(chunk["_id"] in t["chunk_ids"] for t in self._database.transcripts)

    def _check_released(self, chunk: Document) -> None:
        """A verdict is backed by nothing else, so the claim must outlast it."""

    def _check_failure(self, before: Document) -> None:
        retry_at = nested(before, "stt.retry_at")
        if retry_at is None or self.has_clock_jumped or self._database.is_rolling_back:
            return
        early = (retry_at - self._database.now()).total_seconds()
        if early > 0 and not self._process().name.startswith("retry"):
            raise Violation(f"{before['_id']} failed again {early:.1f} s before it was due")

    def _process(self) -> Process:
        current = self._scheduler.current
        if current is None:
            raise RuntimeError("nobody is at work")
        return current.process

    # -- requests -----------------------------------------------------------------------------

    def posted(self, process: Process, pieces: Sequence[Piece]) -> None:
        ids = frozenset(piece.id for piece in pieces)
        mine = [
            claim
            for claim in self._claims.values()
            if claim.process is process and claim.ids & ids and self._exists(claim)
        ]
        tokens = frozenset(claim.token for claim in mine)
        own = frozenset(i for claim in mine for i in claim.ids & ids)
        self._check_alone(process, own, tokens)
        for claim in mine:
            self._check_unmarked(claim, [piece.id for piece in pieces])
        self._in_flight.append((process, own, tokens))

    def _exists(self, claim: Claim) -> bool:
        return self._database.claims.get(claim.token) is not None

    def _check_alone(self, process: Process, own: frozenset[str], tokens: frozenset[str]) -> None:
        for other, ids, other_tokens in self._in_flight:
            held = any(self._exists(self._claims[token]) for token in other_tokens - tokens)
            if other is not process and ids & own and held:
                raise Violation(f"{sorted(ids & own)} are posted by two workers at once")

    def _check_unmarked(self, claim: Claim, ids: Sequence[str]) -> None:
        """Chunks at the ends of a request may be context; those between them are not."""
        inner = ids if len(ids) == 1 else ids[1:-1]
        for chunk_id in inner:
            marked_at = self._marked_at.get(chunk_id)
            is_own = chunk_id in claim.ids and claim.process.name.startswith("again") is False
            if is_own and marked_at is not None and marked_at < claim.acquired_at:
                raise Violation(f"{chunk_id} was posted though it was marked before the claim")

    def ended(self, process: Process, pieces: Sequence[Piece]) -> None:
        ids = frozenset(piece.id for piece in pieces)
        for place, (who, own, _) in enumerate(self._in_flight):
            if who is process and own <= ids:
                del self._in_flight[place]
                return

    def answered(self, process: Process, pieces: Sequence[Piece]) -> None:
        self._answered.update((process.name, piece.id) for piece in pieces)

    # -- the end ------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Chunks that should have been done by now."""
        pieces = self._speech.by_id()
        return [
            chunk["_id"]
            for chunk in self._database.chunks
            if chunk.get("transcribed_at") is None
            and pieces[chunk["_id"]].kind not in (Audio.POISON, Audio.BROKEN)
        ]

    def check_end(self) -> None:
        """Once everything is quiet: all done, nothing held, every word in its place."""
        if left := self.unfinished():
            raise Violation(f"{left} were never finished")
        if len(self._database.claims):
            raise Violation(f"{len(self._database.claims)} claims are left")
        for recording in sorted({place[0] for place in self._speech.pieces}):
            self._check_words(recording)

    def _check_words(self, recording: int) -> None:
        done = [
            piece
            for (number, _), piece in sorted(self._speech.pieces.items())
            if number == recording
            and (self._database.chunks.get(piece.id) or {}).get("transcribed_at") is not None
        ]
        spoken = [word.text for piece in done for word in piece.words]
        saved = list(self._words(f"r{recording}"))
        if saved != spoken:
            raise Violation(_difference(recording, spoken, saved))

    def _words(self, original_id: str) -> Iterable[str]:
        """The words of a recording's transcripts, kept or dropped by the filter."""
        documents = [t for t in self._database.transcripts if t["original"] == original_id]
        aside = [d["transcript"] for d in self._database.dropped]
        owned = {identity(i) for document in documents for i in document["chunk_ids"]}
        documents += [
            d
            for d in aside
            if d["original"] == original_id and not owned & set(map(identity, d["chunk_ids"]))
        ]
        for document in sorted(documents, key=lambda found: found["start"]):
            for segment, _ in mapping.read_transcript(document).everything:
                yield from (w for w in segment.text.split() if w not in MADE_UP)


def _difference(recording: int, spoken: list[str], saved: list[str]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(spoken, saved, strict=False)) if a != b),
        min(len(spoken), len(saved)),
    )
    around = slice(max(0, place - 4), place + 5)
    return (
        f"recording {recording}: {len(spoken)} words spoken, {len(saved)} saved; at {place}:\n"
        f"  spoken {' '.join(spoken[around])}\n  saved  {' '.join(saved[around])}"
    )


def check_idle(pool: Any) -> None:
    """At the end of a run its pool holds nothing."""
    busy = [server.name for server in pool.servers if server.in_flight or server.on_trial]
    if busy or pool._line or pool._waiting or len(pool._idle) != len(pool._channels):
        raise Violation(f"the pool holds {pool._line}, {pool._waiting}, {busy}")
