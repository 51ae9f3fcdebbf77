"""Refuses to run a program whose packages are not installed, in a sentence that says what to run.

It imports nothing but Python's own, and is called before a program imports anything else.
"""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

Extra = Literal["serve", "train", "dev"]

_SERVE = (
    *("grpc", "grpc_health", "grpc_reflection", "numpy", "onnxruntime", "prometheus_client", "pydantic"),
    *("pydantic_settings", "structlog", "tokenizers"),
)
_TRAIN = (
    *("matplotlib", "numpy", "onnx", "onnxruntime", "pydantic", "rich", "sklearn", "tokenizers", "torch"),
    *("typer", "uvloop", "yaml"),
)
# The modules that a program imports, by the extra of pyproject.toml that installs them.
MODULES: Mapping[Extra, tuple[str, ...]] = {
    "serve": _SERVE,
    "train": _TRAIN,
    "dev": (*_SERVE, *_TRAIN, "h2", "trustme"),
}
TARGETS: Mapping[Extra, str] = {
    "serve": "make install",
    "train": "make train-env",
    "dev": "make install-dev",
}


def require(program: str, extra: Extra) -> None:
    """Return if the packages of an extra are installed.

    Args:
        program: How the program is called, such as `python -m training`.
        extra: Name of the extra that it needs.

    Raises:
        SystemExit: A package is missing; the text names all that are, and the command that installs them.
    """
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {program} needs {', '.join(missing)}, which {sys.executable} does not have: "
            f"run '{TARGETS[extra]}', then .venv/bin/{program}"
        )
