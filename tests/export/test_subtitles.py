"""Subtitles: the rules of reading, and what other people's parsers make of our files."""

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import srt
import webvtt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stt_lib.domain.text import one_line
from stt_lib.domain.utterances import SpokenWord, Stretch, Utterance
from stt_lib.export.scope import Scope, readable
from stt_lib.export.subtitles import Cue, cues, escaped, plain, write_srt, write_vtt
from stt_lib.export.text import fold, width

ZERO = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
ONE = Scope("r", None, None, ZERO)
ALL = Scope(None, None, None, ZERO)


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def say(
    text: str, start: float, end: float, recording: str = "r", words: tuple[SpokenWord, ...] = ()
) -> Utterance:
    return Utterance(recording, "t", at(start), at(end), text, words=words)


def stretches(*said: Utterance) -> Iterator[Stretch]:
    """Each in a transcript of its own, by their start."""
    ordered = sorted(said, key=lambda u: u.start)
    return readable(Stretch(utterance.start, (utterance,)) for utterance in ordered)


def laid_out(*said: Utterance, scope: Scope = ONE) -> list[Cue]:
    return list(cues(stretches(*said), scope))


def shown(*said: Utterance) -> list[str]:
    return ["\n".join(cue.lines) for cue in laid_out(*said)]


LONG = (
    "Thank you all for coming to the library this evening. I have good news and bad news, and "
    "the bad news is that the roof still leaks, right above the cookbooks."
)


# -- which words stand together -----------------------------------------------------------------


def test_a_long_segment_is_broken_where_its_sentences_and_clauses_end() -> None:
    assert shown(say(LONG, 0, 12)) == [
        "Thank you all for coming\nto the library this evening.",
        "I have good news and bad news, and the\nbad news is that the roof still leaks,",
        "right above the cookbooks.",
    ]


def test_short_segments_without_a_pause_share_a_subtitle() -> None:
    said = [say("Yes.", 0, 0.4), say("Of course.", 0.4, 0.9), say("Come in.", 0.9, 1.6)]
    assert shown(*said) == ["Yes. Of course. Come in."]


def test_what_is_said_after_a_pause_stands_alone() -> None:
    [first, second] = laid_out(say("Yes.", 0, 0.4), say("Of course.", 30, 31))
    assert (first.start, first.end) == (0, 1000)
    assert second.start == 30_000


def test_two_lines_are_of_like_length_and_do_not_part_an_article_from_its_noun() -> None:
    [text] = shown(say("The stories about the sea are now on the shelf of the captain", 0, 5))
    assert text == "The stories about the sea are\nnow on the shelf of the captain"


def test_the_times_of_words_are_used_where_they_are_known() -> None:
    words = tuple(
        SpokenWord(at(s), at(s + 0.4), w) for s, w in [(0, " Wait,"), (9, " it"), (9.5, " is.")]
    )
    late, early = (laid_out(say("Wait, it is.", 0, 10, words=w)) for w in (words, ()))
    assert [cue.start for cue in late] == [0, 9000]
    assert [cue.start for cue in early] == [0]


def test_words_that_do_not_make_up_the_text_are_not_trusted() -> None:
    words = (SpokenWord(at(5), at(6), "other"),)
    assert [cue.start for cue in laid_out(say("Some text.", 0, 2, words=words))] == [0]


def test_a_word_on_a_segment_of_half_a_minute_is_shown_for_seven_seconds_at_most() -> None:
    [cue] = laid_out(say("Okay.", 0, 30))
    assert cue.end - cue.start <= 7000


def test_languages_without_spaces_are_broken_between_characters_but_not_before_a_mark() -> None:
    text = (
        "今日は図書館に来ていただいて、本当にありがとうございます。"
        "良い知らせと悪い知らせがあります。"
    )
    for cue in laid_out(say(text, 0, 9)):
        for line in cue.lines:
            assert len(line) <= 16
            assert line[0] not in "、。っゃゅょー"
    assert "".join("".join(cue.lines) for cue in laid_out(say(text, 0, 9))) == text


def test_chinese_segments_follow_each_other_without_a_space() -> None:
    assert shown(say("你好。", 0, 1), say("请坐。", 1, 2)) == ["你好。请坐。"]


def test_an_emoji_or_an_accented_letter_is_never_cut_in_two() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    for cue in laid_out(say(family * 30 + "q\u0301" * 50, 0, 30)):
        for line in cue.lines:
            assert line[0] != "\u200d"
            assert line[-1] != "\u200d"
            assert unicodedata.category(line[0]) != "Mn"


def test_right_to_left_text_keeps_its_order() -> None:
    text = "مرحبا بكم في المكتبة، لدينا أخبار جيدة وأخرى سيئة هذا المساء."
    assert " ".join(" ".join(cue.lines) for cue in laid_out(say(text, 0, 5))) == text


# -- several recordings, and times ------------------------------------------------------------


def test_of_several_recordings_each_that_begins_to_speak_is_named() -> None:
    phone, radio = "65f000000000000000abcdef", "radio"
    said = [
        say("Hello.", 0, 1, phone),
        say("Are you there?", 5, 6, phone),
        say("The news.", 20, 21, radio),
        say("Yes.", 40, 41, phone),
    ]
    assert [" ".join(cue.lines) for cue in laid_out(*said, scope=ALL)] == [
        "[…abcdef] Hello.",
        "Are you there?",
        "[radio] The news.",
        "[…abcdef] Yes.",
    ]


def test_recordings_at_the_same_time_may_overlap_and_come_by_their_start() -> None:
    said = [say("One two three four five.", s, s + 3, r) for s in range(0, 60, 3) for r in "ab"]
    found = laid_out(*said, scope=ALL)
    assert [cue.start for cue in found] == sorted(cue.start for cue in found)
    assert len(found) >= 20
    assert found[-1].start < 60_000, "one does not delay the other"


def test_hours_go_on_past_midnight_and_past_a_day() -> None:
    files = [
        "".join(write(stretches(say("Late.", s, s + 1)), ONE))
        for write in (write_srt, write_vtt)
        for s in (86399.5, 3600 * 120)
    ]
    for file, time in zip(
        files,
        ["23:59:59,500 --> 24:00:00,500", "120:00:00,000", "23:59:59.500", "120:00:00.000"],
        strict=True,
    ):
        assert time in file


def test_looping_text_is_not_lost_but_late() -> None:
    """A Whisper that loops says a minute's words within a tenth of a second."""
    found = laid_out(say("and then " * 90, 0, 0.1), say("Good night.", 60, 61))
    assert sum(" ".join(cue.lines).count("and then") for cue in found) == 90
    assert_readable(found)
    assert found[-1].start == 60_000


# -- whatever is said -------------------------------------------------------------------------

NASTY = [
    "-->",
    "00:00:01,000 --> 00:00:02,000",
    "<i>",
    "</v>",
    "&amp;",
    "&",
    "{\\an8}",
    "1",
    "WEBVTT",
]
NASTY += [
    "NOTE",
    "\n\n2\n",
    "\u2028",
    "\x00",
    "\x1b[2J",
    "\ufeff",
    "\u202e",
    "日本語",
    "שלום",
    "e\u0301",
]
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=60)), max_size=8).map(" ".join)
SEGMENTS = st.lists(
    st.tuples(
        TEXTS,
        st.floats(0, 120),
        st.floats(0, 40),
        st.sampled_from(["r", "other", "a --> b\n\nc"]),
    ),
    max_size=12,
)


def assert_readable(found: Sequence[Cue]) -> None:
    for cue in found:
        assert 1000 <= cue.end - cue.start <= 7000
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < len(line) <= 42 and width(line) <= 42 for line in cue.lines)
    assert all(first.end <= second.start for first, second in pairwise(found))


@settings(max_examples=120, deadline=None)
@given(SEGMENTS)
@example([(LONG * 3, 0.0, 0.5, "r"), (LONG, 0.1, 40.0, "r")])
def test_whatever_is_said_can_be_read_and_nothing_is_lost(
    segments: list[tuple[str, float, float, str]],
) -> None:
    said = [say(text, start, start + length) for text, start, length, _ in segments]
    found = laid_out(*said)
    assert_readable(found)
    ordered = sorted(said, key=lambda u: u.start)
    spoken = "".join(one_line(u.text) for u in ordered).replace(" ", "")
    assert "".join("".join(cue.lines) for cue in found).replace(" ", "") == spoken


@settings(max_examples=120, deadline=None)
@given(SEGMENTS)
def test_other_peoples_parsers_read_the_same_subtitles(
    segments: list[tuple[str, float, float, str]],
) -> None:
    said = [say(text, start, start + length, who) for text, start, length, who in segments]
    expected = laid_out(*said, scope=ALL)
    subtitles = list(srt.parse("".join(write_srt(stretches(*said), ALL))))
    captions = webvtt.from_string("".join(write_vtt(stretches(*said), ALL))).captions
    assert len(subtitles) == len(captions) == len(expected)
    for cue, subtitle, caption in zip(expected, subtitles, captions, strict=True):
        lines = list(cue.lines)
        start, end = (timedelta(milliseconds=t) for t in (cue.start, cue.end))
        assert (subtitle.start, subtitle.end) == (start, end)
        assert subtitle.content.split("\n") == [plain(line) for line in lines]
        assert (caption.start_in_seconds, caption.end_in_seconds) == (
            cue.start // 1000,
            cue.end // 1000,
        )
        assert caption.raw_text.split("\n") == [escaped(line) for line in lines]
    assert [s.index for s in subtitles] == list(range(1, len(subtitles) + 1))


@pytest.mark.parametrize("text", ["a <b>bold</b> claim --> here & there {\\an8}", "</v><script>"])
def test_no_player_sees_a_tag(text: str) -> None:
    [subtitle] = srt.parse("".join(write_srt(stretches(say(text, 0, 3)), ONE)))
    assert not set("<>{}") & set(subtitle.content)
    [caption] = webvtt.from_string("".join(write_vtt(stretches(say(text, 0, 3)), ONE))).captions
    assert not set("<>") & set(caption.raw_text)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_paragraph_is_folded_within_its_width_and_whole(text: str) -> None:
    lines = list(fold(one_line(text), 76))
    assert all(width(line) <= 76 for line in lines)
    assert "".join(lines).replace(" ", "") == one_line(text).replace(" ", "")
