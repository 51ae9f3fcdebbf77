"""Watches the submodules of a module while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Note = Callable[[nn.Module, tuple[Any, ...]], None]


@contextmanager
def watched(module: nn.Module, kinds: type | tuple[type, ...], note: Note) -> Iterator[None]:
    """Call a function with every submodule of some kinds that is run, and its positional arguments."""
    handles = [one.register_forward_pre_hook(note) for one in module.modules() if isinstance(one, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
