"""What reaches the embedded server, here a stub in its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stt_lib.cli.session import reachable
from stt_lib.config.loader import load
from stt_lib.local import stack
from stt_lib.servers import protocols
from stt_lib.servers.protocols import Options, Request
from stt_lib.servers.transport import http_channels
from tests.support.speech import spoken_chunks
from tests.support.whisper import FakeWhisper


@pytest.mark.parametrize(
    "asked", [{"language": "de"}, {"prompt": "Grafana"}, {"language": "de", "prompt": "Grafana"}]
)
def test_the_embedded_server_gets_the_language_and_the_prompt(
    whisper: FakeWhisper, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    @contextmanager
    def running_stack(*_: Any, **__: Any) -> Iterator[stack.Stack]:
        yield stack.Stack("mongodb://nowhere", whisper.url)

    monkeypatch.setattr(stack, "running_stack", running_stack)
    with reachable(load({"local": True, **asked}), whisper=True) as places:
        [url] = places.server_url
        options = Options(places.api_key, places.model, places.language, places.prompt)
        channel = http_channels()()
        request = Request(channel, url, options, "server", seconds=20)
        protocols.post(places.protocol, request, spoken_chunks("library")[:1])
        channel.close()
    [post] = whisper.requests
    assert {name: post.fields.get(name) for name in asked} == asked
