"""The `seqserve` command; it needs the packages of the extra `seqserve[cli]`."""

import sys
from importlib.util import find_spec

_EXTRA = ("typer", "rich", "plotext")


def main() -> None:
    """Run the command; the exit status is 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        names = ", ".join(missing)
        sys.exit(
            f"error: the seqserve command needs {names}, of its extra 'cli': run 'make install' in a "
            "clone of seqserve, or install the wheel with it, pip install 'FILE.whl[cli]'"
        )
    from seqserve.cli.app import app  # noqa: PLC0415 - not importable without the extra

    app(prog_name="seqserve")
