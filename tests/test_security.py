"""What must not happen: a secret sent elsewhere, a name that becomes a path, a stranger trusted."""

import ssl
from pathlib import Path

import pytest

from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.errors import ConfigurationError
from tests.support.certificates import Certificates, make_certificates
from tests.support.leaks import KEY, PASSWORD, leaks
from tests.support.whisper import FakeWhisper, running, status
from tests.support.world import World

# -- secrets from files -----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_secrets_can_come_from_files(tmp_path: Path, ending: str) -> None:
    key, uri = tmp_path / "key", tmp_path / "uri"
    key.write_text(f" s3cret {ending}", newline="")
    uri.write_text(f"mongodb://u:hunter2@h{ending}", newline="")
    settings = load({}, {"STT_API_KEY_FILE": str(key), "MONGODB_URI_FILE": str(uri)})
    assert settings.api_key == " s3cret "
    assert settings.mongodb_uri == "mongodb://u:hunter2@h"
    assert load({"api_key": "flag"}, {"STT_API_KEY_FILE": str(key)}).api_key == "flag"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "STT_API_KEY_FILE cannot be read: {} (No such file or directory)"),
        (b"", "STT_API_KEY_FILE is empty: {}"),
        (b" \n", "STT_API_KEY_FILE is empty: {}"),
        (b"s3cret\nmore\n", "STT_API_KEY_FILE has more than one line: {}"),
        (b"s3cret \xff", "STT_API_KEY_FILE is not text: {}"),
    ],
)
def test_a_file_that_holds_no_secret_is_told(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load({}, {"STT_API_KEY_FILE": str(file)})
    assert str(caught.value) == message.format(file)


def test_a_secret_is_given_once(tmp_path: Path) -> None:
    both = {"MONGODB_URI": "mongodb://a", "MONGODB_URI_FILE": str(tmp_path / "uri")}
    with pytest.raises(ConfigurationError, match="MONGODB_URI and MONGODB_URI_FILE are both set"):
        load({}, both)


def test_a_wrong_secret_in_a_file_is_told_by_the_file_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "uri"
    file.write_text("postgres://u:hunter2@h\n")
    with pytest.raises(ConfigurationError, match=r"^MONGODB_URI_FILE has no host") as caught:
        load({}, {"MONGODB_URI_FILE": str(file)})
    assert "hunter2" not in str(caught.value)


def test_a_run_takes_its_secrets_from_files(
    world: World, whisper: FakeWhisper, tmp_path: Path
) -> None:
    world.record(range(2))
    key, uri = tmp_path / "key", tmp_path / "uri"
    key.write_text("k3y-from-a-file\n")
    uri.write_text(f"{world.uri}\n")
    files = {"STT_API_KEY_FILE": str(key), "MONGODB_URI_FILE": str(uri), "MONGODB_URI": ""}
    done = world.run(env={**files, "STT_API_KEY": ""})
    assert done.returncode == 0, done.stderr
    assert whisper.requests[0].headers["x-api-key"] == "k3y-from-a-file"
    assert "k3y-from-a-file" not in world.log + done.stderr


# -- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def https(whisper: FakeWhisper, certificates: Certificates) -> str:
    """The server, which speaks TLS from now on, with a certificate that no system knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    plain = whisper._server.socket
    whisper._server.socket = context.wrap_socket(plain, server_side=True)
    return f"https://127.0.0.1:{whisper.port}"


def test_a_certificate_of_nobody_knows_whom_is_refused_before_anything_is_sent(
    world: World, whisper: FakeWhisper, https: str
) -> None:
    world.record(range(2))
    world.server_url = https
    done = world.run(env={"STT_API_KEY": "k3y"})
    assert done.returncode == 3
    assert "is not trusted: name the authority that signed it with --ca-file" in done.stderr
    assert "--ca-file" in done.stderr
    assert whisper.requests == []
    assert all("stt" not in chunk for chunk in world.pending())


def test_an_authority_of_ones_own_can_be_named(
    world: World, https: str, certificates: Certificates
) -> None:
    world.record(range(2))
    world.server_url = https
    done = world.run("--ca-file", str(certificates.authority))
    assert done.returncode == 0, done.stderr
    world.assert_all_done()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "--ca-file cannot be read"), ("not PEM", "--ca-file holds no certificates")],
)
def test_a_ca_file_that_cannot_be_used_is_told(
    world: World, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = world.run("--ca-file", str(file))
    assert done.returncode == 2
    assert message in done.stderr


# -- what goes where --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_carries_neither_key_nor_audio_to_another_host(
    world: World, whisper: FakeWhisper, code: int
) -> None:
    world.record(range(2))
    with running() as other:
        whisper.script = lambda _: status(code, Location=f"{other.url}/transcribe")
        done = world.run(env={"STT_API_KEY": "k3y"})
        assert done.returncode == 3
        assert len(whisper.requests) == 1
        assert other.requests == []


def test_the_whisper_server_listens_on_the_loopback_interface_unless_told_otherwise() -> None:
    assert Settings().host == "127.0.0.1"


def test_names_in_the_database_never_become_paths(
    world: World, whisper: FakeWhisper, tmp_path: Path
) -> None:
    """Neither on this host nor, as names of the files that are posted, on the server's."""
    outside = tmp_path / "outside"
    for evil in (f"{outside}", "../../outside", f"file://{outside}", "~/outside", "a\r\nb: c"):
        world.record([0], original_id=evil)
        world.record([0], original_id=f"format {evil}", format=evil)
    before = set(tmp_path.rglob("*"))
    done = world.run()
    assert done.returncode == 1
    created = {path.name for path in set(tmp_path.rglob("*")) - before}
    assert created <= {"stt.log", "stt.log.lock", "data", "stderr.console"}
    assert {file.name for r in whisper.sequences for file in r.files} == {"chunk_0.opus"}
    assert {chunk["stt"]["error"]["kind"] for chunk in world.pending()} == {"invalid_chunk"}
    assert len(world.pending()) == 5


# -- logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stt.log", "stt.log.3", "w1.console", "deep/serve.log"])
@pytest.mark.parametrize("leak", [KEY, PASSWORD, "what was said in confidence"])
def test_a_leak_into_any_log_is_found(tmp_path: Path, name: str, leak: str) -> None:
    """The search that ends every test with a world, and the whole suite, finds what it is for."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"one line\nand {leak} in the next\n")
    assert leaks(tmp_path, [" what was said in confidence", "3/4"]) == [f"{leak!r} in {file}"]
    file.unlink()


def test_the_planted_secrets_are_in_use(world: World, whisper: FakeWhisper) -> None:
    """Else nothing would be proved by their absence."""
    world.record(range(2))
    assert f":{PASSWORD}@" in world.env["MONGODB_URI"]
    assert world.run().returncode == 0
    assert whisper.requests[0].headers["x-api-key"] == KEY
