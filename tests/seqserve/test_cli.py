"""The command as a whole: its options, how failures end, and the list of models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from typer.testing import CliRunner

from seqserve.cli.app import app
from seqserve.v1 import models_pb2 as models
from tests.seqserve.command import run
from tests.seqserve.scripted_server import ScriptedServer


@pytest.fixture
def known(server: ScriptedServer) -> ScriptedServer:
    server.models.models.add(
        name="charlm",
        version=3,
        status=models.MODEL_STATUS_READY,
        task="text-generation",
        cell="lstm",
        layers=2,
        hidden=512,
        variant="fp32",
        provider="CPUExecutionProvider",
        batch_invariant=True,
        metrics={"perplexity": 3.75, "accuracy": 0.5},
        spec_json='{"contract": 1}',
    )
    server.models.models.add(
        name="bad", version=1, status=models.MODEL_STATUS_FAILED, message="sha256: expected a, found b"
    )
    return server


def test_models_is_a_table_of_tab_separated_values_in_a_pipe(known: ScriptedServer) -> None:
    lines = [line.split("\t") for line in run(known, "models").stdout.splitlines()]
    assert lines == [
        ["name", "version", "status", "task", "cell", "size", "variant", "provider", "message"],
        ["charlm", "3", "ready", "text-generation", "lstm", "2x512", "fp32", "CPU", ""],
        ["bad", "1", "failed", "", "", "", "", "", "sha256: expected a, found b"],
    ]


def test_one_model_is_shown_with_its_message(known: ScriptedServer) -> None:
    result = run(known, "models", "bad", "--version", "1")
    assert "message\tsha256: expected a, found b\n" in result.stdout
    assert known.requests == [models.GetModelRequest(model="bad", version=1)]


def test_models_as_json_is_one_object_a_line_and_the_spec_comes_with_one_alone(known: ScriptedServer) -> None:
    listed = [json.loads(line) for line in run(known, "models", "--json").stdout.splitlines()]
    assert [(each["name"], each["status"], "spec" in each) for each in listed] == [
        ("charlm", "ready", False),
        ("bad", "failed", False),
    ]
    assert json.loads(run(known, "models", "charlm", "--json").stdout)["spec"] == {"contract": 1}


@pytest.mark.parametrize(
    "arguments", [["--json", "models"], ["models", "--json"]], ids=["before the command", "after the command"]
)
def test_common_options_stand_before_or_after_the_command(
    known: ScriptedServer, arguments: list[str]
) -> None:
    assert run(known, *arguments).stdout.startswith("{")


def test_the_option_after_the_command_wins(known: ScriptedServer) -> None:
    result = CliRunner().invoke(app, ["--server", "127.0.0.1:1", "models", "--server", known.address])
    assert result.exit_code == 0


@pytest.mark.parametrize("place", ["before", "after"])
def test_an_infinite_timeout_is_no_deadline(known: ScriptedServer, place: str) -> None:
    arguments = ["--timeout", "inf", "models"] if place == "before" else ["models", "--timeout", "inf"]
    assert run(known, *arguments).exit_code == 0


@pytest.mark.parametrize("value", ["nan", "-inf", "0", "-1", "1e10", "1e300"])
def test_timeouts_that_grpc_cannot_hold_are_refused_by_name(known: ScriptedServer, value: str) -> None:
    result = run(known, "models", "--timeout", value)
    assert (result.exit_code, "--timeout" in result.stderr, known.requests) == (2, True, [])


def test_a_wrong_request_exits_with_2_and_names_the_field(server: ScriptedServer) -> None:
    server.failure = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="1 field is wrong")
    packed = Any()
    packed.Pack(
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field="version", description="expected 1 or 2, found 3")
            ]
        )
    )
    server.failure.details.append(packed)
    result = run(server, "score", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: 1 field is wrong\n  version: expected 1 or 2, found 3\n"


def test_overload_exits_with_1_and_says_when_to_come_back(server: ScriptedServer) -> None:
    server.failure = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="queue is full")
    packed = Any()
    packed.Pack(RetryInfo(retry_delay=Duration(nanos=250_000_000)))
    server.failure.details.append(packed)
    result = run(server, "score", "ab")
    assert (result.exit_code, result.stderr) == (1, "error: queue is full\n  try again in 0.25 s\n")


def test_no_server_exits_with_1_and_no_traceback() -> None:
    result = CliRunner().invoke(app, ["--server", "127.0.0.1:1", "models"], catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['rich'] = None; from seqserve.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: the seqserve command needs rich, of its extra 'cli': run 'make")


def test_playground_without_its_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['nicegui'] = None; from seqserve.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "playground"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: the playground needs nicegui, of seqserve's extra 'playground': run"
    )
    assert len(result.stderr.splitlines()) == 1


def test_load_shows_what_serves_and_unload_is_silent(server: ScriptedServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    assert "version\t9\n" in run(server, "--token-file", str(token), "load", "charlm").stdout
    assert server.metadata["authorization"] == "Bearer s3cret"
    assert "version\t9\n" in run(server, "load", "charlm", "--allow-interface-change").stdout
    assert run(server, "unload", "charlm", "--version", "3").stdout == ""
    assert server.requests == [
        models.LoadModelRequest(model="charlm"),
        models.LoadModelRequest(model="charlm", allow_interface_change=True),
        models.UnloadModelRequest(model="charlm", version=3),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "nowhere"], "error: --token-file: "),
        (["--tls-ca", "nowhere"], "error: TLS: "),
        (["--tls-certificate", "nowhere"], "error: TLS: key: expected a certificate and its key"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_files_that_cannot_be_used_are_a_usage_error(
    server: ScriptedServer, options: list[str], message: str
) -> None:
    result = run(server, *options, "models")
    assert (result.exit_code, result.stderr.startswith(message)) == (2, True)


def test_empty_token_file_is_a_usage_error(server: ScriptedServer, tmp_path: Path) -> None:
    empty = tmp_path / "token"
    empty.touch()
    assert "expected one line, a token" in run(server, "--token-file", str(empty), "models").stderr
