"""`seqserve bench` against the real server."""

import json
from itertools import takewhile
from random import Random
from typing import Any

import pytest

from seqserve.bench.loops import poisson_arrivals
from seqserve.bench.result import FIGURES
from tests.integration.process import ServerProcess
from tests.integration.test_client import command

MODELS = {
    "generate": "letters",
    "score": "letters",
    "classify": "moods",
    "classify-stream": "moods",
    "forecast": "prices",
}


async def bench(server: ServerProcess, rpc: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status, and one object a run."""
    status, out, err = await command(
        server,
        "--json",
        "bench",
        rpc,
        "--model",
        MODELS[rpc],
        "--warmup",
        "0",
        "--lengths",
        "uniform:2:12",
        *arguments,
    )
    assert "Traceback" not in err, err
    return status, [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("rpc", list(MODELS))
async def test_every_rpc_answers_every_request(tiny_server: ServerProcess, rpc: str) -> None:
    status, (found,) = await bench(
        tiny_server,
        rpc,
        "--requests",
        "30",
        "--concurrency",
        "4",
        "--channels",
        "2",
        "--fail-over",
        "errors=0",
    )
    assert status == 0
    assert (found["rpc"], found["model"], found["version"], found["loop"]) == (rpc, MODELS[rpc], 1, "closed")
    assert (found["requests"], found["codes"], found["latency_s"]["count"]) == (30, {"OK": 30}, 30)
    assert set(found["figures"]) == set(FIGURES)
    assert 0 < found["figures"]["p50"] <= found["figures"]["p99"] <= found["figures"]["max"]
    assert found["first_token_s"]["count"] == (30 if rpc == "generate" else 0)


async def test_an_open_loop_sends_what_its_seed_says(tiny_server: ServerProcess) -> None:
    status, runs = await bench(
        tiny_server, "classify", "--rate", "80,160", "--duration", "0.5", "--seed", "5"
    )
    assert status == 0
    for rate, found in zip((80, 160), runs, strict=True):
        assert found["rate"] == rate
        assert (
            found["requests"]
            == sum(found["codes"].values())
            == len(list(takewhile(lambda at: at < 0.5, poisson_arrivals(rate, Random(5)))))
        )


async def test_tokens_are_those_asked_for(tiny_server: ServerProcess) -> None:
    status, (found,) = await bench(tiny_server, "generate", "--requests", "5", "--max-tokens", "constant:7")
    tokens = found["figures"]["tokens_per_second"] * found["window_s"]
    assert (status, round(tokens)) == (0, 35)


async def test_what_the_server_refuses_is_counted_by_code(tiny_server: ServerProcess) -> None:
    status, (found,) = await bench(tiny_server, "generate", "--requests", "4", "--max-tokens", "9999999")
    assert status == 1
    assert found["requests"] == sum(found["codes"].values()) == 4
    assert [code.split()[0] for code in found["codes"] if code != "OK"] == ["INVALID_ARGUMENT"]
