"""The store in memory shows as owned only what no failover can take back, as MongoDB does."""

from datetime import UTC, datetime

from stt_lib.domain.models import identity
from stt_lib.store import mapping
from tests.contract.conftest import MemoryBench, document, sequence, transcript


def test_a_transcript_owns_chunks_once_a_majority_has_it() -> None:
    bench = MemoryBench()
    store, database = bench.store, bench.store.database
    bench.insert(document(0))
    database.confirm()
    everything = {identity("rec-0")}
    for is_lost in (True, False):
        saved = mapping.transcript(transcript(bench, 0), datetime.now(UTC))
        database.transcripts.insert(saved)
        assert len(store.transcripts.all()) == 1
        assert store.transcripts.owned("rec", ["rec-0"]) == set()
        assert store.chunks.load(sequence(0), run_started=store.now()).owned == set()
        database.fail_over(lost_writes=int(is_lost))
        found = store.transcripts.owned("rec", ["rec-0"])
        assert found == (set() if is_lost else everything)
    assert store.chunks.load(sequence(0), run_started=store.now()).owned == everything
