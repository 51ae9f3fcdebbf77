"""One pass of the event loop between making an answer and writing it."""

import asyncio


async def yield_before_write() -> None:
    """Let those who were given outputs in the same turn make their answers before this one is written.

    Answers that are made one after the other find their code in the processor's caches; a write between two
    of them evicts it. What that gains is in the ledger of docs/performance.md.
    """
    await asyncio.sleep(0)
