"""service.security.state_tokens: what is sealed comes back, and nothing else is opened."""

import hmac
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.spec import ModelSpec, TokenizerFile, read_spec
from service.errors import InvalidArgument
from service.security.state_tokens import (
    Keys,
    KeysRefused,
    StateBinding,
    binding_of,
    generate_keys,
    open_series,
    open_steps,
    open_text,
    read_keys,
    seal_series,
    seal_steps,
    seal_text,
)
from service.tasks.states import SeriesState, StepState, TextContext, TextProgress, TextState

FIRST, SECOND = b"1" * 32, b"2" * 40
KEYS = Keys([FIRST])
ROWS = (np.array([0.5, -1.25, 3e-39], np.float32), np.array([7.0, -0.0], np.float32))
TEXT = TextState(2**40, 2**64 - 1, 6, ROWS)
SERIES = SeriesState(31, [0.1, -2.5e300], ROWS)
STEPS = StepState(2**40, ROWS)


def model_of(models: Path, name: str) -> tuple[ModelSpec, str]:
    return read_spec(models / name / "1")


@pytest.fixture(scope="module")
def letters(models: Path) -> StateBinding:
    """StateBinding to a text model, with state tensors small enough to look at."""
    return replace(binding_of(*model_of(models, "letters"), "fp32"), widths=(3, 2))


@pytest.fixture(scope="module")
def prices(models: Path) -> StateBinding:
    return replace(binding_of(*model_of(models, "prices"), "fp32"), widths=(3, 2), columns=2)


@pytest.fixture(scope="module")
def moods(models: Path) -> StateBinding:
    """StateBinding to a model whose steps InferStream takes."""
    return replace(binding_of(*model_of(models, "moods"), "fp32"), widths=(3, 2))


def refusal(bound: StateBinding, token: bytes, keys: Keys = KEYS) -> str:
    opened = open_steps if bound.is_stepwise else open_series if bound.columns else open_text
    with pytest.raises(InvalidArgument) as caught:
        opened(keys, bound, token)
    assert caught.value.violations[0].field == "state"
    assert caught.value.reason == "INVALID_ARGUMENT"
    return caught.value.violations[0].description


def test_text_state_comes_back_bit_for_bit(letters: StateBinding) -> None:
    token = seal_text(KEYS, letters, TEXT)
    found = open_text(KEYS, letters, token)
    assert (found.position, found.seed, found.pending) == (TEXT.position, TEXT.seed, TEXT.pending)
    assert [row.tobytes() for row in found.rows] == [row.tobytes() for row in ROWS]
    assert all(row.dtype == np.float32 for row in found.rows)
    assert len(token) == letters.size


def test_series_state_comes_back_bit_for_bit(prices: StateBinding) -> None:
    token = seal_series(KEYS, prices, SERIES)
    found = open_series(KEYS, prices, token)
    assert (found.position, list(found.levels)) == (SERIES.position, SERIES.levels)
    assert [row.tobytes() for row in found.rows] == [row.tobytes() for row in ROWS]
    assert len(token) == prices.size


@given(
    has_begun=st.booleans(),
    between=st.sampled_from(["", " "]),
    held=st.binary(max_size=3),
    counts=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_progress_of_a_text_of_tokens_comes_back(
    letters: StateBinding, has_begun: bool, between: str, held: bytes, counts: tuple[int, int]
) -> None:
    words = replace(letters, header=b"SQS\x02" + letters.header[4:], has_progress=True)
    progress = TextProgress(TextContext(has_begun, between, held), *counts)
    token = seal_text(KEYS, words, replace(TEXT, progress=progress))
    found = open_text(KEYS, words, token)
    assert found.progress == progress
    assert [row.tobytes() for row in found.rows] == [row.tobytes() for row in ROWS]
    assert len(token) == words.size
    assert "of format b'SQS\\x01'" in refusal(letters, token)
    assert "of format b'SQS\\x02'" in refusal(words, seal_text(KEYS, letters, TEXT))


def test_state_of_characters_is_sealed_as_ever(letters: StateBinding) -> None:
    """Tokens that servers before this one have sealed are opened: the layout is written out here."""
    body = letters.header + struct.pack("<QQI", TEXT.position, TEXT.seed, TEXT.pending)
    body += b"".join(row.tobytes() for row in ROWS)
    token = body + hmac.digest(FIRST, body, "sha256")
    assert letters.header.startswith(b"SQS\x01")
    assert seal_text(KEYS, letters, TEXT) == token
    assert open_text(KEYS, letters, token).progress is None


def test_language_model_of_tokens_has_a_format_of_its_own(models: Path) -> None:
    model, text = model_of(models, "letters")
    assert model.generation is not None
    file = TokenizerFile(kind="tokenizer", file="tokenizer.json")
    section = model.generation.model_copy(update={"text": file})
    found = binding_of(model.model_copy(update={"generation": section}), text, "fp32")
    assert (found.format, found.has_progress) == (b"SQS\x02", True)
    assert not binding_of(model, text, "fp32").has_progress


def test_state_of_steps_comes_back_bit_for_bit(moods: StateBinding) -> None:
    token = seal_steps(KEYS, moods, STEPS)
    found = open_steps(KEYS, moods, token)
    assert found.position == STEPS.position
    assert [row.tobytes() for row in found.rows] == [row.tobytes() for row in ROWS]
    assert len(token) == moods.size


# Keys.


def test_first_key_seals_and_all_open(letters: StateBinding) -> None:
    old, both, new = Keys([FIRST]), Keys([SECOND, FIRST]), Keys([SECOND])
    assert open_text(both, letters, seal_text(old, letters, TEXT)).seed == TEXT.seed
    assert open_text(new, letters, seal_text(both, letters, TEXT)).seed == TEXT.seed
    assert "a key that it does not know" in refusal(letters, seal_text(both, letters, TEXT), old)


def test_drawn_keys_differ(letters: StateBinding) -> None:
    assert "a key that it does not know" in refusal(
        letters, seal_text(generate_keys(), letters, TEXT), generate_keys()
    )


def test_keys_do_not_show() -> None:
    shown = f"{Keys([FIRST, SECOND])!r} {Keys([FIRST])}"
    assert "1" * 4 not in shown
    assert FIRST.hex()[:8] not in shown


def test_file_of_keys_may_have_comments_and_blank_lines(tmp_path: Path, letters: StateBinding) -> None:
    (path := tmp_path / "keys").write_text(f"# new\n\n  {SECOND.hex().upper()}\t\r\n#old\n{FIRST.hex()}\n\n")
    keys = read_keys(path)
    assert seal_text(keys, letters, TEXT) == seal_text(Keys([SECOND]), letters, TEXT)
    assert open_text(keys, letters, seal_text(KEYS, letters, TEXT)).position == TEXT.position


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("", "expected at least one key, found none", id="empty"),
        pytest.param("# nothing\n\n", "expected at least one key, found none", id="comments alone"),
        pytest.param(
            "ab" * 32 + "\n" + "cd" * 31,
            "line 2: expected at least 32 bytes (64 digits), found 31",
            id="too short",
        ),
        pytest.param(
            "\n" + "zz" * 32, "line 2: expected an even number of hexadecimal digits", id="not hexadecimal"
        ),
        pytest.param("a" * 65, "line 1: expected an even number of hexadecimal digits", id="half a byte"),
        pytest.param(
            "ab " * 32, "line 1: expected an even number of hexadecimal digits", id="spaces between"
        ),
        pytest.param(
            "ab" * 32 + " # mine",
            "line 1: expected an even number of hexadecimal digits",
            id="comment behind a key",
        ),
        pytest.param("ä" * 64, "line 1: expected an even number of hexadecimal digits", id="not ASCII"),
    ],
)
def test_wrong_file_of_keys_names_the_line_and_never_the_key(tmp_path: Path, text: str, found: str) -> None:
    (path := tmp_path / "keys").write_text(text)
    with pytest.raises(KeysRefused) as caught:
        read_keys(path)
    assert str(path) in str(caught.value)
    assert found in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("abab", "cdcd", "zzzz", "aaaa"))


def test_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysRefused, match="No such file"):
        read_keys(tmp_path / "keys")


# What is wrong with a token.


@given(data=st.data())
def test_truncated_token_is_called_so_at_every_length(letters: StateBinding, data: st.DataObject) -> None:
    token = seal_text(KEYS, letters, TEXT)
    length = data.draw(st.integers(1, len(token) - 1))
    assert f"expected a sealed state of {letters.size} bytes, found {length}: it is truncated" in refusal(
        letters, token[:length]
    )


def test_every_flipped_bit_is_noticed(
    letters: StateBinding, prices: StateBinding, moods: StateBinding
) -> None:
    for bound, token in (
        (letters, seal_text(KEYS, letters, TEXT)),
        (moods, seal_steps(KEYS, moods, STEPS)),
        (prices, seal_series(KEYS, prices, SERIES)),
    ):
        for bit in range(8 * len(token)):
            altered = bytearray(token)
            altered[bit // 8] ^= 1 << bit % 8
            assert "altered" in refusal(bound, bytes(altered))


@pytest.mark.parametrize("more", [1, 1000, 1 << 20])
def test_too_long_a_token_is_refused_before_anything_is_hashed(
    letters: StateBinding, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = seal_text(KEYS, letters, TEXT) + bytes(more)
    monkeypatch.setattr(Keys, "verify", None)
    assert f"of {letters.size} bytes, found {letters.size + more}: it is too long" in refusal(letters, token)


@given(st.binary(min_size=1, max_size=300))
def test_random_bytes_are_refused(letters: StateBinding, token: bytes) -> None:
    assert refusal(letters, token).startswith("expected a sealed state ")


def test_another_format_is_called_so(letters: StateBinding) -> None:
    token = seal_text(KEYS, letters, TEXT)
    assert "another format" in refusal(letters, token[:3] + b"\x02" + token[4:])


def test_token_of_another_rpc_is_called_so(
    letters: StateBinding, prices: StateBinding, moods: StateBinding
) -> None:
    assert (
        refusal(moods, seal_text(KEYS, letters, TEXT))
        == "expected a sealed state of the rpc InferStream, found one of Generate"
    )
    assert (
        refusal(prices, seal_steps(KEYS, moods, STEPS))
        == "expected a sealed state of the rpc ForecastStream, found one of InferStream"
    )
    assert (
        refusal(letters, seal_series(KEYS, prices, SERIES))
        == "expected a sealed state of the rpc Generate, found one of ForecastStream"
    )
    assert (
        refusal(prices, seal_text(KEYS, letters, TEXT))
        == "expected a sealed state of the rpc ForecastStream, found one of Generate"
    )


@pytest.mark.parametrize("widths", [(3, 2), (9, 9)], ids=["of the same size", "of another size"])
def test_token_of_another_model_version_or_variant_is_called_so(
    models: Path, widths: tuple[int, ...]
) -> None:
    model, text = model_of(models, "letters")
    own = replace(binding_of(model, text, "fp32"), widths=(3, 2))
    others = {
        "one of another model": binding_of(model.model_copy(update={"name": "others"}), text, "fp32"),
        "one of version 2": binding_of(model.model_copy(update={"version": 2}), text + " ", "fp32"),
        "one of another model of that name and version": binding_of(model, text + " ", "fp32"),
        "one of int8": binding_of(model, text, "int8"),
    }
    state = replace(TEXT, rows=tuple(np.zeros(width, np.float32) for width in widths))
    for found, bound in others.items():
        assert refusal(own, seal_text(KEYS, replace(bound, widths=widths), state)).endswith(f"found {found}")


def test_seal_is_looked_at_before_what_is_sealed(letters: StateBinding, models: Path) -> None:
    model, text = model_of(models, "letters")
    other = replace(binding_of(model, text, "int8"), widths=(3, 2))
    assert "does not know" in refusal(letters, seal_text(Keys([SECOND]), other, TEXT))
