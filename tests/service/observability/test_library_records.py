"""service.observability.library_records: what is shown of the log records of libraries."""

import logging
from enum import Enum
from typing import Any

import pytest

from service.observability.library_records import hide_arguments
from tests.service.observability.test_logs import lines_logged_by

SAID = "gewgaw"


class Code(Enum):
    UNAVAILABLE = 14


class Request:
    def __repr__(self) -> str:
        return f"Request({SAID})"


def text_of(name: str, message: Any, *arguments: Any) -> str:
    record = logging.LogRecord(name, logging.WARNING, "/lib/module.py", 7, message, arguments, None)
    assert hide_arguments(record)
    return record.getMessage()


@pytest.mark.parametrize(
    ("name", "message", "arguments", "shown"),
    [
        ("asyncio", "Executing %s took %.3f seconds", (SAID, 0.25), "Executing <str> took 0.250 seconds"),
        (
            "asyncio",
            "Executing %r took %.3f seconds",
            (Request(), 1),
            "Executing <Request> took 1.000 seconds",
        ),
        ("concurrent.futures", "calling callback for %r", (Request(),), "calling callback for <Request>"),
        ("grpc._common", "code %s of %s", (Code.UNAVAILABLE, SAID), "code Code.UNAVAILABLE of <str>"),
        ("grpc.x", "of %(what)s: %(n)d", ({"what": SAID, "n": 3},), "of <str>: 3"),
        ("opentelemetry.sdk", "Queue full, dropping %s.", (SAID,), "Queue full, dropping <str>."),
        ("opentelemetry.sdk", "Processor is already shutdown", (), "Processor is already shutdown"),
    ],
)
def test_template_of_a_known_library_is_shown_with_numbers_alone(
    name: str, message: str, arguments: tuple[Any, ...], shown: str
) -> None:
    assert text_of(name, message, *arguments) == shown


@pytest.mark.parametrize(
    ("name", "message", "arguments"),
    [
        ("asyncio", f"Task failed\n<Task {SAID}>", ()),
        ("grpc._channel", f"details {SAID}", ()),
        ("library", f"invalid {SAID} %s", (1,)),
        ("library", SAID, ()),
        ("services", SAID, ()),
        ("asyncios", "%s", (SAID,)),
        ("opentelemetry.sdk", Request(), ()),
        ("grpc.stream", ValueError(SAID), (1,)),
    ],
)
def test_of_a_text_that_cannot_be_judged_the_place_is_shown(
    name: str, message: Any, arguments: tuple[Any, ...]
) -> None:
    expected = f"a library has logged a text that is not shown: {name}, module.py:7"
    assert text_of(name, message, *arguments) == expected


@pytest.mark.parametrize(("name", "message"), [("service.http", "of %s"), ("x", {"event": "of %s"})])
def test_record_of_this_program_stays_as_it_is(name: str, message: Any) -> None:
    record = logging.LogRecord(name, logging.INFO, "module.py", 7, message, ("it",), None)
    assert hide_arguments(record)
    assert (record.msg, record.args) == (message, ("it",))


SLOW = """
import asyncio, sys, time
from service.observability.logs import set_up_logging
set_up_logging("console", "debug")

def slow(said):
    time.sleep(0.15)

async def never(said):
    pass

async def main():
    asyncio.get_running_loop().call_soon(slow, sys.argv[2])
    task = asyncio.create_task(asyncio.sleep(9, sys.argv[2]))
    never(sys.argv[2])
    await asyncio.sleep(0.01)

from service.transport.loop import CompletionLoop
with asyncio.Runner(loop_factory={"asyncio": None, "completions": CompletionLoop}[sys.argv[1]]) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "completions"])
def test_debug_mode_of_python_shows_no_arguments_of_slow_callbacks(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    lines = lines_logged_by("-c", SLOW, loop, SAID)
    assert any("Executing <" in line and "seconds" in line for line in lines), lines
    assert SAID not in "\n".join(lines)
