"""Says which inputs the tensors of a graph depend on."""

import onnx

from training.convert.graph.copying import read_by


def origins(graph: onnx.GraphProto, roots: set[str]) -> dict[str, frozenset[str]]:
    """Return for each tensor the roots that it depends on; roots depend on themselves alone."""
    found = {name: frozenset([name]) for name in roots}
    for node in graph.node:
        read = frozenset[str]().union(*(found.get(name, frozenset()) for name in read_by(node)))
        for name in node.output:
            if name:
                found.setdefault(name, read)
    return found
