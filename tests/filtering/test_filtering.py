"""The filter: what nobody said goes, what somebody said stays, and it can say why."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib import filtering
from stt_lib.domain.models import Answer, Chunk, Detection, Segment, Word
from stt_lib.domain.text import normal_form
from stt_lib.errors import ConfigurationError
from stt_lib.filtering import Policy, Reason, Surroundings, Verdict
from stt_lib.filtering.phrases import shipped
from stt_lib.filtering.weights import POINTS, STEPS, THRESHOLDS
from stt_lib.store import mapping
from tests.support.world import START

NORMAL = filtering.policy()
STRICT = filtering.policy("strict")
OFF = filtering.policy("off")
NOTHING = Surroundings()
SURE: dict[str, Any] = {"no_speech_prob": 0.02, "avg_logprob": -0.2, "compression_ratio": 1.2}
UNSURE: dict[str, Any] = {"no_speech_prob": 0.7, "avg_logprob": -1.1, "compression_ratio": 0.6}
SENTENCE = "Here is the change for the two tickets."


def segments(*texts: str, **scores: Any) -> list[Segment]:
    return [Segment(2.0 * i, 2.0 * i + 2, text, **scores) for i, text in enumerate(texts)]


def detected(*probs: float | None) -> Surroundings:
    """Chunks of ten seconds with these probabilities of speech."""
    chunks = (Detection(10.0 * i, 10.0 * i + 10, prob) for i, prob in enumerate(probs))
    return Surroundings(detections=tuple(chunks))


def judge(*texts: str, around: Surroundings = NOTHING, by: Policy = NORMAL, **more: Any) -> Verdict:
    return filtering.judge(segments(*texts, **more), around, by)


def reasons(*texts: str, **more: Any) -> list[tuple[str, ...]]:
    return [dropped.reasons for dropped in judge(*texts, **more).dropped]


def kept(verdict: Verdict) -> list[str]:
    return [segment.text for segment in verdict.kept]


# -- phrases, blanks and tags -----------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "...", " …", "-", "\n", "。", "?!"])
def test_blank_segments_are_dropped(text: str) -> None:
    assert reasons(text)[0][0] == Reason.BLANK
    assert reasons(text, by=OFF)[0][0] == Reason.BLANK


@pytest.mark.parametrize(
    "text",
    [
        *("*sad breathing*", "[music]", "[BLANK_AUDIO]", "(applause)", "♪", "♪♪", "♪ la la ♪"),
        *(" [a] (b). ", "（拍手）", "【音楽】", "*cough* [noise]"),
    ],
)
def test_sound_tags_are_dropped(text: str) -> None:
    assert reasons(text, **SURE, around=detected(0.99))[0][0] == Reason.SOUND_TAG


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
        "Thanks for watching. Thanks for watching.",
        "Thank you for watching, and I'll see you in the next video. Bye-bye!",
        "Thank you so much for watching and I'll see you next time.",
        " Thank you very much for watching this video and I'll see you in the next video.",
        "Please don't forget to like and subscribe to my channel.",
    ],
)
def test_known_phrases_are_dropped_in_any_spelling(text: str) -> None:
    verdict = judge(text, "We met at noon, beside the river.", **SURE, around=detected(0.99))
    assert verdict.dropped[0].reasons[0] == Reason.KNOWN_PHRASE
    assert kept(verdict) == ["We met at noon, beside the river."]


@pytest.mark.parametrize("phrase", ["thanks for watching", "thank you", "MBC 뉴스", "you", "meow"])
def test_nothing_is_dropped_for_a_phrase_inside_a_sentence(phrase: str) -> None:
    texts = (f"He ended every film with {phrase} and a bow.", f"{phrase}, he said to us all.")
    for policy in (NORMAL, STRICT):
        assert kept(judge(*texts, by=policy, around=detected(0.8))) == list(texts)


def test_every_shipped_phrase_can_match() -> None:
    assert len(shipped().by_text) > 100
    for phrase in shipped().by_text:
        assert phrase == normal_form(phrase) != ""


# -- evidence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Yes.", "Okay.", "No.", "Mm-hmm.", "Sí.", "Two (2).", "Oh."])
@pytest.mark.parametrize("policy", [NORMAL, STRICT])
def test_a_real_short_answer_stays(text: str, policy: Policy) -> None:
    assert judge(text, **SURE, around=detected(0.97), by=policy).dropped == ()


@pytest.mark.parametrize("text", ["Thank you.", "You", "Bye!", "Gracias.", "Dziękuję"])
def test_politeness_on_noise_goes(text: str) -> None:
    assert kept(judge(text, around=detected(0.2), **UNSURE)) == []


@pytest.mark.parametrize("text", ["Thank you.", "Bye!", "Okay."])
def test_politeness_that_somebody_said_stays(text: str) -> None:
    assert kept(judge(text, around=detected(0.97), **SURE)) == [text]
    assert kept(judge(SENTENCE, text, around=detected(0.9))) == [SENTENCE, text]


def test_politeness_without_any_evidence_for_speech_goes() -> None:
    assert kept(judge("Thank you.")) == []
    assert kept(judge("Yes.")) == ["Yes."]


CRIES = ["Ahhhhh!", "Ugh.", "Grrrr!", "HA HA HA", "Hahahaha! Hahahaha!", "Shhhhhh!", "Uuuuh, ohh!"]


@pytest.mark.parametrize("text", ["Oh", "ok", "That's it.", "Hmm.", "Uh-huh", "Oh my God!", *CRIES])
def test_interjections_go_when_model_and_detector_are_unsure(text: str) -> None:
    assert kept(judge(text, **UNSURE, around=detected(0.8))) == []
    assert kept(judge(text, **SURE, around=detected(0.97))) == [text]
    assert kept(judge(SENTENCE, text, **SURE, around=detected(0.8))) == [SENTENCE, text]


@pytest.mark.parametrize("text", ["Hello?", "I'm sorry.", "Run!"])
def test_a_short_text_stays_only_if_model_or_detector_are_sure(text: str) -> None:
    guessed: dict[str, Any] = {"no_speech_prob": 0.5, "avg_logprob": -1.6}
    assert kept(judge(text, **guessed, around=detected(0.6))) == []
    assert kept(judge(text, **guessed, around=detected(0.9))) == [text]
    assert kept(judge(text, **SURE, around=detected(0.6))) == [text]


@pytest.mark.parametrize("text", ["Yes.", "No.", "Four.", "Seventeen.", "Tomorrow."])
def test_a_short_answer_alone_stays_even_without_scores(text: str) -> None:
    assert kept(judge(text, around=detected(0.8))) == [text]
    assert kept(judge(text)) == [text]


@pytest.mark.parametrize(("logprob", "points"), [(-0.2, -0.5), (-1.0, 0), (-1.6, 0.5), (-2.8, 2)])
def test_the_less_likely_the_words_the_more_it_counts(logprob: float, points: float) -> None:
    (clues,) = filtering.weigh(segments(SENTENCE, avg_logprob=logprob), NOTHING, NORMAL.phrases)
    assert [c.points for c in clues if c.reason is Reason.AVG_LOGPROB] == [points]


@pytest.mark.parametrize(
    ("scores", "probs", "stays"),
    [
        ({}, [None], False),
        (SURE, [None], True),
        (SURE, [0.1], False),
        (UNSURE, [0.97], True),
        (UNSURE, [0.8], False),
        ({"no_speech_prob": 0.1}, [0.95], True),
        ({"avg_logprob": -0.3}, [0.95], True),
        ({"no_speech_prob": 0.9}, [0.6], False),
    ],
)
def test_mixed_evidence_on_a_lonely_thank_you(
    scores: dict[str, Any], probs: list[float | None], stays: bool
) -> None:
    verdict = judge("Thank you.", **scores, around=detected(*probs))
    assert bool(verdict.kept) is stays


@pytest.mark.parametrize(
    ("reason", "texts", "more"),
    [
        (Reason.COMMON_PHRASE, ["Thank you."], {}),
        (Reason.SHORT, ["Thank you."], {}),
        (Reason.ALONE, ["Thank you."], {}),
        (Reason.NO_SPEECH_PROB, ["Thank you."], {"no_speech_prob": 0.9}),
        (Reason.AVG_LOGPROB, ["Thank you."], {"avg_logprob": -1.7}),
        (Reason.COMPRESSION_RATIO, ["and so on " * 12], {"compression_ratio": 5.0}),
        (Reason.LOOP, ["and so on " * 12], {}),
        (Reason.REPEATED, ["Never mind."] * 6, {}),
        (Reason.VAD_PROB, ["Thank you."], {"around": detected(0.1)}),
        (Reason.LANGUAGE, ["Gracias."], {"around": Surroundings("en", 0.99)}),
        (Reason.LANGUAGE_PROB, ["Diolch."], {"around": Surroundings("cy", 0.3)}),
        (Reason.LANGUAGE, [SENTENCE, SENTENCE, "Так"], {"around": detected(0.1)}),
    ],
)
def test_each_reason_is_told(reason: Reason, texts: list[str], more: dict[str, Any]) -> None:
    told = reasons(*texts, **more, **({} if "by" in more else {"by": STRICT}))
    assert reason in told[-1]


def test_reasons_come_strongest_first_with_the_sum_of_all() -> None:
    spoken = segments("Thank you.", no_speech_prob=0.9, avg_logprob=-0.2)
    (dropped,) = filtering.judge(spoken, detected(0.1), NORMAL).dropped
    (clues,) = filtering.weigh(spoken, detected(0.1), NORMAL.phrases)
    worth = {clue.reason: clue.points for clue in clues}
    points = [worth[Reason(reason)] for reason in dropped.reasons]
    assert points == sorted(points, reverse=True)
    assert min(points) > 0 > min(worth.values())
    assert dropped.score == sum(worth.values()) >= THRESHOLDS["normal"]


def test_words_that_nobody_can_say_so_fast_speak_against_a_segment() -> None:
    fast = Segment(0.0, 0.5, "and then all of us went on to the old mill")
    slow = Segment(0.0, 4.0, fast.text)
    found = [
        {clue.reason: clue.points for clue in clues}
        for clues in filtering.weigh([fast, slow], NOTHING, NORMAL.phrases)
    ]
    assert found[0][Reason.WORDS_PER_SECOND] > 0 == found[1][Reason.WORDS_PER_SECOND]


def test_a_loop_keeps_its_first_round() -> None:
    texts = [SENTENCE] + ["Never mind that one."] * 7
    assert kept(judge(*texts))[:2] == texts[:2]
    assert len(judge(*texts).dropped) >= 3


def test_a_loop_within_a_segment_is_measured_when_the_server_does_not() -> None:
    loop = "and so on " * 30
    (clues,) = filtering.weigh(segments(loop), NOTHING, NORMAL.phrases)
    ratio = next(clue.value for clue in clues if clue.reason is Reason.LOOP)
    assert ratio is not None
    assert ratio > 2.4
    for unspaced in ("そうですね" * 30, "O" * 100, "පින්න්" + "න්" * 60):
        assert Reason.LOOP in reasons(unspaced)[0]


@pytest.mark.parametrize("text", ["and so on and so on and so on", "I know I know I know I"])
def test_short_loops_count_although_compression_says_nothing(text: str) -> None:
    assert len(text) < 40
    assert Reason.LOOP in reasons(text)[0]
    assert reasons(text.rpartition(" and so on and")[0] or "I know, I know") == []


TURKEY = "Turkey. Turkey. Turkey. Turkey."


def test_a_word_over_and_over_is_collapsed_and_the_rest_can_be_restored() -> None:
    verdict = judge(f" {TURKEY}", **SURE, around=detected(0.95))
    assert kept(verdict) == [" Turkey."]
    [dropped] = verdict.dropped
    assert dropped.reasons == (Reason.LOOP, Reason.ALONE, Reason.SHORT)
    assert dropped.segment.text == " Turkey. Turkey. Turkey."
    assert (verdict.kept[0].end, dropped.segment.start) == (0.5, 0.5)
    assert kept(judge(TURKEY, by=OFF)) == [TURKEY]
    assert kept(judge(TURKEY, **UNSURE, around=detected(0.8))) == []
    assert kept(judge("No, no, no.", around=detected(0.95))) == ["No, no, no."]


def test_a_collapsed_word_keeps_its_own_time() -> None:
    words = tuple(Word(at, at + 0.4, " Turkey.") for at in (1.0, 3.0, 5.0, 7.0))
    loop = Segment(0.0, 8.0, f" {TURKEY}", words=words)
    verdict = filtering.judge([loop], detected(0.97), NORMAL)
    assert (verdict.kept[0].end, verdict.kept[0].words) == (1.4, words[:1])
    assert (verdict.dropped[0].segment.start, verdict.dropped[0].segment.words) == (3.0, words[1:])


def test_the_chunk_underneath_counts_not_its_neighbour() -> None:
    there = Segment(10.5, 19.0, "Thank you.")
    quiet = detected(0.99, 0.05, 0.99)
    loud = detected(0.05, 0.99, 0.05)
    assert filtering.judge([there], quiet, NORMAL).kept == ()
    values = [
        next(c.value for c in clues if c.reason is Reason.VAD_PROB)
        for around in (quiet, loud)
        for clues in filtering.weigh([there], around, NORMAL.phrases)
    ]
    assert values == [0.05, 0.99]


@pytest.mark.parametrize(
    ("span", "probs", "value"),
    [
        ((1.0, 10.5), (0.05, 0.99), 0.05),  # reaches into the second for a moment
        ((5.0, 15.0), (0.99, 0.05), 0.99),
        ((5.0, 15.0), (0.05, None), 0.05),
        ((25.0, 29.0), (0.05, 0.99), None),
        ((3.0, 3.0), (0.4, 0.99), 0.4),
    ],
)
def test_of_several_chunks_underneath_the_likeliest_speech_counts(
    span: tuple[float, float], probs: tuple[float | None, ...], value: float | None
) -> None:
    (clues,) = filtering.weigh([Segment(*span, SENTENCE)], detected(*probs), NORMAL.phrases)
    assert next((c.value for c in clues if c.reason is Reason.VAD_PROB), None) == value


@pytest.mark.parametrize(
    ("start", "text", "is_alone"),
    [(9.0, "Never mind.", False), (40.0, "Never mind.", True), (40.0, SENTENCE, False)],
)
def test_only_what_is_brief_and_far_from_speech_is_alone(
    start: float, text: str, is_alone: bool
) -> None:
    both = [Segment(0.0, 4.0, SENTENCE), Segment(start, start + 2, text)]
    clues = filtering.weigh(both, NOTHING, NORMAL.phrases)[1]
    assert (Reason.ALONE in {clue.reason for clue in clues}) is is_alone


def test_a_sentence_without_spaces_is_not_short() -> None:
    (clues,) = filtering.weigh(segments("今日は駅まで歩いて行きました。"), NOTHING, NORMAL.phrases)
    assert next(c.points for c in clues if c.reason is Reason.SHORT) == 0
    assert Reason.ALONE not in {clue.reason for clue in clues}


def test_a_segment_at_the_threshold_goes() -> None:
    (dropped,) = judge("Thank you very much.").dropped
    assert dropped.score == THRESHOLDS["normal"]


@pytest.mark.parametrize("text", ["Thank you.", "Yes.", SENTENCE])
def test_scores_that_are_absent_or_constants_are_no_evidence(text: str) -> None:
    absent = filtering.weigh(segments(text), NOTHING, NORMAL.phrases)
    for logprob, no_speech, ratio in product([0.0, 1.0], [0.0, 1.0], [0.0, 1.0, None]):
        scores = {"avg_logprob": logprob, "no_speech_prob": no_speech, "compression_ratio": ratio}
        assert filtering.weigh(segments(text, **scores), NOTHING, NORMAL.phrases) == absent


def test_no_score_alone_drops_a_sentence() -> None:
    worst: list[dict[str, Any]] = [
        {"no_speech_prob": 0.99},
        {"avg_logprob": -5.0},
        {"compression_ratio": 9.0},
        {"around": detected(0.0)},
        {"around": Surroundings("cy", 0.1)},
    ]
    for evidence in worst:
        assert judge(SENTENCE, **evidence).dropped == ()


def test_surroundings_come_from_the_answer_and_the_chunks() -> None:
    chunks = [Chunk(i, i, START, b"", "opus", 9.5, prob) for i, prob in enumerate([0.9, None])]
    answer = Answer((), "en", (("en", 0.8), ("de", 0.1)))
    expected = Surroundings("en", 0.8, (Detection(0, 9.5, 0.9), Detection(9.5, 19.0, None)))
    assert Surroundings.of(answer, chunks) == expected


@pytest.mark.parametrize(
    ("prob", "known"),
    [(0.25, 0.25), (1, 1.0), (math.nan, None), (math.inf, None), (-1, None), ("0.9", None)],
)
def test_a_probability_that_is_none_is_not_known(prob: object, known: float | None) -> None:
    assert mapping.chunk({"_id": 1, "vad": {"prob": prob}}).prob == known


def test_the_table_is_in_order() -> None:
    assert THRESHOLDS["strict"] < THRESHOLDS["normal"]
    assert set(POINTS) | set(STEPS) == set(Reason)
    for steps in STEPS.values():
        limits = [lowest for lowest, _ in steps]
        assert limits[0] == -math.inf
        assert limits == sorted(set(limits))


# -- what a person sets -----------------------------------------------------------------------


def test_off_keeps_every_word() -> None:
    texts = ["Thanks for watching!", "[music]", "Thank you.", "you"]
    assert kept(judge(*texts, by=OFF, **UNSURE, around=detected(0.0))) == texts


def test_strict_drops_no_less_than_normal() -> None:
    for text, scores, prob in product(
        ["Yes.", "Thank you.", "Never mind.", SENTENCE], [SURE, UNSURE, {}], [0.1, 0.6, 0.97]
    ):
        normal, strict = (
            judge(text, **scores, around=detected(prob), by=by) for by in (NORMAL, STRICT)
        )
        assert set(kept(strict)) <= set(kept(normal))


def test_own_phrases_add_to_ours_and_win(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text(
        "\ufeff[keep]\nThank you\nThe AAA\n"
        "[telltale]\n# mine\nOver and out!\n\n[common en]\nRoger\n"
    )
    mine = filtering.policy("normal", file)
    told = ["Thank you.", "The AAA."]
    assert kept(judge("Over and out.", *told, by=mine, **UNSURE)) == told
    assert kept(judge("Thanks for watching", by=mine)) == []
    assert kept(judge("Roger.", by=mine)) == []
    assert kept(judge("Roger.", SENTENCE, by=mine, **SURE)) == ["Roger.", SENTENCE]


def test_a_phrase_of_several_languages_is_foreign_to_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text("[common fi]\nJuu\n[common et sv]\nJuu\n[telltale]\nEnd of line\n")
    mine = filtering.policy("normal", file)
    for language, is_foreign in (("fi", False), ("sv", False), ("en", True)):
        clues = filtering.weigh(segments("Juu."), Surroundings(language), mine.phrases)[0]
        assert (Reason.LANGUAGE in {clue.reason for clue in clues}) is is_foreign
    assert kept(judge("End of line.", by=mine)) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe\x00T", "not UTF-8 text"),
        (b"Hello\n[telltales]\n", "line 2 is not a heading"),
        (b"Hello\n...\n", "line 2 has neither letters nor digits"),
        (b"a {b|}\n{c|}\n", "line 2 has neither letters nor digits"),
        (b"{a|b}" * 14, "line 1 stands for more than 10,000 phrases"),
        (b"a\n" * 600_000, "larger than 1 MB"),
    ],
)
def test_a_bad_file_of_phrases_is_named(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    file = tmp_path / "phrases.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        filtering.policy("normal", file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


# -- always -----------------------------------------------------------------------------------

_NUMBERS = st.none() | st.floats() | st.integers(-3, 3)
_ANY_SEGMENT = st.builds(
    Segment,
    start=st.floats(),
    end=st.floats(),
    text=st.text(max_size=60)
    | st.sampled_from(["Thank you.", "[a]", "so so so", "four " * 5, "ありがとう"]),
    no_speech_prob=_NUMBERS,
    avg_logprob=_NUMBERS,
    compression_ratio=_NUMBERS,
)
_ANY_AROUND = st.builds(
    Surroundings,
    language=st.none() | st.sampled_from(["en", "de", "xx", ""]),
    language_prob=_NUMBERS,
    detections=st.lists(
        st.builds(Detection, st.floats(0, 100), st.floats(0, 100), _NUMBERS), max_size=3
    ).map(tuple),
)


@given(st.lists(_ANY_SEGMENT, max_size=8), _ANY_AROUND, st.sampled_from([NORMAL, STRICT, OFF]))
def test_whatever_comes_nothing_is_lost_invented_or_moved(
    given_segments: list[Segment], around: Surroundings, by: Policy
) -> None:
    verdict = filtering.judge(given_segments, around, by)
    gone = [dropped.segment for dropped in verdict.dropped]
    left, right = list(verdict.kept), list(gone)
    for segment in given_segments:
        if left and right and left[0].text + right[0].text == segment.text != left[0].text:
            first, others = left.pop(0), right.pop(0)  # a loop of one word, collapsed
            assert replace(first, end=segment.end, text=segment.text) == segment
            assert set(others.text.split()) == {first.text.strip()}
            continue
        side = left if left and left[0] is segment else right
        assert side.pop(0) is segment
    assert not left
    assert not right
    assert all(dropped.reasons for dropped in verdict.dropped)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("unit", ["[a]  ", "♪ ", "(", "* ", "[", "（", "a b ", "bye bye bye "])
def test_long_garbage_does_not_hold_the_filter_up(unit: str) -> None:
    judge(unit * 20_000 + "x")
    judge(unit * 20_000)
