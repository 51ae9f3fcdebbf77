"""Reads a `.keras` file into a network as an ONNX graph, with a computation of the original in numpy."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from service.contract import spec
from training.convert.foreign import Foreign, Refused
from training.convert.keras import config as c
from training.convert.keras.archive import open_archive
from training.convert.keras.graph import graph_of
from training.convert.keras.network import Network, network_of
from training.convert.keras.parsing import EXPORT
from training.convert.keras.reference import oracle_of
from training.convert.keras.skipping import masked_mean, skipped_value

_HASH_BYTES: Final = 1 << 20


def read_keras(path: Path, folder: Path | None = None) -> Foreign:
    """Read a network that Keras 3 saved with `model.save("name.keras")`.

    The graph's input is `input`, int64 [batch, time] token ids or float32 [batch, time, features], and its
    output `output`. A sequence of an encoder is `source`; other inputs keep their names. Further outputs are
    `output_1` and so on. Neither Keras nor TensorFlow is needed, and nothing in the file is executed.

    Args:
        path: the file.
        folder: folder into which the graph's large weights go, which the ladder gets as well; None: they
            stay in the graph.

    Raises:
        Refused: the file is damaged, or holds what cannot be served; names the layer and what to do.
    """
    with open_archive(path) as archive:
        version = archive.version
        network = network_of(archive)
    main = _main_input(network)
    names = _names(network, main)
    outputs = ["output" if not index else f"output_{index}" for index in range(len(network.outputs))]
    return Foreign(
        graph=graph_of(network, names, outputs, folder),
        source=spec.Source(file=path.name, sha256=_sha256(path), framework=f"Keras {version}"),
        oracle=oracle_of(network, names),
        vocabulary=min((one.input_dim for value, one in network.embeddings if value == main), default=None),
        skipped_value=skipped_value(network),
        needs_a_step=bool(masked_mean(network)),
        assumed=tuple(_assumed(network)),
        states=_states(network, names, outputs),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _main_input(network: Network) -> str:
    """Return the value that is the network's sequence: of two the one whose steps the output has."""
    sequences = [value for value, _ in network.inputs if network.shapes[value].kind != "rows"]
    output = network.shapes[network.outputs[0]]
    if not sequences:
        raise Refused(
            "expected an input [batch, time] of tokens or [batch, time, features], found rows without time",
            EXPORT,
        )
    for value in sequences:
        if output.kind == "steps" and network.shapes[value].along == output.along:
            return value
    if output.kind == "steps":
        raise Refused("expected an output with the steps of the input, found another number of steps", EXPORT)
    if len(sequences) > 1:
        raise Refused("expected one sequence as input where the output has no time, found several", EXPORT)
    return sequences[0]


def _names(network: Network, main: str) -> dict[str, str]:
    """Return the names of the graph's inputs: input, source for an encoder's sequence, others their own."""
    names = {main: "input"}
    others = [(value, one) for value, one in network.inputs if value != main]
    for value, one in others:
        is_sequence = network.shapes[value].kind != "rows"
        if is_sequence and "source" in names.values():
            raise Refused("expected at most two sequences as input, found more", EXPORT)
        own = re.sub(r"[^A-Za-z0-9_]", "_", one.name)[:60]
        names[value] = "source" if is_sequence else own
    if len(set(names.values())) != len(names) or any(
        name.startswith(("output", "value.")) for name in names.values()
    ):
        raise Refused(
            "expected inputs whose names differ and are not output, found others", "rename the input layers"
        )
    return names


def _states(
    network: Network, names: Mapping[str, str], outputs: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Return the inputs that a recurrent layer starts with, each with the output that it ends with."""
    asked_for = dict(zip(network.outputs, outputs, strict=True))
    return tuple(
        (names[start], asked_for[end])
        for call in network.calls
        for start, end in zip(call.states, call.outputs[1:], strict=False)
        if start in names and end in asked_for
    )


def _assumed(network: Network) -> list[str]:
    found = []
    if left_out := masked_mean(network):
        found.append(f"a sequence of nothing but {left_out} has no answer: a mean over no steps is NaN")
    for value, one in network.inputs:
        shape = network.shapes[value]
        if shape.kind != "rows" and one.batch_shape[1] is not None:
            found.append(
                f"input {one.name!r} has {one.batch_shape[1]} steps in the file; no layer depends on that "
                "number, so that sequences of any length are taken; if shorter ones were padded to it in "
                f"training, say --window {one.batch_shape[1]} --pad left (or right)"
            )
        if one.batch_shape[0] is not None:
            found.append(
                f"input {one.name!r} has batches of {one.batch_shape[0]} in the file; any size is taken"
            )
    configs = {call.layer.path: call.layer.config for call in network.calls}
    for config in configs.values():
        parts = (config.forward, config.backward) if isinstance(config, c.Bidirectional) else (config,)
        if any(isinstance(part, c.Recurrent) and part.stateful for part in parts):
            found.append(f"layer {config.name!r} is stateful: each sequence starts from a state of zeros")
    reduced = sorted({one.dtype for one in configs.values()} - {"float32"})
    if reduced:
        found.append(f"the file says {', '.join(reduced)}: the network is computed in float32")
    return found
