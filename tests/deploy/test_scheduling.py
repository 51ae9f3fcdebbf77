"""What a worker of `make test` runs as a whole, and what is run first."""

import re

import pytest

from tests.deploy.render import ROOT
from tests.scheduling import LONGEST, TOGETHER, place, unit

MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_name_is_a_file_a_folder_or_a_group() -> None:
    named = [start for starts in TOGETHER.values() for start in starts]
    named += [name for name in LONGEST if name not in TOGETHER]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert len(set(LONGEST)) == len(LONGEST)


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/service/test_cpus.py::test_one[a::b]", "tests/service/test_cpus.py"),
        ("tests/examples/test_served.py::test_one", "the examples"),
        ("tests/examples/test_training.py::test_one", "the examples"),
        ("tests/integration/test_lecture.py::test_one", "the lecture"),
        ("tests/training/lecture/test_lessons.py::TestOne::test_two", "the lecture"),
    ],
)
def test_files_that_share_networks_are_one_unit(nodeid: str, expected: str) -> None:
    assert unit(nodeid) == expected


def test_longest_units_come_first_and_the_others_keep_their_order() -> None:
    nodeids = [
        "tests/b.py::one",
        "tests/examples/test_served.py::two",
        "tests/a.py::three",
        f"{LONGEST[0]}::four",
    ]
    assert sorted(nodeids, key=place) == [nodeids[3], nodeids[1], nodeids[0], nodeids[2]]


def test_make_takes_whole_files() -> None:
    """Only then are units scheduled as named here."""
    assert re.search(r"--numprocesses \d+ --dist loadfile ", MAKEFILE)


def test_files_that_run_alone_are_not_among_the_longest() -> None:
    [line] = [line for line in MAKEFILE.splitlines() if line.startswith("ALONE :=")]
    alone = {f"tests/integration/test_{name}.py" for name in line.split(".py,")[1].rstrip(")").split()}
    assert alone.isdisjoint(LONGEST)
