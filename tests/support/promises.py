"""The promises, as assertions about a database; and backlogs to put them to the test."""

import random
from datetime import timedelta
from typing import Any

from bson import ObjectId

from tests.support.world import START, World, chunk

LENGTHS = (1, 1, 2, 3, 4, 6, 9, 14, 30)
"""Lengths of sequences, in chunks: many short ones, some at the cap."""


def fill(world: World, sequences: int, rng: random.Random) -> int:
    """Insert recordings that make so many sequences; returns the number of speech chunks.

    Between two sequences of a recording some chunks are missing, or hold no speech.
    """
    chunks = 0
    made = 0
    while made < sequences:
        runs = min(rng.randint(1, 4), sequences - made)
        rows = _recording([rng.choice(LENGTHS) for _ in range(runs)], made, rng)
        world.chunks.insert_many(rows)
        chunks += sum(row["vad"]["has_speech"] for row in rows)
        made += runs
    return chunks


def _recording(lengths: list[int], number: int, rng: random.Random) -> list[dict[str, Any]]:
    recording = ObjectId()
    start = START + timedelta(minutes=20 * number)
    rows: list[dict[str, Any]] = []
    index = rng.randint(0, 3)
    for length in lengths:
        rows += [chunk(recording, index + i, start) for i in range(length)]
        index += length
        if rng.random() < 0.5:
            rows.append(chunk(recording, index, start, has_speech=False))
        index += rng.randint(1, 3)
    return rows


def assert_kept(world: World) -> None:
    """All is done: each speech chunk marked, and in exactly one transcript, with its own words."""
    world.assert_all_done()
    assert_intact(world)
    words = {d["_id"]: d["data"].decode() for d in world.chunks.find({}, {"data": 1})}
    for transcript in world.transcriptions.find():
        said = [segment["text"].strip() for segment in transcript["segments"]]
        assert said == [words[chunk_id] for chunk_id in transcript["chunk_ids"]]


def assert_intact(world: World) -> None:
    """What holds at every moment: no chunk in two transcripts, none marked without one."""
    # In this order, for a chunk may be saved and marked between the two queries.
    marked = {d["_id"] for d in world.chunks.find({"transcribed_at": {"$ne": None}}, {"_id": 1})}
    owners = world.owners()
    assert {chunk_id for chunk_id, count in owners.items() if count > 1} == set()
    assert marked - set(owners) == set()
