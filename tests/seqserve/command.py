"""Runs the `seqserve` command: in this process, or as one of its own."""

import subprocess
import sys

from typer.testing import CliRunner, Result

from seqserve.cli.app import app
from tests.seqserve.scripted_server import ScriptedServer


def run(server: ScriptedServer, *arguments: str, stdin: str = "") -> Result:
    """Run in this process with standard input and output that are no terminals; exceptions beyond an exit are raised."""
    return CliRunner().invoke(app, ["--server", server.address, *arguments], input=stdin, catch_exceptions=False)


def start(server: ScriptedServer, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process with pipes to all three of its streams, unbuffered on our side."""
    return subprocess.Popen(
        [sys.executable, "-c", "from seqserve.cli import main; main()", *arguments, "--server", server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
