"""The joiner, alone: whatever times and words two servers make of the same speech."""

from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_lib.domain.models import Seam, Segment, Word
from stt_lib.domain.stitching import Overlap, Side

CUT = 10.0
"""Both sides of these tests heard ten seconds before the cut and ten behind it."""

TEXT = """
    the roof still leaks and the rain comes in right above the cookbooks so we moved them to the
    second floor where the children used to read and that is the good news for this evening
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Spoken:
    """A word that was said, `start` and `end` in seconds from the start of the overlap."""

    text: str
    start: float
    end: float


def spoken(words: list[str], pause: float = 0.1, begin: float = 0.0) -> list[Spoken]:
    """Words one after the other, evenly over the twenty seconds."""
    step = (20.0 - begin) / len(words)
    return [
        Spoken(w, begin + i * step, begin + (i + 1) * step - pause) for i, w in enumerate(words)
    ]


def segments(
    said: list[Spoken], sizes: list[int], *, shift: float = 0.0, timed: bool = False
) -> list[Segment]:
    """What a server makes of it: segments of these sizes, in turn, with words' times or without."""
    found: list[Segment] = []
    rest = said
    for size in sizes * len(said):
        now, rest = rest[:size], rest[size:]
        if now:
            words = tuple(Word(s.start + shift, s.end + shift, f" {s.text}") for s in now)
            text = "".join(word.text for word in words)
            begin, end = now[0].start + shift, now[-1].end + shift
            found.append(Segment(begin, end, text, words=words if timed else ()))
    return found


def overlap(heard: list[Segment], side: Side) -> Overlap:
    return Overlap(heard, CUT, (10.0, 10.0), side)


def joined(earlier: list[Segment], later: list[Segment], first: Side) -> list[str]:
    """The words of both sides together, whoever decided."""
    sides = {Side.EARLIER: overlap(earlier, Side.EARLIER), Side.LATER: overlap(later, Side.LATER)}
    seam = sides[first].propose()
    left, right = (sides[side].own(seam) for side in Side)
    return " ".join(segment.text for segment in (*left, *right)).split()


FIRST = pytest.mark.parametrize("first", list(Side))


@FIRST
def test_the_same_heard_twice_is_joined_to_itself(first: Side) -> None:
    said = spoken(TEXT)
    assert joined(segments(said, [7]), segments(said, [5, 9]), first) == TEXT


@FIRST
def test_the_seam_lies_where_people_pause(first: Side) -> None:
    said = spoken(TEXT[:9], begin=0.0)
    said = [Spoken(s.text, s.start / 2.2, s.end / 2.2) for s in said]
    said += [replace(s, start=s.start / 2 + 10.6, end=s.end / 2 + 10.6) for s in spoken(TEXT[9:])]
    heard = segments(said, [9, 40], timed=True)
    seam = overlap(heard, first).propose()
    assert seam.cut == 9
    assert 0 <= seam.moment * (1 if first is Side.EARLIER else -1) <= 0.6


@FIRST
def test_a_seam_never_takes_from_the_audio_of_who_decides(first: Side) -> None:
    said = spoken(TEXT)
    seam = overlap(segments(said, [40], timed=True), first).propose()
    if first is Side.EARLIER:
        assert all(at > -0.4 for at in seam.seconds[seam.cut :])
    else:
        assert all(at < 0.4 for at in seam.seconds[: seam.cut])


def test_a_segment_across_the_seam_is_divided_with_its_words_and_times() -> None:
    said = [Spoken("One,", 8, 9), Spoken("two", 9, 9.8), Spoken("three.", 10.2, 11)]
    heard = segments(said, [3], timed=True)
    seam = overlap(heard, Side.LATER).propose()
    assert (seam.words, seam.cut) == (("one", "two", "three"), 2)
    [left] = overlap(heard, Side.EARLIER).own(seam)
    [right] = overlap(heard, Side.LATER).own(seam)
    assert (left.text, left.start, left.end) == (" One, two", 8, 9.8)
    assert (right.text, right.start, right.end) == (" three.", 10.2, 11)
    assert [w.text for w in left.words] == [" One,", " two"]
    assert [w.text for w in right.words] == [" three."]


@pytest.mark.parametrize("silent", list(Side))
@FIRST
def test_one_side_heard_nothing(first: Side, silent: Side) -> None:
    """Then the other keeps its own half, and a word or two beyond."""
    said = spoken(TEXT)
    heard = segments(said, [6])
    pair = {Side.EARLIER: heard, Side.LATER: heard, silent: []}
    words = joined(pair[Side.EARLIER], pair[Side.LATER], first)
    half = [s.text for s in said if (s.end > CUT) == (silent is Side.EARLIER)]
    assert len(half) <= len(words) <= len(half) + 5
    assert " ".join(half[3:-3]) in " ".join(words)


def test_nobody_heard_anything() -> None:
    assert joined([], [], Side.LATER) == []


@FIRST
def test_other_words_for_the_same_are_there_once(first: Side) -> None:
    said = spoken(str.split("we like I scream and cold tea at noon with the old aunt of ours"))
    other = spoken(str.split("we like ice cream and cold tea at noon with the old ant of ours"))
    words = joined(segments(said, [20]), segments(other, [20]), first)
    assert len(words) == len(said)
    assert words[:2] == ["we", "like"]


@FIRST
def test_a_phrase_said_three_times_stays_three_times(first: Side) -> None:
    said = spoken(("no no no I said " * 6).split())
    words = joined(segments(said, [30], timed=True), segments(said, [30], timed=True), first)
    assert words == [s.text for s in said]


@FIRST
def test_scripts_without_blanks(first: Side) -> None:
    text = "図書館の屋根はまだ雨漏りがしていて料理の本の上に雨が降ります"
    heard = [Segment(0.0, 20.0, text)]
    assert "".join(joined(heard, [replace(heard[0], end=19.0)], first)) == text


def test_what_was_finished_before_keeps_all_that_it_has() -> None:
    """Its last word was cut by the end of its audio; it is there once, if not whole."""
    said = spoken(TEXT)
    half = [s for s in said if s.start < CUT]
    alone = segments([*half[:-1], replace(half[-1], text=half[-1].text[:3])], [8])
    seam = Overlap(alone, CUT, (10.0, 10.0), Side.EARLIER).as_it_is()
    right = overlap(segments(said, [6]), Side.LATER).own(seam)
    words = " ".join(segment.text for segment in right).split()
    assert words == TEXT[len(half) :]


def test_no_words_well_inside_our_own_audio_are_given_up_whatever_the_other_side_has() -> None:
    said = spoken(TEXT)
    heard_by_other = tuple(s.text for s in said)
    seconds = tuple((s.start + s.end) / 2 - CUT for s in said)
    for cut, side in ((len(said), Side.LATER), (0, Side.EARLIER)):
        seam = Seam(heard_by_other, seconds, cut, 10.0 if cut else -10.0)
        for sizes in ([40], [7]):
            own = overlap(segments(said, sizes, timed=True), side).own(seam)
            words = " ".join(segment.text for segment in own).split()
            outward = 1 if side is Side.EARLIER else -1
            inside = [s.text for s, at in zip(said, seconds, strict=True) if at * outward < -1]
            assert words == inside


def _kept(heard: list[Segment], seam: Seam, side: Side) -> list[str]:
    return " ".join(segment.text for segment in overlap(heard, side).own(seam)).split()


def test_the_first_word_after_what_was_finished_before_is_kept() -> None:
    """Its time is interpolated, and a little too early."""
    alone = [Segment(CUT - 1.0, CUT - 0.3, " and then")]
    seam = Overlap(alone, CUT, (10.0, 10.0), Side.EARLIER).as_it_is()
    heard = [Segment(CUT - 1.0, CUT + 2.0, " and then we came back to the others")]
    assert _kept(heard, seam, Side.LATER) == ["we", "came", "back", "to", "the", "others"]


@pytest.mark.parametrize("side", Side)
def test_whoever_decides_keeps_a_word_across_the_cut(side: Side) -> None:
    """The other side may be posted without the audio beyond the cut."""
    heard = [Segment(CUT - 0.2, CUT + 0.16, " indeed")]
    found = overlap(heard, side)
    assert [segment.text for segment in found.own(found.propose())] == [" indeed"]


def test_a_word_far_from_the_cut_is_not_taken_for_one_beside_it() -> None:
    """What the later side says first it says ten seconds later: nothing of ours is given up."""
    theirs = Overlap(
        [Segment(CUT + 9.8, CUT + 10.1, " pesobe")], CUT, (0.0, 10.0), Side.LATER
    ).as_it_is()
    heard = [Segment(CUT - 2.4, CUT - 2.1, " pesobe"), Segment(CUT - 0.9, CUT - 0.6, " nibebe")]
    assert _kept(heard, theirs, Side.EARLIER) == ["pesobe", "nibebe"]


@FIRST
def test_a_loop_of_a_model_costs_little_time(first: Side) -> None:
    loop = [Segment(0.0, 20.0, "la " * 2000)]
    assert joined(loop, loop, first)


words = st.lists(st.integers(1, len(TEXT) - 1), min_size=1, max_size=60).map(
    lambda steps: [TEXT[at % len(TEXT)] for at in accumulate(steps)]
)
"""Never the same word twice in a row: that might be one heard twice."""
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=300)
@given(words, sizes, sizes, st.floats(-1.0, 1.0), st.booleans(), st.sampled_from(list(Side)))
def test_no_word_is_lost_and_in_doubt_one_is_there_twice(
    text: list[str],
    one: list[int],
    other: list[int],
    shift: float,
    timed: bool,
    first: Side,
) -> None:
    """The same words at other times, in other segments, with times for words or without."""
    said = spoken(text)
    earlier = segments(said, one, timed=timed)
    later = segments(said, other, shift=shift, timed=not timed)
    words = joined(earlier, later, first)
    rest = iter(words)
    assert all(word in rest for word in text), "in this order"
    assert len(words) <= len(text) + (1 if abs(shift) <= 0.4 else 2)


@given(words, sizes, sizes, st.floats(-0.4, 0.4), st.sampled_from(list(Side)))
def test_each_word_is_there_once_where_both_sides_give_its_time(
    text: list[str], one: list[int], other: list[int], shift: float, first: Side
) -> None:
    said = spoken(text)
    earlier = segments(said, one, timed=True)
    later = segments(said, other, shift=shift, timed=True)
    assert joined(earlier, later, first) == text


@given(st.data(), sizes, sizes, st.sampled_from(list(Side)))
def test_words_that_only_one_side_heard_well(
    data: st.DataObject, one: list[int], other: list[int], first: Side
) -> None:
    """Every seventh word at most is heard in another way, by either side: none is there twice."""
    text = [f"{word}{i}" for i, word in enumerate(TEXT)]  # so that each can be told apart

    def heard(salt: str) -> list[Spoken]:
        wrong = data.draw(st.sets(st.integers(0, len(text) // 7 - 1)))
        changed = {7 * i + data.draw(st.integers(0, 5)) for i in wrong}
        return [
            replace(s, text=f"{s.text}{salt}" if i in changed else s.text)
            for i, s in enumerate(spoken(text))
        ]

    words = joined(segments(heard("x"), one), segments(heard("y"), other), first)
    assert [word.rstrip("xy") for word in words] == [word.rstrip("xy") for word in text]


def at(begin: float, text: str) -> Segment:
    """A segment whose words are half a second apart."""
    words = [Word(begin + n / 2, begin + n / 2 + 0.4, f" {w}") for n, w in enumerate(text.split())]
    return Segment(words[0].start, words[-1].end, f" {text}", words=tuple(words))


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (None, "put the kettle on"),
        ("the cattle has gone", "the cattle has gone"),
    ],
    ids=["nothing", "something else"],
)
@FIRST
def test_a_sentence_that_the_other_side_left_to_us_is_ours_unless_we_heard_something_else(
    first: Side, heard: str | None, expected: str
) -> None:
    """A model leaves out one of two equal sentences, whichever it is."""
    said = [at(1, "well"), at(4, "put the kettle on"), at(11, "put the kettle on"), at(16, "fine")]
    unheard = 2 if first is Side.EARLIER else 1
    other = [*said]
    other[unheard : unheard + 1] = [at(said[unheard].start, heard)] if heard else []
    pair = {first: said, next(side for side in Side if side is not first): other}
    texts = [segment.text.strip() for segment in said]
    texts[unheard] = expected
    assert " ".join(joined(pair[Side.EARLIER], pair[Side.LATER], first)) == " ".join(texts)


@FIRST
def test_what_was_dropped_here_does_not_come_back_from_the_other_side(first: Side) -> None:
    said = [at(1, "well"), at(4, "put the kettle on"), at(11, "put the kettle on"), at(16, "fine")]
    dropped = said[2 if first is Side.EARLIER else 1]
    kept = [segment for segment in said if segment is not dropped]
    seam = overlap(said, first).propose()
    second = overlap(kept, next(side for side in Side if side is not first))
    assert dropped.text in "".join(segment.text for segment in second.own(seam))
    assert dropped.text not in "".join(segment.text for segment in second.own(seam, [dropped]))


@FIRST
def test_two_words_that_only_one_side_heard_are_taken_for_noise(first: Side) -> None:
    said = [at(1, "well"), at(4, "thank you"), at(11, "thank you"), at(16, "fine")]
    unheard = 2 if first is Side.EARLIER else 1
    other = [segment for number, segment in enumerate(said) if number != unheard]
    pair = {first: said, next(side for side in Side if side is not first): other}
    assert joined(pair[Side.EARLIER], pair[Side.LATER], first) == ["well", "thank", "you", "fine"]


@given(st.data())
def test_a_seam_from_elsewhere_never_breaks_anything(data: st.DataObject) -> None:
    """Whatever a document holds."""
    some = data.draw(st.lists(st.tuples(st.sampled_from(TEXT), st.floats(-20, 20)), max_size=30))
    cut = data.draw(st.integers(0, len(some)))
    seam = Seam(tuple(w for w, _ in some), tuple(s for _, s in some), cut, 0.0)
    for side in Side:
        heard = segments(spoken(TEXT), [6])
        own = overlap(heard, side).own(seam)
        whole = "".join(s.text for s in heard)
        assert "".join(s.text for s in own) in whole


def test_of_a_word_said_again_and_again_the_one_beyond_the_cut_stays() -> None:
    """The earlier side was posted alone, and the servers' clocks differ by 0.4 s."""
    times = [7.92, 8.27, 8.67, 9.37]
    said = [Spoken(w, t, t + 0.3) for w, t in zip(["no", "no", "yes", "yes"], times, strict=True)]
    earlier = segments(said, [1], shift=0.2)
    saved = Overlap(earlier, CUT, (10.0, 0.0), Side.EARLIER).as_it_is()
    said.append(Spoken("yes", 10.15, 10.45))
    own = overlap(segments(said, [1], shift=-0.2), Side.LATER).own(saved)
    assert [segment.text for segment in own] == [" yes"]


@FIRST
def test_a_word_that_was_left_to_a_side_stays_though_that_side_is_posted_alone_at_last(
    first: Side,
) -> None:
    """It lies 0.2 s beyond the cut, so the other side has given it up."""
    moment = 9.95 if first is Side.EARLIER else 9.65
    said = [Spoken("one", 8, 8.4), Spoken("two", moment, moment + 0.4), Spoken("three", 11, 11.4)]
    seam = overlap(segments(said, [3], timed=True), first).propose()
    whole = said[:1] if first is Side.EARLIER else said[2:]
    alone = overlap(segments(whole, [1]), first).with_words_beyond(seam)
    other = next(side for side in Side if side is not first)
    left = {first: alone, other: overlap(segments(said, [1]), other).own(seam)}
    text = "".join(segment.text for side in Side for segment in left[side])
    assert text.split() == ["one", "two", "three"]
    again = overlap([*alone], first).with_words_beyond(seam)
    assert again == alone, "what was heard after all is not there twice"


@FIRST
def test_a_word_at_the_cut_that_is_not_heard_alone_is_taken_from_the_decision(first: Side) -> None:
    """Its middle lies in our own audio, but not its end."""
    moment = 9.5 if first is Side.EARLIER else 9.7
    said = [Spoken("one", 8, 8.4), Spoken("two", moment, moment + 0.8), Spoken("three", 11, 11.4)]
    seam = overlap(segments(said, [3], timed=True), first).propose()
    whole = said[:1] if first is Side.EARLIER else said[2:]
    alone = overlap(segments(whole, [1]), first).with_words_beyond(seam)
    words = ["one", "two"] if first is Side.EARLIER else ["two", "three"]
    assert "".join(segment.text for segment in alone).split() == words


def test_of_a_word_said_twice_the_one_with_the_same_word_after_it_is_meant() -> None:
    """The later side was posted alone; the earlier one's clock is 0.2 s fast."""
    later = segments([Spoken("no", 10.02, 10.32), Spoken("yes", 10.72, 11.02)], [1])
    saved = Overlap(later, CUT, (0.0, 10.0), Side.LATER).as_it_is()
    said = [Spoken("oh", 9.2, 9.5), Spoken("no", 9.89, 10.19), Spoken("no", 10.21, 10.51)]
    said.append(Spoken("yes", 10.92, 11.22))
    own = overlap(segments(said, [1]), Side.EARLIER).own(saved)
    assert [segment.text for segment in own] == [" oh", " no"]


def test_a_word_said_on_both_sides_of_the_cut_is_not_taken_for_the_one_beyond() -> None:
    seam = Seam(("said", "no", "no", "then"), (-1.5, -0.6, 0.2, 0.9), 3, 0.4)
    alone = overlap([Segment(8.3, 9.6, " said no")], Side.EARLIER).with_words_beyond(seam)
    assert [segment.text for segment in alone] == [" said no", " no"]
