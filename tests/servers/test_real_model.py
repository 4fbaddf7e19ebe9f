"""The protocols, spoken with a real Whisper model."""

from collections.abc import Iterator
from typing import Any

import pytest

from stt_lib.domain.models import Answer, Chunk, Segment
from stt_lib.errors import (
    ServerMisconfigured,
)
from stt_lib.servers import protocols
from stt_lib.servers.protocols import Options, Request
from stt_lib.servers.transport import Channel
from tests.local.running import Server
from tests.local.sounds import SAMPLES
from tests.support.speech import (
    error_rate,
    fake_chunk,
    heard,
    is_in_order,
    length,
    reference,
    spoken_chunks,
)
from tests.support.world import World


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_file = tmp_path_factory.mktemp("whisper") / "whisper.log"
    running = Server(log_file, api_key="sesame", parallel=1, queue=4)
    yield running
    running.stop()


def listen(
    real: Server, channel: Channel, protocol: str, chunks: tuple[Chunk, ...], **more: Any
) -> Answer:
    options = Options(api_key="sesame", **more)
    return protocols.post(protocol, Request(channel, real.url, options, real.url, 100), chunks)


@pytest.mark.parametrize("name", ["library", "phone"])
def test_both_protocols_of_our_server_hear_the_same(
    real: Server, channel: Channel, name: str
) -> None:
    chunks = spoken_chunks(name)
    assert len(chunks) >= 4
    ours = listen(real, channel, "transcribe", chunks)
    theirs = listen(real, channel, "openai", chunks, model="tiny.en", language="english")
    assert error_rate(heard(ours), heard(theirs)) < 0.03
    assert error_rate(reference(name), heard(theirs)) < 0.1
    assert theirs.model == "tiny.en"
    assert theirs.language == "en"
    assert theirs.top_language_probs == ours.top_language_probs
    assert is_in_order(theirs)
    assert theirs.segments[-1].end <= length(chunks)
    assert all(segment.avg_logprob is not None for segment in theirs.segments)


def test_times_are_those_of_the_uncut_recording(real: Server, channel: Channel) -> None:
    chunks = spoken_chunks("library")
    recording = fake_chunk(0, (SAMPLES / "library.opus").read_bytes())
    uncut = listen(real, channel, "transcribe", (recording,))
    cut = listen(real, channel, "openai", chunks)
    ends = {words_of(segment): segment.end for segment in uncut.segments}
    both = [s for s in cut.segments if words_of(s) in ends]
    assert len(both) >= len(uncut.segments) // 2
    for segment in both:
        assert segment.end == pytest.approx(ends[words_of(segment)], abs=0.5)
    # Beyond all borders between chunks an error of each would have added up.
    assert cut.segments[-1].end == pytest.approx(uncut.segments[-1].end, abs=0.5)


def words_of(segment: Segment) -> str:
    return heard(Answer((segment,)))[-12:]


def test_the_key_and_a_wrong_model_are_errors_with_a_hint(real: Server, channel: Channel) -> None:
    chunks = spoken_chunks("library")[:1]
    with pytest.raises(ServerMisconfigured, match="--model"):
        listen(real, channel, "openai", chunks, model="large-v3")
    with pytest.raises(ServerMisconfigured, match="STT_API_KEY"):
        protocols.post("openai", Request(channel, real.url, Options(), "s", 20), chunks)
    with pytest.raises(ServerMisconfigured, match="try openai or transcribe"):
        listen(real, channel, "asr", chunks)


def test_the_worker_and_one_bad_chunk_among_many(world: World, real: Server) -> None:
    """From MongoDB to the transcript, the bad chunk found before anything is sent."""
    for spoken in spoken_chunks("phone"):
        data = b"garbage" * 500 if spoken.index == 3 else spoken.data
        world.record([spoken.index], original_id="phone", data=data)
    world.server_url = f"openai+{real.url}"
    done = world.run("--language", "en", "--model", "tiny.en", env={"STT_API_KEY": "sesame"})
    assert done.returncode == 1, done.stderr
    [bad] = world.pending()
    assert bad["index"] == 3
    assert bad["stt"]["error"]["kind"] == "invalid_audio"
    before, after = world.transcriptions.find(sort=[("start", 1)])
    assert (len(before["chunk_ids"]), len(after["chunk_ids"])) == (3, 3)
    text = " ".join(s["text"] for d in (before, after) for s in d["segments"])
    assert "stranger" in text
    assert "dinner" in text
    assert {d["model"] for d in (before, after)} == {"tiny.en"}
    assert "dinner" not in world.log


def test_no_text_of_the_log(real: Server) -> None:
    assert "library" not in real.log
