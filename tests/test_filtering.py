"""The noise filter: what nobody said goes, what somebody said stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.filtering import KNOWN_PHRASES, POLITENESS, Reason, judge, normal_form
from stt_lib.model import Segment


def segments(*texts: str) -> list[Segment]:
    return [Segment(start=i, end=i + 1, text=text) for i, text in enumerate(texts)]


def reasons(*texts: str) -> list[Reason]:
    return [dropped.reason for dropped in judge(segments(*texts)).dropped]


@pytest.mark.parametrize("text", ["", "  ", "...", " …", "-", "\n", "。", "?!"])
def test_blank_segments_are_dropped(text: str) -> None:
    assert reasons(text) == [Reason.BLANK]


@pytest.mark.parametrize(
    "text",
    [
        "*sad breathing*",
        "[music]",
        "[BLANK_AUDIO]",
        "(applause)",
        "♪",
        "♪♪",
        "♪ la la ♪",
        " [a] (b). ",
        "（拍手）",
        "【音楽】",
        "*cough* [noise]",
    ],
)
def test_sound_tags_are_dropped(text: str) -> None:
    assert reasons(text) == [Reason.SOUND_TAG]


@pytest.mark.parametrize(
    "text",
    [
        "Thanks for watching!",
        " THANK YOU FOR WATCHING. ",
        "Субтитры сделал DimaTorzok",
        "MBC 뉴스",
        "ご視聴ありがとうございました。",
        "I’m not sure what I’m doing here.",
        "Продолжение следует...",
    ],
)
def test_known_phrases_are_dropped_in_any_spelling(text: str) -> None:
    assert reasons(text, "We met at noon.") == [Reason.KNOWN_PHRASE]


def test_known_phrases_inside_a_sentence_stay() -> None:
    text = "He ended every film with thanks for watching and a bow."
    assert judge(segments(text)).kept == tuple(segments(text))


@pytest.mark.parametrize("text", ["Thank you.", "you", "Bye!", "Gracias.", "Dziękuję"])
def test_lonely_politeness_is_no_speech(text: str) -> None:
    assert reasons(text) == [Reason.LONELY_POLITENESS]
    assert judge(segments(text, "[music]", text)).kept == ()


def test_politeness_among_speech_stays() -> None:
    spoken = segments("Here is your change.", "Thank you.", "Bye.")
    assert judge(spoken).kept == tuple(spoken)


@pytest.mark.parametrize(
    "text", ["Yes.", "Okay.", "No.", "Mm-hmm.", "Sí.", "Oh my God!", "Two (2)."]
)
def test_real_short_answers_stay(text: str) -> None:
    assert judge(segments(text)).kept == tuple(segments(text))


def test_every_listed_phrase_can_match() -> None:
    for phrase in KNOWN_PHRASES | POLITENESS:
        assert phrase == normal_form(phrase) != ""


@given(st.lists(st.text(max_size=40), max_size=8))
def test_nothing_is_lost_or_invented(texts: list[str]) -> None:
    given_segments = segments(*texts)
    verdict = judge(given_segments)
    both = [*verdict.kept, *(dropped.segment for dropped in verdict.dropped)]
    assert sorted(both, key=lambda s: s.start) == given_segments


@pytest.mark.timeout(5)
@pytest.mark.parametrize("unit", ["[a]  ", "♪ ", "(", "* ", "[", "（"])
def test_long_garbage_does_not_hold_the_filter_up(unit: str) -> None:
    judge(segments(unit * 20_000 + "x"))
