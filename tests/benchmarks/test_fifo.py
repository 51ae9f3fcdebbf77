"""The FIFO server: batches as promised, answers as ours."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import client, loads
from benchmarks.baselines.fifo import FifoBatcher
from benchmarks.rows.classification_grpc import requests_of
from benchmarks.servers import Server, serve, serve_fifo
from benchmarks.workshop import Workshop
from seqserve.v1 import text_classification_pb2 as pb
from tests import tiny
from tests.benchmarks.conftest import Tiny

TEXTS_A_MESSAGE = 3


def lengths_of(batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    return np.array([[len(one)] for one in batch], np.float32)


async def test_a_full_batch_does_not_wait_and_the_rest_goes_when_the_delay_has_passed() -> None:
    sizes: list[int] = []

    def run(batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        sizes.append(len(batch))
        return lengths_of(batch)

    batcher = FifoBatcher(run)
    inputs = [np.zeros(length, np.int64) for length in range(1, 41)]
    assert [answer.tolist() for answer in await batcher.classify(inputs)] == [
        [length] for length in range(1, 41)
    ]
    assert sizes == [32, 8]
    await batcher.close()


async def test_callers_share_a_batch() -> None:
    sizes: list[int] = []

    def run(batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        sizes.append(len(batch))
        return lengths_of(batch)

    batcher = FifoBatcher(run)
    await asyncio.gather(*(batcher.classify([np.zeros(1, np.int64)]) for _ in range(5)))
    assert sizes == [5]
    await batcher.close()


async def test_an_error_goes_to_every_caller_and_the_next_batch_runs() -> None:
    def run(batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        if len(batch) == 2:
            raise ArithmeticError
        return lengths_of(batch)

    batcher = FifoBatcher(run)
    with pytest.raises(ArithmeticError):
        await batcher.classify([np.zeros(1, np.int64)] * 2)
    assert len(await batcher.classify([np.zeros(1, np.int64)])) == 1
    await batcher.close()


async def _answers(
    server: Server, messages: list[bytes]
) -> tuple[list[pb.ClassifyResponse], list[pb.ClassifyResponse]]:
    """Of unary calls, and of streams."""
    async with client.connection(server) as channel:
        unary = await client.closed_loop(channel, client.CLASSIFY, messages, in_flight=4)
        streamed = await client.stream_windowed(
            channel, client.CLASSIFY_STREAM, messages, streams=2, window=3
        )
    return [pb.ClassifyResponse.FromString(data) for data in unary], [
        pb.ClassifyResponse.FromString(data) for data in streamed
    ]


def _by_id(answers: list[pb.ClassifyResponse]) -> dict[str, list[tuple[str, int]]]:
    return {
        answer.id: [(result.label, result.token_count) for result in answer.results] for answer in answers
    }


def test_labels_ids_and_token_counts_are_those_of_ours(
    workshop: Workshop, classifier: Tiny, inputs: list[NDArray[np.int64]]
) -> None:
    messages = requests_of(classifier.model, loads.texts_of(inputs, list(tiny.WORDS)), TEXTS_A_MESSAGE)
    core = workshop.cores.server
    with serve(classifier.model.repository, core) as ours, serve_fifo(classifier.model, core) as fifo:
        found = [list(map(_by_id, workshop.run(_answers(server, messages)))) for server in (ours, fifo)]
    assert found[0][0] == found[0][1] == found[1][0] == found[1][1]
    assert len(found[0][0]) == len(messages)
