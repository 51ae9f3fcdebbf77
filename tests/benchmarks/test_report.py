"""Results for people."""

import json
from pathlib import Path

from benchmarks import plots, report
from benchmarks.results import Measured, Report, RowResult, summarise
from benchmarks.rounds import Sample, judge, ratio


def made_report() -> Report:
    rounds = [
        {"engine": Sample(value, None, {"padded steps %": 3}), "FIFO": Sample(2)} for value in (8, 10, 9)
    ]
    verdicts = [judge(ratio("engine / FIFO", "engine", "FIFO", target), rounds) for target in (4.0, 5.0)]
    measured = RowResult(
        "S1",
        "classification",
        "sequences/s",
        "100 texts",
        summarise(rounds),
        verdicts,
        {"capacity": 7.0},
        1.5,
    )
    sweep = RowResult(
        "slots",
        "slots",
        "sequences/s",
        contestants={"1": Measured((1.0,), None, {}), "8": Measured((3.0,), None, {})},
    )
    missing = RowResult("S7", "int8", "characters/s", trouble="no int8 variant of charlm")
    return Report({"CPU": "a | b"}, {"rounds": "3"}, [measured, sweep, missing])


def test_the_table_says_for_each_promise_whether_it_is_met() -> None:
    lines = "\n".join(report.markdown(made_report()))
    assert "| S1 | engine / FIFO | >= 4 x | 4.5 x (4..5) |  | 9 / 2 sequences/s | yes |" in lines
    assert "| S1 | engine / FIFO | >= 5 x | 4.5 x (4..5) |  | 9 / 2 sequences/s | **no** |" in lines
    assert "no int8 variant of charlm" in lines
    assert "a \\| b" in lines


def test_files_and_plots_are_written(tmp_path: Path) -> None:
    report.write(made_report(), tmp_path)
    drawn = plots.write(made_report(), tmp_path)
    assert [path.name for path in drawn] == ["promises.png", "classification.png", "slots.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["S1", "slots", "S7"]
    assert rows[0]["claims"][0]["values"] == [4, 5, 4.5]
