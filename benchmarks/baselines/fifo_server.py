"""seqserve.v1.TextClassification as a general server would serve it: asyncio, uvloop, FIFO batches, one
thread that computes.

    python -m benchmarks.baselines.fifo_server exported/sentiment/4

The same interface, tokenizer and libraries as ours; only the batching differs.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import uvloop
from grpc import aio
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.baselines.fifo import MOST_ROWS, FifoBatcher
from benchmarks.baselines.listening import announce
from benchmarks.baselines.padded import PaddedBatches
from benchmarks.models import Model, read_model
from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import (
    TextClassificationServicer,
    add_TextClassificationServicer_to_server,
)


class FifoClassification(TextClassificationServicer):
    """Classify and ClassifyStream over a batcher.

    Args:
        batcher: runs sequences.
        tokenizer: text to ids.
        labels: in the order of the outputs.
    """

    def __init__(self, batcher: FifoBatcher, tokenizer: Tokenizer, labels: list[str]) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer
        self._labels = labels

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        """Classify a few texts."""
        return await self._answer(request)

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Any
    ) -> AsyncIterator[pb.ClassifyResponse]:
        """Classify request after request, answers in order of completion."""
        answers: asyncio.Queue[pb.ClassifyResponse | None] = asyncio.Queue()

        async def answer(request: pb.ClassifyRequest) -> None:
            answers.put_nowait(await self._answer(request))

        async def read() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in request_iterator:
                    group.create_task(answer(request))
            answers.put_nowait(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while (response := await answers.get()) is not None:
                yield response

    async def _answer(self, request: pb.ClassifyRequest) -> pb.ClassifyResponse:
        inputs = [
            np.array(encoding.ids, np.int64) for encoding in self._tokenizer.encode_batch(list(request.texts))
        ]
        outputs = await self._batcher.classify(inputs)
        return pb.ClassifyResponse(
            results=[self._result(*pair) for pair in zip(outputs, map(len, inputs), strict=True)],
            id=request.id,
        )

    def _result(self, logits: NDArray[np.float32], token_count: int) -> pb.Classification:
        weights = np.exp(logits - logits.max())
        probabilities = (weights / weights.sum()).tolist()
        ranked = sorted(zip(self._labels, probabilities, strict=True), key=lambda pair: -pair[1])
        made = [pb.LabelProbability(label=label, probability=probability) for label, probability in ranked]
        return pb.Classification(
            label=made[0].label, probability=made[0].probability, probabilities=made, token_count=token_count
        )


def add_to(server: aio.Server, model: Model) -> FifoBatcher:
    """Let a server serve a classifier; the batcher is the caller's to close."""
    assert model.spec.classification is not None, "expected a classifier"
    batches = PaddedBatches(model, MOST_ROWS)
    batches.run([np.zeros(1, np.int64)] * MOST_ROWS)  # the first run allocates
    batcher = FifoBatcher(batches.run)
    add_TextClassificationServicer_to_server(
        FifoClassification(batcher, model.tokenizer(), model.spec.classification.labels), server
    )
    return batcher


async def main(folder: Path) -> None:
    """Serve until ended."""
    server = aio.server()
    add_to(server, read_model(folder))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
