"""service.api.open_inference.parameters: every form of the same value gives the same result."""

import math
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.parameters import (
    Parameters,
    Value,
    number_of,
    set_value,
    text_of,
    truth_of,
    whole_of,
)
from service.errors import InvalidArgument

HUGE = "9" * 100_000
# No text of a number or of a truth value in JSON's form, whatever is expected.
NO_TEXTS = (
    *("", " ", " 7 ", "7 ", "\t7", "7\n", "+7", "--7", "0x10", "1_000", "1,000", "٣", "\uff17", "1/2"),
    *("007", ".5", "5.", "1e", "1e+", "e3", "NaN", "nan", "inf", "Infinity", "-Infinity", "1e3.5"),
    *("True", "TRUE", "False", "yes", "no", "on", "null", "hot", "7\x00", "\x1b[31m7", HUGE, "0." + HUGE),
)


def forms(value: Value) -> Iterator[pb.InferParameter]:
    """Every parameter that a client may send for a value."""
    if isinstance(value, bool):
        yield pb.InferParameter(bool_param=value)
        yield pb.InferParameter(string_param="true" if value else "false")
        return
    if isinstance(value, int):
        if value >= 0:
            yield pb.InferParameter(uint64_param=value)
        if abs(value) < 1 << 63:
            yield pb.InferParameter(int64_param=value)
        yield pb.InferParameter(string_param=str(value))
        if abs(value) > 1 << 53:
            return
    number = float(value)
    yield pb.InferParameter(double_param=number)
    for text in (repr(number), f"{number:.17e}", f"{number:.17E}", str(Decimal(repr(number)))):
        yield pb.InferParameter(string_param=text)


def parameters(parameter: pb.InferParameter, name: str = "x") -> Parameters:
    """The parameters of a request that has this one alone, after its way over the wire."""
    sent = pb.ModelInferRequest()
    sent.parameters[name].CopyFrom(parameter)
    return Parameters(pb.ModelInferRequest.FromString(sent.SerializeToString()).parameters, [name])


def refusal(read: object, *arguments: object) -> str:
    """The text that a value is refused with, after its parameter's name."""
    with pytest.raises(InvalidArgument) as refused:
        read(*arguments)  # type: ignore[operator]
    [violation] = refused.value.violations
    assert violation.field == arguments[0]
    assert len(violation.description) < 300
    assert violation.description.isprintable()
    return violation.description


@given(st.integers(0, 2**64 - 1) | st.integers(2**53 - 2, 2**53 + 2) | st.integers(0, 100))
def test_every_form_of_a_whole_number_is_that_number(value: int) -> None:
    assert {parameters(one).whole("x", 64) for one in forms(value)} == {value}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_form_of_a_number_is_that_number_in_32_bits(value: float) -> None:
    assert {parameters(one).number("x") for one in forms(value)} == {float(np.float32(value))}


@pytest.mark.parametrize("value", [True, False])
def test_both_forms_of_a_truth_value_are_that_value(value: bool) -> None:
    assert [parameters(one).truth("x") for one in forms(value)] == [value] * 2


@given(st.text(max_size=20))
def test_text_is_read_as_it_is(value: str) -> None:
    assert parameters(pb.InferParameter(string_param=value)).text("x") == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e3", 1000), ("1.5E1", 15), ("-0", 0), ("-0.0", 0), ("40.0", 40), ("0e99", 0), ("1e-400", 0)],
)
def test_text_of_a_number_is_read_as_json_reads_it(text: str, expected: int) -> None:
    assert whole_of("x", text, 32) == number_of("x", text) == expected


@pytest.mark.parametrize("found", [*NO_TEXTS, "true", "false", True, False], ids=lambda one: repr(one)[:20])
def test_what_is_no_number_is_refused(found: Value) -> None:
    for text in (refusal(whole_of, "x", found, 32), refusal(number_of, "x", found)):
        assert text.startswith(("expected a whole number of 0..2**32-1, found", "expected a number, found"))
        assert text.endswith(", which is no number in JSON's form") is isinstance(found, str)


@pytest.mark.parametrize(
    "found", [*NO_TEXTS, "0", "1", "1.0", 0, 1, 0.0, 1.0], ids=lambda one: repr(one)[:20]
)
def test_what_is_no_truth_value_is_refused(found: Value) -> None:
    assert refusal(truth_of, "x", found).startswith("expected true or false, found ")


@pytest.mark.parametrize("found", [True, 0, 7, 0.5], ids=repr)
def test_what_is_no_text_is_refused(found: Value) -> None:
    assert refusal(text_of, "x", found) == f"expected text, found {found!r}"


@pytest.mark.parametrize(
    "value",
    [-1, -(2**63), 2**32, 2**64 - 1, 2.5, -1.0, -0.5, 1e-9, math.nan, math.inf, -math.inf, float(2**32)],
    ids=repr,
)
def test_number_beyond_the_range_is_refused_in_every_form(value: float) -> None:
    texts = {refusal(whole_of, "x", parameters(one).value("x"), 32) for one in forms(value)}
    assert all(text.startswith("expected a whole number of 0..2**32-1, found ") for text in texts)


@pytest.mark.parametrize("found", [1e19, 2.0**53 + 2, "1e19", "9007199254740994.0"], ids=repr)
def test_whole_number_that_may_have_been_rounded_is_refused(found: Value) -> None:
    assert refusal(whole_of, "x", found, 64).startswith("expected an integer or its digits, since ")


@pytest.mark.parametrize(
    "found", [1e300, -1e300, 3.5e38, "1e39", "1e999", "9" * 64, math.nan, math.inf, -math.inf], ids=repr
)
def test_number_that_32_bits_do_not_hold_is_refused(found: Value) -> None:
    assert refusal(number_of, "x", found).startswith("expected a finite number that fits 32 bits, found ")


def test_error_says_what_was_expected_and_what_came() -> None:
    assert refusal(number_of, "temperature", "0,7") == (
        "expected a number, found the text '0,7', which is no number in JSON's form"
    )
    assert refusal(whole_of, "top_k", 2.5, 32) == "expected a whole number of 0..2**32-1, found 2.5"
    assert refusal(truth_of, "raw", "True") == "expected true or false, found the text 'True'"


@pytest.mark.parametrize("read", ["whole", "number", "truth", "text"])
def test_parameter_without_a_value_is_refused_by_name(read: str) -> None:
    arguments = ("x", 64) if read == "whole" else ("x",)
    text = refusal(getattr(parameters(pb.InferParameter()), read), *arguments)
    assert text == "expected a value, found a parameter with none set"


def test_absent_parameters_are_none_and_are_not_added() -> None:
    given: dict[str, pb.InferParameter] = {}
    absent = Parameters(given, ["x"])
    assert (absent.whole("x", 64), absent.number("x"), absent.truth("x"), absent.text("x")) == (None,) * 4
    assert (bool(absent), given) == (False, {})


def test_parameters_of_a_tensor_are_named_behind_it() -> None:
    found = Parameters({"x": pb.InferParameter(double_param=0.5)}, ["x"], "text")
    with pytest.raises(InvalidArgument, match=r"^text\.x: expected a whole number .* found 0\.5$"):
        found.whole("x", 64)
    with pytest.raises(InvalidArgument, match=r"^text: expected parameters among x, found 'y'$"):
        Parameters({"y": pb.InferParameter()}, ["x"], "text")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        *((True, "bool_param"), (False, "bool_param"), (0, "int64_param"), (2**63 - 1, "int64_param")),
        *(
            (2**63, "string_param"),
            (2**64 - 1, "string_param"),
            ("STOP", "string_param"),
            ("", "string_param"),
        ),
    ],
    ids=str,
)
def test_answers_use_the_fields_that_every_form_of_the_protocol_has(
    value: bool | int | str, field: str
) -> None:
    parameter = pb.InferParameter()
    set_value(parameter, value)
    assert parameter.WhichOneof("parameter_choice") == field
    found = parameters(parameter)
    assert value == {bool: found.truth, str: found.text}.get(type(value), lambda one: found.whole(one, 64))(
        "x"
    )
