"""Every error that stt raises on purpose, split by what the caller does next.

SttError
├── ConfigurationError      the person has to change something; exit 2
├── InputError              a file or an id that was given cannot be used; exit 1
├── Unavailable             the run cannot go on; exit 3
│   ├── StoreUnavailable    MongoDB did not answer for as long as we are willing to wait
│   ├── ServersUnavailable  no STT server did
│   └── LocalStackError     the embedded MongoDB or Whisper server does not start
├── StoreError              MongoDB answered, and refused an operation
│   └── WriteRefused        it refuses documents: go on with the others
├── ClaimLost               somebody else holds these chunks now: drop the result
└── AttemptError            one request for one piece of audio failed
    ├── ServerTrouble       what the server does to us: try again, the audio is blameless
    │   └── ServerBusy      backpressure: wait, no attempt is spent
    ├── Suspect             a 500 or a senseless answer: the server's fault or the audio's?
    └── AudioRejected       the audio's fault: find the chunk, try the rest without it

Stopped (a BaseException)   a signal asked us to stop; no `except Exception` may swallow it
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """Why a chunk could not be transcribed; stored as `stt.error.kind` on the chunk."""

    CONNECTION = "connection"
    """The server refused or dropped the connection, or its name does not resolve."""
    TIMEOUT = "timeout"
    """No complete answer within the time allowed."""
    BUSY = "busy"
    """429 or 503: the server asks us to slow down."""
    UNAUTHORIZED = "unauthorized"
    """401 or 403: the key is missing or wrong."""
    WRONG_SERVER = "wrong_server"
    """A redirect, 404 or 405: there is no Whisper server of this protocol at that address."""
    SERVER_ERROR = "server_error"
    """A 5xx answer."""
    INVALID_ANSWER = "invalid_answer"
    """A 200 answer that is not what the protocol promises."""
    REJECTED = "rejected"
    """The server does not take this request (413 and other 4xx answers)."""
    INVALID_AUDIO = "invalid_audio"
    """The server cannot decode the audio (400, 415, 422, or a 500 that only this audio gets)."""
    INVALID_CHUNK = "invalid_chunk"
    """The document itself cannot be used: no data, no index, wrong types."""
    DUPLICATE_INDEX = "duplicate_index"
    """Another chunk of the same recording has the same index."""
    DATABASE = "database"
    """MongoDB refuses the result: a validator or an index of another program forbids it."""
    INTERNAL = "internal"
    """A defect of stt itself; the log has the stack trace."""


class SttError(Exception):
    """Base of every error that stt raises on purpose."""


class ConfigurationError(SttError):
    """A setting is missing or senseless; the message says what to do."""


class InputError(SttError):
    """A file or an id that a person gave cannot be used; the message says why."""


class Unavailable(SttError):
    """Something that the run depends on is not there."""


class StoreUnavailable(Unavailable):
    """MongoDB did not answer in time."""


class ServersUnavailable(Unavailable):
    """No STT server answered in time."""


class LocalStackError(Unavailable):
    """The embedded MongoDB or Whisper server could not be started."""


class StoreError(SttError):
    """MongoDB refused an operation; without the driver's text, which may quote documents."""


class WriteRefused(StoreError):
    """MongoDB refuses to write: a validator, a foreign unique index, the size limit.

    `ids` are the chunks concerned; the other ones of the call were written.
    """

    def __init__(self, message: str, ids: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.ids = tuple(ids)


class ClaimLost(SttError):
    """The claim expired and somebody else may hold the chunks: the result must be dropped."""


class AttemptError(SttError):
    """One request failed.

    `kind` is what is stored and counted, `server` the address of the server without secrets.
    """

    def __init__(self, kind: FailureKind, message: str, server: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.server = server


class ServerTrouble(AttemptError):
    """The server's or the network's doing; `unreachable` when nobody listens there at all."""

    unreachable = False


class ServerMisconfigured(ServerTrouble):
    """Wrong key, wrong address, wrong protocol: a person has to act."""


class ServerBusy(ServerTrouble):
    """The server asks us to slow down, and may say for how many seconds, or until when."""

    def __init__(
        self, message: str, server: str | None, retry_after: float | datetime | None
    ) -> None:
        super().__init__(FailureKind.BUSY, message, server)
        self.retry_after = retry_after


class Suspect(AttemptError):
    """A failure that may be the server's fault or the audio's."""


class AudioRejected(AttemptError):
    """A failure that points at the audio."""


class Stopped(BaseException):
    """A signal asked the run to stop."""
