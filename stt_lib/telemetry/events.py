"""The names of everything that is logged, for programs that read the log: they never change.

A record has a sentence for people, and an event with its facts for programs:

    log.info("Pausing until %s", time, extra=Event.SERVER_BUSY.of(server=name))
"""

from enum import StrEnum, auto


class Event(StrEnum):
    """What happened; in the log, the names are in lower case."""

    SETTINGS = auto()  # a setting is questionable, such as an unknown environment variable
    PENDING = auto()  # the number of pending chunks
    STARTED = auto()  # a run begins; `workers` is its number of concurrent requests
    PROCESSING = auto()  # a sequence is about to be sent
    COMPLETED = auto()  # a sequence was transcribed, or contains no speech
    FAILED = auto()  # chunks of a sequence failed in this run
    SKIPPED = auto()  # a sequence belongs to another worker
    ANSWERED = auto()  # a server answered a request (with `--verbose`)
    CUT_OFF = auto()  # the audio of a chunk is incomplete
    LEFT_ALONE = auto()  # transcripts that were to be replaced stay as they are
    RETRYING = auto()  # a request failed and is sent again
    SERVER_RESTS = auto()  # a server is in trouble and gets no requests for a while
    SERVER_BACK = auto()  # a server answers again
    SERVER_SLOW = auto()  # a server needs longer than the timeouts assume
    SERVER_BUSY = auto()  # a server asks us to slow down
    SERVER_FOUND = auto()  # a name has a new address: a server
    SERVER_GONE = auto()  # a name has lost an address: the server gets no more requests
    SERVER_NAME = auto()  # the name of servers does not resolve
    SERVER_OUT = auto()  # a server gets no more requests in this run: a person has to act
    CLAIM_TROUBLE = auto()  # a claim was lost, or could not be renewed or released
    WATCHING = auto()  # how a run with `--watch` learns about new chunks
    IDLE = auto()  # a run with `--watch` has had nothing to do for a while and waits
    WAITING = auto()  # the run waits for the claims of other workers
    MONGODB_AWAY = auto()  # MongoDB does not answer; the operation is repeated
    INDEX = auto()  # an index is being built, or could not be built
    OUT_OF_TIME = auto()  # `--max-runtime` is nearly over: no more work is started
    STOPPING = auto()  # a signal asked the run to stop
    HALTED = auto()  # the run cannot continue: a person has to act, or a service has to come back
    SUMMARY = auto()  # results of a run, and what to do next
    FINISHED = auto()  # the last line of a run
    METRICS = auto()  # where the metrics of this run are served
    LOG_TROUBLE = auto()  # the log or another report cannot be written
    REQUEST = auto()  # the embedded Whisper server answered a request
    STACK = auto()  # the embedded MongoDB or Whisper server
    LIBRARY = auto()  # a warning of a library; `logger` says which

    def of(self, **facts: object) -> dict[str, object]:
        """Return the `extra` of a log record: this event and its facts.

        Facts have the same name and unit wherever they occur: `sequence` (its start, in UTC),
        `recording`, `chunks`, `seconds`, `outcome`, `kind` (of a failure), `server`, `attempt`.
        """
        return {"event": self, "facts": facts}
