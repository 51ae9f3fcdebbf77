"""docs/settings.md."""

import re

import pytest

from service.settings import PREFIX, Settings, read_settings
from tools.settings_page import PAGE, page


def test_page_says_what_the_settings_are() -> None:
    assert PAGE.read_text() == page(), "docs/settings.md is not current: run 'make docs'"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name: str) -> None:
    assert (
        len(
            re.findall(
                rf"^\| `{PREFIX}{name.upper()}` \| `--{name.replace('_', '-')}` \| \S", page(), re.MULTILINE
            )
        )
        == 1
    )


def test_defaults_of_the_page_are_taken_by_the_settings() -> None:
    rows = re.findall(r"^\| `\w+` \| `(--[\w-]+)` \| [\w, ]+ \| `([^`]+)` \|", page(), re.MULTILINE)
    assert len(rows) > 25
    assert read_settings([part for flag, value in rows for part in (flag, value)]) == read_settings([])


def test_ends_of_a_range_are_taken_and_what_lies_beyond_is_not() -> None:
    rows = re.findall(
        r"^\| `\w+` \| `(--[\w-]+)` \| (?:integer|number) \| [^|]+ \| (?:above )?([\d.]+) to ([\d.]+) \|",
        page(),
        re.MULTILINE,
    )
    assert len(rows) > 20
    for flag, _, high in rows:
        read_settings([flag, high])
        with pytest.raises(Exception, match="expected at most"):
            read_settings([flag, f"{int(float(high)) + 1}"])
