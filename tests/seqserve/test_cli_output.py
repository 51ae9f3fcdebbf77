"""Output of the command: no answer lost to an encoding, no traceback for a stream that cannot be written."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from seqserve.cli.output import escape_controls, json_line
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.command import on_terminal
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, started, stock_forecast, text_pieces

_PROGRAM = "from seqserve.cli import main; main()"
# Clears the screen, sets the title, colours by a C1 control, reorders the line, rings.
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e\x7f\r"
LABEL = "Größe ☃"


@pytest.fixture(scope="module")
def hostile() -> Iterator[ScriptedServer]:
    """A server whose texts are hostile, and beyond ASCII."""
    server = ScriptedServer()
    running = started(server)
    server.models.models.add(
        name="charlm", version=1, status=models.MODEL_STATUS_FAILED, message=f"{LABEL}{HOSTILE}"
    )
    server.pieces = [generation.GenerateResponse(text=f"{LABEL}{HOSTILE}\n", token_count=9), *text_pieces()]
    yield server
    running.stop(grace=1).wait(WAIT_S)


def _command(server: ScriptedServer, *arguments: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM, "--server", server.address, *arguments]


def _run(
    server: ScriptedServer, *arguments: str, environment: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _command(server, *arguments),
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=WAIT_S,
        **(streams or {"capture_output": True}),
    )


def _shell(server: ScriptedServer, rest: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in bash, followed by redirections."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {rest}', "bash", *_command(server, *arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_the_encoding_lacks_is_escaped_and_nothing_is_lost(
    hostile: ScriptedServer, encoding: str
) -> None:
    environment = {"PYTHONIOENCODING": encoding}
    result = _run(hostile, "generate", "--model", "charlm", "Hi", environment=environment)
    shown = LABEL.encode(encoding, "backslashreplace") + HOSTILE.encode(encoding, "backslashreplace")
    # \x9b is a character of latin-1; the pipe gets what the model wrote.
    assert (result.returncode, result.stdout, result.stderr) == (0, shown + b"\nTo be or", b"")


def test_json_is_json_in_every_encoding(hostile: ScriptedServer) -> None:
    result = _run(hostile, "models", "--json", environment={"PYTHONIOENCODING": "ascii"})
    assert json.loads(result.stdout)["message"] == f"{LABEL}{HOSTILE}"


FULL = "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("rest", "arguments", "status", "message"),
    [
        (">/dev/full", ["models"], 1, FULL),
        (">/dev/full", ["generate", "--model", "charlm", "Hi"], 1, FULL),
        (">&-", ["models"], 1, "error: standard output cannot be written: Bad file descriptor\n"),
        (">/dev/full 2>/dev/full", ["models"], 1, ""),
        ("2>&-", ["classify", "--bogus"], 2, ""),
        ("<&-", ["generate"], 2, "error: standard input: Bad file descriptor\n"),
    ],
)
def test_streams_that_cannot_be_used_end_the_command_without_a_traceback(
    hostile: ScriptedServer, rest: str, arguments: list[str], status: int, message: str
) -> None:
    result = _shell(hostile, rest, *arguments)
    assert (result.returncode, result.stderr) == (status, message)


def test_a_reader_that_has_left_ends_the_command_by_sigpipe(hostile: ScriptedServer) -> None:
    """As coreutils end: a shell shows status 141, and nothing is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    result = _run(hostile, "generate", "--model", "charlm", "Hi", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("arguments", [["generate", "--model", "charlm", "Hi"], ["models"]])
def test_a_terminal_gets_no_control_characters_of_the_servers(
    hostile: ScriptedServer, arguments: list[str]
) -> None:
    shown = on_terminal(hostile, *arguments, columns=200)
    # What is left of the escape sequences are those of the drawing itself.
    ours = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert r"\x1b[2J\x1b]0;title\x07\x9b31m\u202e\x7f\r" in ours
    assert not set(ours) & set("\x1b\x07\x9b\u202e\x7f")
    assert LABEL in ours


def test_a_narrow_terminal_loses_no_cell(hostile: ScriptedServer) -> None:
    shown = on_terminal(hostile, "models", columns=1)
    assert "charlm\t1\tfailed\t" in shown


@pytest.mark.parametrize(
    ("encoding", "columns", "reason"),
    [
        ("utf-8", "1", b"no plot: it needs 40 columns, and the terminal has 1\n"),
        ("ascii", "80", b"no plot: the encoding of standard output is ascii, not UTF-8\n"),
    ],
)
def test_a_plot_that_cannot_be_drawn_is_left_out_with_a_reason(
    hostile: ScriptedServer, encoding: str, columns: str, reason: bytes, tmp_path: Path
) -> None:
    hostile.forecasts = stock_forecast()
    rows = tmp_path / "rows.csv"
    rows.write_text("1\n2\n")
    environment = {"PYTHONIOENCODING": encoding, "COLUMNS": columns}
    arguments = ("forecast", "--plot", "--oldest-first", "--model", "charlm", "--file", str(rows))
    result = _run(hostile, *arguments, environment=environment)
    assert (result.returncode, result.stderr) == (0, reason)
    assert len(result.stdout.splitlines()) == 3


def test_escapes_keep_text_and_drop_controls() -> None:
    harmless = "Größe ☃ \u00a0 \u200d 👩\u200d🚀 e\u0301"
    assert escape_controls(harmless) == harmless
    assert escape_controls("a\nb\tc", keep="\n") == "a\nb\\tc"


@pytest.mark.parametrize("text", [HOSTILE, "\ud800", "\u2028", "\u0085"])
def test_json_line_has_no_controls_and_the_same_value(text: str) -> None:
    line = json_line({"text": text})
    assert line.isprintable()
    assert json.loads(line) == {"text": text}
