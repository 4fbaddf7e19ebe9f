"""A transcript that no majority has yet: a failover may take it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo
from pymongo.write_concern import WriteConcern

from stt_lib.domain.models import identity
from stt_lib.store import Store, mapping
from tests.store.conftest import LONG_AGO, load, plan, transcript
from tests.support.replicas import ReplicaSet
from tests.support.waiting import eventually
from tests.support.world import World


@contextmanager
def unreplicated(replicas: ReplicaSet) -> Iterator[None]:
    """Keep the only secondary from applying writes, while it still votes for the primary."""
    with pymongo.MongoClient[dict[str, object]](replicas.secondary, directConnection=True) as held:
        held.admin.command("fsync", lock=True)
        try:
            yield
        finally:
            held.admin.command("fsyncUnlock")


def test_a_transcript_owns_chunks_once_a_majority_has_it(tmp_path: Path) -> None:
    with ReplicaSet(tmp_path / "set", members=2) as replicas:
        world = World(replicas.uri, tmp_path, "http://127.0.0.1:1")
        with Store(world.uri, world.database) as store:
            store.indexes.ensure()
            world.record([0, 1], original_id="rec")
            [sequence] = plan(store)
            ids = [chunk.id for chunk in sequence.chunks]
            everything = set(map(identity, ids))

            def owned() -> set[object]:
                return store.transcripts.owned("rec", ids)

            with unreplicated(replicas):
                document = mapping.transcript(transcript(sequence), LONG_AGO)
                at_once = world.transcriptions.with_options(write_concern=WriteConcern(1))
                at_once.insert_one(document)
                assert len(store.transcripts.all()) == 1
                found = load(store, sequence)
                assert len(found.chunks) == 2
                assert found.owned == owned() == set()
            eventually(lambda: owned() == everything)
            assert load(store, sequence).owned == everything
        world.close()
