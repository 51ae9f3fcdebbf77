"""The model that a command calls when none is named."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from seqserve.cli import choosing
from seqserve.cli.session import WRONG_INPUT
from seqserve.retry import Retry
from seqserve.v1 import models_pb2 as models
from tests.seqserve.command import run
from tests.seqserve.scripted_server import ScriptedServer, stock_forecast, text_pieces

READY, FAILED, LOADING = models.MODEL_STATUS_READY, models.MODEL_STATUS_FAILED, models.MODEL_STATUS_LOADING
COMMANDS = {
    "generate": "text-generation",
    "score": "text-generation",
    "classify": "text-classification",
    "forecast": "forecasting",
}
ROWS = "1\n2\n"


def serve(
    server: ScriptedServer, known: Iterable[tuple[str, int, models.ModelStatus.ValueType, str]]
) -> None:
    server.models.ClearField("models")
    for name, version, status, task in known:
        server.models.models.add(name=name, version=version, status=status, task=task)


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, server: ScriptedServer, tmp_path: Path) -> list[str]:
    server.forecasts = stock_forecast()
    server.pieces = text_pieces()
    server.scores.scores.add(perplexity=1.0, token_logprobs=[0.0])
    if request.param != "forecast":
        return [request.param, "ab"]
    (tmp_path / "rows.csv").write_text(ROWS)
    return ["forecast", "--file", str(tmp_path / "rows.csv")]


def test_only_model_of_the_task_is_called(server: ScriptedServer, command: list[str]) -> None:
    others = [(name, 1, READY, task) for name, task in COMMANDS.items() if task != COMMANDS[command[0]]]
    broken = ("broken", 1, FAILED, "")
    serve(
        server,
        [*others, ("mine", 1, READY, COMMANDS[command[0]]), ("mine", 2, READY, COMMANDS[command[0]]), broken],
    )
    result = run(server, *command)
    assert result.exit_code == 0, result.stderr
    assert {getattr(request, "model", "") for request in server.calls} == {"mine"}


def test_several_models_of_the_task_are_listed(server: ScriptedServer, command: list[str]) -> None:
    task = COMMANDS[command[0]]
    serve(server, [("b", 1, READY, task), ("a", 1, READY, task), ("c", 1, FAILED, "")])
    result = run(server, *command)
    assert result.exit_code == WRONG_INPUT
    assert result.stderr == f"error: --model: expected one of the models for {task}, a, b, found none given\n"
    assert server.calls == []


def test_no_model_of_the_task_lists_what_there_is(server: ScriptedServer, command: list[str]) -> None:
    serve(server, [("other", 1, READY, "translation"), ("broken", 2, FAILED, "")])
    result = run(server, *command)
    assert result.exit_code == WRONG_INPUT
    assert result.stderr == (
        f"error: no model for {COMMANDS[command[0]]} serves at this server; "
        "there are other 1 (translation), broken 2 (failed): seqserve models\n"
    )


def test_named_model_is_called_unseen(server: ScriptedServer) -> None:
    run(server, "classify", "ab", "--model", "named")
    assert [type(request).__name__ for request in server.requests] == ["ClassifyRequest"]


def test_models_that_still_load_are_waited_for(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "RETRY", Retry(attempts=2))
    serve(server, [("mine", 1, LOADING, "")])
    result = run(server, "score", "ab")
    assert result.exit_code == 1
    assert result.stderr == "error: the server is still loading its models; try again in a moment\n"
    assert len(server.requests) == 2
