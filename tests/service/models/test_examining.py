"""service.models.examining: what becomes of each check of a version folder."""

import shutil
from pathlib import Path

import pytest

from service.models.checklist import NAMES
from service.models.examining import Report, examine
from tests import contract2
from tests.contract2_graphs import Net
from tests.service.builders import edit_graph, settings_of, spec_of
from tests.service.models.slow_graphs import grow_above, loop_above


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for net in (contract2.BEGUN, contract2.POOLED):
        contract2.export(net, folder)
    return folder


@pytest.fixture
def version(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported / "begun" / "1", tmp_path / "begun" / "1")


def statuses(report: Report) -> dict[str, str]:
    return {one.check.name: one.status for one in report.outcomes}


@pytest.mark.parametrize("net", [contract2.BEGUN, contract2.POOLED], ids=lambda net: net.name)
def test_right_version_passes_with_its_measurements(exported: Path, net: Net) -> None:
    report = examine(exported / net.name / "1", settings_of(exported))
    assert report.failed is None
    unneeded = {"tokenizer", "preprocessing", "generation"} | (set() if net.init else {"init"})
    assert {name for name, status in statuses(report).items() if status == "not needed"} == unneeded
    assert report.measured("spec") == {"name": net.name, "version": 1, "variant": "fp32"}
    assert 0 <= float(report.measured("golden")["largest_difference"]) < 1e-5
    costs = report.measured("warm-up")
    assert 0 < float(costs["microseconds_widest"]) < float(costs["microseconds_alone"])
    assert report.measured("invariance") == {"batch_invariant": True}
    assert 1 << 24 < float(report.measured("trial")["memory_bytes"]) < 1 << 30


def test_check_that_fails_has_its_reason_and_those_behind_it_are_not_reached(version: Path) -> None:
    golden = spec_of(version)["golden"]
    golden[1]["outputs"][0][0] += 1.0
    spec_of(version, golden=golden)
    report = examine(version, settings_of(version))
    assert report.failed is not None
    assert report.failed.check.name == "golden"
    assert report.failed.failure is not None
    assert report.failed.failure.expected.startswith("outputs of example 1, step 0, alone")
    assert report.failed.failure.found.endswith(" off")
    place = NAMES.index("golden")
    found = list(statuses(report).values())
    assert set(found[:place]) == {"passed", "not needed"}
    assert set(found[place + 1 :]) == {"not reached"}


def test_wrong_field_is_named_by_its_place(version: Path) -> None:
    spec_of(version, outputs="many")
    report = examine(version, settings_of(version))
    assert report.failed is not None
    assert report.failed.failure is not None
    assert (report.failed.check.name, report.failed.failure.place) == ("spec", "outputs")


@pytest.mark.parametrize(
    ("limits", "is_slow"),
    [({"admission_seconds": 3.0}, True), ({"admission_bytes": 1 << 28}, False)],
    ids=["time", "memory"],
)
def test_version_beyond_a_limit_fails_the_trial_while_the_widest_ticks_run(
    version: Path, limits: dict[str, float], is_slow: bool
) -> None:
    """The golden examples are fewer rows, so that they are passed before."""
    edit_graph(version, loop_above(40) if is_slow else grow_above(40, 1 << 28))
    report = examine(version, settings_of(version, **limits))
    assert report.failed is not None
    assert report.failed.check.name == "trial"
    found = statuses(report)
    assert (found["golden"], found["warm-up"], found["invariance"]) == (
        "passed",
        "not reached",
        "not reached",
    )
    assert report.failed.failure is not None
    assert report.failed.failure.during == "warm-up"


def test_provider_that_is_not_there_is_told_before_the_graph_is_loaded(version: Path) -> None:
    report = examine(version, settings_of(version, provider="cuda"))
    assert report.failed is not None
    assert report.failed.check.name == "provider"
    assert statuses(report)["graph"] == "not reached"


def test_text_of_a_failure_is_one_printable_line(version: Path) -> None:
    spec_of(version, **{"a\nb\x1b[31m": 1})
    report = examine(version, settings_of(version))
    assert report.failed is not None
    assert report.failed.failure is not None
    assert report.failed.failure.text.isprintable()
