"""The measured part of the capacity page: what goes into it, and that it can be written again."""

import numpy as np
import pytest

from benchmarks.capacity import (
    BEGIN,
    END,
    LOAD_BEFORE,
    PAGE,
    Curve,
    Measured,
    Point,
    StreamPoint,
    _point,
    replace_measured,
    tables,
)

MACHINE = {"date": "2026-01-01T00:00", "commit": "0" * 40, "CPU": "a core", LOAD_BEFORE: "3.0"}


def test_calls_without_an_answer_are_counted_apart() -> None:
    point = _point(0.5, 10.0, np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1, 0.1, np.inf, 1.0]))
    assert [point.answered, point.p50_ms, point.failed] == pytest.approx([3 / 4 / 10, 100, 0.25])


def test_page_takes_new_tables() -> None:
    points = [Point(share, share, 1.0, 2.0, 0.0) for share in (0.3, 0.5)]
    measured = Measured(
        MACHINE, [Curve("calls", 100.0, 50.0, points)], [StreamPoint(1, 10.0, 5.0, 100.0)], {16: 90.0}
    )
    page = replace_measured(PAGE.read_text(), tables(measured))
    assert "| calls: p50 / p99, ms | 100 (50 %) | 1.0 / 2.0 | 1.0 / 2.0 |" in page
    assert "Load average before: 3.0. **Others used the machine" in page
    assert (page.count(BEGIN), page.count(END)) == (1, 1)
    assert replace_measured(page, tables(measured)) == page
