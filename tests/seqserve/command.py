"""Runs the `seqserve` command: in this process, or as one of its own."""

import subprocess
import sys

from typer.testing import CliRunner, Result

from seqserve.cli.app import app
from tests.seqserve.scripted_server import ScriptedServer

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
