"""The results of a run: some lines for people, and a document for programs."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stt_lib import __version__
from stt_lib.domain.models import Outcome
from stt_lib.domain.units import audio, counted
from stt_lib.errors import FailureKind
from stt_lib.files import write_whole
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.logs import cannot_write
from stt_lib.telemetry.stats import ENDS, Figures, ServerFigures

log = logging.getLogger("stt")


@dataclass(frozen=True, slots=True)
class Left:
    """Chunks that are not transcribed: `pending`, of which `failed` before, and `parked`."""

    pending: int
    failed: int
    parked: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A run; `left` is None when MongoDB did not answer."""

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

    def report(self) -> None:
        """Log it; a run that had nothing to do reports only what is left."""
        for sentence, facts in self._sentences():
            log.info("Summary: %s", sentence, extra=Event.SUMMARY.of(**facts))

    def _sentences(self) -> Iterator[tuple[str, dict[str, Any]]]:
        figures = self.figures
        if figures.seconds_of_audio:
            facts = {
                "audio_seconds": round(figures.seconds_of_audio, 1),
                "seconds": round(self.seconds, 3),
                "realtime_factor": round(self.speed, 2),
            }
            text = f"{audio(figures.seconds_of_audio)} of audio in {self.seconds:.1f}s"
            yield f"{text}, {self.speed:.1f} times real time", facts
        for name, server in figures.servers.items():
            yield f"server {name} | {' | '.join(_requests(server))}", _server(name, server)
        if figures.errors:
            yield f"errors | {_listed(figures.errors)}", {"errors": dict(figures.errors)}
        if self.left is not None:
            left, pending = self.left, counted(self.left.pending, "pending chunk")
            states = f"{pending}, {left.failed:,} of them failed before | {left.parked:,} parked"
            yield f"left | {states}", {"left": asdict(left)}

    def write(self, path: Path) -> None:
        """Write the document, whole or not at all; a failure causes a warning."""
        try:
            write_whole(path, json.dumps(self._document(), indent=2, default=str) + "\n")
        except OSError as error:
            cannot_write("summary", path, error)

    def _document(self) -> dict[str, Any]:
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
            "chunks": {outcome: figures.chunks[outcome] for outcome in ENDS},
            "audio_seconds": {o: round(figures.audio[o], 2) for o in ENDS},
            "realtime_factor": round(self.speed, 3),
            "servers": [_server(name, server) for name, server in figures.servers.items()],
            "errors": dict(figures.errors),
            "left": None if self.left is None else asdict(self.left),
        }


def _server(name: str, figures: ServerFigures) -> dict[str, Any]:
    return {
        "server": name,
        "answered": figures.answered,
        "failed": figures.failed,
        "retries": figures.retries,
        "median_seconds": _rounded(figures.times.percentile(50)),
        "p95_seconds": _rounded(figures.times.percentile(95)),
        "errors": dict(figures.errors),
    }


def _requests(figures: ServerFigures) -> Iterator[str]:
    yield counted(figures.answered, "answer")
    median, most = figures.times.percentile(50), figures.times.percentile(95)
    if median is not None and most is not None:
        yield f"median {median:.2f}s, 95% within {most:.2f}s"
    if figures.failed:
        yield f"{figures.failed} failed: {_listed(figures.errors)}"


def _listed(errors: Counter[FailureKind]) -> str:
    return " ".join(f"{kind}={count}" for kind, count in errors.most_common())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
