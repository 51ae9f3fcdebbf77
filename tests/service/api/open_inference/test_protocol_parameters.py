"""service.api.open_inference.protocol_parameters: what is not honoured is refused by name."""

import time
from collections.abc import Mapping

import pytest

from seqserve.inference import grpc_service_pb2 as pb
from service.api.caller import MAX_DEADLINE_S
from service.api.open_inference.parameters import Parameters, Value
from service.api.open_inference.protocol_parameters import (
    PROTOCOL_PARAMETERS,
    apply_protocol_parameters,
    apply_timeout,
)
from service.engine.request import ANYONE, Caller
from service.errors import InvalidArgument
from tests.integration.tensors import infer_request

FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def apply(values: Mapping[str, Value], caller: Caller = ANYONE) -> Caller:
    """The caller after these parameters."""
    given = {name: pb.InferParameter(**{FIELDS[type(value)]: value}) for name, value in values.items()}  # type: ignore[arg-type]
    return apply_protocol_parameters(Parameters(given, PROTOCOL_PARAMETERS), caller)


@pytest.mark.parametrize("timeout", [2_000_000, "2000000", 2e6, "2e6"], ids=repr)
@pytest.mark.parametrize("own", [None, 1.0, 3.0], ids=["no deadline", "earlier", "later"])
def test_timeout_in_microseconds_is_a_deadline_unless_the_call_has_an_earlier_one(
    timeout: Value, own: float | None
) -> None:
    started = time.monotonic()
    caller = Caller(None if own is None else started + own, "alice")
    found = apply({"timeout": timeout}, caller)
    assert found._replace(deadline=None) == caller._replace(deadline=None)
    assert found.deadline is not None
    if own == 1.0:
        assert found.deadline == caller.deadline
    else:
        assert 2.0 <= found.deadline - started < 2.5


def test_timeout_alone_is_applied_whatever_else_there_is() -> None:
    given = infer_request("model", {}, {"horizon": 2, "timeout": "2000000"}).parameters
    deadline = apply_timeout(given, ANYONE).deadline
    assert deadline is not None
    assert 1.5 < deadline - time.monotonic() <= 2.0
    del given["timeout"]
    assert apply_timeout(given, ANYONE) is ANYONE


@pytest.mark.parametrize("timeout", [2**63 - 1, str(2**64 - 1)], ids=repr)
def test_endless_timeout_is_cut_as_the_deadlines_of_calls_are(timeout: Value) -> None:
    deadline = apply({"timeout": timeout}).deadline
    assert deadline is not None
    assert deadline - time.monotonic() <= MAX_DEADLINE_S


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", 0), ("priority", 0), ("priority", "0"), ("priority", 0.0)),
        # They are read before: service.api.open_inference.sequence_parameters.
        *(("sequence_id", 7), ("sequence_start", True), ("sequence_end", "true")),
        *(("triton_enable_empty_final_response", value) for value in (True, False, "true")),
        *(("binary_data_output", value) for value in (True, "true")),
    ],
)
def test_default_changes_nothing(name: str, value: Value) -> None:
    caller = Caller(5.0, "alice")
    assert apply({name: value}, caller) is caller


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("priority", 3, "expected 0, since all requests have the same priority, found 3"),
        ("priority", "3", "expected 0, since all requests have the same priority, found 3"),
        ("binary_data_output", False, "expected true, since answers are always raw, found false"),
        ("triton_enable_empty_final_response", 1, "expected true or false, found 1"),
        ("timeout", -1, "expected a whole number of 0..2**64-1, found -1"),
        ("timeout", 0.5, "expected a whole number of 0..2**64-1, found 0.5"),
        ("timeout", True, "expected a whole number of 0..2**64-1, found True"),
    ],
)
def test_what_the_server_does_not_do_is_refused_by_name(name: str, value: Value, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        apply({name: value})
    assert str(refused.value) == f"{name}: {text}"
