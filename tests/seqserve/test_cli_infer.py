"""`seqserve infer` and `seqserve label`: rows, tokens and texts in; tables and JSON out."""

import io
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.status_pb2 import Status

from seqserve import SequenceOutput, TextSpan
from seqserve.cli import running
from seqserve.cli.label import Part, parts, pieces
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from tests.seqserve.command import on_terminal, run
from tests.seqserve.scripted_sequences import LABELS, refused
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, started

LAST, EVERY = sequences.OUTPUT_STEPS_LAST, sequences.OUTPUT_STEPS_EVERY
HEADER = "sequence\tlabel\tprobability\tbig\tsmall"
BIG = "0.750000\t0.750000\t0.250000"
SMALL = "0.750000\t0.250000\t0.750000"
TABLE = "time,az,ax,ay\n0.0,3,1,2\n0.1,9,7,8\n"
SENT = [1, 2, 3, 7, 8, 9]


@pytest.fixture(scope="module")
def shared() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    running_server = started(server)
    features = [models.FeatureInfo(name=name, unit="m/s2") for name in ("ax", "ay", "az")]
    for fields in (
        {"name": "activity", "input": "steps", "output": "label", "features": features, "output_steps": LAST},
        {"name": "tagger", "input": "text", "output": "label", "output_steps": EVERY, "kind": "whole"},
        {"name": "reviews", "input": "text", "output": "label", "output_steps": LAST},
        {"name": "numbers", "input": "steps", "output": "numbers", "output_steps": EVERY},
        {"name": "words", "input": "tokens", "output": "label", "output_steps": LAST},
    ):
        is_labelled = fields["output"] == "label"
        server.models.models.add(
            version=4,
            task="sequences",
            labels=LABELS if is_labelled else (),
            **fields,
        )
    yield server
    running_server.stop(grace=1).wait(WAIT_S)


@pytest.fixture
def serving(shared: ScriptedServer) -> ScriptedServer:
    shared.requests.clear()
    return shared


def sent(server: ScriptedServer) -> list[sequences.InferRequest]:
    return [each for each in server.requests if isinstance(each, sequences.InferRequest)]


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(array))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        TABLE.encode(),
        b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace(",", ";").encode(),
        b"1,2,3\n7,8,9\n",
        b'{"ax": 1, "ay": 2, "az": 3, "other": null}\n\n{"az": 9, "ay": 8, "ax": 7.0}\n',
        b"[1, 2, 3]\n[7, 8, 9]",
        b"[[1, 2, 3], [7, 8, 9]]",
        b'{"id": "a", "steps": [[1, 2, 3], [7, 8, 9]]}',
        npy([[1, 2, 3], [7, 8, 9]]),
        npy([[[1.0, 2, 3], [7, 8, 9]]]),
    ],
    ids=[
        "CSV by name",
        "BOM and CRLF",
        "semicolons",
        "CSV without a header",
        "objects",
        "lists",
        "a list of lists",
        "a whole sequence",
        "npy",
        "npy of three dimensions",
    ],
)
def test_rows_of_every_form_are_sent_in_the_order_of_the_model(serving: ScriptedServer, data: bytes) -> None:
    result = run(serving, "infer", "activity", stdin=data)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == HEADER
    (request,) = sent(serving)
    assert (request.model, request.version, request.output_steps) == ("activity", 4, 0)
    assert [list(each.steps.values) for each in request.inputs] == [SENT]
    assert request.inputs[0].steps.features == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", TABLE.encode()),
        ("rows.npy", npy([[1, 2, 3], [7, 8, 9]])),
        ("rows.jsonl", b"[1,2,3]\n[7,8,9]"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_files_are_read_by_their_form(
    serving: ScriptedServer, name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert run(serving, "infer", "activity", "--file", str(path)).exit_code == 0
    assert list(sent(serving)[0].inputs[0].steps.values) == SENT


def test_a_column_names_the_sequences(serving: ScriptedServer) -> None:
    table = "who,time,ax,ay,az\nb,0,1,0,0\na,0,7,0,0\nb,1,9,0,0\n"
    result = run(serving, "infer", "activity", "--sequence", "who", stdin=table)
    assert result.stdout.splitlines() == [HEADER, f"b\tbig\t{BIG}", f"a\tbig\t{BIG}"]
    assert [list(each.steps.values[::3]) for each in sent(serving)[0].inputs] == [[1, 9], [7]]


def test_a_key_names_the_sequences(serving: ScriptedServer) -> None:
    lines = [{"who": name, "ax": number, "ay": 0, "az": 0} for name, number in ((5, 1), ("a", 7), (5, 9))]
    result = run(serving, "infer", "activity", "--sequence", "who", stdin="\n".join(map(json.dumps, lines)))
    assert [line.split("\t")[0] for line in result.stdout.splitlines()[1:]] == ["5", "a"]


def test_every_step_is_a_row_with_its_number(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "activity", "--every", "--raw", stdin=TABLE)
    assert result.stdout.splitlines() == [
        "sequence\tstep\tlabel\tprobability\tbig\tsmall\tvalue",
        f"1\t1\tsmall\t{SMALL}\t1",
        f"1\t2\tbig\t{BIG}\t7",
    ]
    assert (sent(serving)[0].output_steps, sent(serving)[0].raw) == (EVERY, True)


def test_json_is_an_object_a_sequence(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "tagger", "--every", "--json", "to understand", "ab")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == {
        "sequence": "1",
        "text": "to understand",
        "steps": 2,
        "version": 4,
        "labels": ["small", "big"],
        "probabilities": [[0.25, 0.75], [0.75, 0.25]],
        "spans": [[0, 2], [3, 13]],
    }
    assert second["text"] == "ab"


def test_lines_are_texts_and_each_is_shown_with_its_output(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "reviews", stdin="so good\nunderstanding\n")
    assert result.stdout.splitlines() == [
        "label\tprobability\tbig\tsmall\ttext",
        f"small\t{SMALL}\tso good",
        f"big\t{BIG}\tunderstanding",
    ]


def test_tokens_are_whole_numbers_in_lines(serving: ScriptedServer) -> None:
    assert run(serving, "infer", "words", stdin="1 2 9\n\n3,4\n").exit_code == 0
    assert [list(each.tokens.ids) for each in sent(serving)[0].inputs] == [[1, 2, 9], [3, 4]]


def test_initial_rows_come_with_a_sequence_of_json(serving: ScriptedServer) -> None:
    line = '{"text": "ab", "initial": {"image": [1, 2]}}'
    assert run(serving, "infer", "reviews", "--format", "jsonl", stdin=line).exit_code == 0
    assert list(sent(serving)[0].inputs[0].initial["image"].values) == [1, 2]


def test_a_refused_sequence_gets_an_error_and_the_others_go_on(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "reviews", stdin="ab\n \ncd\n\n")
    assert [line.split("\t")[-1] for line in result.stdout.splitlines()] == ["text", "ab", "cd"]
    assert (result.exit_code, result.stderr.splitlines()) == (
        1,
        [
            "error: line 2 of standard input: expected a step, found none",
            "error: line 4 of standard input: expected a step, found none",
            "error: 2 failed",
        ],
    )


def test_a_refused_sequence_has_its_error_in_json(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "reviews", "--json", stdin="ab\n \n")
    failed = json.loads(result.stdout.splitlines()[1])
    assert (failed["sequence"], failed["error"]["code"]) == ("2", "INVALID_ARGUMENT")
    assert failed["error"]["message"] == "line 2 of standard input: expected a step, found none"


def test_many_sequences_go_in_several_requests(serving: ScriptedServer) -> None:
    count = running.MOST_SEQUENCES + 1
    result = run(serving, "infer", "reviews", stdin="ab\n" * count)
    assert [len(request.inputs) for request in sent(serving)] == [running.MOST_SEQUENCES, 1]
    assert len(result.stdout.splitlines()) == count + 1


def test_a_request_of_too_many_sequences_is_halved(
    serving: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = serving._answer

    def few(request: Any, context: Any, found: Any) -> Any:
        if isinstance(request, sequences.InferRequest) and len(request.inputs) > 2:
            serving._fail(context, refused({"inputs": "expected 1 to 2 sequences"}))
        return answer(request, context, found)

    monkeypatch.setattr(serving, "_answer", few)
    result = run(serving, "infer", "reviews", stdin="ab\ncd\nef\ngh\nij\n")
    assert [line.split("\t")[-1] for line in result.stdout.splitlines()[1:]] == ["ab", "cd", "ef", "gh", "ij"]


def test_a_request_that_is_too_large_for_grpc_is_halved(
    serving: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = serving._answer
    text = "Received message larger than max (9 vs. 5)"

    def small(request: Any, context: Any, found: Any) -> Any:
        given = getattr(request, "inputs", ())
        if len(given) > 1 or any(each.text == "large" for each in given):
            serving._fail(context, Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=text))
        return answer(request, context, found)

    monkeypatch.setattr(serving, "_answer", small)
    result = run(serving, "infer", "reviews", stdin="ab\nlarge\ncd\n")
    assert [line.split("\t")[-1] for line in result.stdout.splitlines()[1:]] == ["ab", "cd"]
    place = "line 2 of standard input: expected less than the server takes in one request"
    assert result.stderr.splitlines()[0] == f"error: {place}: {text}"


def test_rows_of_no_characters_are_no_parts() -> None:
    spans = (TextSpan(0, 0), TextSpan(0, 2), TextSpan(2, 3), TextSpan(4, 5), TextSpan(0, 0))
    output = SequenceOutput(5, 0, ("O", "A", "A", "B", "O"), spans, array("f"), array("f", [0.5] * 5))
    assert parts(output) == [Part(0, 3, "A", 0.5), Part(4, 5, "B", 0.5)]
    assert list(pieces("abc d!", parts(output))) == [("abc", "A"), (" ", ""), ("d", "B"), ("!", "")]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("AAAA", [Part(0, 3, "A", 0.5)]),
        ("ABAB", [Part(0, 2, "A", 0.5), Part(2, 3, "B", 0.5)]),
        ("ABBA", [Part(0, 1, "A", 0.5), Part(1, 2, "B", 0.5), Part(2, 3, "A", 0.5)]),
    ],
)
def test_character_of_several_tokens_has_the_label_of_the_first(labels: str, told: list[Part]) -> None:
    """Tokens of bytes: two of the first character, one of its end and the next one, and another of that."""
    spans = tuple(TextSpan(*edges) for edges in ((0, 1), (0, 1), (0, 2), (1, 3)))
    output = SequenceOutput(4, 0, tuple(labels), spans, array("f"), array("f", [0.5] * 4))
    found = parts(output)
    assert "".join(piece for piece, _ in pieces("abc", found)) == "abc"
    assert found == told


@pytest.mark.parametrize(
    ("model", "options", "data", "message"),
    [
        ("activity", [], "", "standard input: expected rows of numbers, found nothing"),
        ("activity", [], "ax,ay\n1,2\n", "expected a column az"),
        ("activity", [], "1,2\n", "expected 3 values (ax, ay, az)"),
        ("activity", [], "ax,ay,az\n1,2,x\n", "line 2: column az: expected a finite number, found 'x'"),
        ("activity", [], "time,ax,ay,az\n1,1,2,3\n0,1,2,3\n", "expected rows that are oldest first"),
        ("activity", ["--sequence", "who"], "ax,ay,az\n1,2,3\n", "--sequence: expected a column who"),
        ("activity", ["--sequence", "who"], "who,ax,ay,az\n,2,3,4\n", "expected the name of a sequence"),
        ("activity", [], '{"ax": 1, "ay": 2}', "line 1 of standard input: expected the key az"),
        ("activity", [], '{"ax": 1, "ay": 2, "az": null}', "az: expected a finite number, found null"),
        ("activity", [], '{"ax": 1, "ay": 2, "az": NaN}', "az: expected a finite number, found NaN"),
        ("activity", [], "[1, 2", "line 1 of standard input: expected JSON, found none"),
        (
            "activity",
            [],
            "[1,2]\n\n[3]",
            "line 3 of standard input: expected 2 values, as in the rows before it",
        ),
        ("activity", [], '{"steps": [[1]], "text": "a"}', "expected one of the keys text, tokens, steps"),
        ("activity", ["--sequence", "who"], "[1, 2, 3]", "expected an object with the key who"),
        ("activity", [], b"\x93NUMPY broken", "expected an array of numpy (.npy), found none"),
        ("activity", [], b"PK\x03\x04", "found a zip archive or a spreadsheet"),
        ("activity", ["--format", "xml"], "", "--format: expected one of csv, jsonl, npy, text"),
        ("activity", ["--delimiter", "ab"], TABLE, "--delimiter: expected one character"),
        ("activity", ["a text"], "", "activity takes steps, found texts as arguments"),
        ("activity", ["--file", "nowhere.csv"], "", "nowhere.csv: cannot be read: No such file"),
        ("words", ["--sequence", "who"], "1 2\n", "--sequence: expected a table or JSON lines of rows"),
        ("reviews", ["--sequence", "who"], "ab\n", "--sequence: expected a table or JSON lines of rows"),
        ("activity", ["--sequence", "who"], npy([[1, 2, 3]]), "--sequence: expected a table or JSON lines"),
        ("words", [], "1 -2\n", "line 1 of standard input: expected token ids, whole numbers, found '-2'"),
        ("tagger", ["--follow"], "ab\n", "--follow: tagger needs whole sequences (kind whole)"),
        (
            "activity",
            ["--follow", "--encoding", "utf-16"],
            TABLE,
            "--encoding: expected utf-8 beside --follow",
        ),
        ("activity", ["--follow"], "ax,ay\n1,2\n", "expected a column az"),
        ("activity", ["--follow"], b"\xff\n", "line 1: expected UTF-8 text, found byte 0xff at byte 1"),
        ("activity", ["--follow"], "ax,ay,az\n1,2,x\n", "line 2: column az: expected a finite number"),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    serving: ScriptedServer, model: str, options: list[str], data: str | bytes, message: str
) -> None:
    result = run(serving, "infer", model, *options, stdin=data)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert sent(serving) == []


def test_labels_are_rows_in_a_pipe(serving: ScriptedServer) -> None:
    result = run(serving, "label", "tagger", "so understandable", "ab")
    assert result.stdout.splitlines() == [
        "text\tstart\tend\tlabel\tprobability\tpart",
        "1\t0\t2\tsmall\t0.750000\tso",
        "1\t3\t17\tbig\t0.750000\tunderstandable",
        "2\t0\t2\tsmall\t0.750000\tab",
    ]
    assert sent(serving)[0].output_steps == EVERY


def test_labels_as_json_are_an_object_a_text(serving: ScriptedServer) -> None:
    result = run(serving, "label", "tagger", "--json", stdin="so\n \n")
    good, bad = map(json.loads, result.stdout.splitlines())
    assert good == {
        "text": "so",
        "parts": [{"start": 0, "end": 2, "text": "so", "label": "small", "probability": 0.75}],
        "version": 4,
    }
    assert bad["error"]["message"] == "line 2 of standard input: expected a step, found none"
    assert result.exit_code == 1


@pytest.mark.parametrize("model", ["activity", "words"])
def test_models_that_label_no_text_are_refused(serving: ScriptedServer, model: str) -> None:
    result = run(serving, "label", model, "ab")
    assert (result.exit_code, "and label takes texts; try seqserve infer" in result.stderr) == (2, True)


def test_labels_are_drawn_in_colour_on_a_terminal(serving: ScriptedServer) -> None:
    shown = on_terminal(serving, "label", "tagger", "so  understandable\x1b[2J!")
    assert "\x1b[1;36munderstandable\\x1b[2J!\x1b[0m" in shown, "big is the first label, in the first colour"
    assert "\x1b[1;32mso\x1b[0m" in shown
    assert "/big" in shown


def test_labels_are_in_brackets_where_there_are_no_colours(serving: ScriptedServer) -> None:
    shown = on_terminal(serving, "label", "tagger", "so understandable", NO_COLOR="1")
    assert shown.splitlines() == ["[so small] [understandable big]"]


def test_labels_change_no_terminal(serving: ScriptedServer, tmp_path: Path) -> None:
    hostile = "\x1b[2J[red]big"
    serving.models.models.add(
        name="hostile", version=4, input="tokens", output="label", labels=[hostile, "\u202esmall"]
    )
    path = tmp_path / "tokens.txt"
    path.write_text("1\n")
    for shown in (
        on_terminal(serving, "infer", "hostile", "--file", str(path), columns=120),
        on_terminal(serving, "models", "hostile", columns=120),
    ):
        assert "\\x1b[2J[red]big" in shown
        assert "\u202e" not in shown


def test_a_model_is_described_before_its_figures_on_a_terminal(serving: ScriptedServer) -> None:
    first, second, *rest = on_terminal(serving, "models", "words").splitlines()
    assert first.startswith("Takes token ids and answers with one of 2 labels (big, small)")
    assert second == "Try: echo 1 2 3 | seqserve infer words"
    assert any("task" in line for line in rest)


def test_many_numbers_are_shortened_on_a_terminal_alone(
    serving: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = serving._answer

    def wide(request: Any, context: Any, found: Any) -> Any:
        if isinstance(found, sequences.InferResponse):
            wide_output = sequences.SequenceOutput(steps=1, width=300, values=range(300))
            found = sequences.InferResponse(outputs=[wide_output], version=4)
        return answer(request, context, found)

    monkeypatch.setattr(serving, "_answer", wide)
    path = tmp_path / "one.csv"
    path.write_text("1\n")
    result = run(serving, "infer", "numbers", "--file", str(path))
    assert len(result.stdout.splitlines()[1].split("\t")) == 302
    shown = on_terminal(serving, "infer", "numbers", "--file", str(path))
    assert "300 values" in shown
    assert "0, 1, 2, 3, ..." in shown
