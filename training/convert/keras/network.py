"""Turns config.json into a list of calls of layers with their weights, in an order in which they can run.

Sequential and Functional models become the same list; models inside a model are written out in their place.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.archive import Archive, Weights
from training.convert.keras.masks import check_mask, check_place, mask_of_operation
from training.convert.keras.nodes import Node, is_operation, leaves, nodes_of
from training.convert.keras.parsing import EXPORT, label, layer_config, validated
from training.convert.keras.shapes import Shape, output_shapes, state_sizes, unique, weights_of

MAX_LAYERS: Final = 512
MAX_DEPTH: Final = 8
MAX_CALLS: Final = 2048
MODELS = ("Sequential", "Functional")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with its weights; calls of the same layer share it.

    Attributes:
        path: its place in the file of weights.
        weights: in the order of `shapes.weights_of`.
    """

    path: str
    config: c.LayerConfig
    weights: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a layer: names of the values that it takes and gives."""

    layer: Layer
    inputs: tuple[str, ...]
    states: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """A network as calls in order.

    Attributes:
        inputs: names of the values that are given, with the configuration of their input layers.
        outputs: names of the values that are asked for; the first one is the answer.
        shapes: of every value.
        calls: in an order in which they can run.
        embeddings: configurations of the embeddings by the value that they read.
    """

    inputs: tuple[tuple[str, c.Input], ...]
    outputs: tuple[str, ...]
    shapes: dict[str, Shape]
    calls: tuple[Call, ...]
    embeddings: tuple[tuple[str, c.Embedding], ...]


def network_of(archive: Archive) -> Network:
    """Return the network of a `.keras` file.

    Raises:
        Refused: a layer or a way of connecting them cannot be read, or a weight is missing or wrong.
    """
    builder = _Builder(archive.weights)
    return builder.whole(archive.config)


class _Builder:
    """Collects the calls while the models of a file are walked through."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.shapes: dict[str, Shape] = {}
        # Values that are those of an input, whatever layers of training alone lie between.
        self.given: set[str] = set()
        self.calls: list[Call] = []
        self.layers: dict[str, Layer] = {}
        self.embeddings: list[tuple[str, c.Embedding]] = []
        self.num_layers = 0
        self.num_nested = 0

    def whole(self, document: dict[str, Any]) -> Network:
        """Walk through the outermost model, whose inputs become those of the network."""
        class_name, config = _model(document)
        raws = _layers(config)
        configs = [_input(raw) for raw in raws if raw.get("class_name") == "InputLayer"]
        if class_name == "Sequential" and not configs:
            raise Refused(
                "config.json: expected a model that was built, found a Sequential without an input", EXPORT
            )
        order = _input_names(config) if class_name == "Functional" else [configs[0].name]
        by_name = {one.name: one for one in configs}
        if len(by_name) != len(configs) or set(order) != set(by_name):
            raise Refused("config.json: expected each input once among the layers, found others")
        inputs = [(f"input:{name}", by_name[name]) for name in order]
        self._check_layers(document)
        for value, one in inputs:
            self.shapes[value] = _input_shape(one, _feeds_embedding(one.name, class_name, raws))
            self.given.add(value)
        outputs = self.model(document, "layers", [value for value, _ in inputs], 1)
        return Network(tuple(inputs), tuple(outputs), self.shapes, tuple(self.calls), tuple(self.embeddings))

    def _check_layers(self, document: dict[str, Any], depth: int = 1) -> None:
        """Refuse layers that cannot be read before anything else: they are the errors that matter."""
        layers = _layers(_model(document)[1])
        self.num_layers += len(layers)
        if depth > MAX_DEPTH or self.num_layers > MAX_CALLS:
            raise Refused(
                f"config.json: expected at most {MAX_CALLS} layers, in models up to {MAX_DEPTH} deep, "
                "found more"
            )
        for raw in layers:
            if raw.get("class_name") in MODELS:
                self._check_layers(raw, depth + 1)
            elif raw.get("class_name") != "InputLayer" and not is_operation(raw):
                layer_config(raw)

    def model(self, document: dict[str, Any], path: str, given: Sequence[str], depth: int) -> list[str]:
        """Add the calls of a model to which values are given, and return the values of its outputs."""
        self.num_nested += 1
        if self.num_nested > MAX_CALLS:
            raise Refused(f"config.json: expected at most {MAX_CALLS} uses of models, found more")
        class_name, config = _model(document)
        if class_name == "Sequential":
            return self._sequential(config, path, given, depth)
        return self._functional(config, path, given, depth)

    def _sequential(self, config: dict[str, Any], path: str, given: Sequence[str], depth: int) -> list[str]:
        values = list(given)
        for raw, place in _placed(_layers(config), path):
            if raw.get("class_name") != "InputLayer":
                values = self._call(raw, place, Node((tuple(values[:1])), (), None), depth)
        return values[:1]

    def _functional(self, config: dict[str, Any], path: str, given: Sequence[str], depth: int) -> list[str]:
        walk = _Walk(dict(zip(_input_names(config), given, strict=False)))
        if len(walk.given) != len(given):
            raise Refused(
                f"model {config.get('name')!s:.80}: expected one value an input, found {len(given)}"
            )
        waiting = [
            (raw, place, nodes_of(raw))
            for raw, place in _placed(_layers(config), path)
            if raw.get("class_name") != "InputLayer"
        ]
        while waiting:
            left = []
            for raw, place, nodes in waiting:
                rest = self._ready_nodes(walk, raw, place, nodes, depth)
                if rest:
                    left.append((raw, place, rest))
            if sum(len(one[2]) for one in left) == sum(len(one[2]) for one in waiting):
                owner = label(left[0][0].get("name"), left[0][0].get("class_name"))
                raise Refused(f"{owner}: expected inputs that exist, found a loop or none")
            waiting = left
        kinds = {str(raw.get("name")): str(raw.get("class_name")) for raw in _layers(config)}
        return [walk.output(one, kinds) for one in leaves(config.get("output_layers"))]

    def _ready_nodes(
        self, walk: "_Walk", raw: dict[str, Any], place: str, nodes: list[Node], depth: int
    ) -> list[Node]:
        """Call a layer for its nodes in order, as long as their inputs are there; return the others."""
        for index, node in enumerate(nodes):
            named = walk.resolved(node)
            if named is None:
                return nodes[index:]
            walk.add(str(raw.get("name")), self._call(raw, place, named, depth))
        return []

    def _call(self, raw: dict[str, Any], place: str, node: Node, depth: int) -> list[str]:
        owner = label(raw.get("name") or raw["config"].get("name"), raw.get("class_name"))
        if len(self.calls) > MAX_CALLS:
            raise Refused(f"config.json: expected at most {MAX_CALLS} calls of layers, found more")
        if is_operation(raw):
            return [self._mask(raw, node, owner)]
        if any(self.shapes[one].kind == "mask" for one in (*node.inputs, *node.states)):
            raise Refused(f"{owner}: expected numbers as input, found a mask", EXPORT)
        if raw.get("class_name") in MODELS:
            return self.model(raw, f"{place}/layers", node.inputs, depth + 1)
        config = layer_config(raw)
        try:
            return self._layer_call(config, place, node, owner)
        except Refused as error:
            reason = (
                error.reason if error.reason.startswith(("layer ", "model")) else f"{owner}: {error.reason}"
            )
            raise Refused(reason, error.advice) from error

    def _layer_call(self, config: c.LayerConfig, place: str, node: Node, owner: str) -> list[str]:
        shapes = [self.shapes[one] for one in node.inputs]
        given = output_shapes(config, shapes)
        is_given = node.inputs[0] in self.given
        check_place(config, is_given)
        if node.mask is not None:
            check_mask(self.shapes[node.mask], shapes[0])
        _check_states(config, [self.shapes[one] for one in node.states])
        if isinstance(config, c.Embedding):
            self.embeddings.append((node.inputs[0], config))
        layer = self._layer(config, place, shapes[0].size, owner)
        outputs = [f"{len(self.calls)}:{config.name}:{index}" for index in range(len(given))]
        self.shapes.update(zip(outputs, given, strict=True))
        if isinstance(config, c.Pass) and is_given:
            self.given.add(outputs[0])
        self.calls.append(Call(layer, node.inputs, node.states, tuple(outputs)))
        return outputs

    def _layer(self, config: c.LayerConfig, place: str, size: int, owner: str) -> Layer:
        expected = weights_of(config, size)
        if place in self.layers:
            known = self.layers[place]
            if [one.shape for one in expected] != [one.shape for one in known.weights]:
                raise Refused(f"expected inputs of one size in all its uses, found {size} and another")
            return known
        if expected:
            self.weights.check_name(place, config.name, owner)
        values = tuple(self.weights.read(f"{place}/{one.path}", one.shape, owner) for one in expected)
        self.layers[place] = Layer(place, config, values)
        return self.layers[place]

    def _mask(self, raw: dict[str, Any], node: Node, owner: str) -> str:
        """Add the value of an operation that Keras records when it computes masks; no other is read."""
        shapes = [self.shapes[one] for one in node.inputs]
        is_given = bool(node.inputs) and node.inputs[0] in self.given
        value = f"mask:{len(self.shapes)}"
        self.shapes[value] = mask_of_operation(raw, shapes, node.constants, is_given, owner)
        return value


class _Walk:
    """The values of one Functional model so far, by layer and node."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.made: dict[str, list[list[str]]] = {name: [[value]] for name, value in given.items()}

    def add(self, name: str, values: list[str]) -> None:
        self.made.setdefault(name, []).append(values)

    def value(self, place: tuple[str, int, int]) -> str | None:
        """Return the name of a value by layer, node and tensor, or None if it has not been made."""
        nodes = self.made.get(place[0], [])
        if place[1] >= len(nodes):
            return None
        if place[2] >= len(nodes[place[1]]):
            raise Refused(
                f"layer {place[0][:80]!r}: expected {len(nodes[place[1]])} outputs, found a use of another"
            )
        return nodes[place[1]][place[2]]

    def output(self, place: tuple[str, int, int], kinds: dict[str, str]) -> str:
        """Return an output of the model; Keras counts the nodes of a Functional from 1 here."""
        name, node, tensor = place
        found = self.value((name, node - (kinds.get(name) == "Functional"), tensor)) if node >= 0 else None
        if found is None:
            raise Refused(
                f"output_layers: expected outputs of layers, found {name[:80]!r} without that output"
            )
        return found

    def resolved(self, node: Node) -> Node | None:
        """Return a node with names of values instead of places, or None if one has not been made."""
        inputs = [self.value(one) for one in node.places]
        states = [self.value(one) for one in node.state_places]
        mask = self.value(node.mask_place) if node.mask_place else None
        if None in inputs or None in states or (node.mask_place and mask is None):
            return None
        return replace(node, inputs=tuple(map(str, inputs)), states=tuple(map(str, states)), mask=mask)


def _model(document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    class_name, config = str(document.get("class_name")), document.get("config")
    if (
        class_name not in MODELS
        or not isinstance(config, dict)
        or document.get("registered_name") not in (None, class_name)
    ):
        advice = f"rebuild it with keras.Model(inputs, outputs), load its weights, and save it; or {EXPORT}"
        raise Refused(
            f"config.json: expected a Sequential or Functional model, found {class_name[:80]}", advice
        )
    return class_name, config


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(one, dict) and isinstance(one.get("config"), dict) for one in layers
    ):
        raise Refused("config.json: layers: expected a list of layers, found something else")
    if len(layers) > MAX_LAYERS:
        raise Refused(f"config.json: layers: expected at most {MAX_LAYERS}, found {len(layers)}")
    return layers


def _placed(layers: list[dict[str, Any]], path: str) -> list[tuple[dict[str, Any], str]]:
    """Return each layer with its place in the file of weights, which Keras numbers by class."""
    used: dict[str, int] = {}
    placed = []
    for raw in layers:
        # Operations on tensors are no layers: they have no weights and no number.
        name = "" if is_operation(raw) else unique(_snake_case(str(raw.get("class_name"))), used)
        placed.append((raw, f"{path}/{name}"))
    return placed


def _snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it in paths: LSTM is lstm, Conv1D conv1d, PReLU p_re_lu."""
    name = re.sub(r"\W+", "", name[:80])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _input(raw: dict[str, Any]) -> c.Input:
    return validated(c.Input, raw["config"], label(raw["config"].get("name"), "InputLayer"))


def _input_names(config: dict[str, Any]) -> list[str]:
    return [name for name, _, _ in leaves(config.get("input_layers"))]


def _feeds_embedding(name: str, class_name: str, raws: list[dict[str, Any]]) -> bool:
    """Return whether an input holds token ids: the first layer, or one that reads it, is an Embedding."""
    if class_name == "Sequential":
        inner = [raw for raw in raws if raw.get("class_name") != "InputLayer"][:1]
        return any(_starts_with_embedding(raw) for raw in inner)
    return any(
        _starts_with_embedding(raw)
        and any(place[0] == name for node in nodes_of(raw) for place in node.places)
        for raw in raws
        if raw.get("class_name") in ("Embedding", *MODELS)
    )


def _starts_with_embedding(raw: dict[str, Any], depth: int = 1) -> bool:
    if raw.get("class_name") == "Embedding":
        return True
    if raw.get("class_name") not in MODELS or depth > MAX_DEPTH:
        return False
    class_name, config = _model(raw)
    inner = _layers(config)
    if class_name == "Functional":
        return any(one.get("class_name") == "Embedding" for one in inner)
    first = [one for one in inner if one.get("class_name") != "InputLayer"][:1]
    return any(_starts_with_embedding(one, depth + 1) for one in first)


def _input_shape(one: c.Input, is_tokens: bool) -> Shape:
    size = one.batch_shape[-1]
    if is_tokens:
        if len(one.batch_shape) != 2:
            raise Refused(
                f"input {one.name!r}: expected [batch, time] for an Embedding, found 3 axes", EXPORT
            )
        return Shape("tokens", 0, one.name)
    if size is None:
        raise Refused(f"input {one.name!r}: batch_shape: expected a number of features, found any number")
    return Shape("rows", size) if len(one.batch_shape) == 2 else Shape("steps", size, one.name)


def _check_states(config: c.LayerConfig, given: list[Shape]) -> None:
    expected = state_sizes(config)
    if given and [(one.kind, one.size) for one in given] != [("rows", size) for size in expected]:
        raise Refused(f"initial_state: expected rows of {expected}, found {[one.size for one in given]}")
