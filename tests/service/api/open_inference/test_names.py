"""service.api.open_inference.names: an unknown name is refused with the known ones and the nearest."""

import time

import pytest

from service.api.open_inference.names import unknown_name

OPTIONS = ("max_tokens", "temperature", "top_k", "top_p")


@pytest.mark.parametrize(
    ("found", "near"),
    [
        *(("max_token", "max_tokens"), ("maxTokens", "max_tokens"), ("max_new_tokens", "max_tokens")),
        *(
            ("Temperature", "temperature"),
            ("temprature", "temperature"),
            ("topk", "top_k"),
            ("top-p", "top_p"),
        ),
    ],
)
def test_near_miss_is_named(found: str, near: str) -> None:
    error = unknown_name("parameters", "parameters", found, OPTIONS)
    assert str(error) == (
        "parameters: expected parameters among max_tokens, temperature, top_k, top_p, "
        f"found {found!r}; did you mean {near}?"
    )


@pytest.mark.parametrize("found", ["", "headers_x", "温度", "x\n\x1b[31m", "\x00", "max_tokens" * 10_000])
def test_name_that_is_near_none_is_shown_escaped_and_cut(found: str) -> None:
    started = time.monotonic()
    text = str(unknown_name("parameters", "parameters", found, OPTIONS))
    assert time.monotonic() - started < 1
    assert "did you mean" not in text
    assert text.isprintable()
    assert len(text) < 300


def test_error_says_so_where_no_name_is_known() -> None:
    assert str(unknown_name("text", "parameters", "x", ())) == "text: expected no parameters, found 'x'"
