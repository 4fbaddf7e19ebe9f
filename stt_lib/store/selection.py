"""What a person typed to name chunks, as a query that our indexes answer."""

from stt_lib.domain.models import Selection
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids


def only_selected(selection: Selection, fields: Document) -> list[Document]:
    """Stages of a pipeline that let the chunks of a selection through, with these fields.

    A query would make MongoDB read the documents: it checks what a partial index leaves out, and
    cannot know that the index is read for what it holds. A computed field it filters by the
    keys of the index alone.
    """
    conditions: list[Document] = []
    if selection.since is not None or selection.until is not None:
        conditions.append({"$eq": [{"$type": "$start"}, "date"]})
    if selection.since is not None:
        conditions.append({"$gte": ["$start", selection.since]})
    if selection.until is not None:
        conditions.append({"$lt": ["$start", selection.until]})
    if selection.recording is not None:
        ids = {"$literal": possible_ids(selection.recording)}
        conditions.append({"$in": ["$original_id", ids]})
    if not conditions:
        return [{"$project": fields}]
    computed = {**fields, "is_selected": {"$and": conditions}}
    return [{"$project": computed}, {"$match": {"is_selected": True}}]
