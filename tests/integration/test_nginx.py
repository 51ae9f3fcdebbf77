"""Two replicas behind nginx by deploy/nginx/nginx.conf: what is particular to gRPC passes."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.chaos.fleet import Fleet, free_ports
from tests.chaos.watching import metrics, until_idle
from tests.integration.calls import Calls, refusal
from tests.integration.process import ROOT
from tests.integration.test_tasks import prices

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is missing: apt-get install --no-install-recommends nginx-light"
)

CONFIG = ROOT / "deploy/nginx/nginx.conf"
ENDLESS = 10_000_000
GENERATE = 'method="/seqserve.v1.TextGeneration/Generate"'
LIMIT_S = 30


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(tiny_repository: Path) -> AsyncIterator[Fleet]:
    async with Fleet(tiny_repository, 2, {"MAX_TOKENS": str(ENDLESS)}) as fleet:
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxied(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    """Calls to nginx, which runs by the example with other addresses alone."""
    assert NGINX is not None
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    text = CONFIG.read_text()
    actual = {
        "127.0.0.1:50050": f"127.0.0.1:{port}",
        "127.0.0.1:50051": fleet.server(0).address,
        "127.0.0.1:50052": fleet.server(1).address,
    }
    text = re.sub("|".join(map(re.escape, actual)), lambda named: actual[named[0]], text)
    assert all(one in text for one in actual.values())
    (folder / "nginx.conf").write_text(text)
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr", stderr=asyncio.subprocess.PIPE
    )
    try:
        async with aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)]
        ) as channel:
            async with asyncio.timeout(LIMIT_S):
                await channel.channel_ready()
            yield Calls(channel)
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert b"[emerg]" not in errors, errors


async def ended(fleet: Fleet, label: str = "") -> list[float]:
    """Calls that have ended at each replica, of those with this label."""
    found = await asyncio.gather(*(metrics(fleet.server(index)) for index in range(2)))
    return [
        sum(
            value
            for name, value in one.items()
            if name.startswith("seqserve_requests_total") and label in name
        )
        for one in found
    ]


async def test_unary_calls_of_one_connection_go_to_every_replica(proxied: Calls, fleet: Fleet) -> None:
    before = await ended(fleet, "TextClassification")
    direct = await asyncio.gather(*(proxied.classify(["good film"]) for _ in range(40)))
    assert all(one == direct[0] for one in direct)
    after = await ended(fleet, "TextClassification")
    assert sum(after) - sum(before) == 40
    assert all(later > earlier for later, earlier in zip(after, before, strict=True))


async def test_text_comes_while_it_is_written_and_a_cancel_frees_its_slot(
    proxied: Calls, fleet: Fleet
) -> None:
    """The text is longer than all that can be on its way: it does not end as long as nobody reads it."""
    before = await ended(fleet, GENERATE)
    stream = proxied.generation.Generate(
        generation.GenerateRequest(model="letters", prompt="a", max_tokens=ENDLESS, seed=1)
    )
    async with asyncio.timeout(LIMIT_S):
        assert (await stream.read()).token_count >= 1
        assert await ended(fleet, GENERATE) == before, "the call has ended"
        stream.cancel()
        while sum(await ended(fleet, GENERATE)) == sum(before):  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.05)
        await asyncio.gather(*(until_idle(fleet.server(index)) for index in range(2)))
    assert sum(await ended(fleet, 'code="CANCELLED"')) == 1


async def test_whole_text_is_that_of_the_replica(proxied: Calls, fleet: Fleet) -> None:
    asked: dict[str, Any] = {"prompt": "abc", "max_tokens": 500, "seed": 7}
    async with fleet.server(0).channel() as channel:
        direct = await Calls(channel).generate(**asked)
    assert (await proxied.generate(**asked)).text == direct.text


async def test_errors_come_with_their_details(proxied: Calls) -> None:
    refused = await refusal(proxied.classify(["good", ""]))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert list(refused.violations) == ["texts[1]"]


async def test_two_way_streams_answer_message_by_message(proxied: Calls) -> None:
    rows = [forecasting.Observation(values=row) for row in prices(8)]
    series = proxied.forecasting.ForecastStream()
    texts = proxied.classification.ClassifyStream()
    async with asyncio.timeout(LIMIT_S):
        for message in (
            forecasting.ForecastStreamRequest(model="prices", observations=rows[:7]),
            forecasting.ForecastStreamRequest(observations=rows[7:]),
        ):
            await series.write(message)
            assert (await series.read()).forecast.steps
        for number in ("1", "2"):
            await texts.write(classification.ClassifyRequest(model="moods", texts=["good"], id=number))
            assert (await texts.read()).id == number
        await asyncio.gather(series.done_writing(), texts.done_writing())
        assert [await series.read(), await texts.read()] == [aio.EOF, aio.EOF]
        assert [await series.code(), await texts.code()] == [grpc.StatusCode.OK] * 2


async def test_a_replica_that_dies_costs_no_call(proxied: Calls, fleet: Fleet) -> None:
    await fleet.kill(1)
    try:
        answers = [await proxied.classify(["good film"]) for _ in range(20)]
    finally:
        await fleet.start(1)
    assert all(one == answers[0] for one in answers)
