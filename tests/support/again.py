"""Transcripts to be done again, made without a run, and what must hold of them at all times."""

from datetime import timedelta
from typing import Any

from tests.support.whisper import Reply, Request, transcription
from tests.support.world import START, World, chunk

OLD, NEW = "old words", "new words"


def transcribed(world: World, count: int = 1, *, chunks: int = 4, **fields: Any) -> list[Any]:
    """Insert recordings with one transcript each, an hour apart; the ids of the transcripts."""
    made = []
    for number in range(count):
        rows = [chunk(number, i, START + timedelta(hours=number)) for i in range(chunks)]
        world.chunks.insert_many([{**row, "transcribed_at": START} for row in rows])
        made.append(
            {
                "original": number,
                "start": rows[0]["start"],
                "end": rows[-1]["start"] + timedelta(seconds=10),
                "duration": 10.0 * chunks,
                "language": "en",
                "top_language_probs": [],
                "segments": [{"start": 0.0, "end": 5.0, "text": OLD}],
                "chunk_ids": [row["_id"] for row in rows],
                "model": "tiny.en",
                "server": "http://old",
                "created_at": START,
                **fields,
            }
        )
    return list(world.transcriptions.insert_many(made).inserted_ids)


def heard_new(_: Request) -> Reply:
    return transcription([{"start": 0.0, "end": 5.0, "text": NEW}], model="large-v3")


def text(document: dict[str, Any]) -> str:
    return str(document["segments"][0]["text"])


def texts(world: World) -> list[str]:
    """Those of all transcripts, oldest first."""
    return [text(document) for document in world.transcriptions.find(sort=[("start", 1)])]


def history(world: World) -> list[dict[str, Any]]:
    return list(world.db["transcriptions_history"].find(sort=[("_id", 1)]))


def assert_all_new(world: World, *, revisions: int = 2) -> None:
    """Each has been replaced once, its old text is kept once, and nothing else is left."""
    documents = list(world.transcriptions.find())
    assert {text(document) for document in documents} == {NEW}
    assert {document["revision"] for document in documents} == {revisions}
    assert all("stt" not in document for document in documents)
    kept = history(world)
    assert [(h["_id"]["transcript"], h["_id"]["revision"]) for h in kept] == sorted(
        (document["_id"], 1) for document in documents
    )
    assert {text(document) for document in kept} == {OLD}
    assert world.chunks.count_documents({"transcribed_at": None}) == 0
    assert set(world.owners().values()) == {1}
