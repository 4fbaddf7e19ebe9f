"""Settings: flag over environment over default, and one clear line for nonsense."""

import pytest

from docs.generate import reference
from stt_lib.config.installation import ROOT
from stt_lib.config.loader import child_environment, load, unknown_variables
from stt_lib.config.parsers import PROTOCOLS
from stt_lib.config.settings import OPTIONS, Settings
from stt_lib.errors import ConfigurationError
from stt_lib.servers import protocols


def test_a_flag_wins_over_the_environment_which_wins_over_the_default() -> None:
    assert load({}, {}).max_workers == 1
    assert load({}, {"STT_MAX_WORKERS": "4"}).max_workers == 4
    assert load({"max_workers": "2"}, {"STT_MAX_WORKERS": "4"}).max_workers == 2


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load({}, {"STT_API_KEY": "", "STT_LIMIT": ""}) == load({}, {})


def test_several_servers_are_separated_by_commas_and_named_once() -> None:
    urls = load({}, {"STT_SERVER_URL": "http://a:1/, https://b ,http://a:1"}).server_url
    assert urls == ("http://a:1", "https://b")


def test_a_server_may_name_its_protocol() -> None:
    urls = ("openai+http://a:1/v1", "whispercpp+https://b")
    assert load({"server_url": urls}, {}).server_url == urls
    assert PROTOCOLS == protocols.NAMES


def test_servers_may_be_given_one_by_one() -> None:
    assert load({"server_url": ("http://a:1", "http://b,http://c")}, {}).server_url == (
        "http://a:1",
        "http://b",
        "http://c",
    )


@pytest.mark.parametrize(
    ("text", "per_second"), [("2", 2.0), ("0.5/s", 0.5), ("30/m", 0.5), ("1800/h", 0.5)]
)
def test_rates_have_units(text: str, per_second: float) -> None:
    assert load({"rate_limit": text}, {}).rate_limit == per_second


def test_the_timeout_grows_with_the_chunks() -> None:
    assert Settings().timeout(30) == 5 + 3 * 30


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STT_MAX_WORKERS": "0"}, "STT_MAX_WORKERS must be at least 1, not '0'"),
        ({"STT_MAX_WORKERS": "-3"}, "STT_MAX_WORKERS must be at least 1, not '-3'"),
        ({"STT_MAX_WORKERS": "two"}, "STT_MAX_WORKERS must be a whole number, not 'two'"),
        ({"STT_MAX_WORKERS": "1.5"}, "STT_MAX_WORKERS must be a whole number, not '1.5'"),
        ({"STT_LIMIT": "0"}, "STT_LIMIT must be at least 1, not '0'"),
        ({"STT_TIMEOUT_BASE": "nan"}, "STT_TIMEOUT_BASE must be a number, not 'nan'"),
        ({"STT_BACKOFF_BASE": "0"}, "STT_BACKOFF_BASE must be more than 0, not '0'"),
        ({"STT_LEASE": "1"}, "STT_LEASE must be at least 3, not '1'"),
        ({"STT_RETRY_ERRORS": "maybe"}, "STT_RETRY_ERRORS must be true or false, not 'maybe'"),
        ({"STT_BACKOFF_BASE": "60"}, "--backoff-max must not be less than --backoff-base"),
        ({"STT_RETRY_ERRORS": "1", "STT_WATCH": "5"}, "--retry-errors takes what failed before"),
        ({"STT_PROTOCOL": "soap"}, "STT_PROTOCOL must be 'transcribe', 'openai'"),
        ({"STT_SERVER_URL": "soap+http://a"}, "STT_SERVER_URL has no protocol 'soap': use one of"),
        ({"STT_SERVER_URL": "openai+ftp://a"}, "STT_SERVER_URL is not a URL with a host"),
        ({"STT_RATE_LIMIT": "10/day"}, "STT_RATE_LIMIT is not a rate"),
        ({"STT_RATE_LIMIT": "fast"}, "STT_RATE_LIMIT is not a rate: give it as 2, 0.5, 10/m"),
        ({"STT_RATE_LIMIT": "0"}, "STT_RATE_LIMIT must be more than 0"),
        ({"STT_SERVER_URL": "localhost:8081"}, "STT_SERVER_URL is not a URL with a host"),
        ({"STT_SERVER_URL": "http://"}, "STT_SERVER_URL is not a URL with a host"),
        ({"STT_SERVER_URL": "http://a:port"}, "STT_SERVER_URL is not a URL"),
        ({"STT_SERVER_URL": ","}, "STT_SERVER_URL must not be empty"),
        ({"MONGODB_URI": "mongodb://"}, "MONGODB_URI has no host"),
        ({"MONGODB_URI": "mongodb://user:hunter2@/db"}, "MONGODB_URI has no host"),
        ({"MONGODB_URI": "localhost"}, "MONGODB_URI has no host"),
    ],
)
def test_nonsense_is_refused_in_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_flag_is_named_as_the_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"^--max-workers must be"):
        load({"max_workers": "x"}, {"STT_MAX_WORKERS": "4"})


def test_secrets_are_not_in_the_representation() -> None:
    settings = load({}, {"STT_API_KEY": "s3cret", "MONGODB_URI": "mongodb://u:hunter2@h"})
    assert "s3cret" not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_every_option_has_the_variable_of_its_name() -> None:
    for name, option in OPTIONS.items():
        expected = name.upper() if name.startswith("mongodb") else f"STT_{name.upper()}"
        assert option.variable == expected
        expected = "server" if name == "server_url" else name.replace("_", "-")
        assert option.flag == f"--{expected}"
        assert option.help


def test_every_default_is_what_its_own_parser_makes_of_it() -> None:
    """What help and documentation show as the default can be given as the value."""
    for option in OPTIONS.values():
        if option.shown_default and option.kind.metavar != "FILE" and option.name != "data_dir":
            assert option.kind.parse(option.shown_default) == option.default, option.name


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run make docs"
    assert all(f"`{option.variable}`" in written for option in OPTIONS.values())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_the_metrics_port_may_name_its_host(text: str, address: tuple[str, int]) -> None:
    assert load({"metrics_port": text}, {}).metrics_port == address


def test_durations_have_units() -> None:
    settings = load({"lease": "2m", "watch": "1m30s"}, {"STT_GRACE": "1h"})
    assert (settings.lease, settings.watch, settings.grace) == (120, 90, 3600)


def test_an_unknown_variable_is_reported_with_the_nearest_name() -> None:
    environment = {
        "STT_MAX_WORKER": "3",
        "STT_XYZZY": "1",
        "STT_API_KEY_FILE": "/run/key",
        "STT_MAX_WORKERS": "3",
        "PATH": "/bin",
        "STT_SERVICE_HOST": "10.0.0.1",
        "STT_WHISPER_PORT_8081_TCP_ADDR": "10.0.0.1",
    }
    assert list(unknown_variables(environment)) == [
        "STT_MAX_WORKER is not a setting and has no effect; did you mean STT_MAX_WORKERS?",
        "STT_XYZZY is not a setting and has no effect",
    ]


@pytest.mark.parametrize("key", ["schlüssel€", "two\nlines", "tab\tkey"])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^STT_API_KEY must ") as caught:
        load({}, {"STT_API_KEY": key})
    assert key not in str(caught.value)


def test_a_child_gets_the_environment_without_settings_and_their_secrets() -> None:
    names = ("PATH", "PYTHONPATH", "HF_HOME", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES")
    kept = dict.fromkeys(names, "kept")
    variables = {option.variable: "secret" for option in OPTIONS.values()}
    files = {"STT_API_KEY_FILE": "secret", "MONGODB_URI_FILE": "secret"}
    assert child_environment({**kept, **variables, **files}) == kept


def test_what_kubernetes_sets_for_a_service_is_no_setting() -> None:
    links = {
        "STT_PORT": "tcp://10.0.0.1:8081",
        "STT_METRICS_PORT": "udp://10.0.0.1:9464",
        "STT_WHISPER_PORT": "sctp://10.0.0.1:8081",
    }
    assert load({}, links) == load({}, {})
    assert list(unknown_variables(links)) == []
    assert load({"port": "1"}, links).port == 1
    with pytest.raises(ConfigurationError, match=r"^STT_PORT must be"):
        load({}, {"STT_PORT": "http://10.0.0.1:8081"})
