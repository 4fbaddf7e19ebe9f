"""What has to hold at every moment of a simulation, and at its end."""

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn

from stt_lib.domain.models import identity
from stt_lib.errors import FailureKind
from stt_lib.store import mapping
from stt_lib.store.mapping import nested
from tests.simulation.scheduler import Killed, Process, Scheduler, Task
from tests.simulation.servers import SimulatedServer
from tests.simulation.speech import CHUNK_SECONDS, WORD_SECONDS, Audio, Piece, Speech, Spoken
from tests.support.memory_database import Collection, Database, Document
from tests.support.memory_store import EXCESS

MADE_UP: Final = ("Thank", "you.")
"""What servers hear in noise."""

EDGE_SECONDS: Final = 2.0


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Claim:
    """A claim as it was acquired, and whether its holder has released it."""

    token: str
    holder: Task
    ids: frozenset[str]
    acquired_at: float
    is_released: bool = False


class Checks:
    """Watches the database and the requests of a simulation."""

    def __init__(self, scheduler: Scheduler, database: Database, speech: Speech) -> None:
        self._scheduler = scheduler
        self._database = database
        self._speech = speech
        self._claims: dict[str, Claim] = {}
        self._marked_at: dict[str, float] = {}
        self._pieces = speech.by_id()
        self._requests = 0
        self._in_flight: dict[int, tuple[frozenset[str], frozenset[str]]] = {}
        self._heard: dict[Task, list[frozenset[str]]] = {}
        self._heard_with: dict[str, frozenset[str]] = {}
        self._failed_late: set[str] = set()
        self._answered: set[tuple[str, str]] = set()
        self.has_clock_jumped = False
        self.acting_for: Task | None = None
        """Who asked for a write that the leader of its group carries out."""
        database.watcher = self._changed

    def _violated(self, what: str) -> NoReturn:
        """End the simulation; the code that is tested must not be able to swallow it."""
        violation = Violation(what)
        violation.__cause__ = sys.exc_info()[1]
        self._scheduler.fail(violation)
        raise Killed

    # -- the database -------------------------------------------------------------------------

    def _changed(self, place: Collection, before: Document | None, after: Document | None) -> None:
        self._note(place, before, after)
        match place.name:
            case "transcripts" if after is not None:
                self._check_owner(after)
                self._note_request(after["chunk_ids"])
            case "dropped" if after is not None:
                self._note_request(after["transcript"]["chunk_ids"])
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

    def _note_request(self, saved: Sequence[str]) -> None:
        """Remember what was heard in the request whose answer is saved."""
        if self._database.is_rolling_back:
            return
        answered = self._heard.get(self._me(), [])
        request = next((r for r in reversed(answered) if r.issuperset(saved)), frozenset(saved))
        self._heard_with.update(dict.fromkeys(saved, request))

    def _check_owner(self, new: Document) -> None:
        mine = set(new["chunk_ids"])
        for other in self._database.transcripts:
            shared = mine.intersection(other["chunk_ids"])
            if other["_id"] != new["_id"] and shared:
                self._violated(f"{sorted(shared)} are owned by two transcripts")

    def _claim_changed(self, before: Document | None, after: Document | None) -> None:
        if self._database.is_rolling_back:
            return
        if after is None and before is not None:
            claim = self._claims[before["_id"]]
            claim.is_released = not self._is_expired(before)
            if claim.is_released:
                self._check_idle(claim)
        elif before is None and after is not None:
            token, ids = after["_id"], frozenset(after["chunk_ids"])
            self._claims[token] = Claim(token, self._me(), ids, self._scheduler.now)

    def _is_expired(self, claim: Document) -> bool:
        now, lease = self._database.now(), timedelta(milliseconds=claim["lease_ms"])
        return not now < claim["until"] <= now + lease + EXCESS

    def _check_idle(self, claim: Claim) -> None:
        """Whoever releases a claim has no request for its chunks under way."""
        for ids, tokens in self._in_flight.values():
            if claim.token in tokens:
                self._violated(f"a claim on {sorted(ids)} was released during a request")

    def _check_unreleased(self, chunk_id: str) -> None:
        """Whoever writes the end of a chunk has not released its claim on it."""
        me = self._me()
        claims = [c for c in self._claims.values() if c.holder is me and chunk_id in c.ids]
        if claims and claims[-1].is_released:
            self._violated(f"{chunk_id} was written to after its claim was released")

    def _chunk_changed(self, before: Document, after: Document) -> None:
        chunk_id = after["_id"]
        if after.get("transcribed_at") is None:
            self._marked_at.pop(chunk_id, None)
        elif before.get("transcribed_at") is None:
            self._marked_at[chunk_id] = self._scheduler.now
        if self._database.is_rolling_back:
            return
        if after.get("transcribed_at") is not None:
            self._check_mark(chunk_id)
            self._check_unreleased(chunk_id)
        if nested(after, "stt.error.at") != nested(before, "stt.error.at"):
            self._check_failure(before, after)
            self._check_unreleased(chunk_id)

    def _check_mark(self, chunk_id: str) -> None:
        """A mark means that a transcript is saved, or that a server heard nothing to keep."""
        if any(chunk_id in t["chunk_ids"] for t in self._database.transcripts):
            return
        if (self._process().name, chunk_id) not in self._answered:
            self._violated(f"{chunk_id} was marked without a transcript or an answer")
        aside = any(chunk_id in d["transcript"]["chunk_ids"] for d in self._database.dropped)
        if not aside and any(_is_inside(word) for word in self._pieces[chunk_id].words):
            self._violated(f"{chunk_id} was marked as without speech, which it has")

    def _check_failure(self, before: Document, after: Document) -> None:
        chunk_id = after["_id"]
        if nested(after, "stt.error.kind") == FailureKind.INTERNAL:
            self._violated(f"{chunk_id} failed for a defect of stt")
        early = self._seconds_early(before)
        # A write that was under way when its process froze may arrive after the claim expired.
        is_late = not self._holds(chunk_id)
        if early > 0 and not (is_late or chunk_id in self._failed_late):
            self._violated(f"{chunk_id} failed again {early:.1f} s before it was due")
        if is_late:
            self._failed_late.add(chunk_id)

    def _seconds_early(self, chunk: Document) -> float:
        retry_at = nested(chunk, "stt.retry_at")
        is_on_request = self._process().name.startswith("retry")
        if retry_at is None or self.has_clock_jumped or is_on_request:
            return 0.0
        return float((retry_at - self._database.now()).total_seconds())

    def _holds(self, chunk_id: str) -> bool:
        me = self._me()
        return any(
            claim.holder is me and chunk_id in claim.ids and self._exists(claim.token)
            for claim in self._claims.values()
        )

    def _me(self) -> Task:
        current = self.acting_for or self._scheduler.current
        if current is None:
            raise RuntimeError("nobody is at work")
        return current

    def _process(self) -> Process:
        return self._me().process

    # -- requests -----------------------------------------------------------------------------

    def posted(self, pieces: Sequence[Piece]) -> int:
        """A request is on its way; returns a number for it."""
        ids = [piece.id for piece in pieces]
        me = self._me()
        mine = [c for c in self._claims.values() if c.holder is me and self._exists(c.token)]
        mine = [claim for claim in mine if not claim.ids.isdisjoint(ids)]
        own = frozenset(i for claim in mine for i in claim.ids.intersection(ids))
        self._check_alone(own)
        for claim in mine:
            self._check_unmarked(claim, ids)
        self._requests += 1
        self._in_flight[self._requests] = own, frozenset(claim.token for claim in mine)
        return self._requests

    def _exists(self, token: str) -> bool:
        return self._database.claims.get(token) is not None

    def _check_alone(self, own: frozenset[str]) -> None:
        """No other request that is still covered by its claim has these chunks."""
        for ids, tokens in self._in_flight.values():
            if ids & own and any(map(self._exists, tokens)):
                self._violated(f"{sorted(ids & own)} are posted by two workers at once")

    def _check_unmarked(self, claim: Claim, ids: Sequence[str]) -> None:
        """Chunks at the ends of a request may be context; those between them are not."""
        if claim.holder.process.name.startswith("again"):
            return
        for chunk_id in claim.ids.intersection(ids if len(ids) == 1 else ids[1:-1]):
            if self._marked_at.get(chunk_id, claim.acquired_at) < claim.acquired_at:
                self._violated(f"{chunk_id} was posted though it was marked before the claim")

    def answered(self, pieces: Sequence[Piece]) -> None:
        ids = [piece.id for piece in pieces]
        self._answered.update((self._process().name, chunk_id) for chunk_id in ids)
        self._heard.setdefault(self._me(), []).append(frozenset(ids))

    def ended(self, request: int) -> None:
        del self._in_flight[request]

    def check_requests(self, servers: Iterable[SimulatedServer], workers: int) -> None:
        """A server that is down or busy gets few requests of each process."""
        for server in servers:
            for (process, spell), count in server.refused.items():
                most = 2 * workers + (spell.ends - spell.begins)
                if count > most:
                    self._violated(f"{process} sent {count} requests to {server.name}, {spell}")

    def check_idle(self, runner: Any, pool: Any) -> None:
        """At the end of a run nothing is planned, held or under way."""
        busy = [server.name for server in pool.servers if server.in_flight or server.on_trial]
        channels = len(pool._channels) - len(pool._idle)
        is_planning = runner._planning is not None and not runner._planning.done()
        held = runner._worker.heartbeat._renewed_at or runner._under_way or is_planning
        if busy or channels or pool._line or pool._waiting or held:
            self._violated(f"at its end a run holds {busy}, {pool._line}, {pool._waiting}, {held}")

    # -- the end ------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Chunks that should have been done by now."""
        return [
            chunk["_id"]
            for chunk in self._database.chunks
            if chunk.get("transcribed_at") is None
            and self._pieces[chunk["_id"]].kind not in (Audio.POISON, Audio.BROKEN)
        ]

    def check_end(self) -> None:
        """Once everything is quiet: all done, nothing held, every word in its place."""
        if left := self.unfinished():
            self._violated(f"{left} were never finished")
        if len(self._database.claims):
            self._violated(f"{len(self._database.claims)} claims are left")
        for recording in sorted({place[0] for place in self._speech.pieces}):
            self._check_words(recording)

    def _check_words(self, recording: int) -> None:
        done = [
            piece
            for (number, _), piece in sorted(self._speech.pieces.items())
            if number == recording
            and (self._database.chunks.get(piece.id) or {}).get("transcribed_at") is not None
        ]
        loose = [not self._is_heard_whole(*pair) for pair in itertools.pairwise(done)]
        spoken = [
            (word, (is_loose and _is_early(word)) or (is_next_loose and _is_late(word)))
            for piece, is_loose, is_next_loose in zip(
                done, [False, *loose], [*loose, False], strict=False
            )
            for word in piece.words
        ]
        saved = list(self._words(f"r{recording}"))
        place = _mismatch(spoken, saved)
        if place is not None:
            texts = [(piece.id, word.text) for piece in done for word in piece.words]
            self._violated(_difference(recording, texts, saved, place))

    def _is_heard_whole(self, one: Piece, other: Piece) -> bool:
        """Whether both transcripts that meet between two chunks come from requests with both."""
        nothing: frozenset[str] = frozenset()
        return other.id in self._heard_with.get(one.id, nothing) and (
            one.id in self._heard_with.get(other.id, nothing)
        )

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


def _is_inside(word: Spoken) -> bool:
    """Whether a word is so far from the chunk's ends that no seam can give it to a neighbour."""
    return EDGE_SECONDS < word.start < CHUNK_SECONDS - EDGE_SECONDS


def _mismatch(spoken: Sequence[tuple[Spoken, bool]], saved: Sequence[str]) -> int | None:
    """Where the saved words are not those spoken, each with whether it may be there twice.

    That is a word at an edge of a chunk that was posted without the one beyond: no server places
    words exactly, so both sides may find it in their own audio, and neither may remove it without
    having heard the other's. None if nothing is wrong.
    """
    places = {0}
    for number, (word, _) in enumerate(spoken):
        places = {place + 1 for place in places if saved[place : place + 1] == [word.text]}
        if not places:
            return number
        heard = spoken[: number + 1]
        places |= {place + _repeated(heard, saved[place : place + 2]) for place in places}
    return None if len(saved) in places else len(spoken)


def _repeated(spoken: Sequence[tuple[Spoken, bool]], saved: Sequence[str]) -> int:
    """How many words that may be there twice follow once more."""
    for count in (2, 1):
        last = spoken[-count:]
        if list(saved[:count]) == [w.text for w, _ in last] and all(may for _, may in last):
            return count
    return 0


def _is_early(word: Spoken) -> bool:
    return word.start < 0.5


def _is_late(word: Spoken) -> bool:
    return word.start + WORD_SECONDS > CHUNK_SECONDS - 0.5


def _difference(recording: int, spoken: list[tuple[str, str]], saved: list[str], place: int) -> str:
    """`spoken` are words with the ids of their chunks, which a reader looks for in the trace."""
    around = slice(max(0, place - 4), place + 5)
    chunks = ", ".join(dict.fromkeys(chunk for chunk, _ in spoken[around]))
    said = " ".join(text for _, text in spoken[around])
    return (
        f"recording {recording}: {len(spoken)} words spoken, {len(saved)} saved; "
        f"at {place} in {chunks}:\n  spoken {said}\n  saved  {' '.join(saved[around])}"
    )
