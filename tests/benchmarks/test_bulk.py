"""The measured part of the bulk page, and the costs of a command's processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bulk import BEGIN, END, PAGE, RESULTS, Cost, cost_of, report_of, tables
from benchmarks.report import replace_between

COSTS = {
    "one": {1000: [Cost(2.0, 3.0), Cost(9.0, 9.0), Cost(2.5, 3.5)], 5000: [Cost(4.5, 7.5)] * 3},
    "other": {1000: [Cost(5.0, 1.0)] * 3, 5000: [Cost(5.0, 1.0)] * 3},
}


def test_table_has_medians_and_the_cost_of_further_texts() -> None:
    lines = tables(report_of(COSTS, 0.1)).splitlines()
    assert "medians of 3 rounds" in lines[0]
    assert "Others used the machine" not in lines[0]
    assert lines[4] == "| one | 2.5 (3.5) | 4.5 (7.5) | 0.50 (1.00) | 2,000 |"
    assert lines[5] == "| other | 5.0 (1.0) | 5.0 (1.0) | 0.00 (0.00) | not measurable |"


def test_load_of_others_is_told() -> None:
    assert "Others used the machine" in tables(report_of(COSTS, 3.0)).splitlines()[0]


def test_page_shows_the_results_file() -> None:
    page = PAGE.read_text()
    assert replace_between(page, BEGIN, END, tables(json.loads(RESULTS.read_text()))) == page


def test_cost_counts_processes_below_the_command(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass\n"
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\n"
    cost = cost_of([sys.executable, "-c", program], tmp_path / "output", {})
    assert cost.cpu_seconds > 0.3
    assert cost.seconds > 0.3


def test_failed_command_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        cost_of([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "output", {})
