"""service.observability.logs, each in a process of its own: logging is set up once a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import logging, structlog
from pathlib import Path
from service.observability.logs import set_up_logging
set_up_logging({form!r}, {level!r})
log = structlog.get_logger("service.test")
log.debug("quiet")
log.info("model ready", model="letters", folder=Path("/models"), text="é")
logging.getLogger("library").warning("from %s", "a library")
logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", b"\\xff")
logging.getLogger("grpc._cython.cygrpc").debug("of %s", "grpcio")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("request failed", method="/x")
"""

# The canary comes as an argument: a line of source shown in a traceback must not hold it.
CANARY = "gewgaw-7313"
FAILING = """
import logging, sys, structlog
from service.observability.logs import set_up_logging

class Request:
    def __init__(self, prompt):
        self.prompt = prompt

    def __repr__(self):
        return f"Request({self.prompt!r})"

def decode(request):
    text, tokens = request.prompt, list(request.prompt.split("-"))
    raise ValueError("a token is unknown")

def handle(request):
    try:
        decode(request)
    except ValueError as error:
        raise ExceptionGroup("request is bad", [RuntimeError("decoding failed")]) from error

set_up_logging(sys.argv[1], "info")
request = Request(sys.argv[2])
try:
    handle(request)
except Exception as error:
    structlog.get_logger("service.test").exception("request failed")
    structlog.get_logger("service.test").error("task failed", exc_info=error)
    logging.getLogger("library").exception("library failed")
"""


def lines_of(form: str, level: str = "info") -> list[str]:
    return lines_logged_by("-c", SCRIPT.format(form=form, level=level))


def lines_logged_by(*arguments: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def json_of(form: str, level: str = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(form, level)]


def test_json_is_one_object_a_line_with_its_facts() -> None:
    ready, library, failed = json_of("json")
    assert (ready["event"], ready["level"], ready["model"], ready["text"]) == (
        "model ready",
        "info",
        "letters",
        "é",
    )
    assert ready["timestamp"].endswith("Z")
    assert (library["event"], library["level"]) == ("from a library", "warning")
    assert (failed["event"], failed["method"]) == ("request failed", "/x")
    assert "ZeroDivisionError" in json.dumps(failed["exception"])


def test_auto_is_json_where_there_is_no_terminal() -> None:
    assert json_of("auto")[0]["event"] == "model ready"


def test_console_is_for_people() -> None:
    lines = lines_of("console")
    assert "model ready" in lines[0]
    assert "model=letters" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_of_grpcio_all_is_logged_but_what_repeats_a_strangers_bytes() -> None:
    events = [one["event"] for one in json_of("json", "debug")]
    assert "of grpcio" in events
    assert not [one for one in events if one.startswith("Invalid encoding")]


def test_level_is_the_least_severe_that_is_logged() -> None:
    assert [one["event"] for one in json_of("json", "warning")] == ["from a library", "request failed"]
    assert json_of("json", "debug")[0]["event"] == "quiet"


@pytest.mark.parametrize("form", ["console", "json"])
def test_traceback_shows_where_and_why_without_the_frames_variables(tmp_path: Path, form: str) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    text = "\n".join(lines_logged_by(str(script), form, CANARY))
    for event in ("request failed", "task failed", "library failed"):
        assert event in text
    line = FAILING[: FAILING.index('raise ValueError("a')].count("\n") + 1
    place = f'failing.py", line {line}, in decode' if form == "console" else f'failing.py", "lineno": {line}'
    for shown in ("ValueError", "a token is unknown", "RuntimeError", "decoding failed", place):
        assert text.count(shown) >= 3, shown
    assert "gewgaw" not in text
