"""`seqserve bench`: what it refuses, what it prints, and how it ends."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.command import run, start
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, spelled, started

PROGRAM = "from seqserve.cli import main; main()"
FEW = ("--requests", "6", "--warmup", "0")


class HoldingServer(ScriptedServer):
    """Holds back classifications from the third on until `resume` is set, and generates nothing while it is
    broken.
    """

    is_broken = False

    def Generate(  # noqa: N802 - the rpc's name
        self, request: generation.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation.GenerateResponse]:
        if self.is_broken:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield from super().Generate(request, context)

    def Classify(  # noqa: N802 - the rpc's name
        self, request: classification.ClassifyRequest, context: grpc.ServicerContext
    ) -> classification.ClassifyResponse:
        answer = super().Classify(request, context)
        if sum(isinstance(each, classification.ClassifyRequest) for each in self.requests) >= 3:
            self.asked.set()
            assert self.resume.wait(WAIT_S)
        return answer


@pytest.fixture
def loaded() -> Iterator[HoldingServer]:
    """A server of three models that answers everything, and holds nothing."""
    servicer = HoldingServer()
    servicer.resume.set()
    servicer.pieces = spelled("hello")
    for name, task, spec in (
        ("charlm", "text-generation", {"generation": {"text": {"kind": "characters", "vocabulary": "abc "}}}),
        ("sentiment", "text-classification", {}),
        ("stock", "forecasting", {"forecasting": {"columns": [{"name": "open"}, {"name": "close"}]}}),
    ):
        servicer.models.models.add(
            name=name, version=3, status=models.MODEL_STATUS_READY, task=task, spec_json=json.dumps(spec)
        )
    running = started(servicer)
    yield servicer
    servicer.resume.set()
    running.stop(grace=1).wait(WAIT_S)


def bench(server: ScriptedServer, *arguments: str) -> tuple[int, str, str]:
    with start(server, "bench", *arguments) as process:
        out, err = process.communicate(timeout=3 * WAIT_S)
    return process.returncode, out.decode(), err.decode()


def rows(out: str) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["classify", "--rate", "5", "--concurrency", "2"],
            "either --rate, for an open loop, or --concurrency",
        ),
        (["classify", "--constant"], "--constant is about"),
        (["classify", "--rate", "5,x"], "--rate: expected a number above 0"),
        (["classify", "--rate", "0"], "--rate: expected a number above 0"),
        (["classify", "--concurrency", "1.5"], "--concurrency: expected a whole number"),
        (["classify", "--lengths", "gamma:1"], "--lengths: expected N, constant:N"),
        (["generate", "--max-tokens", "0"], "--max-tokens: expected N, constant:N"),
        (["classify", "--duration", "inf"], "--duration: expected at most 1e+09 seconds, found inf"),
        (["classify", "--warmup", "inf"], "--warmup: expected at most 1e+09 seconds, found inf"),
        (["classify", "--timeout", "1e10"], "--timeout: expected seconds above 0, at most 1e+09"),
        (["classify", "--max-tokens", "5"], "--max-tokens is for generate"),
        (["generate", "--per-request", "2"], "one prompt a request"),
        (["classify", "--fail-over", "p98=1"], "expected FIGURE=NUMBER"),
        (["classify", "--fail-under", "p99=x"], "expected a number after p99="),
        (
            ["classify", "--model", "charlm"],
            "classify wants a model for text-classification, and charlm 3 (ready) is one for text-generation",
        ),
        (["classify", "--file", "nowhere.txt"], "nowhere.txt: No such file"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    loaded: HoldingServer, arguments: list[str], message: str
) -> None:
    result = run(loaded, "bench", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert all(isinstance(request, models.GetModelRequest) for request in loaded.calls)


@pytest.mark.parametrize("rpc", ["generate", "classify", "classify-stream"])
def test_an_infinite_timeout_is_no_deadline(loaded: HoldingServer, rpc: str) -> None:
    result = run(loaded, "bench", rpc, *FEW, "--concurrency", "2", "--timeout", "inf")
    assert (result.exit_code, rows(result.stdout)["OK"]) == (0, ["6"]), result.stderr


def test_a_file_without_text_is_refused(loaded: HoldingServer, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n \n")
    assert "no line has text" in run(loaded, "bench", "classify", "--file", str(tmp_path / "texts")).stderr


def test_the_tables_tell_times_counts_and_rates_and_a_broken_bound_ends_with_1(loaded: HoldingServer) -> None:
    bounds = ("--fail-over", "p99=0", "--fail-over", "errors=0", "--fail-under", "requests_per_second=0")
    status, out, err = bench(loaded, "generate", *FEW, "--goal", "100", *bounds)
    found = rows(out)
    assert found["milliseconds"] == ["p50", "p90", "p99", "max"]
    assert [len(found[name]) for name in ("latency", "first token", "between tokens")] == [4, 4, 4]
    assert (found["requests"], found["OK"], found["within 100 s"]) == (["6"], ["6"], ["100.0%"])
    assert float(found["tokens/s"][0]) > 0
    assert status == 1
    assert [
        line.startswith("error: expected p99 <= 0, found ")
        for line in err.splitlines()
        if line.startswith("error")
    ] == [True]


def test_a_sweep_has_a_row_each_and_a_plot_when_asked_for(loaded: HoldingServer) -> None:
    status, out, _ = bench(loaded, "classify", *FEW, "--concurrency", "1,2", "--plot")
    assert status == 0
    header, one, two, *plot = out.splitlines()
    assert header.split("\t")[:3] == ["concurrency", "requests", "errors"]
    assert [one.split("\t")[:3], two.split("\t")[:3]] == [["1", "6", "0"], ["2", "6", "0"]]
    assert "milliseconds by concurrency" in plot[0]


def test_lines_of_a_file_are_sent_whole_and_with_the_token(loaded: HoldingServer, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a good film\n\nbad\n")
    (tmp_path / "token").write_text("s3cret\n")
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "--server",
        loaded.address,
        "--token-file",
        str(tmp_path / "token"),
        "bench",
        "classify",
        *FEW,
    ]
    subprocess.run(
        [*command, "--file", str(tmp_path / "texts")], check=True, capture_output=True, timeout=3 * WAIT_S
    )
    sent = {
        text
        for request in loaded.requests
        if isinstance(request, classification.ClassifyRequest)
        for text in request.texts
    }
    assert sent <= {"a good film", "bad"}
    assert loaded.metadata["authorization"] == "Bearer s3cret"


def test_failures_are_told_by_code_and_an_end_without_answers_is_1(loaded: HoldingServer) -> None:
    loaded.is_broken = True
    status, out, err = bench(loaded, "generate", *FEW, "--json")
    assert status == 1
    assert json.loads(out)["codes"] == {"OK": 0, "UNAVAILABLE": 6}
    assert json.loads(out)["messages"] == {"UNAVAILABLE": "gone"}
    assert "6 x UNAVAILABLE: gone" in err
    assert "error: no request was answered" in err


def test_an_interrupt_gives_what_was_measured_and_ends_with_130(loaded: HoldingServer) -> None:
    loaded.resume.clear()
    with start(loaded, "bench", "classify", "--duration", "600", "--warmup", "0", "--json") as process:
        assert loaded.asked.wait(WAIT_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
    found = json.loads(out)
    assert process.returncode == 130
    assert (found["requests"], found["codes"], found["interrupted"]) == (3, {"OK": 2, "unfinished": 1}, True)
    assert b"Traceback" not in err
    assert b"1 under way" in err


def test_an_interrupt_ends_a_sweep_with_the_rows_so_far(loaded: HoldingServer) -> None:
    loaded.resume.clear()
    with start(
        loaded, "bench", "classify", "--requests", "2", "--warmup", "0", "--concurrency", "1,2,3"
    ) as process:
        assert loaded.asked.wait(WAIT_S)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert [line.split("\t")[0] for line in out.decode().splitlines()] == ["concurrency", "1", "2"]


def test_progress_is_drawn_where_standard_error_is_a_terminal(loaded: HoldingServer) -> None:
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "--server", loaded.address, "bench", "classify", *FEW]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=other_end, timeout=3 * WAIT_S, check=True)
    os.close(other_end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "concurrency 1: " in shown
    assert "of 6 requests, 0 failed" in shown
    assert b"OK\t6" in found.stdout


def test_no_server_is_told_in_a_line() -> None:
    server = ScriptedServer()
    server.address = "127.0.0.1:1"
    result = run(server, "bench", "classify")
    assert (result.exit_code, result.stderr.startswith("error: ")) == (1, True)
