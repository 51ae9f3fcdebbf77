"""Admission checks that a version must pass before it serves, run on the runtime that would serve it.

This module checks the graph's signature, the golden examples, and how their texts become tokens. model.json
and the hashes are checked by `service.contract.spec`, the provider and the placement of nodes by
`service.runtime`, the tokenizer by `service.models.tokenizer_file`.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.engine.cell import Shape
from service.errors import InvalidArgument, ModelFailure, ModelRefused
from service.runtime import Chunk, Runtime, TensorInfo
from service.tasks.text import Characters, tokenize
from service.tasks.unknown_text import TextCoverage

_TYPES = {"tokens": "tensor(int64)", "features": "tensor(float)"}
# Largest row length in the golden run with chunks of unequal lengths; the smallest is 1.
_UNEQUAL = 3
# Default chunk length of the chunked golden run, in time steps.
GOLDEN_CHUNK = 4

# Maps a row and a tick to the number of time steps to run, before the cut at the end of the row.
_Schedule = Callable[[int, int], int]


def shape_of(model: spec.ModelSpec) -> Shape:
    """Return the widths of a model's tensors, as its engine needs them."""
    features = None if model.input.kind == "tokens" else model.input.size
    states = model.network.states
    start = (one.start if isinstance(one.start, float) else np.array(one.start, np.float32) for one in states)
    return Shape(features, model.outputs, tuple(one.size for one in states), tuple(start))


def check_signature(model: spec.ModelSpec, runtime: Runtime) -> None:
    """Check that the graph's inputs and outputs have the names, types and axes of the contract.

    Raises:
        ModelRefused: names the first tensor that differs.
    """
    tail: tuple[int | str, ...] = () if model.input.kind == "tokens" else (model.input.size,)
    expected_inputs = [
        TensorInfo(spec.INPUT, _TYPES[model.input.kind], ("batch", "time", *tail)),
        TensorInfo(spec.LENGTHS, "tensor(int32)", ("batch",)),
        *(TensorInfo(pair.input, "tensor(float)", ("batch", pair.size)) for pair in model.network.states),
        TensorInfo(spec.WANTED, "tensor(int64)", ("wanted",)),
    ]
    expected_outputs = [
        TensorInfo(spec.OUTPUT, "tensor(float)", ("wanted", model.outputs)),
        *(TensorInfo(pair.output, "tensor(float)", ("batch", pair.size)) for pair in model.network.states),
    ]
    for kind, expected, found in (
        ("input", expected_inputs, runtime.inputs),
        ("output", expected_outputs, runtime.outputs),
    ):
        by_name = {info.name: info for info in found}
        for info in expected:
            if by_name.get(info.name) != info:
                raise ModelRefused("signature", f"{kind} {_shown(info)}", _shown(by_name.get(info.name)))
        extra = sorted(set(by_name) - {info.name for info in expected})
        if extra:
            raise ModelRefused(
                "signature", f"no {kind} beside {', '.join(info.name for info in expected)}", ", ".join(extra)
            )


def _shown(info: TensorInfo | None) -> str:
    return "none" if info is None else f"{info.name} {info.type} {list(info.shape)}"


def check_golden(model: spec.ModelSpec, runtime: Runtime, tolerance: float, chunk: int) -> float:
    """Check that the golden examples give PyTorch's outputs, however they are batched and chunked.

    They run in three ways: each alone and whole; all in one batch, in equal chunks; and all in one batch, in
    chunks of unequal lengths. Only the last one shows that the state is taken after each row's last valid
    step and not after the padding.

    Args:
        model: spec with the golden examples.
        runtime: the loaded graph.
        tolerance: largest allowed absolute difference.
        chunk: chunk length of the second way, in time steps.

    Returns:
        The largest absolute difference found.

    Raises:
        ModelRefused: an output differs by more than the tolerance, or the runtime fails.
    """
    inputs = [_input_of(golden) for golden in model.golden]
    longest = max(map(len, inputs))
    ways: list[tuple[str, list[list[int]], _Schedule]] = [
        ("alone", [[row] for row in range(len(inputs))], lambda row, tick: longest),  # noqa: ARG005
        ("batched and chunked", [list(range(len(inputs)))], lambda row, tick: chunk),  # noqa: ARG005
        (
            "in chunks of unequal lengths",
            [list(range(len(inputs)))],
            lambda row, tick: 1 + (row + tick) % _UNEQUAL,
        ),
    ]
    worst = 0.0
    for way, batches, schedule in ways:
        for batch in batches:
            for row, outputs in zip(
                batch, _outputs(model, runtime, [inputs[row] for row in batch], schedule), strict=True
            ):
                worst = max(worst, _error(model.golden[row], outputs, tolerance, (row, way)))
    return worst


def check_preprocessing(model: spec.ModelSpec, tokenizer: Tokenizer | None) -> None:
    """Check that the texts of the golden examples give their tokens, here as in training.

    Raises:
        ModelRefused: a text gives other tokens, or none.
    """
    for index, golden in enumerate(model.golden):
        if golden.text is None:
            continue
        try:
            found = _tokens_of(model, tokenizer, golden.text)
        except (InvalidArgument, ModelFailure) as error:
            raise ModelRefused(
                "preprocessing", f"tokens of the text of example {index}", str(error)
            ) from error
        if found != golden.tokens:
            raise ModelRefused(
                "preprocessing", f"the tokens of example {index} for its text", f"others, {len(found)} in all"
            )


def _tokens_of(model: spec.ModelSpec, tokenizer: Tokenizer | None, text: str) -> list[int]:
    """Return the tokens of a caller's text, as the model's task computes them."""
    tokens: NDArray[np.signedinteger]
    if model.generation is not None:
        tokens = _prompt_of(model.name, model.generation, tokenizer, text)
    else:
        assert model.classification is not None, "tokens are the input of these two tasks alone"
        assert tokenizer is not None, "a classification's file was read"
        (tokens,) = tokenize(tokenizer, [text], 0, Normalizer(model.classification.text.normalization))
    return list(map(int, tokens))


def _prompt_of(
    model: str, section: spec.Generation, tokenizer: Tokenizer | None, text: str
) -> NDArray[np.signedinteger]:
    """Return the tokens of a text that nothing stands before, the start token included where it is fed."""
    normalizer = Normalizer(section.text.normalization)
    tokens: NDArray[np.signedinteger]
    if isinstance(section.text, spec.Characters):
        tokens = Characters(model, section.text.vocabulary, normalizer).encode(text, "text")
    else:
        assert tokenizer is not None, "the file of a tokenizer was read"
        tokens = TextCoverage(model, tokenizer).encode(text, normalizer, "text", begins=True)
    if not section.prepend_start:
        return tokens
    return np.concatenate([np.array([section.start_token], tokens.dtype), tokens])


def _error(
    golden: spec.Golden, outputs: NDArray[np.float32], tolerance: float, where: tuple[int, str]
) -> float:
    worst = 0.0
    for step, expected in zip(golden.steps, golden.outputs, strict=True):
        error = float(np.abs(outputs[step] - np.array(expected, np.float32)).max())
        if not error <= tolerance:
            example, way = where
            raise ModelRefused(
                "golden",
                f"outputs of example {example}, step {step}, {way}, within {tolerance} of PyTorch's",
                f"{error:.3g} off",
            )
        worst = max(worst, error)
    return worst


def _outputs(
    model: spec.ModelSpec, runtime: Runtime, inputs: Sequence[NDArray[Any]], schedule: _Schedule
) -> list[NDArray[np.float32]]:
    """Compute the head's output at every step of each input, float32 (T, outputs).

    Args:
        model: spec of the model.
        runtime: the loaded graph.
        inputs: int64 (T,) or float32 (T, F), run as one batch; finished rows leave the batch.
        schedule: time steps to run of a row in a tick.

    Raises:
        ModelRefused: the runtime fails.
    """
    pieces: list[list[NDArray[np.float32]]] = [[] for _ in inputs]
    consumed = [0] * len(inputs)
    state = [[np.zeros(pair.size, np.float32) for pair in model.network.states] for _ in inputs]
    for tick in count():
        rows = [row for row, one in enumerate(inputs) if consumed[row] < len(one)]
        if not rows:
            return [np.concatenate(row_pieces) for row_pieces in pieces]
        parts = [inputs[row][consumed[row] :][: schedule(row, tick)] for row in rows]
        chunk = _chunk_of(parts, [state[row] for row in rows], model.outputs)
        try:
            runtime.bind(chunk).run()
        except ModelFailure as failure:
            raise ModelRefused("golden", "outputs for the golden examples", str(failure)) from failure
        ends = np.cumsum(chunk.lengths)
        for index, (row, output) in enumerate(zip(rows, np.split(chunk.output, ends[:-1]), strict=True)):
            consumed[row] += len(parts[index])
            state[row] = [tensor[index] for tensor in chunk.after]
            pieces[row].append(output)
    raise AssertionError("the loop ends by returning")


def _chunk_of(
    parts: Sequence[NDArray[Any]], state: Sequence[Sequence[NDArray[np.float32]]], outputs: int
) -> Chunk:
    """Pad the parts to one chunk that computes the head at every valid step.

    Args:
        parts: time steps of each row, (T,) or (T, F).
        state: state of each row, one float32 (H,) a state tensor.
        outputs: width of the head's output.
    """
    lengths = np.array([len(part) for part in parts], np.int32)
    steps = int(lengths.max())
    padded = np.zeros((len(parts), steps, *parts[0].shape[1:]), parts[0].dtype)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    wanted = np.concatenate([row * steps + np.arange(length) for row, length in enumerate(lengths)])
    before = [np.stack(tensors) for tensors in zip(*state, strict=True)]
    output = np.empty((len(wanted), outputs), np.float32)
    return Chunk(padded, lengths, before, wanted, output, [np.empty_like(tensor) for tensor in before])


def _input_of(golden: spec.Golden) -> NDArray[Any]:
    """Return an example's input, int64 (T,) or float32 (T, F)."""
    return (
        np.array(golden.tokens, np.int64)
        if golden.tokens is not None
        else np.array(golden.features, np.float32)
    )
