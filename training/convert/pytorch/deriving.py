"""Derives example inputs from a module's layers, where the user gives none."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from training.convert.foreign import Refused
from training.convert.pytorch.calls import Call, call_of, outputs_of
from training.convert.pytorch.modules import shown

BATCH, STEPS = 2, 7
ADVICE = (
    "give example inputs for two sequences, a tensor, a tuple of arguments, or a dict by the names of "
    "arguments: in Python beside the module, on the command line let package.module:function return the "
    "pair of both"
)


def derived_call(module: nn.Module) -> tuple[Call, str]:
    """Return a call with derived inputs that the module answers, and a sentence on what was derived.

    An Embedding takes tokens; otherwise the first recurrent layer's input size is the number of features, or
    that of another layer, where the module answers to no more likely one.

    Raises:
        Refused: the module answers to none of them.
    """
    problems = [f"no Embedding, recurrent or Linear layer in {type(module).__name__} that says what it takes"]
    for data, found in _in_both_orders(_sequences(module)):
        try:
            call = call_of(module, _arguments(module, data))
            outputs_of(module, call, list(call.tensors.values()))
        except Refused as error:
            problems.append(error.reason)
        else:
            others = [name for name in call.tensors if name != next(iter(call.tensors))]
            beside = f"; beside it {', '.join(others)} by name" if others else ""
            return call, f"example inputs: {found}{beside}"
    raise Refused(
        f"example inputs: expected layers from which they can be derived, found {problems[:2][-1]}", ADVICE
    )


def _in_both_orders(sequences: Iterator[tuple[Tensor, str]]) -> Iterator[tuple[Tensor, str]]:
    """Yield each sequence batch first and then time first, which arguments beside it tell apart."""
    for data, found in sequences:
        yield data, found
        if data.dim() > 1:
            yield data.transpose(0, 1).contiguous(), f"{found}, time first"


def _sequences(module: nn.Module) -> Iterator[tuple[Tensor, str]]:
    """Yield random sequences that the module may take, the most likely first."""
    layers = list(module.named_modules())
    for name, one in layers:
        if isinstance(one, nn.Embedding):
            data = torch.arange(BATCH * STEPS).reshape(BATCH, STEPS) % one.num_embeddings
            found = f"tokens below {one.num_embeddings}, as the Embedding {shown(name)} takes them"
            yield data, found
            yield data[0], f"one sequence of {found}"
            break
    sized = [(name, one, size) for name, one in layers if (size := _input_size(one)) is not None]
    recurrent = [one for one in sized if isinstance(one[1], nn.RNNBase | nn.modules.rnn.RNNCellBase)]
    for name, one, size in recurrent[:1] + [other for other in sized if other not in recurrent][:3]:
        generator = torch.Generator().manual_seed(0)
        data = torch.randn(BATCH, STEPS, size, generator=generator)
        yield data, f"{size} features a time step, as the {type(one).__name__} {shown(name)} takes them"


def _input_size(module: nn.Module) -> int | None:
    if isinstance(module, nn.RNNBase | nn.modules.rnn.RNNCellBase):
        return module.input_size
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Conv1d):
        return module.in_channels
    return module.normalized_shape[0] if isinstance(module, nn.LayerNorm) else None


def _arguments(module: nn.Module, data: Tensor) -> dict[str, Any]:
    """Return arguments for the parameters of forward() that have no default."""
    needed = [
        one
        for one in inspect.signature(module.forward).parameters.values()
        if one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if not needed:
        raise Refused("forward() without an argument that must be given", ADVICE)
    return {one.name: data if index == 0 else _beside(module, one.name) for index, one in enumerate(needed)}


def _beside(module: nn.Module, name: str) -> Any:
    """Derive an argument beside the data from its name: lengths, or the state of the first layer.

    Raises:
        Refused: the name says nothing.
    """
    lowered = name.lower()
    if "len" in lowered:
        return torch.full((BATCH,), STEPS)
    first = next((one for one in module.modules() if isinstance(one, nn.RNNBase)), None)
    if first is not None and (lowered.startswith(("h", "state", "prev")) or "hidden" in lowered):
        return _state(first)
    raise Refused(f"an argument {name!r} whose meaning its name does not say", ADVICE)


def _state(layer: nn.RNNBase) -> Tensor | tuple[Tensor, Tensor]:
    zeros = torch.zeros(layer.num_layers * (1 + layer.bidirectional), BATCH, layer.hidden_size)
    return (zeros, zeros.clone()) if isinstance(layer, nn.LSTM) else zeros
