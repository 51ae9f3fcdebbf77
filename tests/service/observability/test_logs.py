"""service.observability.logs, each in a process of its own: logging is set up once a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.observability.logs import escape_values

ROOT = Path(__file__).parents[3]
SCRIPT = """
import logging, structlog
from pathlib import Path
from service.observability.logs import set_up_logging
set_up_logging({form!r}, {level!r})
log = structlog.get_logger("service.test")
log.debug("quiet")
log.info("model ready", model="letters", folder=Path("/models"), text="é")
logging.getLogger("opentelemetry.sdk").warning("from a library")
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
    logging.getLogger("opentelemetry.sdk").exception("library failed")
"""


def lines_of(form: str, level: str = "info") -> list[str]:
    return lines_logged_by("-c", SCRIPT.format(form=form, level=level))


def lines_logged_by(*arguments: str, status: int = 0) -> list[str]:
    ran = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == status
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
    assert "of <str>" in events
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
    for shown in ("ValueError", "RuntimeError", "ExceptionGroup", place):
        assert text.count(shown) >= 3, shown
    for hidden in ("gewgaw", "a token is unknown", "decoding failed"):
        assert hidden not in text


FORGING = """
import logging, sys, structlog
from pathlib import Path
from service.errors import ModelFailure
from service.observability.logs import print_line, set_up_logging
set_up_logging(sys.argv[1], "info")
name = "model\\n2026 [error] forged\\r\\x1b[31m\\u202e\\udcff\\u2028"
log = structlog.get_logger("service.test")
log.info("model refused", reason=name, path=Path(name), names=[name], by={name: name}, **{name: 1})
log.info(name)
logging.getLogger("library").warning("refused %s", name)
logging.getLogger("asyncio").warning("refused %d", name)
print_line(name)
log.error("request failed", exc_info=ModelFailure(name))
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_names_of_files_forge_no_line_and_no_terminal_sequence(form: str) -> None:
    lines = lines_logged_by("-c", FORGING, form)
    assert len(lines) == (6 if form == "json" else 7)  # on a console the exception has a line of its own
    assert all(line.isprintable() for line in lines)
    assert "\\n2026 [error] forged\\r\\x1b[31m\\u202e\\udcff\\u2028" in lines[4]
    assert "forged" not in lines[2]
    assert "ModelFailure" in lines[-1]
    assert lines[3] == "a log record of asyncio could not be formatted: TypeError"
    if form == "json":
        assert [json.loads(line)["level"] for line in lines[:3]] == ["info", "info", "warning"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("é ü", "é ü"),
        ("a\tb\x00", "a\\tb\\x00"),
        ("\udcff", "\\udcff"),
        (1.5, 1.5),
        (None, None),
        (["a\n", ("b",)], ["a\\n", ["b"]]),
        ({"k\n": "v\n"}, {"k\\n": "v\\n"}),
        (Path("a\n"), "PosixPath('a\\n')"),
        ([[[[[["deep"]]]]]], [[[[["list"]]]]]),
    ],
)
def test_values_are_escaped(value: Any, shown: Any) -> None:
    assert escape_values(None, "info", {"event": value}) == {"event": shown}


def test_exception_is_left_to_its_renderer() -> None:
    error = ValueError("a\n")
    assert escape_values(None, "info", {"exc_info": error}) == {"exc_info": error}


UNREAD = """
import logging, os, sys, structlog, time
from service.observability.logs import num_dropped, set_up_logging
set_up_logging("json", "info")
log = structlog.get_logger("service.test")
started = time.monotonic()
for number in range(40_000):
    log.info("call ended", number=number, text="x" * 200)
print(num_dropped() > 0, time.monotonic() - started < 30)
sys.stdout.flush()
"""


def test_reader_who_does_not_read_holds_up_neither_lines_nor_the_end() -> None:
    reading, writing = os.pipe()
    try:
        ran = subprocess.run(
            [sys.executable, "-c", UNREAD],
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert ran.stdout == "True True\n"


@pytest.mark.parametrize("end", ["sys.exit(1)", "raise ValueError('gewgaw')", "1"])
def test_last_lines_of_a_process_come_out_in_order(end: str) -> None:
    script = f"""
import sys, structlog
from service.observability.logs import print_line, set_up_logging
set_up_logging("json", "info")
for number in range(500):
    structlog.get_logger("service.test").info("event", number=number)
print_line("start refused")
{end}
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = ran.stderr.splitlines()
    assert [json.loads(line)["number"] for line in lines[:500]] == list(range(500))
    assert lines[500] == "start refused"
    assert ran.returncode == (0 if end == "1" else 1)
    assert "gewgaw" not in ran.stderr


def test_answer_that_its_caller_does_not_take_is_not_logged() -> None:
    script = """
import logging
from service.observability.logs import set_up_logging
set_up_logging("json", "info")
grpcio = logging.getLogger("grpc._cython.cygrpc")
grpcio.error("ExecuteBatchError raised in core by servicer method [/x]")
grpcio.error("Abort error unexpectedly suppressed: %s", ["ValueError: gewgaw"])
"""
    [line] = lines_logged_by("-c", script)
    assert "Abort error unexpectedly suppressed" in line
    assert "gewgaw" not in line


@pytest.mark.parametrize(("name", "value"), [("GRPC_VERBOSITY", "debug"), ("GRPC_TRACE", "http")])
def test_log_of_grpcs_core_cannot_be_turned_on(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    script = """
from service.observability.logs import set_up_logging
set_up_logging("json", "info")
import grpc
with grpc.insecure_channel("127.0.0.1:1") as channel:
    try:
        channel.unary_unary("/x/y")(b"", metadata=(("authorization", "Bearer gewgaw"),))
    except grpc.RpcError:
        pass
"""
    [line] = lines_logged_by("-c", script)
    assert name in json.loads(line)["event"]
