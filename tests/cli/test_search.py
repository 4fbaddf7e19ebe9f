"""`search` on a real MongoDB: what is found, in which order, and what the index must not break."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import click
import pytest
from pymongo.errors import OperationFailure

from stt_lib.cli import exit_codes, main
from stt_lib.cli.search import lines
from stt_lib.domain.search import Hit, query
from stt_lib.store import Store
from stt_lib.store.search import INDEX
from stt_lib.telemetry.formatters import local_time
from tests.support.world import START, World

LATER = START + timedelta(minutes=10)


class Search:
    """The command, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = exit_codes.OK) -> str:
        assert main(["search", *arguments]) == code
        said = self._capsys.readouterr()
        return said.err if code else said.out

    def found(self, *arguments: str) -> list[str]:
        """What was said at each hit, with what is around it."""
        hits = json.loads(self(*arguments, "--json"))
        return [hit["before"] + hit["text"] + hit["after"] for hit in hits]


@pytest.fixture
def search(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Search:
    monkeypatch.setenv("MONGODB_URI", world.uri)
    monkeypatch.setenv("MONGODB_DATABASE", world.database)
    monkeypatch.setenv("STT_DATA_DIR", str(world.folder / "no embedded stack"))
    return Search(capsys)


@pytest.fixture(params=["read", "indexed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The newest transcripts are read, the others are found by the index: both find the same."""
    if request.param == "indexed":
        monkeypatch.setattr("stt_lib.store.search.RECENT", 1)
    return str(request.param)


def save(world: World, *texts: str, start: datetime = START, **more: Any) -> None:
    segments = [
        {"start": 2.0 * at, "end": 2.0 * at + 2, "text": f" {text}"}
        for at, text in enumerate(texts)
    ]
    document = {"original": "r", "start": start, "segments": segments, "language": "en", **more}
    world.transcriptions.insert_one(document)


def surround(world: World) -> None:
    """Newer transcripts of other things, so that the others are not the most recent ones."""
    for number in range(3):
        save(world, "Nothing of interest.", start=LATER + timedelta(minutes=number))


@pytest.mark.usefixtures("way")
def test_time_recording_and_the_words_around_are_shown(
    world: World, store: Store, search: Search
) -> None:
    save(world, "The roof still leaks.", "Rain comes in above the cookbooks.", original="library")
    store.indexes.ensure()
    world.record([0], original_id="library", file="evening.mp3")
    surround(world)
    shown = world.run("search", "leaks", env={"TZ": "Europe/Vienna"}).stdout
    assert shown.splitlines()[:2] == [
        "2026-03-01 · evening.mp3 · recording library",
        "  09:00:00  The roof still leaks. Rain comes in above the cookbooks.",
    ]
    [hit] = json.loads(search("COOKBOOKS", "--json"))
    assert hit == {
        "start": "2026-03-01T08:00:02+00:00",
        "recording": "library",
        "transcript": hit["transcript"],
        "before": "The roof still leaks. Rain comes in above the ",
        "text": "cookbooks",
        "after": ".",
        "name": "evening.mp3",
    }


@pytest.mark.parametrize("columns", [12, 20, 29, 40, 60, 200])
@pytest.mark.parametrize("before", ["", "Some words. ", "Word after word after word before the "])
@pytest.mark.parametrize("after", ["", ".", " of a sentence that goes on for quite a while"])
def test_a_line_fits_into_the_terminal_and_keeps_what_it_can(
    columns: int, before: str, after: str
) -> None:
    hit = Hit(START, "r", "t", before, "hit", after)
    _, line = map(click.unstyle, lines([hit], {"r": None}, columns))
    moment, shown = line[:12], line[12:]
    assert moment.strip()
    whole = f"{before}hit{after}"
    assert len(line) == max(15, min(columns, 12 + len(whole)))
    left, right = shown.split("hit")
    assert before.endswith(left.removeprefix("…"))
    assert after.startswith(right.removesuffix("…"))
    assert ("…" in shown) == (shown != whole and columns > 15)


@pytest.mark.usefixtures("way")
def test_all_words_are_needed_near_each_other_and_phrases_in_order(
    world: World, search: Search
) -> None:
    save(world, "The roof still", "leaks, and rain comes in.", "no more" + " and on" * 100, "far")
    surround(world)
    assert len(search.found("rain", "roof")) == 1
    assert len(search.found("roof still leaks")) == 1, "across two segments"
    assert len(search.found('"still leaks" roof')) == 1
    assert search.found('"leaks still"') == []
    assert search.found("roof leaks") == []
    assert search.found("roof", "far") == [], "not near"
    assert search.found("roo") == [], "not a whole word"


def test_a_word_that_only_begins_near_is_not_a_whole_word(world: World, search: Search) -> None:
    for length in range(280, 300):
        save(world, f"roof {'x' * length} catalogue", "and on" * 100, "cat")
    assert search.found("roof", "cat") == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mae'r tŷ ar y bryn.", "ty"),
        ("Ein Café in der Straße", "cafe"),
        ("Ein Café in der Straße", "STRAßE"),
        ("I don't know.", "don't"),
        ("今日は図書館に行きます。", "図書館"),
        ("오늘은 도서관에 갑니다", "도서관"),
        ("नमस्ते दुनिया", "दुनिया"),
        ("a-b_c (2026)", "2026"),
    ],
)
def test_any_language_is_found(world: World, search: Search, text: str, words: str) -> None:
    save(world, text)
    surround(world)
    assert search.found(words) == [text]


@pytest.mark.usefixtures("way")
def test_newest_first_within_a_period_and_up_to_a_limit(world: World, search: Search) -> None:
    for minute in (3, 1, 4, 2):
        save(world, f"word {minute}", f"word {minute}b", start=START + timedelta(minutes=minute))
    assert search.found("word")[:3] == ["word 4 word 4b", "word 4 word 4b", "word 3 word 3b"]
    assert len(search.found("word", "--limit", "5")) == 5
    assert "More:   python stt.py search --limit 10 …" in search("word", "--limit", "2")
    assert "More:" not in search("word", "--limit", "8")
    span = ("--since", "2026-03-01T08:02:01Z", "--until", "2026-03-01T08:04:01Z")
    hits = json.loads(search("word", *span, "--json"))
    minutes = [datetime.fromisoformat(hit["start"]).strftime("%M:%S") for hit in hits]
    assert minutes == ["04:00", "03:02", "03:00", "02:02"]


def test_nothing_found_is_one_line(world: World, search: Search) -> None:
    save(world, "words")
    assert search("other", code=1) == "stt: no transcript contains these words\n"
    assert search.found("other") == []
    assert "must contain a letter or a digit" in search("?!", code=exit_codes.USAGE)


def test_only_a_search_of_many_transcripts_makes_the_index(
    world: World, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(world, "word")
    surround(world)
    assert world.run().returncode == 0, "a run creates the other indexes"
    search("word")
    assert INDEX not in world.transcriptions.index_information()
    monkeypatch.setattr("stt_lib.store.search.RECENT", 2)
    search("word")
    assert INDEX in world.transcriptions.index_information()


@pytest.mark.usefixtures("way")
def test_with_the_index_transcripts_of_every_language_can_be_saved(
    world: World, search: Search
) -> None:
    save(world, "word")
    surround(world)
    search("word")
    for language in ("cy", "ja", "xx", None, 3):
        segment = {"start": 0.0, "end": 1.0, "text": f"in {language}", "language": language}
        save(world, language=language, segments=[segment])
    assert search.found("cy") == ["in cy"]
    world.record(range(2))
    assert world.run().returncode == 0
    assert world.pending() == []


def test_a_text_index_with_default_options_would_refuse_them(world: World) -> None:
    """The reason for the options of the index."""
    world.transcriptions.create_index([("segments.text", "text")])
    with pytest.raises(OperationFailure) as error:
        save(world, "Bore da", language="cy")
    assert error.value.code == 17262


@pytest.mark.usefixtures("way")
def test_a_text_index_of_the_users_own_makes_searching_slow_but_not_wrong(
    world: World, search: Search
) -> None:
    world.transcriptions.create_index([("summary", "text")])
    save(world, "word")
    surround(world)
    assert search.found("word") == ["word"]


def test_what_is_searched_for_never_reaches_mongodb_as_a_pattern_or_an_operator() -> None:
    assert query(["-rain", '"roof"', ".*"]).terms == (("rain",), ("roof",))
    assert query(['a "b c" d']).terms == (("a",), ("b", "c"), ("d",))
    assert query(["b  c\n"]).terms == (("b", "c"),)


def test_a_search_that_takes_too_long_says_how_far_it_came_and_how_to_go_on(
    world: World,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {"RECENT": 1, "SECONDS": 0.0, "_WINDOW": 1}.items():
        monkeypatch.setattr(f"stt_lib.store.search.{name}", value)
    save(world, "今日は図書館に行きます。")
    overlapping = LATER + timedelta(minutes=1, seconds=50)
    save(world, *12 * ["Nothing."], "図書館。", start=overlapping)
    surround(world)
    assert main(["search", "図書館"]) == exit_codes.FAILURES
    said = capsys.readouterr()
    assert said.out == ""
    assert f"Searched back to {local_time(LATER + timedelta(minutes=2))} only" in said.err
    (until,) = re.findall(r"--until '(.*?)'", said.err)
    with monkeypatch.context() as patch:
        patch.setattr("stt_lib.store.search.SECONDS", 10.0)
        assert len(search.found("図書館", "--until", until)) == 2
    assert len(search.found("図書館", "--until", local_time(LATER))) == 1
    monkeypatch.setattr("stt_lib.store.search._WINDOW", 2)
    assert main(["search", "図書館", "--until", local_time(LATER)]) == exit_codes.OK
    assert capsys.readouterr().err == "", "nothing is left to search"
