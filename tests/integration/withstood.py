"""What an attack on a real server must leave as it is."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.watching import peak_bytes, reset_peak, resident_bytes
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.test_http2_abuse import answered

# Stands in what an attacker sends, and so must stand in nothing that the server writes.
MARK = "q7Zx-told-to-nobody"
PATIENCE_S = 30
QUICK_S = 5
MAX_GROWTH = 100 << 20
# gRPC's core writes lines of its own about fields that it does not understand.
_LINE_OF_CORE = re.compile(r"^[IWE]\d{4} \S+ +\d+ \w+\.cc:\d+\] ")


@asynccontextmanager
async def withstood(server: ServerProcess, max_growth: int = MAX_GROWTH) -> AsyncIterator[None]:
    """Run an attack; the server answers those who call before, beside and after it.

    It logs no error and nothing that the attacker said, and never takes much more memory than before.

    Args:
        server: that is attacked; it may have served, and logged, other things before.
        max_growth: bytes of memory that the attack may cost at its peak.
    """
    reset_peak(server)
    before, events, lines = resident_bytes(server), len(server.events), len(server.other_output)
    async with server.channel(use_local_subchannel_pool=1) as beside:
        await answered(Calls(beside))
        async with asyncio.timeout(PATIENCE_S):
            yield
        async with asyncio.timeout(QUICK_S):
            await answered(Calls(beside))
    async with asyncio.timeout(QUICK_S), server.channel(use_local_subchannel_pool=1) as after:
        await answered(Calls(after))
    grown = peak_bytes(server) - before
    assert grown < max_growth, f"{grown >> 20} MiB"
    errors = [event for event in server.events[events:] if event["level"] == "error"]
    assert not errors, errors[0]
    written = [line for line in server.other_output[lines:] if not _LINE_OF_CORE.match(line)]
    assert not written, written[0]
    assert MARK not in repr(server.events[events:]) + repr(server.other_output[lines:])
