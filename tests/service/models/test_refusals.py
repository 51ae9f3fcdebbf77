"""service.models.refusals."""

import pytest

from service.contract.spec import SpecError
from service.errors import ModelRefused
from service.models.refusals import Refusal, printable, refusal_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("outputs must be 10", "outputs must be 10"),
        ("é and 字", "é and 字"),
        ("a\n2026-11-30 [error] forged", "a\\n2026-11-30 [error] forged"),
        ("\x1b[31mred\r\x00", "\\x1b[31mred\\r\\x00"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\udce9"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    expected.encode()


def test_long_text_is_cut() -> None:
    assert printable("x" * 1_000_000) == "x" * 2000 + "..."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SpecError("a\nb"), Refusal("spec", "a\\nb", True, {"check": "spec"})),
        (
            SpecError("model.json: golden[0].steps: expected a list, found 3"),
            Refusal(
                "spec",
                "model.json: golden[0].steps: expected a list, found 3",
                True,
                {"check": "spec", "place": "golden[0].steps", "expected": "a list", "found": "3"},
            ),
        ),
        (
            ModelRefused("graph", "x", "y\nz"),
            Refusal(
                "graph",
                "check 'graph' failed: expected x, found y\\nz",
                True,
                {"check": "graph", "expected": "x", "found": "y\\nz"},
            ),
        ),
        (
            KeyError("a\n"),
            Refusal(
                "unexpected",
                "check 'unexpected' failed: KeyError: 'a\\n'",
                False,
                {"check": "unexpected"},
            ),
        ),
    ],
)
def test_error_is_described_on_one_line(error: Exception, expected: Refusal) -> None:
    assert refusal_of(error) == expected
