"""Every query: the only package that knows MongoDB.

The methods of `Store` are the verbs of the design: pending, claim, renew, release, save, mark,
fail, explain. Each may be repeated after a lost answer without a different effect, so each is.
Times are the database's own, so that the clocks of the workers do not matter.
"""

from stt_lib.store.archive import Archive
from stt_lib.store.change_stream import News
from stt_lib.store.diagnostics import Checkup
from stt_lib.store.dropped import Explanations
from stt_lib.store.ingest import Ingest
from stt_lib.store.priorities import Priorities
from stt_lib.store.revisions import Revisions
from stt_lib.store.seams import Seams
from stt_lib.store.statistics import Activity
from stt_lib.store.transcripts import Results


class Store(
    Priorities, Results, Revisions, Seams, Activity, Explanations, Checkup, Ingest, Archive, News
):
    """The user's database. Thread-safe."""
