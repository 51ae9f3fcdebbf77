"""service.models.checklist: every check is listed once, and docs/contract.md has the same table."""

import re
from pathlib import Path

from service.models.checklist import CHECKS, NAMES

ROOT = Path(__file__).parents[3]
# The first argument of ModelRefused, wherever the service raises it.
_RAISED = re.compile(r'ModelRefused\(\s*"([\w-]+)"')
# Compares a version with the one that serves, so that it is no check of a folder alone.
BESIDE = {"interface", "folder"}


def test_names_differ() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_every_check_that_the_service_raises_is_listed() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    raised = set(_RAISED.findall(sources))
    assert raised - BESIDE == set(NAMES) - {"spec"}  # which is an error of its own, SpecError


def test_table_of_the_contract_has_the_checks_in_their_order() -> None:
    page = (ROOT / "docs" / "contract.md").read_text()
    _, _, table = page.partition("| check | what it proves |\n| --- | --- |\n")
    rows = table.partition("\n\n")[0].splitlines()
    assert rows == [f"| `{one.name}` | {one.proves} |" for one in CHECKS]
