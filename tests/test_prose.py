"""Plain English in everything that a person reads: documentation, help, messages and source."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.world import ROOT

BANNED = {
    r"\bso (many|long|often)\b": "name the number, or say 'this many'",
    r"\bbe over\b": "'end' or 'stop'",
    r"\b(only|but|of|than|for|again|retries|tries) what (has |have )?failed\b": "'failures'",
    r", for (it|he|she|they|we|there|that|this|these|nobody|nothing)\b": "'because'",
    r"\b(is|are|was|were|be|been) told\b(?! apart)": "'report' or 'say'",
    r"\btells? of\b|\btold of\b": "'report'",
    r"\b(of|by) (ours|theirs|yours)\b|\bones? of (ours|theirs|yours)\b": "name the owner",
    r"\b[a-z]{3,}\(s\)": "a real plural",
    r"\bfinds? itself\b|\bfind themselves\b": "say what adapts what",
    r"\bby itself alone\b|\bas it were\b": "leave it out",
    r"\bat (it|work on it) (now|already)\b": "'working on it'",
}
"""Patterns that read as if translated, and what to write instead."""

SOURCES = sorted(path.name for path in (ROOT / "stt_lib").iterdir() if path.name[0] != "_")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SAYS_SO = frozenset({"Using 2 parallel worker(s)", "parallel worker(s)"})
"""The user's own log lines stay letter by letter."""


def complaints(text: str, where: str) -> Iterator[str]:
    flat = re.sub(r"\s+", " ", text)
    for words in SAYS_SO:
        flat = flat.replace(words, "")
    for pattern, instead in BANNED.items():
        for match in re.finditer(pattern, flat):
            context = flat[max(match.start() - 40, 0) : match.end() + 30]
            yield f"{where}: …{context}…: {instead}"


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """Strings and comments with their lines; neighbouring comment lines are one text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == token.start[0]:
                line, text = comments.pop()
                comments.append((line, f"{text}\n{token.string.lstrip('# ')}"))
            else:
                comments.append((token.start[0], token.string.lstrip("# ")))
    yield from comments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documentation_is_plain_english(page: Path) -> None:
    assert list(complaints(page.read_text(), page.name)) == []


@pytest.mark.parametrize("name", SOURCES)
def test_the_source_is_plain_english(name: str) -> None:
    place = ROOT / "stt_lib" / name
    found = [
        complaint
        for path in sorted([place] if place.is_file() else place.rglob("*.py"))
        for line, text in prose_of(path.read_text())
        for complaint in complaints(text, f"{path.relative_to(ROOT)}:{line}")
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "Be over after so long.",
        "attempt at most so many sequences",
        "3 chunk(s) put back",
        "how long it takes is unknown, for nothing was transcribed",
        "the limit finds itself",
        "a watcher is told of new chunks",
        "a clip of ours",
    ],
)
def test_the_patterns_match_what_they_are_there_for(text: str) -> None:
    assert list(complaints(text, "here"))


def test_the_users_own_words_are_left_alone() -> None:
    assert list(complaints("INFO - Using 2 parallel worker(s)", "here")) == []
