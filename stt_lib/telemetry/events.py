"""The names of everything that is logged, for programs that read the log: they never change.

A record has a sentence for people, and an event with its facts for programs:

    log.info("Pausing until %s", time, extra=Event.SERVER_BUSY.of(server=name))
"""

from enum import StrEnum


class Event(StrEnum):
    """What happened."""

    SETTINGS = "settings"
    """A setting is questionable, such as an unknown environment variable."""
    PENDING = "pending"
    """The number of pending chunks."""
    STARTED = "started"
    """A run begins; `workers` is its number of concurrent requests."""
    PROCESSING = "processing"
    """A sequence is about to be sent."""
    COMPLETED = "completed"
    """A sequence was transcribed, or contains no speech."""
    FAILED = "failed"
    """Chunks of a sequence failed in this run."""
    SKIPPED = "skipped"
    """A sequence belongs to another worker."""
    ANSWERED = "answered"
    """A server answered a request (with `--verbose`)."""
    LEFT_ALONE = "left_alone"
    """Transcripts that were to be replaced stay as they are."""
    RETRYING = "retrying"
    """A request failed and is sent again."""
    SERVER_RESTS = "server_rests"
    """A server is in trouble and gets no requests for a while."""
    SERVER_BACK = "server_back"
    """A server answers again."""
    SERVER_SLOW = "server_slow"
    """A server needs longer than the timeouts assume."""
    SERVER_BUSY = "server_busy"
    """A server asks us to slow down."""
    SERVER_FOUND = "server_found"
    """A name has a new address: a server."""
    SERVER_GONE = "server_gone"
    """A name has lost an address: the server gets no more requests."""
    SERVER_NAME = "server_name"
    """The name of servers does not resolve."""
    SERVER_OUT = "server_out"
    """A server gets no more requests in this run: a person has to act."""
    CLAIM_TROUBLE = "claim_trouble"
    """A claim was lost, or could not be renewed or released."""
    WATCHING = "watching"
    """How a run with `--watch` learns about new chunks."""
    IDLE = "idle"
    """A run with `--watch` has had nothing to do for a while and waits."""
    WAITING = "waiting"
    """The run waits for the claims of other workers."""
    MONGODB_AWAY = "mongodb_away"
    """MongoDB does not answer; the operation is repeated."""
    INDEX = "index"
    """An index is being built, or could not be built."""
    OUT_OF_TIME = "out_of_time"
    """`--max-runtime` is nearly over: no more work is started."""
    STOPPING = "stopping"
    """A signal asked the run to stop."""
    HALTED = "halted"
    """The run cannot continue: a person has to act, or a service has to come back."""
    SUMMARY = "summary"
    """Results of a run, and what to do next."""
    FINISHED = "finished"
    """The last line of a run."""
    METRICS = "metrics"
    """Where the metrics of this run are served."""
    LOG_TROUBLE = "log_trouble"
    """The log or another report cannot be written."""
    REQUEST = "request"
    """The embedded Whisper server answered a request."""
    STACK = "stack"
    """The embedded MongoDB or Whisper server."""
    LIBRARY = "library"
    """A warning of a library; `logger` says which."""

    def of(self, **facts: object) -> dict[str, object]:
        """Return the `extra` of a log record: this event and its facts.

        Facts have the same name and unit wherever they occur: `sequence` (its start, in UTC),
        `recording`, `chunks`, `seconds`, `outcome`, `kind` (of a failure), `server`, `attempt`.
        """
        return {"event": self, "facts": facts}
