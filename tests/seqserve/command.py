"""Runs the `seqserve` command: in this process, or as one of its own."""

import os
import subprocess
import sys

from typer.testing import CliRunner, Result

from seqserve.cli.app import app
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer

# A shell starts what it puts into the background with interrupts ignored, and that is inherited.
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from seqserve.cli import main; main()"
)


def run(server: ScriptedServer, *arguments: str, stdin: str | bytes = "") -> Result:
    """Run in this process with standard input and output that are no terminals; exceptions beyond an exit are
    raised.
    """
    return CliRunner().invoke(
        app, ["--server", server.address, *arguments], input=stdin, catch_exceptions=False
    )


def start(server: ScriptedServer, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process with pipes to all three of its streams, unbuffered on our side."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments, "--server", server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def on_terminal(server: ScriptedServer, *arguments: str, columns: int = 80, **environment: str) -> str:
    """Run a process of its own with standard output on a terminal, and return what it shows."""
    controller, terminal = os.openpty()
    settings = {"COLUMNS": str(columns), "TERM": "xterm", "PYTHONUTF8": "1"} | environment
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM, "--server", server.address, *arguments],
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.PIPE,
            check=False,
            timeout=WAIT_S,
        )
        os.close(terminal)
        assert result.returncode == 0, result.stderr
        shown = b""
        while chunk := _read(controller):
            shown += chunk
        return shown.decode()
    finally:
        os.close(controller)


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # EIO: Linux reports the end of a terminal so
        return b""
