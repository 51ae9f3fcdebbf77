"""Whole networks through the real server: the same bits alone and in any crowd."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio

from seqserve import AsyncClient
from tests.contract2 import BOTH_WAYS, EQUAL, POOLED, Reference, export, sequences_of
from tests.contract2_graphs import Net
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get

# A label a step without columns, whose arithmetic would come before the network.
EVERY = replace(BOTH_WAYS, section={"output": BOTH_WAYS.section["output"]})
NETS = (EVERY, POOLED, EQUAL)
LENGTHS = (9, 1, 9, 14, 10, 2, 9, 30, 11, 9)


@pytest_asyncio.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("whole")
    for net in NETS:
        export(net, repository)
    async with ServerProcess(repository) as server:
        yield server


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
async def test_whole_sequences_have_the_same_bits_alone_and_in_a_crowd(
    served: ServerProcess, net: Net
) -> None:
    reference, sequences = Reference(net), sequences_of(net, LENGTHS)
    async with AsyncClient(served.address) as client:
        alone = [(await client.infer([one], model=net.name, raw=True))[0] for one in sequences]
        crowd = await asyncio.gather(*(client.infer(sequences, model=net.name, raw=True) for _ in range(8)))
    for number, one in enumerate(sequences):
        np.testing.assert_array_equal(alone[number].values, reference.outputs(one))
        for answers in crowd:
            np.testing.assert_array_equal(answers[number].values, alone[number].values)


async def test_ticks_of_whole_networks_are_counted_as_such(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        await client.infer(sequences_of(POOLED, LENGTHS), model=POOLED.name)
    _, metrics = await get(f"{served.http}/metrics")
    counts = {
        kind: float(line.rpartition(" ")[2])
        for kind in ("whole", "chunk", "step")
        for line in metrics.splitlines()
        if line.startswith("seqserve_tick_seconds_count") and f'kind="{kind}"' in line and "pooled" in line
    }
    assert counts["whole"] >= 1
    assert counts["chunk"] == counts["step"] == 0
