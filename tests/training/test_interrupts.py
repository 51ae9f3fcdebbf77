"""training.interrupts: what Ctrl-C shows."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A shell starts what it puts into the background with interrupts ignored, and that is inherited.
INTERRUPTED_IMPORT = (
    "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "import builtins; real = builtins.__import__\n"
    "def interrupted(name, *rest, **named):\n"
    "    if name == 'typer': signal.raise_signal(signal.SIGINT)\n"
    "    return real(name, *rest, **named)\n"
    "builtins.__import__ = interrupted\n"
)


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (
            "runpy.run_module('training', run_name='__main__', alter_sys=True)",
            "interrupted; nothing had begun",
        ),
        ("from seqserve.cli import main; main()", "interrupted"),
    ],
    ids=["training", "seqserve"],
)
def test_interrupt_during_the_imports_of_a_command_is_one_line(start: str, line: str) -> None:
    """It ended with a trace of dozens of lines."""
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT + start],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (128 + signal.SIGINT, f"{line}\n", "")
