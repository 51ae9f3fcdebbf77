"""service.api.parsing: fields are counted as the parser of protobuf counts them."""

import time
from typing import Any

import pytest
from google.protobuf import empty_pb2
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from seqserve.v1.forecasting_pb2 import ForecastRequest, Observation, Series
from seqserve.v1.sequences_pb2 import InferRequest, InferStreamRequest, SequenceInput, StepValues
from seqserve.v1.text_classification_pb2 import ClassifyRequest
from service.api.parsing import fields_with_maps, has_more_fields, parser
from service.errors import InvalidArgument


def fields_of(message: ClassifyRequest) -> int:
    return bool(message.model) + bool(message.version) + bool(message.id) + len(message.texts)


requests = st.builds(
    ClassifyRequest,
    model=st.text(max_size=200),
    version=st.integers(0, 2**32 - 1),
    id=st.text(max_size=5),
    texts=st.lists(st.text(max_size=300), max_size=20),
)


@given(requests)
def test_count_is_that_of_the_message(message: ClassifyRequest) -> None:
    data, count = message.SerializeToString(), fields_of(message)
    assert not has_more_fields(data, count)
    if count:
        assert has_more_fields(data, count - 1)


@given(st.binary(max_size=100))
def test_count_of_any_bytes_ends_and_is_that_of_the_parser_where_it_takes_them(data: bytes) -> None:
    found = next(count for count in range(101) if not has_more_fields(data, count))
    try:
        unknown = UnknownFieldSet(empty_pb2.Empty.FromString(data))
    except DecodeError:
        return
    assert found >= len(unknown)


def test_fields_inside_a_field_are_not_counted() -> None:
    series = Series(observations=[Observation(values=[1.0])] * 1000)
    assert not has_more_fields(ForecastRequest(series=[series]).SerializeToString(), 1)


def test_entries_of_maps_inside_a_field_are_counted() -> None:
    one = SequenceInput(initial={str(index): StepValues() for index in range(1000)})
    parse, parse_stream = (parser(kind.FromString, 1000) for kind in (InferRequest, InferStreamRequest))
    data = InferRequest(inputs=[one] * 4).SerializeToString()
    with pytest.raises(InvalidArgument, match="at most 1000 fields"):
        parse(data)
    with pytest.raises(InvalidArgument, match="at most 1000 fields"):
        parse_stream(InferStreamRequest(input=one, id="i" * 40_000).SerializeToString())
    few = InferRequest(inputs=[one], model="m" * 40_000)
    assert parser(InferRequest.FromString, 1003)(few.SerializeToString()) == few


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (InferRequest, {3}),
        (InferStreamRequest, {4}),
        (ForecastRequest, set()),
        (ClassifyRequest, set()),
    ],
)
def test_fields_with_maps_are_found(message: Any, found: set[int]) -> None:
    assert fields_with_maps(message.DESCRIPTOR) == found


def test_fields_behind_a_group_are_counted() -> None:
    assert has_more_fields(b"\xfb\x07\xfc\x07" + b"\x1a\0" * 10, 10)


def test_message_of_too_many_fields_is_refused_before_it_is_parsed() -> None:
    parse = parser(ForecastRequest.FromString, 1000)
    data = b"\x1a\0" * 2_000_000
    started = time.perf_counter()
    with pytest.raises(
        InvalidArgument, match=r"a seqserve\.v1\.ForecastRequest message of at most 1000 fields"
    ):
        parse(data)
    assert time.perf_counter() - started < 0.05  # parsing takes 0.07 to 0.9 s


def test_message_of_as_many_fields_as_there_may_be_is_parsed() -> None:
    parse = parser(ClassifyRequest.FromString, 1000)
    request = ClassifyRequest(texts=["good film, and good actors as well"] * 1000)
    assert parse(request.SerializeToString()) == request
