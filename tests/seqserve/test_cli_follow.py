"""`seqserve infer --follow`: each row is answered as it comes, from a pipe or a growing file."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO

import pytest

from seqserve.tables.errors import TableError
from seqserve.tables.growing import RowReader, iter_decoded, iter_growing
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from tests.seqserve.command import run, start
from tests.seqserve.scripted_sequences import LABELS
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer

HEADER = "sequence\tstep\tlabel\tprobability\tbig\tsmall"


@pytest.fixture
def serving(server: ScriptedServer) -> ScriptedServer:
    features = [models.FeatureInfo(name=name) for name in ("ax", "ay")]
    server.models.models.add(
        name="activity",
        version=4,
        input="steps",
        output="label",
        labels=LABELS,
        features=features,
        kind="chunk",
    )
    server.models.models.add(name="reviews", version=4, input="text", output="label", labels=LABELS)
    return server


def cells(line: str) -> tuple[str, ...]:
    """The sequence, the step and the label of a row."""
    return tuple(line.split("\t")[:3])


def pushed(server: ScriptedServer) -> list[tuple[str, list[float]]]:
    return [
        (each.id, list(each.input.steps.values))
        for each in server.requests
        if isinstance(each, sequences.InferStreamRequest)
    ]


def test_rows_of_a_pipe_go_to_their_sequences(serving: ScriptedServer) -> None:
    data = b"\xef\xbb\xbfwho,ay,ax\r\na,0,1\r\nb,0,7\r\n\r\na,0,9"
    result = run(serving, "infer", "activity", "--follow", "--sequence", "who", stdin=data)
    header, *rows = result.stdout.splitlines()
    assert (result.exit_code, header) == (0, HEADER)
    assert list(map(cells, rows)) == [("a", "1", "small"), ("b", "1", "big"), ("a", "2", "big")]
    assert pushed(serving) == [("a", [1, 0]), ("b", [7, 0]), ("a", [9, 0])]


def test_json_rows_and_sequences_are_followed(serving: ScriptedServer) -> None:
    lines = '{"ax": 1, "ay": 0}\n[7, 0]\n{"id": "u", "steps": [[2, 0], [9, 0]], "initial": {"image": [5]}}\n'
    result = run(serving, "infer", "activity", "--follow", "--json", stdin=lines)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["sequence"], each["position"]) for each in found] == [("1", 1), ("1", 2), ("u", 2)]
    assert pushed(serving) == [("1", [1, 0]), ("1", [7, 0]), ("u", [2, 0, 9, 0])]


def test_texts_are_followed_line_by_line(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "reviews", "--follow", stdin="so good\n")
    assert result.stdout.splitlines()[1].endswith("\tso good")


def test_a_row_that_cannot_be_read_is_told_and_the_sequence_goes_on(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "activity", "--follow", stdin="ax,ay\n1,0\nx,0\n1\n7,0\n")
    assert [cells(line)[1] for line in result.stdout.splitlines()[1:]] == ["1", "2"]
    assert (result.exit_code, result.stderr.splitlines()) == (
        1,
        [
            "error: standard input: line 3: column ax: expected a finite number, found 'x'",
            "error: standard input: line 4: expected 2 cells, found 1",
            "error: 2 failed",
        ],
    )


def test_a_growing_file_is_answered_until_it_is_interrupted(serving: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("ax,ay\n1,0\n7,")
    process = start(serving, "infer", "activity", "--follow", "--file", str(path))
    output, errors = _lines(process.stdout), _lines(process.stderr)
    try:
        assert (output(), cells(output())) == (HEADER, ("1", "1", "small"))
        with path.open("a") as file:
            file.write("0\n")
        assert cells(output()) == ("1", "2", "big")
        path.write_text("")
        assert "log.csv was truncated; it is read from its beginning" in errors()
        with path.open("a") as file:
            file.write("ax,ay\n2,0\n")
        assert cells(output()) == ("1", "3", "small")
        path.rename(tmp_path / "log.csv.1")
        path.write_text("ax,ay\n9,0\n")
        assert "it is read from its beginning" in errors()
        assert cells(output()) == ("1", "4", "big")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    finally:
        process.kill()
        process.communicate()


def test_lines_come_as_they_are_written(tmp_path: Path) -> None:
    path, notes = tmp_path / "log", list[str]()
    path.write_bytes(b"a\nb")
    changes: Iterator[Callable[[], object]] = iter(
        [
            lambda: None,
            lambda: path.write_bytes(b"a\nbc\nd"),
            lambda: path.write_bytes(b"e\n"),
            path.unlink,
            lambda: path.write_bytes(b"f\n"),
        ]
    )

    def wait() -> None:
        next(changes)()

    lines = iter_growing(path, "log", wait, notes.append)
    assert [next(lines) for _ in range(4)] == [b"a", b"bc", b"e", b"f"]
    lines.close()  # type: ignore[attr-defined]
    end = "it is read from its beginning"
    assert notes == [
        f"log was truncated; {end}, without the 1 bytes of its last line, and the sequences go on",
        f"log was removed; {end}, and the sequences go on",
    ]


@pytest.mark.parametrize("is_missing", [False, True], ids=["replaced", "removed for a while"])
def test_what_an_old_file_got_before_it_went_is_read_first(tmp_path: Path, is_missing: bool) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\n")

    def rotate() -> None:
        if (tmp_path / "old").exists():
            path.write_bytes(b"c\n")
            return
        with path.open("ab") as file:
            file.write(b"b\n")
        path.rename(tmp_path / "old")
        if not is_missing:
            path.write_bytes(b"c\n")

    lines = iter_growing(path, "log", rotate, lambda _: None)
    assert [next(lines) for _ in range(3)] == [b"a", b"b", b"c"]


def read_all(reader: RowReader, lines: list[str]) -> list[tuple[str, list[float]] | str | None]:
    """Read lines; an error becomes its text, without the table and the line."""
    found: list[tuple[str, list[float]] | str | None] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(reader.read(number, line))
        except TableError as error:
            found.append(str(error).removeprefix(f"log: line {number}: "))
    return found


def test_a_header_that_comes_again_says_where_the_values_are() -> None:
    """A file may be replaced by one whose columns stand in another order."""
    lines = ["who,ay,ax", "a,2,1", "who,ay,ax", "b,4,3", "AX,who,more,ay", "5,a,0,6", "7,ax,0,8"]
    assert read_all(RowReader("log", ["ax", "ay"], "who"), lines) == [
        None,
        ("a", [1, 2]),
        None,
        ("b", [3, 4]),
        None,
        ("a", [5, 6]),
        ("ax", [7, 8]),
    ]


def test_rows_below_a_header_that_lacks_a_column_are_refused() -> None:
    lines = ["1,2", "ay,time", "3,4", "ay,ax", "6,5"]
    assert read_all(RowReader("log", ["ax", "ay"]), lines) == [
        ("", [1, 2]),
        "expected a column ax, found no such column among ay, time",
        "expected a row below a usable header, found one below line 2",
        None,
        ("", [5, 6]),
    ]


def test_columns_that_the_first_header_has_named_are_found_in_a_further_one() -> None:
    assert read_all(RowReader("log", []), ["a,b", "1,2", "broken,line", "b,a", "4,3"]) == [
        None,
        ("", [1, 2]),
        "column a: expected a finite number, found 'broken'",
        None,
        ("", [3, 4]),
    ]


def test_columns_without_names_are_all_of_a_row() -> None:
    reader = RowReader("log", [])
    assert reader.read(1, "1;2") == ("", [1, 2])
    with pytest.raises(TableError, match="log: line 2: column 2: expected a finite number, found 'x'"):
        reader.read(2, "1;x")


def test_bytes_that_are_no_text_are_told_by_their_line() -> None:
    first, second, third = iter_decoded(iter([b"a", b"bc\xfe", b"d"]), "log")
    assert (first, third) == ((1, "a"), (3, "d"))
    assert second[0] == 2
    assert str(second[1]) == "log: line 2: expected UTF-8 text, found byte 0xfe at byte 3 of the line"


def test_a_line_that_is_no_text_does_not_end_the_command(serving: ScriptedServer) -> None:
    result = run(serving, "infer", "activity", "--follow", stdin=b"1,0\n\xff,0\n7,0\n")
    assert [cells(line)[1] for line in result.stdout.splitlines()[1:]] == ["1", "2"]
    assert result.exit_code == 1
    assert "line 2: expected UTF-8 text, found byte 0xff at byte 1 of the line" in result.stderr


def test_a_byte_order_mark_is_no_text_wherever_a_file_begins(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xef\xbb\xbfa\n")

    def truncate() -> None:
        path.write_bytes(b"\xef\xbb\xbf\n")

    lines = iter_growing(path, "log", truncate, lambda _: None)
    assert [next(lines) for _ in range(2)] == [b"a", b""]


def _lines(stream: IO[bytes] | None) -> Callable[[], str]:
    """Return what waits for the next line of a stream."""
    assert stream is not None
    found: Queue[str] = Queue()

    def read() -> None:
        for line in iter(stream.readline, b""):
            found.put(line.decode().rstrip("\n"))

    Thread(target=read, daemon=True).start()
    return lambda: found.get(timeout=WAIT_S)
