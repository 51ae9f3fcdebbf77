"""Timeouts: infinity is no deadline, and whatever gRPC cannot hold is refused."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve import AsyncClient, Client, InvalidArgument, arguments
from tests.seqserve.scripted_server import ScriptedServer, stock_forecast, text_pieces
from tests.seqserve.test_arguments import is_refusal


@pytest.mark.parametrize("timeout_s", [math.inf, None, 1e9, np.inf], ids=str)
def test_infinity_is_no_deadline(server: ScriptedServer, timeout_s: float | None) -> None:
    server.pieces = text_pieces()
    with Client(server.address, timeout_s=timeout_s) as client:
        assert client.generate().read().text == "To be or"
        assert len(client.models(timeout_s=timeout_s)) == 3
        assert len(list(client.classify_stream([("a", "good")], timeout_s=timeout_s))) == 1
        with client.forecast_stream(timeout_s=timeout_s) as stream:
            assert stream.push([[1.0]]).last_value == 1.0


async def test_infinity_is_no_deadline_to_the_asyncio_client(server: ScriptedServer) -> None:
    server.pieces, server.forecasts = text_pieces(), stock_forecast()
    async with AsyncClient(server.address, timeout_s=math.inf) as client:
        assert (await client.generate().read()).text == "To be or"
        assert len(await client.forecast([[[1.0]]], timeout_s=math.inf)) == 1


@given(value=st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3)))
def test_a_timeout_is_one_that_grpc_holds_or_refused(value: object) -> None:
    try:
        found: Any = arguments.timeout("timeout_s", value)
    except InvalidArgument as error:
        found = error
    if isinstance(found, InvalidArgument):
        assert is_refusal(found, "timeout_s")
    else:
        assert (found is None) == (value is None or value == math.inf)
        assert found is None or 0 < found <= arguments.MAX_TIMEOUT_S
