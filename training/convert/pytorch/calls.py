"""Flattens what a module takes and gives into named tensors, and puts them together again."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from training.convert.foreign import Refused
from training.convert.pytorch.running import preserved

# Examples as a user gives them: a tensor, the positional arguments, or the arguments by name.
Examples = Tensor | Sequence[Any] | Mapping[str, Any]
OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of a module, of which every tensor can be exchanged.

    Attributes:
        arguments: by the name of the parameter, in the order of forward().
        positional: number of them that are given by position.
        variadic: arguments of a `*` parameter.
    """

    arguments: Mapping[str, Any]
    positional: int
    variadic: tuple[Any, ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name: `x`, or `state.0` and `state.1` of a tuple."""
        found: dict[str, Tensor] = {}
        for name, value in self.arguments.items():
            found |= named_tensors(value, name)
        return found | named_tensors(self.variadic, "input")

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of arguments without a tensor, which stay as they are in every call."""
        return tuple(name for name, value in self.arguments.items() if not named_tensors(value, name))

    def run(self, module: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """Call a module with other tensors, in the order of `tensors`."""
        rest = iter(tensors)
        made = {name: _exchanged(value, rest) for name, value in self.arguments.items()}
        variadic = _exchanged(self.variadic, rest)
        names = list(made)
        positional = [made[name] for name in names[: self.positional]]
        return module(*positional, *variadic, **{name: made[name] for name in names[self.positional :]})


def call_of(module: nn.Module, examples: Examples) -> Call:
    """Bind example inputs to the parameters of a module's forward().

    Raises:
        Refused: they do not fit, or hold no tensor.
    """
    signature = inspect.signature(module.forward)
    given = (examples,) if isinstance(examples, Tensor) else examples
    try:
        bound = signature.bind(**given) if isinstance(given, Mapping) else signature.bind(*given)
    except TypeError as error:
        raise Refused(
            f"examples: expected the arguments of {type(module).__name__}.forward{signature}, found {error}",
            "give a tensor, a tuple of arguments, or a dict by the names of arguments",
        ) from error
    call = _call(signature, bound)
    if _has_packed(bound.arguments):
        raise Refused(
            "examples: expected tensors, found a PackedSequence",
            "give the padded batch and its lengths to a module that packs them itself",
        )
    lists = [name for name, value in bound.arguments.items() if _is_numbers(value)]
    if lists:
        raise Refused(
            f"examples: expected {lists[0]} as a tensor, found a list of numbers, the same in every call",
            f"give torch.tensor({lists[0]})",
        )
    if not call.tensors:
        raise Refused("examples: expected at least one tensor, found none")
    return call


def _call(signature: inspect.Signature, bound: inspect.BoundArguments) -> Call:
    kinds = {name: one.kind for name, one in signature.parameters.items()}
    arguments: dict[str, Any] = {}
    variadic: tuple[Any, ...] = ()
    positional = 0
    for name, value in bound.arguments.items():
        if kinds[name] is inspect.Parameter.VAR_POSITIONAL:
            variadic = tuple(value)
        elif kinds[name] is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        else:
            arguments[name] = value
            positional += kinds[name] is not inspect.Parameter.KEYWORD_ONLY
    # Without variadic arguments everything by position could be by name too, and an argument that was left
    # out must not shift those behind it.
    if variadic:
        return Call(arguments, positional, variadic)
    only = sum(kinds.get(name) is inspect.Parameter.POSITIONAL_ONLY for name in arguments)
    return Call(arguments, only)


def named_tensors(value: Any, name: str) -> dict[str, Tensor]:
    """Return the tensors within tuples, lists and dictionaries: `name`, `name.0`, `name.1.key`."""
    if isinstance(value, Tensor):
        return {name: value}
    found: dict[str, Tensor] = {}
    for key, inner in _children(value):
        found |= named_tensors(inner, f"{name}.{key}")
    return found


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), inner) for key, inner in value.items()]
    return [(str(key), inner) for key, inner in enumerate(value)] if isinstance(value, tuple | list) else []


def _exchanged(value: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {key: _exchanged(inner, tensors) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        inner = [_exchanged(one, tensors) for one in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    return value


def _is_numbers(value: Any) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(one, int | float) for one in value)


def _has_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence) or any(_has_packed(inner) for _, inner in _children(value))


def named_outputs(value: Any) -> dict[str, Tensor]:
    """Return the tensors of a module's answer: `output`, or `output.0`, `output.1.0` of a tuple.

    Raises:
        Refused: there is none, or a PackedSequence is among them.
    """
    if _has_packed(value):
        raise Refused(
            "the module's answer: expected tensors, found a PackedSequence",
            "pad it with torch.nn.utils.rnn.pad_packed_sequence in forward()",
        )
    found = named_tensors(value, OUTPUT)
    if not found:
        raise Refused(f"the module's answer: expected tensors, found {type(value).__name__}")
    return found


def outputs_of(module: nn.Module, call: Call, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Run a module in eval mode, without gradients, and return the tensors of its answer.

    Raises:
        Refused: what forward() raised, or an answer without tensors.
    """
    try:
        with preserved(module):
            value = call.run(module, tensors)
    except Exception as error:
        shapes = ", ".join(
            f"{name} {tuple(one.shape)}" for name, one in zip(call.tensors, tensors, strict=True)
        )
        raise Refused(
            f"forward() of {type(module).__name__}: expected an answer to {shapes}, found {described(error)}"
        ) from error
    return list(named_outputs(value).values())


def described(error: BaseException) -> str:
    """Return an exception's type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
