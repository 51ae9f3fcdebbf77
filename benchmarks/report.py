"""A run's results for people: tables in the terminal, and the same in Markdown."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.results import Measured, Report, RowResult
from benchmarks.rounds import Claim, Verdict

_MET = {True: "yes", False: "**no**", None: ""}


def amount(value: float) -> str:
    """Three or four digits that count."""
    if value == 0 or 1000 > abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _target(claim: Claim) -> str:
    if claim.target is None:
        return ""
    return f"{'<=' if claim.is_at_most else '>='} {claim.target:g} {claim.unit}"


def _found(verdict: Verdict) -> str:
    spread = (
        f" ({amount(min(verdict.values))}..{amount(max(verdict.values))})" if len(verdict.values) > 1 else ""
    )
    return f"{amount(verdict.median)} {verdict.claim.unit}{spread}"


def _medians(row: RowResult, verdict: Verdict) -> str:
    """Absolute medians of the two sides of a ratio."""
    if verdict.claim.sides is None:
        return ""
    ours, theirs = (amount(row.contestants[side].median) for side in verdict.claim.sides)
    return f"{ours} / {theirs} {row.unit}"


def claim_cells(row: RowResult) -> Iterator[tuple[str, ...]]:
    """Lines of the table of promises: row, what, target, measured, by CPU time, medians, met."""
    for verdict in row.verdicts:
        by_cpu = "" if verdict.by_cpu is None else f"{amount(verdict.by_cpu)} x"
        yield (
            row.name,
            verdict.claim.what,
            _target(verdict.claim),
            _found(verdict),
            by_cpu,
            _medians(row, verdict),
            _met(verdict),
        )
    if row.trouble:
        yield row.name, row.title, "", row.trouble, "", "", "failed" if row.has_failed else "not measured"


def _met(verdict: Verdict) -> str:
    words = [_MET[verdict.is_met], "by CPU time:" if verdict.is_by_cpu else "", verdict.doubt]
    return " ".join(word for word in words if word)


def _contestant_cells(name: str, one: Measured) -> tuple[str, ...]:
    notes = ", ".join(f"{note} {amount(value)}" for note, value in one.notes.items())
    return name, amount(one.median), f"{amount(min(one.values))}..{amount(max(one.values))}", notes


CLAIM_HEADS = (
    "row",
    "what",
    "target",
    "measured: median (least..most)",
    "by CPU time",
    "medians, ours / theirs",
    "met",
)


def show(row: RowResult, console: Console) -> None:
    """Print a row as soon as it is there."""
    title = f"{row.name}: {row.title} [{row.seconds:.0f} s]"
    shown = Table(title=title, box=box.SIMPLE, title_justify="left", caption=row.load, caption_justify="left")
    for head in ("", row.unit, "least..most", "notes"):
        shown.add_column(head, justify="right" if head and head != "notes" else "left")
    for name, one in row.contestants.items():
        shown.add_row(*_contestant_cells(name, one))
    if row.contestants:
        console.print(shown)
    for fact, value in row.facts.items():
        console.print(f"   {fact}: {amount(value)}")
    for _, what, target, found, by_cpu, _, met in claim_cells(row):
        parts = [
            f"   {row.name}  {what}: {found}",
            f"by CPU time {by_cpu}" if by_cpu else "",
            f"target {target}: {met}" if target else met,
        ]
        console.print("; ".join(part for part in parts if part), markup=False)


def markdown(report: Report) -> Iterator[str]:
    """Lines of results.md."""
    yield "# Measured speed"
    yield ""
    yield (
        "Made by `make bench`; how to read it: [README.md](../README.md). "
        "One machine at one time: compare ratios, not absolute numbers."
    )
    yield ""
    yield from table(("machine", ""), list(report.machine.items()))
    yield from table(("settings", ""), list(report.settings.items()))
    yield "## Promises"
    yield ""
    yield from table(CLAIM_HEADS, [cells for row in report.rows for cells in claim_cells(row)])
    for row in report.rows:
        yield f"## {row.name}: {row.title}"
        yield ""
        if row.trouble:
            yield from (row.trouble, "")
            continue
        if row.load:
            yield from (f"{row.load}.", "")
        yield from table(
            ("", row.unit, "least..most", "notes"),
            [_contestant_cells(name, one) for name, one in row.contestants.items()],
        )
        if row.facts:
            yield from table(("", ""), [(fact, amount(value)) for fact, value in row.facts.items()])


def table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for cells in lines:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def replace_between(page: str, begin: str, end: str, text: str) -> str:
    """Return a page with the text between two marks replaced.

    Raises:
        ValueError: the page has no such part, or several.
    """
    changed, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected one measured part, found {count}")
    return changed


def write(report: Report, folder: Path) -> None:
    """results.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text("\n".join(markdown(report)))
    (folder / "results.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
