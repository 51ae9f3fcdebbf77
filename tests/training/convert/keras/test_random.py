"""Random networks, built with Keras, give the same from their files: graph, and oracle with masks."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.convert.keras.many import judged
from tests.training.convert.keras.models import FEATURES, VOCABULARY, Save, check, check_masked, tokens
from tests.training.convert.keras.networks import BETWEEN, between, random_plan

pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
# Activations that ONNX's recurrent operators have; exponential growth would compare overflow with overflow.
GATES = st.sampled_from(["sigmoid", "hard_sigmoid"])
INNER = st.sampled_from(["tanh", "softsign", "tanh", "sigmoid"])
BETWEENS = st.sampled_from(BETWEEN)
ENDS = st.sampled_from(["last", "all", "max", "mean"])


@dataclass(frozen=True)
class Plan:
    """What a random network is made of; `skips` joins each recurrent layer's input to its output."""

    recurrent: tuple[dict[str, Any], ...]
    between: tuple[str, ...]
    end: str
    skips: bool
    head: str


@st.composite
def recurrents(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["LSTM", "GRU", "SimpleRNN"]))
    options: dict[str, Any] = {"units": draw(st.integers(1, 6)), "activation": draw(INNER)}
    options["use_bias"] = draw(st.booleans())
    if kind != "SimpleRNN":
        options["recurrent_activation"] = draw(GATES)
    if kind == "GRU":
        options["reset_after"] = draw(st.booleans())
    both = draw(st.sampled_from([None, None, "concat", "sum", "mul", "ave"]))
    return {"kind": kind, "options": options, "both": both, "backwards": draw(st.booleans())}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    layers = draw(st.lists(recurrents(), min_size=1, max_size=3))
    between = [draw(BETWEENS) for _ in layers]
    head = draw(st.sampled_from(["linear", "softmax", "gelu", "none"]))
    return Plan(tuple(layers), tuple(between), draw(ENDS), draw(st.booleans()), head)


def recurrent(one: dict[str, Any], layers: Any, x: Any, *, masked: bool, returns_steps: bool) -> Any:
    kind, options = getattr(layers, one["kind"]), one["options"] | {"return_sequences": returns_steps}
    if one["both"]:
        return layers.Bidirectional(kind(**options), merge_mode=one["both"])(x)
    # Skipped steps and all steps in reverse order are refused, which has a test of its own.
    backwards = one["backwards"] and not (masked and returns_steps)
    return kind(**options, go_backwards=backwards)(x)


def built(plan: Plan, keras: Any, x: Any, *, masked: bool) -> Any:
    layers = keras.layers
    for index, (one, name) in enumerate(zip(plan.recurrent, plan.between, strict=True)):
        if not (masked and name == "conv"):
            for layer in between(name, layers):
                x = layer(x)
        is_last = index == len(plan.recurrent) - 1 and plan.end == "last"
        y = recurrent(one, layers, x, masked=masked, returns_steps=not is_last)
        x = layers.Concatenate()([x, y]) if plan.skips and not is_last else y
    if plan.end == "max" and not masked:
        x = layers.GlobalMaxPooling1D()(x)
    elif plan.end in ("mean", "max"):
        x = layers.GlobalAveragePooling1D()(x)
    return x if plan.head == "none" else layers.Dense(3, activation=plan.head)(x)


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_conversion_of_a_random_network_equals_keras(seed: int, keras: Any) -> None:
    """More of them: `python -m tests.training.convert.keras.many 300`."""
    assert not judged(random_plan(seed), keras).is_wrong


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(plan=plans())
def test_random_network_of_feature_rows_equals_keras(plan: Plan, keras: Any, saved: Save) -> None:
    x = keras.Input((None, FEATURES))
    check(keras.Model(x, built(plan, keras, x, masked=False)), saved)


@settings(max_examples=6, deadline=None, suppress_health_check=SLOW)
@given(plan=plans())
def test_random_network_of_tokens_equals_keras(plan: Plan, keras: Any, saved: Save) -> None:
    x = keras.Input((None,))
    embedded = keras.layers.Embedding(VOCABULARY, 4)(x)
    check(
        keras.Model(x, built(plan, keras, embedded, masked=False)),
        saved,
        lambda steps: tokens(steps, first=0),
    )


@settings(max_examples=10, deadline=None, suppress_health_check=SLOW)
@given(plan=plans())
def test_random_network_with_a_mask_equals_keras(plan: Plan, keras: Any, saved: Save) -> None:
    x = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(VOCABULARY, 4, mask_zero=True)(x)
    check_masked(keras.Model(x, built(plan, keras, embedded, masked=True)), saved)


@settings(max_examples=6, deadline=None, suppress_health_check=SLOW)
@given(plan=plans())
def test_random_sequential_equals_keras(plan: Plan, keras: Any, saved: Save) -> None:
    layers = keras.layers
    made: list[Any] = [keras.Input((None, FEATURES))]
    for one in plan.recurrent:
        options = one["options"] | {"return_sequences": True}
        cell = getattr(layers, one["kind"])(**options)
        made.append(layers.Bidirectional(cell, merge_mode=one["both"]) if one["both"] else cell)
    check(keras.Sequential([*made, layers.Dense(2)]), saved)
