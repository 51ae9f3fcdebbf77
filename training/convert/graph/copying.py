"""Copies the nodes of a foreign graph under new names, with some tensors replaced, into one new graph."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.export.graph_builder import Attribute

PRODUCER = "seqserve"
# The oldest onnxruntime that serves reads this version of the format.
_MAX_IR_VERSION = 10


class Emitter(Protocol):
    """What stands for some of the original's nodes in a copy."""

    def emit(self, copier: "Copier", named: Callable[[str], str]) -> None:
        """Add nodes in place of the original's.

        Args:
            copier: collects the nodes.
            named: returns the name that a tensor of the original has in this copy.
        """
        ...


class Copier:
    """Collects nodes and constants of a new graph, copies of an original's among them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def tensor(self, tensor: onnx.TensorProto) -> None:
        """Add an initializer of the original under its own name."""
        self._constants[tensor.name] = tensor

    def constant(self, name: str, value: Sequence[int] | NDArray[np.generic]) -> str:
        """Add a constant unless there is one of the name, which has the same values then; return the name."""
        if name not in self._constants:
            array = np.asarray(value, np.int64) if not isinstance(value, np.ndarray) else value
            self._constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def shape(self, *sizes: int) -> str:
        """Return the name of a constant shape or list of indices, int64 (len(sizes),)."""
        return self.constant("shape." + ".".join(map(str, sizes)), sizes)

    def scalar(self, number: int) -> str:
        """Return the name of a constant int64 scalar."""
        return self.constant(f"scalar.{number}", np.array(number, np.int64))

    def node(self, operator: str, inputs: Iterable[str], output: str, **attributes: Attribute) -> str:
        """Add a node of one output, and return the name of that."""
        made = helper.make_node(operator, list(inputs), [output], name=f"{operator}/{output}")
        made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(made)
        return output

    def copy(
        self,
        graph: onnx.GraphProto,
        prefix: str,
        replaced: Mapping[str, str],
        emitters: Mapping[str, Emitter] | None = None,
    ) -> Callable[[str], str]:
        """Copy the nodes of a graph.

        Args:
            graph: the original; its initializers keep their names and must have been added.
            prefix: stands before the names of all other tensors.
            replaced: names in the copy for tensors of the original. Nodes all of whose outputs are replaced
                are left out.
            emitters: what is added instead of a node, by the name of one of its outputs.

        Returns:
            A function from a name in the original to the name in the copy.
        """
        weights = {one.name for one in graph.initializer}

        def named(name: str) -> str:
            if not name:
                return name
            return replaced.get(name) or (name if name in weights else prefix + name)

        for node in graph.node:
            emitter = next((emitters[one] for one in node.output if emitters and one in emitters), None)
            if emitter is not None:
                emitter.emit(self, named)
            elif not node.output or any(one and one not in replaced for one in node.output):
                self.nodes.append(_renamed(node, prefix, named))
        return named

    def model(
        self,
        original: onnx.ModelProto,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """Return the nodes that the outputs need, in topological order, as a model."""
        nodes = needed(self.nodes, [one.name for one in outputs])
        used = {name for node in nodes for name in read_by(node)} | {one.name for one in outputs}
        constants = [one for one in self._constants.values() if one.name in used]
        graph = helper.make_graph(nodes, name, list(inputs), list(outputs), constants)
        domains = {node.domain or "" for node in every_node(nodes)}
        opsets = [one for one in original.opset_import if one.domain in domains or one.domain == ""]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            producer_name=PRODUCER,
            ir_version=min(original.ir_version, _MAX_IR_VERSION),
        )


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name, as Python values."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the bodies and branches of a node."""
    single = [one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]
    return single + [graph for one in node.attribute for graph in one.graphs]


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Yield nodes and those inside them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from every_node(graph.node)


def read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those that its bodies read from outside among them."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        own = {one.name for one in graph.input} | {one.name for one in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        names |= {name for inner in graph.node for name in read_by(inner)} - own
        names |= {one.name for one in graph.output} - own
    return names


def needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that outputs depend on, each behind those that it reads from."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    order: list[int] = []
    seen: set[int] = set()
    for output in outputs:
        # A stack instead of recursion: graphs of a thousand nodes in a row are common.
        stack = [(makers[output], False)] if output in makers else []
        while stack:
            index, is_done = stack.pop()
            if is_done:
                order.append(index)
            elif index not in seen:
                seen.add(index)
                stack.append((index, True))
                before = {makers[name] for name in read_by(nodes[index]) if name in makers}
                stack.extend((one, False) for one in sorted(before, reverse=True) if one not in seen)
    return [nodes[index] for index in order]


def _renamed(node: onnx.NodeProto, prefix: str, named: Callable[[str], str]) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.name = prefix + node.name if node.name else ""
    for index, name in enumerate(node.input):
        made.input[index] = named(name)
    for index, name in enumerate(node.output):
        made.output[index] = prefix + name if name else ""
    for graph in subgraphs(made):
        _rename_inside(graph, named, frozenset())
    return made


def _rename_inside(graph: onnx.GraphProto, named: Callable[[str], str], outer: frozenset[str]) -> None:
    """Rename what a body reads from outside; its own names stay."""
    own = outer | {one.name for one in graph.input} | {one.name for one in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name not in own:
                node.input[index] = named(name)
        for inner in subgraphs(node):
            _rename_inside(inner, named, own)
    for one in graph.output:
        if one.name not in own:
            one.name = named(one.name)
