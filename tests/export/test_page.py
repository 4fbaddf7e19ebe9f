"""The page: whatever was said is text in it, and nothing in it asks the network."""

import base64
import hashlib
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stt_lib.domain.text import one_line
from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.page import write
from stt_lib.export.scope import Scope, readable

ZERO = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
ALL = Scope(None, None, None, ZERO, zone=UTC)
NASTY = ["</script><script>alert(1)</script>", "<!--", "]]>", "&lt;", '" onclick="x', "{{ 7 * 7 }}"]
NASTY += ["{% raw %}", "'", "<img src=x onerror=y>", "\u202e", "</style>", "&#x3c;b&#x3e;"]
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(max_size=40))


def say(text: str, seconds: float, recording: str = "r", language: str = "en") -> Utterance:
    start = ZERO + timedelta(seconds=seconds)
    return Utterance(recording, "t", start, start + timedelta(seconds=2), text, language)


def made(*said: Utterance, scope: Scope = ALL) -> "Page":
    ordered = sorted(said, key=lambda utterance: utterance.start)
    stretches = readable(Stretch(utterance.start, (utterance,)) for utterance in ordered)
    return Page("".join(write(stretches, scope)))


class Page(HTMLParser):
    """What a browser would see, as far as these tests ask."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.inside: list[str] = []
        self.said: list[str] = []
        self.is_said = False
        self.texts: dict[str, list[str]] = {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.inside.append(tag)
        self.is_said = dict(attrs).get("dir") == "auto"
        if self.is_said:
            self.said.append("")

    def handle_endtag(self, tag: str) -> None:
        self.is_said = False
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag = self.inside[-1] if self.inside else ""
        self.texts.setdefault(tag, []).append(data)
        if self.is_said:
            self.said[-1] += data

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
@example([("</script><script>alert(1)</script>", '"><script>', '"><script>')])
def test_whatever_is_said_is_only_text(said: list[tuple[str, str, str]]) -> None:
    texts = [one_line(text) for text, _, _ in said]
    if not any(texts):
        return
    page = made(*(say(t, 9 * at, name, lang) for at, (t, name, lang) in enumerate(said)))
    assert sorted(page.said) == sorted(text for text in texts if text)
    assert page.tags["script"] == page.tags["style"] == 1
    assert not page.tags["img"] + page.tags["iframe"] + page.tags["link"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_its_policy_lets_nothing_run_but_its_own_script_and_nothing_be_fetched() -> None:
    page = made(say("Hello.", 0))
    [policy] = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        [source] = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert all(value.startswith("#") for value in page.values("href"))
    assert not page.values("src") + page.values("style")
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_every_segment_has_a_time_and_an_address_of_its_own() -> None:
    page = made(say("One.", 0), say("Two.", 0.5), say("Three.", 90000))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {"t20260301-080000", "t20260301-080000-2", "t20260302-090000"} <= set(ids)
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)
    assert "2026-03-02T09:00:00.000Z" in page.values("datetime")


def test_times_and_days_are_those_of_the_reader() -> None:
    east = Scope(None, None, None, ZERO, zone=timezone(timedelta(hours=5, minutes=30)))
    page = made(say("Late.", 10 * 3600), say("Later.", 11 * 3600), scope=east)
    assert page.texts["time"] == ["23:30:00", "00:30:00"]
    assert page.texts["h1"] == ["1 March 2026 – 2 March 2026"]
    assert page.texts["h2"] == ["Sunday, 1 March 2026", "Monday, 2 March 2026"]
    assert "2 recordings" not in page.source
    assert "times in UTC+05:30" in page.source


@pytest.mark.parametrize(
    ("gap", "told"), [(1, None), (30, None), (61, "59 s"), (300, "4 min 58 s"), (7300, "2 h 1 min")]
)
def test_silence_is_told_and_seen(gap: int, told: str | None) -> None:
    page = made(say("One.", 0), say("Two.", gap))
    shown = [text for text in page.texts["span"] if text.endswith("without speech")]
    assert shown == ([f"{told} without speech"] if told and gap > 61 else [])
    bars = [title for title in page.texts["title"] if "08:00:00 – 08:00:02" in title]
    assert len(bars) == (gap > 1)


def test_recordings_share_a_lane_of_the_timeline_unless_they_overlap() -> None:
    one_by_one = made(say("a", 0, "a"), say("b", 600, "b"), say("c", 1200, "c"))
    at_once = made(say("a", 0, "a"), say("b", 1, "b"), say("a", 1200, "a"))
    for page, lanes in ((one_by_one, 1), (at_once, 2)):
        assert page.values("class").count("track") == lanes
    assert one_by_one.values("data-parts") == ["r20260301-1 r20260301-2 r20260301-3"]


def test_the_timeline_has_round_times_and_all_speech_lies_on_it() -> None:
    for length in (1, 100, 4000, 57_000):
        page = made(*(say("x", 60 + length * n / 5) for n in range(6)))
        clocks = page.texts["text"]
        assert 2 <= len(clocks) <= 8
        places = [float(x.rstrip("%")) for x in page.values("x") + page.values("width")]
        assert all(0 <= place <= 100 for place in places)
