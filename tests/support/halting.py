"""The worker, which kills or freezes itself when it first comes to a given point of its work.

    python -m tests.support.halting POINT kill|freeze [ARGUMENTS OF stt.py]

What a test from outside can only hope to hit is hit exactly this way, and the process dies, or
stands still, as it would by a signal from anywhere.
"""

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from stt_lib.cli import main
from stt_lib.servers.pool import ServerPool
from stt_lib.store.chunks import Chunks
from stt_lib.store.claims import Claims
from stt_lib.store.seams import Seams
from stt_lib.store.transcripts import Transcripts

POINTS: dict[str, tuple[type, str, bool]] = {
    "claiming": (Claims, "acquire", False),
    "claimed": (Claims, "acquire", True),
    "loaded": (Chunks, "load", True),
    "answered": (ServerPool, "transcribe", True),
    "agreeing": (Seams, "decide", False),  # only where speech was cut
    "agreed": (Seams, "decide", True),
    "saving": (Transcripts, "save", False),
    "saved": (Transcripts, "save", True),
    "marked": (Chunks, "mark", True),
    "released": (Claims, "release", True),
}
"""For each point: a method, and whether the point is after it or before it."""

AGAIN_POINTS: dict[str, tuple[type, str, bool]] = {
    "claimed": (Claims, "acquire", True),
    "answered": (ServerPool, "transcribe", True),
    "replacing": (Transcripts, "replace", False),
    "copied": (Transcripts, "_copy_to_history", True),
    "replaced": (Transcripts, "replace", True),
}
"""The same where a transcript is replaced; their names begin with `again:`."""

_ALL = {**POINTS, **{f"again:{name}": point for name, point in AGAIN_POINTS.items()}}

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def halt_at(point: str, how: str) -> None:
    """Make this process send itself the signal, once."""
    owner, name, is_after = _ALL[point]
    method: Callable[..., Any] = getattr(owner, name)
    once = threading.Lock()

    def halt() -> None:
        if once.acquire(blocking=False):
            # To this very thread, so that it does not get one step further.
            signal.pthread_kill(threading.get_ident(), SIGNALS[how])

    def halting(*args: Any, **named: Any) -> Any:
        if not is_after:
            halt()
        result = method(*args, **named)
        if is_after:
            halt()
        return result

    setattr(owner, name, halting)


if __name__ == "__main__":
    halt_at(sys.argv[1], sys.argv[2])
    sys.exit(main(sys.argv[3:]))
