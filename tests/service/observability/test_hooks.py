"""service.observability.hooks, in a process of its own: the hooks are the whole process's."""

import json

import pytest

from tests.service.observability.test_logs import lines_logged_by

SCRIPT = """
import asyncio, gc, sys, threading, warnings
from service.observability.hooks import log_loop_errors
from service.observability.logs import set_up_logging
set_up_logging("json", "info")

def fail(said):
    raise KeyError(said)

class Finalized:
    def __del__(self):
        fail("gewgaw")

async def task():
    fail("gewgaw")

async def main():
    loop = asyncio.get_running_loop()
    log_loop_errors(loop)
    {work}
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("work", "event", "facts"),
    [
        (
            "asyncio.create_task(task())",
            "error in the event loop",
            {"what": "Task exception was never retrieved", "where": "task"},
        ),
        ("loop.call_soon(fail, 'gewgaw')", "error in the event loop", {"what": "Exception in callback fail"}),
        (
            "loop.create_future().set_exception(KeyError('gewgaw'))",
            "error in the event loop",
            {"what": "Future exception was never retrieved"},
        ),
        (
            "one = threading.Thread(target=fail, args=('gewgaw',), name='t'); one.start(); one.join()",
            "a thread has ended on an error",
            {"thread": "t"},
        ),
        ("Finalized()", "an error could not be raised", {"where": "Finalized.__del__"}),
        ("fail('gewgaw')", "the program has ended on an error", {}),
    ],
)
def test_uncaught_exception_is_one_line_without_its_text(
    work: str, event: str, facts: dict[str, str]
) -> None:
    script = SCRIPT.format(work=work)
    if event == "the program has ended on an error":
        script = script.replace("asyncio.run(main())", "fail('gewgaw')")
    [line] = lines_logged_by("-c", script, status=int("program" in event))
    logged = json.loads(line)
    assert logged["event"] == event
    assert facts.items() <= logged.items()
    assert logged["exception"][0]["exc_type"] == "KeyError"
    assert "gewgaw" not in line


def test_warning_is_one_line_with_its_place_and_without_its_text() -> None:
    script = SCRIPT.format(work="warnings.warn('gewgaw', ResourceWarning)").replace(
        "import asyncio", "import warnings; warnings.simplefilter('always'); import asyncio"
    )
    [line] = lines_logged_by("-c", script)
    logged = json.loads(line)
    facts = {"event": "a warning", "category": "ResourceWarning", "filename": "<string>"}
    assert facts.items() <= logged.items()
    assert logged["lineno"] > 0
    assert "gewgaw" not in line
