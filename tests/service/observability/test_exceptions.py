"""service.observability.exceptions."""

import errno

import pytest

from service.errors import InvalidArgument, ModelFailure
from service.observability.exceptions import MAX_EXCEPTIONS, MAX_FRAMES, describe, describe_as_text

SAID = "gewgaw"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301 -- gives the error a traceback
    except BaseException as caught:
        return caught


def described(error: BaseException) -> list[dict[str, object]]:
    return describe((type(error), error, error.__traceback__))


def as_text(error: BaseException) -> str:
    return describe_as_text((type(error), error, error.__traceback__))


@pytest.mark.parametrize(
    "error", [KeyError(SAID), ValueError(SAID), InvalidArgument("text", SAID), AssertionError(SAID)]
)
def test_text_is_left_out(error: Exception) -> None:
    error.add_note(SAID)
    [one] = described(raised(error))
    assert one["exc_type"] == type(error).__name__
    assert set(one) == {"exc_type", "frames"}
    assert SAID not in as_text(error)


def test_text_of_a_class_that_is_free_of_callers_words_is_shown() -> None:
    [one] = described(raised(ModelFailure("onnxruntime failed: node 3")))
    assert one["exc_value"] == "onnxruntime failed: node 3"
    assert as_text(raised(ModelFailure("node 3"))).endswith("ModelFailure: node 3")


def test_text_that_is_shown_is_escaped() -> None:
    error = raised(ModelFailure("node 'x\n2026 [error] forged\x1b[31m'"))
    assert described(error)[0]["exc_value"] == r"node 'x\n2026 [error] forged\x1b[31m'"
    assert as_text(error).endswith(r"ModelFailure: node 'x\n2026 [error] forged\x1b[31m'")


def test_system_error_has_the_text_of_its_number() -> None:
    [one] = described(OSError(errno.EADDRINUSE, SAID, SAID))
    assert one["exc_value"] == "Address already in use"


def test_frames_name_file_function_and_line() -> None:
    [one] = described(raised(ValueError()))
    frames: object = one["frames"]
    assert isinstance(frames, list)
    assert frames[-1]["name"] == "raised"
    assert frames[-1]["filename"] == __file__
    assert f'File "{__file__}", line {frames[-1]["lineno"]}, in raised' in as_text(raised(ValueError()))


def test_causes_and_members_of_groups_follow() -> None:
    group = raised(ExceptionGroup(SAID, [TypeError(SAID)]), raised(KeyError(SAID)))
    assert [one["exc_type"] for one in described(group)] == ["ExceptionGroup", "TypeError", "KeyError"]


def test_circle_and_length_of_causes_are_bounded() -> None:
    first, second = raised(ValueError()), raised(TypeError())
    first.__cause__, second.__cause__ = second, first
    assert len(described(first)) == 2
    error = raised(ValueError())
    for _ in range(100):
        error = raised(ValueError(), error)
    assert len(described(error)) == MAX_EXCEPTIONS


def test_depth_of_a_traceback_is_bounded() -> None:
    def recurse(depth: int) -> None:
        if depth == 0:
            raise ValueError
        recurse(depth - 1)

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text does not matter
        recurse(100)
    [one] = described(caught.value)
    frames: object = one["frames"]
    assert isinstance(frames, list)
    assert len(frames) == MAX_FRAMES
    assert frames[-1]["name"] == "recurse"
