"""Describes in a sentence why onnxruntime could not load a graph, from the text of its exception.

It imports nothing of onnxruntime: the texts are those of its releases, and one that is not known is shown
without the parts that mean its own source.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_MAX_SHOWN = 300  # characters of an unknown text


class LoadError(NamedTuple):
    """The two sides of a reason, for people: what was expected of the graph, and what was found instead."""

    expected: str
    found: str


_LOADS = "a graph that onnxruntime loads"
_OPERATORS = "operators of ONNX or onnxruntime alone"
# A pattern of onnxruntime's text, what was expected and what was found; numbers in braces are its groups.
_KNOWN: Sequence[tuple[str, str, str]] = (
    (
        r"external data|external_data",
        "a graph that holds its weights",
        "external data: save the graph with its weights in the one file",
    ),
    (r"error: (\S+):(\w+)\(-?\d+\) is not a registered", _OPERATORS, "{2} of {1}, a custom operator"),
    (r"No Op registered for (\w+) with domain_version of (\d+)", _OPERATORS, "{1}, not in opset {2}"),
    (r"No opset import for domain '(.*?)'", "an opset import of each domain", "none of {1}"),
    (
        r"Opset (\d+) is under development",
        "an opset that this onnxruntime has",
        "opset {1}: export the graph with a lower one",
    ),
    (
        r"IR version: (\d+), max supported IR version: (\d+)",
        "IR version {2} or lower",
        "{1}: save the graph with a lower ir_version",
    ),
    (
        r"layout_? ?== ?[01]",
        "recurrent nodes of layout 0, time first",
        "layout 1, which onnxruntime does not run",
    ),
    (r"activation to be one of (.*)\. Got (\w+)", "activations of {1}", "{2}"),
    (
        r"implementation for (\w+)\((\d+)\)",
        "operators that have a kernel for their types",
        "{1} of opset {2}",
    ),
    (
        r"protobuf parsing failed|No graph was found|ModelProto does not have a graph",
        _LOADS,
        "a file that is no ONNX graph, or a part of one",
    ),
)
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Exception during initialization: |/onnxruntime_src/\S+:\d+ "
)


def describe(text: str) -> LoadError:
    """Describe an exception of onnxruntime by its text."""
    for pattern, expected, found in _KNOWN:
        if match := re.search(pattern, text, re.IGNORECASE):
            groups = (match.group(0), *match.groups())
            return LoadError(expected.format(*groups), found.format(*groups))
    plain = " ".join(_NOISE.sub("", text).split())
    return LoadError(_LOADS, plain if len(plain) <= _MAX_SHOWN else plain[:_MAX_SHOWN] + "...")
