"""The standard streams of a command: no answer is lost to an encoding, and no failed write is a traceback.

`standard_streams` is the only place that decides what happens to text that a stream cannot encode, to a pipe
whose reader has left, to a full disk and to a stream that is closed from the start. The rest of the module
makes text safe for a terminal.
"""

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_FAILED = 1
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2

# C0 and C1 controls, line and paragraph separators, marks that reorder the text on a line, and surrogates.
# Marks without an effect on their surroundings, such as the joiners of emoji, pass.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class OutputFailed(Exception):
    """Standard output cannot be written; `cause` says why.

    It is no OSError, because click would turn that of a closed pipe into an exit of its own.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output cannot be written: {cause.strerror}")
        self.cause = cause


class _Output(io.TextIOWrapper):
    """Standard output; a failed write raises OutputFailed.

    The layers below stay those of the library: a KeyboardInterrupt in a raw stream written in Python would
    have text written twice.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputFailed(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputFailed(error) from error


class _Errors(io.TextIOWrapper):
    """Standard error; where it cannot be written, messages are dropped.

    There is no place left to report to, and the exit status still tells the failure.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(_ERRORS)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(_ERRORS)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Run a command with streams that lose no answer, and end it as coreutils end when output fails.

    Characters that a stream's encoding lacks are written as backslash escapes. A closed pipe ends the process
    by SIGPIPE, without a message; any other failed write ends it with status 1 and one sentence.

    Raises:
        SystemExit: Standard output could not be written.
    """
    _open_closed()
    sys.stdin = sys.stdin or open(_INPUT, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process
    sys.stdout = _text_stream(_Output, _OUTPUT, sys.stdout)
    sys.stderr = _text_stream(_Errors, _ERRORS, sys.stderr)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputFailed as failed:
        _discard(_OUTPUT)
        if isinstance(failed.cause, BrokenPipeError):
            _end_by_closed_pipe()
        sys.stderr.write(f"error: {failed}\n")
        sys.exit(_FAILED)


def _open_closed() -> None:
    """Give closed descriptors 0 to 2 a file, so that no socket takes their number.

    Reading from the one and writing to the other fails as with a closed one. Standard error is discarded.
    """
    for descriptor in (_INPUT, _OUTPUT, _ERRORS):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == _OUTPUT else os.O_WRONLY)


def _discard(descriptor: int) -> None:
    """Send all further output nowhere: what is buffered would fail again at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _text_stream(kind: type[io.TextIOWrapper], descriptor: int, old: TextIO | None) -> TextIO:
    old_wrapper = old if isinstance(old, io.TextIOWrapper) else None
    return kind(
        open(descriptor, "wb", closefd=False),
        encoding=old_wrapper.encoding if old_wrapper else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == _ERRORS or os.isatty(descriptor),
        write_through=bool(old_wrapper and old_wrapper.write_through),
    )


def _end_by_closed_pipe() -> None:
    """End the process by SIGPIPE where there is one, so that a shell sees status 141."""
    if os.name == "posix":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(_FAILED)


def escape_controls(text: str, keep: str = "") -> str:
    """Escape what would move the cursor, change a terminal or reorder a line, but for characters to keep."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def can_print(text: str) -> bool:
    """Return whether standard output's encoding has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def json_line(value: Any) -> str:
    r"""Format a value as one line of JSON that every terminal and encoding can take.

    Control characters, and characters that standard output cannot encode, become \u escapes, which have the
    same value; a backslash escape of Python would be no JSON.
    """
    text = json.dumps(value, ensure_ascii=False)
    if not can_print(text):
        text = json.dumps(value)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
