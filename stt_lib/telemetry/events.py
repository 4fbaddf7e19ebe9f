"""The names of everything that the log tells, for programs that read it: names that stay.

A record says a sentence to a person, and to a program the event with its facts:

    log.info("Pausing until %s", time, extra=Event.SERVER_BUSY.of(server=name))
"""

from enum import StrEnum


class Event(StrEnum):
    """What happened."""

    PENDING = "pending"
    """How many chunks are pending."""
    STARTED = "started"
    """A run begins, with so many workers."""
    PROCESSING = "processing"
    """A sequence is about to be sent."""
    COMPLETED = "completed"
    """A sequence has been transcribed, or holds no speech."""
    FAILED = "failed"
    """Chunks of a sequence failed in this run."""
    SKIPPED = "skipped"
    """A sequence belongs to another worker."""
    ANSWERED = "answered"
    """A server has answered a request (with `--verbose`)."""
    LEFT_ALONE = "left_alone"
    """Transcripts that were to be done again stay as they are."""
    RETRYING = "retrying"
    """A request failed and is sent again."""
    SERVER_RESTS = "server_rests"
    """A server is in trouble and gets no requests for a while."""
    SERVER_BACK = "server_back"
    """It answers again."""
    SERVER_SLOW = "server_slow"
    """A server needs longer than the timeouts assume."""
    SERVER_BUSY = "server_busy"
    """A server asks us to slow down."""
    SERVER_OUT = "server_out"
    """A server gets no more requests in this run: a person has to act."""
    CLAIM_TROUBLE = "claim_trouble"
    """A claim was lost, or could not be renewed or given back."""
    WATCHING = "watching"
    """How a watching run learns of new chunks."""
    IDLE = "idle"
    """A watching run has had nothing to do for a while, and waits."""
    WAITING = "waiting"
    """The run waits for claims of other workers."""
    MONGODB_AWAY = "mongodb_away"
    """MongoDB does not answer; the operation is repeated."""
    INDEX = "index"
    """An index is built, or could not be."""
    OUT_OF_TIME = "out_of_time"
    """`--max-runtime` is nearly over: no more work is begun."""
    STOPPING = "stopping"
    """A signal asked the run to stop."""
    HALTED = "halted"
    """The run cannot go on: a person has to act, or something has to come back."""
    SUMMARY = "summary"
    """What a run has come to."""
    FINISHED = "finished"
    """The last line of a run."""
    METRICS = "metrics"
    """Where the metrics of this run can be read."""
    LOG_TROUBLE = "log_trouble"
    """The log or another file for people to look at cannot be written."""
    REQUEST = "request"
    """The Whisper server of ours has answered a request."""
    STACK = "stack"
    """The embedded MongoDB or Whisper server."""
    LIBRARY = "library"
    """A warning of a library that stt uses; `logger` says which."""

    def of(self, **facts: object) -> dict[str, object]:
        """The `extra` of a log record: this event and what is known of it.

        Facts have the same name and unit wherever they occur: `sequence` (when it starts, UTC),
        `recording`, `chunks`, `seconds`, `outcome`, `kind` (of a failure), `server`, `attempt`.
        """
        return {"event": self, "facts": facts}
