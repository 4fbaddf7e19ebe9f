import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests
from starlette.types import Message
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn

from stt_lib.audio.decoding import Samples
from stt_lib.errors import ServerMisconfigured
from stt_lib.local.server.app import create_app
from stt_lib.local.server.service import Service
from stt_lib.local.transcriber import Transcriber
from stt_lib.servers import diagnosis
from stt_lib.servers.transport import Reply
from tests.local.running import Part, parts
from tests.local.sounds import encoded, tone

SOUND = encoded(tone(1), "wav", "pcm_s16le", rate=16_000)


class BrokenTranscriber(Transcriber):
    """A model that fails in a way that nobody thought of."""

    def __init__(self) -> None:
        self.model = "broken.en"
        self.parallel = 1

    @property
    def languages(self) -> list[str]:
        return ["en"]

    def observe_batches(self, observe: Callable[[int], object]) -> None: ...

    def transcribe(
        self, audio: Samples, cancelled: Callable[[], bool], **hints: str | None
    ) -> dict[str, Any]:
        raise ZeroDivisionError("a secret of the inside")


def answer(
    service: Service, *files: Part, path: str = "/transcribe", **fields: str
) -> tuple[int, dict[str, Any]]:
    """Post files to a service without a network in between."""
    prepared = requests.Request("POST", "http://x", files=files, data=fields).prepare()
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", prepared.headers["Content-Type"].encode())],
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def post() -> None:
        messages = iter([{"type": "http.request", "body": prepared.body}])

        async def receive() -> Message:
            for message in messages:
                return message
            await asyncio.Event().wait()
            raise AssertionError

        await create_app(service)(scope, receive, send)

    asyncio.run(post())
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_defect_is_logged_here_and_not_told_there(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(BrokenTranscriber(), api_key=None, queue=1, max_bytes=100_000)
    with caplog.at_level(logging.INFO, "stt"):
        status, body = answer(service, *parts(SOUND))
    service.close()
    assert status == 500
    assert body == {"detail": "internal error; the server's log has the details"}
    assert "ZeroDivisionError" in caplog.text
    assert "POST /transcribe | 500" in caplog.text


def test_a_worker_understands_that_the_language_is_not_supported() -> None:
    service = Service(BrokenTranscriber(), api_key=None)
    file = ("file", ("a.wav", SOUND, "audio/wav"))
    status, body = answer(service, file, path="/v1/audio/transcriptions", language="de")
    service.close()
    with pytest.raises(ServerMisconfigured, match="change --language"):
        diagnosis.check_status(Reply(status, {}, json.dumps(body).encode()), "http://x", "openai")


def test_the_app_starts_and_stops_in_a_server_that_announces_both(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As Ray Serve does, and uvicorn unless it is told not to."""
    service = Service(BrokenTranscriber(), api_key=None)

    async def start_and_stop() -> None:
        config = Config(create_app(service), lifespan="on", log_config=None)
        lifespan = LifespanOn(config)
        await lifespan.startup()
        await lifespan.shutdown()
        assert not lifespan.should_exit

    with caplog.at_level(logging.INFO, "stt"):
        asyncio.run(start_and_stop())
    service.close()
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.name == "stt"]
