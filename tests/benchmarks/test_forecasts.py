"""Tables of the measured forecasts, made from runs that are made up; training itself is tested elsewhere."""

import json
from pathlib import Path

import pytest

from benchmarks import forecasts
from benchmarks.forecasts import SERIES, Run, as_text, false_alarms, finished, quality, transforms
from tools.measured import NOTED, noted_table, read_noted

LOAD, TEMPERATURE = SERIES
SAID = (
    "trained in 6.2 s of processor time\n"
    "transform log, with levels: development pinball loss 126.6 after 2 epochs\n"
    "transform none, with levels: development pinball loss 130.8 after 2 epochs\n"
    "trained in 1,040.0 s of processor time\n"
)


def run(pinball: float, transform: str = "log", said: str = SAID) -> Run:
    """A run whose measures are all alike, beside baselines that lose ten times as much."""
    metrics = {"held_out_false_alarms": 2.5}
    for key, factor in (("held_out", 1), ("baseline_seasonal", 10), ("baseline_linear", 10)):
        for suffix in ("", "_1", "_6", "_24"):
            metrics |= {f"{key}_{one}{suffix}": factor * pinball for one in ("rmse", "pinball", "coverage")}
    return Run(metrics, transform, said)


def test_quality_has_the_mean_and_every_seed_of_each_step() -> None:
    rows = quality({LOAD: [run(1.0), run(2.0), run(6.0)]})["rows"]
    assert len(rows) == 4 * 3
    assert rows[0] == ["load, MW: 1 ahead", "network", "3 (1, 2, 6)", "3 (1, 2, 6)", "3.0 (1.0, 2.0, 6.0)"]
    assert rows[-1][0] == "load, MW: all 24 steps"


def test_value_that_all_seeds_share_stands_alone() -> None:
    assert quality({LOAD: [run(2.0)] * 3})["rows"][0][2:] == ["2", "2", "2.0"]


def test_transforms_show_what_auto_saw_and_the_other_in_full() -> None:
    found = {LOAD: [run(1.0), run(2.0)]}
    assert transforms(found, {LOAD: run(3.0, "none", "")})["rows"] == [
        ["load, seed 0", "126.6", "130.8", "log", "1", "3"],
        ["load, seed 1", "126.6", "130.8", "log", "2", ""],
    ]


def test_time_of_a_run_is_that_of_all_its_trainings() -> None:
    assert false_alarms({TEMPERATURE: [run(1.0)] * 3})["rows"] == [["temperature", "2.50", "1046"]]


def test_columns_of_numbers_are_set_to_the_right() -> None:
    table = quality({LOAD: [run(1.0)] * 3})
    assert table["align"] == ["left", "left", "right", "right", "right"]
    assert noted_table(table).splitlines()[3] == "| --- | --- | ---: | ---: | ---: |"


def test_noted_tables_are_written_as_they_are_read() -> None:
    text = as_text(read_noted())
    assert text == NOTED.read_text()
    assert json.loads(text) == read_noted()


def test_finished_run_is_not_repeated_and_a_failed_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "RUNS", tmp_path)
    folder = tmp_path / "models" / "load-auto-0" / "1"
    folder.mkdir(parents=True)
    model = {"metrics": {"a": 1.0}, "forecasting": {"columns": [{"name": "load", "transform": "none"}]}}
    (folder / "model.json").write_text(json.dumps(model))
    (tmp_path / "load-auto-0.txt").write_text("said")
    assert finished(LOAD, 0) == Run({"a": 1.0}, "none", "said")
    missing = LOAD._replace(name="nowhere")
    with pytest.raises(RuntimeError, match=r"nowhere-auto-0: expected status 0, found [12]:\n.*nowhere\.csv"):
        finished(missing, 0)
