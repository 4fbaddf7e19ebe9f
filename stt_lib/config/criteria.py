"""Which transcripts `--retranscribe` is about, as a person writes it: `model!=large-v3`."""

import re
from typing import Final

from stt_lib.domain.models import Condition

FIELDS: Final = ("model", "server", "protocol", "language", "version")
"""What a transcript can be chosen by."""

EVERY: Final = "all"
"""In place of a condition: no matter how a transcript came about."""

_FORM: Final = re.compile(r"(\w+)\s*(!?)=\s*(\S.*)")


def parsed(text: str) -> Condition:
    """Read `FIELD=VALUE` or `FIELD!=VALUE`.

    Raises:
        ValueError: it is neither; the message says what would be.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError(f"is not {EVERY} and no condition such as model!=large-v3")
    name = form[1].lower()
    if name in ("since", "until", "recording"):
        raise ValueError(f"takes no {name}: give --{name} beside it")
    if name not in FIELDS:
        raise ValueError(f"knows no {name!r}: use one of {', '.join(FIELDS)}")
    return Condition(name, form[3].strip(), is_not=bool(form[2]))
