"""What goes over the wire in each protocol, and what is made of every kind of answer."""

import io
import json
import wave
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stt_lib.audio import joining, ogg
from stt_lib.domain.languages import code
from stt_lib.domain.model_names import is_same
from stt_lib.domain.models import Answer, Chunk, Segment, Word
from stt_lib.errors import (
    AttemptError,
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServerMisconfigured,
    Suspect,
)
from stt_lib.servers import protocols
from stt_lib.servers.protocols import IGNORE_MODEL, NAMES, Options, Request, parse, single_file
from stt_lib.servers.transport import Channel, http_channels
from tests.local.running import Server
from tests.local.sounds import SAMPLES, encoded, tone
from tests.support.speech import (
    error_rate,
    fake_chunk,
    garbled,
    heard,
    is_in_order,
    length,
    reference,
    spoken_chunks,
)
from tests.support.whisper import FakeWhisper, Reply, running
from tests.support.whisper import Request as Post
from tests.support.world import World

SECRET = "the text of somebody"
SEGMENT = {"start": 0, "end": 7.5, "text": " Hello there."}

NOTHING_ASKED = Options()
ALL = Options(api_key="k3y", model="tiny.en", language="en", prompt="Ahoy, ünder sail")


def answer(status: int = 200, **body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def text(status: int, body: str, **headers: str) -> Reply:
    return Reply(status, body.encode(), {name.replace("_", "-"): v for name, v in headers.items()})


@pytest.fixture
def server() -> Iterator[FakeWhisper]:
    with running(lambda _: answer(language="en", segments=[SEGMENT])) as fake:
        yield fake


@pytest.fixture
def channel() -> Iterator[Channel]:
    opened = http_channels()()
    yield opened
    opened.close()


@pytest.fixture
def chunks() -> tuple[Chunk, ...]:
    return spoken_chunks("library")


@pytest.fixture
def ask(
    server: FakeWhisper, channel: Channel, chunks: tuple[Chunk, ...]
) -> Iterator[Callable[..., Answer]]:
    def ask(
        protocol: str,
        *replies: Reply,
        options: Options = NOTHING_ASKED,
        audio: tuple[Chunk, ...] = chunks,
        path: str = "",
    ) -> Answer:
        """Post to the server, which gives these answers in turn, the last one for ever."""
        if replies:
            queue = list(replies)
            server.script = lambda _: queue.pop(0) if len(queue) > 1 else queue[0]
        request = Request(channel, server.url + path, options, server="http://stt", seconds=20)
        return protocols.post(protocol, request, audio)

    yield ask
    single_file._plays_all.clear()


Ask = Callable[..., Answer]


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
        with pytest.raises(ServerMisconfigured, match=r"pip install -r requirements-local\.txt"):
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


def test_speech_in_the_first_chunk_only_is_no_proof_against_a_server(
    ask: Ask, server: FakeWhisper
) -> None:
    for _ in range(2):
        assert len(ask("asr", answer(segments=[SEGMENT])).segments) == 1
    names = [post.files[0].name for post in server.requests]
    assert names == ["audio.ogg", "audio.wav"] * 2


# -- answers ----------------------------------------------------------------------------------

SCORED = {"no_speech_prob": 0.1, "avg_logprob": -0.2, "compression_ratio": 1.5}
SPEACHES_SEGMENT = {"id": 1, "seek": 0, "tokens": [1], "temperature": 0.0, "words": None}

ANSWERS: dict[str, tuple[str, dict[str, Any], list[Segment], str | None]] = {
    "faster-whisper-server": (
        "openai",
        {
            "task": "transcribe",
            "language": "en",
            "duration": 33.76375,
            "text": " Hello there. More.",
            "segments": [
                {**SPEACHES_SEGMENT, "start": 0.0, "end": 7.5, "text": " Hello there.", **SCORED},
                {**SPEACHES_SEGMENT, "start": 30, "end": 304.0, "text": " More.", **SCORED},
            ],
        },
        [
            Segment(0.0, 7.5, " Hello there.", 0.1, -0.2, 1.5),
            Segment(30.0, 33.76375, " More.", 0.1, -0.2, 1.5),
        ],
        "en",
    ),
    "open-asr-server, whose scores are constants": (
        "openai",
        {
            "language": "unknown",
            "duration": 33.0,
            "text": "Hello",
            "words": None,
            "segments": [
                {
                    "id": 0,
                    "start": 0.0,
                    "end": 33.0,
                    "text": "Hello",
                    "avg_logprob": 0.0,
                    "compression_ratio": 1.0,
                    "no_speech_prob": 0.0,
                }
            ],
        },
        [Segment(0.0, 33.0, "Hello")],
        None,
    ),
    "the cloud, with times as text": (
        "openai",
        {"task": "transcribe", "language": "english", "duration": "33.759", "text": "Hello."},
        [Segment(0.0, 33.76375, "Hello.")],
        "en",
    ),
    "text only": ("openai", {"text": "Hello."}, [Segment(0.0, 33.76375, "Hello.")], None),
    "text and no segments": (
        "openai",
        {"text": "Hello.", "segments": []},
        [Segment(0.0, 33.76375, "Hello.")],
        None,
    ),
    "nothing heard, null": ("openai", {"text": "", "segments": None, "duration": 33.8}, [], None),
    "nothing heard, absent": ("openai", {"text": " ", "language": None}, [], None),
    "nothing heard, empty": ("asr", {"text": "", "segments": [], "language": "de"}, [], "de"),
    "whisper.cpp": (
        "whispercpp",
        {
            "task": "transcribe",
            "language": "english",
            "duration": 33.763,
            "text": " Hello\n there.\n",
            "segments": [
                {
                    "id": 0,
                    "text": " Hello\n there.\n",
                    "start": 0.0,
                    "end": 7.5,
                    "tokens": [1, 2],
                    "temperature": 0.0,
                    "avg_logprob": -0.2,
                    "words": [
                        {"word": " Hello", "start": 0.0, "end": 1.0, "probability": 0.9},
                        {"word": " there", "start": 1.0, "end": 2.0, "probability": 0.8},
                        {"word": ".", "start": 2.0, "end": 2.0, "probability": 0.7},
                    ],
                    "no_speech_prob": 0.1,
                }
            ],
        },
        [
            Segment(
                *(0.0, 7.5, "Hello there.", 0.1, -0.2),
                words=(Word(0.0, 1.0, " Hello", 0.9), Word(1.0, 2.0, " there.", 0.8)),
            )
        ],
        "en",
    ),
    "whisper-asr-webservice": (
        "asr",
        {
            "text": " Hello",
            "segments": [{**SPEACHES_SEGMENT, "start": 0.0, "end": 20, "text": " Hello", **SCORED}],
            "language": "en",
        },
        [Segment(0.0, 20.0, " Hello", 0.1, -0.2, 1.5)],
        "en",
    ),
    "whisper-asr-webservice, segments as rows": (
        "asr",
        {
            "language": "haitian creole",
            "segments": [[1, 0, 0.0, 20.0, " Hello", [1], 0.0, -0.2, 1.5, 0.1, None]],
            "text": " Hello",
        },
        [Segment(0.0, 20.0, " Hello", 0.1, -0.2, 1.5)],
        "ht",
    ),
    "odd but usable": (
        "openai",
        {
            "language": "tlh",
            "segments": [
                {"start": -1, "end": 2, "text": "a", "no_speech_prob": None},
                {"start": 5, "end": 4, "text": "b", "compression_ratio": float("inf")},
                {"start": 99, "end": 100, "text": "c", "avg_logprob": float("nan"), "extra": {}},
            ],
        },
        [
            Segment(0.0, 2.0, "a"),
            Segment(5.0, 5.0, "b"),
            Segment(33.76375, 33.76375, "c"),
        ],
        "tlh",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_all_kinds_are_taken(ask: Ask, kind: str) -> None:
    protocol, body, segments, language = ANSWERS[kind]
    got = ask(protocol, answer(**body))
    assert list(got.segments) == segments
    assert got.language == language
    assert got.model is None
    assert got.server == "http://stt"
    assert got.top_language_probs is None


BESIDE = [{"word": text, "start": i, "end": i + 0.5} for i, text in enumerate(["a", "b", "c"])]


@pytest.mark.parametrize(
    ("texts", "beside", "expected"),
    [
        (("A, b.", "C."), BESIDE, (("a", "b"), ("c",))),  # by their number
        (("A", "b-b C."), [*BESIDE, {**BESIDE[2], "end": 9}], (("a", "b"), ("c", "c"))),
        (("A b.", "C."), [*BESIDE[:2], {"word": "c"}], ((), ())),
        (("A b.", "C."), "nonsense", ((), ())),
        (("A b.", "C."), [[0, 1, "a", 0.5], [1, 2, "b", 1], [2, 3, "c", 1]], (("a", "b"), ("c",))),
    ],
)
def test_words_that_come_beside_the_segments_are_shared_out(
    ask: Ask, texts: tuple[str, ...], beside: Any, expected: tuple[tuple[str, ...], ...]
) -> None:
    segments = [{"start": 2 * i, "end": 2 * i + 1, "text": t} for i, t in enumerate(texts)]
    got = ask("openai", answer(text=" ".join(texts), segments=segments, words=beside))
    assert tuple(tuple(word.text for word in s.words) for s in got.segments) == expected


def test_word_times_lie_within_the_audio_and_do_not_run_backwards(ask: Ask) -> None:
    times = [(-1, 2), (1, 0.5), (0, 1), (40, 50)]
    words = [{"word": f"w{i}", "start": a, "end": b} for i, (a, b) in enumerate(times)]
    segment = {"start": 0, "end": 30, "text": "w0 w1 w2 w3", "words": words}
    [got] = ask("asr", answer(segments=[segment])).segments
    assert [(word.start, word.end) for word in got.words] == [
        (0.0, 2.0),
        (1.0, 1.0),
        (1.0, 1.0),
        (33.76375, 33.76375),
    ]


def test_ours_cuts_times_at_the_end_of_the_audio(ask: Ask) -> None:
    got = ask("transcribe", answer(segments=[{"start": 30, "end": 304.0, "text": "x"}]))
    assert got.segments == (Segment(30.0, 33.76375, "x"),)


def test_times_stay_where_the_length_of_the_audio_is_unknown(ask: Ask) -> None:
    odd = (fake_chunk(0, b"not to be measured"),)
    got = ask("transcribe", answer(segments=[{"start": 3, "end": 304, "text": "x"}]), audio=odd)
    assert got.segments == (Segment(3.0, 304.0, "x"),)


def test_probabilities_of_languages_come_from_who_tells_them(ask: Ask) -> None:
    probs = {"de": 0.01, "en": 0.9, "nl": 0.02, "fr": 0.03, "es": 0.015, "pt": 0.002}
    got = ask("whispercpp", answer(text="", language_probabilities=probs))
    assert got.top_language_probs is not None
    assert got.top_language_probs[0] == ("en", 0.9)
    assert len(got.top_language_probs) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("English", "en"),
        ("en", "en"),
        ("EN", "en"),
        ("haitian creole", "ht"),
        ("Burmese", "my"),
        ("Mandarin", "zh"),
        ("xx", "xx"),
        ("unknown", None),
        ("", None),
        (None, None),
    ],
)
def test_names_of_languages_become_codes_where_that_is_certain(
    name: str | None, expected: str | None
) -> None:
    assert code(name) == expected


SAME = [
    ("tiny.en", "tiny.en"),
    ("tiny.en", "Systran/faster-whisper-tiny.en"),
    ("tiny.en", "whisper-tiny.en"),
    ("tiny.en", "/models/ggml-tiny.en.bin"),
    ("tiny.en", "C:\\models\\faster-whisper-tiny.en\\"),
    ("tiny.en", "/cache/models--Systran--faster-whisper-tiny.en/snapshots/0d3d1"),
    ("openai/whisper-large-v3", "large-v3"),
    ("large-v3", "Systran/faster-whisper-large-v3-int8"),
    ("large-v3", "ggml-large-v3-q5_0.bin"),
    ("large", "large-v3"),
    ("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    ("distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
    ("gpt-4o-transcribe", "gpt-4o-transcribe-2025-03-20"),
    ("whisper-1", "large-v3"),
    ("large-v3", "whisper-1"),
]
OTHERS = [
    ("tiny.en", "tiny"),
    ("large-v3", "large-v2"),
    ("large-v3", "Systran/faster-whisper-large-v3-turbo"),
    ("large-v3", "distil-whisper/distil-large-v3"),
    ("gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_model_has_many_spellings(one: str, other: str) -> None:
    assert is_same(one, other)
    assert is_same(other, one)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_models_that_are_called_alike_are_not_the_same(one: str, other: str) -> None:
    assert not is_same(one, other)


@pytest.mark.parametrize("protocol", ["openai", "transcribe"])
def test_another_model_than_the_one_asked_for_is_the_servers_error(ask: Ask, protocol: str) -> None:
    reply = answer(text="", segments=[], duration=33.0, model="Systran/faster-whisper-tiny")
    with pytest.raises(ServerMisconfigured) as caught:
        ask(protocol, reply, options=Options(model="large-v3"))
    assert caught.value.kind == FailureKind.WRONG_SERVER
    assert "uses the model Systran/faster-whisper-tiny, not large-v3" in str(caught.value)
    assert "omit --model" in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "asked", "told", "expected"),
    [
        *(
            (p, "tiny.en", "Systran/faster-whisper-tiny.en", "Systran/faster-whisper-tiny.en")
            for p in NAMES
        ),
        *((p, None, "whatever", "whatever") for p in NAMES),
        *((p, None, f"{SECRET} is not a name", None) for p in NAMES),
        *((p, None, 7, None) for p in NAMES),
        *((p, None, None, None) for p in NAMES),
        ("openai", "tiny.en", None, "tiny.en"),
        ("transcribe", "tiny.en", None, "tiny.en"),
        *((p, "tiny.en", None, None) for p in NAMES if p in IGNORE_MODEL),
    ],
)
def test_the_model_is_what_the_server_reports_or_what_it_was_asked_for(
    ask: Ask, protocol: str, asked: str | None, told: Any, expected: str | None
) -> None:
    reply = answer(text="", segments=[], duration=33.0, model=told)
    assert ask(protocol, reply, options=Options(model=asked)).model == expected


PARAMETERS = {
    "transcribe": {},
    "openai": {"model": "tiny.en", "language": "en", "prompt": ALL.prompt},
    "whispercpp": {"language": "en", "prompt": ALL.prompt},
    "asr": {"language": "en", "prompt": ALL.prompt},
}


@pytest.mark.parametrize("protocol", PARAMETERS)
def test_an_answer_says_how_it_came_about(ask: Ask, protocol: str) -> None:
    """No parameter that the server never got, and no key."""
    got = ask(protocol, options=ALL)
    assert got.protocol == protocol
    assert got.parameters == PARAMETERS[protocol]
    assert ask(protocol).parameters == ({"model": "whisper-1"} if protocol == "openai" else {})


# -- wrong answers ----------------------------------------------------------------------------

WORD = {"word": SECRET, "start": 0, "end": 1}

BAD = {
    "not JSON": text(200, SECRET),
    "a page": text(200, f"<html>{SECRET}</html>", Content_Type="text/html"),
    "nothing": text(200, ""),
    "a list": text(200, json.dumps([SECRET])),
    "neither text nor segments": answer(task=SECRET),
    "an error with status 200": answer(error=SECRET),
    "text is a list": answer(text=[SECRET]),
    "segments is text": answer(segments=SECRET),
    "a segment is text": answer(segments=[SECRET]),
    "a short row": answer(segments=[[1, 0, 0.0]]),
    "a time is text": answer(segments=[{**SEGMENT, "text": SECRET, "end": "7.5"}]),
    "a time is NaN": answer(segments=[{**SEGMENT, "text": SECRET, "end": float("nan")}]),
    "a time is missing": answer(segments=[{"text": SECRET}]),
    "a score is text": answer(segments=[{**SEGMENT, "text": SECRET, "avg_logprob": "high"}]),
    "language is a number": answer(text=SECRET, language=7),
    "deeply nested": text(200, '{"text": ' + "[" * 100_000),
    "a time of 400 digits": answer(segments=[{**SEGMENT, "text": SECRET, "end": 10**400}]),
    "a time beyond 64 bits": answer(segments=[{**SEGMENT, "text": SECRET, "start": 2**70}]),
    "a time in the next century": answer(segments=[{**SEGMENT, "text": SECRET, "end": 4e9}]),
    "words without text": answer(text="", segments=None, words=[WORD]),
    "a language that is a text": answer(text=SECRET, segments=[], language=20 * SECRET),
    "half a surrogate pair": text(200, '{"segments": [{"start": 0, "end": 1, "text": "\\ud800"}]}'),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("protocol", NAMES)
def test_a_wrong_answer_is_an_error_that_quotes_nothing(ask: Ask, protocol: str, name: str) -> None:
    with pytest.raises(Suspect) as caught:
        ask(protocol, BAD[name])
    assert caught.value.kind is FailureKind.INVALID_ANSWER
    assert str(caught.value).startswith("the answer of http://stt ")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "more",
    [
        {"language_probabilities": {SECRET: "high"}},
        {"language_probabilities": {SECRET: 10**400}},
        {"segments": [{**SEGMENT, SECRET: 1, "end": SECRET}]},
    ],
)
def test_keys_of_the_server_are_not_quoted(ask: Ask, more: dict[str, Any]) -> None:
    with pytest.raises(Suspect) as caught:
        ask("openai", answer(**{"text": "", **more}))
    assert SECRET not in str(caught.value)


def test_numbers_that_make_no_sense_cost_scores_and_words_but_not_the_text(ask: Ask) -> None:
    huge = 10**400
    segment = {**SEGMENT, "no_speech_prob": huge, "avg_logprob": 2**70, "words": [WORD]}
    [got] = ask("openai", answer(segments=[segment], duration=huge)).segments
    assert (got.text, got.no_speech_prob, got.avg_logprob) == (SEGMENT["text"], None, None)
    assert len(got.words) == 1
    segment["words"] = [{**WORD, "end": huge}]
    [got] = ask("openai", answer(segments=[segment])).segments
    assert got.words == ()


def test_a_segment_that_ends_before_it_starts_keeps_its_text(ask: Ask) -> None:
    [got] = ask("transcribe", answer(segments=[{"start": 20, "end": 5, "text": "x"}])).segments
    assert got == Segment(20.0, 20.0, "x")


def test_the_answer_of_another_protocol_is_recognised(ask: Ask) -> None:
    with pytest.raises(Suspect, match=r"looks like openai: write openai\+http://stt or set --prot"):
        ask("transcribe", answer(text=SECRET))


NOT_FOUND = answer(404, detail="Not Found")

WRONG: list[tuple[str, Reply, FailureKind, str]] = [
    ("transcribe", NOT_FOUND, FailureKind.WRONG_SERVER, r"try openai or asr, written openai\+http"),
    ("openai", NOT_FOUND, FailureKind.WRONG_SERVER, "try asr or transcribe"),
    (
        "openai",
        text(404, f"File Not Found ({SECRET})", Server="whisper.cpp"),
        FailureKind.WRONG_SERVER,
        r"looks like whispercpp: write whispercpp\+http",
    ),
    (
        "asr",
        answer(404, error={"message": SECRET, "type": "invalid_request_error"}),
        FailureKind.WRONG_SERVER,
        r"looks like openai: write openai\+http",
    ),
    (
        "whispercpp",
        text(404, f"<html>{SECRET}</html>", Content_Type="text/html"),
        FailureKind.WRONG_SERVER,
        "web page: is STT_SERVER_URL the right address",
    ),
    ("asr", text(405, SECRET), FailureKind.WRONG_SERVER, "Whisper server with POST /asr"),
    ("openai", text(307, "", Location="/x"), FailureKind.WRONG_SERVER, "transcribe, openai, wh"),
    (
        "openai",
        answer(422, detail=[{"type": "missing", "loc": ["body", "files"], "msg": SECRET}]),
        FailureKind.WRONG_SERVER,
        r"looks like transcribe: write transcribe\+http",
    ),
    (
        "transcribe",
        answer(422, detail=[{"type": "missing", "loc": ["body", "file"]}]),
        FailureKind.WRONG_SERVER,
        "looks like openai",
    ),
    (
        "openai",
        answer(404, detail=f"Model '{SECRET}' is not installed locally."),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    (
        "openai",
        answer(400, detail={"error": {"message": f"unknown model: {SECRET}"}}),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    (
        "openai",
        answer(404, error={"message": "The model `x` does not exist", "code": "model_not_found"}),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    ("openai", answer(403, detail="Model not allowed"), FailureKind.WRONG_SERVER, "--model"),
    ("openai", text(401, SECRET), FailureKind.UNAUTHORIZED, "set STT_API_KEY"),
    (
        "openai",
        answer(400, error={"message": f"Language '{SECRET}' is not supported"}),
        FailureKind.WRONG_SERVER,
        "change --language",
    ),
    (
        "asr",
        answer(422, detail=[{"type": "enum", "loc": ["query", "language"], "msg": SECRET}]),
        FailureKind.WRONG_SERVER,
        "change --language",
    ),
    (
        "transcribe",
        text(400, "<h1>400 Bad Request</h1>The plain HTTP request was sent to HTTPS port"),
        FailureKind.WRONG_SERVER,
        "expects https: write https://stt",
    ),
    (
        "transcribe",
        text(400, "Client sent an HTTP request to an HTTPS server."),
        FailureKind.WRONG_SERVER,
        "expects https: write https://stt",
    ),
    ("openai", answer(403, detail="Invalid API key"), FailureKind.UNAUTHORIZED, "set STT_API_KEY"),
]


@pytest.mark.parametrize(("protocol", "reply", "kind", "wanted"), WRONG)
def test_a_server_set_up_otherwise_is_named_with_what_to_try(
    ask: Ask, protocol: str, reply: Reply, kind: FailureKind, wanted: str
) -> None:
    with pytest.raises(ServerMisconfigured, match=wanted) as caught:
        ask(protocol, reply)
    assert caught.value.kind is kind
    assert str(caught.value).startswith(f"http://stt answered {reply.status}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(
    ("reply", "error", "kind"),
    [
        (text(429, ""), ServerBusy, FailureKind.BUSY),
        (text(503, SECRET), ServerBusy, FailureKind.BUSY),
        (answer(500, error="Server is busy"), ServerBusy, FailureKind.BUSY),
        (text(502, "BUSY, come back later"), ServerBusy, FailureKind.BUSY),
        (text(500, "busy " * 2000), Suspect, FailureKind.SERVER_ERROR),
        (text(400, "we are busy"), AudioRejected, FailureKind.INVALID_AUDIO),
        (text(500, "Internal Server Error"), Suspect, FailureKind.SERVER_ERROR),
        (text(500, f"<html>{SECRET}</html>"), Suspect, FailureKind.SERVER_ERROR),
        (answer(415, detail=f"Failed to decode {SECRET}"), AudioRejected, "invalid_audio"),
        (answer(400, error="failed to read audio data"), AudioRejected, "invalid_audio"),
        (answer(422, detail="cannot decode"), AudioRejected, "invalid_audio"),
        (text(413, SECRET), AudioRejected, FailureKind.REJECTED),
    ],
)
def test_errors_are_told_apart_by_status_and_words(
    ask: Ask, protocol: str, reply: Reply, error: type[AttemptError], kind: str
) -> None:
    with pytest.raises(error) as caught:
        ask(protocol, reply)
    assert type(caught.value) is error
    assert caught.value.kind == kind
    assert SECRET not in str(caught.value)


# -- with the real model ----------------------------------------------------------------------


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
