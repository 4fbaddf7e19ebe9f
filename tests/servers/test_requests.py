"""What goes over the wire in each protocol."""

import io
import wave

import pytest

from stt_lib.audio import joining, ogg
from stt_lib.domain.models import Chunk
from stt_lib.errors import (
    AudioRejected,
    FailureKind,
    ServerMisconfigured,
)
from stt_lib.servers.protocols import Options, parse
from tests.local.sounds import encoded, tone
from tests.servers.asking import ALL, SEGMENT, Ask, answer
from tests.support.speech import (
    fake_chunk,
    garbled,
    length,
)
from tests.support.whisper import FakeWhisper, Reply
from tests.support.whisper import Request as Post

# -- which protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8081", ("transcribe", "http://host:8081")),
        ("https://host/base", ("transcribe", "https://host/base")),
        ("openai+http://host:8000/v1", ("openai", "http://host:8000/v1")),
        ("OpenAI+https://u:p@host/a+b", ("openai", "https://u:p@host/a+b")),
        ("whispercpp+http://[::1]:80", ("whispercpp", "http://[::1]:80")),
        ("asr+http://host?a=b+c", ("asr", "http://host?a=b+c")),
        ("http://host/a+b://c", ("transcribe", "http://host/a+b://c")),
    ],
)
def test_a_prefix_names_the_protocol(url: str, expected: tuple[str, str]) -> None:
    assert parse(url, "transcribe") == expected


def test_without_a_prefix_the_default_counts() -> None:
    assert parse("http://host", "asr") == ("asr", "http://host")


@pytest.mark.parametrize(("url", "default"), [("grpc+http://h", "asr"), ("http://h", "grpc")])
def test_an_unknown_protocol_is_answered_with_the_known_ones(url: str, default: str) -> None:
    with pytest.raises(ValueError, match="transcribe, openai, whispercpp, asr"):
        parse(url, default)


# -- requests ---------------------------------------------------------------------------------


def only(server: FakeWhisper) -> Post:
    [post] = server.requests
    return post


def test_ours_sends_every_chunk_as_a_file(
    ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]
) -> None:
    ask("transcribe", options=ALL)
    post = only(server)
    assert (post.path, post.query, post.fields) == ("/transcribe", {}, {})
    assert [(f.field, f.name, f.media, f.content) for f in post.files] == [
        ("files", f"chunk_{i}.opus", "audio/opus", chunk.data) for i, chunk in enumerate(chunks)
    ]
    assert post.headers["x-api-key"] == "k3y"
    assert "authorization" not in post.headers


def test_openai_sends_one_chained_file_and_fields(
    ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]
) -> None:
    ask("openai", answer(text="Hello", duration=33.8), options=ALL)
    post = only(server)
    assert (post.path, post.query) == ("/v1/audio/transcriptions", {})
    assert post.fields == {
        "model": "tiny.en",
        "model_name": "tiny.en",
        "response_format": "verbose_json",
        "without_timestamps": "false",
        "language": "en",
        "prompt": "Ahoy, ünder sail",
    }
    [file] = post.files
    assert (file.field, file.name, file.media) == ("file", "audio.ogg", "audio/ogg")
    assert file.content == b"".join(chunk.data for chunk in chunks)
    assert post.headers["authorization"] == "Bearer k3y"
    assert "x-api-key" not in post.headers


def test_openai_leaves_out_what_nobody_asked_for(ask: Ask, server: FakeWhisper) -> None:
    ask("openai", answer(text="", duration=33.8))
    post = only(server)
    assert post.fields == {
        "model": "whisper-1",
        "model_name": "whisper-1",
        "response_format": "verbose_json",
        "without_timestamps": "false",
    }
    assert "authorization" not in post.headers


def test_openai_models_without_times_are_not_asked_for_them(ask: Ask, server: FakeWhisper) -> None:
    ask("openai", answer(text="Hello"), options=Options(model="gpt-4o-transcribe"))
    assert only(server).fields["response_format"] == "json"
    assert only(server).files[0].name == "audio.wav"


def test_whispercpp_gets_wav(ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]) -> None:
    ask("whispercpp", options=ALL)
    post = only(server)
    assert (post.path, post.query) == ("/inference", {})
    assert post.fields == {
        "response_format": "verbose_json",
        "language": "en",
        "prompt": "Ahoy, ünder sail",
    }
    [file] = post.files
    assert (file.field, file.name, file.media) == ("file", "audio.wav", "audio/wav")
    with wave.open(io.BytesIO(file.content)) as sound:
        assert sound.getparams()[:3] == (1, 2, 16_000)
        assert sound.getnframes() / 16_000 == pytest.approx(length(chunks), abs=0.001)
    assert not {"x-api-key", "authorization"} & set(post.headers)


def test_asr_asks_in_the_query(ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]) -> None:
    ask("asr", answer(text="Hi", segments=[{**SEGMENT, "end": 20}]), options=ALL)
    post = only(server)
    assert (post.path, post.fields) == ("/asr", {})
    assert post.query == {
        "output": "json",
        "task": "transcribe",
        "language": "en",
        "initial_prompt": "Ahoy, ünder sail",
    }
    [file] = post.files
    assert (file.field, file.name) == ("audio_file", "audio.ogg")
    assert file.content == b"".join(chunk.data for chunk in chunks)


@pytest.mark.parametrize(
    ("protocol", "given", "asked"),
    [
        ("openai", "/v1", "/v1/audio/transcriptions"),
        ("openai", "/openai/v1", "/openai/v1/audio/transcriptions"),
        ("openai", "/base", "/base/v1/audio/transcriptions"),
        ("openai", "/v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("whispercpp", "/inference", "/inference"),
        ("asr", "/whisper", "/whisper/asr"),
        ("transcribe", "/base", "/base/transcribe"),
    ],
)
def test_an_address_may_be_given_with_its_path(
    ask: Ask, server: FakeWhisper, protocol: str, given: str, asked: str
) -> None:
    ask(protocol, answer(text="", segments=[], duration=33.0), path=given)
    assert only(server).path == asked


@pytest.mark.parametrize("protocol", ["openai", "whispercpp", "asr"])
def test_a_language_may_be_given_by_name(ask: Ask, server: FakeWhisper, protocol: str) -> None:
    ask(protocol, answer(text="", duration=33.0), options=Options(language="German"))
    post = only(server)
    assert {**post.fields, **post.query}["language"] == "de"


# -- one file out of many ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["openai", "asr"])
def test_a_single_chunk_that_is_not_audio_is_not_sent(
    ask: Ask, server: FakeWhisper, protocol: str
) -> None:
    with pytest.raises(AudioRejected, match="a chunk is not audio") as caught:
        ask(protocol, audio=(fake_chunk(0, b"garbage" * 100),))
    assert caught.value.kind is FailureKind.INVALID_AUDIO
    assert caught.value.server is None
    assert server.requests == []


def test_a_single_chunk_goes_as_it_is(ask: Ask, server: FakeWhisper) -> None:
    wav = encoded(tone(1), "wav", "pcm_s16le", rate=16_000)
    ask("openai", audio=(fake_chunk(0, wav, "wav"),))
    assert only(server).files[0].name == "audio.wav"
    assert only(server).files[0].content == wav


def test_other_formats_are_decoded_and_joined(ask: Ask, server: FakeWhisper) -> None:
    sounds = [
        fake_chunk(0, encoded(tone(2), "wav", "pcm_s16le", rate=16_000), "wav"),
        fake_chunk(1, encoded(tone(1), "flac", "flac", rate=16_000), "flac"),
        fake_chunk(2, encoded(tone(1, rate=48_000), "ogg", "libopus"), "opus"),
    ]
    ask("openai", audio=tuple(sounds))
    [file] = only(server).files
    with wave.open(io.BytesIO(file.content)) as sound:
        assert sound.getnframes() / 16_000 == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("protocol", ["openai", "whispercpp", "asr"])
def test_a_chunk_that_is_not_audio_is_found_before_anything_is_sent(
    ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...], protocol: str
) -> None:
    """A decoder would leave it out of a chained stream without a word."""
    with pytest.raises(AudioRejected, match="a chunk is not audio"):
        ask(protocol, audio=(chunks[0], garbled(chunks[1], b"garbage" * 100), chunks[2]))
    assert server.requests == []


def test_only_whole_files_of_one_kind_are_chained(chunks: tuple[Chunk, ...]) -> None:
    first, second = chunks[0].data, chunks[1].data
    stereo = encoded(tone(1, rate=48_000), "ogg", "libopus", layout="stereo")
    flac = encoded(tone(1, rate=48_000), "ogg", "flac")
    assert ogg.is_chainable([first, second])
    assert ogg.is_chainable([first + second, first])
    for odd in (second[:-1], b"", b"garbage", second + b"\0", b"\0" + second, stereo, flac):
        assert not ogg.is_chainable([first, odd])
    assert not ogg.is_chainable([])


def test_a_damaged_chunk_is_decoded_as_far_as_it_goes(
    ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]
) -> None:
    half = garbled(chunks[1], chunks[1].data[: len(chunks[1].data) // 2])
    ask("openai", audio=(chunks[0], half, chunks[2]))
    assert 22 * 32_000 < len(only(server).files[0].content) < 29 * 32_000


def test_without_pyav_a_person_is_told_what_to_install(
    ask: Ask,
    server: FakeWhisper,
    chunks: tuple[Chunk, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "can_decode", lambda: False)
    ask("openai", answer(text="", duration=33.0))  # chaining needs no decoder
    other_format = (fake_chunk(0, b"x", "wav"), fake_chunk(1, b"x", "wav"))
    for protocol, audio in (("whispercpp", chunks), ("asr", other_format)):
        with pytest.raises(ServerMisconfigured, match="pip install av numpy"):
            ask(protocol, audio=audio)
    assert len(server.requests) == 1


def test_without_pyav_a_bad_chunk_does_not_cost_the_others(
    ask: Ask, chunks: tuple[Chunk, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "can_decode", lambda: False)
    with pytest.raises(AudioRejected, match="not a whole Ogg Opus file"):
        ask("openai", audio=(chunks[0], garbled(chunks[1], b"garbage")))


def test_a_server_that_plays_only_the_first_file_gets_wav(
    ask: Ask, server: FakeWhisper, chunks: tuple[Chunk, ...]
) -> None:
    def first_file_only(post: Post) -> Reply:
        is_wav = post.files[0].content.startswith(b"RIFF")
        return answer(
            duration=33.76 if is_wav else 10.0,
            segments=[SEGMENT, {"start": 20, "end": 33, "text": "More."}] if is_wav else [SEGMENT],
        )

    server.script = first_file_only
    for _ in range(2):
        assert [s.text for s in ask("openai").segments] == [" Hello there.", "More."]
    # What was learned is remembered.
    assert [post.files[0].name for post in server.requests] == [
        "audio.ogg",
        "audio.wav",
        "audio.wav",
    ]


def test_silence_is_posted_once_to_a_server_that_is_known_to_play_everything(
    ask: Ask, server: FakeWhisper
) -> None:
    ask("asr", answer(segments=[{**SEGMENT, "end": 33}]))
    ask("asr", answer(segments=[{**SEGMENT, "text": " you", "end": 2}]))
    ask("asr", answer(text="", segments=[]))
    assert [post.files[0].name for post in server.requests] == ["audio.ogg"] * 3


@pytest.mark.parametrize("protocol", ["openai", "asr"])
@pytest.mark.parametrize(
    "silence", [answer(text=""), answer(segments=[]), answer(segments=[], duration=33.76)]
)
def test_silence_is_posted_once_to_a_server_that_is_not_known_yet(
    ask: Ask, server: FakeWhisper, protocol: str, silence: Reply
) -> None:
    for count in (1, 2):
        assert ask(protocol, silence).segments == ()
        assert len(server.requests) == count


def test_speech_in_the_first_chunk_only_is_no_proof_against_a_server(
    ask: Ask, server: FakeWhisper
) -> None:
    for _ in range(2):
        assert len(ask("asr", answer(segments=[SEGMENT])).segments) == 1
    names = [post.files[0].name for post in server.requests]
    assert names == ["audio.ogg", "audio.wav"] * 2
