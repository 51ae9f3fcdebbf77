"""The client package and the command against the real server."""

import asyncio
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pytest

from seqserve import AsyncClient, Client, FinishReason, InvalidArgument, NotFound
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_tasks import prices


async def command(server: ServerProcess, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run `seqserve` as a process: status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from seqserve.cli import main; main()",
        "--server",
        server.address,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_sync_client_speaks_to_the_real_server(tiny_server: ServerProcess) -> None:
    with Client(tiny_server.address) as client:
        stream = client.generate("abc", model="letters", max_tokens=30, seed=1)
        pieces = [piece.text for piece in stream]
        assert "".join(pieces) == stream.text
        assert stream.finish_reason is FinishReason.LENGTH
        assert len(client.score(["abc"], model="letters")[0].token_logprobs) == 2
        assert client.classify(["a good film"], model="moods")[0].token_count == 3
        assert {
            answer.id for answer in client.classify_stream([("x", "good"), ("y", "bad")], model="moods")
        } == {"x", "y"}
        assert len(client.forecast([prices(9)], model="prices", horizon=3)[0].steps) == 3
        assert [model.name for model in client.models()] == ["letters", "letters-gru", "moods", "prices"]
        assert client.model("letters").spec["task"] == "text-generation"


def test_sync_client_raises_typed_errors(tiny_server: ServerProcess) -> None:
    with Client(tiny_server.address) as client:
        with pytest.raises(NotFound):
            client.model("nobody")
        with pytest.raises(InvalidArgument) as caught:
            client.generate("abc", model="letters", temperature=-1.0).read()
        assert [violation.field for violation in caught.value.violations] == ["temperature"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_tables_give_what_their_values_give(tiny_server: ServerProcess, make: Callable[..., Any]) -> None:
    rows = prices(9)
    names = ("open", "high", "low", "close", "volume")
    table = make(
        {name.title(): [row[place] for row in rows] for place, name in reversed([*enumerate(names)])}
    )
    with Client(tiny_server.address, timeout_s=math.inf) as client:
        expected = client.forecast([rows], model="prices")
        assert client.forecast(table, model="prices") == expected
        with client.forecast_stream(model="prices") as stream:
            assert [stream.push(table)] == expected
        with pytest.raises(InvalidArgument, match=r"row numbers that fall|missing: close"):
            client.forecast(table[::-1] if make is pd.DataFrame else table.drop("Close"), model="prices")


def test_sync_client_follows_a_series(tiny_server: ServerProcess) -> None:
    rows = prices(12)
    with Client(tiny_server.address) as client, client.forecast_stream(model="prices", horizon=2) as stream:
        found = [stream.push(rows[:8]), *(stream.push([row]) for row in rows[8:])]
        with pytest.raises(InvalidArgument, match="found 0"):
            stream.push([])
        assert found == [client.forecast([rows[:end]], model="prices", horizon=2)[0] for end in range(8, 13)]


async def test_async_client_follows_a_series(tiny_server: ServerProcess) -> None:
    rows = prices(12)
    async with AsyncClient(tiny_server.address) as client, client.forecast_stream(model="prices") as stream:
        found = [await stream.push(rows[:8]), *[await stream.push([row]) for row in rows[8:]]]
        assert found == [(await client.forecast([rows[:end]], model="prices"))[0] for end in range(8, 13)]


async def test_async_client_gives_what_the_sync_one_gives(tiny_server: ServerProcess) -> None:
    with Client(tiny_server.address) as client:
        expected = await asyncio.to_thread(
            lambda: client.generate("abc", model="letters", max_tokens=30, seed=1).read().text
        )
    async with AsyncClient(tiny_server.address) as client_async:
        assert (
            await client_async.generate("abc", model="letters", max_tokens=30, seed=1).read()
        ).text == expected


async def test_command_generates_the_text_that_the_rpc_gives(tiny_server: ServerProcess) -> None:
    with Client(tiny_server.address) as client:
        expected = await asyncio.to_thread(
            lambda: client.generate("abc", model="letters", max_tokens=30, seed=1).read().text
        )
    status, out, _ = await command(
        tiny_server, "generate", "abc", "--model", "letters", "--max-tokens", "30", "--seed", "1"
    )
    assert status == 0
    assert expected in out


async def test_command_classifies_lines_of_stdin_as_json(tiny_server: ServerProcess) -> None:
    status, out, _ = await command(
        tiny_server, "--json", "classify", "--model", "moods", stdin="a good film\nbad\n"
    )
    assert status == 0
    assert [json.loads(line)["token_count"] for line in out.splitlines()] == [3, 1]


async def test_command_forecasts_a_csv_file_of_stdin(tiny_server: ServerProcess) -> None:
    rows = "\n".join(",".join(map(str, row)) for row in prices(9))
    status, out, _ = await command(
        tiny_server, "--json", "forecast", "--model", "prices", stdin=f"open,high,low,close,volume\n{rows}\n"
    )
    assert status == 0
    assert json.loads(out)


async def test_command_scores_and_lists_models(tiny_server: ServerProcess) -> None:
    status, out, _ = await command(tiny_server, "--json", "score", "abc", "--model", "letters")
    assert status == 0
    assert json.loads(out)
    status, out, _ = await command(tiny_server, "--json", "models")
    assert status == 0
    assert "letters-gru" in out


async def test_command_shows_a_wrong_request_in_one_line_and_exits_2(tiny_server: ServerProcess) -> None:
    status, out, err = await command(tiny_server, "generate", "abc", "--model", "letters", "--top-p", "2")
    assert (status, out) == (2, "")
    assert "top_p" in err
    assert "Traceback" not in err
