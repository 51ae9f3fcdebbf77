"""The `seqserve` command; it needs the packages of the extra `seqserve[cli]`."""

import os
import signal
import sys
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
_LINE = "interrupted\n"
_EXTRA = ("typer", "rich", "plotext")


def main() -> None:
    """Run the command; the exit status is 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    may_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if may_interrupt:
        signal.signal(signal.SIGINT, _end)  # an import that is interrupted ends with a trace
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        names = ", ".join(missing)
        sys.exit(
            f"error: the seqserve command needs {names}, of its extra 'cli': run 'make install' in a "
            "clone of seqserve, or install the wheel with it, pip install 'FILE.whl[cli]'"
        )
    from seqserve.cli.output import standard_streams  # noqa: PLC0415 - as late as what follows

    with standard_streams():
        from seqserve.cli.app import app  # noqa: PLC0415 - not importable without the extra

        if may_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            app(prog_name="seqserve")
        except SystemExit as ending:
            if ending.code == INTERRUPTED:
                sys.stderr.write(_LINE)
            raise


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process at once; there is nothing to close yet."""
    os.write(2, _LINE.encode())
    os._exit(INTERRUPTED)
