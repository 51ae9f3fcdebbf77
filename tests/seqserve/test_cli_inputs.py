"""Text inputs of the command: the same bytes give the same request or refusal, whatever the way in."""

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from typer.testing import Result

from seqserve.cli import session, texts
from seqserve.retry import Retry
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.command import run
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces

Way = Callable[[ScriptedServer, bytes, Path, tuple[str, ...]], Result]


class Refusal(NamedTuple):
    """What a content is refused with, after the place."""

    line: int
    message: str


def _as_argument(server: ScriptedServer, content: bytes, _: Path, command: tuple[str, ...]) -> Result:
    return run(server, *command, os.fsdecode(content))


def _as_file(server: ScriptedServer, content: bytes, path: Path, command: tuple[str, ...]) -> Result:
    path.write_bytes(content)
    return run(server, *command, "--file", str(path), stdin="not read")


def _as_pipe(server: ScriptedServer, content: bytes, _: Path, command: tuple[str, ...]) -> Result:
    return run(server, *command, stdin=content)


def _as_dash(server: ScriptedServer, content: bytes, _: Path, command: tuple[str, ...]) -> Result:
    return run(server, *command, "-", stdin=content)


def _as_dash_file(server: ScriptedServer, content: bytes, _: Path, command: tuple[str, ...]) -> Result:
    return run(server, *command, "--file", "-", stdin=content)


def _as_fifo(server: ScriptedServer, content: bytes, path: Path, command: tuple[str, ...]) -> Result:
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    result = run(server, *command, "--file", str(path))
    writer.join(WAIT_S)
    return result


INPUTS: list[Way] = [_as_file, _as_pipe, _as_dash, _as_dash_file, _as_fifo]
WAYS: list[Way] = [_as_argument, *INPUTS]
COMMANDS = {"generate": ("generate",), "score": ("score",), "classify": ("classify",)}
# What the three send of it: whole texts, and lines where the command takes lines.
READ = {
    "plain": (b"ab\ncd\n", "ab\ncd\n"),
    "without a last line end": (b"ab\ncd", "ab\ncd"),
    "byte-order mark": (b"\xef\xbb\xbfab", "ab"),
    "mark inside": ("a\ufeffb".encode(), "a\ufeffb"),
    "CRLF": (b"ab\r\ncd\r\n", "ab\ncd\n"),
    "CR": (b"ab\rcd\r", "ab\ncd\n"),
    "CR before CRLF": (b"ab\rcd\r\nef", "ab\ncd\nef"),
    "typographic": ("can\u2019t — “x”\u00a0".encode(), "can\u2019t — “x”\u00a0"),
    "no newline of Python's": ("a\u2028b\x0bc\x85d".encode(), "a\u2028b\x0bc\x85d"),
}


def _texts_sent(server: ScriptedServer) -> list[str]:
    sent: list[str] = []
    for request in server.requests:
        if isinstance(request, generation.GenerateRequest):
            sent.append(request.prompt)
        elif isinstance(request, generation.ScoreRequest | classification.ClassifyRequest):
            sent += request.texts
    return sent


@pytest.fixture
def answering(server: ScriptedServer) -> ScriptedServer:
    server.pieces = text_pieces()
    server.scores = generation.ScoreResponse(scores=[generation.TextScore(token_logprobs=[-1.0])])
    return server


@pytest.mark.parametrize(("content", "text"), READ.values(), ids=READ)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes_are_the_same_text(
    answering: ScriptedServer, way: Way, content: bytes, text: str, tmp_path: Path
) -> None:
    for command in COMMANDS.values():
        given = tmp_path / command[0]
        assert way(answering, content, given, command).exit_code == 0
    whole = way in (_as_argument,)
    lines = [text] if whole else text.removesuffix("\n").split("\n")
    # Answers of the stream come in pairs, requests in the order of the lines.
    assert _texts_sent(answering) == [text, text, *lines]


REFUSED = {
    "latin-1": (b"ab\nGr\xfc\xdfe\n", Refusal(2, "expected UTF-8 text, found byte 0xfc at byte 3")),
    "cut off": (b"ab\xe2\x80", Refusal(1, "expected UTF-8 text, found byte 0xe2 at byte 3")),
    "surrogate": (b"\xed\xa0\xbd", Refusal(1, "expected UTF-8 text, found byte 0xed at byte 1")),
    "after a mark": (b"\xef\xbb\xbf\xff", Refusal(1, "expected UTF-8 text, found byte 0xff at byte 4")),
    "zero byte": (
        b"ab\nc\0d\n",
        Refusal(
            2,
            "expected text, found a zero byte at byte 2 of the line; text in UTF-16 must be saved as UTF-8",
        ),
    ),
    "gzip": (
        gzip.compress(b"Hi\n" * 9),
        Refusal(0, "expected plain text, found gzip-compressed data: unpack it first, with gzip -d"),
    ),
    "UTF-16": (
        "Hi\n".encode("utf-16"),
        Refusal(0, "expected UTF-8 text, found UTF-16, by its byte-order mark; save it as UTF-8"),
    ),
    "UTF-32": (
        "Hi\n".encode("utf-32"),
        Refusal(0, "expected UTF-8 text, found UTF-32, by its byte-order mark; save it as UTF-8"),
    ),
}


@pytest.mark.parametrize(("content", "refusal"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("way", INPUTS)
def test_what_is_no_text_is_refused_alike_with_its_line_and_byte(
    answering: ScriptedServer, way: Way, content: bytes, refusal: Refusal, tmp_path: Path
) -> None:
    for command in COMMANDS.values():
        given = tmp_path / command[0]
        result = way(answering, content, given, command)
        name = str(given) if way in (_as_file, _as_fifo) else "standard input"
        place = f"line {refusal.line} of {name}" if refusal.line else name
        assert (result.exit_code, result.stderr) == (2, f"error: {place}: {refusal.message}\n")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("before", "place"),
    [((), "argument 1"), (("--model",), "--model"), (("--server",), "--server")],
    ids=["a text", "a name", "an option of all commands"],
)
def test_an_argument_that_is_not_utf8_is_named(
    answering: ScriptedServer, command: str, before: tuple[str, ...], place: str
) -> None:
    result = run(
        answering, command, *before, os.fsdecode(b"caf\xe9"), *([] if place == "argument 1" else ["a"])
    )
    message = f"error: {place}: expected UTF-8 text, found byte 0xe9 at byte 4\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_utf8_arguments_are_understood_in_an_ascii_locale(answering: ScriptedServer) -> None:
    program = "from seqserve.cli import main; main()"
    arguments = ["--server", answering.address, "generate", "Grüße", "--stop", "ü"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", program, *map(os.fsencode, arguments)],
        env=environment,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=WAIT_S,
    )
    assert answering.calls == [generation.GenerateRequest(model="charlm", prompt="Grüße", stop=["ü"])]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(
    answering: ScriptedServer, command: str, kind: str, tmp_path: Path
) -> None:
    path, reason = {
        "missing": (tmp_path / "none", "No such file or directory"),
        "folder": (tmp_path, "Is a directory"),
    }[kind]
    result = run(answering, command, "--file", str(path))
    assert (result.exit_code, result.stderr) == (2, f"error: {path}: {reason}\n")


def test_an_endless_line_is_refused_before_it_fills_the_memory(
    answering: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_LINE_BYTES", 10)
    result = run(answering, "classify", stdin="0123456789"[:9] + "\n" + "x" * 11)
    message = "error: line 2 of standard input: expected at most 10 bytes, found more\n"
    assert (result.exit_code, result.stderr) == (2, message)


def _refusal_of(*fields: tuple[str, str]) -> Status:
    violations = [BadRequest.FieldViolation(field=field, description=text) for field, text in fields]
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="; ".join(map(": ".join, fields)))
    packed = Any()
    packed.Pack(BadRequest(field_violations=violations))
    status.details.append(packed)
    return status


@pytest.mark.parametrize(
    ("command", "stdin", "field", "told"),
    [
        (["score", "--lines"], "ab\n\ncd\n", "texts[1]", "line 2 of standard input is empty"),
        (
            ["score", "--lines"],
            "ab\ncd\n \n",
            "texts[2]",
            "line 3 of standard input holds nothing but white space",
        ),
        (["score", "--lines"], "ab\ncd\n", "texts[1]", "line 2 of standard input: no good"),
        (["score"], "ab\ncd\n", "texts[0]", "standard input: no good"),
        (["score", "ab", "cd"], "", "texts[1]", "argument 2: no good"),
        (["score", "ab"], "", "texts[7]", "texts[7]: no good"),
        (["classify", "ab", ""], "", "texts[1]", "argument 2 is empty"),
        (["generate", "ab"], "", "prompt", "argument 1: no good"),
        (["generate"], "ab", "prompt", "standard input: no good"),
        (["generate", "ab"], "", "temperature", "temperature: no good"),
    ],
)
def test_the_servers_refusal_of_a_text_names_the_users_place(
    server: ScriptedServer, command: list[str], stdin: str, field: str, told: str
) -> None:
    server.failure = _refusal_of((field, "no good"))
    result = run(server, *command, "--model", "any", stdin=stdin)
    assert (result.exit_code, result.stderr) == (2, f"error: {told}\n")


@pytest.mark.parametrize(
    ("command", "stdin", "place"),
    [
        (["score", "--lines"], "ab\ncd and more\n", "line 2 of standard input"),
        (["generate", "ab"], "", "argument 1"),
        (["classify"], "ab\ncd and more\nef\ngh\n", "line 2 of standard input"),
    ],
)
def test_a_request_that_is_too_large_names_its_longest_text(
    server: ScriptedServer, command: list[str], stdin: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RETRY", Retry(attempts=1))
    message = "SERVER: Received message larger than max (6000019 vs. 4194304)"
    failure = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=message)
    if command == ["classify"]:
        server.breaks.extend([(1, failure)] * 10)
    else:
        server.failure = failure
    result = run(server, *command, "--model", "any", stdin=stdin)
    told = f"error: {place}: expected a request of at most 4194304 bytes, found 6000019\n"
    assert (result.exit_code, result.stderr) == (2, told)
