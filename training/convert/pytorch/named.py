"""Reads a module by the name of what builds it, `package.module:function`: code runs because it was named."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from training.convert.foreign import Foreign, Refused
from training.convert.pytorch.calls import Examples, described
from training.convert.pytorch.checkpoint import load_into
from training.convert.pytorch.exporting import OPSET
from training.convert.pytorch.reading import read_own

FORM = "package.module:function"


def is_name(text: str) -> bool:
    """Tell whether a text has the form package.module:function rather than that of a file."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def read_named(
    name: str,
    examples: Examples | None = None,
    *,
    checkpoint: Path | None = None,
    opset: int = OPSET,
    folder: Path | None = None,
) -> Foreign:
    """Read the module that a function returns.

    The function is imported from the working directory or from what is installed, and called without
    arguments. It returns an nn.Module, or a module and example inputs; an nn.Module class is called likewise,
    and an nn.Module itself is taken as it is.

    Args:
        name: `package.module:function`.
        examples: as for `read_module`; they go before those that the function returns.
        checkpoint: file of weights that are loaded into the module.
        opset: opset of the graph.
        folder: folder into which the graph's large weights go; None: they stay in the graph.

    Raises:
        Refused: it cannot be imported, raised an exception, or returned something else.
    """
    module, own = built(name)
    if checkpoint is not None:
        load_into(module, checkpoint)
    return read_own(
        module,
        own if examples is None else examples,
        checkpoint=checkpoint,
        file=name,
        opset=opset,
        folder=folder,
    )


def built(name: str) -> tuple[nn.Module, Examples | None]:
    """Import and call what a name says; return the module, and the examples that come with it.

    Raises:
        Refused: as `read_named` does.
    """
    value = _looked_up(name)
    if not isinstance(value, nn.Module) and callable(value):
        value = _called(name, value)
    if isinstance(value, nn.Module):
        return value, None
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], nn.Module):
        return value[0], value[1]
    raise Refused(
        f"{name}: expected a function that returns an nn.Module, or an nn.Module and its example inputs, "
        f"found {_kind(value)}"
    )


def _looked_up(name: str) -> Any:
    if not is_name(name):
        raise Refused(f"{name!r}: expected a name of the form {FORM}")
    module, _, attribute = name.partition(":")
    if not any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise Refused(
            f"{name}: expected a module {module} that can be imported from the working directory, found "
            f"{described(error)}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise Refused(f"{name}: expected {part!r} in {module}, found {_public(value)}")
        value = getattr(value, part)
    return value


def _called(name: str, value: Callable[[], Any]) -> Any:
    try:
        return value()
    except (Exception, SystemExit) as error:
        raise Refused(
            f"{name}: expected a function that returns without arguments, found {described(error)}",
            "write a function of no arguments that builds the module, and name it",
        ) from error


def _public(value: Any) -> str:
    names = [name for name in dir(value) if not name.startswith("_") and callable(getattr(value, name))]
    return f"only {', '.join(names[:12])}" if names else "nothing that can be called"


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(one).__name__ for one in value)}"
    return f"{type(value).__name__}"
