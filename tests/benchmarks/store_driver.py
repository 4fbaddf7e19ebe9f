"""Take sequences through the store's writes, without any server: claim, load, save, mark, release.

Runs against whichever `stt_lib` is on the path, so that an older commit can be measured beside this
one. Prints the number of sequences.
"""

import argparse
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from bson import ObjectId

from stt_lib.store import Store

try:
    from stt_lib.domain.models import Segment, Transcript
    from stt_lib.domain.sequences import group
except ImportError:  # an older commit
    from stt_lib.model import Segment, Transcript  # type: ignore[import-not-found,no-redef]
    from stt_lib.sequences import group  # type: ignore[import-not-found,no-redef]


def transcript(sequence: Any, chunks: Any) -> Transcript:
    start = chunks[0].start
    return Transcript(
        id=ObjectId(),
        original_id=sequence.original_id,
        start=start,
        end=start + timedelta(seconds=10 * len(chunks)),
        chunk_ids=tuple(chunk.id for chunk in chunks),
        segments=tuple(Segment(2.0 * n, 2.0 * n + 2, " some words") for n in range(40)),
        language="en",
        top_language_probs=(("en", 0.99),),
        model="tiny",
        server="http://server",
    )


def new(store: Any, sequence: Any, started: Any) -> None:
    token = f"host/1/{uuid.uuid4().hex}"
    if not store.claims.acquire(sequence, token, "host/1"):
        raise SystemExit("not acquired")
    chunks = store.chunks.load(sequence, run_started=started).chunks
    if not store.transcripts.save(transcript(sequence, chunks)):
        raise SystemExit("not saved")
    store.chunks.mark([chunk.id for chunk in chunks], is_backed=True)
    store.claims.release(token)


def old(store: Any, sequence: Any, started: Any) -> None:
    token = f"host/1/{uuid.uuid4().hex}"
    claim = store.claim(sequence, token, since=started)
    if not store.save(transcript(sequence, claim.chunks)):
        raise SystemExit("not saved")
    store.mark([chunk.id for chunk in claim.chunks], token)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("database")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--indexes", action="store_true", help="only create the indexes")
    given = parser.parse_args()
    with Store(given.uri, given.database) as store:
        parts: Any = store
        is_new = hasattr(parts, "claims")
        if given.indexes:
            parts.indexes.ensure() if is_new else parts.ensure_indexes()
            return
        started = store.now()
        planned = (
            parts.chunks.pending(run_started=started) if is_new else parts.pending(since=started)
        )
        sequences = list(group(planned))
        with ThreadPoolExecutor(given.threads) as threads:
            take = new if is_new else old
            list(threads.map(lambda sequence: take(parts, sequence, started), sequences))
        print(len(sequences))


if __name__ == "__main__":
    main()
