"""`seqserve generate`: text on stdout as it comes, and nothing else there."""

import json
import signal
from pathlib import Path

import pytest

from seqserve.cli.generate import unescape
from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.command import run, start
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces


@pytest.fixture
def writing(server: ScriptedServer) -> ScriptedServer:
    server.pieces = text_pieces()
    return server


def test_text_arrives_as_it_comes(writing: ScriptedServer) -> None:
    writing.holds = True
    with start(writing, "generate", "Hi") as process:
        assert process.stdout is not None
        assert process.stdout.read(100) == b"To be"
        writing.resume.set()
        assert process.communicate(timeout=WAIT_S) == (b" or", b"")
        assert process.returncode == 0


def test_interrupting_cancels_the_call(writing: ScriptedServer) -> None:
    writing.holds = True
    with start(writing, "generate", "Hi") as process:
        assert process.stdout is not None
        assert process.stdout.read(100) == b"To be"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT_S) == (b"", b"interrupted\n")
        assert process.returncode == 130
    assert writing.ended.wait(WAIT_S)
    assert not writing.completed


def test_every_option_is_sent(writing: ScriptedServer) -> None:
    options = (
        "--model m --version 2 --max-tokens 9 --temperature 0.5 "
        "--top-k 4 --top-p 0.25 --seed 18446744073709551615 --logprobs"
    )
    run(writing, "generate", "Hi", *options.split(), "--stop", r"\n\n", "--stop", "END")
    assert writing.calls == [
        generation.GenerateRequest(
            model="m",
            version=2,
            prompt="Hi",
            max_tokens=9,
            temperature=0.5,
            top_k=4,
            top_p=0.25,
            seed=2**64 - 1,
            stop=["\n\n", "END"],
            logprobs=True,
        )
    ]


def test_what_the_model_begins_from_comes_from_a_file(writing: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "image.json"
    file.write_text('{"image": [0.5, -1]}')
    run(writing, "generate", "--initial", str(file), "")
    row = sequences.StepValues(features=2, values=[0.5, -1])
    assert writing.calls == [generation.GenerateRequest(model="charlm", initial={"image": row})]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[0.5]", 'error: --initial: expected an object such as {"image": [0.5, 1]} in image.json'),
        (b"{", "error: --initial: expected JSON in image.json: "),
        (b"\xff", "error: --initial: expected JSON in image.json: "),
        (b'{"image": "red"}', "error: initial[image]: expected a row of numbers, found a str"),
        (None, "error: image.json: cannot be read: No such file or directory"),
    ],
    ids=["a list", "no JSON", "no text", "no row", "no file"],
)
def test_a_file_that_is_no_start_is_refused(
    writing: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if data is not None:
        (tmp_path / "image.json").write_bytes(data)
    result = run(writing, "generate", "--initial", "image.json", "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(error)
    assert not writing.calls


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        (["Hi"], "not read", "Hi"),
        ([], "Ho\n", "Ho\n"),
        (["-"], "Ho\n", "Ho\n"),
        (["--file", "-"], "Ho\n", "Ho\n"),
        ([], "", ""),
        (["--file", "prompt.txt"], "not read", "Grüße\n"),
    ],
    ids=["an argument", "a pipe", "a dash", "a dash as file", "an empty pipe", "a file"],
)
def test_the_prompt_comes_from(
    writing: ScriptedServer,
    arguments: list[str],
    stdin: str,
    prompt: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prompt.txt").write_text("Grüße\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = run(writing, "generate", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "To be or", "")
    assert writing.calls == [generation.GenerateRequest(model="charlm", prompt=prompt)]


def test_json_is_one_object_a_message_with_the_finish_reason_in_the_last(writing: ScriptedServer) -> None:
    first, second, last = map(json.loads, run(writing, "generate", "Hi", "--json").stdout.splitlines())
    assert first == {
        "text": "To be",
        "token_count": 5,
        "logprobs": [-0.5] * 5,
        "seed": 7,
        "finish_reason": None,
        "usage": None,
        "version": 3,
    }
    assert (second["text"], second["finish_reason"]) == (" or", None)
    assert (last["finish_reason"], last["usage"]) == ("stop", {"prompt_tokens": 2, "generated_tokens": 9})


def test_a_prompt_and_a_file_together_are_refused(writing: ScriptedServer) -> None:
    result = run(writing, "generate", "Hi", "--file", "prompt.txt")
    assert (result.exit_code, result.stderr) == (2, "error: give either arguments or --file, not both\n")


def test_a_file_that_is_not_there_is_named(writing: ScriptedServer) -> None:
    result = run(writing, "generate", "--file", "missing.txt")
    assert (result.exit_code, result.stderr) == (2, "error: missing.txt: No such file or directory\n")


def test_a_file_that_is_not_utf8_is_refused(writing: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Viele\nGrüße".encode("latin-1"))
    result = run(writing, "generate", "--file", str(tmp_path / "latin.txt"))
    place = f"line 2 of {tmp_path}/latin.txt"
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {place}: expected UTF-8 text, found byte 0xfc at byte 3\n",
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [(r"a\nb", "a\nb"), (r"\t", "\t"), (r"\\n", r"\n"), (r"\x", r"\x"), ("ü", "ü")],
    ids=["n", "t", "backslash", "other", "plain"],
)
def test_escapes_are_understood(given: str, meant: str) -> None:
    assert unescape(given) == meant
