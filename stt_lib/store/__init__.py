"""The user's MongoDB: the only package that knows its queries.

Every query may be repeated after a lost answer without a different effect. Times are the
database's own: the clocks of the workers do not matter.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Self, TypeVar

from stt_lib import timing as real
from stt_lib.store.change_stream import ChangeStream
from stt_lib.store.chunks import Chunks
from stt_lib.store.claims import Claims
from stt_lib.store.database import Database
from stt_lib.store.diagnostics import Diagnostics
from stt_lib.store.dropped import Dropped
from stt_lib.store.failures import Failures
from stt_lib.store.indexes import Indexes
from stt_lib.store.recordings import Recordings
from stt_lib.store.seams import Seams
from stt_lib.store.search import Search
from stt_lib.store.statistics import Statistics
from stt_lib.store.transcripts import Transcripts
from stt_lib.timing import Event, Timing

T = TypeVar("T")


class Store:
    """The user's database. Thread-safe."""

    def __init__(
        self,
        uri: str,
        database: str | None = None,
        *,
        lease: float = 60.0,
        mongo_wait: float = 60.0,
        stop: Event | None = None,
        timing: Timing = real.REAL,
    ) -> None:
        """Connect; `lease` and `mongo_wait` in seconds, `database` instead of the URI's.

        Once `stop` is set, an operation waits for MongoDB only a few seconds more.

        Raises:
            ConfigurationError: the URI or the name is unusable, or the login is refused.
            StoreUnavailable: no usable server answered within five seconds.
        """
        stop = stop or timing.event()
        self._db = Database(uri, database, mongo_wait=mongo_wait, stop=stop, timing=timing)
        self.indexes = Indexes(self._db)
        self.claims = Claims(self._db, lease, timing)
        self.chunks = Chunks(self._db, self.indexes, timing)
        self.failures = Failures(self._db, self.chunks, self.claims)
        self.transcripts = Transcripts(self._db, self.indexes, timing)
        self.search = Search(self._db, timing)
        self.recordings = Recordings(self._db, self.indexes)
        self.seams = Seams(self._db)
        self.dropped = Dropped(self._db)
        self.statistics = Statistics(self._db, self.indexes, self.chunks)
        self.diagnostics = Diagnostics(self._db)
        self.change_stream = ChangeStream(self._db)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._db.raw.name

    @property
    def address(self) -> str:
        """Hosts and ports, without user and password."""
        return self._db.address

    def now(self) -> datetime:
        """The time by the database's clock (UTC)."""
        return self._db.now()

    def with_retries(self, operation: Callable[[], T]) -> T:
        """Repeat a reading operation while MongoDB is away, for up to `mongo_wait` seconds."""
        return self._db.run(operation, seconds=None)
