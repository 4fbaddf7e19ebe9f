"""What a run has come to: some lines for a person, and a document for programs."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stt_lib import __version__
from stt_lib.domain.models import Outcome
from stt_lib.files import write_whole
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.stats import Figures, ServerFigures

log = logging.getLogger("stt")


@dataclass(frozen=True, slots=True)
class Left:
    """Chunks that are not transcribed: `pending` ones, `failed` of them tried before."""

    pending: int
    failed: int
    parked: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A run from `started` on; `left` is None when MongoDB could not say."""

    started: datetime
    seconds: float
    figures: Figures
    unfinished: int = 0
    left: Left | None = None
    stopped_by: str | None = None
    exit_code: int = 0

    @property
    def speed(self) -> float:
        """Seconds of audio per second: the real-time factor."""
        return self.figures.seconds_of_audio / self.seconds if self.seconds else 0.0

    def tell(self) -> None:
        """Say it in the log; a run that had nothing to do says only what is left."""
        figures = self.figures
        if figures.seconds_of_audio:
            log.info(
                "Summary: %s of audio in %.1fs, %.1f times real time",
                _spoken(figures.seconds_of_audio),
                self.seconds,
                self.speed,
                extra=Event.SUMMARY.of(
                    audio_seconds=round(figures.seconds_of_audio, 1),
                    seconds=round(self.seconds, 3),
                    realtime_factor=round(self.speed, 2),
                ),
            )
        for name, server in figures.servers.items():
            log.info(
                "Summary: server %s | %s",
                name,
                _requests(server),
                extra=Event.SUMMARY.of(**_server(name, server)),
            )
        if figures.errors:
            log.info(
                "Summary: errors | %s",
                " ".join(f"{kind}={count}" for kind, count in figures.errors.most_common()),
                extra=Event.SUMMARY.of(errors=dict(figures.errors)),
            )
        if self.left is not None:
            log.info(
                "Summary: left | %d pending chunks, %d of them failed before | %d parked",
                self.left.pending,
                self.left.failed,
                self.left.parked,
                extra=Event.SUMMARY.of(left=_left(self.left)),
            )

    def write(self, path: Path) -> None:
        """Write the document, whole or not at all; a failure to is a warning."""
        try:
            write_whole(path, json.dumps(self.document(), indent=2, default=str) + "\n")
        except OSError as error:
            log.warning(
                "No summary: %s cannot be written (%s)",
                path,
                error.strerror or error,
                extra=Event.LOG_TROUBLE.of(),
            )

    def document(self) -> dict[str, Any]:
        figures = self.figures
        return {
            "version": __version__,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "exit_code": self.exit_code,
            "stopped_by": self.stopped_by,
            "sequences": {
                **{outcome: figures.sequences[outcome] for outcome in Outcome},
                "given_back": self.unfinished,
            },
            "chunks": {outcome: figures.chunks[outcome] for outcome in _ENDS},
            "audio_seconds": {o: round(figures.audio.get(o, 0.0), 2) for o in _ENDS},
            "realtime_factor": round(self.speed, 3),
            "servers": [_server(name, server) for name, server in figures.servers.items()],
            "errors": dict(figures.errors),
            "left": None if self.left is None else _left(self.left),
        }


_ENDS = (Outcome.TRANSCRIBED, Outcome.EMPTY, Outcome.ERROR)
"""How a chunk can end."""


def _server(name: str, figures: ServerFigures) -> dict[str, Any]:
    return {
        "server": name,
        "answered": figures.answered,
        "failed": figures.failed,
        "retries": figures.retries,
        "median_seconds": _rounded(figures.times.quantile(0.5)),
        "p95_seconds": _rounded(figures.times.quantile(0.95)),
        "errors": dict(figures.errors),
    }


def _left(left: Left) -> dict[str, int]:
    return {"pending": left.pending, "failed": left.failed, "parked": left.parked}


def _requests(figures: ServerFigures) -> str:
    return " | ".join(_requests_told(figures))


def _requests_told(figures: ServerFigures) -> Iterator[str]:
    yield f"{figures.answered} answers"
    median, most = figures.times.quantile(0.5), figures.times.quantile(0.95)
    if median is not None and most is not None:
        yield f"median {median:.2f}s, 95% within {most:.2f}s"
    if figures.failed:
        kinds = " ".join(f"{kind}={count}" for kind, count in figures.errors.most_common())
        yield f"{figures.failed} failed: {kinds}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _spoken(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.0f} s"
