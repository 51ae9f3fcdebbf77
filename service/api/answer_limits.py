"""Bounds the bytes of answers, before anything is computed.

Clients of gRPC take messages of 4 MiB unless told otherwise, and drop a larger answer when its work is done.
The size of an answer is estimated from its request, never too low: a field takes 1 byte for its tag, a length
or a whole number of 32 bits at most 5, a float 4 and a double 8.
"""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from service.errors import AnswerTooLarge
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.limits import Limits, check_count, check_texts

# Bytes of a field with its tag: those of a message or text beside its contents, and of numbers.
_HEADER = _NUMBER = 6
_FLOAT, _DOUBLE, _SEED = 5, 9, 11
_FEWER_TEXTS = "ask for fewer texts per call"
_FEWER_STEPS = "ask for fewer series, steps or quantiles per call"
_ANY = "ask for less in one call, or raise the limits of server and client"


def check_answer(field: str, size: int, max_bytes: int, advice: str = _ANY) -> None:
    """Raise AnswerTooLarge for an answer of more bytes than the server's limit.

    Args:
        field: path in the request of what makes the answer large.
        size: size of the answer, or the largest that it may have, bytes.
        max_bytes: the limit.
        advice: what the caller can do.
    """
    if size > max_bytes:
        raise AnswerTooLarge(field, size, max_bytes, advice)


def bounded(serialize: Callable[[Any], bytes], max_bytes: int) -> Callable[[Any], bytes]:
    """Return a serializer that raises AnswerTooLarge instead of returning more bytes than the limit."""

    def serialize_bounded(response: Any) -> bytes:
        data = serialize(response)
        check_answer("request", len(data), max_bytes)
        return data

    return serialize_bounded


def check_scores(lengths: Sequence[int], limits: Limits, alternative_bytes: int = 0) -> None:
    """Raise AnswerTooLarge where the scores of texts would be too large an answer.

    Args:
        lengths: tokens of each text, which may be more than its characters.
        limits: the server's limits.
        alternative_bytes: size of the alternatives of a token, of all of them; 0: none are wanted.
    """
    size = _NUMBER + len(lengths) * (2 * _HEADER + 2 * _DOUBLE) + (4 + alternative_bytes) * sum(lengths)
    check_answer("texts", size, limits.answer_bytes, _FEWER_TEXTS)


def size_of_alternatives(count: int, max_token_bytes: int) -> int:
    """Return the most bytes that so many alternatives of one token take; 0 for none."""
    return _HEADER + count * (2 * _HEADER + max_token_bytes + _FLOAT) if count else 0


def check_classes(texts: Sequence[str], name: str, task: ClassificationTask) -> None:
    """Raise InvalidArgument for texts beyond a limit where their classes would be too large an answer.

    Args:
        texts: texts of the request.
        name: id of the request, which the answer carries.
        task: task of the model.
    """
    classes = task.num_labels * (2 * _HEADER + _FLOAT) + task.label_bytes
    per_text = 2 * _HEADER + task.max_label_bytes + _FLOAT + _NUMBER + classes
    size = _NUMBER + _HEADER + 4 * len(name) + len(texts) * per_text
    if size > task.limits.answer_bytes:
        check_texts(texts, task.limits)
        check_answer("texts", size, task.limits.answer_bytes, _FEWER_TEXTS)


def check_forecasts(count: int, horizon: int, levels: Sequence[float], task: ForecastingTask) -> None:
    """Raise InvalidArgument for a request beyond a limit where its forecasts would be too large an answer.

    Args:
        count: number of series.
        horizon: steps ahead; 0: the model's.
        levels: quantiles wanted; none: the model's.
        task: task of the model.
    """
    steps, quantiles = horizon or task.horizon, len(levels) or task.num_quantiles
    size = _NUMBER + count * _forecast_bytes(steps, quantiles)
    if size > task.limits.answer_bytes:
        check_count("series", "series", count, task.limits.items)
        task.select(horizon, levels)
        check_answer("series", size, task.limits.answer_bytes, _FEWER_STEPS)


def check_forecast(steps: int, quantiles: int, name: str, state_bytes: int, limits: Limits) -> None:
    """Raise AnswerTooLarge where the answer to a message of a ForecastStream would be too large.

    Args:
        steps: steps ahead.
        quantiles: number of quantiles of a step.
        name: id of the series, which the answer carries.
        state_bytes: size of the sealed state that it carries; 0: none.
        limits: the server's limits.
    """
    size = _NUMBER + 2 * _HEADER + 4 * len(name) + _forecast_bytes(steps, quantiles) + state_bytes
    field = "return_state" if state_bytes else "horizon"
    check_answer(field, size, limits.answer_bytes, "ask for fewer steps or quantiles, or for no state")


def check_last_piece(state_bytes: int, limits: Limits) -> None:
    """Raise AnswerTooLarge where a generation's last message would be too large with its sealed state."""
    others = 4 * _HEADER + 5 * _NUMBER + _SEED
    size = others + 8 * limits.piece_tokens + state_bytes
    check_answer(
        "return_state", size, limits.answer_bytes, "ask for no state, or raise the limits of both ends"
    )


def fitted(response: Message, max_bytes: int, *shorten: Callable[[Any], None]) -> bool:
    """Shorten a response until it fits, by one function after the other; return whether it does."""
    for change in shorten:
        if response.ByteSize() <= max_bytes:
            return True
        change(response)
    return response.ByteSize() <= max_bytes


def _forecast_bytes(steps: int, quantiles: int) -> int:
    return _HEADER + _DOUBLE + steps * (_HEADER + _DOUBLE + quantiles * (2 + 2 * _DOUBLE))
