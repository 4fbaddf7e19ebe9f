"""MongoDB with a login and with TLS, as the URI says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pymongo
import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Worlds
from tests.support.certificates import make_certificates
from tests.support.crew import Crew
from tests.support.promises import assert_kept
from tests.support.whisper import FakeWhisper

USER = "night-shift"
PASSWORD = "pa:s/s@w%rd 1"
WRONG = "wr:o/n@g"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A mongod that asks who is there."""
    with Mongod(tmp_path_factory.mktemp("guarded"), extra_args=["--auth"]) as running:
        with pymongo.MongoClient[dict[str, Any]](running.uri) as client:
            # Without any user, whoever is on the same machine may make the first one.
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
        yield running


def _uri(mongod: Mongod, password: str) -> str:
    return f"mongodb://{USER}:{quote_plus(password)}@127.0.0.1:{mongod.port}/?authSource=admin"


@pytest.mark.timeout(60)
def test_a_login_in_the_uri_is_used_and_shown_nowhere(
    guarded: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    world = worlds(_uri(guarded, PASSWORD), whisper.url)
    world.record(range(5))
    code, hand = crew.run(world)
    assert code == 0, hand.console
    assert_kept(world)
    for secret in (PASSWORD, quote_plus(PASSWORD)):
        assert secret not in hand.console + hand.log


@pytest.mark.timeout(60)
def test_a_wrong_password_is_one_line_and_exit_2(
    guarded: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    world = worlds(_uri(guarded, PASSWORD), whisper.url)
    world.record(range(5))
    code, hand = crew.run(world, env={"MONGODB_URI": _uri(guarded, WRONG)})
    assert code == 2
    [line] = hand.console.splitlines()
    assert "MONGODB_URI" in line
    assert "password" in line
    for secret in (WRONG, quote_plus(WRONG)):
        assert secret not in hand.console + hand.log
    assert len(world.pending()) == 5
    assert whisper.requests == []


@pytest.mark.timeout(60)
def test_a_user_without_rights_is_one_error_and_exit_2(
    guarded: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    world = worlds(_uri(guarded, PASSWORD), whisper.url)
    world.record(range(5))
    login = f"mongodb://nobody:{quote_plus(PASSWORD)}@127.0.0.1:{guarded.port}/?authSource=admin"
    world.client.admin.command("createUser", "nobody", pwd=PASSWORD, roles=[])
    code, hand = crew.run(world, env={"MONGODB_URI": login})
    assert code == 2, hand.console
    [line] = [line for line in hand.console.splitlines() if "ERROR" in line]
    assert "rights of that user" in line
    assert "Traceback" not in hand.console
    assert quote_plus(PASSWORD) not in hand.console + hand.log
    assert whisper.requests == []


@pytest.mark.timeout(60)
def test_tls_with_an_authority_of_its_own_works_by_the_uri(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, crew: Crew, whisper: FakeWhisper
) -> None:
    certificates = make_certificates(tmp_path)
    arguments = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates.server)]
    arguments += ["--tlsCAFile", str(certificates.authority)]
    arguments += ["--tlsAllowConnectionsWithoutCertificates"]
    with Mongod(tmp_path_factory.mktemp("tls"), extra_args=arguments) as mongod:
        worlds = Worlds(tmp_path)
        world = worlds(f"{mongod.uri}/?tls=true&tlsCAFile={certificates.authority}", whisper.url)
        world.record(range(5))
        code, hand = crew.run(world)
        assert code == 0, hand.console
        assert_kept(world)
        world.close()
