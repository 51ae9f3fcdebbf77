"""Tables of measurements in docs/ are made from files of results, with their dates."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import pytest

from benchmarks.registry import BY_NAME
from tests.docs.pages import pages
from tools.measured import (
    DOCS,
    MEASURED,
    footprint,
    int8_by_streams,
    names_in,
    noted_table,
    read_noted,
    streams,
    table,
    with_tables,
)
from tools.speed_table import read_results

# Tables with columns of numbers that nobody measured, by page and first cells of the head.
NOT_MEASURED: Final = {
    ("README.md", "model"): "what ships; the cards of the models have the measurements",
    ("scaling.md", "option"): "values of options",
}
_NUMBER: Final = re.compile(
    r"[<>~]?-?\d[\d,.]*( ?(%|x|ms|us|s|min|h|kB|MB|GB|KiB|MiB|GiB|nats|points)| of [\d,]+)?"
)
_GENERATED: Final = re.compile(r"<!-- (begin|measured: make).*?<!-- (end|measured: to here).*?-->", re.DOTALL)
_FENCED: Final = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_RULE: Final = re.compile(r"\|( ?:?-+:? ?\|)+")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page: the file's name, the head's cells and the rows' cells."""

    page: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def has_column_of_numbers(self) -> bool:
        """True if in a column behind the first most cells are a number, maybe with others in brackets."""
        columns = list(zip(*self.rows, strict=True))[1:]
        return any(2 * sum(map(is_number, column)) > len(column) for column in columns)


def is_number(cell: str) -> bool:
    bare = re.sub(r"\([^)]*\)|[*]", "", cell)
    parts = [part.strip() for part in re.split(r"[;/]|\.\.", bare)]
    return all(_NUMBER.fullmatch(part) for part in parts)


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def tables_by_hand(page: str, text: str) -> Iterator[Table]:
    """Tables outside of generated parts and of examples."""
    lines = _FENCED.sub("", _GENERATED.sub("", text)).splitlines()
    for number, line in enumerate(lines):
        if number and _RULE.fullmatch(line):
            rows = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield Table(page, cells(lines[number - 1]), tuple(rows))


def all_tables_by_hand() -> list[Table]:
    return [one for page in pages() for one in tables_by_hand(page.name, page.read_text())]


def test_measured_tables_are_current() -> None:
    results, noted = read_results(), read_noted()
    old = [
        page.name
        for page in DOCS.glob("*.md")
        if with_tables(page.read_text(), results, noted) != page.read_text()
    ]
    assert old == [], "run 'make docs'"


def test_every_table_of_results_is_on_one_page() -> None:
    shown = [name for page in DOCS.glob("*.md") for name in names_in(page.read_text())]
    assert sorted(shown) == sorted([*MEASURED, *read_noted()])


def test_every_noted_table_says_when_and_how() -> None:
    for name, noted in read_noted().items():
        assert date.fromisoformat(noted["recorded"]).isoformat() == noted["recorded"], name
        assert re.match(r"(by (the functions of )?`|with |on |once)", noted["how"]), name


def test_table_by_hand_has_no_column_of_numbers() -> None:
    found = {(one.page, one.head[0]) for one in all_tables_by_hand() if one.has_column_of_numbers}
    assert found == set(NOT_MEASURED), (
        "measurements belong into benchmarks/results (tools/measured.py), other numbers into NOT_MEASURED"
    )


def test_tables_by_hand_are_found() -> None:
    """The test above would pass if no table were read."""
    assert len(all_tables_by_hand()) > 40


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1,366", True),
        ("4.1 x", True),
        ("0.09 s", True),
        ("**184.2**", True),
        ("79.4 (79.0, 79.4)", True),
        ("3.6 / 13.6", True),
        ("0 of 1,057", True),
        ("", False),
        ("10 s, at most", False),
        ("`SEQSERVE_SLOTS`", False),
        ("200 connections", False),
    ],
)
def test_numbers_are_told_from_words(cell: str, expected: bool) -> None:
    assert is_number(cell) is expected


def test_table_in_a_generated_part_or_an_example_is_not_by_hand() -> None:
    one = "| a | b |\n| --- | ---: |\n| x | 1 |\n"
    text = f"{one}\n<!-- begin: speed -->\n{one}<!-- end: speed -->\n```\n{one}```\n"
    assert list(tables_by_hand("page", text)) == [Table("page", ("a", "b"), (("x", "1"),))]


def result(name: str, contestants: dict[str, Any], claims: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"name": name, "trouble": "", "contestants": contestants, "claims": claims}
    return {"machine": {"date": "2026-01-02T03:04+00:00", "CPU": "A chip"}, "rows": [row]}


def test_measured_table_has_its_date_its_command_and_the_medians() -> None:
    found = streams(result("streams", {"8": {"median": 4000.4, "notes": {"first token p99 ms": 28.6}}}, []))
    assert found.startswith('Measured on 2026-01-02, A chip, by `make bench BENCH_ARGS="--rows streams"`')
    assert found.endswith("| 8 | 4,000 | 500 | 29 |")


def test_int8_table_has_ours_beside_fp32() -> None:
    contestants = {"fp32, 4 rows": {"median": 1000.0}, "int8, 4 rows": {"median": 4100.0}}
    found = int8_by_streams(
        result("int8-rows", contestants, [{"what": "int8 / fp32, 4 rows", "by_cpu": 4.12}])
    )
    assert found.endswith("| 4 | 1,000 | 4,100 | 4.1 x |")


def test_tables_name_rows_of_the_benchmarks() -> None:
    assert {"int8-rows", "streams", "memory", "start"} <= set(BY_NAME)


def test_row_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a measured row 'memory'"):
        footprint(result("streams", {}, []))


def test_noted_table_keeps_its_sides() -> None:
    noted = {"recorded": "2026-01-02", "how": "by hand", "columns": ["a", "b"], "rows": [["x", "1"]]}
    assert noted_table(noted | {"align": ["left", "right"]}).splitlines() == [
        "Noted on 2026-01-02; measured by hand.",
        "",
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
    ]


def test_uneven_table_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 cells in every row"):
        table(["a", "b"], [["x"]])


def test_text_around_a_table_is_kept() -> None:
    page = "one\n<!-- begin: mine, written by tools/measured.py -->\nold\n<!-- end: mine -->\ntwo\n"
    noted = {"mine": {"recorded": "2026-01-02", "how": "by hand", "columns": ["a"], "rows": [["x"]]}}
    made = with_tables(page, {}, noted)
    assert made.startswith("one\n<!-- begin: mine, written by tools/measured.py -->\nNoted on")
    assert made.endswith("| x |\n<!-- end: mine -->\ntwo\n")
