"""Names that others chose, in Markdown: shown as they are, with no effect on what stands around them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec
from tests.training.letters import FACTS, write_letters
from training import markdown
from training.export.card import model_card
from training.recipes.report import Contender, Measure, Results

HOSTILE = [
    "a|b",
    "two\nlines",
    "`code`",
    "<script>alert(1)</script>",
    "&lt;",
    "*bold* _it_ ~~no~~",
    "[link](javascript:x)",
    "back\\slash|",
    "\x1b[2J",
]


def _bare(text: str) -> str:
    """Return a text without what a backslash makes harmless."""
    return re.sub(r"\\[\\`*\[\]|~<&_]", "", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_name_has_no_effect(name: str) -> None:
    shown = markdown.plain(name)
    assert not re.search(
        r"[\\`*\[\]|~\n\x1b]|<[A-Za-z/!?]|&#?\w+;|(?<!\w)_|_(?!\w)", _bare(shown).replace("x1b", "")
    )


@pytest.mark.parametrize("name", ["close", "adj_close, USD", "found of so-so, %", "a <= b & c", "Größe ☃"])
def test_harmless_name_stays(name: str) -> None:
    assert markdown.plain(name) == name


@given(st.lists(st.text(max_size=10), min_size=2, max_size=4), st.text(max_size=10))
def test_table_has_its_cells_whatever_the_names(head: list[str], label: str) -> None:
    lines = markdown.table(head, [[label] * len(head)]).split("\n")
    assert len(lines) == 3
    assert {_bare(line).count("|") for line in lines} == {len(head) + 1}


def test_results_of_hostile_labels_are_one_table_and_one_screen() -> None:
    results = Results(
        "held out",
        (Contender("lstm | 1", "held_out"),),
        tuple(Measure(f"found of {name}, %", "recall", (1.0,)) for name in HOSTILE),
    )
    lines = results.markdown().splitlines()
    assert len(lines) == 2 + len(HOSTILE)
    assert {_bare(line).count("|") for line in lines} == {3}
    assert all("\x1b" not in str(cell) for column in results.table().columns for cell in column.cells)


@pytest.mark.parametrize("text", ["plain", "```", "a\n````\nb", ""])
def test_code_ends_where_it_ends(text: str) -> None:
    block = markdown.fenced(text, "sh").split("\n")
    assert block[-1] not in block[1:-1]
    assert "\n".join(block[1:-1]) == text


def test_card_of_a_hostile_file_name_keeps_its_sections(tmp_path: Path, text_file: Path) -> None:
    model, _ = spec.read_spec(write_letters(tmp_path, text_file))
    made = model.provenance.model_copy(
        update={"data": "<b>|`x`.txt", "recipe": "python '\n```\n## Hacked\n'"}
    )
    card = model_card(model.model_copy(update={"provenance": made}), replace(FACTS, summary="Fine."))
    assert r"\<b>\|\`x\`.txt" in card
    outside = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert "## Hacked" not in outside
    assert "## Limits" in outside
