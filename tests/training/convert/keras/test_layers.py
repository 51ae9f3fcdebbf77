"""Each layer that can be read gives what Keras computes, in the graph and in the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from tests.training.convert.keras.models import (
    FEATURES,
    VOCABULARY,
    Save,
    assert_close,
    check,
    check_masked,
    randomize,
    rows,
    run_graph,
    run_keras,
    run_oracle,
    tokens,
)
from training.convert.foreign import Refused
from training.convert.keras import read_keras

# Keras warns where a layer drops a mask, which some of these networks do on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")

Make = Callable[[Any], list[Any]]

OF_ROWS: dict[str, Make] = {
    "lstm_last": lambda k: [k.LSTM(5)],
    "lstm_all": lambda k: [k.LSTM(5, return_sequences=True)],
    "lstm_without_bias": lambda k: [k.LSTM(5, use_bias=False)],
    "lstm_hard_sigmoid": lambda k: [k.LSTM(5, recurrent_activation="hard_sigmoid")],
    "lstm_softsign": lambda k: [k.LSTM(5, activation="softsign", recurrent_activation="hard_sigmoid")],
    "lstm_elu_and_linear": lambda k: [k.LSTM(3, activation="elu", recurrent_activation="softsign")],
    "lstm_dropout_is_ignored": lambda k: [k.LSTM(5, dropout=0.5, recurrent_dropout=0.5)],
    "gru_reset_after": lambda k: [k.GRU(5, return_sequences=True)],
    "gru_reset_before": lambda k: [k.GRU(5, reset_after=False, return_sequences=True)],
    "gru_without_bias": lambda k: [k.GRU(5, use_bias=False)],
    "gru_reset_before_hard_sigmoid": lambda k: [
        k.GRU(5, reset_after=False, recurrent_activation="hard_sigmoid", activation="softsign")
    ],
    "rnn": lambda k: [k.SimpleRNN(5, return_sequences=True)],
    "rnn_linear": lambda k: [k.SimpleRNN(2, activation="linear", use_bias=False)],
    "rnn_relu": lambda k: [k.SimpleRNN(2, activation="relu")],
    "rnn_leaky_relu": lambda k: [k.SimpleRNN(2, activation="leaky_relu")],
    "backwards_last": lambda k: [k.LSTM(5, go_backwards=True)],
    "backwards_all": lambda k: [k.GRU(5, go_backwards=True, return_sequences=True)],
    "bidirectional_concat": lambda k: [k.Bidirectional(k.LSTM(5, return_sequences=True))],
    "bidirectional_last": lambda k: [k.Bidirectional(k.GRU(5), merge_mode="concat")],
    "bidirectional_sum": lambda k: [k.Bidirectional(k.GRU(5, return_sequences=True), merge_mode="sum")],
    "bidirectional_mul": lambda k: [k.Bidirectional(k.SimpleRNN(5), merge_mode="mul")],
    "bidirectional_ave": lambda k: [k.Bidirectional(k.LSTM(5, return_sequences=True), merge_mode="ave")],
    "bidirectional_of_two_kinds": lambda k: [
        k.Bidirectional(
            k.LSTM(5, return_sequences=True),
            backward_layer=k.GRU(3, return_sequences=True, go_backwards=True),
        )
    ],
    "bidirectional_activations_differ": lambda k: [
        k.Bidirectional(
            k.GRU(3, recurrent_activation="hard_sigmoid"),
            backward_layer=k.GRU(3, activation="elu", go_backwards=True, use_bias=False),
        )
    ],
    "stacked_cells": lambda k: [
        k.RNN([k.LSTMCell(5), k.GRUCell(3), k.SimpleRNNCell(2), k.GRUCell(3, reset_after=False)])
    ],
    "stacked_cells_backwards": lambda k: [
        k.RNN([k.LSTMCell(5), k.GRUCell(3)], return_sequences=True, go_backwards=True)
    ],
    "bidirectional_stacked_cells": lambda k: [k.Bidirectional(k.RNN([k.LSTMCell(5), k.GRUCell(3)]))],
    "rnn_of_a_cell": lambda k: [k.RNN(k.LSTMCell(5), return_sequences=True)],
    "time_distributed": lambda k: [k.LSTM(5, return_sequences=True), k.TimeDistributed(k.Dense(3, "relu"))],
    "layer_normalization": lambda k: [k.LayerNormalization(), k.GRU(3)],
    "layer_normalization_parts": lambda k: [
        k.LayerNormalization(scale=False), k.LayerNormalization(center=False),
        k.LayerNormalization(center=False, scale=False), k.GRU(3),
    ],
    "batch_normalization": lambda k: [k.BatchNormalization(), k.GRU(3), k.BatchNormalization(epsilon=0.1)],
    "batch_normalization_parts": lambda k: [
        k.BatchNormalization(scale=False), k.BatchNormalization(center=False), k.GRU(3),
    ],
    "of_training_alone": lambda k: [
        k.Dropout(0.5), k.SpatialDropout1D(0.5), k.GaussianNoise(0.5), k.GaussianDropout(0.5), k.GRU(3),
    ],
    "conv_causal": lambda k: [k.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="relu"), k.GRU(3)],
    "conv_same": lambda k: [k.Conv1D(3, 4, padding="same", use_bias=False), k.GRU(3, return_sequences=True)],
    "conv_groups": lambda k: [k.Conv1D(6, 2, padding="causal", groups=2), k.GRU(3)],
    "pooled_max": lambda k: [k.LSTM(5, return_sequences=True), k.GlobalMaxPooling1D()],
    "pooled_mean": lambda k: [k.LSTM(5, return_sequences=True), k.GlobalAveragePooling1D()],
    "activation_layers": lambda k: [
        k.GRU(5), k.LeakyReLU(negative_slope=0.1), k.Dense(5), k.ELU(0.5), k.Dense(5), k.ReLU(max_value=0.5),
        k.Dense(5), k.ReLU(negative_slope=0.2), k.Dense(5), k.PReLU(), k.Dense(3), k.Softmax(),
    ],
    "prelu_of_steps": lambda k: [k.PReLU(shared_axes=[1]), k.GRU(3)],
    "rescaling": lambda k: [k.Rescaling(0.5, 0.25), k.GRU(3)],
}  # fmt: skip
ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "tanh", "sigmoid", "hard_sigmoid",
    "softmax", "softplus", "softsign", "exponential", "silu", "swish", "hard_silu",
    "gelu", "mish", "hard_tanh",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_ROWS)
def test_layer_of_feature_rows_equals_keras(name: str, keras: Any, saved: Save) -> None:
    made = [keras.Input((None, FEATURES)), *OF_ROWS[name](keras.layers)]
    foreign = check(keras.Sequential(made), saved)
    assert foreign.skipped_value is None
    assert foreign.vocabulary is None
    onnx.checker.check_model(foreign.graph, full_check=True)


def test_all_activations_equal_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given = keras.Input((None, FEATURES))
    parts = [layers.Dense(3, activation=name)(given) for name in ACTIVATIONS]
    parts += [layers.Activation(name)(given) for name in ACTIVATIONS]
    check(keras.Model(given, layers.Concatenate()(parts)), saved)


def test_valid_and_strided_convolution_equals_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    made = [layers.Conv1D(3, 3, strides=2), layers.Conv1D(3, 2, dilation_rate=2), layers.GRU(3)]
    check(keras.Sequential([keras.Input((None, FEATURES)), *made]), saved, least=7)


def test_normalization_layer_equals_keras(keras: Any, saved: Save) -> None:
    layer = keras.layers.Normalization()
    layer.adapt(rows(50) * 3 + 1)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer, keras.layers.GRU(3)])
    foreign = read_keras(saved(model))
    x = rows(7)
    assert_close(run_oracle(foreign, {"input": x}), run_keras(model, x), "oracle")
    assert_close(run_graph(foreign, {"input": x}), run_keras(model, x), "graph")


def test_embedding_gives_the_vocabulary(keras: Any, saved: Save) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((None,)), layers.Embedding(VOCABULARY, 3), layers.GRU(4)])
    foreign = check(model, saved, lambda steps: tokens(steps, first=0))
    assert foreign.vocabulary == VOCABULARY
    assert foreign.skipped_value is None
    assert foreign.graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64


MASKED: dict[str, Make] = {
    "lstm": lambda k: [k.LSTM(4)],
    "gru": lambda k: [k.GRU(4)],
    "gru_reset_before": lambda k: [k.GRU(4, reset_after=False)],
    "rnn": lambda k: [k.SimpleRNN(4)],
    "rnn_of_cells": lambda k: [k.RNN([k.LSTMCell(4), k.GRUCell(3)])],
    "backwards": lambda k: [k.LSTM(4, go_backwards=True)],
    "all_steps": lambda k: [k.LSTM(4, return_sequences=True), k.Dense(3)],
    "zeros_where_skipped": lambda k: [k.LSTM(4, return_sequences=True, zero_output_for_mask=True), k.GRU(3)],
    "stack": lambda k: [k.LSTM(4, return_sequences=True), k.Dropout(0.1), k.LayerNormalization(), k.GRU(3)],
    "bidirectional": lambda k: [k.Bidirectional(k.LSTM(4, return_sequences=True)), k.Bidirectional(k.GRU(3))],
    "mean": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True)), k.GlobalAveragePooling1D()],
    "time_distributed": lambda k: [k.GRU(4, return_sequences=True), k.TimeDistributed(k.Dense(3))],
}


@pytest.mark.parametrize("name", MASKED)
def test_mask_of_an_embedding_equals_keras(name: str, keras: Any, saved: Save) -> None:
    embedding = keras.layers.Embedding(VOCABULARY, 3, mask_zero=True)
    check_masked(keras.Sequential([keras.Input((None,)), embedding, *MASKED[name](keras.layers)]), saved)


@pytest.mark.parametrize("name", MASKED)
def test_masking_layer_equals_keras(name: str, keras: Any, saved: Save) -> None:
    made = [keras.layers.Dropout(0.5), keras.layers.Masking(mask_value=0.1), *MASKED[name](keras.layers)]
    check_masked(keras.Sequential([keras.Input((None, FEATURES)), *made]), saved, value=0.1)


def test_masking_layer_in_a_functional_graph_equals_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given = keras.Input((None, FEATURES))
    x = layers.Masking(mask_value=-1.5)(given)
    x = layers.Concatenate()([layers.GRU(FEATURES, return_sequences=True)(layers.Dense(3)(x)), x])
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.GlobalAveragePooling1D()(layers.Dropout(0.1)(x))
    check_masked(keras.Model(given, layers.Dense(2)(x)), saved, value=-1.5)


def test_masking_layer_in_a_model_of_a_model_equals_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    inner = keras.Sequential([keras.Input((None, FEATURES)), layers.Masking(), layers.GRU(3)])
    given = keras.Input((None, FEATURES))
    check_masked(keras.Model(given, layers.Dense(2)(inner(given))), saved, value=0.0)


def test_masked_steps_beside_others_count(keras: Any, saved: Save) -> None:
    """Joined with steps that all count, no step is skipped: those of the mask's value are zeros alone."""
    layers = keras.layers
    given = keras.Input((None, FEATURES))
    x = layers.Concatenate()([layers.Masking(mask_value=2.0)(given), given])
    model = keras.Model(given, layers.GRU(3, return_sequences=True)(x))

    def make(steps: int) -> Any:
        x = rows(steps)
        x[:, ::3] = 2.0
        return x

    assert check(model, saved, make).skipped_value is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda k, x: k.GRU(2)(k.Masking(name="late")(k.Dense(3)(x))),
            r"\(NotEqual\): expected a Masking layer behind an input",
        ),
        (
            lambda k, x: k.Add()([k.GRU(2)(k.Masking()(x)), k.GRU(2, name="plain")(x)]),
            r"layer 'plain' \(GRU\): expected it to skip the steps whose features are all 0 .* computes",
        ),
        (
            lambda k, x: k.Add()([k.GRU(2)(k.Masking()(x)), k.GRU(2, name="ones")(k.Masking(1.0)(x))]),
            r"layer 'ones' \(GRU\): expected .* all 0 .* skips the steps whose features are all 1",
        ),
        (
            lambda k, x: k.GRU(2)(k.Add(name="sum")([k.Masking()(x), k.Masking(1.0)(x)])),
            r"layer 'sum' \(Add\): expected inputs that skip the same steps",
        ),
    ],
    ids=["behind_a_layer", "one_of_two", "of_two_values", "joined"],
)
def test_masking_that_cannot_be_served_is_refused(
    make: Callable[[Any, Any], Any], expected: str, keras: Any, saved: Save
) -> None:
    given = keras.Input((None, FEATURES))
    with pytest.raises(Refused, match=expected):
        read_keras(saved(keras.Model(given, make(keras.layers, given))))


def test_mask_that_is_not_that_of_the_layer_before_is_refused(keras: Any, saved: Save) -> None:
    layers, given = keras.layers, keras.Input((None, FEATURES))
    own = keras.ops.any(keras.ops.not_equal(given, 3.0), axis=-1)
    model = keras.Model(given, layers.GRU(2, name="odd")(layers.Masking()(given), mask=own))
    with pytest.raises(
        Refused, match=r"layer 'odd' \(GRU\): mask: expected that of the Embedding or Masking"
    ):
        read_keras(saved(model))


def test_mask_through_a_functional_graph_equals_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(VOCABULARY, 3, mask_zero=True)(given)
    x = layers.GRU(3, return_sequences=True)(embedded)
    x = layers.Concatenate()([layers.Add()([x, embedded]), x])
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    check_masked(keras.Model(given, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))), saved)


def test_mask_that_nothing_uses_does_not_matter(keras: Any, saved: Save) -> None:
    layers = keras.layers
    made = [layers.Embedding(VOCABULARY, 3, mask_zero=True), layers.GlobalMaxPooling1D(), layers.Dense(2)]
    foreign = check(
        keras.Sequential([keras.Input((None,)), *made]), saved, lambda steps: tokens(steps, first=0)
    )
    assert foreign.skipped_value is None


@pytest.mark.parametrize(
    "make",
    [
        lambda k: [k.Bidirectional(k.LSTM(3, return_sequences=True)), k.GlobalMaxPooling1D()],
        lambda k: [k.GRU(3, return_sequences=True), k.Conv1D(2, 2, padding="causal")],
    ],
    ids=["maximum", "convolution"],
)
def test_layer_that_sees_skipped_steps_equals_keras(make: Make, keras: Any, saved: Save) -> None:
    embedding = keras.layers.Embedding(VOCABULARY, 3, mask_zero=True)
    model = keras.Sequential([keras.Input((None,)), embedding, *make(keras.layers)])
    check_masked(model, saved, compacts=False)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda k: [k.LSTM(3, return_sequences=True), k.Conv1D(2, 1), k.GRU(2, name="late")],
            r"layer 'late' \(GRU\): expected it to skip the steps of token 0",
        ),
        (
            lambda k: [k.LSTM(3, return_sequences=True, go_backwards=True)],
            r"\(LSTM\): go_backwards: expected false",
        ),
        (lambda k: [k.LSTM(3, zero_output_for_mask=True)], r"\(LSTM\): zero_output_for_mask: expected false"),
        (
            lambda k: [k.GRU(3, return_sequences=True), k.Softmax()],
            r"\(Softmax\): expected no mask before a Softmax",
        ),
    ],
    ids=["second_layer_does_not_skip", "all_steps_backwards", "zeros_of_the_last_step", "softmax"],
)
def test_mask_that_cannot_be_served_is_refused(make: Make, expected: str, keras: Any, saved: Save) -> None:
    embedding = keras.layers.Embedding(VOCABULARY, 3, mask_zero=True)
    path = saved(keras.Sequential([keras.Input((None,)), embedding, *make(keras.layers)]))
    with pytest.raises(Refused, match=expected):
        read_keras(path)


def test_mean_over_counting_steps_needs_a_step(keras: Any, saved: Save) -> None:
    layers = keras.layers
    made = [layers.Embedding(VOCABULARY, 3, mask_zero=True), layers.GRU(2, return_sequences=True)]
    model = keras.Sequential([keras.Input((None,)), *made, layers.GlobalAveragePooling1D()])
    foreign = read_keras(saved(model))
    nothing = np.zeros((1, 3), np.int64)
    assert np.isnan(run_keras(model, nothing)[0]).all()
    assert np.isnan(run_oracle(foreign, {"input": nothing})[0]).all()
    assert foreign.needs_a_step
    assert "nothing but the steps of token 0" in foreign.assumed[0]


def test_encoder_and_decoder_equal_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    source, given = keras.Input((None,), name="source_ids"), keras.Input((None,), name="target_ids")
    _, *ends = layers.Bidirectional(layers.LSTM(3, return_state=True))(
        layers.Embedding(VOCABULARY, 4)(source)
    )
    states = [layers.Concatenate()([ends[0], ends[2]]), layers.Concatenate()([ends[1], ends[3]])]
    x = layers.Embedding(VOCABULARY, 4)(given)
    x = layers.LSTM(6, return_sequences=True)(x, initial_state=states)
    model = randomize(keras.Model([source, given], layers.Dense(VOCABULARY)(x)))
    foreign = read_keras(saved(model))
    for num_source, num_steps in ((5, 3), (2, 9)):
        ids = {"source": tokens(num_source, batch=2), "input": tokens(num_steps, batch=2)}
        expected = run_keras(model, [ids["source"], ids["input"]])
        assert_close(run_oracle(foreign, ids), expected, "oracle")
        assert_close(run_graph(foreign, ids), expected, "graph")
    axes = [one.type.tensor_type.shape.dim[1].dim_param for one in foreign.graph.graph.input]
    assert axes == ["source.time", "time"]


def test_states_as_inputs_and_outputs_equal_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given, h, c = keras.Input((None, 4)), keras.Input((5,), name="h0"), keras.Input((5,), name="c0")
    x, *ends = layers.LSTM(5, return_sequences=True, return_state=True)(given, initial_state=[h, c])
    model = randomize(keras.Model([given, h, c], [layers.Dense(2)(x), *ends]))
    foreign = read_keras(saved(model))
    start = [np.full((1, 5), value, np.float32) for value in (0.3, -0.4)]
    feeds = {"input": rows(6), "h0": start[0], "c0": start[1]}
    expected = run_keras(model, [rows(6), *start])
    assert_close(run_oracle(foreign, feeds), expected, "oracle")
    assert_close(run_graph(foreign, feeds), expected, "graph")
    assert [one.name for one in foreign.graph.graph.output] == ["output", "output_1", "output_2"]
    assert foreign.states == (("h0", "output_1"), ("c0", "output_2"))


def test_models_inside_models_and_shared_layers_equal_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    inner_given = keras.Input((None, FEATURES))
    inner = keras.Model(inner_given, layers.GRU(FEATURES, return_sequences=True)(inner_given), name="inner")
    given = keras.Input((None, FEATURES))
    shared = layers.Dense(FEATURES, activation="tanh")
    x = shared(inner(shared(given)))
    x = keras.Sequential([layers.Dense(3), layers.Dropout(0.1), layers.Dense(FEATURES)])(x)
    foreign = check(keras.Model(given, inner(x)), saved)
    kinds = [node.op_type for node in foreign.graph.graph.node]
    assert kinds.count("GRU") == 2
    assert (
        sum("inner" not in one.name and one.name.endswith(".R") for one in foreign.graph.graph.initializer)
        == 1
    )


def test_merging_layers_equal_keras(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given = keras.Input((None, FEATURES))
    x, y = layers.GRU(3, return_sequences=True)(given), layers.Dense(3)(given)
    kinds = (layers.Add, layers.Multiply, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
    check(keras.Model(given, layers.Concatenate()([kind()([x, y]) for kind in kinds])), saved)


def test_fixed_length_and_state_are_assumed_away_aloud(keras: Any, saved: Save) -> None:
    layers = keras.layers
    given = keras.Input(batch_shape=(1, 6, FEATURES), name="measured")
    model = keras.Model(given, layers.LSTM(3, stateful=True, unroll=True, name="memory")(given))
    foreign = read_keras(saved(randomize(model)))
    assert len(foreign.assumed) == 3
    assert "'measured' has 6 steps" in foreign.assumed[0]
    assert "batches of 1" in foreign.assumed[1]
    assert "'memory' is stateful" in foreign.assumed[2]
    x = rows(6)
    assert_close(run_oracle(foreign, {"input": x}), run_keras(model, x), "oracle")
    assert_close(run_graph(foreign, {"input": rows(9)}), run_oracle(foreign, {"input": rows(9)}), "graph")


@pytest.mark.parametrize("name", ["gelu", "silu", "selu"])
def test_activation_that_recurrent_operators_lack_is_refused_with_what_to_do(
    name: str, keras: Any, saved: Save
) -> None:
    layer = keras.layers.GRU(3, activation=name, name="memory")
    path = saved(keras.Sequential([keras.Input((None, FEATURES)), layer]))
    expected = rf"layer 'memory': activation: expected one of .*tanh.*, found {name}; .* train the layer with"
    with pytest.raises(Refused, match=expected):
        read_keras(path)
