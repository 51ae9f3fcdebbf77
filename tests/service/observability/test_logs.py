"""service.observability.logs, each in a process of its own: logging is set up once a process."""

import json
import subprocess
import sys
from typing import Any

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


def lines_of(form: str, level: str = "info") -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(form=form, level=level)],
        capture_output=True,
        text=True,
        check=True,
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
