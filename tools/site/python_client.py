"""The reference of the Python client: the names that `seqserve` exports, by kind, for mkdocstrings to fill.

mkdocstrings reads docstrings and signatures from the source without importing it.
"""

import inspect
from typing import Final

import seqserve
from seqserve.errors import SeqserveError

PATH: Final = "reference/python.md"

_HEAD: Final = """# The Python client
What `import seqserve` offers. Calls with their answers are in [sequences.md](../sequences.md) and [recipes.md](../recipes.md)."""  # noqa: E501
_CLIENTS: Final = "Clients and streams"
_RESULTS: Final = "Results and options"
_ERRORS: Final = "Exceptions"


def page() -> str:
    """Return the page: a heading for each kind of name, and a directive for each name."""
    parts = [_HEAD]
    for heading, names in _sections().items():
        parts += [f"## {heading}", *(f"::: seqserve.{name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def _sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {_CLIENTS: [], _RESULTS: [], _ERRORS: []}
    for name in sorted(seqserve.__all__, key=_order):
        found[_section(name)].append(name)
    return found


def _section(name: str) -> str:
    one = getattr(seqserve, name)
    if inspect.isclass(one) and issubclass(one, SeqserveError):
        return _ERRORS
    return _CLIENTS if name.endswith(("Client", "Stream")) else _RESULTS


def _order(name: str) -> tuple[str, bool]:
    """Order names so that the asyncio twin of a class stands behind it."""
    return name.removeprefix("Async"), name.startswith("Async")
