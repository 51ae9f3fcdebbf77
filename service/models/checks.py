"""Whether a version may serve: the checks of the export contract, each against this very runtime.

Hashes and model.json are checked by `service.contract.spec`, provider and placement by `service.runtime`;
here the graph's signature and the golden examples.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.engine.cell import Shape
from service.errors import ModelFailure, ModelRefused
from service.runtime import Chunk, Runtime, TensorInfo

_TYPES = {"tokens": "tensor(int64)", "features": "tensor(float)"}
# Rows of one tick run 1 to so many steps in the third of the ways that golden examples are tried.
_UNEQUAL = 3
# Time steps a tick in the second of those ways, where no setting says.
GOLDEN_CHUNK = 4


def shape_of(model: spec.ModelSpec) -> Shape:
    """The widths of a model's tensors, as its engine needs them."""
    features = None if model.input.kind == "tokens" else model.input.size
    return Shape(features, model.outputs, tuple(pair.size for pair in model.state))


def check_signature(model: spec.ModelSpec, runtime: Runtime) -> None:
    """Names, types and symbolic axes of the graph's inputs and outputs must be those of the contract.

    Raises:
        ModelRefused: the first that differs.
    """
    tail: tuple[int | str, ...] = () if model.input.kind == "tokens" else (model.input.size,)
    expected_inputs = [
        TensorInfo(spec.INPUT, _TYPES[model.input.kind], ("batch", "time", *tail)),
        TensorInfo(spec.LENGTHS, "tensor(int32)", ("batch",)),
        *(TensorInfo(pair.input, "tensor(float)", ("batch", pair.size)) for pair in model.state),
        TensorInfo(spec.WANTED, "tensor(int64)", ("wanted",)),
    ]
    expected_outputs = [
        TensorInfo(spec.OUTPUT, "tensor(float)", ("wanted", model.outputs)),
        *(TensorInfo(pair.output, "tensor(float)", ("batch", pair.size)) for pair in model.state),
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
    """The golden examples must come out as PyTorch had them, whichever way their steps are cut.

    Alone and whole; batched together in chunks of a few steps; and batched with chunks of unequal lengths in
    one tick, which alone shows that the state after a row's last valid step is right whatever the graph does
    with the padding behind it.

    Args:
        model: with its examples.
        runtime: its graph.
        tolerance: largest absolute difference allowed.
        chunk: time steps a tick, in the second way.

    Returns:
        The largest absolute difference seen.

    Raises:
        ModelRefused: an output is further off, or not computed at all.
    """
    inputs = [_input_of(golden) for golden in model.golden]
    longest = max(map(len, inputs))
    ways: list[tuple[str, list[list[int]], Callable[[int, int], int]]] = [
        ("alone", [[row] for row in range(len(inputs))], lambda row, tick: longest),  # noqa: ARG005
        ("batched and chunked", [list(range(len(inputs)))], lambda row, tick: chunk),  # noqa: ARG005
        (
            "in chunks of unequal lengths",
            [list(range(len(inputs)))],
            lambda row, tick: 1 + (row + tick) % _UNEQUAL,
        ),
    ]
    worst = 0.0
    for way, batches, take in ways:
        for batch in batches:
            for row, outputs in zip(
                batch, _outputs(model, runtime, [inputs[row] for row in batch], take), strict=True
            ):
                worst = max(worst, _error(model.golden[row], outputs, tolerance, (row, way)))
    return worst


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
    model: spec.ModelSpec, runtime: Runtime, inputs: Sequence[NDArray[Any]], take: Callable[[int, int], int]
) -> list[NDArray[np.float32]]:
    """The head's output at every step of each input, float32 (T, outputs).

    Args:
        model: whose tensors these are.
        runtime: its graph.
        inputs: int64 (T,) or float32 (T, F), run as one batch; those that have ended drop out of it.
        take: steps to run of a row in a tick, at most what is left of it.

    Raises:
        ModelRefused: the runtime fails on them.
    """
    pieces: list[list[NDArray[np.float32]]] = [[] for _ in inputs]
    consumed = [0] * len(inputs)
    state = [[np.zeros(pair.size, np.float32) for pair in model.state] for _ in inputs]
    for tick in count():
        rows = [row for row, one in enumerate(inputs) if consumed[row] < len(one)]
        if not rows:
            return [np.concatenate(row_pieces) for row_pieces in pieces]
        lengths = [min(take(row, tick), len(inputs[row]) - consumed[row]) for row in rows]
        steps = max(lengths)
        padded = np.zeros((len(rows), steps, *inputs[0].shape[1:]), inputs[0].dtype)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            padded[index, :length] = inputs[row][consumed[row] : consumed[row] + length]
        wanted = np.concatenate([index * steps + np.arange(length) for index, length in enumerate(lengths)])
        before = [np.stack(tensors) for tensors in zip(*(state[row] for row in rows), strict=True)]
        chunk = Chunk(
            padded,
            np.array(lengths, np.int32),
            before,
            wanted,
            np.empty((len(wanted), model.outputs), np.float32),
            [np.empty_like(tensor) for tensor in before],
        )
        try:
            runtime.bind(chunk).run()
        except ModelFailure as failure:
            raise ModelRefused("golden", "outputs for the golden examples", str(failure)) from failure
        for index, (row, output) in enumerate(
            zip(rows, np.split(chunk.output, np.cumsum(lengths)[:-1]), strict=True)
        ):
            consumed[row] += lengths[index]
            state[row] = [tensor[index] for tensor in chunk.after]
            pieces[row].append(output)
    raise AssertionError("the loop ends by returning")


def _input_of(golden: spec.Golden) -> NDArray[Any]:
    """An example's input, int64 (T,) or float32 (T, F)."""
    return (
        np.array(golden.tokens, np.int64)
        if golden.tokens is not None
        else np.array(golden.features, np.float32)
    )


def read_tokenizer(name: str, data: bytes, size: int) -> Tokenizer:
    """The tokenizer of a file.

    Args:
        name: of the file.
        data: its contents.
        size: tokens that the network has.

    Raises:
        ModelRefused: it is none, or has another number of tokens.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:
        raise ModelRefused("tokenizer", f"a tokenizer in {name}", str(error)) from error
    if tokenizer.get_vocab_size() != size:
        raise ModelRefused(
            "tokenizer", f"{size} tokens, as the network has", f"{tokenizer.get_vocab_size()} in {name}"
        )
    return tokenizer
