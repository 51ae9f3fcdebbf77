"""service.api.request_id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.request_id import KEY, MAX_CHARACTERS, request_id_of

PRINTABLE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=MAX_CHARACTERS
)


def is_legal(value: str | bytes) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= MAX_CHARACTERS
        and all(" " <= one <= "~" for one in value)
    )


@given(PRINTABLE)
def test_printable_id_is_taken_as_it_is(value: str) -> None:
    assert request_id_of([("user-agent", "test"), (KEY, value), (KEY, "another")]) == value


@given(st.text() | st.binary())
def test_whatever_comes_the_id_is_legal(value: str | bytes) -> None:
    found = request_id_of([(KEY, value)])
    assert is_legal(found)
    assert (found == value) == is_legal(value)


@pytest.mark.parametrize("value", ["", "a" * (MAX_CHARACTERS + 1), "tab\there", "line\n", "é", b"bytes"])
def test_malformed_id_is_replaced(value: str | bytes) -> None:
    assert request_id_of([(KEY, value)]) != value


def test_new_ids_are_all_different() -> None:
    assert len({request_id_of([]) for _ in range(1000)}) == 1000
