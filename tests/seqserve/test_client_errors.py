"""Every failure of a call is one SeqserveError with all that the server said of it, through both clients."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from seqserve import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotServed,
    Overloaded,
    PermissionDenied,
    SeqserveError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from seqserve.errors import from_rpc_error, from_status
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces


def status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    found = Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        found.details.append(packed)
    return found


BAD_REQUEST = status(
    grpc.StatusCode.INVALID_ARGUMENT,
    "texts are wrong",
    ErrorInfo(reason="BAD_TEXT", domain="seqserve", metadata={"limit": "10"}),
    BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field="texts[2]", description="at most 10 characters, found 11")
        ]
    ),
)
FULL = status(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "queue is full",
    RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.FAILED_PRECONDITION, NotServed),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.UNIMPLEMENTED, Unimplemented),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.INTERNAL, ServerFailure),
        (grpc.StatusCode.DATA_LOSS, ServerFailure),
    ],
)
def test_each_code_has_its_error(
    client: Client, server: ScriptedServer, code: grpc.StatusCode, kind: type[SeqserveError]
) -> None:
    server.failure = Status(code=code.value[0], message="the reason")
    with pytest.raises(SeqserveError, match=r"^the reason$") as caught:
        client.score(["ab"])
    assert type(caught.value) is kind
    assert caught.value.code is code
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_an_unknown_code_is_a_server_failure() -> None:
    error = from_status(Status(code=99, message="odd"))
    assert (type(error), error.code) == (ServerFailure, grpc.StatusCode.UNKNOWN)


def _assert_bad_request(error: InvalidArgument) -> None:
    assert str(error) == "texts are wrong"
    assert error.violations == (("texts[2]", "at most 10 characters, found 11"),)
    assert (error.reason, error.metadata) == ("BAD_TEXT", {"limit": "10"})


def test_unary_errors_carry_the_details(client: Client, server: ScriptedServer) -> None:
    server.failure = BAD_REQUEST
    with pytest.raises(InvalidArgument) as caught:
        client.classify(["ab"])
    _assert_bad_request(caught.value)


async def test_unary_errors_of_the_asyncio_client_carry_the_details(server: ScriptedServer) -> None:
    server.failure = BAD_REQUEST
    async with AsyncClient(server.address) as client:
        with pytest.raises(InvalidArgument) as caught:
            await client.classify(["ab"])
    _assert_bad_request(caught.value)


def test_stream_errors_come_after_the_text_before_them(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.failure = text_pieces()[:2], FULL
    stream = client.generate()
    with pytest.raises(Overloaded, match="queue is full") as caught:
        stream.read()
    assert caught.value.retry_after_s == 1.5
    assert (stream.text, stream.finish_reason) == ("To be or", None)


async def test_stream_errors_of_the_asyncio_client_come_after_the_text_before_them(
    server: ScriptedServer,
) -> None:
    server.pieces, server.failure = text_pieces()[:2], FULL
    async with AsyncClient(server.address, retry=None) as client:
        stream = client.generate()
        with pytest.raises(Overloaded, match="queue is full") as caught:
            await stream.read()
    assert caught.value.retry_after_s == 1.5
    assert (stream.text, stream.finish_reason) == ("To be or", None)


def test_overload_without_a_hint_has_no_retry_time(client: Client, server: ScriptedServer) -> None:
    server.failure = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")
    with pytest.raises(Overloaded) as caught:
        client.models()
    assert caught.value.retry_after_s is None


def test_a_text_without_a_finish_reason_is_a_server_failure(client: Client, server: ScriptedServer) -> None:
    server.pieces = text_pieces()[:1]
    with pytest.raises(ServerFailure, match="finish reason"):
        client.generate().read()


def test_no_server_is_unavailable() -> None:
    with Client("127.0.0.1:1", retry=None) as client, pytest.raises(Unavailable):
        client.models()


async def test_no_server_is_unavailable_to_the_asyncio_client() -> None:
    async with AsyncClient("127.0.0.1:1", retry=None) as client:
        with pytest.raises(Unavailable):
            await client.generate().read()


@pytest.mark.parametrize("per_call", [True, False], ids=["given to the call", "given to the client"])
def test_timeouts_are_kept(server: ScriptedServer, per_call: bool) -> None:
    server.pieces, server.holds = text_pieces(), True
    with (
        Client(server.address, timeout_s=WAIT_S if per_call else 0.2) as client,
        pytest.raises(DeadlineExceeded),
    ):
        (client.generate(timeout_s=0.2) if per_call else client.generate()).read()


def test_no_timeout_given_to_a_call_overrides_that_of_the_client(server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    with Client(server.address, timeout_s=0.000_001) as client:
        assert client.generate(timeout_s=None).read().text == "To be or"


def test_details_that_contradict_the_status_do_not_hide_it() -> None:
    class Contradiction(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

        def details(self) -> str:
            return "no such model"

        def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:  # type: ignore[override]
            return (("grpc-status-details-bin", FULL.SerializeToString()),)

    error = from_rpc_error(Contradiction())
    assert (type(error), str(error)) == (NotFound, "no such model")
