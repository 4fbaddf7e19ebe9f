"""A backlog that an older version left half-way, killed, is finished by this one."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Figures, Size, Worlds
from tests.support.whisper import Reply, Request, echo, running, status, transcription
from tests.support.world import ROOT, World

OLD = "dadda9f"
"""Its claims, seams and dropped text were fields of the chunks."""

RECORDINGS = 12
CHUNKS = 70
"""Three sequences each, with seams between them."""


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    archive = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip("this clone does not hold the old commit")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def script(request: Request) -> Reply:
    """Some audio is refused, in some nothing is heard but a phantom."""
    first = request.audio[0]
    if any(audio.endswith(b"/33") for audio in request.audio):
        return status(400)
    if b"quiet" in first:
        return transcription(
            [{"start": 0.0, "end": 1.0, "text": " Thank you.", "no_speech_prob": 0.9}]
        )
    return echo(request)


def holds(world: World, transcripts: int) -> bool:
    return world.transcriptions.count_documents({}) >= transcripts


@pytest.fixture
def half_done(mongod: Mongod, worlds: Worlds, old_code: Path, size: Size) -> Iterator[World]:
    """Killed three times, with claims, failures, seams and dropped text in the database."""
    with running(script) as server:
        world = worlds(mongod.uri, server.url)
        for number in range(size.of(RECORDINGS, 10 * RECORDINGS)):
            world.record(range(CHUNKS), original_id=f"loud {number}")
            world.record(range(3), original_id=f"quiet {number}")
        for kill in range(3):
            process = subprocess.Popen(
                [sys.executable, str(old_code / "stt.py"), "--max-workers", "4", "--lease", "3"],
                env={**world.env, "PYTHONPATH": str(old_code)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wanted = world.transcriptions.count_documents({}) + 3 + kill
            server.wait_for(partial(holds, world, wanted), 60)
            process.kill()
            process.wait()
        yield world


@pytest.mark.timeout(180)
def test_a_database_that_the_old_version_left_is_finished(
    half_done: World, figures: Figures
) -> None:
    claimed = half_done.chunks.count_documents({"stt.claim": {"$exists": True}})
    left = len(half_done.pending())
    assert left
    done = half_done.run("--max-workers", "4", seconds=120)
    assert done.returncode == 1, done.stderr
    bad = half_done.pending()
    assert {chunk["index"] for chunk in bad} == {33}
    assert all(chunk["stt"]["error"] and "claim" not in chunk["stt"] for chunk in bad)
    owners = half_done.owners()
    assert set(owners.values()) == {1}
    loud = {"original_id": {"$regex": "^loud"}, "index": {"$ne": 33}}
    assert {chunk["_id"] for chunk in half_done.chunks.find(loud, {"_id": 1})} == set(owners)
    explained = half_done.run("show", "quiet 0", "--json")
    assert "Thank you." in explained.stdout
    assert half_done.claims.count_documents({}) == 0
    figures.add(f"{left} chunks were left, {claimed} of them under an old claim")
