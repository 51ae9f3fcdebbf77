"""Checks that inputs and outputs of a version's graphs are the contract's: names, types, ranks and widths.

Axes may have any symbolic names, since exporters name them as they like: that an axis is free, and means
what it should, is shown by running the graph with several sizes. An axis with a fixed number is refused where
the service gives it different ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

from service.contract import spec
from service.contract.generation_graph import NAMES, next_name, state_name
from service.errors import ModelRefused
from service.runtime import Session, TensorInfo

_TYPES = {"tokens": "tensor(int64)", "features": "tensor(float)"}
_FLOAT = "tensor(float)"
# onnxruntime's names of types, as people know them.
_PLAIN = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_PADDING = ": a network that takes lengths has padding lengths"


class _Axis(NamedTuple):
    """One axis that is expected: its name, and the number that it may be fixed at; None: it must be free."""

    name: str
    fixed: int | None = None


class _Expected(NamedTuple):
    """One tensor that is expected; the advice is for a graph that does not have it."""

    name: str
    type: str
    axes: tuple[_Axis, ...]
    advice: str = ""

    @property
    def shown(self) -> str:
        axes = [axis.name if axis.fixed is None else str(axis.fixed) for axis in self.axes]
        return f"{self.name}, {_PLAIN[self.type]} [{', '.join(axes)}]"


def check_signature(model: spec.ModelSpec, runtime: Session) -> None:
    """Check the graph of the network itself.

    Raises:
        ModelRefused: names the first tensor that differs.
    """
    network = model.network
    inputs, outputs = [_input_of(model)], [_output_of(model)]
    if network.kind == "chunk":
        inputs.append(_lengths("a chunk cell has to stop at each row's length"))
        inputs += [_row_of(pair.input, pair.size) for pair in network.states]
        inputs.append(
            _Expected(spec.WANTED, "tensor(int64)", (_Axis("wanted"),), "the head is computed there alone")
        )
        outputs += [_row_of(pair.output, pair.size) for pair in network.states]
    elif network.padding == "lengths":
        inputs.append(_lengths("the padding of a network without it is none"))
    for kind, expected, found in (("input", inputs, runtime.inputs), ("output", outputs, runtime.outputs)):
        _compare(kind, expected, found)


def check_init_signature(model: spec.ModelSpec, runtime: Session) -> None:
    """Check the graph of the first states, which always runs one row: its first axis may be fixed at 1.

    Raises:
        ModelRefused: names the first tensor that differs.
    """
    init = model.network.init
    assert init is not None, "the version has an init graph"
    batch = _Axis("batch", 1)
    inputs = [_Expected(one.name, _FLOAT, (batch, _Axis("size", one.size))) for one in init.inputs]
    if init.source is not None:
        inputs.append(_source_of(init.source, batch))
    _compare("input of the init graph", inputs, runtime.inputs)
    states = {
        pair.input: _Expected(pair.input, _FLOAT, (batch, _Axis("size", pair.size)))
        for pair in model.network.states
    }
    found = [one.name for one in runtime.outputs]
    if not found:
        raise ModelRefused(
            "signature", f"outputs of the init graph among the states, {_joined(list(states))}", "none"
        )
    if unknown := sorted(set(found) - set(states)):
        raise ModelRefused(
            "signature",
            f"outputs of the init graph among the states, {_joined(list(states))}",
            _joined(unknown),
        )
    _compare("output of the init graph", [states[name] for name in found], runtime.outputs)


def check_generation_signature(model: spec.ModelSpec, runtime: Session) -> None:
    """Check the graph that runs a few steps with the sampler in it.

    Raises:
        ModelRefused: names the first tensor that differs.
    """
    steps, batch, one = _Axis("steps"), _Axis("batch"), _Axis("1", 1)
    sizes = [pair.size for pair in model.network.states]
    integers, doubles = "tensor(int64)", "tensor(double)"
    inputs = [
        _Expected(NAMES.tokens, integers, (batch,)),
        _Expected(NAMES.uniforms, doubles, (steps, batch, one)),
        _Expected(NAMES.inverse, doubles, (batch, one)),
        _Expected(NAMES.has_cuts, "tensor(bool)", ()),
        _Expected(NAMES.top_k, integers, (batch, one)),
        _Expected(NAMES.top_p, doubles, (batch, one)),
        *(_row_of(state_name(index), size) for index, size in enumerate(sizes)),
    ]
    drawn = (NAMES.reached, NAMES.weights, NAMES.totals)
    outputs = [
        _Expected(NAMES.picked, integers, (steps, batch)),
        *(_Expected(name, doubles, (steps, batch, one)) for name in drawn),
        _Expected(NAMES.cut_margins, doubles, (steps, one, one)),
        _Expected(NAMES.logits, _FLOAT, (steps, batch, _Axis("outputs", model.outputs))),
        *(_row_of(next_name(index), size) for index, size in enumerate(sizes)),
    ]
    _compare("input of the generation graph", inputs, runtime.inputs)
    _compare("output of the generation graph", outputs, runtime.outputs)


def _source_of(source: spec.SourceSpec, batch: _Axis) -> _Expected:
    features = (_Axis("features", source.input.size),) if source.input.kind == "features" else ()
    axes = (batch, _Axis("time"), *features)
    return _Expected(spec.SOURCE, _TYPES[source.input.kind], axes, "the encoder reads it")


def _input_of(model: spec.ModelSpec) -> _Expected:
    axes = [_Axis("batch"), _time_of(model.network)]
    if model.input.kind == "features":
        axes.append(_Axis("features", model.input.size))
    return _Expected(spec.INPUT, _TYPES[model.input.kind], tuple(axes))


def _output_of(model: spec.ModelSpec) -> _Expected:
    network = model.network
    width = _Axis("outputs", model.outputs)
    if network.kind == "chunk":
        return _Expected(spec.OUTPUT, _FLOAT, (_Axis("wanted"), width))
    if network.is_pooled:
        return _Expected(spec.OUTPUT, _FLOAT, (_Axis("batch"), width))
    return _Expected(spec.OUTPUT, _FLOAT, (_Axis("batch"), _time_of(network), width))


def _time_of(network: spec.Network) -> _Axis:
    """Return the axis of time, which may be fixed where every run has whole windows."""
    return _Axis("time", network.window.to if network.kind == "whole" and network.window else None)


def _lengths(advice: str) -> _Expected:
    return _Expected(spec.LENGTHS, "tensor(int32)", (_Axis("batch"),), advice)


def _row_of(name: str, size: int) -> _Expected:
    return _Expected(name, _FLOAT, (_Axis("batch"), _Axis("size", size)))


def _compare(kind: str, expected: Sequence[_Expected], found: Sequence[TensorInfo]) -> None:
    """Raise ModelRefused unless exactly the expected tensors are found."""
    by_name = {info.name: info for info in found}
    names = {one.name for one in expected}
    extra = sorted(set(by_name) - names)
    for one in expected:
        if one.name not in by_name:
            others = f", and {_joined(extra)} beside the others" if extra else ""
            advice = f": {one.advice}" if one.advice else ""
            raise ModelRefused("signature", f"the {kind} {one.shown}", f"none{others}{advice}")
        _compare_tensor(kind, one, by_name[one.name])
    if extra:
        advice = _PADDING if extra == [spec.LENGTHS] else ""
        raise ModelRefused(
            "signature",
            f"no {kind} beside {_joined([one.name for one in expected])}",
            _joined(extra) + advice,
        )


def _compare_tensor(kind: str, expected: _Expected, found: TensorInfo) -> None:
    if found.type != expected.type or len(found.shape) != len(expected.axes):
        raise ModelRefused("signature", f"the {kind} {expected.shown}", _shown(found))
    for index, (axis, size) in enumerate(zip(expected.axes, found.shape, strict=True)):
        if isinstance(size, int) and size != axis.fixed:
            advice = "" if axis.fixed else ": export the graph with that axis dynamic"
            raise ModelRefused(
                "signature",
                f"the {kind} {expected.shown}",
                f"{_shown(found)}, axis {index} fixed at {size}{advice}",
            )


def _shown(info: TensorInfo) -> str:
    axes = ", ".join("?" if axis is None else str(axis) for axis in info.shape)
    return f"{_PLAIN.get(info.type, info.type)} [{axes}]"


def _joined(names: Sequence[str]) -> str:
    """Join the first few names."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
