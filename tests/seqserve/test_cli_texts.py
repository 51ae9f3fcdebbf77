"""`seqserve score` and `seqserve classify`: arguments, files, lines; tables and JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqserve import Client
from seqserve.cli import classify
from seqserve.cli.texts import GivenText
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.command import run, start
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer


@pytest.fixture
def scoring(server: ScriptedServer) -> ScriptedServer:
    server.scores = generation.ScoreResponse(
        scores=[
            generation.TextScore(token_logprobs=[-1.0, -2.0], total_logprob=-3.0, perplexity=4.5),
            generation.TextScore(token_logprobs=[-0.5], total_logprob=-0.5, perplexity=1.5),
        ],
        version=2,
    )
    return server


def test_scores_are_tab_separated_in_a_pipe(scoring: ScriptedServer) -> None:
    result = run(scoring, "score", "a\tb\n", "cd", "--version", "2")
    assert scoring.calls == [generation.ScoreRequest(model="charlm", version=2, texts=["a\tb\n", "cd"])]
    assert (
        result.stdout
        == "perplexity\tnats/token\ttokens\ttext\n4.5\t1.5000\t2\ta\\tb\\n\n1.5\t0.5000\t1\tcd\n"
    )


def test_scores_as_json_are_one_object_a_text(scoring: ScriptedServer) -> None:
    first, second = map(json.loads, run(scoring, "score", "abc", "cd", "--json").stdout.splitlines())
    assert first == {
        "text": "abc",
        "perplexity": 4.5,
        "nats_per_token": 1.5,
        "token_logprobs": [-1.0, -2.0],
        "total_logprob": -3.0,
        "version": 2,
    }
    assert second["text"] == "cd"


def test_a_file_is_one_text_or_a_text_a_line(scoring: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_text("abc\ncd\n")
    assert run(scoring, "score", "--lines", stdin="abc\ncd\n").exit_code == 0
    del scoring.scores.scores[1:]
    assert run(scoring, "score", "--file", str(path)).exit_code == 0
    assert scoring.calls == [
        generation.ScoreRequest(model="charlm", texts=texts) for texts in (["abc", "cd"], ["abc\ncd\n"])
    ]


def test_classes_are_tab_separated_in_a_pipe(server: ScriptedServer) -> None:
    result = run(server, "classify", "so good", "bad")
    assert server.calls == [classification.ClassifyRequest(model="sentiment", texts=["so good", "bad"])]
    assert result.stdout == "label\tprobability\ttext\npositive\t0.750000\tso good\npositive\t0.750000\tbad\n"


def test_lines_are_answered_in_their_order(server: ScriptedServer) -> None:
    """The scripted server answers the second of each two first."""
    lines = [f"line {number}" for number in range(5)]
    result = run(server, "classify", "--json", stdin="\n".join(lines))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == lines
    assert answers[0] == {
        "text": "line 0",
        "label": "positive",
        "probability": 0.75,
        "probabilities": [
            {"label": "positive", "probability": 0.75},
            {"label": "negative", "probability": 0.25},
        ],
        "token_count": 2,
        "version": 0,
    }


def test_answers_come_before_the_input_has_ended(server: ScriptedServer) -> None:
    with start(server, "classify", "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\ntwo\n")
        assert json.loads(process.stdout.read(10_000).splitlines()[0])["text"] == "one"
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0


def test_a_failed_stream_ends_the_command_while_its_input_is_open(server: ScriptedServer) -> None:
    with start(server, "classify", "--timeout", "0.5") as process:
        assert process.wait(WAIT_S) == 1
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"error: ")


def test_a_refused_line_gets_an_error_in_its_place(server: ScriptedServer) -> None:
    result = run(server, "classify", stdin="good\n\nfine\n")
    assert [line.split("\t") for line in result.stdout.splitlines()[1:]] == [
        ["positive", "0.750000", "good"],
        ["error", "", ""],
        ["positive", "0.750000", "fine"],
    ]
    assert (result.exit_code, result.stderr) == (
        1,
        "error: line 2 of standard input: texts[0] has no token\nerror: 1 could not be classified\n",
    )


def test_a_refused_line_is_an_error_object_in_json(server: ScriptedServer) -> None:
    result = run(server, "classify", "--json", stdin="\n")
    assert json.loads(result.stdout) == {
        "text": "",
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "line 1 of standard input: texts[0] has no token",
            "violations": [],
        },
    }


def test_no_more_lines_are_in_flight_than_allowed(
    server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "MAX_IN_FLIGHT", 4)
    read = 0

    def lines() -> Iterator[GivenText]:
        nonlocal read
        for number in range(20):
            read += 1
            yield GivenText(str(number), f"line {number}")

    for yielded, row in enumerate(classify.classify_lines(client, lines(), "sentiment", 0, None)):
        assert row.given.text == str(yielded)
        assert read <= yielded + 1 + 4
    assert read == 20
