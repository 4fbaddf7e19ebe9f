from collections.abc import Callable, Iterator

import pytest

from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import protocols
from stt_lib.servers.protocols import Options, Request
from stt_lib.servers.transport import Channel, http_channels
from tests.servers.asking import NOTHING_ASKED, SEGMENT, answer
from tests.support.speech import spoken_chunks
from tests.support.whisper import FakeWhisper, Reply, running


@pytest.fixture
def server() -> Iterator[FakeWhisper]:
    with running(lambda _: answer(language="en", segments=[SEGMENT])) as fake:
        yield fake


@pytest.fixture
def channel() -> Iterator[Channel]:
    opened = http_channels()()
    yield opened
    opened.close()


@pytest.fixture
def chunks() -> tuple[Chunk, ...]:
    return spoken_chunks("library")


@pytest.fixture
def ask(
    server: FakeWhisper, channel: Channel, chunks: tuple[Chunk, ...]
) -> Iterator[Callable[..., Answer]]:
    def ask(
        protocol: str,
        *replies: Reply,
        options: Options = NOTHING_ASKED,
        audio: tuple[Chunk, ...] = chunks,
        path: str = "",
        shown: str = "http://stt",
    ) -> Answer:
        """Post to the server; it gives these answers in turn, the last one for ever."""
        if replies:
            queue = list(replies)
            server.script = lambda _: queue.pop(0) if len(queue) > 1 else queue[0]
        request = Request(channel, server.url + path, options, shown, seconds=20)
        return protocols.post(protocol, request, audio)

    yield ask
    protocols._plays_all.clear()
