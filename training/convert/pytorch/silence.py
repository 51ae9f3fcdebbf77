"""Silences what torch's exporters print, log and warn of: what matters comes back as their exception."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

OUTPUT, ERRORS = 1, 2


@contextmanager
def silenced() -> Iterator[None]:
    """Send standard output and error, also of C++ code, nowhere, and ignore warnings and log records."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            _descriptors_redirected(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _descriptors_redirected() -> Iterator[None]:
    """Point the process's descriptors 1 and 2 at a temporary file, as C++ code writes to them."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with tempfile.TemporaryFile() as sink:
        kept = {number: os.dup(number) for number in (OUTPUT, ERRORS) if _is_open(number)}
        try:
            for number in kept:
                os.dup2(sink.fileno(), number)
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
