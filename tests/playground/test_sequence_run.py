"""Whole sequences and live ones against the real server."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio

from seqserve.aio import AsyncClient
from seqserve.cli.given import Given
from seqserve.errors import InvalidArgument
from seqserve.playground.live_run import LiveRun
from seqserve.playground.sequence_run import Asked, run_sequences, table_of
from seqserve.sequence_results import SequenceOutput
from tests.integration.process import ServerProcess

ROWS = [[0.5, 1.0, 2.0], [1.5, -1.0, 3.0], [0.25, 2.0, 4.0], [1.0, 1.0, 1.0]]


@pytest_asyncio.fixture
async def client(served: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.address) as client:
        yield client


async def test_a_refused_sequence_has_a_sentence_and_the_others_their_outputs(client: AsyncClient) -> None:
    given = [Given("a", [1, 2], "line 1"), Given("b", [99], "line 2"), Given("c", [3], "line 3")]
    model = await client.model("topics")
    found = [each async for each in run_sequences(client, given, Asked(model))]
    assert [each.given.name for each in found] == ["a", "b", "c"]
    assert [each.output is not None for each in found] == [True, False, True]
    assert found[1].description.startswith("line 2: expected")
    rows = table_of(found, model).decode().splitlines()
    assert rows[0].startswith("sequence,step,label,probability a,")
    assert rows[2].startswith("b,")
    assert "line 2: expected" in rows[2]


class Live:
    """A live run, and what it was told."""

    def __init__(self, client: AsyncClient, run: LiveRun) -> None:
        self.told: asyncio.Queue[SequenceOutput | InvalidArgument] = asyncio.Queue()
        self.task = asyncio.create_task(run.follow(client, self.told.put_nowait, self.told.put_nowait))

    async def output(self) -> SequenceOutput:
        told = await self.told.get()
        assert isinstance(told, SequenceOutput)
        return told

    async def end(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def test_steps_one_by_one_and_played_give_the_rows_of_the_whole_sequence(client: AsyncClient) -> None:
    [whole] = await client.infer([ROWS], model="activity", every=True)
    run = LiveRun(await client.model("activity"), [list(row) for row in ROWS[:3]])
    live = Live(client, run)
    run.step()
    outputs = [await live.output()]
    assert (outputs[0].position, run.sent, run.is_playing) == (1, 1, False)
    run.play(500.0)
    while run.sent < 3 or outputs[-1].position < 3:
        outputs.append(await live.output())
    run.add(list(ROWS[3]))
    outputs.append(await live.output())
    found = np.concatenate([each.probabilities for each in outputs])
    np.testing.assert_array_equal(found, whole.probabilities)
    await live.end()


async def test_a_refused_step_pauses_the_run_and_the_sequence_goes_on(client: AsyncClient) -> None:
    run = LiveRun(await client.model("topics"), [1, 99, 2])
    live = Live(client, run)
    run.step()
    assert (await live.output()).position == 1
    run.step()
    assert isinstance(await live.told.get(), InvalidArgument)
    run.step()
    assert (await live.output()).position == 2
    await live.end()


async def test_the_initial_values_are_sent_with_the_first_steps_alone(client: AsyncClient) -> None:
    initial = {"image": [0.1, 0.2, 0.3, 0.4, 0.5], "speaker": [1.0, 2.0, 3.0]}
    rows = [[0.5, 1.0], [1.0, -1.0]]
    [whole] = await client.infer([rows], model="begun", every=True, initial=initial)
    run = LiveRun(await client.model("begun"), list(rows), initial)
    live = Live(client, run)
    run.step()
    run.step()
    outputs = [await live.output()]
    while outputs[-1].position < 2:
        outputs.append(await live.output())
    np.testing.assert_array_equal(np.concatenate([each.values for each in outputs]), whole.values)
    await live.end()


async def test_a_run_that_ends_with_its_tab_is_cancelled_at_the_server(
    client: AsyncClient, served: ServerProcess
) -> None:
    run = LiveRun(await client.model("activity"), [list(row) for row in ROWS])
    live = Live(client, run)
    run.step()
    await live.output()
    async with httpx.AsyncClient() as http:
        before = await cancelled_streams(http, served)
        await live.end()
        # Nothing tells when the server has seen it, but its counter.
        for _ in range(500):
            if await cancelled_streams(http, served) == before + 1:
                return
            await asyncio.sleep(0.02)
    raise AssertionError("the server did not count a cancelled stream")


async def test_a_sequence_larger_than_a_request_is_a_sentence(client: AsyncClient) -> None:
    given = [Given("1", "a" * (5 << 20), "large.txt")]
    [answered] = [each async for each in run_sequences(client, given, Asked(await client.model("sentiment")))]
    assert answered.output is None
    assert answered.description.startswith(
        "large.txt: expected a sequence that the server takes in one request"
    )


async def cancelled_streams(http: httpx.AsyncClient, served: ServerProcess) -> float:
    counter = r'^seqserve_requests_total{code="CANCELLED",method="/seqserve.v1.Sequences/InferStream"} (\S+)'
    found = re.search(counter, (await http.get(f"{served.http}/metrics")).text, re.MULTILINE)
    return float(found[1]) if found else 0.0
