"""service.observability.escaping."""

import pytest

from service.observability.escaping import escaped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("é ü", "é ü"),
        ("a\tb\x00", "a\\tb\\x00"),
        ("a\n\r\x1b[31m", "a\\n\\r\\x1b[31m"),
        ("\u202e\u2028\udcff", "\\u202e\\u2028\\udcff"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected
