"""service.settings."""

import os
from pathlib import Path

import pytest

from seqserve.connection import SERVER_VARIABLE
from service.cpus import usable_cpus
from service.settings import PREFIX, Settings, SettingsRefused, read_settings

NAMES = list(Settings.model_fields)
# As long as a part of a host name may be.
LABEL = 63 * "a"
# As long as a host name may be, 253 characters.
LONGEST = f"{LABEL}.{LABEL}.{LABEL}.{LABEL[2:]}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def refusal_of(*arguments: str) -> str:
    with pytest.raises(SettingsRefused) as refusal:
        read_settings(arguments)
    return str(refusal.value)


def test_defaults_listen_on_this_machine_alone() -> None:
    settings = read_settings([])
    assert (settings.grpc_address, settings.http_address) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert settings.repository == Path("exported")
    assert settings.provider == "cpu"


def test_threads_default_to_the_cpu_quota() -> None:
    assert read_settings([]).threads == usable_cpus()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("grpc_address", "127.0.0.2:0", "127.0.0.2:0"),
        ("grpc_address", "[::1]:50051", "[::1]:50051"),
        ("grpc_address", "unix:/tmp/socket", "unix:/tmp/socket"),
        ("http_address", "[::1]:8081", "[::1]:8081"),
        ("http_address", "host-1.example_a.org:8081", "host-1.example_a.org:8081"),
        ("http_address", "localhost:65535", "localhost:65535"),
        ("http_address", "host.example.:8081", "host.example.:8081"),
        ("http_address", "a.-b-._c:8081", "a.-b-._c:8081"),
        ("http_address", f"{LABEL}.{LABEL}:8081", f"{LABEL}.{LABEL}:8081"),
        (
            "http_address",
            f"{LABEL}.{LABEL}.{LABEL}.{LABEL[2:]}:80",
            f"{LABEL}.{LABEL}.{LABEL}.{LABEL[2:]}:80",
        ),
        ("repository", "/models", Path("/models")),
        ("provider", "cuda", "cuda"),
        ("variant", "int8", "int8"),
        ("threads", "3", 3),
        ("versions", "100", 100),
        ("slots", "4096", 4096),
        ("chunk", "1", 1),
        ("chunk_rows", "9", 9),
        ("prompt_cache_bytes", "0", 0),
        ("engines", "2", 2),
        ("max_waiting", "1", 1),
        ("max_stop_strings", "0", 0),
        ("max_series", "1", 1),
        ("max_sequences", "1", 1),
        ("sequence_idle_seconds", "0.5", 0.5),
        ("stream_interval_ms", "0", 0.0),
        ("stream_interval_ms", "2.5", 2.5),
        ("drain_seconds", "0", 0.0),
        ("log_format", "json", "json"),
        ("log_level", "debug", "debug"),
        ("log_calls", "true", True),
        ("traces_endpoint", "http://127.0.0.1:4317", "http://127.0.0.1:4317"),
        ("traces_endpoint", "https://collector.example:443", "https://collector.example:443"),
        ("traces_ratio", "0.25", 0.25),
    ],
)
def test_value_is_read_from_environment_and_flag_alike(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    assert getattr(read_settings([flag_of(name), text]), name) == value
    assert getattr(read_settings([f"{flag_of(name)}={text}"]), name) == value
    monkeypatch.setenv(PREFIX + name.upper(), text)
    assert getattr(read_settings([]), name) == value


def test_sizes_of_ticks_are_measured_unless_set() -> None:
    settings = read_settings([])
    assert (settings.slots, settings.chunk, settings.chunk_rows) == (None, None, None)


def test_flag_goes_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSERVE_SLOTS", "5")
    monkeypatch.setenv("SEQSERVE_CHUNK", "6")
    settings = read_settings(["--slots", "7"])
    assert (settings.slots, settings.chunk) == (7, 6)


def test_wrong_environment_value_does_not_matter_under_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSERVE_SLOTS", "many")
    assert read_settings(["--slots", "7"]).slots == 7


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("threads", "0", "expected at least 1, "),
        ("threads", "many", "expected a whole number, "),
        ("threads", "", "expected a whole number, "),
        ("threads", "2.5", "expected a whole number, "),
        ("versions", "101", "expected at most 100, "),
        ("slots", "0", "expected at least 1, "),
        ("slots", "4097", "expected at most 4096, "),
        ("chunk", "-1", "expected at least 1, "),
        ("chunk_rows", "0", "expected at least 1, "),
        ("prompt_cache_bytes", "-1", "expected at least 0, "),
        ("engines", "0", "expected at least 1, "),
        ("max_waiting", "0", "expected at least 1, "),
        ("max_message_bytes", "10", "expected at least 1024, "),
        ("max_text_length", "0", "expected at least 1, "),
        ("max_items", "0", "expected at least 1, "),
        ("max_observations", "0", "expected at least 1, "),
        ("max_tokens", "0", "expected at least 1, "),
        ("max_stop_strings", "-1", "expected at least 0, "),
        ("max_stop_length", "0", "expected at least 1, "),
        ("stream_in_flight", "0", "expected at least 1, "),
        ("max_series", "0", "expected at least 1, "),
        ("max_sequences", "0", "expected at least 1, "),
        ("sequence_idle_seconds", "0", "expected more than 0, "),
        ("stream_buffer", "0", "expected at least 1, "),
        ("stream_interval_ms", "-1", "expected at least 0, "),
        ("stream_interval_ms", "nan", "expected at most 1000, "),
        ("drain_seconds", "-0.5", "expected at least 0, "),
        ("drain_seconds", "inf", "expected at most 86400, "),
        ("provider", "tpu", "'cpu' or 'cuda'"),
        ("variant", "fp16", "'fp32' or 'int8'"),
        ("log_format", "xml", "'auto', 'console' or 'json'"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("grpc_address", "50051", "must be HOST:PORT"),
        ("grpc_address", ":50051", "must be HOST:PORT"),
        ("grpc_address", "localhost:", "must be HOST:PORT"),
        ("grpc_address", "localhost:65536", "must be HOST:PORT"),
        ("grpc_address", "localhost:http", "must be HOST:PORT"),
        ("grpc_address", "localhost:²", "must be HOST:PORT"),
        ("grpc_address", "unix:", "must be HOST:PORT"),
        ("grpc_address", "unix-abstract:name", "must be HOST:PORT"),
        ("grpc_address", "unix-abstract:5", "must be HOST:PORT"),
        ("grpc_address", "*:50051", "must be HOST:PORT"),
        ("grpc_address", "a..b:5000", "must be HOST:PORT"),
        ("grpc_address", "a..:5000", "must be HOST:PORT"),
        ("grpc_address", ".a:5000", "must be HOST:PORT"),
        ("grpc_address", f"{LABEL}a:5000", "must be HOST:PORT"),
        ("http_address", f"a.{LABEL}a.b:5000", "must be HOST:PORT"),
        ("http_address", f"{LONGEST}a:80", "must be HOST:PORT"),
        ("grpc_address", "::1:50051", "must be HOST:PORT"),
        ("grpc_address", "[::1:50051", "must be HOST:PORT"),
        ("grpc_address", "[localhost]:50051", "must be HOST:PORT"),
        ("grpc_address", "ipv4:127.0.0.1:50051", "must be HOST:PORT"),
        ("grpc_address", "dns:///localhost:50051", "must be HOST:PORT"),
        ("http_address", "http://localhost:8080", "must be HOST:PORT"),
        ("http_address", "8080", "must be HOST:PORT"),
        ("log_calls", "perhaps", "expected true or false, "),
        ("traces_endpoint", "collector:4317", "must be http://HOST:PORT"),
        ("traces_endpoint", "http://collector", "must be http://HOST:PORT"),
        ("traces_endpoint", "http://collector:4317/v1/traces", "must be http://HOST:PORT"),
        ("traces_endpoint", "grpc://collector:4317", "must be http://HOST:PORT"),
        ("traces_ratio", "1.5", "expected at most 1, "),
        ("traces_ratio", "nan", "expected at most 1, "),
    ],
)
def test_wrong_value_is_refused_with_name_range_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), text)
    message = refusal_of()
    assert message.startswith(f"{PREFIX}{name.upper()}: ")
    assert expected in message
    assert message.endswith(f"found {text!r}")


def test_wrong_flag_is_refused_like_its_variable() -> None:
    assert refusal_of("--slots=0") == "SEQSERVE_SLOTS: expected at least 1, found '0'"


def test_every_wrong_setting_has_its_line() -> None:
    lines = refusal_of("--slots=0", "--chunk=x", "--provider=tpu").splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "SEQSERVE_CHUNK",
        "SEQSERVE_PROVIDER",
        "SEQSERVE_SLOTS",
    ]


def test_http_on_a_unix_socket_is_refused() -> None:
    assert (
        refusal_of("--http-address=unix:/tmp/socket")
        == "settings: http_address must be HOST:PORT, found unix:/tmp/socket"
    )


@pytest.mark.parametrize(
    ("grpc", "http", "is_refused"),
    [
        ("127.0.0.1:5000", "127.0.0.1:5000", True),
        ("localhost:5000", "LOCALHOST:5000", True),
        ("localhost:5000", "127.0.0.1:5000", True),
        ("localhost:5000", "[::1]:5000", True),
        ("127.0.0.1:5000", "[::]:5000", True),
        ("127.0.0.1:5000", "0.0.0.0:05000", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:5000", "127.0.0.1:5001", False),
        ("127.0.0.1:5000", "127.0.0.2:5000", False),
        ("unix:/tmp/a:5000", "127.0.0.1:5000", False),
    ],
)
def test_equal_ports_are_refused_where_the_hosts_overlap(grpc: str, http: str, is_refused: bool) -> None:
    arguments = [f"--grpc-address={grpc}", f"--http-address={http}"]
    if not is_refused:
        assert read_settings(arguments).http_address == http
        return
    assert refusal_of(*arguments) == (
        "settings: SEQSERVE_GRPC_ADDRESS and SEQSERVE_HTTP_ADDRESS must have different ports, "
        f"found {grpc} and {http}"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("SEQSERVE_SLOT", "; did you mean SEQSERVE_SLOTS?"),
        ("SEQSERVE_GRPC_ADRESS", "; did you mean SEQSERVE_GRPC_ADDRESS or SEQSERVE_HTTP_ADDRESS?"),
        ("seqserve_repositry", "; did you mean SEQSERVE_REPOSITORY?"),
        ("SEQSERVE_COLOUR", "; python -m service --help lists the settings"),
        ("--slot", "; did you mean --slots?"),
        ("--max-token=5", "; did you mean --max-tokens or --tokens or --max-stop-length?"),
        ("--grpc_address=localhost:1", "; did you mean --grpc-address or --http-address?"),
        ("--colour", "; python -m service --help lists the settings"),
    ],
)
def test_unknown_setting_is_refused_with_those_like_it(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    is_flag = given.startswith("--")
    if not is_flag:
        monkeypatch.setenv(given, "5")
    name = given.partition("=")[0]
    assert refusal_of(*([given] if is_flag else [])) == f"{name}: no such setting{expected}"


def test_every_unknown_setting_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSERVE_SLOT", "5")
    assert len(refusal_of("--slot", "5", "--chunks=3").splitlines()) == 3


@pytest.mark.parametrize("name", ["SEQUENCE_SLOT", SERVER_VARIABLE])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5")
    read_settings([])


@pytest.mark.parametrize("arguments", [["--slot", "5"], ["--no-such-flag"], ["stray"]], ids=" ".join)
def test_unknown_flag_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, SettingsRefused)) as refusal:
        read_settings(arguments)
    assert arguments[0] in f"{refusal.value}{capsys.readouterr().err}"


def test_help_names_every_flag_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        read_settings(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert all(flag_of(name) in text for name in NAMES)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_cannot_be_changed() -> None:
    settings = read_settings([])
    with pytest.raises(ValueError, match="frozen"):
        settings.slots = 3  # type: ignore[misc]


@pytest.mark.parametrize(("items", "waiting", "most"), [(256, 1024, 256), (256, 100, 100)])
def test_request_never_holds_more_items_than_the_queue(items: int, waiting: int, most: int) -> None:
    assert read_settings([f"--max-items={items}", f"--max-waiting={waiting}"]).max_request_items == most


# Who can connect, and in the clear.


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1"],
)
def test_plaintext_is_refused_where_others_can_connect(address: str) -> None:
    text = refusal_of("--grpc-address", address)
    assert all(
        one in text
        for one in (address, "SEQSERVE_ALLOW_PLAINTEXT", "SEQSERVE_TLS_CERTIFICATE", "SEQSERVE_TLS_KEY")
    )
    assert read_settings(["--grpc-address", address, "--allow-plaintext", "true"]).allow_plaintext
    assert (
        read_settings(
            ["--grpc-address", address, "--tls-certificate", "c.pem", "--tls-key", "k.pem"]
        ).grpc_address
        == address
    )


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/tmp/socket"]
)
def test_plaintext_is_served_to_this_machine(address: str) -> None:
    assert read_settings(["--grpc-address", address]).grpc_address == address


def test_requests_over_http_are_refused_in_the_clear_where_others_can_connect() -> None:
    arguments = ["--http-address", "0.0.0.0:1", "--http-api", "true"]
    tls = ["--tls-certificate", "c.pem", "--tls-key", "k.pem"]
    text = refusal_of(*arguments)
    assert all(one in text for one in ("SEQSERVE_HTTP_ADDRESS 0.0.0.0:1", "SEQSERVE_HTTP_TLS"))
    assert "SEQSERVE_HTTP_ADDRESS" in refusal_of(*arguments, *tls)
    for more in ([*tls, "--http-tls", "true"], ["--allow-plaintext", "true"]):
        assert read_settings([*arguments, *more]).http_api
    assert not read_settings(arguments[:2]).http_api


def test_tls_over_http_needs_a_certificate() -> None:
    assert "SEQSERVE_HTTP_TLS must come with SEQSERVE_TLS_CERTIFICATE" in refusal_of("--http-tls", "true")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--tls-certificate", "c.pem"), "both or neither"),
        (("--tls-key", "k.pem"), "both or neither"),
        (("--tls-client-ca", "a.pem"), "must come with"),
    ],
)
def test_half_a_tls_setting_is_refused(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refusal_of(*arguments)
