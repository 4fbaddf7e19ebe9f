"""Languages and models have many names."""

import pytest

from stt_lib.domain.languages import code
from stt_lib.domain.model_names import is_same


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
