"""Runs a module as it answers when it serves, and leaves it as it was.

A module may keep its last state in an attribute, count its calls in a buffer or draw random numbers: each run
here starts from the module as it was given, so that every sequence is computed alone.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# An attribute of a module: its name, the object, and a shallow copy where the object can change in place.
_Saved = tuple[str, Any, dict[Any, Any] | list[Any] | None]


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, without gradients, and restore it at the end.

    Restored are the attributes of all its submodules with their hooks and modes, the values of buffers, and
    the state of torch's and Python's random numbers. Dictionaries and lists of hooks keep their identity,
    which handles of hooks rely on.
    """
    saved = [(one, _attributes(one)) for one in module.modules()]
    buffers = [(one, one.detach().clone()) for one in module.buffers()]
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for one, _ in saved:
                one.training = False
            yield
    finally:
        random.setstate(state)
        for one, attributes in saved:
            _restore(one, attributes)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _attributes(module: nn.Module) -> list[_Saved]:
    found: list[_Saved] = []
    for name, value in vars(module).items():
        if isinstance(value, dict):
            found.append((name, value, dict(value)))
        else:
            found.append((name, value, list(value) if isinstance(value, list) else None))
    return found


def _restore(module: nn.Module, attributes: list[_Saved]) -> None:
    for name in vars(module).keys() - {name for name, _, _ in attributes}:
        del vars(module)[name]
    for name, value, copy in attributes:
        if isinstance(value, dict) and isinstance(copy, dict):
            value.clear()
            value.update(copy)
        elif isinstance(value, list) and isinstance(copy, list):
            value[:] = copy
        vars(module)[name] = value
