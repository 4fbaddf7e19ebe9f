"""Secrets and texts that are planted everywhere, and the search for them in all that is logged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

KEY = "planted-k3y-5e1f"
"""What every worker of a test has for the STT server unless the test says otherwise."""

USER, PASSWORD = "planted", "planted-pa55-77c0"
"""What every worker of a test logs in to MongoDB with."""

PLANTED = (KEY, PASSWORD, "hunter2", "k3y-k3y", "r00t-pw", "the text of somebody", "what somebody")
"""With those that single tests plant: keys, passwords, error bodies and audio."""

SHORTEST_TEXT = 8
"""Shorter texts of transcripts may be in a log by chance, as numbers are."""


def logs_in(folder: Path) -> Iterator[Path]:
    """All that was logged or written to a console, rotated or not."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and any(part in ("log", "console") for part in path.name.split(".")[1:]):
            yield path


def leaks(folder: Path, texts: Iterable[str] = ()) -> list[str]:
    """What is in a log though it must not be, and in which."""
    wanted = [*PLANTED, *{text.strip() for text in texts if len(text.strip()) >= SHORTEST_TEXT}]
    return [
        f"{secret!r} in {path}"
        for path in logs_in(folder)
        for logged in [path.read_text(errors="replace")]
        for secret in wanted
        if secret in logged
    ]
