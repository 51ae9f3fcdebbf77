"""All settings: type, default, unit, range, environment variable (SEQSERVE_*) and command-line flag.

Precedence: flag, environment, default. A wrong value or an unknown SEQSERVE_* variable stops the start;
nothing is repaired silently.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from service import flags
from service.addresses import UNIX, is_host, is_public, is_same_port
from service.contract.sentences import sentence_of
from service.cpus import usable_cpus

PREFIX = "SEQSERVE_"
PROGRAM = "python -m service"
_COLLECTOR = re.compile(r"https?://[^/?#@\s]+:[0-9]{1,5}/?")


class SettingsRefused(Exception):
    """One or more settings are wrong; the text has a line for each: name, allowed values, value found."""


class Settings(BaseSettings):
    """Server of seqserve.

    Each flag is also an environment variable: --grpc-address is SEQSERVE_GRPC_ADDRESS. To check one version
    of a model instead of serving: python -m service check FOLDER.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_use_class_docs_for_groups=True,
        cli_exit_on_error=False,
    )

    grpc_address: Annotated[str, Field(description="address of the gRPC port, HOST:PORT or unix:PATH")] = (
        "127.0.0.1:50051"
    )
    http_address: Annotated[str, Field(description="address of /metrics, /livez and /readyz, HOST:PORT")] = (
        "127.0.0.1:8080"
    )
    http_api: Annotated[
        bool, Field(description="serve the REST form of the Open Inference Protocol at the HTTP address")
    ] = False
    http_tls: Annotated[
        bool, Field(description="use the certificate of tls-certificate at the HTTP address as well")
    ] = False
    http_max_connections: Annotated[
        int,
        Field(
            ge=2,
            le=100_000,
            description="maximum open connections of the HTTP address, of which requests of the REST form "
            "hold three quarters at most; fewer where the process may have few descriptors",
        ),
    ] = 256
    http_head_seconds: Annotated[
        float, Field(gt=0, le=3600, description="time for the head of an HTTP request, seconds")
    ] = 5.0
    http_idle_seconds: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            description="time between two HTTP requests of a connection, and for a peer to take what was "
            "sent, seconds",
        ),
    ] = 60.0
    http_max_body_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=1 << 30,
            description="maximum size of the body of an HTTP request, as it is sent and decompressed, bytes",
        ),
    ] = 4 << 20
    http_request_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="time that a request of the REST form may take, its stream of answers included, "
            "seconds",
        ),
    ] = 600.0
    repository: Annotated[Path, Field(description="folder that holds the models")] = Path("exported")
    provider: Annotated[
        Literal["cpu", "cuda"], Field(description="execution provider; the service never falls back silently")
    ] = "cpu"
    variant: Annotated[
        Literal["fp32", "int8"], Field(description="weights to serve; fp32 if a model lacks int8")
    ] = "fp32"
    threads: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            default_factory=usable_cpus,
            description="threads of onnxruntime (default: the CPU quota)",
        ),
    ]
    engines: Annotated[
        int | None,
        Field(
            ge=1,
            le=64,
            description="engine threads of each model, which share the threads (default: measured)",
        ),
    ] = None
    engine_driver: Annotated[
        Literal["auto", "thread", "loop"],
        Field(description="what runs an engine's turns: a thread, the event loop, or auto (measured)"),
    ] = "auto"
    versions: Annotated[
        int, Field(ge=1, le=100, description="number of versions served of each model, the newest valid ones")
    ] = 1
    slots: Annotated[
        int | None,
        Field(ge=1, le=4096, description="maximum active sequences of each model (default: measured)"),
    ] = None
    chunk: Annotated[
        int | None, Field(ge=1, le=1024, description="maximum time steps of a chunk tick (default: measured)")
    ] = None
    chunk_rows: Annotated[
        int | None,
        Field(
            ge=1, le=4096, description="maximum sequences in a chunk tick or whole batch (default: measured)"
        ),
    ] = None
    prompt_cache_bytes: Annotated[
        int,
        Field(ge=0, le=1 << 40, description="size of the prompt cache of each model, bytes; 0 disables it"),
    ] = 16 << 20
    shared_prompt_cache: Annotated[
        bool,
        Field(
            description=(
                "share cached prompts among all callers, who can then measure what others have sent; "
                "otherwise callers of one token share, or without tokens those of one IP address"
            )
        ),
    ] = False
    max_waiting: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="maximum waiting sequences of each model; beyond it, RESOURCE_EXHAUSTED",
        ),
    ] = 1024
    max_message_bytes: Annotated[
        int, Field(ge=1024, le=1 << 30, description="maximum size of a request message, bytes")
    ] = 4 << 20
    max_answer_bytes: Annotated[
        int,
        Field(
            ge=1 << 16,
            le=1 << 30,
            description="maximum size of an answer, bytes: a request for a larger one is refused before it "
            "is computed; clients take 4 MiB unless they are told otherwise",
        ),
    ] = 4 << 20
    max_held_bytes: Annotated[
        int | None,
        Field(
            ge=1 << 20,
            le=1 << 45,
            description="bytes that requests, from their arrival to their answers, and cached prompts may "
            "hold (default: a quarter of the memory)",
        ),
    ] = None
    max_text_length: Annotated[
        int, Field(ge=1, le=100_000_000, description="maximum length of a text or prompt, characters")
    ] = 100_000
    max_items: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="maximum texts, series or sequences in a request; max-waiting is a limit, too",
        ),
    ] = 256
    max_observations: Annotated[
        int,
        Field(
            ge=1, le=10_000_000, description="maximum observations in a series, or time steps in a sequence"
        ),
    ] = 10_000
    max_tokens: Annotated[
        int, Field(ge=1, le=100_000_000, description="maximum tokens generated by a request")
    ] = 100_000
    max_stop_strings: Annotated[
        int, Field(ge=0, le=1000, description="maximum stop strings in a request")
    ] = 16
    max_stop_length: Annotated[
        int, Field(ge=1, le=100_000, description="maximum length of a stop string, characters")
    ] = 200
    stream_in_flight: Annotated[
        int, Field(ge=1, le=100_000, description="maximum unanswered requests in one stream")
    ] = 64
    max_series: Annotated[
        int, Field(ge=1, le=1_000_000, description="maximum open series or sequences in one stream")
    ] = 256
    max_sequences: Annotated[
        int,
        Field(
            ge=1,
            le=10_000_000,
            description="maximum open sequences of the Open Inference Protocol, of which one caller alone "
            "may have half; beyond it, RESOURCE_EXHAUSTED",
        ),
    ] = 4096
    sequence_idle_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="time without requests after which such a sequence is forgotten, seconds",
        ),
    ] = 60.0
    stream_buffer: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="maximum tokens buffered for a slow reader before its row is suspended",
        ),
    ] = 256
    stream_interval_ms: Annotated[
        float,
        Field(ge=0, le=1000, description="minimum time between two messages of a stream, milliseconds"),
    ] = 5.0
    drain_seconds: Annotated[
        float,
        Field(
            ge=0, le=86_400, description="time that running requests have to finish after SIGTERM, seconds"
        ),
    ] = 30.0
    grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="time between NOT_SERVING and refusing new calls after SIGTERM, seconds",
        ),
    ] = 0.0
    watch_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="interval at which the repository is polled for changes, seconds; 0 disables it",
        ),
    ] = 0.0
    allow_interface_change: Annotated[
        bool,
        Field(
            description="serve new versions that take or give something else (columns, labels, vocabulary) "
            "than the version that serves; otherwise they are refused unless Load allows it"
        ),
    ] = False
    admission_seconds: Annotated[
        float,
        Field(
            gt=0, le=3600, description="time limit of a version's trial, and of its warm-up after it, seconds"
        ),
    ] = 60.0
    admission_bytes: Annotated[
        int,
        Field(
            ge=1 << 28,
            le=1 << 45,
            description="memory limit of a version's trial, bytes: its private writable memory",
        ),
    ] = 4 << 30
    max_connections: Annotated[int, Field(ge=1, le=1_000_000, description="maximum open connections")] = 1000
    max_streams: Annotated[
        int,
        Field(
            ge=1, le=1_000_000, description="maximum concurrent calls on one connection; further calls wait"
        ),
    ] = 2048
    connection_age_seconds: Annotated[
        float,
        Field(
            ge=0, le=86_400, description="age at which a connection is asked to close, seconds; 0 disables it"
        ),
    ] = 0.0
    connection_grace_seconds: Annotated[
        float,
        Field(ge=0, le=86_400, description="time that calls on that connection have to finish, seconds"),
    ] = 60.0
    state_keys: Annotated[
        Path | None,
        Field(
            description="file of keys for state tokens, hexadecimal, one a line; the first seals, all verify"
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        Field(description="PEM file of the server's certificate chain; with tls-key, enables TLS"),
    ] = None
    tls_key: Annotated[Path | None, Field(description="PEM file of the certificate's private key")] = None
    tls_client_ca: Annotated[
        Path | None,
        Field(description="PEM file of the authorities that sign client certificates; enables mutual TLS"),
    ] = None
    tokens: Annotated[
        Path | None,
        Field(
            description="file of bearer tokens, one a line: RIGHT NAME TOKEN, where RIGHT is predict or admin"
        ),
    ] = None
    watch_engine: Annotated[
        Literal["predict", "admin", "off"],
        Field(
            description="right that Models.WatchEngine needs, which shows the sequences of all callers as "
            "numbers; off: nobody may watch"
        ),
    ] = "predict"
    allow_plaintext: Annotated[
        bool, Field(description="allow an address without TLS that other machines can reach")
    ] = False
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Field(description="log format; auto means console on a terminal, else json"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="minimum level that is logged")
    ] = "info"
    log_calls: Annotated[
        bool,
        Field(description="log a line for each finished call: method, code, seconds, caller; no contents"),
    ] = False
    traces_endpoint: Annotated[
        str | None, Field(description="OTLP/gRPC collector for traces, http://HOST:PORT or https://HOST:PORT")
    ] = None
    traces_ratio: Annotated[
        float,
        Field(ge=0, le=1, description="fraction of calls traced if the caller makes no sampling decision"),
    ] = 1.0

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value.startswith(UNIX) and len(value) > len(UNIX):
            return value
        host, colon, port = value.rpartition(":")
        is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
        if not (colon and is_port and is_host(host)):
            raise ValueError(
                "must be HOST:PORT with a port of 0..65535 (0: any free one), where HOST is a name, an IPv4 "
                "address, or an IPv6 address in brackets ([::] for all addresses), or unix:PATH for gRPC"
            )
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _is_collector(cls, value: str | None) -> str | None:
        if value is not None and not _COLLECTOR.fullmatch(value):
            raise ValueError("must be http://HOST:PORT, or https://HOST:PORT for TLS")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.http_address.startswith(UNIX):
            raise ValueError(f"http_address must be HOST:PORT, found {self.http_address}")
        if is_same_port(self.grpc_address, self.http_address):
            raise ValueError(
                "SEQSERVE_GRPC_ADDRESS and SEQSERVE_HTTP_ADDRESS must have different ports, "
                f"found {self.grpc_address} and {self.http_address}"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY must be set both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError(
                "SEQSERVE_TLS_CLIENT_CA must come with SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY"
            )
        self._check_http()
        if self.tls_certificate is None and not self.allow_plaintext and is_public(self.grpc_address):
            raise ValueError(
                f"SEQSERVE_GRPC_ADDRESS {self.grpc_address} can be reached from other machines: "
                "set SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY, "
                "or SEQSERVE_ALLOW_PLAINTEXT=true where something else ends TLS"
            )
        return self

    def _check_http(self) -> None:
        if self.http_tls and self.tls_certificate is None:
            raise ValueError("SEQSERVE_HTTP_TLS must come with SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY")
        is_open = self.http_api and not self.http_tls and is_public(self.http_address)
        if is_open and not self.allow_plaintext:
            raise ValueError(
                f"SEQSERVE_HTTP_ADDRESS {self.http_address} can be reached from other machines and "
                "SEQSERVE_HTTP_API takes requests there: set SEQSERVE_HTTP_TLS with a certificate, "
                "or SEQSERVE_ALLOW_PLAINTEXT=true where something else ends TLS"
            )

    @property
    def max_request_items(self) -> int:
        """Maximum texts, series or sequences in a request, which must all fit into the queue."""
        return min(self.max_items, self.max_waiting)


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings from flags and the environment.

    Args:
        arguments: command line without the program's name; --help prints the settings and exits.

    Raises:
        SettingsRefused: a value or a name is wrong.
    """
    names = list(Settings.model_fields)
    refused = [*flags.unknown_variables(os.environ, PREFIX, names), *flags.unknown_flags(arguments, names)]
    if refused:
        raise SettingsRefused("\n".join(refused))
    try:
        return CliApp.run(Settings, cli_args=list(arguments), cli_settings_source=flags.source_of(Settings))
    except ValidationError as error:
        raise SettingsRefused("\n".join(_line(one) for one in error.errors(include_url=False))) from error
    except SettingsError as error:
        raise SettingsRefused(f"{str(error).removeprefix('error parsing CLI: ')}; {flags.HELP}") from error


def _line(error: ErrorDetails) -> str:
    names = [str(part) for part in error["loc"]]
    if not names:
        return f"settings: {sentence_of(error)}"
    found = repr(error["input"])
    ending = f", found {found}" if error["type"] == "value_error" else ""
    return f"{PREFIX}{names[0].upper()}: {sentence_of(error, found)}{ending}"
