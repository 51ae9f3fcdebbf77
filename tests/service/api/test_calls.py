"""service.api.calls, around handlers made up for the purpose."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from grpc import aio
from structlog.testing import capture_logs

from seqserve.v1.models_pb2 import GetModelRequest
from service.security.access import Access
from tests.service.api.handlers import KINDS, PATIENCE_S, Bench, bench_of, hanging
from tests.service.api.rich import status_in, unpack


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("UnaryUnary", [b"fine"]),
        ("UnaryStream", [b"first", b"fine"]),
        ("StreamUnary", [b"done"]),
        ("StreamStream", [b"fine"]),
        ("WritesByItself", [b"first", b"fine"]),
    ],
)
async def test_good_call_passes_and_counts_as_ok(bench: Bench, kind: str, answers: list[bytes]) -> None:
    assert await bench.call(kind, b"fine") == answers
    assert await bench.count(kind, "OK") == 1


async def test_unknown_method_is_unimplemented(bench: Bench) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await bench.channel.unary_unary("/test.Handlers/Missing")(b"")
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_grpc_itself_repeats_a_refused_call_when_the_server_says() -> None:
    """The client's own backoff would be a minute, and the test is over long before."""
    policy = {
        "maxAttempts": 2,
        "initialBackoff": "60s",
        "maxBackoff": "60s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with bench_of(options=[("grpc.service_config", config)]) as bench:
        error = await bench.error_of("UnaryUnary", b"overloaded")
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await bench.count("UnaryUnary", "RESOURCE_EXHAUSTED") == 2


# Calls that only watch.


async def test_idle_does_not_wait_for_calls_that_only_watch(bench: Bench) -> None:
    call = await hanging(bench, "Unawaited")
    async with asyncio.timeout(PATIENCE_S):
        await bench.calls.running.idle()
    call.cancel()


async def test_call_that_only_watches_is_not_withdrawn(bench: Bench) -> None:
    call = await hanging(bench, "Unawaited")
    bench.calls.running.withdraw()
    await bench.call("UnaryUnary", b"fine")
    assert not call.done()
    call.cancel()


# Bytes that are no message.


@pytest.mark.parametrize("kind", ["Parsed", "ParsedStream"])
@pytest.mark.parametrize(
    "data",
    [b"\xff\xff", b"\x0a\x03\xed\xa0\x80", b"\x0a\x05ab"],
    ids=["garbage", "lone surrogate", "cut short"],
)
async def test_bytes_that_do_not_parse_are_the_callers_mistake(bench: Bench, kind: str, data: bytes) -> None:
    with capture_logs() as logs:
        error = await bench.error_of(kind, data)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = unpack(status_in(error))["BadRequest"].field_violations
    assert violation.field == "request"
    assert violation.description.startswith(
        f"expected a seqserve.v1.GetModelRequest message, found {len(data)} bytes that are none"
    )
    assert logs == []
    assert await bench.count(kind, "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("kind", ["Parsed", "ParsedStream"])
async def test_message_reaches_its_handler_parsed(bench: Bench, kind: str) -> None:
    assert await bench.call(kind, GetModelRequest(model="letters").SerializeToString()) == [b"letters"]


# Rights. What they are is tested with service.security.access.


async def test_handler_knows_the_holder_of_the_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        call = bench.channel.unary_unary("/test.Handlers/UnaryUnary")(
            b"who", metadata=(("authorization", "Bearer secret"),)
        )
        assert dict(await call.trailing_metadata()) == {"subject": "keeper", "may-administer": "True"}


async def test_handler_of_a_call_without_token_knows_no_name(bench: Bench) -> None:
    call = bench.start("UnaryUnary", b"who")
    assert dict(await call.trailing_metadata()) == {"subject": "", "may-administer": "False"}


@pytest.mark.parametrize("kind", KINDS)
async def test_call_without_its_right_does_not_reach_its_handler(tmp_path: Path, kind: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        error = await bench.error_of(kind, b"hang")
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not bench.handlers.is_waiting.is_set()
