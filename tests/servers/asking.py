"""One request to a fake server, whose answers are written out."""

import json
from collections.abc import Callable
from typing import Any

from stt_lib.domain.models import Answer
from stt_lib.servers.protocols import Options
from tests.support.whisper import Reply

SECRET = "the text of somebody"
SEGMENT = {"start": 0, "end": 7.5, "text": " Hello there."}

NOTHING_ASKED = Options()
ALL = Options(api_key="k3y", model="tiny.en", language="en", prompt="Ahoy, ünder sail")

Ask = Callable[..., Answer]


def answer(status: int = 200, **body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def text(status: int, body: str, **headers: str) -> Reply:
    return Reply(status, body.encode(), {name.replace("_", "-"): v for name, v in headers.items()})
