"""The ledger: every optimisation can be taken out, answers stay the same without it, the table renders."""

import json
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import ledger, without
from benchmarks.inprocess import Driven, classify, engine_of, row_of, runtime_of
from benchmarks.optimisations import LEDGER, Optimisation
from benchmarks.results import Report, RowResult, summarise
from benchmarks.rounds import Sample, judge
from benchmarks.rows.contests import SIDES, WITH
from service.engine.idle import IdleCall
from service.engine.request import Goal, Request
from service.engine.sampling import Sampling
from service.settings import read_settings
from tests.benchmarks.conftest import Tiny

MEASURED = [one for one in LEDGER if isinstance(one, Optimisation)]
MACHINE = {"date": "2026-01-01T00:00", "CPU": "a core", "pinned to": "server 0, client 1"}
IN_PROCESS = ("head", "bindings", "sampler")


def test_every_optimisation_has_a_contest() -> None:
    assert sorted(one.name for one in MEASURED) == sorted(without.NAMES)


@pytest.mark.parametrize("name", without.NAMES)
def test_optimisation_can_be_taken_out(name: str) -> None:
    with without.NAMES[name]():
        settings = {key: value for key, value in os.environ.items() if key.startswith("SEQSERVE_")}
        read_settings([])
    assert not settings.items() & os.environ.items()


def test_renamed_optimisation_is_noticed() -> None:
    with pytest.raises(AttributeError), patch.object(IdleCall, "_renamed", None):
        pass
    with pytest.raises(AssertionError, match="no module"), without.everywhere(lambda: None, lambda: None):
        pass


def test_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["without", "speed"])
    assert without.main() == 2
    assert "expected one of chunk-rows," in capsys.readouterr().err


def generated(driven: Driven) -> list[list[int]]:
    """The tokens of a few rows with various options."""
    options = [Sampling(seed=1), Sampling(temperature=0.0, seed=2), Sampling(top_k=3, seed=3)]
    rows = [row_of(Request(np.zeros(3, np.int64), Goal.GENERATE, one, 12)) for one in options]
    tokens: dict[int, list[int]] = {id(row): [] for row in rows}
    for row, output in driven.run(rows):
        tokens[id(row)] += output.ids
    return list(tokens.values())


@pytest.mark.parametrize("name", IN_PROCESS)
def test_engine_without_an_optimisation_generates_the_same(generator: Tiny, name: str) -> None:
    driven = engine_of(generator.model, runtime_of(generator.model))
    expected = generated(driven)
    assert list(map(len, expected)) == [12] * 3
    with without.NAMES[name]():
        assert generated(driven) == expected


@pytest.mark.parametrize("name", IN_PROCESS)
def test_engine_without_an_optimisation_classifies_the_same(
    classifier: Tiny, inputs: list[NDArray[np.int64]], name: str
) -> None:
    driven = engine_of(classifier.model, runtime_of(classifier.model))
    expected = np.stack(classify(driven, inputs))
    with without.NAMES[name]():
        np.testing.assert_allclose(np.stack(classify(driven, inputs)), expected, atol=1e-6)


def found(one: Optimisation, ratio: float) -> RowResult:
    """A row in which the load without it costs so many times as much, in every unit."""

    def sample(cost: float, *, is_cost: bool) -> Sample:
        notes = dict.fromkeys(("server CPU us each", "p50 ms", "p99 ms"), cost)
        return Sample(cost if is_cost else 1 / cost, None, notes)

    samples = {
        of.contestant(side): sample(1.0 if side == WITH else ratio, is_cost=of.is_cost)
        for of in one.measures
        for side in SIDES
    }
    rounds = [samples] * 3
    verdicts = [judge(of.claim(), rounds) for of in one.measures]
    return RowResult(one.name, one.title, "", contestants=summarise(rounds), verdicts=verdicts)


def test_gain_is_what_is_saved_of_the_cost() -> None:
    by_name = {one.name: one for one in MEASURED}
    rows = {"yield": found(by_name["yield"], 1.25), "sampler": found(by_name["sampler"], 1.04)}
    lines = {line.load: line for line in ledger.lines_of(rows, {}) if line.gain is not None}
    assert [line.gain for line in lines.values()] == pytest.approx([3.846, 20, 20], abs=1e-3)
    cells = {load: line.cells()[-3:] for load, line in lines.items()}
    assert cells["unary Forecast, 32 in flight"] == ("1", "1.25", "20.0 % (20..20)")
    assert cells["64 streams, 1 x 128, in process"] == ("1", "0.962", "3.8 % (4..4), **under 5 %**")


def test_row_that_failed_says_why() -> None:
    row = RowResult("head", "", "", trouble="no core", has_failed=True)
    assert ledger.lines_of({"head": row}, {})[1].cells()[-1] == "no core"


def test_rows_measured_elsewhere_are_taken_from_the_results() -> None:
    lines = {line.optimisation: line for line in ledger.lines_of({}, ledger.read_results())}
    for title in ("int8", "several engines on one session"):
        assert lines[title].ours is not None, title


def test_files_are_written(tmp_path: Path) -> None:
    rows = {one.name: found(one, 2.0) for one in MEASURED}
    lines = ledger.lines_of(rows, ledger.read_results())
    ledger.write(Report(MACHINE, {}, list(rows.values())), lines, 3, tmp_path)
    page = (tmp_path / "ledger.md").read_text()
    assert "Measured on 2026-01-01, a core, server 0, client 1, 3 rounds" in page
    assert ledger.TO_BE_MEASURED not in page
    data = json.loads((tmp_path / "ledger.json").read_text())
    assert (data["rounds"], data["machine"], len(data["lines"])) == (3, MACHINE, len(lines))


def test_page_lists_the_rows_of_the_ledger() -> None:
    page = ledger.PAGE.read_text()
    part = page.partition(ledger.BEGIN)[2].partition(ledger.END)[0]
    listed = [line.strip("| ").split(" | ")[:4] for line in part.splitlines() if line.startswith("|")]
    names = [list(line.cells()[:4]) for line in ledger.lines_of({}, {})]
    assert listed[2:] == names
