"""README.md's part on speed is made of the last full run's results."""

from typing import Any

import pytest

from benchmarks.registry import BY_NAME
from tools.speed_table import BEGIN, END, LINES, PAGE, read_results, speed_part, with_speed


def claim(what: str, **changes: object) -> dict[str, Any]:
    made = {
        "median": 1.234,
        "least": 1.1,
        "most": 1.4,
        "values": [1.1, 1.234, 1.4],
        "by_cpu": 1.3,
        "doubt": "",
    }
    return {"what": what} | made | changes


def results_of(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"date": "2026-01-02T03:04+00:00", "commit": "abc1234", "cores": "2", "CPU": "A chip"}
    return {"machine": machine, "rows": list(rows)}


def row(name: str, *, trouble: str = "", **changes: object) -> dict[str, Any]:
    """Make a row with every claim that the table has of it."""
    claims = [claim(line.claim, **changes) for line in LINES if line.row == name]
    return {"name": name, "trouble": trouble, "claims": claims}


def test_page_is_made_of_the_results() -> None:
    text = PAGE.read_text()
    assert with_speed(text, read_results()) == text, "README.md is not current: run 'make docs'"


def test_lines_name_rows_that_exist() -> None:
    assert {line.row for line in LINES} <= set(BY_NAME)


def test_place_and_time_of_the_measurement_are_said() -> None:
    part = speed_part(results_of())
    assert "on 2026-01-02 at commit abc1234, on 2 cores (A chip)" in part


def test_ratio_has_its_median_and_range() -> None:
    assert speed_part(results_of(row("S4"))).count("| 1.23 (1.10 to 1.40) |") == 1


def test_ratio_is_by_cpu_time_where_wall_time_is_in_doubt() -> None:
    part = speed_part(results_of(row("S4", doubt="disturbed")))
    assert "| 1.30 by CPU time: disturbed |" in part


def test_row_that_could_not_be_measured_says_why() -> None:
    part = speed_part(results_of(row("P3", trouble="Triton is not installed")))
    assert part.count("not measured: Triton is not installed") == 2


def test_same_measurement_is_named_once() -> None:
    part = speed_part(results_of(row("S1")))
    assert part.count("texts of mixed lengths, engine in process") == 1
    assert part.count("|  | ") == 2


def test_claim_that_was_renamed_is_refused() -> None:
    renamed = row("S4")
    renamed["claims"][0]["what"] = "another"
    with pytest.raises(ValueError, match="expected row S4 to have the claim"):
        speed_part(results_of(renamed))


def test_start_and_memory_are_said_where_both_were_measured() -> None:
    start = claim("process start to SERVING, three models", median=0.94)
    memory = claim("peak resident memory, all three models under load", median=176.6)
    rows = [
        {"name": "start", "trouble": "", "claims": [start]},
        {"name": "memory", "trouble": "", "claims": [memory]},
    ]
    assert "ready 0.9 s after its process started, and held three models in 177 MiB" in speed_part(
        results_of(*rows)
    )
    assert "was ready" not in speed_part(results_of(rows[0]))


def test_text_around_the_part_is_kept() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_speed(page, results_of(row("S4"))).startswith(f"before\n{BEGIN}\nMeasured by")
    assert with_speed(page, results_of(row("S4"))).endswith(f"\n{END}\nafter\n")
    assert "old" not in with_speed(page, results_of(row("S4")))
