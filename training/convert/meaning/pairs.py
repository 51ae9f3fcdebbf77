"""Reads a user's own examples: inputs and outputs of the pipeline that the network comes from.

An .npz file holds arrays `0.in.x` and `0.out.y` of one sequence each, or `inputs` and `outputs` of all of
them with `lengths`. A .jsonl file holds an object a line: `text`, `tokens` or `steps`, `output` or `outputs`,
and `initial` and `source` where the network takes them.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.convert.converted import Converted
from training.convert.foreign import Array
from training.convert.meaning.jsonfiles import read_bytes, read_text
from training.convert.meaning.samples import Given
from training.convert.options import Choices
from training.errors import TrainingError

OPTION = "--examples"
MAX_PAIRS = 100_000
# Of all arrays of a file together, unpacked.
MAX_ARRAY_BYTES = 1 << 30
_KEY = re.compile(r"(\d+)\.(in|out)\.(.+)")
_KINDS = ("text", "tokens", "steps")


@dataclass(frozen=True, slots=True)
class Pair:
    """One example of the user.

    Attributes:
        place: where it stands, for messages.
        given: the sequence, as the user's pipeline takes it.
        outputs: float32 (rows, outputs), one row, or one a time step.
    """

    place: str
    given: Given
    outputs: NDArray[np.float32]


def pairs_from(said: object, converted: Converted, choices: Choices) -> list[Pair]:
    """Return a user's examples.

    Args:
        said: a file, or the objects of its lines.
        converted: the network.
        choices: names of inputs and outputs, where the user said them.

    Raises:
        TrainingError: the file cannot be read, or an example has another form.
    """
    if isinstance(said, str | Path):
        path = Path(said)
        data = read_bytes(path, OPTION)
        found = _of_arrays(data, path, converted, choices) if _is_npz(data) else _of_lines(path, converted)
    elif isinstance(said, Sequence):
        found = (_of_object(one, f"example {index}", converted) for index, one in enumerate(said))
    else:
        raise TrainingError(f"{OPTION}: expected a file or a list of objects, found {type(said).__name__}")
    pairs = []
    for pair in found:
        pairs.append(pair)
        if len(pairs) > MAX_PAIRS:
            raise TrainingError(f"{OPTION}: expected at most {MAX_PAIRS} examples, found more")
    if not pairs:
        raise TrainingError(f"{OPTION}: expected examples, found none")
    return pairs


def _is_npz(data: bytes) -> bool:
    return data.startswith(b"PK")


def _of_lines(path: Path, converted: Converted) -> Iterator[Pair]:
    for number, line in enumerate(read_text(path, OPTION).splitlines(), 1):
        if line.strip():
            place = f"line {number}"
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TrainingError(
                    f"{OPTION}: {place}: expected an object of JSON, found {error}"
                ) from error
            yield _of_object(found, place, converted)


def _of_object(found: object, place: str, converted: Converted) -> Pair:
    kinds = [kind for kind in _KINDS if isinstance(found, Mapping) and kind in found]
    if not isinstance(found, Mapping) or len(kinds) != 1:
        raise _wrong(place, f"an object with one of {', '.join(_KINDS)}", _shown(found))
    outputs = next((found[key] for key in ("output", "outputs") if key in found), None)
    if outputs is None:
        raise _wrong(place, "an output or outputs", f"the keys {_shown(sorted(map(str, found)))}")
    initial = found.get("initial", {})
    if not isinstance(initial, Mapping):
        raise _wrong(place, "an object in initial", _shown(initial))
    given = Given(
        _sequence(found[kinds[0]], kinds[0], place),
        {
            str(name): _numbers(row, place, f"initial.{name}").reshape(-1).astype(np.float32)
            for name, row in initial.items()
        },
        _source(found.get("source"), place, converted),
    )
    return Pair(place, given, _rows(_numbers(outputs, place, "outputs"), place, converted))


def _sequence(value: object, kind: str, place: str) -> str | Array:
    if kind == "text":
        if not isinstance(value, str):
            raise _wrong(place, "a text", _shown(value))
        return value
    numbers = _numbers(value, place, kind)
    if kind == "tokens":
        if numbers.ndim != 1 or not (numbers == np.round(numbers)).all():
            raise _wrong(place, "a list of token ids in tokens", _shown(value))
        return numbers.astype(np.int64)
    return numbers.astype(np.float32)[:, None] if numbers.ndim == 1 else numbers.astype(np.float32)


def _source(value: object, place: str, converted: Converted) -> str | Array | None:
    if value is None or isinstance(value, str):
        return value
    is_tokens = converted.source is not None and converted.source.kind == "tokens"
    return _sequence(value, "tokens" if is_tokens else "steps", place)


def _numbers(value: object, place: str, what: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise _wrong(place, f"numbers, in rows of one length, in {what}", _shown(value)) from error
    if not np.isfinite(numbers).all():
        raise _wrong(place, f"finite numbers in {what}", "others")
    return numbers


def _rows(outputs: NDArray[Any], place: str, converted: Converted) -> NDArray[np.float32]:
    """Return outputs as rows, float32 (rows, outputs)."""
    width = converted.outputs
    if not outputs.size or outputs.size % width or (outputs.ndim > 1 and outputs.shape[-1] not in (width, 1)):
        raise _wrong(place, f"rows of {width} outputs", f"an array of shape {outputs.shape}")
    return outputs.reshape(-1, width).astype(np.float32)


def _of_arrays(data: bytes, path: Path, converted: Converted, choices: Choices) -> Iterator[Pair]:
    arrays = _loaded(data, path)
    if {"inputs", "outputs"} <= arrays.keys():
        yield from _of_stacked(arrays, converted)
        return
    numbers = sorted({int(found[1]) for name in arrays if (found := _KEY.fullmatch(name))})
    if not numbers:
        raise TrainingError(
            f"{OPTION}: expected arrays 0.in.NAME and 0.out.NAME, or inputs and outputs, in {path}, "
            f"found {_shown(sorted(arrays))}"
        )
    for number in numbers:
        inputs, outputs = (
            {
                name.partition(f"{number}.{side}.")[2]: arrays[name]
                for name in arrays
                if _is_of(name, number, side)
            }
            for side in ("in", "out")
        )
        yield _of_named(f"example {number}", inputs, outputs, converted, choices)


def _is_of(name: str, number: int, side: str) -> bool:
    return name.startswith(f"{number}.{side}.")


def _loaded(data: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file; those of objects, which would be unpickled, are refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"{size} bytes of arrays, more than {MAX_ARRAY_BYTES}")  # noqa: TRY301
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:
        raise TrainingError(
            f"{OPTION}: expected an .npz file of plain arrays in {path}, found {error}"
        ) from error


def _of_stacked(arrays: Mapping[str, NDArray[Any]], converted: Converted) -> Iterator[Pair]:
    """Yield the examples of arrays with a row a sequence: inputs (N, T[, F]) and outputs (N, [T,] V)."""
    inputs, outputs = arrays["inputs"], arrays["outputs"]
    steps = inputs.shape[1] if inputs.ndim > 1 else 1
    lengths = arrays.get("lengths", np.full(inputs.shape[:1], steps, np.int64))
    is_numbers = lengths.ndim == 1 and lengths.dtype.kind in "iuf"
    if inputs.ndim not in (2, 3) or not (
        is_numbers and outputs.ndim and len(inputs) == len(outputs) == len(lengths)
    ):
        raise TrainingError(
            f"{OPTION}: expected inputs, outputs and lengths of one number of sequences, found shapes "
            f"{inputs.shape}, {outputs.shape} and {lengths.shape}"
        )
    for index, (row, output, length) in enumerate(zip(inputs, outputs, lengths.tolist(), strict=True)):
        place = f"example {index}"
        if not 1 <= length <= len(row):
            raise _wrong(place, f"a length of 1 to {len(row)}", f"{length}")
        is_every = output.ndim == 2 and len(output) == len(row)
        rows = _rows(output[: int(length)] if is_every else output, place, converted)
        yield Pair(place, Given(_data(row[: int(length)], converted, place)), rows)


def _of_named(
    place: str,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]],
    converted: Converted,
    choices: Choices,
) -> Pair:
    """Return the example of arrays by the names of the original's inputs and outputs, of one sequence."""
    names = [one.name for one in converted.initial]
    missing = [name for name in names if name not in inputs]
    if missing:
        raise _wrong(place, f"an input {missing[0]}", f"inputs {_shown(sorted(inputs))}")
    states = {before for before, _ in choices.state}
    others = {name: array for name, array in inputs.items() if name not in {*names, *states, *choices.fixed}}
    data = choices.data or _likely_data(others, converted, place)
    if data not in inputs:
        raise _wrong(place, f"an input {data}", f"inputs {_shown(sorted(inputs))}")
    for name, array in inputs.items():
        if (
            name not in {*names, data, *choices.fixed, choices.lengths}
            and np.any(array)
            and array.dtype.kind == "f"
        ):
            raise _wrong(
                place,
                f"zeros in {name}, since sequences start with the states that the network starts with",
                "others",
            )
    output = choices.output or next(iter(outputs), "")
    if output not in outputs:
        raise _wrong(place, f"an output {output or 'array'}", f"outputs {_shown(sorted(outputs))}")
    initial = {name: np.asarray(inputs[name], np.float32).reshape(-1) for name in names}
    given = Given(_data(_one(inputs[data], converted, place), converted, place), initial)
    return Pair(place, given, _rows(np.asarray(outputs[output]), place, converted))


def _likely_data(inputs: Mapping[str, NDArray[Any]], converted: Converted, place: str) -> str:
    """Return the name of the input that can be the sequence: ids, or rows of the right width."""
    taken = converted.input
    fits = [
        name
        for name, array in inputs.items()
        if (array.dtype.kind in "iu" and array.ndim in (1, 2))
        if taken.kind == "tokens"
    ] or [
        name
        for name, array in inputs.items()
        if taken.kind == "features" and array.ndim in (2, 3) and array.shape[-1] == taken.size
    ]
    if not fits:
        raise _wrong(place, f"an input of {taken.kind}", f"inputs {_shown(sorted(inputs))}")
    return fits[0]


def _one(array: NDArray[Any], converted: Converted, place: str) -> NDArray[Any]:
    """Return the sequence of a batch of one, batch or time first."""
    axes = 1 if converted.input.kind == "tokens" else 2
    if array.ndim == axes + 1 and 1 in array.shape[:2]:
        return array[0] if array.shape[0] == 1 else array[:, 0]
    if array.ndim != axes:
        raise _wrong(place, "one sequence", f"an array of shape {array.shape}")
    return array


def _data(array: NDArray[Any], converted: Converted, place: str) -> Array:
    if converted.input.kind == "features":
        return array.astype(np.float32)[:, None] if array.ndim == 1 else array.astype(np.float32)
    if array.dtype.kind == "f" and not (array == np.round(array)).all():
        raise _wrong(place, "token ids", "numbers that are not whole")
    return array.astype(np.int64)


def _wrong(place: str, expected: str, found: str) -> TrainingError:
    return TrainingError(f"{OPTION}: {place}: expected {expected}, found {found}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
