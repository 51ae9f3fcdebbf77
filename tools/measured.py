"""Write the tables of docs/ that show measurements: `python -m tools.measured`, or `make docs`.

Each table stands between a begin and an end marker with its name. Its numbers come from the results of
`make bench`, or from benchmarks/results/noted.json, which has the output of measurements that write no file
of results themselves. Above each table the page says when and how it was measured.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tools.speed_table import RESULTS, ROOT, read_results

NOTED: Final = RESULTS.with_name("noted.json")
DOCS: Final = ROOT / "docs"
_MARKED: Final = re.compile(
    r"(?P<begin><!-- begin: (?P<name>[\w-]+), written by tools/measured\.py -->\n)"
    r".*?(?P<end><!-- end: (?P=name) -->)",
    re.DOTALL,
)

Results = Mapping[str, Any]


def int8_by_streams(results: Results) -> str:
    """Return the speed of int8 and fp32 weights by the number of streams, from the row int8-rows."""
    row = _row(results, "int8-rows")
    lines = []
    for claim in row["claims"]:
        streams = re.sub(r"\D", "", claim["what"].partition(", ")[2])
        ours, theirs = (row["contestants"][f"{kind}, {streams} rows"]["median"] for kind in ("int8", "fp32"))
        lines.append([streams, f"{theirs:,.0f}", f"{ours:,.0f}", f"{claim['by_cpu']:.1f} x"])
    head = ["streams", "fp32, characters/s", "int8, characters/s", "int8 / fp32, by CPU time"]
    return _measured(results, "int8-rows") + table(head, lines)


def streams(results: Results) -> str:
    """Return what 1 to 256 streams of charlm get through gRPC, from the row streams."""
    lines = [
        [count, f"{found['median']:,.0f}", f"{found['median'] / int(count):,.0f}", _first_token(found)]
        for count, found in _row(results, "streams")["contestants"].items()
    ]
    head = ["streams at once", "characters/s in all", "each", "first token p99, ms"]
    return _measured(results, "streams") + table(head, lines)


def _first_token(found: Mapping[str, Any]) -> str:
    return f"{found['notes']['first token p99 ms']:,.0f}"


def footprint(results: Results) -> str:
    """Return the memory and the start of a server with the three models that ship."""
    memory, start = _row(results, "memory"), _row(results, "start")
    loaded, idle = (claim["median"] for claim in memory["claims"])
    lines = [
        ["resident memory at rest, MiB", f"{idle:,.0f}"],
        ["resident memory under load, peak, MiB", f"{loaded:,.0f}"],
        ["process start to SERVING on one core, s", f"{start['claims'][0]['median']:.1f}"],
    ]
    return _measured(results, "memory,start") + table(["the three models that ship", "median"], lines)


# By name, the tables that are made from the results of `make bench`.
MEASURED: Final[Mapping[str, Callable[[Results], str]]] = {
    "int8-by-streams": int8_by_streams,
    "streams": streams,
    "footprint": footprint,
}


def noted_table(noted: Mapping[str, Any]) -> str:
    """Return a table of noted.json below a line that says when and how it was measured."""
    right = [side == "right" for side in noted.get("align", [])]
    return f"Noted on {noted['recorded']}; measured {noted['how']}.\n\n" + table(
        noted["columns"], noted["rows"], right
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """Return a table of finished cells; `right`: by column, whether it is set to the right.

    Raises:
        ValueError: a row has another number of cells than the head.
    """
    rules = ["---:" if is_right else "---" for is_right in right] or ["---"] * len(head)
    lines = [head, rules, *rows]
    if any(len(line) != len(head) for line in lines):
        raise ValueError(f"expected {len(head)} cells in every row of the table that begins {head[:2]}")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(results: Results, name: str) -> Mapping[str, Any]:
    """Return a row of the results.

    Raises:
        ValueError: the results have no such row, or it could not be measured.
    """
    for row in results["rows"]:
        if row["name"] == name and not row["trouble"]:
            found: Mapping[str, Any] = row
            return found
    raise ValueError(f"expected a measured row {name!r} in {RESULTS.name}, found none: run make bench")


def _measured(results: Results, rows: str) -> str:
    machine = results["machine"]
    return (
        f"Measured on {machine['date'][:10]}, {machine['CPU']}, by "
        f'`make bench BENCH_ARGS="--rows {rows}"`, medians.\n\n'
    )


def read_noted() -> Mapping[str, Any]:
    """Return the tables of noted.json by their names."""
    found: Mapping[str, Any] = json.loads(NOTED.read_text())
    return found


def names_in(text: str) -> list[str]:
    """Return the names of the marked tables of a page in their order."""
    return [match["name"] for match in _MARKED.finditer(text)]


def with_tables(text: str, results: Results, noted: Mapping[str, Any]) -> str:
    """Return a page's text with every marked table made from the results.

    Raises:
        KeyError: a marker names a table that there is none of.
    """

    def filled(match: re.Match[str]) -> str:
        name = match["name"]
        made = MEASURED[name](results) if name in MEASURED else noted_table(noted[name])
        return f"{match['begin']}{made}\n{match['end']}"

    return _MARKED.sub(filled, text)


def main() -> None:
    """Rewrite every page that has a marked table."""
    results, noted = read_results(), read_noted()
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if (made := with_tables(text, results, noted)) != text:
            page.write_text(made)


if __name__ == "__main__":
    main()
