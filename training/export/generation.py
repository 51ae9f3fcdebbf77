"""Makes the generation graph of a chunk cell, and proves it against the chunk cell before it counts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import spec
from service.contract.generation_graph import NAMES, next_name, state_name
from training.export.generation_graph import Body, StateTensor, build_generation_graph, cell_body
from training.export.generation_lstm import has_lstm_body, lstm_body
from training.export.generation_ngram import mixed_lstm_body
from training.networks.mixture import MixedNetwork
from training.networks.network import NetworkConfig

# Sums of several rows may be taken in another order than those of one.
_BATCHES = (1, 3, 16)
_STEPS = 5
_SEED = 0
# Weights inside the loops of a chunk cell would be copied, so that a version had them twice.
_MAX_BYTES = 1 << 20


def generation_graph(
    chunk_cell: bytes,
    file: str,
    states: Sequence[StateTensor],
    vocabulary: int,
    config: NetworkConfig | None = None,
    mixed: MixedNetwork | None = None,
) -> bytes | None:
    """Return a generation graph whose outputs and states have the bits of single steps.

    Args:
        chunk_cell: the serialized chunk cell; its input is token ids, its outputs are logits of as many.
        file: name of its file, in which the generation graph finds its weights.
        states: its state tensors.
        vocabulary: V.
        config: of a float32 network that was trained here, whose LSTM layers have a faster form.
        mixed: that network, if it is mixed with an n-gram.

    Returns:
        The serialized graph; None: there is none with the same bits, or it cannot be written for this graph
        without a copy of its weights.
    """
    bodies: list[Callable[[], Body]] = [lambda: cell_body(chunk_cell, file, states)]
    if config is not None and has_lstm_body(config):
        bodies.insert(
            0,
            lambda: (
                mixed_lstm_body(mixed, chunk_cell, file) if mixed else lstm_body(config, chunk_cell, file)
            ),
        )
    made = onnx.load_from_string(chunk_cell)
    for body in bodies:
        try:
            graph = build_generation_graph(made, body(), vocabulary)
        except ValueError:
            continue
        if len(graph) <= _MAX_BYTES and _has_same_bits(graph, chunk_cell, file, states, vocabulary):
            return graph
    return None


def _has_same_bits(
    graph: bytes, chunk_cell: bytes, file: str, states: Sequence[StateTensor], vocabulary: int
) -> bool:
    """Return whether logits and states after each of a few steps are those of the chunk cell."""
    several, single = _session(graph, {file: chunk_cell}), _session(chunk_cell, {})
    random = np.random.default_rng(_SEED)
    for batch in _BATCHES:
        tokens = random.integers(vocabulary, size=batch)
        before = [random.standard_normal((batch, one.size)).astype(np.float32) for one in states]
        run = _run(several, tokens, before, random.random((_STEPS, batch, 1)), vocabulary)
        if any(
            found.tobytes() != expected.tobytes()
            for found, expected in _replayed(single, states, tokens, before, run)
        ):
            return False
    return True


def _session(graph: bytes, weights: dict[str, bytes]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if weights:
        files = list(weights.values())
        options.add_external_initializers_from_files_in_memory(list(weights), files, list(map(len, files)))
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(
    session: ort.InferenceSession,
    tokens: NDArray[np.int64],
    before: Sequence[NDArray[np.float32]],
    uniforms: NDArray[np.float64],
    vocabulary: int,
) -> dict[str, NDArray[Any]]:
    """Run a generation graph at temperature 1; return its outputs by name."""
    batch = len(tokens)
    feeds = {
        NAMES.tokens: tokens,
        NAMES.uniforms: uniforms,
        NAMES.inverse: np.ones((batch, 1)),
        NAMES.has_cuts: np.array(False),
        NAMES.top_k: np.full((batch, 1), vocabulary),
        NAMES.top_p: np.full((batch, 1), 2.0),
    }
    names = [one.name for one in session.get_outputs()]
    given = {state_name(index): tensor for index, tensor in enumerate(before)}
    return dict(zip(names, session.run(names, feeds | given), strict=True))


def _replayed(
    session: ort.InferenceSession,
    states: Sequence[StateTensor],
    tokens: NDArray[np.int64],
    before: Sequence[NDArray[np.float32]],
    run: dict[str, NDArray[Any]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Feed the tokens of a run to a chunk cell a step at a time; yield pairs of logits and of states."""
    batch, state = len(tokens), list(before)
    for step in range(_STEPS):
        feeds = {
            spec.INPUT: tokens[:, None],
            spec.LENGTHS: np.ones(batch, np.int32),
            spec.WANTED: np.arange(batch),
            **{one.before: tensor for one, tensor in zip(states, state, strict=True)},
        }
        output, *state = session.run([spec.OUTPUT, *(one.after for one in states)], feeds)
        yield run[NAMES.logits][step], output
        tokens = run[NAMES.picked][step]
    for index, tensor in enumerate(state):
        yield run[next_name(index)], tensor
