"""A flood of texts that are slow to tokenize: whoever comes later is answered all the same."""

import asyncio
from contextlib import AsyncExitStack

from seqserve.v1.text_classification_pb2 import ClassifyRequest
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.wire import fields_of, framed, wire

CONNECTIONS = 8
CALLS = 100  # of each connection, as many as may be open at a time
# Each letter and each mark is a token of its own, the most that so many characters may have.
TEXT = "a!" * 4_999
# Far more than a newcomer needs, and less than the calls need if the event loop tokenizes them all.
PATIENCE_S = 5


async def test_newcomer_is_answered_beside_a_flood_of_texts_that_are_slow_to_tokenize(
    shipped_server: ServerProcess,
) -> None:
    message = framed(ClassifyRequest(model="sentiment", texts=[TEXT]).SerializeToString())
    async with AsyncExitStack() as stack:
        flooding = [
            await stack.enter_async_context(wire(shipped_server.grpc_port)) for _ in range(CONNECTIONS)
        ]
        sending = [
            asyncio.ensure_future(one.send(one.begin(fields_of()), message))
            for one in flooding
            for _ in range(CALLS)
        ]
        await asyncio.wait(sending, timeout=1)
        async with asyncio.timeout(PATIENCE_S), shipped_server.channel(use_local_subchannel_pool=1) as other:
            [answer] = await Calls(other).classify(["good"], model="sentiment")
            assert answer.label
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
